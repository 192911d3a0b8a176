"""Section 3: the first five minutes. Who knows, how much waits, is the store well. Only reads."""

from __future__ import annotations

import itertools
from datetime import datetime

from ..analysis.log_groups import LogGroup, group_lines
from ..errors import ClientTimeoutError, ConnectionRefusedClientError
from ..investigation import Investigation
from ..model import Conclusion, Json, Plot, Reading, Status, format_time
from ..section import ActionStep, SectionParameters, Step
from .backlog import say_waiting
from .delivery import read_delivery
from .symptoms import conclude_symptoms
from .waiting import Waiting, list_prefixes, read_waiting

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude", "read_store_health"]

NAME = "03_immediate_actions"
TITLE = "Immediate actions"
_SAMPLE = 10
_EDGES = (0, 1, 5, 10, 15, 30, 60, 120, 1440, float("inf"))
_SHARED_MAX_AGE_S = 600.0


class Parameters(SectionParameters):
    """Parameters of section 3."""


def _read_spread(inv: Investigation) -> Reading:
    limit, waiting = inv.settings.lag_threshold_minutes, read_waiting(inv)
    ages = [waiting.minutes(o) for o in waiting.of("real")]
    oldest = waiting.oldest("real")
    return inv.make_reading(
        "3.2",
        "longest wait",
        Status.BREACH if waiting.overdue("real", limit) else Status.OK,
        value=round(waiting.lag_minutes("real"), 1),
        unit="min",
        threshold=f"over {limit:g} min",
        source=_listing_source(inv),
        reason=say_waiting(waiting, limit),
        rows=_count_by_prefix(waiting),
        plot=Plot(
            kind="ages",
            ages=tuple(
                (low, high if high < float("inf") else None, sum(low <= a < high for a in ages))
                for low, high in itertools.pairwise(_EDGES)
            ),
        ),
        since=oldest.since if oldest else None,
    )


def _count_by_prefix(waiting: Waiting) -> list[dict[str, Json]]:
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for item in waiting.objects:
        row = rows.setdefault(
            (item.prefix, item.origin),
            {"prefix": item.prefix, "origin": item.origin, "objects": 0, "bytes": 0}
            | {"longest_minutes": 0.0},
        )
        row["objects"] += 1
        row["bytes"] += item.info.size_bytes
        row["longest_minutes"] = max(row["longest_minutes"], round(waiting.minutes(item), 1))
    return list(rows.values())


def read_store_health(inv: Investigation) -> Reading:
    """Ask the store whether it is alive; a store that does not answer is a breach."""
    store = inv.clients.store
    try:
        live = store.check_live()
        is_live, how, source, why = live.is_live, live.how, live.source, live.reason
    except (ConnectionRefusedClientError, ClientTimeoutError) as error:
        is_live, how, source, why = False, "no answer", store.endpoint, str(error)
    return inv.make_reading(
        "3.3",
        "store health",
        Status.OK if is_live else Status.BREACH,
        value="live" if is_live else "down",
        threshold="anything but live",
        source=source,
        reason=f"by {how}" if is_live else f"restore the store first: {why}",
        observations={"store_live": is_live},
    )


def _read_sample(inv: Investigation) -> Reading:
    waiting = read_waiting(inv)
    rows = waiting.rows(_SAMPLE)
    return inv.make_reading(
        "3.4",
        "sample of waiting objects",
        Status.OK,
        value=len(rows),
        unit="objects",
        source=_listing_source(inv),
        reason=f"the {len(rows)} that wait longest of {len(waiting.objects)}",
        rows=rows,
    )


def _read_worker_log(inv: Investigation) -> Reading:
    service = inv.settings.worker_service
    lines = inv.clients.services.read_logs(service, since=inv.now() - inv.window)
    grouped = group_lines((line.at, line.text) for line in lines)
    telling = [g for g in grouped.groups if g.level in ("error", "warning")]
    errors = [g for g in telling if g.level == "error"]
    if not lines:
        status, reason = Status.UNKNOWN, "the log has no line in the window: that proves nothing"
    elif errors:
        worst = max(errors, key=lambda g: g.count)
        total = sum(g.count for g in errors)
        status, reason = Status.BREACH, f"{total} errors; most often: {worst.template[:160]}"
    else:
        status, reason = Status.OK, f"no error in {len(lines)} lines"
    since = min((g.first for g in errors if g.first), default=None)
    return inv.make_reading(
        "3.5",
        "worker log",
        status,
        value=sum(g.count for g in errors) if lines else None,
        unit="errors",
        threshold="any error of upload, callback, carrier or release",
        source=f"log of {service}, last {inv.window.total_seconds() / 60:.0f} min",
        reason=reason,
        rows=[_to_row(g) for g in sorted(telling, key=lambda g: g.level != "error")][:50],
        since=since,
    )


def _to_row(group: LogGroup) -> dict[str, Json]:
    def when(at: datetime | None) -> str | None:
        return format_time(at) if at else None

    return {
        "level": group.level,
        "count": group.count,
        "template": group.template[:300],
        "first": when(group.first),
        "last": when(group.last),
        "example": group.example[:600],
    }


def _listing_source(inv: Investigation) -> str:
    store = inv.clients.store
    return f"listing of {store.bucket}/{{{','.join(list_prefixes(inv))}}} at {store.endpoint}"


STEPS = {
    step.id: step
    for step in (
        Step(
            "3.1",
            "The alert reached the right receivers",
            read_delivery,
            "Alertmanager /api/v2/alerts and what the receivers got",
            name="alert delivery",
        ),
        Step(
            "3.2",
            "Objects per prefix, longest wait, ages",
            _read_spread,
            "listing of the bucket",
            name="longest wait",
        ),
        Step(
            "3.3",
            "Health of the object store",
            read_store_health,
            "GET /minio/health/live, else a signed listing",
            needed=True,
            name="store health",
        ),
        Step(
            "3.4",
            "A sample of what waits",
            _read_sample,
            "listing of the bucket",
            name="sample of waiting objects",
        ),
        Step(
            "3.5",
            "The worker's log",
            _read_worker_log,
            "log of the worker's service",
            name="worker log",
        ),
    )
}
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether the store, or what section 2 read lately, proves an incident."""
    return conclude_symptoms(inv, shared_max_age_s=_SHARED_MAX_AGE_S)
