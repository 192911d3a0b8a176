"""Carry out a plan: a release, an undo, a settling or a reopening; go on with it after anything.

``apply_plan`` begins a plan, ``resume_plan`` goes on with one. One session, in this order: lock the
ledger, claim the bucket, write the bucket's record, hold the others; given back in reverse,
whatever happens. ``carry`` moves the objects.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from chainlog import ChainedLog, LogError

from . import errors
from . import record as records
from .bucket import S3Bucket, Seen, find_all, format_time
from .carry import Carrier, Hold, Job, compare_with_plan, look_surely
from .errors import (
    DriftError,
    InterruptedMoveError,
    MoveError,
    MoversError,
    NeedsApprovalError,
    NotApprovedError,
    RefusedError,
    StoppedError,
    StoreError,
)
from .ledger import HALF, Ledger, Leg, Logs
from .plan import Abilities, MovePlan, PlanRow, describe_window
from .probe import check_right_to_delete, probe
from .record import HoldNote, Record
from .same_store import check_same_store
from .session import Clock, Notice, Session, read_store_id
from .table import Direction, Place, State

_FEW_CHANGED = 3
_CLEAN_EVERY = 64
_STAND_STILL_S = 3.0
_PASSES = 2
_FORGOTTEN = (
    "the bucket's memory of this plan was removed: another machine may have gone on with it, or "
    "taken it back"
)

FindNewer = Callable[[Mapping[str, datetime]], set[str]]
"""Key to LastModified: which of them were written later."""

Watch = Callable[[str], AbstractContextManager[FindNewer]]
"""Hears of writes under a prefix inside its ``with`` block."""

Evidence = Callable[[Sequence[PlanRow]], Sequence[str]]
"""What is known of each row's order from elsewhere, in words, in the same order."""


def _watch_nothing(_prefix: str) -> AbstractContextManager[FindNewer]:
    return nullcontext(lambda _than: set())


def _know_nothing(rows: Sequence[PlanRow]) -> Sequence[str]:
    return [""] * len(rows)


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What a run did.

    Attributes
    ----------
    moved : rows that are at their destination, or were taken there; ``already`` of them were found
        there by a look, after an answer was lost
    skipped, conflicts, failed : ``key`` and ``reason`` of rows that did not move; the failed may be
        tried again
    unproven : keys that a person must settle
    parked : of these, the keys whose object is parked
    waiting : rows that were not dealt with
    left : rows that this plan will not move any more: a new plan may
    lost_in_window : keys whose newer version went in the declared window
    settled : rows on which a person's word was carried out
    reversed : rows that were taken back since, or settled by a person's word
    waits_for : the command that goes on with an undo or a settling which has open rows in hand
    in_reach : keys that would ship twice if the others went on: they are held
    is_held : whether others are still held for the plan
    is_ended : whether nothing is left to do but what a person must decide
    stopped : why the run ended early
    """

    plan: str
    moved: int
    already: int
    skipped: list[dict[str, str]]
    conflicts: list[dict[str, str]]
    failed: list[dict[str, str]]
    unproven: list[str]
    parked: list[str]
    waiting: int
    left: int
    lost_in_window: list[str]
    settled: int
    reversed: int
    waits_for: str
    in_reach: list[str]
    is_held: bool
    is_ended: bool
    stopped: str

    @property
    def is_complete(self) -> bool:
        """Whether every planned object was moved, and nothing was lost."""
        rest = (self.skipped, self.conflicts, self.failed, self.unproven, self.lost_in_window)
        counts = (self.waiting, self.left, self.reversed)
        return not any((*rest, *counts, self.is_held, self.stopped))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def apply_plan(bucket: S3Bucket, plan: MovePlan, *, approve: str, **how: Any) -> MoveResult:
    """Carry out an approved plan that was never begun.

    Parameters
    ----------
    approve : the plan's SHA-256, as the operator typed it
    how : the fields of ``Run``

    Raises
    ------
    RefusedError
        When a safety rule refuses; nothing was changed.
    StoppedError
        When the session ended early; what it did stands in the ledger.
    LogError
        When the ledger cannot be read or written.
    InterruptedMoveError
        When a person interrupted it.

    Notes
    -----
    Changes the planned objects and ``.runbook/``; undone by ``make_undo_plan``.
    """
    if approve != plan.sha256:
        raise NotApprovedError(f"the approval is not of {plan.id}: its SHA-256 is {plan.sha256}")
    return Run(bucket, plan, **how).carry_out(is_new=True)


def resume_plan(bucket: S3Bucket, plan: MovePlan, **how: Any) -> MoveResult:
    """Go on with a plan that was begun, from its ledger or the bucket's record.

    Parameters and errors are those of ``apply_plan``; the approval was given.
    """
    return Run(bucket, plan, **how).carry_out(is_new=False)


def digest_approval(plan: MovePlan, facts: Sequence[str]) -> str:
    """Return what approves something about a plan that is not in it."""
    return hashlib.sha256("\n".join([plan.sha256, *facts]).encode()).hexdigest()


@dataclass
class Run:
    """One session over one plan.

    Attributes
    ----------
    logs : gives the ledger of a plan
    operator : who approves; stands in ledger, claim and record
    hold : of who else may move
    notice : told what is waited for
    progress : called with rows dealt with, and all
    age_key : the metadata in which an undo keeps an object's age
    watch : hears of writes, so that a loss in the declared window is told
    evidence : asked before a source is parked
    stands_still : a person's word that nobody takes from the destination until this is done
    strict : refuse when any planned row changed
    stop_here : announce no copy any more
    goes_on : let the others go on although something in their reach may ship twice
    approve_more : the approval of what the plan does not hold: ``goes_on``, a weaker store
    same_store : a person's word that the plan's endpoint is this store under another name
    """

    bucket: S3Bucket
    plan: MovePlan
    logs: Logs
    operator: str
    hold: Hold
    clock: Clock = field(default_factory=Clock)
    notice: Notice = lambda _: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    age_key: str = ""
    watch: Watch = _watch_nothing
    evidence: Evidence = _know_nothing
    stands_still: bool = False
    strict: bool = False
    stop_here: bool = False
    goes_on: bool = False
    approve_more: str = ""
    same_store: bool = False
    session: Session = field(init=False)
    ledger: Ledger = field(init=False)
    carrier: Carrier = field(init=False)
    record: Record | None = field(init=False, default=None)
    abilities: Abilities = field(init=False)
    _about_logs: dict[str, ChainedLog] = field(init=False, default_factory=dict)
    _may_announce: bool = field(init=False, default=True)
    _later: list[Record] = field(init=False, default_factory=list)
    _may_be_on_record: bool = field(init=False, default=False)
    _states_put: int = field(init=False, default=0)
    _stopped: str = field(init=False, default="")

    def carry_out(self, *, is_new: bool) -> MoveResult:
        """Lock the ledgers, claim the bucket, and do all that can be done."""
        header = self.plan.header
        log = self.logs(self.plan.id)
        check_same_store(self.bucket, self.plan, log, same_store=self.same_store)
        for plan_id in (header.parent, header.release):
            if plan_id not in ("", self.plan.id):
                self._about_logs.setdefault(plan_id, self.logs(plan_id))
        with ExitStack() as stack:
            for one in (log, *self._about_logs.values()):
                stack.enter_context(one.locked())
            session = Session(self.bucket, self.plan, self.operator, self.clock, self.notice)
            self.session = stack.enter_context(session)
            self.record = records.read_record(self.bucket, self.plan.id)
            later = records.read_later_records(self.bucket, self.plan.id)
            self._later = [record for record in later if record.parent == self.plan.id]
            self.ledger = Ledger(log, self.plan, self.record, later)
            if not is_new and self.record is not None:
                records.restore_recorded_plan(session, self.plan, self.record)
            if self.ledger.is_behind and self.record is not None:
                log.append("believed", {"record": self.record.model_dump(mode="json")}, sync=True)
                self.ledger = Ledger(log, self.plan, self.record, later)
            if self.ledger.hold is not None and self.record and self.record.is_tombstone:
                self.ledger.note("hold", note=None, sync=True)  # a hold ends on record first
            held_before = self.record.hold if self.record is not None else None
            if held_before is not None and self.ledger.hold is None:
                # It was given back, and that never came on record: others may rely on it.
                self.ledger.note("hold", note=held_before.model_dump(mode="json"), sync=True)
            try:
                return self._carry_out(is_new=is_new)
            except (StoppedError, StoreError, LogError) as error:
                raise self._name_way_on(error, is_new=is_new) from error

    def _name_way_on(self, error: Exception, *, is_new: bool) -> Exception:
        """Return an error that names the command which goes on, once the plan may be on record."""
        way_on = self.plan.header.resume_command
        is_on_record = not is_new or self._may_be_on_record or self.ledger.is_begun
        if not is_on_record or way_on in str(error):
            return error
        kind = LogError if isinstance(error, LogError) else StoppedError
        return kind(f"{error}. Go on with: {way_on}")

    def _carry_out(self, *, is_new: bool) -> MoveResult:
        self._check_approval(is_new=is_new)
        ledger = self.ledger
        self._check_memory(is_new=is_new)
        if ledger.is_ended and ledger.hold is None:
            if ledger.memory_removed:
                self._stopped = _FORGOTTEN
                self._skip_what_went(ledger.rows(State.LEFT))
            self._write_record()
            return self._sum_up()
        if not is_new and self._is_to_be_ended():
            return self._end_unbegun()
        if self.goes_on:
            self.abilities = self.plan.header.abilities
            self.carrier = self._make_carrier()
            return self._let_go_by_approval()
        self._check_store(is_new=is_new)
        self.carrier = self._make_carrier()
        try:
            self._work(is_new=is_new)
        except KeyboardInterrupt as error:
            raise self._describe_interrupt(is_new=is_new) from error
        self._write_record()
        if ledger.is_ended:
            ledger.log.release_reserve()
        return self._sum_up()

    def _make_carrier(self) -> Carrier:
        return Carrier(
            self.bucket,
            self.session,
            self.ledger,
            self.hold,
            abilities=self.abilities,
            clock=self.clock,
            write_record=self._write_record,
            age_of=self._keep_age,
        )

    # --- may it begin? ---

    def _check_approval(self, *, is_new: bool) -> None:
        plan = self.plan
        ledger = self.ledger
        recorded_sha256 = self.record.sha256 if self.record is not None else ""
        if {ledger.approved_sha256, recorded_sha256} - {"", plan.sha256}:
            raise NotApprovedError(f"{plan.id} is not the plan that was approved by that name")
        is_begun = ledger.is_begun or self.record is not None
        if is_new and is_begun:
            if ledger.is_ended:
                raise NotApprovedError(f"{plan.id} was carried out. Plan again.")
            raise NotApprovedError(f"{plan.id} was begun. Go on with: {plan.header.resume_command}")
        if is_new and self.clock.now() > plan.header.expires_at:
            until = format_time(plan.header.expires_at)
            raise errors.ExpiredError(f"{plan.id} expired at {until}: plan again")
        if not is_new and not is_begun and not ledger.head:
            raise NotApprovedError(f"{plan.id} was never begun, and nothing was moved")
        if plan.header.action == "undo" and not (self.stands_still or self.goes_on):
            raise NotApprovedError(
                f"{plan.id} is safe only while the consumer stands still: stop it, and say so with "
                f"--consumer-stands-still"
            )
        if plan.header.action == "move" and not ledger.is_ended:
            self._check_not_taken_back()

    def _check_not_taken_back(self) -> None:
        """Refuse to go on with a release while it is being taken back."""
        for undo in records.read_later_records(self.bucket, self.plan.id):
            if undo.action == "undo" and undo.parent == self.plan.id and not undo.ended:
                way_on = f"runbook resume {undo.plan} --consumer-stands-still"
                raise NotApprovedError(f"{self.plan.id} is being taken back. Go on with: {way_on}")

    def _check_memory(self, *, is_new: bool) -> None:
        """Find out whether the bucket still remembers what was begun; write its id anew."""
        ledger = self.ledger
        store_id = read_store_id(self.bucket)
        is_other = bool(ledger.store_id) and store_id != ledger.store_id
        if is_new and is_other:
            raise NotApprovedError(
                f"the bucket's memory (.runbook/) was removed since {self.plan.id} was made: "
                "plan again"
            )
        self.session.write_store_id(store_id)
        is_removed = not is_new and (is_other or self.record is None)
        if is_removed and ledger.is_begun and not ledger.memory_removed:
            ledger.note("memory_removed", sync=True)

    def _is_to_be_ended(self) -> bool:
        """Tell whether there is nothing to go on with; a person's approved word always counts."""
        ledger = self.ledger
        if not ledger.is_begun:
            return True
        is_word = self.plan.header.action == "reopen" or not self._needs_hold()
        return not is_word and not ledger.memory_removed and self._has_announced_nothing()

    def _has_announced_nothing(self) -> bool:
        without_effect = {State.NONE}
        if self.plan.header.action != "settle":  # whose word counts also where nothing moves
            without_effect.add(State.SKIPPED)
        states = set(self.ledger.states.values()) | set(self.ledger.park_states.values())
        return self.ledger.begun == 0 and states <= without_effect

    def _end_unbegun(self) -> MoveResult:
        """Give the worker back and end a plan of which nothing was announced."""
        ledger = self.ledger
        was_held = ledger.hold is not None
        self._give_back(None)
        self._tell_release()
        ledger.note("ended", sync=True)
        self._stopped = "nothing of it had been moved, and it is ended now: plan again"
        if was_held and ledger.hold is None:
            self._stopped += ". The worker was paused for it; it goes on"
        self._write_record()
        return self._sum_up()

    def _check_store(self, *, is_new: bool) -> None:
        """Find out what the store guards now; refuse where the plan relies on more."""
        header = self.plan.header
        self.abilities = probe(self.bucket, expires_s=header.timing.expires_s, parked=header.parked)
        if header.action in ("move", "undo"):
            check_right_to_delete(self.bucket, header.source, expires_s=header.timing.expires_s)
        if not self.abilities.is_weaker_than(header.abilities):
            return
        window = describe_window(self.abilities, header.timing, header.parked)
        if is_new:
            raise errors.NotReadyError(
                f"the store guards less than when {self.plan.id} was made: {window}. Plan again."
            )
        if header.action == "move":
            self._may_announce = False
            approval = digest_approval(self.plan, [window])
            if self.approve_more != approval:
                raise NeedsApprovalError(
                    f"The store guards less than when {self.plan.id} was made: {window}. Only what "
                    "landed would be finished; the rest must be planned again.",
                    command=f"{header.resume_command} --approve {approval}",
                )

    # --- the work ---

    def _work(self, *, is_new: bool) -> None:
        """Do all that can be done while everyone else stands still."""
        plan = self.plan
        needs_watch = plan.header.action == "move" and not self.abilities.conditional_delete
        watch = self.watch if needs_watch else _watch_nothing
        with self._held(is_new=is_new), watch(plan.header.source) as find_newer:
            self._begin(is_new=is_new)
            moved_before = set(self.ledger.rows(State.MOVED))
            try:
                self._move_all()
                self._note_losses(moved_before, find_newer)
            except (StoppedError, MoversError, StoreError) as error:
                self._stopped = str(error)
                if self.session.is_lost or isinstance(error, StoreError):
                    raise
            self._finish()

    def _move_all(self) -> None:
        """Move all that can be moved; then park what must not ship."""
        try:
            self._move_rows()
        except StoppedError as error:
            if self.session.is_lost:
                raise
            self._stopped = str(error)
        self._remove_stuck_copies()
        self._park()

    def _move_rows(self) -> None:
        """Settle what is in doubt, and move what waits."""
        carrier = self.carrier
        carrier.resolve(self._list_half)
        if self.ledger.memory_removed:
            self._doubt_the_rest()
        elif self.stop_here or not self._may_announce:
            self.ledger.close(State.LEFT, self._list_waiting())
        else:
            for _ in range(_PASSES):  # what was not sent is tried once more
                jobs = [self._make_job(row) for row in self._list_waiting()]
                carrier.carry([j for j in jobs if j.row not in self.ledger.refused], self.progress)
                carrier.resolve(self._list_half)

    def _begin(self, *, is_new: bool) -> None:
        """Look at everything once, leave out what others own, and write the approval down."""
        plan = self.plan
        ledger = self.ledger
        header = plan.header
        rows = [row for row in plan.rows if row.to]
        seen = self.carrier.seen
        seen.update(find_all(self.bucket, header.source, _keys_under(rows, header.source)))
        seen.update(find_all(self.bucket, header.to, _keys_under(rows, header.to)))
        elsewhere = [key for row in rows for key in (row.key, row.to) if key not in seen]
        seen.update(look_surely(self.bucket, elsewhere, abilities=self.abilities))
        family = {plan.id, header.parent, header.release}
        owned = records.find_owned_keys(self.bucket)
        owners = {key: owner for key, owner in owned.items() if owner not in family}
        if is_new and header.action == "settle":
            self._check_word()
        if header.action == "undo":
            self._check_stillness()
        skipped = self._find_owned(owners)
        if skipped and header.action in ("settle", "reopen"):
            raise NotApprovedError(next(iter(skipped.values())))
        if is_new and header.action != "reopen":  # a word moves nothing
            skipped |= self._find_changed(skipped)
            self._check_changed(skipped, owners)
        self.session.renew()
        if not ledger.is_begun:
            by = self.record.by if self.record else self.operator
            ledger.note(
                "approved",
                sync=True,
                plan=plan.id,
                sha256=plan.sha256,
                by=by,
                store_id=read_store_id(self.bucket),
                begun_at=format_time(self.record.begun_at if self.record else self.session.stamp),
            )
        if not is_new:
            ledger.note("resumed", by=self.operator, sync=True)
        if self.stands_still:
            text = f"{self.operator} said that nobody takes from {self._get_consumed()} meanwhile"
            ledger.note("word", text=text, sync=True)
        if self.abilities.versions and header.action == "move" and ledger.versions is None:
            self._note_versions()
        ledger.reasons.update(skipped)
        ledger.close(State.SKIPPED, sorted(skipped))
        if header.action == "reopen":
            ledger.close(State.UNPROVEN, ledger.rows(State.NONE))
        if header.action == "undo":
            self._end_release()
        if header.action == "move" and is_new:
            self._take_over_forgotten()

    def _check_word(self) -> None:
        """Refuse a word on rows on which somebody said something since the plan was made."""
        header = self.plan.header
        parent = records.read_record(self.bucket, header.parent)
        said_of_row = dict(parent.settled) if parent is not None else {}
        said_of_release_row: dict[int, str] = {}
        later = records.read_later_records(self.bucket, header.release)
        for record in sorted(later, key=lambda record: record.begun_at):
            if record.plan != self.plan.id:
                said_of_release_row.update(record.about)
        settled = []
        for row in self.plan.rows:
            word = said_of_release_row.get(int(row.facts["release_row"]))
            word = word or said_of_row.get(int(row.facts["row"]))
            is_overruled = word == "not_taken" and header.word == "taken"
            if word not in (None, "reopened") and not is_overruled:
                settled.append(row.facts["key"])
        if settled:
            raise NotApprovedError(
                f"{len(settled)} of these rows were settled since {self.plan.id} was made "
                f"({settled[0]}). Look again with: runbook settle {header.parent}"
            )

    def _get_consumed(self) -> str:
        """Return the prefix from which consumers take."""
        header = self.plan.header
        return header.source if header.action == "undo" else header.to

    def _find_owned(self, owners: Mapping[str, str]) -> dict[int, str]:
        """Return the waiting rows that belong to another plan, and what goes on with that one."""
        owned = {}
        for row in self.ledger.rows(State.NONE):
            planned = self.plan.rows[row]
            owner = owners.get(planned.key) or owners.get(planned.to)
            if owner:
                owned[row] = f"{owner} is not finished with it. Go on with: runbook resume {owner}"
        return owned

    def _find_changed(self, owned: Mapping[int, str]) -> dict[int, str]:
        """Return the rows whose object was rewritten, or went, since the plan was made."""
        changed = {}
        for row in self._list_waiting():
            place = self.carrier.find_place(self._make_job(row), at_source=True)
            if row not in owned and place is not Place.SAME:
                changed[row] = "it was rewritten" if place is Place.OTHER else "it is gone"
        return changed

    def _check_changed(self, skipped: Mapping[int, str], owners: Mapping[str, str]) -> None:
        """Refuse when too much changed since the plan was made."""
        rows = self.plan.rows
        changed = [row for row in skipped if not owners.get(rows[row].key)]
        changed = [row for row in changed if not owners.get(rows[row].to)]
        is_release = self.plan.header.action == "move"
        allowed = max(_FEW_CHANGED, len(rows) // 10)
        if self.strict or not is_release or not self.hold.holds:
            allowed = 0
        if len(changed) > allowed:
            some = "; ".join(f"{rows[row].key}: {skipped[row]}" for row in sorted(changed)[:5])
            what = f"{len(changed)} of {len(rows)} planned objects are not what they were: {some}"
            raise DriftError(f"{what}. Nothing was changed; make a new plan.")

    def _check_stillness(self) -> None:
        """Look twice at what an undo takes back: someone who takes it shows by what vanishes."""
        waiting = [self.plan.rows[row].key for row in self._list_waiting()]
        before = look_surely(self.bucket, waiting, abilities=self.abilities)
        self.clock.sleep(_STAND_STILL_S)
        after = look_surely(self.bucket, waiting, abilities=self.abilities)
        vanished = [key for key in waiting if before.get(key) and after.get(key, "?") is None]
        if vanished:
            some = ", ".join(vanished[:5])
            raise DriftError(
                f"{len(vanished)} objects vanished within {_STAND_STILL_S:g} s ({some}): the "
                "consumer does not stand still. Stop it, then try again. Nothing was changed."
            )

    def _note_versions(self) -> None:
        """Write down which versions of planned content are at the destinations already."""
        places = {row.to: number for number, row in enumerate(self.plan.rows)}
        known: dict[int, list[str]] = {}
        for version in self.bucket.list_versions(self.plan.header.to):
            row = places.get(version.key)
            if row is not None and version.has_same_content(self.plan.rows[row]):
                known.setdefault(row, []).append(version.version_id)
        self.ledger.note("versions", known={str(row): ids for row, ids in known.items()}, sync=True)

    def _doubt_the_rest(self) -> None:
        """Leave to a person what another machine may have moved: the bucket forgot about it."""
        self._skip_what_went(self._list_waiting())
        rows = self._list_waiting()
        self.ledger.reasons.update(dict.fromkeys(rows, _FORGOTTEN))
        self.ledger.close(State.LEFT, rows)

    def _skip_what_went(self, rows: Sequence[int]) -> None:
        """Close those of the rows whose planned version is not at its source any more."""
        planned = {row: self.plan.rows[row] for row in rows if self.plan.rows[row].to}
        keys = [one.key for one in planned.values()]
        abilities = self.plan.header.abilities
        found = look_surely(self.bucket, keys, abilities=abilities)
        went = []
        for row, one in planned.items():
            place = compare_with_plan(found, one.key, one, any_version=False)
            if place in (Place.ABSENT, Place.OTHER):
                went.append(row)
        self.ledger.reasons.update(dict.fromkeys(went, "it went since, or was rewritten"))
        self.ledger.close(State.SKIPPED, went)

    def _take_over_forgotten(self) -> None:
        """Have forgotten plans give up the rows that a person's word put into this one."""
        own_keys = {row.key for row in self.plan.rows}
        for record, plan in records.list_open_plans(self.bucket):
            taken = {row for row in record.forgotten_rows if plan.rows[row].key in own_keys}
            if taken:
                changed = record.model_copy(update={"left": record.left - taken})
                records.put_record(self.session, changed)

    def _keep_age(self, job: Job, seen: Seen | None) -> dict[str, str]:
        """Return the headers with which an undo writes an object's age down, where it can."""
        if self.plan.header.action != "undo" or job.leg is Leg.PARK or not self.age_key:
            return {}
        if seen is None or self.age_key in (seen.metadata or {}):
            return {}
        age_start = self.plan.rows[job.row].age_start
        metadata = {self.age_key: format_time(age_start), **(seen.metadata or {})}
        named = {f"x-amz-meta-{name}": text for name, text in metadata.items()}
        headers = {**seen.headers, **named}
        return headers if "".join(headers.values()).isascii() else {}

    def _remove_stuck_copies(self) -> None:
        """Remove our copies from the worker's reach where their source cannot be deleted."""
        if self._may_ship_from_destination():
            stuck = [
                self._make_job(row)
                for row in self.ledger.rows(State.LANDED)
                if row in self.ledger.refused
            ]
            self.carrier.remove_copies([job for job in stuck if job.direction is Direction.BACK])

    def _park(self) -> None:
        """Take out of everyone's reach what would ship twice; ask for evidence first."""
        if not self.abilities.parking:
            return
        jobs = [self._make_job(row, Leg.PARK) for row in self._list_to_park()]
        if not jobs:
            return
        self.carrier.look_at(job.key for job in jobs)
        there = [j for j in jobs if self.carrier.find_place(j, at_source=True) is Place.SAME]
        new = [j for j in there if self.ledger.park_states[j.row] is State.NONE]
        self._note_evidence([job.row for job in new])
        self.carrier.carry(new)
        self.carrier.resolve(self._list_half_parked)

    def _list_to_park(self) -> list[int]:
        """Return the rows whose object must not ship before a person decides."""
        ledger = self.ledger
        states = [State.CONFLICT]
        if not self._may_ship_from_destination():
            states.append(State.UNPROVEN)
        closed = (State.MOVED, State.SKIPPED, State.CONFLICT)
        rows = [row for row in ledger.rows(*states) if ledger.park_states[row] not in closed]
        return [row for row in rows if row not in ledger.refused]

    def _note_evidence(self, rows: Sequence[int]) -> None:
        """Write down what is known of orders before the worker sees their labels vanish."""
        if rows:
            found = self.evidence([self.plan.rows[row] for row in rows])
            named = {str(row): text for row, text in zip(rows, found, strict=True) if text}
            self.ledger.note("evidence", found=named)

    def _note_losses(self, before: set[int], find_newer: FindNewer) -> None:
        """Write down which newer versions went in the declared window, where the store tells."""
        rows = [self.plan.rows[row] for row in self.ledger.rows(State.MOVED) if row not in before]
        newer = find_newer({row.key: row.last_modified for row in rows})
        if not newer:
            return
        there = look_surely(self.bucket, sorted(newer), abilities=self.abilities)
        lost = [key for key, seen in there.items() if seen is None]
        if lost:
            self.ledger.note("window", lost=lost, sync=True)

    # --- jobs ---

    def _make_job(self, row: int, leg: Leg = Leg.MOVE) -> Job:
        planned = self.plan.rows[row]
        if leg is Leg.MOVE:
            direction = self._choose_direction(planned)
            return Job(row, leg, direction, planned.key, planned.to, planned, planned.sha256)
        header = self.plan.header
        if self._may_ship_from_destination():
            # Our own copy at the destination; only its content is known for certain.
            rest = planned.to.removeprefix(self._get_reached_prefix())
            parked = header.get_parked_key(rest)
            return Job(row, leg, Direction.PARK, planned.to, parked, planned, planned.sha256, True)
        parked = header.get_parked_key(planned.key.removeprefix(header.source))
        return Job(row, leg, Direction.PARK, planned.key, parked, planned, planned.sha256)

    def _choose_direction(self, planned: PlanRow) -> Direction:
        header = self.plan.header
        if planned.to.startswith(header.parked):
            return Direction.PARK
        if header.action == "undo":
            return Direction.BACK
        if header.action == "settle":
            # Where nobody holds the worker, the approval is the word that it moves nothing.
            return Direction.THERE if self.ledger.was_going else Direction.BACK
        # A late copy of a store without a fence could land beside a second one.
        is_still = self.stands_still and self.abilities.fence
        return Direction.STILL if is_still else Direction.THERE

    def _may_ship_from_destination(self) -> bool:
        """Tell whether the others ship from where this plan copies to."""
        header = self.plan.header
        return header.action == "undo" or header.word == "not_taken"

    def _get_reached_prefix(self) -> str:
        """Return the prefix from which the others ship."""
        header = self.plan.header
        return header.to if header.action == "undo" else header.source

    def _list_waiting(self) -> list[int]:
        """Return the rows that are to be moved and were not announced, or were refused."""
        return [row for row in self.ledger.rows(State.NONE) if self.plan.rows[row].to]

    def _list_half(self) -> list[Job]:
        return [self._make_job(row) for row in self.ledger.rows(*HALF)]

    def _list_half_parked(self) -> list[Job]:
        rows = self.ledger.rows(*HALF, leg=Leg.PARK)
        return [self._make_job(row, Leg.PARK) for row in rows]

    # --- the others ---

    @contextmanager
    def _held(self, *, is_new: bool) -> Iterator[None]:
        """Keep the others still; what we paused we let go on, also after a crash and a resume."""
        ledger = self.ledger
        is_paused = self.hold.is_paused() if self._needs_hold() else True
        if ledger.hold is not None and not is_paused:
            ledger.note("going", sync=True)
        if not is_paused or (ledger.hold is None and self._is_held_elsewhere()):
            note = HoldNote(
                words=self.hold.words,
                way_back=self.hold.way_back,
                by=f"{self.operator} on {self.session.claim.host}",
                since=self.session.stamp,
            )
            ledger.note("hold", note=note.model_dump(mode="json"), sync=True)
        if not ledger.head:
            ledger.note("begins", by=self.operator, sync=True)
        self._write_record()
        try:
            if not is_paused:
                self.hold.pause()
            if self._needs_hold():
                self.hold.check()
            yield
        except BaseException as error:
            self._wind_down(error)
            self._give_back(error)
            is_refused = isinstance(error, RefusedError | KeyboardInterrupt)
            if is_new and is_refused and not ledger.is_begun and ledger.hold is None:
                with suppress(MoveError):  # it says then that nothing was announced
                    records.remove_record(self.session, self.plan.id)
            raise
        self._give_back(None)

    def _is_held_elsewhere(self) -> bool:
        """Tell whether another plan holds the others, too: the last one lets them go on."""
        found = records.list_records(self.bucket)
        return any(r.hold is not None and r.plan != self.plan.id for r in found)

    def _needs_hold(self) -> bool:
        """Tell whether anything is moved at all: a person's word alone moves nothing."""
        header = self.plan.header
        return header.action != "settle" or any(row.to for row in self.plan.rows)

    def _wind_down(self, error: BaseException) -> None:
        """After an interrupt, finish what has landed: nothing more is copied."""
        if isinstance(error, KeyboardInterrupt) and hasattr(self, "carrier"):
            ledger = self.ledger
            landed = [row for row in ledger.rows(State.LANDED) if row not in ledger.in_flight]
            with suppress(MoveError, KeyboardInterrupt):  # who presses twice does not wait
                self.carrier.delete_sources([self._make_job(row) for row in landed])
                self._write_record()

    def _give_back(self, error: BaseException | None) -> None:
        """Let the others go on, unless something in their reach would ship twice."""
        ledger = self.ledger
        if ledger.hold is None:
            return
        if ledger.hold.words != self.hold.words:
            self._stopped = (
                f"{ledger.hold.words}, and these settings do not: {ledger.hold.way_back}"
            )
            return
        if self._list_in_reach():
            return
        self._let_go(error)

    def _let_go(self, error: BaseException | None) -> None:
        """Let the others go on, unless another plan holds them, too."""
        ledger = self.ledger
        try:
            self.session.confirm()
            if not self._is_held_elsewhere():
                self.hold.resume()
            self._write_record(is_held=False)
        except MoveError as failure:
            if isinstance(error, KeyboardInterrupt):
                return
            why = f"{error}; and " if error else ""
            raise StoppedError(f"{why}the worker may still be paused ({failure})") from failure
        ledger.note("hold", note=None, sync=True)

    def _let_go_by_approval(self) -> MoveResult:
        """Let the others go on although labels may ship twice, once a person approved which.

        Raises
        ------
        NotApprovedError
            When nobody is held for the plan, or the approval is missing, or of other keys.
        """
        ledger = self.ledger
        if ledger.hold is None:
            raise NotApprovedError(f"nobody is held for {self.plan.id}: there is nothing to end")
        rows = [row for row in self.plan.rows if row.to]
        self.carrier.look_at(key for row in rows for key in (row.key, row.to))
        keys = self._list_in_reach()
        approval = digest_approval(self.plan, keys)
        if keys and self.approve_more != approval:
            raise NeedsApprovalError(
                f"If the worker goes on, {len(keys)} may ship twice: {', '.join(keys)}.",
                command=f"runbook resume {self.plan.id} --worker-goes-on --approve {approval}",
            )
        ledger.note("goes_on", keys=keys, by=self.operator, sync=True)
        self._let_go(None)
        self._write_record()
        return self._sum_up()

    def _list_in_reach(self) -> list[str]:
        """Return the keys that would ship twice if the others went on."""
        ledger = self.ledger
        keys = []
        for row, state in ledger.states.items():
            if ledger.park_states[row] is State.MOVED or not self.plan.rows[row].to:
                continue
            is_half = state in HALF
            is_open = state in (State.UNPROVEN, State.CONFLICT)
            if self._may_ship_from_destination():
                is_our_copy_there = is_half or (
                    state is State.CONFLICT and self._may_be(row, at_source=False)
                )
                if is_our_copy_there:
                    keys.append(self.plan.rows[row].to)
            elif (is_half or is_open) and self._may_be(row, at_source=True):
                keys.append(self.plan.rows[row].key)
        return keys

    def _may_be(self, row: int, *, at_source: bool) -> bool:
        """Tell whether the planned object may be at one end, by the last look."""
        if not hasattr(self, "carrier"):
            return True
        place = self.carrier.find_place(self._make_job(row), at_source=at_source)
        return place in (Place.SAME, Place.UNKNOWN)

    # --- the end ---

    def _finish(self) -> None:
        """Write down the end when nothing is left to do but what a person must decide."""
        ledger = self.ledger
        self.session.renew()
        self._tell_release()
        half_parked = ledger.rows(*HALF, leg=Leg.PARK)
        is_over = not self._list_waiting() and not ledger.rows(*HALF) and not half_parked
        if is_over and not ledger.is_ended:
            ledger.note("ended", sync=True, **asdict(self._sum_up()))
        self._write_record()

    def _write_record(self, *, is_held: bool = True) -> None:
        """Have the bucket know what the ledger says.

        Parameters
        ----------
        is_held : whether the hold in the ledger still counts: it ends on record first
        """
        if self.record is None:
            records.put_recorded_plan(self.session, self.plan)
        self._may_be_on_record = True
        state = self._describe()
        if not is_held:
            state = state.model_copy(update={"hold": None})
        self.record = records.put_record(self.session, state)
        self._states_put += 1
        if self._states_put % _CLEAN_EVERY == 0:
            records.remove_old_states(self.session, self.plan.id)

    def _describe(self) -> Record:
        """Return what the bucket should know."""
        plan = self.plan
        ledger = self.ledger
        record = self.record
        words = {State.TAKEN: "taken", State.FREED: "not_taken", State.UNDONE: "undone"}
        settled = {row: words[ledger.states[row]] for row in ledger.rows(*words)}
        has_sent = ledger.in_flight or ledger.rows(*HALF) or ledger.rows(*HALF, leg=Leg.PARK)
        fence_at = self.session.fence_at if has_sent else ledger.fence_at
        return Record(
            plan=plan.id,
            release=plan.header.release,
            parent=plan.header.parent,
            action=plan.header.action,
            begun_at=ledger.begun_at or (record.begun_at if record else self.session.stamp),
            sha256=plan.sha256,
            by=ledger.approved_by or self.operator,
            host=self.session.claim.host,
            ledger=ledger.head,
            fence_at=max(fence_at, ledger.fence_at),
            begun=ledger.begun,
            announced=frozenset(ledger.rows(*HALF)),
            deleting=frozenset(ledger.rows(State.DELETING)),
            waiting=frozenset(ledger.states.waiting_again),
            left=frozenset(ledger.rows(State.LEFT)),
            skipped=frozenset(ledger.rows(State.SKIPPED)),
            unproven=frozenset(ledger.rows(State.UNPROVEN)) - ledger.reopened_by.keys(),
            conflicts=frozenset(ledger.rows(State.CONFLICT)),
            settled=settled,
            parking=frozenset(ledger.rows(*HALF, leg=Leg.PARK)),
            parked=frozenset(ledger.rows(State.MOVED, leg=Leg.PARK)),
            about=self._list_about(),
            hold=ledger.hold,
            words=tuple(dict.fromkeys(ledger.words)),
            was_going=ledger.was_going,
            versions=ledger.versions,
            memory_removed=ledger.memory_removed,
            ended=ledger.is_ended,
            number=self.record.number if self.record else 0,
            is_tombstone=self.record.is_tombstone if self.record else False,
        )

    def _list_about(self) -> dict[int, Any]:
        """Return the rows of the release on which this plan had its effect, and which."""
        rows = {n: int(row.facts["release_row"]) for n, row in self._list_done_about()}
        word = self._get_word()
        return {rows[number]: word for number in rows}

    def _get_word(self) -> str:
        header = self.plan.header
        if header.action == "settle":
            return header.word
        return "undone" if header.action == "undo" else "reopened"

    def _list_done_about(self) -> list[tuple[int, PlanRow]]:
        """Return the rows of which the release must know."""
        action = self.plan.header.action
        ledger = self.ledger
        if action == "move" or not ledger.is_begun:
            return []
        done = [State.MOVED]
        if action == "settle":
            done.append(State.SKIPPED)  # what is not there any more need not be moved
        found = []
        for number, row in enumerate(self.plan.rows):
            is_word_only = action == "settle" and not row.to
            if action == "reopen" or is_word_only or ledger.states[number] in done:
                found.append((number, row))
        return found

    def _tell_release(self) -> None:
        """Write a person's word, or the undo, into the release that it is about."""
        header = self.plan.header
        done = self._list_done_about()
        new = [(number, row) for number, row in done if number not in self.ledger.told]
        if not new:
            return
        # First our own ledger and record: else whoever goes on takes the word for not given.
        self.ledger.note("telling", sync=True)
        self._write_record()
        kinds = {"undone": "taken_back"}
        kind = kinds.get(self._get_word(), self._get_word())
        for plan_id, log in self._about_logs.items():
            name = "release_row" if plan_id == header.release else "row"
            rows = sorted(int(row.facts[name]) for _, row in new)
            if header.action == "reopen" and plan_id != header.release:
                continue  # a settling has no rows of its own that could be open again
            self._tell_one(plan_id, log, kind, rows)
        self.ledger.note("told", [number for number, _ in new], sync=True)

    def _tell_one(self, plan_id: str, log: ChainedLog, kind: str, rows: Sequence[int]) -> None:
        known = {entry.hash for entry in log.read()}
        entry = log.append(kind, {"rows": rows, "by": self.operator, "plan": self.plan.id})
        record = records.read_record(self.bucket, plan_id)
        if record is None or record.is_tombstone or kind == "reopened":
            return
        changes: dict[str, Any] = {
            "unproven": record.unproven.difference(rows),
            "conflicts": record.conflicts.difference(rows),
            "settled": {**record.settled, **dict.fromkeys(rows, self._get_word())},
        }
        if record.ledger in known:
            # Another machine's ledger of the release stays behind what the bucket knows.
            changes["ledger"] = entry.hash
        records.put_record(self.session, record.model_copy(update=changes))

    def _end_release(self) -> None:
        """Have a release that is taken back move nothing more."""
        release_id = self.plan.header.release
        record = records.read_record(self.bucket, release_id)
        if record is None or record.ended:
            return
        log = self._about_logs[release_id]
        known = {entry.hash for entry in log.read()}
        entry = log.append("ended", {"by": self.plan.id})
        changes: dict[str, Any] = {"ended": True}
        if record.ledger in known:
            changes["ledger"] = entry.hash
        records.put_record(self.session, record.model_copy(update=changes))

    def _describe_interrupt(self, *, is_new: bool) -> InterruptedMoveError:
        result = self._sum_up()
        header = self.plan.header
        way_on = header.resume_command
        if is_new and not self.ledger.is_begun and self.ledger.hold is None:
            way_on = f"runbook apply {self.plan.id} --approve {self.plan.sha256}"
        total = len([row for row in self.plan.rows if row.to])
        return InterruptedMoveError(
            moved=result.moved, total=total, way_on=way_on, is_held=result.is_held
        )

    def _sum_up(self) -> MoveResult:
        ledger = self.ledger
        rows = self.plan.rows
        count = Counter(ledger.states.values())
        waiting = [*self._list_waiting(), *ledger.rows(*HALF)]

        def explain(numbers: Sequence[int]) -> list[dict[str, str]]:
            return [{"key": rows[n].key, "reason": ledger.reasons.get(n, "")} for n in numbers]

        found_by_look = [
            row
            for row in ledger.rows(State.MOVED)
            if row in ledger.landings and ledger.landings[row].at is None
        ]
        is_settling = self.plan.header.action == "settle"
        return MoveResult(
            plan=self.plan.id,
            moved=count[State.MOVED],
            already=len(found_by_look),
            skipped=explain(ledger.rows(State.SKIPPED)),
            conflicts=explain(ledger.rows(State.CONFLICT)),
            failed=explain([row for row in waiting if row in ledger.reasons]),
            unproven=[rows[row].key for row in ledger.rows(State.UNPROVEN)],
            parked=[rows[row].key for row in ledger.rows(State.MOVED, leg=Leg.PARK)],
            waiting=0 if ledger.is_ended else len(waiting),
            left=count[State.LEFT] + (len(waiting) if ledger.is_ended else 0),
            lost_in_window=ledger.lost,
            settled=len(self._list_done_about()) if is_settling else 0,
            waits_for=next((one.resume_command for one in self._later if not one.is_over), ""),
            reversed=len(ledger.rows(State.TAKEN, State.FREED, State.UNDONE)),
            in_reach=self._list_in_reach() if ledger.hold is not None else [],
            is_held=ledger.hold is not None,
            is_ended=ledger.is_ended,
            stopped=self._stopped,
        )


def _keys_under(rows: Sequence[PlanRow], prefix: str) -> list[str]:
    """Return the keys of rows, at either end, that lie under a prefix."""
    keys = [key for row in rows for key in (row.key, row.to)]
    return [key for key in keys if key.startswith(prefix)]
