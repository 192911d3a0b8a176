"""Faults of processes: stopped, stuck, or started with a wrong configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psutil

from .. import layout
from ..config import StackConfig
from ..places import LocalPlaces
from ..supervisor import Supervisor
from .base import Fault, Note, wait_for, wait_for_service

__all__ = ["PROCESS_FAULTS", "override", "sees_variables", "stop_service"]

_WORKER = "fulfillment-service"


def stop_service(config: StackConfig, *, name: str) -> Note:
    """Stop a service."""
    Supervisor(config).stop(name)
    return {}


def _start_service(config: StackConfig, _: Note, *, name: str) -> None:
    Supervisor(config).start(name)
    wait_for_service(config, name)


def sees_stopped(config: StackConfig, *, name: str) -> bool:
    """Tell whether a service does not run."""
    return not _is_up(config, name)


def sees_variables(config: StackConfig, *, service: str, variables: dict[str, str]) -> bool:
    """Tell whether a service runs with these values of its variables."""
    pid = Supervisor(config).programs()[service]["pid"]
    if not pid:
        return False
    environment = psutil.Process(pid).environ()
    return all(environment.get(name) == value for name, value in variables.items())


def _is_up(config: StackConfig, name: str) -> bool:
    state = Supervisor(config).programs()[name]["statename"]
    return state in ("RUNNING", "STARTING", "BACKOFF")


def override(config: StackConfig, *, service: str, variables: dict[str, str]) -> Note:
    """Restart a service with other values of some variables."""
    overrides = layout.read_overrides(config)
    overrides[service] = overrides.get(service, {}) | variables
    _apply(config, service, overrides)
    return {"variables": sorted(variables)}


def take_back(config: StackConfig, _: Note, *, service: str, names: tuple[str, ...]) -> None:
    """Restart a service with the usual values of these variables."""
    overrides = layout.read_overrides(config)
    kept = {k: v for k, v in overrides.get(service, {}).items() if k not in names}
    overrides[service] = kept
    _apply(config, service, {k: v for k, v in overrides.items() if v})


def _apply(config: StackConfig, service: str, overrides: layout.Overrides) -> None:
    layout.write_overrides(config, overrides)
    layout.write_layout(config)
    supervisor = Supervisor(config)
    supervisor.update()
    supervisor.start(service)
    wait_for_service(config, service)


def _misconfigured(name: str, effect: str, **variables: str) -> Fault:
    return Fault(
        name,
        effect,
        partial(override, service=_WORKER, variables=variables),
        partial(take_back, service=_WORKER, names=tuple(variables)),
        partial(sees_variables, service=_WORKER, variables=variables),
    )


def _stopped(name: str, service: str, effect: str) -> Fault:
    return Fault(
        name,
        effect,
        partial(stop_service, name=service),
        partial(_start_service, name=service),
        partial(sees_stopped, name=service),
    )


def _hold_lock(config: StackConfig) -> Note:
    held = Path(LocalPlaces(config).run("worker.lock.held"))
    held.unlink(missing_ok=True)
    Supervisor(config).start(layout.LOCK_HOLDER)
    wait_for("the worker's run lock is held", held.exists)
    return {}


def _release_lock(config: StackConfig, _: Note) -> None:
    Supervisor(config).stop(layout.LOCK_HOLDER)


PROCESS_FAULTS = (
    _stopped("worker_stopped", _WORKER, "fulfillment-service is stopped"),
    _stopped("store_down", "minio", "the object store is stopped"),
    _stopped("support_down", "support-service", "support-service is stopped"),
    _stopped("metrics_blind", "artifact-exporter", "the artifact-exporter is stopped"),
    Fault(
        "worker_stuck",
        "another process holds the worker's run lock: it lives and moves nothing",
        _hold_lock,
        _release_lock,
        partial(_is_up, name=layout.LOCK_HOLDER.rpartition(":")[2]),
    ),
    _misconfigured(
        "bad_credentials",
        "fulfillment-service runs with a wrong secret key",
        MINIO_ROOT_PASSWORD="not-the-secret-key",  # noqa: S106 - wrong on purpose
    ),
    _misconfigured(
        "bad_prefix",
        "the worker watches a prefix into which nothing is put",
        SERVICE_WORKER_PREFIX="incoming/",
    ),
    _misconfigured(
        "clock_skew",
        "the clock of fulfillment-service is two minutes ahead",
        SERVICE_CLOCK_OFFSET_S="120",
    ),
)
