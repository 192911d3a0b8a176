"""List waiting labels: since when each waits, and whether it may be released. Only reads.

A label is an object under the pending or the chaos prefix.
"""

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
from runbook_lib.model import Json, Outcome, Progress, Status, count_of, format_time, keep_quiet
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
#: DataFlow's words for a shipment that still wants its label. A tracking number proves nothing,
#: because every shipment has one from the start.
WANTING = ("pending", "ready", "processing", "packed", "delayed", "shipped")
#: Why a plan leaves an object out, if that needs no explanation.
_NOT_EXPLAINED = ("synthetic", "left_for_later")
#: No shipment of the order wants the label: a release leaves it, but you may park it.
NOT_WANTED = "not_wanted"


class Label(NamedTuple):
    """A waiting object, as the settings see it."""

    info: Seen
    since: datetime
    minutes: float  # waited so far
    origin: Origin
    is_complete: bool | None  # by LABEL_FINISHED; None if only shipments tell
    order_id: str  # by ORDER_ID_FROM, or ""


#: The columns of a table of waiting objects, and their dtypes.
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

    The oldest overdue object, if any, waits since ``since``, and is overdue since ``late_since``.
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
        """Counts for the rules of causes; ``waiting_finished`` is None if only shipments tell."""
        complete = [label.is_complete for label in self.real]
        return {
            "waiting_real": len(self.real),
            "waiting_finished": None if None in complete else complete.count(True),
            "overdue_real": len(self.overdue),
            "overdue_synthetic": self.overdue_synthetic,
        }

    def describe(self) -> str:
        unit = gettext("min")
        text = f"{count_of(len(self.real), 'file')} {gettext('waiting')}"
        text += f", {len(self.overdue):,} {gettext('over')} {self.limit_minutes:g} {unit}"
        if self.real:
            text += f" ({gettext('longest')} {self.longest_minutes:.1f} {unit})"
        if self.synthetic:
            text += f"; {len(self.synthetic):,} {gettext('synthetic')}"
        return text

    def judge(self, outcome: Outcome, *words: str) -> Outcome:
        """Judge an outcome: a breach if a real object is overdue, else ok."""
        outcome.since = self.since
        status = Status.BREACH if self.overdue else Status.OK
        return outcome.judge(status, "; ".join([self.describe(), *words]))

    def rows(self) -> list[dict[str, Json]]:
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
    """Return the chaos and the pending prefix; if they are nested, only the outer one."""
    chaos = settings.chaos_prefix
    pending = settings.pending_prefix
    if is_nested(chaos, pending):
        return [min(chaos, pending, key=len)]
    return [chaos, pending]


def iter_with_metadata(store: ObjectStore, prefix: str) -> Iterator[Seen]:
    """Yield a prefix's objects with their metadata, by a listing and concurrent HEADs.

    Skips objects that vanish meanwhile. Metadata that cannot be read is None.
    """
    listing = store.list_objects(prefix)
    while chunk := list(islice(listing, _CHUNK)):
        heads = store.read_infos([info.key for info in chunk])
        for info in chunk:
            # `read_infos` gives None for a vanished object, and no entry for an unreadable one; for
            # that, use what the listing said.
            current = heads.get(info.key, info)
            if current is not None:
                yield current


#: The last listing of this process, which may run several notebooks in turn: its time, and what
#: waited. The key is the incident, and the time of the last change before the listing.
_newest: dict[tuple[str, datetime | None], tuple[datetime, Waiting]] = {}


def recall_waiting(inv: Investigation) -> Waiting:
    """Return what waits: ``read_waiting``'s last listing in this run of notebooks, or a new one.

    The last listing counts if it is under 30 s old, and no action was applied since.
    """
    newest = _newest.get((inv.incident.id, inv.journal.last_applied_at))
    if newest is not None and inv.now() - newest[0] < _RECENT:
        return newest[1]
    return read_waiting(inv)


def read_waiting(inv: Investigation) -> Waiting:
    """List what waits under the ``list_prefixes``, with metadata.

    A late order's label is overdue the moment it's written, yet normally leaves within seconds. So
    for a label's first 10 s, its wait counts from when it was written, not from ``pending-since``.

    Raises a ``ClientError`` if the store cannot be listed.
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
    waiting = Waiting(labels, settings.lag_threshold_minutes)
    if get_run():
        _newest.clear()
        _newest[inv.incident.id, inv.journal.last_applied_at] = (now, waiting)
    return waiting


def read_label(info: Seen, settings: Settings, now: datetime) -> Label:
    """Describe an object by its metadata and the settings. Pure."""
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
    """Apply LABEL_FINISHED to metadata; return None if only shipments tell."""
    if rule == "shipment":
        return None
    if rule == "always":
        return True
    return has_value(metadata, rule.partition(":")[2])


def read_order_id(key: str, metadata: Mapping[str, str], order_id_from: str) -> str:
    """Return a label's order, or "" if it is unknown, unprintable or over 64 characters. Pure.

    ``order_id_from`` is ``metadata:<name>`` in lower case, or ``key:<regex>``, for the key after
    its last ``/``. If an object lacks the metadata, DataFlow's regex is tried.
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
    """Judges whether waiting objects may move, and since when they wait. Only reads.

    A judgement's facts are ``order_id`` and, where shipments decide, ``status`` and
    ``tracking_number`` of those that want the label.
    """

    settings: Settings
    client: FulfillmentClient
    now: datetime
    only_orders: frozenset[str] | None = None  # for example, a drill's own
    older_than_s: float = 0.0
    parks: bool = False  # move only labels that nobody wants
    progress: Progress = keep_quiet
    judged: int = 0
    #: For each order asked for so far, the shipments that want their label.
    wanted: dict[str, list[Shipment]] = field(default_factory=dict)

    def __call__(self, objects: Sequence[Seen]) -> Sequence[Judgement]:
        """Judge objects, in their order. Asks for the shipments of each order once.

        Raises ``SafetyError`` if LABEL_FINISHED=shipment and fulfillment-service does not answer.
        """
        self.judged += len(objects)
        self.progress("listed", self.judged)
        labels = [read_label(info, self.settings, self.now) for info in objects]
        if self.settings.label_finished == "shipment":
            orders = {label.order_id for label in labels if not self._find_exclusion(label)}
            self.wanted.update(_find_wanting_shipments(self.client, orders - self.wanted.keys()))
        return [self._judge_one(label) for label in labels]

    def _judge_one(self, label: Label) -> Judgement:
        """Judge a label by its metadata, and by the shipments known so far."""
        facts = {"order_id": label.order_id}
        shipments = self.wanted.get(label.order_id)
        if shipments:
            numbers = [shipment.tracking_number or "none" for shipment in shipments]
            facts["status"] = _make_printable(", ".join(shipment.status for shipment in shipments))
            facts["tracking_number"] = _make_printable(", ".join(numbers))
        elif self.parks:
            facts["status"] = NOT_WANTED
        return Judgement(self._find_exclusion(label), label.since, facts)

    def _find_exclusion(self, label: Label) -> str:
        """Return the first reason why a label stays, or "" if it may move."""
        order_id = label.order_id
        needs_order_number = self.settings.label_finished == "shipment"
        is_foreign = self.only_orders is not None and order_id not in self.only_orders
        checks = {
            "unreadable": label.info.metadata is None,
            "synthetic": label.origin == "synthetic",
            "no_order_id": needs_order_number and not _is_order_number(order_id),
            "not_of_this_drill": is_foreign,
            "too_young": label.minutes * 60 < self.older_than_s,
            "incomplete": label.is_complete is False,
            # We asked for the order, and none of its shipments wants a label.
            NOT_WANTED: self.wanted.get(order_id) == [] and not self.parks,
            "wanted": bool(self.wanted.get(order_id)) and self.parks,
        }
        return next((reason for reason, applies in checks.items() if applies), "")


def explain_exclusions(excluded: Mapping[str, int], settings: Settings) -> str:
    """Say why objects stay, and which setting decides that, or return "". Pure."""
    explanations = {
        "incomplete": f"not finished by LABEL_FINISHED={settings.label_finished}",
        NOT_WANTED: f"no shipment of their order has a status that wants a label (LABEL_FINISHED="
        f"{settings.label_finished}). If their orders are cancelled: `runbook plan "
        "--park-unwanted`. If your statuses have other names, set LABEL_FINISHED",
        "wanted": "their orders want them: `runbook plan` releases them",
        "no_order_id": f"ORDER_ID_FROM={settings.order_id_from} does not tell their order",
        "no_match": f"RELEASE_MATCH={settings.release_match} does not match their names; they "
        f"keep the alert firing: plan with --match, or take them out of {settings.pending_prefix}",
        "no_etag": "the store gives no ETag for them: put each one again",
        "too_young": "they have waited less than --older-than says",
        "not_of_this_drill": "only_orders does not name their orders",
        "unreadable": "they cannot be read: check the rights of the access key (MINIO_CHANGE_USER)",
        "in_doubt": "an unfinished or unsettled release touched them: 1.5 says how to resume",
        "destination_taken": "there is other content where they would go: compare both",
    }
    sentences = []
    for reason, count in sorted(excluded.items()):
        if count and reason not in _NOT_EXPLAINED:
            sentences.append(f"{count} stay: {explanations.get(reason, reason)}")
    return "; ".join(sentences)


def read_shipment_evidence(client: FulfillmentClient, order_id: str) -> str:
    """Say what fulfillment-service knows about an order's shipments, or why it didn't answer."""
    if not _is_order_number(order_id):
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
    return _make_printable("; ".join(evidence)) or f"order {order_id} has no shipment"


def recheck_orders(
    settings: Settings, client: FulfillmentClient, rows: Sequence[PlanRow]
) -> list[str | None]:
    """Check right before labels move whether their orders still want them, or still do not.

    Returns "" for a label that may move, why it must stay, or None if the service can't tell.
    """
    if settings.label_finished != "shipment":
        return [""] * len(rows)
    orders = [row.facts.get("order_id", "") for row in rows]
    try:
        wanted = _find_wanting_shipments(client, set(orders))
    except SafetyError:
        return [None] * len(rows)
    answers: list[str | None] = []
    for row, order in zip(rows, orders, strict=True):
        now = "wanted" if wanted[order] else NOT_WANTED
        planned = NOT_WANTED if row.facts.get("status") == NOT_WANTED else "wanted"
        answers.append("" if now == planned else now)
    return answers


def _make_printable(text: str) -> str:
    shown = "".join(char for char in text if char.isprintable())
    return shown[:_MAX_EVIDENCE_CHARS]


def _find_wanting_shipments(
    client: FulfillmentClient, order_ids: Iterable[str]
) -> dict[str, list[Shipment]]:
    """Return the shipments that want their label, by order id.

    Raises ``SafetyError`` unless fulfillment-service answers for every order.
    """

    def ask(order_id: str) -> list[Shipment]:
        return list(filter(_wants_label, _list_shipments(client, order_id)))

    orders = sorted(order_ids)
    try:
        # The first error cancels the requests not sent yet, because each could cost a time-out.
        with ThreadPoolExecutor(_QUESTIONS_AT_A_TIME) as pool:
            return dict(zip(orders, pool.map(ask, orders), strict=True))
    except ClientError as error:
        address = client.url or "FULFILLMENT_URL"
        why = error.message.rstrip(".")
        text = f"LABEL_FINISHED=shipment needs fulfillment-service at {address}: {why}"
        raise SafetyError(f"{text}; nothing was planned") from error


def _wants_label(shipment: Shipment) -> bool:
    """Tell whether a shipment still wants its label; a shipped one may have a second parcel."""
    return shipment.status.strip().lower() in WANTING


def _list_shipments(client: FulfillmentClient, order_id: str) -> list[Shipment]:
    """Return an order's shipments; raise ``BadAnswerError`` for those of another order."""
    number = int(order_id)
    shipments = client.list_shipments(number)
    # A service that ignores the order id answers with other orders' shipments, which would release
    # labels that nobody wants.
    if any(shipment.order_id != str(number) for shipment in shipments):
        text = f"the answer for order {order_id} is not about its shipments"
        raise BadAnswerError(text, system=client.SYSTEM)
    return shipments


def _is_order_number(order_id: str) -> bool:
    """Tell whether fulfillment-service accepts an order id: a number that fits 64 bits."""
    return order_id.isascii() and order_id.isdecimal() and len(order_id) <= 18
