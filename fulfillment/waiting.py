"""Labels that wait: list them, say since when each waits, and which of them may be released.

A label is an object under the pending or the chaos prefix. ``objectmove`` moves labels; this module
says why one stays. Only reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple

from objectmove.bucket import Seen
from objectmove.plan import PlanRow
from objectmove.planning import Judgement
from runbook_lib.errors import BadAnswerError, ClientError, SafetyError
from runbook_lib.frames import FLAG, NUMBER, TEXT, TIME, WHOLE, Dtype
from runbook_lib.language import gettext
from runbook_lib.model import Json, Outcome, Status, count_of, format_time
from runbook_lib.record.journal import get_run

from .analysis.artifacts import (
    compute_age_start,
    compute_lag_minutes,
    has_value,
    is_synthetic,
)
from .clients.http_systems import FulfillmentClient, Shipment
from .clients.object_store import ObjectStore
from .investigation import Investigation
from .settings import ORDER_ID_IN_KEY, Settings, is_nested

Origin = Literal["real", "synthetic"]

_CHUNK = 500
_JUST_WRITTEN = timedelta(seconds=10)
_RECENT = timedelta(seconds=30)
_QUESTIONS_AT_A_TIME = 8
_MAX_ID_CHARS = 64
_MAX_EVIDENCE_CHARS = 300
#: DataFlow's words for a shipment that still wants its label. A tracking number proves nothing: a
#: shipment gets it when it is made.
_WANTING = ("pending", "ready", "processing", "packed", "delayed", "shipped")
#: Reasons to leave an object out of a plan that need no explanation: it is not real, it is gone, or
#: it is left for a later plan.
_NOT_EXPLAINED = ("synthetic", "left_for_later")
#: No shipment of the order wants the label: a release leaves it, and a plan may park it.
NOT_WANTED = "not_wanted"


class Label(NamedTuple):
    """One object that waits.

    Attributes
    ----------
    since, minutes : since when it waits, and for how many minutes
    is_complete : whether LABEL_FINISHED says that it may move; None when only shipments can say
    order_id : found as ORDER_ID_FROM says; empty when it is unknown
    """

    info: Seen
    since: datetime
    minutes: float
    origin: Origin
    is_complete: bool | None
    order_id: str


#: The columns of a table of waiting objects, and their dtypes in a frame.
WAITING_COLUMNS: Mapping[str, Dtype] = {
    "key": TEXT,
    "order": TEXT,
    "waits_minutes": NUMBER,
    "size_bytes": WHOLE,
    "origin": TEXT,
    "finished": FLAG,
    "last_modified": TIME,
}


class Waiting:
    """Everything that waits, the longest wait first.

    Attributes
    ----------
    limit_minutes : LAG_THRESHOLD_MINUTES
    real, synthetic : the objects of each origin
    overdue : the real objects that wait longer than the limit
    overdue_synthetic : the number of synthetic objects that wait longer than the limit
    since : since when the oldest overdue object waits; None: none is overdue
    late_since : since when that object waits longer than the limit; None: none is overdue
    longest_minutes : how long the oldest real object waits; 0 when none does
    """

    def __init__(self, objects: Iterable[Label], limit_minutes: float) -> None:
        self.objects = sorted(objects, key=lambda label: label.since)
        self.limit_minutes = limit_minutes
        self.real = [label for label in self.objects if label.origin == "real"]
        self.synthetic = [label for label in self.objects if label.origin == "synthetic"]
        self.overdue = [label for label in self.real if label.minutes > limit_minutes]
        self.overdue_synthetic = sum(label.minutes > limit_minutes for label in self.synthetic)
        self.since = self.overdue[0].since if self.overdue else None
        self.late_since = self.since + timedelta(minutes=limit_minutes) if self.since else None
        self.longest_minutes = self.real[0].minutes if self.real else 0.0

    @property
    def observations(self) -> dict[str, Json]:
        """The counts, by the names that the rules of causes use.

        How many are finished is None while only shipments can say it.
        """
        complete = [label.is_complete for label in self.real]
        return {
            "waiting_real": len(self.real),
            "waiting_finished": None if None in complete else complete.count(True),
            "overdue_real": len(self.overdue),
            "overdue_synthetic": self.overdue_synthetic,
        }

    def describe(self) -> str:
        """Say what waits and for how long."""
        unit = gettext("min")
        text = f"{count_of(len(self.real), 'file')} {gettext('waiting')}"
        text += f", {len(self.overdue):,} {gettext('over')} {self.limit_minutes:g} {unit}"
        if self.real:
            text += f" ({gettext('longest')} {self.longest_minutes:.1f} {unit})"
        if self.synthetic:
            text += f"; {len(self.synthetic):,} {gettext('synthetic')}"
        return text

    def judge(self, outcome: Outcome, *words: str) -> Outcome:
        """Return an outcome as a breach if a real object waits over the limit; else as ok."""
        outcome.since = self.since
        status = Status.BREACH if self.overdue else Status.OK
        return outcome.judge(status, "; ".join([self.describe(), *words]))

    def rows(self) -> list[dict[str, Json]]:
        """Return a row for each object, with the ``WAITING_COLUMNS``."""
        return [
            {
                "key": label.info.key,
                "order": label.order_id,
                "waits_minutes": round(label.minutes, 1),
                "size_bytes": label.info.size_bytes,
                "origin": label.origin,
                "finished": label.is_complete,
                "last_modified": label.info.last_modified,
            }
            for label in self.objects
        ]


def list_prefixes(settings: Settings) -> list[str]:
    """Return where objects wait: under the chaos and the pending prefix.

    If one of the two lies inside the other, return only the outer prefix: nothing is listed twice.
    """
    chaos = settings.chaos_prefix
    pending = settings.pending_prefix
    if is_nested(chaos, pending):
        return [min(chaos, pending, key=len)]
    return [chaos, pending]


def iter_with_metadata(store: ObjectStore, prefix: str) -> Iterator[Seen]:
    """Yield a prefix's objects with their metadata, by a listing and concurrent HEADs.

    An object that vanished meanwhile is left out. If an object's metadata cannot be read, its
    ``metadata`` is None.
    """
    listing = store.list_objects(prefix)
    while chunk := list(islice(listing, _CHUNK)):
        heads = store.look([info.key for info in chunk])
        for info in chunk:
            # `look` gives None for a vanished object, and no entry for one that it could not read:
            # then the listing's info, without metadata, stands.
            current = heads.get(info.key, info)
            if current is not None:
                yield current


#: The newest listing of this process, which runs several notebooks one after the other: when, and
#: what waited. The key is the incident, and the time of the last change before the listing.
_newest: dict[tuple[str, datetime | None], tuple[datetime, Waiting]] = {}


def recall_waiting(inv: Investigation) -> Waiting:
    """Return what waits: in a run of notebooks by its last listing, if that is half a minute old.

    Errors are those of ``read_waiting``.
    """
    key = (inv.incident.id, inv.journal.last_applied_at)
    if key in _newest:
        listed_at, waiting = _newest[key]
        if inv.now() - listed_at < _RECENT:
            return waiting
    waiting = read_waiting(inv)
    if get_run():
        _newest.clear()
        _newest[key] = (inv.now(), waiting)
    return waiting


def read_waiting(inv: Investigation) -> Waiting:
    """List what waits under the ``list_prefixes``, with metadata.

    The label of a late order is over the lag threshold when it arrives, and leaves within seconds.
    So a real object that was written less than 10 s ago waits since then.

    Raises
    ------
    ClientError
        When the store cannot be listed.

    Notes
    -----
    Only reads.
    """
    settings = inv.settings
    now = inv.now()
    labels: list[Label] = []
    for prefix in list_prefixes(settings):
        for info in iter_with_metadata(inv.clients.store, prefix):
            label = read_label(info, settings, now)
            if label.origin == "real" and now - info.last_modified < _JUST_WRITTEN:
                since = info.last_modified
                label = label._replace(since=since, minutes=compute_lag_minutes(since, now))
            labels.append(label)
    return Waiting(labels, settings.lag_threshold_minutes)


def read_label(info: Seen, settings: Settings, now: datetime) -> Label:
    """Return what an object is by its metadata and the settings. Pure."""
    metadata = info.metadata or {}
    since = compute_age_start(metadata, info.last_modified, now)
    return Label(
        info=info,
        since=since,
        minutes=compute_lag_minutes(since, now),
        origin="synthetic" if is_synthetic(metadata) else "real",
        is_complete=_is_complete(metadata, settings.label_finished),
        order_id=read_order_id(info.key, metadata, settings.order_id_from),
    )


def _is_complete(metadata: Mapping[str, str], rule: str) -> bool | None:
    """Apply LABEL_FINISHED to metadata; None when only shipments can say."""
    if rule == "shipment":
        return None
    if rule == "always":
        return True
    return has_value(metadata, rule.partition(":")[2])


def read_order_id(key: str, metadata: Mapping[str, str], order_id_from: str) -> str:
    """Return the order of a label; empty when it is unknown, or too odd to be an order's id. Pure.

    Parameters
    ----------
    metadata : of the object, names in small letters
    order_id_from : ``metadata:<name>`` or ``key:<regex>``. The regex is searched in the part of the
        key after the last ``/``, and its first group is the order. If an object lacks that
        metadata, DataFlow's pattern is searched in its key
    """
    source, _, name_or_pattern = order_id_from.partition(":")
    text = ""
    pattern = name_or_pattern
    if source == "metadata":
        text = metadata.get(name_or_pattern, "").strip()
        pattern = ORDER_ID_IN_KEY
    if not text:
        match = re.search(pattern, key.rpartition("/")[2], re.ASCII)
        text = (match[1] or "").strip() if match else ""
    return text if text.isprintable() and len(text) <= _MAX_ID_CHARS else ""


@dataclass
class LabelJudge:
    """Judges waiting objects: may they move, and since when do they wait? Only reads.

    A judgement has a reason, the first that applies: ``unreadable``, ``synthetic``, ``no_order_id``
    (only where shipments say what is finished), ``not_of_this_drill``, ``too_young``,
    ``incomplete`` (by metadata), ``not_wanted`` (by shipments). Facts: ``order_id``;
    where shipments decide, ``status`` and ``tracking_number`` of each shipment that
    wants the label.

    Attributes
    ----------
    now : the plan's time; decides what lies in the future, and what is too young
    only_orders : a drill's own orders; labels of others are ``not_of_this_drill``; None: no drill
    older_than_s : a label that has waited less long is ``too_young``
    parks : only labels that nobody wants may move; others are ``wanted``
    wanted : for each order that was asked for, its shipments that want their label
    """

    settings: Settings
    client: FulfillmentClient
    now: datetime
    only_orders: frozenset[str] | None = None
    older_than_s: float = 0.0
    parks: bool = False
    wanted: dict[str, list[Shipment]] = field(default_factory=dict)

    def __call__(self, objects: Sequence[Seen]) -> Sequence[Judgement]:
        """Judge some objects, in their order; ask for orders that were not asked for yet.

        Raises
        ------
        SafetyError
            When ``LABEL_FINISHED=shipment`` and fulfillment-service cannot say.
        """
        labels = [read_label(info, self.settings, self.now) for info in objects]
        if self.settings.label_finished == "shipment":
            orders = {label.order_id for label in labels if not self._find_exclusion(label)}
            self.wanted.update(_ask_for_orders(self.client, orders - self.wanted.keys()))
        return [self._judge_one(label) for label in labels]

    def _judge_one(self, label: Label) -> Judgement:
        """Judge a label by its metadata, and by the shipments that are known so far."""
        facts = {"order_id": label.order_id}
        shipments = self.wanted.get(label.order_id)
        if shipments:
            numbers = [shipment.tracking_number or "none" for shipment in shipments]
            facts["status"] = _clean(", ".join(shipment.status for shipment in shipments))
            facts["tracking_number"] = _clean(", ".join(numbers))
        elif self.parks:
            facts["status"] = NOT_WANTED
        return Judgement(self._find_exclusion(label), label.since, facts)

    def _find_exclusion(self, label: Label) -> str:
        """Return why a label stays, the first reason that applies; empty when it may move."""
        order_id = label.order_id
        needs_order_number = self.settings.label_finished == "shipment"
        is_foreign = self.only_orders is not None and order_id not in self.only_orders
        checks = {
            "unreadable": label.info.metadata is None,
            "synthetic": label.origin == "synthetic",
            "no_order_id": needs_order_number and not _is_number(order_id),
            "not_of_this_drill": is_foreign,
            "too_young": label.minutes * 60 < self.older_than_s,
            "incomplete": label.is_complete is False,
            # The order was asked for, and none of its shipments wants a label.
            NOT_WANTED: self.wanted.get(order_id) == [] and not self.parks,
            "wanted": bool(self.wanted.get(order_id)) and self.parks,
        }
        return next((reason for reason, applies in checks.items() if applies), "")


def explain_left(left: Mapping[str, int], settings: Settings) -> str:
    """Say why waiting objects will stay, and which setting decides it. Pure.

    Empty when none stays, or each stays for a reason that needs no explanation.

    Parameters
    ----------
    left : how many objects were left out, by reason
    """
    explanations = {
        "incomplete": f"not finished by LABEL_FINISHED={settings.label_finished}",
        NOT_WANTED: f"no shipment of their order wants a label (LABEL_FINISHED="
        f"{settings.label_finished}); they keep the alert firing: `runbook plan --park-unwanted`",
        "wanted": "their orders want them: `runbook plan` releases them",
        "no_order_id": f"ORDER_ID_FROM={settings.order_id_from} does not tell their order",
        "no_match": f"RELEASE_MATCH={settings.release_match} does not match their names; they "
        f"keep the alert firing: plan with --match, or take them out of {settings.pending_prefix}",
        "no_etag": "the store gives no ETag for them: put each one again",
        "too_young": "they have waited less than --older-than says",
        "not_of_this_drill": "only_orders does not name their orders",
        "unreadable": "they cannot be read: check the rights of the access key (MINIO_CHANGE_USER)",
        "in_doubt": "an unfinished or unsettled release touched them: 1.5 says how to resume",
        "destination_taken": "other content lies where they would go: look at both",
    }
    sentences = []
    for reason, count in sorted(left.items()):
        if count and reason not in _NOT_EXPLAINED:
            sentences.append(f"{count} stay: {explanations.get(reason, reason)}")
    return "; ".join(sentences)


def read_shipment_evidence(client: FulfillmentClient, order_id: str) -> str:
    """Say what fulfillment-service knows of an order's shipments; never raises a ClientError."""
    if not _is_number(order_id):
        return f"could not be read: the order id {order_id!r} is not a number"
    try:
        shipments = _list_shipments(client, order_id)
    except ClientError as error:
        return f"could not be read: {error}"
    evidence = []
    for shipment in shipments:
        since = "; the service gives no time"
        if shipment.updated_at is not None:
            since = f" since {format_time(shipment.updated_at)}"
        status = f"shipment {shipment.status or 'without a status'}{since}"
        evidence.append(f"{status}, tracking number {shipment.tracking_number or 'none'}")
    return _clean("; ".join(evidence)) or f"order {order_id} has no shipment"


def ask_again(
    settings: Settings, client: FulfillmentClient, rows: Sequence[PlanRow]
) -> list[str | None]:
    """Say of planned labels, right before they move, whether their orders still want them.

    Returns
    -------
    For each row: empty if it may move, why it must stay, or None if nobody can tell now.
    """
    if settings.label_finished != "shipment":
        return [""] * len(rows)
    orders = [row.facts.get("order_id", "") for row in rows]
    try:
        wanted = _ask_for_orders(client, set(orders))
    except SafetyError:
        return [None] * len(rows)
    answers: list[str | None] = []
    for row, order in zip(rows, orders, strict=True):
        now = "wanted" if wanted[order] else NOT_WANTED
        planned = NOT_WANTED if row.facts.get("status") == NOT_WANTED else "wanted"
        answers.append("" if now == planned else now)
    return answers


def _clean(text: str) -> str:
    """Return at most 300 visible characters of a text by which a person decides."""
    shown = "".join(char for char in text if char.isprintable())
    return shown[:_MAX_EVIDENCE_CHARS]


def _ask_for_orders(
    client: FulfillmentClient, order_ids: Iterable[str]
) -> dict[str, list[Shipment]]:
    """Return the shipments that want their label. The keys are the order ids.

    Raises
    ------
    SafetyError
        When fulfillment-service does not answer for every order.
    """

    def ask(order_id: str) -> list[Shipment]:
        return list(filter(_wants_label, _list_shipments(client, order_id)))

    orders = sorted(order_ids)
    try:
        # The first error cancels the questions that were not asked yet: each could cost a time-out.
        with ThreadPoolExecutor(_QUESTIONS_AT_A_TIME) as pool:
            return dict(zip(orders, pool.map(ask, orders), strict=True))
    except ClientError as error:
        address = client.url or "FULFILLMENT_URL"
        why = error.message.rstrip(".")
        text = f"LABEL_FINISHED=shipment needs fulfillment-service at {address}: {why}"
        raise SafetyError(f"{text}; nothing was planned") from error


def _wants_label(shipment: Shipment) -> bool:
    """Tell whether a shipment still wants its label. A shipped one may have a second parcel."""
    return shipment.status.strip().lower() in _WANTING


def _list_shipments(client: FulfillmentClient, order_id: str) -> list[Shipment]:
    """Return an order's shipments; ``BadAnswerError`` when the answer is about something else."""
    number = int(order_id)
    shipments = client.list_shipments(number)
    # A service that ignores the order id would answer with others' shipments. These would release
    # labels that nobody wants.
    if any(shipment.order_id != str(number) for shipment in shipments):
        text = f"the answer for order {order_id} is not about its shipments"
        raise BadAnswerError(text, system=client.SYSTEM)
    return shipments


def _is_number(order_id: str) -> bool:
    """Tell whether fulfillment-service accepts an order id: a number that fits into 64 bits."""
    return order_id.isascii() and order_id.isdecimal() and len(order_id) <= 18
