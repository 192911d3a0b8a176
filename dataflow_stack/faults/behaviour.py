"""Faults of the services around the worker: carrier, pipeline, order feed."""

from __future__ import annotations

from functools import partial

from .. import health
from ..config import StackConfig
from .base import Fault, Note, send, wait_for

__all__ = ["BEHAVIOUR_FAULTS"]

_LATENCY_S = 6.0
#: Orders of a surge come faster than the worker's passes can move their documents.
_SURGE = {"intervalS": 0.06, "lateShare": 1.0}
#: The feed's own pace.
_CALM = {"intervalS": 3.0, "lateShare": 0.02}


def _set_carrier(config: StackConfig, **wanted: float) -> Note:
    before = send(config, "carrier-api", "GET", "/admin/behaviour")
    send(config, "carrier-api", "PUT", "/admin/behaviour", before | wanted)
    return {name: before[name] for name in wanted}


def _reset_carrier(config: StackConfig, note: Note, *, name: str, normal: float) -> None:
    now = send(config, "carrier-api", "GET", "/admin/behaviour")
    wanted = now | {name: note.get(name, normal)}
    send(config, "carrier-api", "PUT", "/admin/behaviour", wanted)


def _sees_carrier(config: StackConfig, *, name: str, wanted: float) -> bool:
    return bool(send(config, "carrier-api", "GET", "/admin/behaviour")[name] >= wanted)


def _pause_dag(config: StackConfig, paused: bool) -> Note:
    path = f"/api/v2/dags/{config.settings['PIPELINE_DAG_ID']}"
    send(config, "pipeline-api", "PATCH", path, {"is_paused": paused})
    return {}


def _sees_paused(config: StackConfig) -> bool:
    path = f"/api/v2/dags/{config.settings['PIPELINE_DAG_ID']}"
    return bool(send(config, "pipeline-api", "GET", path)["is_paused"])


def _fail_dag(config: StackConfig, failing: bool) -> Note:
    send(config, "pipeline-api", "PUT", "/admin/behaviour", {"failing": failing})
    return {}


def _sees_failing(config: StackConfig) -> bool:
    return bool(send(config, "pipeline-api", "GET", "/admin/behaviour")["failing"])


def _start_surge(config: StackConfig) -> Note:
    before = send(config, "fulfillment-service", "GET", "/admin/feed")
    send(config, "fulfillment-service", "PUT", "/admin/feed", _SURGE)
    return {} if before == _SURGE else before


def _sees_surge(config: StackConfig) -> bool:
    return send(config, "fulfillment-service", "GET", "/admin/feed") == _SURGE


def _end_surge(config: StackConfig, note: Note) -> None:
    send(config, "fulfillment-service", "PUT", "/admin/feed", note or _CALM)

    def drained() -> bool:
        # Passes without the usual pause between them: what piled up must not outlive the fault.
        send(config, "fulfillment-service", "POST", "/fulfillment/worker/run")
        return health.read_lag_minutes(config) < 1

    worker = send(config, "fulfillment-service", "GET", "/fulfillment/worker")
    if not worker["paused"]:
        wait_for("the surge is drained", drained, deadline_s=120)


BEHAVIOUR_FAULTS = (
    Fault(
        "carrier_timeout",
        f"carrier-api takes {_LATENCY_S:g} s, longer than its client waits",
        partial(_set_carrier, latencyS=_LATENCY_S),
        partial(_reset_carrier, name="latencyS", normal=0.02),
        partial(_sees_carrier, name="latencyS", wanted=_LATENCY_S),
    ),
    Fault(
        "carrier_errors",
        "carrier-api answers 503",
        partial(_set_carrier, errorRate=1.0),
        partial(_reset_carrier, name="errorRate", normal=0.0),
        partial(_sees_carrier, name="errorRate", wanted=1.0),
    ),
    Fault(
        "pipeline_paused",
        "the release DAG is paused",
        lambda config: _pause_dag(config, True),
        lambda config, _: _pause_dag(config, False),
        _sees_paused,
    ),
    Fault(
        "pipeline_failing",
        "the release DAG's runs fail",
        lambda config: _fail_dag(config, True),
        lambda config, _: _fail_dag(config, False),
        _sees_failing,
    ),
    Fault(
        "surge",
        "late orders arrive faster than a healthy worker moves their labels",
        _start_surge,
        _end_surge,
        _sees_surge,
    ),
)
