"""Steps 2.3 and 2.4: how much waits, by metric and by a listing of our own."""

from __future__ import annotations

from datetime import datetime

from ..errors import ClientError
from ..investigation import Investigation
from ..model import ActionPhase, Cause, Line, Plot, Reading, Status
from .samples import read_range
from .waiting import Waiting, list_prefixes, read_waiting

__all__ = ["read_backlog_bytes", "read_backlog_objects", "say_waiting"]


def read_backlog_objects(inv: Investigation) -> Reading:
    """Count the waiting objects; a real one over the lag threshold is a breach by itself."""
    return _read(inv, "2.3", "objects", "fulfillment_artifacts_backlog_objects")


def read_backlog_bytes(inv: Investigation) -> Reading:
    """Sum the waiting bytes; a real object over the lag threshold is a breach by itself."""
    return _read(inv, "2.4", "bytes", "fulfillment_artifacts_backlog_bytes")


def _read(inv: Investigation, step: str, unit: str, metric: str) -> Reading:
    limit = inv.settings.lag_threshold_minutes
    waiting = read_waiting(inv)
    sizes = [o.info.size_bytes if unit == "bytes" else 1 for o in waiting.objects]
    real = sum(s for o, s in zip(waiting.objects, sizes, strict=True) if o.origin == "real")
    metric_total, metric_text, series = _read_metric(inv, metric)
    agrees = None if metric_total is None else _agrees(metric_total, sum(sizes), unit)
    overdue = waiting.overdue("real", limit)
    oldest = waiting.oldest("real")
    made = [o.info.last_modified for o in waiting.of("synthetic")]
    observations = waiting.observations(limit) if step == "2.3" else {}
    return inv.make_reading(
        step,
        f"backlog {unit}",
        Status.BREACH if overdue else Status.OK,
        value=real,
        unit=unit,
        threshold=f"a real object waits over {limit:g} min",
        source=(
            f"listing of {inv.clients.store.bucket}/{{{','.join(list_prefixes(inv))}}} "
            f"at {inv.clients.store.endpoint}; {inv.clients.prometheus.url} {metric}"
        ),
        reason=f"{say_waiting(waiting, limit)}; {metric_text}"
        + ("; the two differ: one of them is stale" if agrees is False else ""),
        rows=waiting.rows(50),
        first_seen={Cause.SYNTHETIC: min(made)} if made else {},
        observations={**observations, "metric_agrees": agrees},
        plot=Plot(
            kind="bytes" if unit == "bytes" else "backlog",
            lines=tuple(series),
            marks=_list_marks(inv),
        ),
        since=oldest.since if overdue and oldest else None,
    )


def say_waiting(waiting: Waiting, limit_minutes: float) -> str:
    """Say in words what waits and for how long."""
    real, synthetic = waiting.of("real"), waiting.of("synthetic")
    overdue = waiting.overdue("real", limit_minutes)
    text = f"{len(real)} real objects wait, {len(overdue)} of them over {limit_minutes:g} min"
    if real:
        text += f" (longest {waiting.lag_minutes('real'):.1f} min)"
    if synthetic:
        late = len(waiting.overdue("synthetic", limit_minutes))
        text += f"; {len(synthetic)} synthetic ones wait too, {late} over the threshold (a drill)"
    return text


def _list_marks(inv: Investigation) -> tuple[tuple[datetime, str], ...]:
    """Return what the journal says was done, and when, for a plot."""
    applied = inv.journal.list_actions(ActionPhase.APPLIED)[-5:]
    return tuple((e.at, f"{action.step} {action.action}") for e, action in applied)


def _read_metric(inv: Investigation, metric: str) -> tuple[float | None, str, list[Line]]:
    """Return the metric's sum over the same prefixes; its absence proves nothing here."""
    prefixes, prometheus = set(list_prefixes(inv)), inv.clients.prometheus
    try:
        found = [s for s in prometheus.query(metric) if s.labels.get("prefix") in prefixes]
        drawn = read_range(
            prometheus, metric, now=inv.now(), window=inv.window, labels=("prefix", "origin")
        )
        series = [s for s in drawn if s.name.split(" ", maxsplit=1)[0] in prefixes]
    except ClientError as error:
        return None, f"the metric could not be read: {_first_sentence(error)}", []
    if not found:
        return None, "the metric has no series", series
    total = sum(s.samples[-1].value for s in found)
    return total, f"the metric says {total:.0f}", series


def _first_sentence(error: ClientError) -> str:
    return str(error).partition(". ")[0]


def _agrees(metric: float, listed: float, unit: str) -> bool:
    # The exporter looks every few seconds and labels come and go: only a gross difference counts.
    slack = 20 if unit == "objects" else 20 * 256 * 1024
    return abs(metric - listed) <= max(slack, 0.5 * max(metric, listed))
