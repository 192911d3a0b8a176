"""Step 5.1: does the worker move labels, and does the carrier answer it."""

from __future__ import annotations

import time
from datetime import datetime

from ...analysis.causes import STORE_SERVICES
from ...clients.fulfillment import WorkerState
from ...clients.services import ServiceState
from ...errors import ClientError, NotFoundError
from ...investigation import Investigation
from ...model import Json, Line, Plot, Reading, Status, format_time
from ..samples import one_series, read_range
from .events import read_events
from .signals import Signals, read_logged_reasons, read_signals

__all__ = ["read_worker"]

_STILL_S = 15.0
_UNKNOWN_GAP_STILL_S = 300.0
_BAD_SHARE = 0.2
_FRESH_S = 120.0
_UP = 'up{job="artifact-exporter"}'
_LATENCY = (
    "histogram_quantile(0.95, sum by (le, outcome) "
    "(rate(fulfillment_carrier_request_seconds_bucket[1m])))"
)

_TIME_OUT = "SERVICE_CARRIER_TIMEOUT_S"

sleep = time.sleep


def read_worker(inv: Investigation) -> Reading:
    """Read services, worker and carrier as far as each can be read; unknown when none can."""
    states = _read_services(inv)
    worker, answers, worker_error = _read_state(inv)
    signals, signal_error = _read_counts(inv)
    running = _is_running(states, inv.settings.worker_service)
    still = _watch(inv, worker, signals.run_gap_s if signals else None) if worker else None
    timeouts, errors = (signals.share(o) if signals else None for o in ("timeout", "error"))
    problems = [
        text
        for bad, text in (
            (running is False, f"{inv.settings.worker_service} does not run"),
            (running and answers is False, f"its API does not answer: {worker_error}"),
            (worker is not None and worker.paused, "the worker is paused"),
            (still, "the worker begins no new pass"),
            ((timeouts or 0) > _BAD_SHARE, f"{timeouts or 0:.0%} of carrier requests time out"),
            ((errors or 0) > _BAD_SHARE, f"{errors or 0:.0%} of carrier requests fail"),
        )
        if bad
    ]
    if problems:
        status, reason = Status.BREACH, "; ".join(problems)
    elif worker is None or signals is None or still is None:
        status, reason = Status.UNKNOWN, worker_error or signal_error or "no pass could be seen"
    else:
        status, reason = Status.OK, "the worker runs its passes and the carrier answers it"
    down = [s.name for s in states or [] if not s.running]
    watchers, blind_since = _read_watchers(inv, states)
    events, without = read_events(inv)
    return inv.make_reading(
        "5.1",
        "worker and carrier",
        status,
        value="; ".join(problems) or ("working" if status is Status.OK else None),
        threshold=f"stopped, paused, still, or over {_BAD_SHARE:.0%} of carrier requests fail",
        source=f"{inv.clients.fulfillment.url}/fulfillment/worker; "
        f"{signals.source if signals else 'no counters'}; services",
        reason=reason + (f"; not running: {', '.join(down)}" if down and problems else ""),
        rows=[_to_row(s) for s in states or []],
        first_seen={
            **_first(signals, carrier_timeout="carrier_timeout", carrier_errors="carrier_error"),
            **_date_states(inv, states, worker),
            **({"metrics_blind": blind_since} if blind_since else {}),
        },
        observations={
            "worker_running": running,
            "worker_answers": answers,
            "worker_paused": worker.paused if worker else None,
            "worker_stands_still": still,
            "worker_last_move": format_time(worker.last_move_at)
            if worker and worker.last_move_at
            else None,
            "carrier_timeout_share": timeouts,
            "carrier_error_share": errors,
            "surplus_objects": signals.surplus if signals else None,
            "drain_per_minute": signals.drained if signals else None,
            **read_logged_reasons(inv, "carrier_timeout", "carrier_error"),
            **watchers,
        },
        plot=Plot(kind="carrier", lines=tuple(_read_latency(inv)), threshold=_read_time_out(inv)),
        facts=dict(worker.raw) if worker else {},
        events=events,
        events_without=without,
    )


def _first(signals: Signals | None, **causes: str) -> dict[str, datetime]:
    found = signals.first if signals else {}
    return {cause: found[r] for cause, r in causes.items() if r in found}


def _date_states(
    inv: Investigation, states: list[ServiceState] | None, worker: WorkerState | None
) -> dict[str, datetime]:
    """Return since when what the processes' states prove is so, if it is."""
    own = next((s for s in states or [] if s.name == inv.settings.worker_service), None)
    support = next((s for s in states or [] if "support" in s.name and not s.running), None)
    store = next((s for s in states or [] if s.name in STORE_SERVICES and not s.running), None)
    found = {
        "store_down": store.since if store else None,
        "worker_stopped": own.since if own and not own.running else None,
        "bad_prefix": own.since if own and own.running else None,
        "worker_stuck": worker.last_run_at if worker else None,
        "support_down": support.since if support else None,
    }
    return {cause: at for cause, at in found.items() if at is not None}


def _read_services(inv: Investigation) -> list[ServiceState] | None:
    try:
        return inv.clients.services.list_services()
    except ClientError:
        return None


def _read_state(inv: Investigation) -> tuple[WorkerState | None, bool | None, str]:
    try:
        return inv.clients.fulfillment.read_worker(), True, ""
    except NotFoundError:
        return None, True, "the service has no API for its worker"
    except ClientError as error:
        return None, False, str(error)


def _read_counts(inv: Investigation) -> tuple[Signals | None, str]:
    try:
        return read_signals(inv), ""
    except ClientError as error:
        return None, str(error)


def _is_running(states: list[ServiceState] | None, name: str) -> bool | None:
    # One that is just starting neither runs nor is stopped: the next look tells.
    found = next((s for s in states or [] if s.name == name), None)
    return None if found is None or found.state.upper() == "STARTING" else found.running


def _watch(inv: Investigation, worker: WorkerState, gap_s: float | None) -> bool | None:
    """Tell whether the worker stands still, by its own clock; look on for up to 15 s if unsure."""
    limit_s = _UNKNOWN_GAP_STILL_S if gap_s is None else max(_STILL_S, 6 * gap_s)
    fulfillment, before = inv.clients.fulfillment, worker.last_run_at
    try:
        if before is None or (age_s := (_clock(inv) - before).total_seconds()) > limit_s:
            return None if before is None else True
        waited_s = 0.0
        while age_s > min(5.0, limit_s / 2) and waited_s < _STILL_S:
            sleep(1.0)
            waited_s += 1.0
            now_at = fulfillment.read_worker().last_run_at
            if now_at is not None and now_at > before:
                return False
            if (_clock(inv) - before).total_seconds() > limit_s:
                return True
    except ClientError:
        return None
    return False if waited_s < _STILL_S else None


def _clock(inv: Investigation) -> datetime:
    return inv.clients.fulfillment.read_clock()


def _read_watchers(
    inv: Investigation, states: list[ServiceState] | None
) -> tuple[dict[str, Json], datetime | None]:
    """Observe Prometheus, the exporter and support, which see the labels for us.

    Returns
    -------
    The observations, and since when the exporter is not scraped, if it is not.
    """
    found: dict[str, Json] = {"services_down": [s.name for s in states or [] if not s.running]}
    blind_since = None
    try:
        seen = inv.clients.prometheus.query_samples(_UP, inv.window.total_seconds())
        found["prometheus_answers"] = True
        # An exporter that moved leaves a series behind: only the newest scrape speaks of now.
        scrapes = one_series(seen)
        is_fresh = bool(scrapes) and (inv.now() - scrapes[-1].at).total_seconds() < _FRESH_S
        found["exporter_up"] = scrapes[-1].value == 1 if is_fresh else None
        if found["exporter_up"] is False:
            blind_since = max((s.at for s in scrapes if s.value == 1), default=None)
    except ClientError:
        found["prometheus_answers"] = False
    try:
        inv.clients.support.read_health()
        found["support_answers"] = True
        found["support_failures"] = _count_support_failures(inv)
    except ClientError:
        found.setdefault("support_answers", False)
    return found, blind_since


def _count_support_failures(inv: Investigation) -> float | None:
    query = "sum(increase(support_timeline_collection_failures_total[1m]))"
    try:
        found = inv.clients.prometheus.query(query)
    except ClientError:
        return None
    return found[0].samples[-1].value if found else None


def _read_latency(inv: Investigation) -> list[Line]:
    try:
        return read_range(
            inv.clients.prometheus, _LATENCY, now=inv.now(), window=inv.window, labels=("outcome",)
        )
    except ClientError:
        return []


def _read_time_out(inv: Investigation) -> float | None:
    """Return how long the worker waits for the carrier, in seconds; None when it is not told."""
    try:
        told = inv.clients.services.read_effective_settings(inv.settings.worker_service)
        return float(told[_TIME_OUT])
    except (ClientError, KeyError, ValueError):
        return None


def _to_row(state: ServiceState) -> dict[str, Json]:
    return {
        "service": state.name,
        "running": state.running,
        "state": state.state,
        "since": format_time(state.since) if state.since else None,
        "exit_code": state.exit_code,
    }
