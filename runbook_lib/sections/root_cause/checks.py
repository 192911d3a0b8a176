"""Steps 5.2 to 5.4: room in the store, the pipeline, prefix and credentials."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile

from ...analysis.backlog import compute_backlog
from ...errors import ClientError, NotFoundError
from ...investigation import Investigation
from ...model import Cause, DrainForecast, Json, Line, Plot, Reading, Status, format_time
from ..flow import draw_flow, read_rates
from .signals import Signals, read_logged_reasons, read_signals

__all__ = ["read_configuration", "read_pipeline", "read_room"]

_LOW_BYTES = 2 * 2**30
_WRITES = ("storage_full", "store_unreachable")
_RIGHTS = ("bad_credentials", "access_denied", "no_such_bucket")
_PLACES = ("bucket", "pending_prefix", "ready_prefix")


def read_room(inv: Investigation) -> Reading:
    """Tell whether the store has room: refused writes counted, told by the log, and free bytes."""
    signals = read_signals(inv)
    logged = read_logged_reasons(inv, *_WRITES)
    try:
        free = inv.clients.store.read_free_bytes()
    except ClientError:
        free = None
    refused = signals.recent.get("storage_full", 0.0)
    if refused:
        status, reason = Status.BREACH, f"{refused:.0f} writes were refused for want of room"
    elif free is not None and free < _LOW_BYTES:
        status, reason = Status.BREACH, f"only {free / 2**20:.0f} MiB are free"
    elif not signals.recent:
        status, reason = Status.UNKNOWN, "the worker counts no failures by reason"
    else:
        status, reason = Status.OK, "no write was refused for want of room just now"
        if free is None:
            reason += "; the store does not tell its free capacity"
    return inv.make_reading(
        "5.2",
        "room in the store",
        status,
        value=refused if signals.recent else None,
        unit="refused writes",
        threshold="a write refused for want of room, or under 2 GiB free",
        source=f"{signals.source}{{reason=storage_full}}; {inv.clients.store.endpoint} capacity",
        reason=reason,
        first_seen=_first(signals, storage_full="storage_full", store_down="store_unreachable"),
        observations={
            "store_free_bytes": free,
            **signals.failures(*_WRITES),
            **logged,
        },
    )


def read_pipeline(inv: Investigation) -> Reading:
    """Tell whether the DAG that releases labels runs, and how fast labels come and leave."""
    pipeline = inv.clients.pipeline
    dag, runs = pipeline.read_dag(), pipeline.list_runs(limit=10)
    ended = [run for run in runs if run.state in ("success", "failed")]
    failed = list(takewhile(lambda run: run.state == "failed", ended))
    if dag.is_paused:
        status, reason = Status.BREACH, f"the DAG {dag.id} is paused"
    elif dag.has_import_errors:
        status, reason = Status.BREACH, f"the DAG {dag.id} has import errors"
    elif dag.is_stale:
        status = Status.BREACH
        reason = f"the file of DAG {dag.id} is gone: no run is scheduled"
    elif failed:
        status, reason = Status.BREACH, f"its last {len(failed)} runs failed"
    elif not ended:
        status, reason = Status.UNKNOWN, "no run has ended yet"
    else:
        status, reason = Status.OK, "not paused, and the newest run succeeded"
    is_broken = dag.has_import_errors or dag.is_stale
    # Nobody tells when a DAG was paused: not before its newest run.
    since = {
        Cause.PIPELINE_FAILING: failed[-1].started_at if failed else None,
        Cause.PIPELINE_PAUSED: runs[0].started_at if runs else None,
    }
    series, forecast = _read_flow(inv)
    return inv.make_reading(
        "5.3",
        "pipeline",
        status,
        value="paused" if dag.is_paused else (ended[0].state if ended else "no run"),
        threshold="paused, import errors, file gone, or the newest run failed",
        source=f"{pipeline.url}/api/v2/dags/{pipeline.dag_id}",
        reason=reason,
        rows=[
            {
                "run": run.id,
                "state": run.state,
                "started": format_time(run.started_at) if run.started_at else None,
                "ended": format_time(run.ended_at) if run.ended_at else None,
            }
            for run in runs
        ],
        first_seen={cause: at for cause, at in since.items() if at},
        observations={
            "dag_paused": dag.is_paused,
            "dag_import_errors": is_broken,
            # Old runs of a DAG that cannot be loaded say nothing about new ones.
            "dag_failed_runs": len(failed) if ended and not is_broken else None,
        },
        plot=Plot(kind="flow", lines=tuple(series)),
        forecast=forecast,
    )


def _read_flow(inv: Investigation) -> tuple[list[Line], DrainForecast | None]:
    """Return arrival and drain for a plot, and the forecast, as far as they can be read."""
    series: list[Line] = []
    try:
        series, rates = draw_flow(inv), read_rates(inv)
        backlog = inv.clients.prometheus.query(
            'sum(fulfillment_artifacts_backlog_objects{origin="real",prefix='
            f'"{inv.settings.pending_prefix}"}})'
        )
    except ClientError:
        return series, None
    objects = backlog[0].samples[-1].value if backlog else None
    found = compute_backlog(
        objects=objects, oldest_minutes=None, arrival=rates["arrival"], drain=rates["drain"]
    )
    arrival, drain = found.arrival, found.drain
    return series, DrainForecast(
        arrival_per_min=round(arrival.per_minute, 2) if arrival else None,
        drain_per_min=round(drain.per_minute, 2) if drain else None,
        empty_in_minutes=round(found.minutes_to_empty, 1) if found.minutes_to_empty else None,
        text=f"{found.outlook}: {found.reason}",
    )


def read_configuration(inv: Investigation) -> Reading:
    """Compare where the worker works and with which credentials against the runbook's settings."""
    settings, errors = inv.settings, []
    worker, effective = {}, {}
    try:
        state = inv.clients.fulfillment.read_worker()
        worker = {name: str(getattr(state, name)) for name in _PLACES}
    except NotFoundError:
        errors.append("the service has no API for its worker")
    except ClientError as error:
        errors.append(str(error))
    try:
        effective = inv.clients.services.read_effective_settings(settings.worker_service)
    except ClientError as error:
        errors.append(str(error))
    signals, error_text = _try_signals(inv)
    if error_text:
        errors.append(error_text)
    rows, places = _compare_places(inv, worker, effective)
    match = _match_secret(effective)
    refused = {r: n for r in _RIGHTS if (n := signals.recent.get(r, 0.0))} if signals else {}
    problems = [*places, *(f"{n:.0f} times {reason}" for reason, n in refused.items())]
    if match is False and "bad_credentials" not in refused:
        problems.append("its secret is not the one that the runbook uses")
    if problems:
        status, reason = Status.BREACH, "; ".join(problems)
    elif not rows or signals is None or not signals.recent:
        status, reason = Status.UNKNOWN, "; ".join(errors) or "nothing to compare"
    else:
        status, reason = Status.OK, "place and credentials are right, nothing is denied"
    return inv.make_reading(
        "5.4",
        "prefix and credentials",
        status,
        value="; ".join(problems) or ("right" if status is Status.OK else None),
        threshold="it has another prefix or bucket, or requests are denied",
        source=f"{inv.clients.fulfillment.url}/fulfillment/worker; settings of "
        f"{settings.worker_service}; {signals.source if signals else 'no counters'}",
        reason=reason,
        rows=rows,
        first_seen=_first(
            signals, bad_credentials="bad_credentials", no_permission="access_denied"
        ),
        observations={
            "worker_place": "; ".join(places) if rows else None,
            "credentials_match": match,
            **(signals.failures(*_RIGHTS) if signals else {}),
            **read_logged_reasons(inv, *_RIGHTS),
        },
    )


def _try_signals(inv: Investigation) -> tuple[Signals | None, str]:
    try:
        return read_signals(inv), ""
    except ClientError as error:
        return None, str(error)


def _compare_places(
    inv: Investigation, worker: dict[str, str], effective: dict[str, str]
) -> tuple[list[dict[str, Json]], list[str]]:
    """Compare bucket and prefixes; the worker's own word counts more than its environment."""
    expected = {
        "bucket": ("FULFILLMENT_BUCKET", inv.settings.fulfillment_bucket),
        "pending_prefix": ("PENDING_PREFIX", inv.settings.pending_prefix),
        "ready_prefix": ("READY_PREFIX", inv.settings.ready_prefix),
    }
    rows, wrong = list[dict[str, Json]](), list[str]()
    for name, (variable, wanted) in expected.items():
        found = worker.get(name) or effective.get(variable)
        if found:
            rows.append({"setting": name, "worker": found, "runbook": wanted})
            if found != wanted:
                wrong.append(f"its {name.replace('_', ' ')} is {found!r}, not {wanted!r}")
    return rows, wrong


def _match_secret(effective: dict[str, str]) -> bool | None:
    word = effective.get("MINIO_ROOT_PASSWORD")
    return None if word is None else word == "equal to the store's"


def _first(signals: Signals | None, **causes: str) -> dict[str, datetime]:
    found = signals.first if signals else {}
    return {cause: found[r] for cause, r in causes.items() if r in found}
