"""Orders that have no label at all: the bucket does not show them. Only reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from runbook_lib.model import Json

from .clients.services import try_time
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
    ready = inv.clients.store.list_objects(inv.settings.ready_prefix)
    for count, info in enumerate(islice(ready, _MAX_READY + 1)):
        if count == _MAX_READY:
            return None
        orders = _list_orders_in_key(info.key, inv.settings.order_id_from)
        if not orders:
            return None
        served.update(orders)
    if "" in served:  # a waiting label whose order is not known
        return None
    now = inv.now()
    waits_since: dict[str, datetime] = {}
    for shipment in inv.clients.fulfillment.list_shipments(limit=_MAX_SHIPMENTS):
        made_at = try_time(shipment.get("createdAt"))
        order_id = str(shipment.get("orderId"))
        if made_at is None or order_id in served or _needs_no_label(shipment):
            continue
        if now - inv.window <= made_at <= now - _PATIENCE:
            waits_since[order_id] = min(made_at, waits_since.get(order_id, made_at))
    oldest = min(waits_since.values(), default=now)
    return Unserved(tuple(sorted(waits_since)), round((now - oldest).total_seconds() / 60, 1))


def _list_orders_in_key(key: str, order_id_from: str) -> list[str]:
    """Return the order that a key names; else every number in the last part of the key.

    The name of a packing slip may hold several orders.
    """
    order_id = read_order_id(key, {}, order_id_from)
    if order_id:
        return [order_id]
    return re.findall(r"\d+", key.rpartition("/")[2])


def _needs_no_label(shipment: Mapping[str, Json]) -> bool:
    """Tell whether a shipment has a label already, by its tasks, or wants none any more."""
    status = str(shipment.get("status") or "").strip().lower()
    tasks = shipment.get("tasks") or ()
    label_keys = [task.get("key") for task in tasks if isinstance(task, dict)]
    return any(label_keys) or status not in _WANTING
