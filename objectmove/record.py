"""The record: what the bucket remembers of each plan that was begun. Every machine reads it.

Under ``.runbook/releases/<plan>/`` lie the plan itself (``plan.jsonl``), its states, and at its end
a tombstone. Each state is an object of its own, ``<number>-<nonce>``: nothing is overwritten, so a
late or repeated request can change no newer state. The number is the store's time in milliseconds,
or one more than the number before it. So a state of an earlier run has a lower number, even if a
late request puts it back after the record was removed. The state with the highest number counts; if
several have that number, all of them count. The tombstone is put when nobody has to do anything for
the plan any more. It overrules every state, and stays; plan and states are then removed.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from .bucket import Request, S3Bucket, parse_xml
from .errors import PlanError, StoreError
from .plan import (
    FrozenModel,
    MovePlan,
    PlanFile,
    PlanId,
    Timestamp,
    find_manifest,
    make_resume_command,
    parse_plan,
    save_plan,
)
from .session import Session

MEMORY = ".runbook/"
RELEASES = f"{MEMORY}releases/"
_PLAN = "plan.jsonl"
_TOMBSTONE = "ended.json"
#: How often to try to read a record that changes during the reading.
_TRIES = 5
#: How many states stay when old states are removed.
_KEPT_STATES = 2

#: What a later plan did to a row of its release.
About = Literal["taken", "not_taken", "undone", "reopened"]


class HoldNote(FrozenModel):
    """Who is held for a plan.

    Attributes
    ----------
    words : how the others are held, and at which address
    way_back : how a person ends the hold without us
    by : who began the hold, and on which machine
    since : the store's time at which the hold began
    """

    words: str
    way_back: str
    by: str
    since: Timestamp


class Record(FrozenModel):
    """What the bucket knows of one plan. Rows below ``begun`` that are in no set were moved.

    Attributes
    ----------
    release : the plan itself, or the release that an undo, a settling or a reopening is about
    parent : the plan that this plan is about directly; empty for a release
    begun_at : the store's time when the plan was first put on record
    by, host : who runs the plan, and on which machine
    ledger : hash of the ledger's last line when this state was put: a ledger without that line is
        an older copy
    fence_at : the store's time after which no request of the plan can take effect
    begun : the row after the highest one that was announced; 0 when none was
    announced : rows whose copy may be on its way, or has landed
    deleting : those of ``announced`` whose delete may have been sent
    waiting : rows below ``begun`` that wait: they could not be read, or their copies were refused
        or not sent
    left : rows that this plan will not move any more, but a new plan may
    skipped, unproven, conflicts : rows that ended in the state of this name
    settled : for each row that a person settled, or that an undo took back, what was said or done
    parking : rows whose parked copy may be on its way
    parked : rows whose object is parked
    about : for each row of the release that this undo, settling or reopening changed, the effect
    hold : who is held for the plan; None when nobody is
    words : what persons said, one sentence each
    versions : for each row, the ids of the versions of planned content that were at its destination
        before the first copy. None if they were not noted: only a release in a bucket that keeps
        versions needs them
    was_going : others were found moving although the plan held them
    memory_removed : the plan went on although the bucket's memory of it had been removed
    ended : nothing is left to do but what a person must decide
    number : of the state; the number stands in the object's key, not in the object's content
    is_tombstone : whether this is the tombstone, and no state
    """

    plan: PlanId
    release: PlanId
    parent: str
    action: Literal["move", "undo", "settle", "reopen"]
    begun_at: Timestamp
    sha256: str
    by: str
    host: str
    ledger: str
    fence_at: Timestamp
    begun: int
    announced: frozenset[int] = frozenset()
    deleting: frozenset[int] = frozenset()
    waiting: frozenset[int] = frozenset()
    left: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    unproven: frozenset[int] = frozenset()
    conflicts: frozenset[int] = frozenset()
    settled: dict[int, Literal["taken", "not_taken", "undone"]] = Field(default_factory=dict)
    parking: frozenset[int] = frozenset()
    parked: frozenset[int] = frozenset()
    about: dict[int, About] = Field(default_factory=dict)
    hold: HoldNote | None = None
    words: tuple[str, ...] = ()
    versions: dict[int, tuple[str, ...]] | None = None
    was_going: bool = False
    memory_removed: bool = False
    ended: bool = False
    number: int = Field(0, exclude=True)
    is_tombstone: bool = Field(False, exclude=True)

    @property
    def rows_awaiting_word(self) -> frozenset[int]:
        """Rows on which a person must decide; none in a settling: its parent's record has them."""
        if self.action == "settle":
            return frozenset()
        return self.unproven | self.conflicts

    @property
    def forgotten_rows(self) -> frozenset[int]:
        """Rows that the bucket forgot: only a person's word can put them into a plan."""
        is_forgotten = self.memory_removed and self.action == "move"
        return self.left if is_forgotten else frozenset()

    @property
    def way_on(self) -> str:
        """The command that goes on with the plan, or by which a person decides on its rows."""
        if self.is_over:
            if self.forgotten_rows and not self.rows_awaiting_word:
                return "runbook plan --memory-removed"
            return f"runbook settle {self.plan}"
        return self.resume_command

    @property
    def resume_command(self) -> str:
        """The command that goes on with the plan."""
        return make_resume_command(self.plan, self.action)

    @property
    def is_over(self) -> bool:
        """Whether no run of the plan has anything left to do."""
        return self.ended and not self.parking and self.hold is None

    @property
    def has_effect(self) -> bool:
        """Whether a copy was ever announced, or a person's word was carried out.

        A plan that went on after the bucket's memory was removed counts as one with an effect.
        """
        rows = (self.announced, self.parking, self.parked, self.settled, self.about, self.waiting)
        # ``begun`` is 0 when no row was announced.
        return bool(self.begun or self.memory_removed or any(rows))

    @property
    def is_unbegun(self) -> bool:
        """Whether nothing of the plan was announced so far, and the plan may still begin."""
        return not self.ended and not self.has_effect

    @property
    def ended_without_effect(self) -> bool:
        """Whether a plan about a release was ended before it had any effect on that release."""
        return self.is_tombstone and not self.about

    @property
    def is_closed(self) -> bool:
        """Whether nobody needs to do anything any more."""
        return self.is_over and not self.rows_awaiting_word and not self.forgotten_rows

    def find_owned_rows(self, count: int) -> set[int]:
        """Return which of the plan's rows still belong to the plan: no other plan may touch them.

        Parameters
        ----------
        count : how many rows the plan has
        """
        if self.is_tombstone:
            return set()
        owned = set(self.rows_awaiting_word | self.parking | self.announced)
        if not self.ended:
            # Rows from ``begun`` on were never announced: the plan may still move them.
            owned |= self.waiting | set(range(self.begun, count))
        return owned


def _key(plan: str, name: str) -> str:
    """Return the key of an object of a plan's record."""
    return f"{RELEASES}{plan}/{name}"


def _list_names(bucket: S3Bucket, prefix: str) -> dict[str, list[str]]:
    """Return the names of the objects in each plan's record; the keys are the plans' ids."""
    names: dict[str, list[str]] = defaultdict(list)
    for seen in bucket.list_objects(prefix):
        rest = seen.key.removeprefix(RELEASES)
        plan, _, name = rest.partition("/")
        names[plan].append(name)
    return names


def _list_names_of(bucket: S3Bucket, plan: str) -> list[str]:
    """Return the names of the objects in one plan's record."""
    names = _list_names(bucket, _key(plan, ""))
    return names.get(plan, [])


def list_recorded_plans(bucket: S3Bucket, start: str = "") -> dict[str, bool]:
    """Return the plans on record. Only reads.

    The keys are the plans' ids; the values say whether a plan has its tombstone. A plan without
    tombstone and states is not on record: either its first state is still to come, or the plan is a
    manifest.

    Parameters
    ----------
    start : return only plans whose ids begin with this text

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    """
    listed = _list_names(bucket, f"{RELEASES}{start}")
    has_tombstone = {}
    for plan, names in listed.items():
        if names != [_PLAN]:
            has_tombstone[plan] = _TOMBSTONE in names
    return has_tombstone


def list_records(bucket: S3Bucket) -> list[Record]:
    """Return the record of each plan that has no tombstone. Only reads.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    PlanError
        When a record cannot be understood: nobody knows then which rows are in doubt.
    """
    records = []
    plans = list_recorded_plans(bucket)
    for plan, has_tombstone in sorted(plans.items()):
        if has_tombstone:
            continue
        record = read_record(bucket, plan)
        if record is None or record.is_tombstone:
            continue
        open_record = _drop_settled(bucket, record)
        records.append(open_record)
    return records


def _drop_settled(bucket: S3Bucket, record: Record) -> Record:
    """Return a record without the open rows that a later plan settled or took back.

    After the bucket's memory was removed, a machine with an older copy of the folder may have put
    these rows on record again. Only the record of a release that has ended is compared with later
    plans; any other record is returned as it is.
    """
    if record.action != "move" or not record.ended or not record.rows_awaiting_word:
        return record
    effects: dict[int, About] = {}
    later = read_later_records(bucket, record.plan)
    for other in sorted(later, key=lambda other: other.begun_at):
        effects.update(other.about)
    settled = {row for row, effect in effects.items() if effect != "reopened"}
    changes = {
        "unproven": record.unproven - settled,
        "conflicts": record.conflicts - settled,
    }
    return record.model_copy(update=changes)


def read_later_records(bucket: S3Bucket, plan: str) -> list[Record]:
    """Return the records of the undos, settlings and reopenings of a plan. Only reads.

    Their ids are the plan's id, a hyphen, and more.
    """
    records = []
    names = _list_names(bucket, f"{RELEASES}{plan}-")
    for later_plan in sorted(names):
        record = read_record(bucket, later_plan)
        if record is not None:
            records.append(record)
    return records


def read_record(bucket: S3Bucket, plan: str) -> Record | None:
    """Return the record of one plan; None when the bucket knows nothing of the plan. Only reads.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    PlanError
        When the record cannot be understood: nobody knows then which rows are in doubt.
    """
    for _ in range(_TRIES):
        names = _list_names_of(bucket, plan)
        if _TOMBSTONE in names:
            return _read_state(bucket, plan, _TOMBSTONE)
        newest = _find_newest(plan, names)
        if not newest:
            return None
        states = [_read_state(bucket, plan, name) for name in newest]
        present = [state for state in states if state is not None]
        if len(present) == len(states):
            return _merge(present)
        # Since the listing, someone put a newer state or the tombstone, and removed one of these
        # states: list again.
    raise PlanError(f"the record of {plan} changes while it is read. Try again.")


def _find_newest(plan: str, names: Iterable[str]) -> list[str]:
    """Return the names of the states that have the highest number."""
    numbers = {name: _parse_number(plan, name) for name in names if name != _PLAN}
    highest = max(numbers.values(), default=0)
    return [name for name, number in numbers.items() if number == highest]


def _parse_number(plan: str, name: str) -> int:
    """Return the number in a state's name."""
    digits = name.partition("-")[0]
    if not digits.isdigit():
        raise PlanError(f"{_key(plan, name)} in the bucket is not a record. Look who wrote it.")
    return int(digits)


def _read_state(bucket: S3Bucket, plan: str, name: str) -> Record | None:
    """Return a state, or the tombstone; None when the object has gone."""
    key = _key(plan, name)
    content = bucket.read(key)
    if content is None:
        return None
    try:
        record = Record.model_validate_json(content)
    except ValueError as error:
        text = f"{key} in the bucket is not a record: {error}. Look who wrote it."
        raise PlanError(text) from error
    is_tombstone = name == _TOMBSTONE
    number = 0 if is_tombstone else _parse_number(plan, name)
    changes = {"number": number, "is_tombstone": is_tombstone}
    return record.model_copy(update=changes)


def _merge(records: list[Record]) -> Record:
    """Return one record for states of the same number: a row that is open in one is open."""
    merged, *others = sorted(records, key=lambda record: record.begun)
    for other in others:
        changes = {
            "begun": other.begun,  # the highest so far: the states are sorted by it
            "fence_at": max(merged.fence_at, other.fence_at),
            "announced": merged.announced | other.announced,
            "deleting": merged.deleting | other.deleting,
            "waiting": merged.waiting | other.waiting,
            "left": merged.left | other.left,
            "skipped": merged.skipped | other.skipped,
            "unproven": merged.unproven | other.unproven,
            "conflicts": merged.conflicts | other.conflicts,
            "parking": merged.parking | other.parking,
            "parked": merged.parked | other.parked,
            "settled": {**merged.settled, **other.settled},
            "about": {**merged.about, **other.about},
            "words": tuple(dict.fromkeys(merged.words + other.words)),
            "hold": merged.hold or other.hold,
            "was_going": merged.was_going or other.was_going,
            "memory_removed": merged.memory_removed or other.memory_removed,
            "ended": merged.ended and other.ended,
            "ledger": "several",  # no ledger has such a line, so each one counts as behind
        }
        merged = merged.model_copy(update=changes)
    return merged


def read_recorded_plan(bucket: S3Bucket, record: Record, *, folder: Path) -> MovePlan:
    """Return the plan that lies beside a record in the bucket. Only reads.

    Parameters
    ----------
    folder : where the plan's path points to; nothing is written there

    Raises
    ------
    PlanError
        When the plan is missing, or is not the plan that was approved.
    """
    content = bucket.read(_key(record.plan, _PLAN))
    if content is None:
        raise PlanError(
            f"the bucket does not hold the plan of {record.plan} any more. On the machine that has "
            f"its folder, go on with: {record.resume_command}"
        )
    plan = parse_plan(content, path=folder / f"{record.plan}.jsonl")
    if plan.sha256 != record.sha256:
        raise PlanError(f"the bucket's copy of {record.plan} is not the plan that was approved")
    return plan


def fetch_plan(
    bucket: S3Bucket, plan_id: str, *, find_folder: Callable[[], Path]
) -> MovePlan | None:
    """Write into a folder of this machine a plan that the bucket remembers.

    Parameters
    ----------
    find_folder : returns the folder; it is called only when the bucket has a record of the plan

    Returns
    -------
    The plan; None when the bucket has no record of it, or has its tombstone, or cannot be read.

    Raises
    ------
    PlanError
        When the record cannot be understood; when the plan beside it is missing, or is not the plan
        that was approved; when the plan cannot be written on this machine.
    """
    try:
        record = read_record(bucket, plan_id)
        if record is None or record.is_tombstone:
            return None
        plan = read_recorded_plan(bucket, record, folder=find_folder())
    except StoreError:
        return None
    save_plan(plan)
    return plan


def list_open_plans(bucket: S3Bucket, *, beside: str = "") -> list[tuple[Record, MovePlan]]:
    """Return every plan that has no tombstone, with its record. Only reads.

    Parameters
    ----------
    beside : id of a shard: leave out the other shards of its manifest. Empty: leave out none

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    PlanError
        When a record cannot be understood, or its plan is missing.
    """
    open_plans = []
    manifest = find_manifest(beside)
    for record in list_records(bucket):
        is_sibling = bool(manifest) and find_manifest(record.release) == manifest
        if is_sibling and record.release != beside:
            continue
        plan = _read_plan_unless_closed(bucket, record)
        if plan is not None:
            open_plans.append((record, plan))
    return open_plans


def _read_plan_unless_closed(bucket: S3Bucket, record: Record) -> MovePlan | None:
    """Return a record's plan; None when the plan got its tombstone since the record was read."""
    try:
        return read_recorded_plan(bucket, record, folder=Path())
    except PlanError:
        newer = read_record(bucket, record.plan)
        if newer is None or newer.is_tombstone:
            return None
        raise


def find_owned_keys(bucket: S3Bucket, *, beside: str = "") -> dict[str, Record]:
    """Return which plan without a tombstone owns each key. Only reads.

    Parameters
    ----------
    beside : id of a shard: the other shards of its manifest are left out, since they own no key in
        its range. Empty: nothing is left out

    Returns
    -------
    The keys are objects' keys; the values are the records of the plans that own them. A key that
    stands in two plans belongs to the plan that was begun first.

    Raises
    ------
    StoreError, PlanError
        As in ``list_open_plans``.
    """
    owners: dict[str, Record] = {}
    open_plans = list_open_plans(bucket, beside=beside)
    for record, plan in sorted(open_plans, key=lambda pair: pair[0].begun_at):
        owned_rows = record.find_owned_rows(len(plan.rows))
        for number in sorted(owned_rows):
            row = plan.rows[number]
            for key in (row.key, row.to):
                if key:
                    owners.setdefault(key, record)
    return owners


def find_expiry_rules(bucket: S3Bucket) -> list[str]:
    """Return the lifecycle rules that would, or may, remove the bucket's memory. Only reads.

    Returns
    -------
    Names of the rules; empty also when the rules cannot be read.
    """
    request = Request("get", query={"lifecycle": ""})
    try:
        reply = bucket.fetch(request, "read the lifecycle")
        rules = parse_xml(reply.body, "LifecycleConfiguration")
    except StoreError:
        return []
    if rules is None:
        return []
    names = []
    for rule in rules.iterfind("{*}Rule"):
        places = ("{*}Filter/{*}Prefix", "{*}Filter/{*}And/{*}Prefix", "{*}Prefix")
        prefix = "".join(rule.findtext(place) or "" for place in places)  # one place, or none
        is_on = rule.findtext("{*}Status") == "Enabled"
        expires = rule.find("{*}Expiration") is not None
        covers = RELEASES.startswith(prefix) or prefix.startswith(MEMORY)
        if is_on and expires and covers:
            name = rule.findtext("{*}ID") or prefix or "without a name"
            names.append(name)
    return names


def read_recorded_manifest(bucket: S3Bucket, manifest: str) -> bytes | None:
    """Return the bytes of a manifest that was begun; None when it was not. Only reads."""
    return bucket.read(_key(manifest, _PLAN))


def make_hold_note(session: Session, *, words: str, way_back: str) -> HoldNote:
    """Return a note that others are held from now on, by this session."""
    claim = session.claim
    return HoldNote(
        words=words,
        way_back=way_back,
        by=f"{claim.by} on {claim.host}",
        since=session.stamp,
    )


def put_recorded_plan(session: Session, plan: PlanFile) -> None:
    """Put the plan into the bucket, before its first state."""
    key = _key(plan.id, _PLAN)
    request = Request("put", key, body=plan.content)
    session.renew()  # the reads and checks before this may have taken long
    session.change(request)


def restore_recorded_plan(session: Session, plan: MovePlan, record: Record) -> None:
    """Put a plan back if it is missing beside its record: no reader can use a record alone."""
    if record.is_tombstone:
        return
    key = _key(plan.id, _PLAN)
    if session.bucket.read(key) is None:
        put_recorded_plan(session, plan)


def put_record(session: Session, record: Record) -> Record:
    """Put the plan's next state into the bucket, or its tombstone when nobody needs to do anything.

    After the tombstone was put, the plan and its states are removed.

    Returns
    -------
    The record, with its new number, or marked as the tombstone; unchanged where the tombstone was
    put before.
    """
    if record.is_tombstone:
        return record
    body = record.model_dump_json().encode()
    if record.is_closed:
        key = _key(record.plan, _TOMBSTONE)
        session.change(Request("put", key, body=body))
        remove_record(session, record.plan)
        return record.model_copy(update={"is_tombstone": True})
    stamp_ms = int(session.stamp.timestamp() * 1000)
    number = max(record.number + 1, stamp_ms)
    name = f"{number:013d}-{secrets.token_hex(4)}"
    key = _key(record.plan, name)
    session.change(Request("put", key, body=body))
    return record.model_copy(update={"number": number})


def remove_old_states(session: Session, plan: str) -> None:
    """Remove all states but the newest two; a state that cannot be removed does no harm."""
    states = _list_states(session, plan)
    old_states = sorted(states)[:-_KEPT_STATES]
    _delete(session, plan, old_states)


def remove_record(session: Session, plan: str) -> None:
    """Remove a plan's states, and only then the plan: who reads a state needs the plan, too."""
    states = _list_states(session, plan)
    _delete(session, plan, states)
    _delete(session, plan, [_PLAN])


def _list_states(session: Session, plan: str) -> list[str]:
    """Return the names of a plan's states, without the tombstone."""
    names = _list_names_of(session.bucket, plan)
    return [name for name in names if name not in (_PLAN, _TOMBSTONE)]


def _delete(session: Session, plan: str, names: Iterable[str]) -> None:
    """Delete objects, if possible: what stays is overruled, or says that nothing was announced."""
    requests = [Request("delete", _key(plan, name)) for name in names]
    session.send(requests, counts=False)
