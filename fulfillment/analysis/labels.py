"""What a waiting label is by the settings: of which order, finished or not, since when it waits.

Of synthetic, unfinished and foreign objects it says why they stay; ``objectmove`` moves the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Literal, NamedTuple

from objectmove.bucket import Seen
from objectmove.planning import Judge, Judgement
from runbook_lib.errors import BadAnswerError, ClientError, SafetyError
from runbook_lib.model import Json

from ..clients.http_systems import FulfillmentClient
from ..settings import ORDER_ID_IN_KEY, Settings
from .artifacts import AgeStart, compute_age_start, compute_lag_minutes, has_value, is_synthetic

Origin = Literal["real", "synthetic"]


_QUESTIONS_AT_A_TIME = 8
_MAX_ID_CHARS = 64
#: Left out of a plan, and yet no real object that waits in vain.
_NOT_WAITING = ("synthetic", "gone", "left_for_later")


def read_order_id(key: str, metadata: Mapping[str, str], order_id_from: str) -> str:
    """Return of which order a label is; empty when it cannot be told. Pure.

    Parameters
    ----------
    metadata : of the object, names in small letters
    order_id_from : ``metadata:<name>`` (where there is none: by DataFlow's keys) or
        ``key:<regex>``, whose first group it is, on the part of the key after the last ``/``
    """
    source, _, what = order_id_from.partition(":")
    text = metadata.get(what, "").strip() if source == "metadata" else ""
    if not text:
        pattern = what if source == "key" else ORDER_ID_IN_KEY
        found = re.search(pattern, key.rpartition("/")[2], re.ASCII)
        text = (found[1] or "").strip() if found else ""
    return text if text.isprintable() and len(text) <= _MAX_ID_CHARS else ""


class Label(NamedTuple):
    """One object that waits.

    Attributes
    ----------
    start, minutes : since when it waits, and how long that is ago
    is_complete : whether LABEL_FINISHED says that it may move; None when only shipments can say
    order_id : by ORDER_ID_FROM; empty when it cannot be told
    """

    info: Seen
    start: AgeStart
    minutes: float
    origin: Origin
    is_complete: bool | None
    order_id: str


def read_label(info: Seen, settings: Settings, now: datetime) -> Label:
    """Return what an object is by its metadata and the settings. Pure."""
    metadata = info.metadata or {}
    start = compute_age_start(metadata, info.last_modified, now)
    minutes = compute_lag_minutes([start], now)
    origin: Origin = "synthetic" if is_synthetic(metadata) else "real"
    rule, decided = settings.label_finished, {"always": True, "shipment": None}
    is_complete = decided[rule] if rule in decided else has_value(metadata, rule.partition(":")[2])
    order_id = read_order_id(info.key, metadata, settings.order_id_from)
    return Label(info, start, minutes, origin, is_complete, order_id)


def make_judge(
    settings: Settings,
    fulfillment_client: FulfillmentClient,
    *,
    now: datetime,
    only_orders: frozenset[str] | None = None,
    older_than_s: float | None = None,
) -> Judge:
    """Return what says of waiting objects whether they may move, and since when they wait.

    Parameters
    ----------
    now : the plan's time; decides what lies in the future, and what is too young
    only_orders : a drill's own orders; everything else is ``not_of_this_drill``
    older_than_s : what waits for less long is ``too_young``

    Returns
    -------
    Judge
        Reasons, the first that applies: ``unreadable``, ``synthetic``, ``no_order_id`` (only where
        shipments say what is finished), ``not_of_this_drill``, ``too_young``, ``incomplete``.
        Facts: ``order_id``, ``age_source`` and, where ``pending-since`` was not considered,
        ``pending_since`` with the reason.

        Raises ``SafetyError`` when ``LABEL_FINISHED=shipment`` and fulfillment-service cannot say.

    Notes
    -----
    Only reads. Asks for each order once, of labels that nothing else excludes.
    """
    is_told_by_shipments = settings.label_finished == "shipment"
    finished: dict[str, bool] = {}

    def judge_alone(seen: Seen) -> Judgement:
        label = read_label(seen, settings, now)
        age, order_id = label.start, label.order_id
        checks = {
            "unreadable": seen.metadata is None,
            "synthetic": label.origin == "synthetic",
            "no_order_id": is_told_by_shipments and not _is_number(order_id),
            "not_of_this_drill": only_orders is not None and order_id not in only_orders,
            "too_young": label.minutes * 60 < (older_than_s or 0),
            "incomplete": False in (label.is_complete, finished.get(order_id)),
        }
        exclude = next((reason for reason, applies in checks.items() if applies), "")
        facts = {"order_id": order_id, "age_source": str(age.source)}
        if age.ignored_reason:
            facts["pending_since"] = age.ignored_reason
        return Judgement(exclude, age.at, facts)

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        found = [judge_alone(seen) for seen in objects]
        if not is_told_by_shipments:
            return found
        orders = {one.facts["order_id"] for one in found if not one.exclude}
        finished.update(_ask_for_orders(fulfillment_client, orders - finished.keys()))
        return [judge_alone(seen) for seen in objects]

    return judge


def explain_left(
    left: Mapping[str, int], keys: Mapping[str, Sequence[str]], settings: Settings, *, is_all: bool
) -> str:
    """Say why what waits will stay, and which setting decides it; empty when nothing stays. Pure.

    Parameters
    ----------
    left, keys : how many objects were left out, and some of their keys, by reason
    is_all : whether nothing moves; else only what is no label by its name is told, since it
        counts for the alert too
    """
    prefix, others = settings.pending_prefix, ", ".join(keys.get("no_match", ())[:3])
    ways = {
        "incomplete": f"not finished by LABEL_FINISHED={settings.label_finished}: look at the "
        "carrier, or set LABEL_FINISHED to what tells a finished label here",
        "no_order_id": f"their order cannot be told by ORDER_ID_FROM={settings.order_id_from}: "
        "look at one, and set ORDER_ID_FROM",
        "no_match": f"no name that RELEASE_MATCH={settings.release_match} takes ({others}). They "
        f"hold the alert: set RELEASE_MATCH, plan with --match, or take them out of {prefix}",
        "too_young": "they wait for less long than --older-than says",
        "not_of_this_drill": "they are of other orders than only_orders says",
        "unreadable": "they cannot be read: which rights has the key (MINIO_CHANGE_USER)?",
        "in_doubt": "an unfinished or unsettled release touched them: way_on says how to go on",
        "destination_taken": "other content lies where they would go: look at both",
    }
    return "; ".join(
        f"{count} stay: {ways.get(reason, reason)}"
        for reason, count in sorted(left.items())
        if count and reason not in _NOT_WAITING and (is_all or reason == "no_match")
    )


def read_shipment_evidence(client: FulfillmentClient, order_id: str) -> str:
    """Say what fulfillment-service knows of an order's shipments; never raises a ClientError."""
    if not _is_number(order_id):
        return f"could not be read: {order_id or 'nothing'!r} is not an order's number"
    try:
        shipments = _list_shipments(client, order_id)
    except ClientError as error:
        return f"could not be read: {error}"
    told = "; ".join(
        f"shipment {one.get('status') or 'without a status'}, "
        f"tracking number {one.get('trackingNumber') or 'none'}"
        for one in shipments
    )
    # It is shown beside what a person decides: nothing invisible, and not without end.
    text = "".join(ch for ch in told if ch.isprintable())[:300]
    return text or f"order {order_id} has no shipment"


def _ask_for_orders(client: FulfillmentClient, order_ids: Iterable[str]) -> dict[str, bool]:
    """Tell of each order whether a shipment of it has a tracking number."""

    def ask(order_id: str) -> bool:
        found = _list_shipments(client, order_id)
        return any((shipment.get("trackingNumber") or "").strip() for shipment in found)

    wanted = sorted(order_ids)
    try:
        # The first error cancels what was not asked yet: each would take a time-out.
        with ThreadPoolExecutor(_QUESTIONS_AT_A_TIME) as pool:
            return dict(zip(wanted, pool.map(ask, wanted), strict=True))
    except ClientError as error:
        at, why = client.url or "FULFILLMENT_URL", error.message.rstrip(".")
        raise SafetyError(
            f"LABEL_FINISHED=shipment needs fulfillment-service at {at}: {why}; nothing was planned"
        ) from error


def _list_shipments(client: FulfillmentClient, order_id: str) -> list[dict[str, Json]]:
    shipments = client.list_shipments(int(order_id))
    for shipment in shipments:
        number = shipment.get("trackingNumber")
        # Shipments of others would finish every label.
        if str(shipment.get("orderId")) != str(int(order_id)) or not isinstance(number, str | None):
            text = f"the answer for order {order_id} is not about its shipments"
            raise BadAnswerError(text, system=client.SYSTEM)
    return shipments


def _is_number(order_id: str) -> bool:
    """Tell whether fulfillment-service takes it: a number that fits into 64 bits."""
    return order_id.isascii() and order_id.isdecimal() and len(order_id) <= 18
