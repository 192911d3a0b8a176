"""Orders for drills and tests: handed over late, through the API of fulfillment-service."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from runbook_lib.model import Json

from .config import StackError
from .web import ask

__all__ = ["build_orders", "close_ticket", "inject_orders", "open_ticket", "wait_for_artifacts"]

_TIMEOUT_S = 10.0
#: Far above the periodic feed's order ids.
_FIRST_ID = 1_000_000_000
_random = secrets.SystemRandom()


def build_orders(
    count: int, *, late_minutes: tuple[float, float] = (15.0, 40.0)
) -> list[dict[str, Json]]:
    """Build orders as that API takes them; see `inject_orders` for the parameters."""
    # The first id is the time in microseconds. So two calls share no id unless they come within
    # `count` microseconds.
    first = _FIRST_ID + time.time_ns() // 1_000
    now = datetime.now(UTC)
    return [
        {
            "orderId": first + number,
            "shippedAt": (now - timedelta(minutes=_random.uniform(*late_minutes))).isoformat(),
            "carrier": "GHN",
            "serviceLevel": "standard",
        }
        for number in range(count)
    ]


def inject_orders(
    fulfillment_url: str,
    count: int,
    *,
    late_minutes: tuple[float, float] = (15.0, 40.0),
) -> list[int]:
    """Hand over orders that were shipped some time ago.

    Changes the system: their labels and packing slips appear under ``pending/``.

    Parameters
    ----------
    fulfillment_url
        Where fulfillment-service listens.
    count
        How many orders; each brings two objects.
    late_minutes
        The least and the most minutes since their ``shippedAt``.

    Returns
    -------
    list of int
        The order ids, which no other order has.

    Raises
    ------
    StackError
        When the service does not take them all.
    """
    orders = build_orders(count, late_minutes=late_minutes)
    answer = _call("POST", f"{fulfillment_url}/fulfillment/orders", {"orders": orders})
    if answer["accepted"] != count:
        raise StackError(f"fulfillment-service took {answer['accepted']} of {count} orders")
    return [int(str(order["orderId"])) for order in orders]


def wait_for_artifacts(
    fulfillment_url: str, order_ids: list[int], *, deadline_s: float = 60.0
) -> list[str]:
    """Wait until both documents of each order were uploaded; return their keys in ``pending/``.

    Raises
    ------
    StackError
        When some are missing at the deadline; says how many.
    """
    deadline, keys, missing = time.monotonic() + deadline_s, [], list(order_ids)
    while missing:
        url = f"{fulfillment_url}/fulfillment/shipments?orderId={missing[0]}"
        items = _call("GET", url)["items"]
        tasks = items[0]["tasks"] if items else []
        if len(tasks) == 2:
            keys += [str(task["key"]) for task in tasks]
            del missing[0]
        elif time.monotonic() > deadline:
            raise StackError(
                f"{len(missing)} of {len(order_ids)} orders have no documents in the store after"
                f" {deadline_s:g} s; see the log of fulfillment-service"
            )
        else:
            time.sleep(0.05)
    return keys


def open_ticket(support_url: str, order_id: int) -> str:
    """Open a ticket about an order, as its customer would; returns the ticket's id."""
    subject = f"Where is my parcel? Order {order_id}"
    body = {
        "subject": subject,
        "channel": "chat",
        "context": [{"type": "order", "orderId": order_id}],
        "initialMessage": subject,
    }
    answer = _call("POST", f"{support_url}/support/cases", body)
    return str(answer["id"] if "id" in answer else answer["ticketId"])


def close_ticket(support_url: str, ticket_id: str) -> None:
    """Close a ticket."""
    _call("POST", f"{support_url}/support/cases/{ticket_id}/close")


def _call(method: str, url: str, body: object = None) -> dict[str, Any]:
    try:
        answer = ask(method, url, json=body, timeout_s=_TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise StackError(f"{method} {url} failed: {error}") from error
    content: dict[str, Any] = answer.json()
    return content
