"""Step 2.5: whether a ticket's timeline is stale while one of its artefacts waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..clients.support import Case
from ..errors import ClientError
from ..investigation import Investigation
from ..model import Json, Reading, Status, format_time, parse_time
from .waiting import Waiting, read_waiting

__all__ = ["read_ticket"]


def read_ticket(inv: Investigation) -> Reading:
    """Read the ticket's newest fulfilment event and what of its orders waits."""
    if not inv.ticket_id:
        return inv.make_reading(
            "2.5",
            "ticket timeline",
            Status.UNKNOWN,
            threshold=_threshold(inv),
            reason="no ticket is named: set ticket_id to a ticket of an affected order",
        )
    case = inv.clients.support.read_case(inv.ticket_id)
    times = [e.at for e in case.timeline if e.type == "shipment" and e.at is not None]
    newest = max(times, default=None)
    mine = _of_case(read_waiting(inv), case)
    stale = timedelta(minutes=inv.settings.timeline_stale_minutes)
    waits = max((mine.minutes(o) for o in mine.of("real")), default=None)
    behind = _compute_behind(inv, case, newest)
    status, reason = _judge(inv, case, newest=newest, waits_minutes=waits, stale=stale)
    if status is Status.OK and behind is not None and behind > stale.total_seconds() / 60:
        status = Status.BREACH
        reason = f"a shipment changed {behind:.0f} min ago, and support does not show it yet"
    return inv.make_reading(
        "2.5",
        "ticket timeline",
        status,
        value=round((inv.now() - newest).total_seconds() / 60, 1) if newest else None,
        unit="min",
        threshold=_threshold(inv),
        source=f"{inv.clients.support.url}/support/cases/{inv.ticket_id}?includeTimeline=true",
        reason=reason,
        rows=[
            {
                "at": format_time(e.at) if e.at else None,
                "type": e.type,
                "source": e.source,
                "status": e.status,
                "order": e.order_id,
            }
            for e in case.timeline[-50:]
        ],
        observations={"timeline_behind_minutes": behind},
        facts={"waiting": [o.info.key for o in mine.objects[:20]]},
    )


def _threshold(inv: Investigation) -> str:
    minutes = inv.settings.timeline_stale_minutes
    return f"newest fulfilment event older than {minutes:g} min while an artefact waits"


def _of_case(waiting: Waiting, case: Case) -> Waiting:
    orders = {str(order) for order in case.order_ids}
    return Waiting(waiting.at, tuple(o for o in waiting.objects if o.order_id in orders))


def _judge(
    inv: Investigation,
    case: Case,
    *,
    newest: datetime | None,
    waits_minutes: float | None,
    stale: timedelta,
) -> tuple[Status, str]:
    if not case.order_ids:
        return Status.UNKNOWN, "the ticket names no order"
    waits = f"an artefact of it waits for {waits_minutes:.0f} min" if waits_minutes else ""
    if newest is None:
        failures = inv.clients.support.read_collection_failures()
        if failed := {stage: n for stage, n in failures.items() if n > 0}:
            listed = ", ".join(f"{stage} {n:.0f}" for stage, n in sorted(failed.items()))
            return Status.UNKNOWN, f"no shipment is shown, and collecting failed ({listed})"
        if waits_minutes is not None and waits_minutes > stale.total_seconds() / 60:
            return Status.BREACH, f"the timeline has no fulfilment event, and {waits}"
        return Status.OK, "no fulfilment event yet" + (f"; {waits}" if waits else "")
    age = inv.now() - newest
    text = f"the newest fulfilment event is {age.total_seconds() / 60:.0f} min old"
    if age > stale and waits_minutes is not None:
        return Status.BREACH, f"{text}, and {waits}"
    return Status.OK, f"{text}; " + (waits or "none of its artefacts waits")


def _compute_behind(inv: Investigation, case: Case, newest: datetime | None) -> float | None:
    """Return for how long support has not shown the shipments' newest change, in minutes."""
    if newest is None:
        return None
    try:
        changed = max(_list_changes(inv, case.order_ids), default=None)
    except ClientError:
        return None
    if changed is None or changed - newest < timedelta(seconds=1):
        return 0.0
    return max(0.0, (inv.now() - changed).total_seconds() / 60)


def _list_changes(inv: Investigation, orders: Sequence[int]) -> list[datetime]:
    found: list[datetime] = []
    for order in orders[:5]:
        for shipment in inv.clients.fulfillment.list_shipments(order_id=order, limit=5):
            text: Json = shipment.get("updatedAt")
            if isinstance(text, str):
                try:
                    found.append(parse_time(text))
                except ValueError:
                    continue
    return found
