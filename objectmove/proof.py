"""Prove a move by a new look: find where each planned object is, and what else was touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from . import record as records
from .bucket import Look, S3Bucket, Seen, add_missing_etags, find_all
from .carry import compare_with_plan, look_surely
from .errors import StoreError
from .ledger import HALF_DONE, Ledger, Leg, Logs
from .plan import MovePlan, PlanRow
from .record import Record
from .same_store import check_same_store
from .session import STORE_ID, Clock, Notice
from .table import Direction, Proof, State, decide

#: The most keys that a proof names for each outcome.
_NAMED = 100
#: Outcomes that are as planned.
_AS_PLANNED = (Proof.IN_PLACE, Proof.GONE_AFTER_LANDED)
#: States in which any version of the planned content counts at the source.
_BY_CONTENT = (State.UNDONE, State.FREED, State.LEFT)


class MoveProof(NamedTuple):
    """What an independent look found.

    Attributes
    ----------
    at : the store's time of the look
    counts : how many objects have each outcome. Outcomes are those of ``table.Proof``, and two
        more. ``lost``: a newer version was deleted in the window that the plan states.
        ``foreign_changed``: planned content was written, between the first and the last copy, at a
        key under the destination that no row names
    keys : for each outcome but ``in_place``, at most 100 keys
    approved_by : who approved the plan
    taken_back_by : the undo that took rows back; empty when no undo did
    taken_before : how many objects of the release a consumer took: the undo left them out; 0
        without an undo
    parked : for each source key, the key where the object is parked; at most 100 of a plan's rows
    shards : for each shard whose proof is not complete, its counts; None for a plan of objects
    """

    plan: str
    at: datetime
    counts: dict[str, int]
    keys: dict[str, tuple[str, ...]]
    approved_by: str
    taken_back_by: str
    taken_before: int
    parked: dict[str, str]
    shards: dict[str, dict[str, int]] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every planned object is in place, or was taken after our copy was confirmed.

        If an object was lost, or another key was written (``foreign_changed``), no proof is
        complete; nor after an undo.
        """
        if self.taken_back_by:
            return False
        failures = [count for name, count in self.counts.items() if name not in _AS_PLANNED]
        return sum(failures) == 0

    def to_json(self) -> dict[str, Any]:
        """Return the proof as JSON."""
        shards = {} if self.shards is None else {"shards": self.shards}
        return {
            "plan": self.plan,
            **self.counts,
            **shards,
            "keys": {name: list(keys) for name, keys in self.keys.items()},
            "approved_by": self.approved_by,
            "taken_back_by": self.taken_back_by,
            "taken_before": self.taken_before,
            "parked": self.parked,
        }


def verify_plan(
    bucket: S3Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    clock: Clock,
    notice: Notice = lambda _: None,
    same_store: bool = False,
) -> MoveProof:
    """Look at every planned source and destination, and compare with the ledger. Only reads.

    First wait until no request about a row in doubt can take effect any more.

    Parameters
    ----------
    notice : called with the reason and the length of the wait, in words
    same_store : a person's word that the plan's endpoint is this store under another name

    Raises
    ------
    StoreError
        When the bucket cannot be read: nothing is proven then.
    PlanError
        When a record in the bucket cannot be understood.
    NotApprovedError
        When these settings name another store.
    """
    check_same_store(bucket, plan, logs(plan.id), same_store=same_store)
    record = records.read_record(bucket, plan.id)
    log = logs(plan.id)
    later = records.read_later_records(bucket, plan.id)
    ledger = Ledger(log, plan, record, later)
    if record is None and ledger.is_begun:
        ledger.memory_removed = True  # only in this object: no line is written
    _wait_for_fence(bucket, ledger, clock, notice)
    at = bucket.read_clock()
    # As in ``look_surely``: an absence counts only if the store shows its id before and after.
    has_id = bucket.look([STORE_ID]).get(STORE_ID) is not None
    keys = [row.key for row in plan.rows if row.to]
    sources = _look_at_sources(bucket, plan, keys, has_id=has_id)
    destinations, foreign = _list_destination(bucket, plan)
    if has_id and bucket.look([STORE_ID]).get(STORE_ID) is None:
        raise StoreError("the store stopped showing its id during the look: look again")
    outcomes: dict[str, list[str]] = {str(name): [] for name in Proof}
    outcomes["foreign_changed"] = _find_foreign(ledger, foreign)
    outcomes["lost"] = list(ledger.lost)
    has_word = _has_word(ledger, record)
    for number, row in enumerate(plan.rows):
        if row.to:
            proof = _judge(plan, ledger, number, sources, destinations)
        else:
            proof = Proof.SETTLED_BY_WORD if has_word else Proof.WAITING
        outcomes[proof].append(row.key)
    counts = {}
    named = {}
    for name, outcome_keys in outcomes.items():
        counts[name] = len(outcome_keys)
        if outcome_keys and name != Proof.IN_PLACE:
            named[name] = tuple(outcome_keys[:_NAMED])
    # Count all rows that were taken back, also those that count as waiting at their source.
    undone = ledger.rows(State.UNDONE)
    counts["taken_back"] = len(undone)
    return MoveProof(
        plan=plan.id,
        at=at,
        counts=counts,
        keys=named,
        approved_by=ledger.approved_by,
        taken_back_by=ledger.taken_back_by,
        taken_before=counts[Proof.GONE_AFTER_LANDED] if ledger.taken_back_by else 0,
        parked=_list_parked(plan, ledger),
    )


def add_up(manifest: str, at: datetime, proofs: Sequence[MoveProof]) -> MoveProof:
    """Return one proof for a manifest from the proofs of its shards."""
    counts: Counter[str] = Counter()
    keys: dict[str, tuple[str, ...]] = {}
    parked: dict[str, str] = {}
    shards = {}
    for proof in proofs:
        counts.update(proof.counts)
        parked.update(proof.parked)
        for outcome, some in proof.keys.items():
            keys[outcome] = (*keys.get(outcome, ()), *some)[:_NAMED]
        if not proof.is_complete:
            shards[proof.plan] = {name: n for name, n in proof.counts.items() if n}
    return MoveProof(
        plan=manifest,
        at=at,
        counts=dict(counts),
        keys=keys,
        approved_by=", ".join(sorted({proof.approved_by for proof in proofs})),
        taken_back_by=", ".join(proof.taken_back_by for proof in proofs if proof.taken_back_by),
        taken_before=sum(proof.taken_before for proof in proofs),
        parked=parked,
        shards=shards,
    )


def _wait_for_fence(bucket: S3Bucket, ledger: Ledger, clock: Clock, notice: Notice) -> None:
    """Wait until no request about a row in doubt can take effect any more."""
    in_doubt = ledger.rows(*HALF_DONE)
    if not in_doubt:
        return
    while True:
        left_s = (ledger.fence_at - bucket.read_clock()).total_seconds()
        if left_s <= 0:
            return
        notice(f"{len(in_doubt)} objects may still change: {left_s:.0f} s more")
        clock.sleep(min(left_s + 0.2, 5.0))


def _look_at_sources(bucket: S3Bucket, plan: MovePlan, keys: list[str], *, has_id: bool) -> Look:
    """Look at source keys.

    In a settling, they may lie under two prefixes: some objects may be parked.
    """
    prefix = plan.header.source
    if all(key.startswith(prefix) for key in keys):
        return find_all(bucket, prefix, keys)
    return look_surely(bucket, keys, abilities=plan.header.abilities, has_id=has_id)


def _list_destination(bucket: S3Bucket, plan: MovePlan) -> tuple[Look, list[Seen]]:
    """Return what is at each row's destination, and the planned content at other keys there.

    A destination that could not be read is missing.
    """
    keys = {row.to for row in plan.rows if row.to}
    contents = {(row.etag, row.size_bytes) for row in plan.rows}
    destinations: Look = dict.fromkeys(keys)
    foreign = []
    for listed in _list_range(bucket, plan):
        if listed.key in keys:
            destinations[listed.key] = listed
        elif (listed.etag, listed.size_bytes) in contents:
            foreign.append(listed)
    add_missing_etags(bucket, destinations)
    if plan.header.is_shard:
        # A listing that does not begin at the prefix's first key proves no absence.
        unlisted = [key for key, listed in destinations.items() if listed is None]
    else:
        unlisted = [key for key in keys if not key.startswith(plan.header.to)]
    if unlisted:
        looks = bucket.look(unlisted)
        for key in unlisted:
            if key in looks:
                destinations[key] = looks[key]
            else:
                del destinations[key]
    return destinations, foreign


def _list_range(bucket: S3Bucket, plan: MovePlan) -> Iterator[Seen]:
    """Yield the objects under a plan's destination; for a shard, only in its range of keys."""
    header = plan.header
    if not header.is_shard:
        yield from bucket.list_objects(header.to)
        return
    first = header.to + header.first.removeprefix(header.source)
    last = header.to + header.last.removeprefix(header.source)
    for seen in bucket.list_objects(header.to, start=first):
        if seen.key > last:
            return
        if seen.key >= first:
            yield seen


def _find_foreign(ledger: Ledger, candidates: list[Seen]) -> list[str]:
    """Return keys that no row names, where planned content was written between our copies.

    Parameters
    ----------
    candidates : objects with planned content, at keys that no row names
    """
    times = [landing.at for landing in ledger.landings.values() if landing.at]
    if not times:
        return []
    first = min(times)
    last = max(times)
    keys = [seen.key for seen in candidates if first <= seen.last_modified <= last]
    return sorted(keys)


def _has_word(ledger: Ledger, record: Record | None) -> bool:
    """Tell whether a settling was begun, and no other machine ended it before its word counted."""
    if record is not None and record.ended_without_effect:
        return False
    return ledger.is_begun


def _judge(plan: MovePlan, ledger: Ledger, number: int, sources: Look, destinations: Look) -> Proof:
    """Say what the looks and the ledger prove of the row with this number."""
    row = plan.rows[number]
    state = ledger.states[number]
    landing = ledger.landings.get(number)
    etag = landing.etag if landing else ""
    # If the bucket forgot the plan, another machine may have taken the row back: then the object
    # at the source has another LastModified than the planned version.
    any_version = state in _BY_CONTENT or ledger.memory_removed
    source = compare_with_plan(sources, row.key, row, any_version=any_version)
    destination = compare_with_plan(destinations, row.to, row, any_version=True, etag=etag)
    direction = _get_direction(plan, row)
    return decide(direction=direction, state=state, source=source, destination=destination).proof


def _get_direction(plan: MovePlan, row: PlanRow) -> Direction:
    """Return the direction under which a row stands in the decision table."""
    if row.to.startswith(plan.header.parked):
        return Direction.PARK
    if plan.header.action in ("move", "reopen"):
        return Direction.THERE
    return Direction.BACK


def _list_parked(plan: MovePlan, ledger: Ledger) -> dict[str, str]:
    """Return where objects are parked, for at most a hundred rows.

    The keys are source keys; the values are the keys where the objects are parked.
    """
    header = plan.header
    parked = {}
    rows = ledger.rows(State.MOVED, leg=Leg.PARK)
    for number in rows[:_NAMED]:
        key = plan.rows[number].key
        rest = key.removeprefix(header.source)
        parked[key] = header.get_parked_key(rest)
    return parked
