"""Orders that have no label at all: the bucket does not show them. Only reads."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from .clients.http_systems import Shipment
from .investigation import Investigation
from .waiting import Waiting, read_order_id

#: How long an order may have no label before it counts.
_PATIENCE = timedelta(seconds=60)
_MAX_SHIPMENTS = 1000
_MAX_READY = 20_000
#: Statuses of a shipment that still wants its first label, in DataFlow and in the demo stack. So
#: ``shipped`` is not among them: such a parcel has left with its label.
_WANTING = ("pending", "ready", "processing", "packed", "delayed", "handed_over")


class Unserved(NamedTuple):
    """The orders that have no label, and how long the oldest of them has waited."""

    orders: tuple[str, ...]
    longest_minutes: float


def read_unserved(inv: Investigation, waiting: Waiting) -> Unserved | None:
    """List the orders of the investigation's window that want a label and have none.

    fulfillment-service's newest 1,000 shipments say which orders want one. The waiting and the
    ready labels say which orders have one, and so do the tasks of a shipment.

    Returns
    -------
    None if nobody can know: a label in the bucket does not show its order, or more than 20,000
    labels are ready.

    Raises
    ------
    ClientError
        When service or store cannot be asked.
    """
    served = {label.order_id for label in waiting.real}
    listing = inv.clients.store.list_objects(inv.settings.ready_prefix)
    ready = list(islice(listing, _MAX_READY + 1))
    for info in ready:
        served.update(_list_orders_in_key(info.key, inv.settings.order_id_from))
    if "" in served or len(ready) > _MAX_READY:  # the order of a label is not known
        return None
    now = inv.now()
    waits_since: dict[str, datetime] = {}
    for shipment in inv.clients.fulfillment.list_shipments(limit=_MAX_SHIPMENTS):
        made_at = shipment.created_at
        order_id = shipment.order_id
        if made_at is None or order_id in served or _needs_no_label(shipment):
            continue
        if now - inv.window <= made_at <= now - _PATIENCE:
            waits_since[order_id] = min(made_at, waits_since.get(order_id, made_at))
    oldest = min(waits_since.values(), default=now)
    return Unserved(tuple(sorted(waits_since)), round((now - oldest).total_seconds() / 60, 1))


def _list_orders_in_key(key: str, order_id_from: str) -> list[str]:
    """Return the order that a key names; else every number in the last part of the key, or "".

    The name of a packing slip may hold several orders.
    """
    order_id = read_order_id(key, {}, order_id_from)
    numbers = re.findall(r"\d+", key.rpartition("/")[2])
    return [order_id] if order_id else numbers or [""]


def _needs_no_label(shipment: Shipment) -> bool:
    """Tell whether a shipment has a label already, by its tasks, or wants none any more."""
    has_label = any(task.get("key") for task in shipment.tasks)
    return has_label or shipment.status.strip().lower() not in _WANTING
