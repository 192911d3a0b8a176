"""Carry out a plan: a release, an undo, a settling or a reopening; go on after any interruption.

``apply_plan`` begins a plan, ``resume_plan`` goes on with one. A run locks the ledger, claims the
bucket, writes the bucket's record and holds the others, in this order. At its end, also after an
error, it ends these in reverse order; but the others stay held while something could ship twice.
``checks`` says whether a plan may begin, and ``jobs`` which object goes where. ``carry`` moves the
objects, ``holding`` keeps the others still, and ``bookkeeping`` writes the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from chainlog import ChainedLog, LogError

from . import checks
from . import record as records
from .bookkeeping import Bookkeeping
from .bucket import S3Bucket, Seen, find_all, format_time
from .carry import Carrier, Hold, Job, compare_with_plan, look_surely
from .errors import (
    DriftError,
    InterruptedMoveError,
    MoveError,
    MoversError,
    NeedsApprovalError,
    NotApprovedError,
    NotReadyError,
    StoppedError,
    StoreError,
)
from .holding import Holding, digest_approval
from .jobs import Jobs
from .ledger import HALF_DONE, Ledger, Leg, Logs
from .plan import Abilities, MovePlan, PlanRow, describe_window, make_resume_command
from .probe import check_right_to_delete, probe
from .record import Record
from .result import MoveResult, sum_up
from .same_store import check_same_store
from .session import Clock, Notice, Session, read_store_id
from .table import Direction, Place, State

__all__ = [
    "Evidence",
    "FindNewer",
    "MoveResult",
    "Run",
    "Watch",
    "apply_plan",
    "resume_plan",
]

#: How often a run tries to move the rows that wait.
_PASSES = 2
_FORGOTTEN = (
    "the bucket's memory of this plan was removed: another machine may have gone on with it, or "
    "taken it back"
)

FindNewer = Callable[[Mapping[str, datetime]], set[str]]
"""Takes keys with their LastModified; returns the keys that were written after that time."""

Watch = Callable[[str], AbstractContextManager[FindNewer]]
"""Takes a prefix; watches the writes under it inside a ``with`` block."""

Evidence = Callable[[Sequence[PlanRow]], Sequence[str]]
"""Takes rows; returns for each row, in words, what other systems know of its order."""


def _watch_nothing(_prefix: str) -> AbstractContextManager[FindNewer]:
    """Watch no writes: the returned function finds none."""
    return nullcontext(lambda _times: set())


def _know_nothing(rows: Sequence[PlanRow]) -> Sequence[str]:
    """Return an empty text for each row."""
    return [""] * len(rows)


def apply_plan(bucket: S3Bucket, plan: MovePlan, /, *, approve: str, **how: Any) -> MoveResult:
    """Carry out an approved plan that was never begun.

    Parameters
    ----------
    approve : the plan's SHA-256, as the operator typed it
    how : fields of ``Run``, by name

    Raises
    ------
    RefusedError
        When a safety rule refuses; nothing was changed.
    StoppedError
        When the run ended early; the ledger says what it did.
    LogError
        When the ledger cannot be read or written.
    InterruptedMoveError
        When a person interrupted the run.

    Notes
    -----
    Changes the planned objects and ``.runbook/``; undone by ``make_undo_plan``.
    """
    if approve != plan.sha256:
        raise NotApprovedError(f"the approval is not of {plan.id}: its SHA-256 is {plan.sha256}")
    run = Run(bucket, plan, is_new=True, **how)
    return run.carry_out()


def resume_plan(bucket: S3Bucket, plan: MovePlan, /, **how: Any) -> MoveResult:
    """Go on with a plan that was begun, from its ledger or the bucket's record.

    Parameters and errors are those of ``apply_plan``, without the approval: it was given.
    """
    run = Run(bucket, plan, is_new=False, **how)
    return run.carry_out()


@dataclass
class Run:
    """One run of one plan, within one session.

    Attributes
    ----------
    logs : returns the ledger of a plan
    operator : who approves; stands in ledger, claim and record
    hold : keeps everyone else from moving objects
    is_new : whether this run begins the plan; else it goes on with the plan
    notice : called with what is waited for, and for how long, in words
    progress : called with the number of rows dealt with, and the number of rows that waited
    age_key : name of the metadata in which an undo keeps since when an object waits; empty: it
        keeps nothing
    watch : watches writes, so that the loss of a newer version can be reported
    evidence : called before objects are parked; says what other systems know of their orders
    stands_still : a person's word that, until the run has ended, nobody takes from the consumers'
        prefix
    strict : refuse when any planned row changed
    stop_here : announce no more copies
    goes_on : let the others go on although something in their reach may ship twice
    approve_more : the approval of what the plan does not hold: of ``goes_on``, or of a store that
        guards less than when the plan was made
    same_store : a person's word that the plan's endpoint is this store under another name
    """

    bucket: S3Bucket
    plan: MovePlan
    logs: Logs
    operator: str
    hold: Hold
    is_new: bool
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
    books: Bookkeeping = field(init=False)
    holding: Holding = field(init=False)
    abilities: Abilities = field(init=False)
    jobs: Jobs = field(init=False)
    carrier: Carrier = field(init=False)
    #: The record of an earlier plan of this name, which never began.
    _earlier: Record | None = field(init=False, default=None)
    #: The records of the undos and settlings of this plan itself.
    _later: list[Record] = field(init=False, default_factory=list)
    #: Whether rows that wait may be copied.
    _may_announce: bool = field(init=False, default=True)
    #: Why the run ended early, in words; empty when it did not.
    _stopped: str = field(init=False, default="")

    def carry_out(self) -> MoveResult:
        """Lock the ledgers, claim the bucket, and do all that can be done now."""
        plan = self.plan
        log = self.logs(plan.id)
        check_same_store(self.bucket, plan, log, same_store=self.same_store)
        about_logs = self._open_logs_of_others()
        with ExitStack() as stack:
            stack.enter_context(log.locked())
            for about_log in about_logs.values():
                stack.enter_context(about_log.locked())
            session = Session(self.bucket, plan.header, self.operator, self.clock, self.notice)
            self.session = stack.enter_context(session)
            record = self._read_record()
            self._read_and_update_ledger(log, record)
            self.books = Bookkeeping(
                session,
                self.ledger,
                record,
                logs=about_logs,
                operator=self.operator,
            )
            self.holding = Holding(
                self.hold,
                session,
                self.ledger,
                self.books,
                logs=self.logs,
                operator=self.operator,
            )
            try:
                return self._carry_out()
            except (StoppedError, StoreError, LogError) as error:
                raise self._name_way_on(error) from error

    def _read_record(self) -> Record | None:
        """Return what the bucket knows of this plan; None when it knows nothing.

        The bucket may know another plan of the same name, with other bytes. Such a record counts if
        that plan had an effect, or if it ended and this plan is to begin: then the checks refuse
        this plan. Any other record of such a plan is kept in ``_earlier``, to be removed.
        """
        record = records.read_record(self.bucket, self.plan.id)
        if record is None or record.sha256 == self.plan.sha256 or record.has_effect:
            return record
        if record.ended and self.is_new:
            return record
        self._earlier = record
        return None

    def _open_logs_of_others(self) -> dict[str, ChainedLog]:
        """Return the ledgers of the parent and the release, if this plan is about another one."""
        header = self.plan.header
        logs = {}
        for plan_id in (header.parent, header.release):
            is_other = plan_id not in ("", header.id)
            if is_other and plan_id not in logs:
                logs[plan_id] = self.logs(plan_id)
        return logs

    def _read_and_update_ledger(self, log: ChainedLog, record: Record | None) -> None:
        """Read the ledger, and write into it what only the bucket knows.

        If this run goes on with the plan, and the bucket has a record but not the plan's file, put
        the file back. If the ledger is behind the record, write into the ledger that the record is
        believed.
        """
        plan = self.plan
        later = records.read_later_records(self.bucket, plan.id)
        self._later = [other for other in later if other.parent == plan.id]
        self.ledger = Ledger(log, plan, record, later)
        if record is None:
            return
        if not self.is_new:
            records.restore_recorded_plan(self.session, plan, record)
        if self.ledger.is_behind:
            fields = record.model_dump(mode="json")
            log.append("believed", {"record": fields}, sync=True)
            self.ledger = Ledger(log, plan, record, later)
        self._take_over_hold(record)

    def _take_over_hold(self, record: Record) -> None:
        """End or begin the hold in the ledger, as the record or a late pause says.

        A pause is late (``late_pause``) if it may have come after our claim had lapsed.
        """
        ledger = self.ledger
        late_pause = ledger.late_pause
        if ledger.hold is not None and record.is_tombstone and late_pause is None:
            # The tombstone says that the hold ended: end it in the ledger, too.
            ledger.note("hold", note=None, sync=True)
        hold = record.hold or late_pause
        if ledger.hold is None and hold is not None:
            # The others are held: the record says so, or a pause of ours came late.
            ledger.note("hold", note=hold.model_dump(mode="json"), sync=True)

    def _name_way_on(self, error: Exception) -> Exception:
        """Return an error that names the command which goes on, if the plan may be on record."""
        way_on = self.plan.header.resume_command
        is_on_record = self.books.may_be_on_record or self.ledger.is_begun
        if self.is_new and not is_on_record:
            return error
        if way_on in str(error):
            return error
        kind = LogError if isinstance(error, LogError) else StoppedError
        return kind(f"{error}. Go on with: {way_on}")

    def _carry_out(self) -> MoveResult:
        """Do what the plan's state allows: report, end the plan, let the others go on, or move."""
        ledger = self.ledger
        self._check_state()
        record = self.books.record
        known = record or self._earlier
        checks.check_and_renew_memory(self.session, ledger, known, is_new=self.is_new)
        is_parking = bool(ledger.rows(*HALF_DONE, leg=Leg.PARK))
        if ledger.is_ended and ledger.hold is None and not is_parking:
            return self._report_ended()
        if self._is_to_be_ended():
            return self._end_unbegun()
        if self.goes_on:
            self._prepare(self.plan.header.abilities)
            self.holding.let_go_by_approval(self.approve_more, carrier=self.carrier, jobs=self.jobs)
            self.books.write_record()
            return self._sum_up()
        abilities = self._check_store()
        self._prepare(abilities)
        try:
            self._work()
        except KeyboardInterrupt as error:
            raise self._describe_interrupt() from error
        self.books.write_record()
        if ledger.is_ended:
            ledger.log.release_reserve()
        return self._sum_up()

    def _check_state(self) -> None:
        """Refuse a plan that must not begin or go on, by its approval and its undos."""
        ledger = self.ledger
        checks.check_approval(
            ledger,
            self.books.record,
            is_new=self.is_new,
            has_earlier=self._earlier is not None,
            has_word=self.stands_still or self.goes_on,
            now=self.clock.now(),
        )
        if self.plan.header.action == "move" and not ledger.is_ended:
            checks.check_not_taken_back(self.bucket, self.plan)

    def _is_to_be_ended(self) -> bool:
        """Tell whether a resume only ends the plan, because nothing of it was announced.

        A shard on record was approved with its manifest: a resume begins the shard. But if another
        plan has the shard's name on record now, a resume ends the shard.
        """
        if self.is_new:
            return False
        if self._earlier is not None and checks.has_announced_nothing(self.ledger):
            return True
        if not checks.has_nothing_to_resume(self.ledger):
            return False
        is_approved = self.plan.header.is_shard and self.books.record is not None
        return self.stop_here or self.ledger.is_ended or not is_approved

    def _report_ended(self) -> MoveResult:
        """Say what became of a plan that has ended, and write its record.

        If the bucket forgot the plan, first close the rows whose objects have gone since.
        """
        if self.ledger.memory_removed:
            self._stopped = _FORGOTTEN
            left = self.ledger.rows(State.LEFT)
            self._skip_what_went(left)
        self.books.write_record()
        return self._sum_up()

    def _end_unbegun(self) -> MoveResult:
        """Let the worker go on, and end a plan of which nothing was announced."""
        ledger = self.ledger
        if self._earlier is not None:
            self.books.remove_earlier_record(self._earlier)
        self.holding.give_back(None)
        # The word of a settling that was begun counts also for the rows that it does not move.
        self.books.write_effect()
        ledger.note("ended", sync=True)
        self._stopped = "nothing of this plan had been moved, and the plan is ended now: plan again"
        if self.holding.has_let_go:
            self._stopped += ". The worker was paused for this plan, and goes on"
        self.books.write_record()
        return self._sum_up()

    def _check_store(self) -> Abilities:
        """Return what the store guards now; refuse if that is less than when the plan was made.

        A release that was begun goes on if a person approves the difference: then the run finishes
        what landed, and copies nothing more. An undo, a settling or a reopening that was begun goes
        on without such an approval.
        """
        header = self.plan.header
        expires_s = header.timing.expires_s
        abilities = probe(self.bucket, expires_s=expires_s, parked=header.parked)
        if header.action in ("move", "undo"):
            check_right_to_delete(self.bucket, header.source, expires_s=expires_s)
        if not abilities.is_weaker_than(header.abilities):
            return abilities
        window = describe_window(abilities, header.timing, header.parked)
        if self.is_new:
            raise NotReadyError(
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
        return abilities

    def _prepare(self, abilities: Abilities) -> None:
        """Make the jobs and the carrier; ``abilities`` says which safeguards this store has."""
        self.abilities = abilities
        # If nobody takes objects (`is_still`), a doubtful copy may be repeated. That is safe only
        # with a fence: without one, the first copy could land after the second.
        self.jobs = Jobs(self.ledger, is_still=self.stands_still and abilities.fence)
        self.carrier = Carrier(
            self.bucket,
            self.session,
            self.ledger,
            self.hold,
            abilities=abilities,
            clock=self.clock,
            write_record=self.books.write_record,
            make_headers=partial(_keep_age, self.plan, self.age_key),
        )

    def _work(self) -> None:
        """Hold the others, begin, move all that can be moved, and write down the end."""
        header = self.plan.header
        if self.is_new and self._earlier is not None:
            self.books.remove_earlier_record(self._earlier)
        # A delete that is bound to an ETag cannot take a newer version: then nothing can be lost.
        needs_watch = header.action == "move" and not self.abilities.conditional_delete
        watch = self.watch if needs_watch else _watch_nothing
        self.holding.use_looks(self.carrier, self.jobs)
        held = self.holding.held(is_new=self.is_new, wind_down=self._wind_down)
        with held, watch(header.source) as find_newer:
            self._begin()
            moved_before = set(self.ledger.rows(State.MOVED))
            try:
                self._move_all()
                self._note_losses(moved_before, find_newer)
            except (StoppedError, MoversError, StoreError) as error:
                self._stopped = str(error)
                # ``_finish`` needs our claim, and a store that answers.
                if self.session.is_lost or isinstance(error, StoreError):
                    raise
            self._finish()

    def _begin(self) -> None:
        """Look at every row, make the last checks, and write the beginning into the ledger.

        Close the rows that other plans own; a settling or a reopening is refused instead. If this
        is the plan's first run, also close the rows that changed since the plan was made; not in a
        reopening, which moves nothing. Then write down what the plan does at once: a reopening
        opens its rows, an undo ends its release, and a release takes over rows that the bucket
        forgot.
        """
        action = self.plan.header.action
        ledger = self.ledger
        self._look_at_all()
        owners = self._find_owners()
        if self.is_new and action == "settle":
            checks.check_word(self.bucket, self.plan)
        if action == "undo":
            keys = [self.plan.rows[row].key for row in ledger.list_waiting()]
            checks.check_stillness(self.bucket, keys, abilities=self.abilities, clock=self.clock)
        skipped = checks.find_owned(ledger, owners)
        if skipped and action in ("settle", "reopen"):
            reasons = list(skipped.values())
            raise NotApprovedError(reasons[0])
        is_first_run = self.is_new or (self.plan.header.is_shard and not ledger.is_begun)
        if is_first_run and action != "reopen":  # a reopening moves nothing
            skipped |= self._check_changed(skipped)
        self.session.renew()
        self._note_beginning()
        ledger.reasons.update(skipped)
        ledger.close(State.SKIPPED, sorted(skipped))
        if action == "reopen":
            reopened = ledger.rows(State.NONE)
            ledger.close(State.UNPROVEN, reopened)
        if action == "undo":
            self.books.end_release()
        if self.is_new and action == "move":
            self.books.take_over_forgotten()

    def _look_at_all(self) -> None:
        """Look at both ends of every row that moves something.

        A key that is missing in the whole listing of its prefix counts as absent. If that listing
        is too long, and for keys under other prefixes, each key is looked at by itself.
        """
        header = self.plan.header
        keys = self.plan.list_ends()
        looks = self.carrier.looks
        for prefix in (header.source, header.to):
            prefix_keys = [key for key in keys if key.startswith(prefix)]
            listed = find_all(self.bucket, prefix, prefix_keys, on_way=self.session.renew)
            looks.update(listed)
        elsewhere = [key for key in keys if key not in looks]
        looks_elsewhere = look_surely(self.bucket, elsewhere, abilities=self.abilities)
        looks.update(looks_elsewhere)

    def _find_owners(self) -> dict[str, Record]:
        """Return which other plan owns each key.

        The keys are objects' keys; the values are the records of the plans that own them. This plan
        does not count, nor the plan that it undoes, settles or reopens, nor their release.
        """
        header = self.plan.header
        family = (header.id, header.parent, header.release)
        owners = records.find_owned_keys(self.bucket, beside=header.release)
        return {key: owner for key, owner in owners.items() if owner.plan not in family}

    def _check_changed(self, owned: Mapping[int, str]) -> dict[int, str]:
        """Return which rows changed since the plan was made; refuse a plan if these are too many.

        The keys are the rows' numbers; the values say what happened. A shard of which too many rows
        changed is not refused: it moves nothing, and ends. A refused shard would never end: its
        approval would stay valid, and the worker paused, for ever.

        Parameters
        ----------
        owned : rows that belong to other plans: they are not looked at

        Raises
        ------
        DriftError
            When too many rows of a plan that is to begin changed.
        """
        changed = self._find_changed(owned)
        # Where nobody can be held, even one changed object may show that someone else moves.
        is_strict = self.strict or not self.hold.holds
        try:
            checks.check_changed(self.plan, changed, is_strict=is_strict)
        except DriftError as error:
            if self.is_new:
                raise
            self._may_announce = False
            self._stopped = str(error)
        return changed

    def _find_changed(self, owned: Mapping[int, str]) -> dict[int, str]:
        """Return which waiting rows may not have their planned object any more.

        The keys are the rows' numbers; the values say what happened.
        """
        changed = {}
        for row in self.ledger.list_waiting():
            if row in owned:
                continue
            job = self.jobs.make(row)
            place = self.carrier.judge_source(job)
            if place is Place.OTHER:
                changed[row] = "it was rewritten"
            elif place is Place.ABSENT:
                changed[row] = "it is gone"
            elif place is Place.UNKNOWN:
                changed[row] = "it could not be read"
        return changed

    def _note_beginning(self) -> None:
        """Write down who approved the plan, who goes on with it, and what this run's person said.

        In a versioned bucket, also write down which versions are at the destinations already.
        """
        header = self.plan.header
        ledger = self.ledger
        if not ledger.is_begun:
            self._note_approval()
        if not self.is_new:
            ledger.note("resumed", by=self.operator, sync=True)
        if self.stands_still:
            prefix = header.consumed_prefix
            text = f"{self.operator} said that nobody takes from {prefix} meanwhile"
            ledger.note("word", text=text, sync=True)
        is_release = header.action == "move"
        if self.abilities.versions and is_release and ledger.versions is None:
            self._note_versions()

    def _note_approval(self) -> None:
        """Write down who approved the plan, and when it was begun."""
        record = self.books.record
        approved_by = record.by if record else self.operator
        begun_at = record.begun_at if record else self.session.stamp
        self.ledger.note(
            "approved",
            sync=True,
            plan=self.plan.id,
            sha256=self.plan.sha256,
            by=approved_by,
            store_id=read_store_id(self.bucket),
            begun_at=format_time(begun_at),
        )

    def _note_versions(self) -> None:
        """Write down which versions of planned content are at the destinations already."""
        plan = self.plan
        row_by_key = {planned.to: row for row, planned in enumerate(plan.rows)}
        known_ids: dict[str, list[str]] = {}
        for version in self.bucket.list_versions(plan.header.to):
            row = row_by_key.get(version.key)
            if row is not None and version.has_same_content(plan.rows[row]):
                ids = known_ids.setdefault(str(row), [])
                ids.append(version.version_id)
        self.ledger.note("versions", known=known_ids, sync=True)

    def _move_all(self) -> None:
        """Move all that can be moved; then park what must not ship.

        Also park after a stop, unless our claim lapsed.
        """
        try:
            self._move_rows()
        except StoppedError as error:
            if self.session.is_lost:
                raise
            self._stopped = str(error)
        self._remove_stuck_copies()
        self._park()

    def _move_rows(self) -> None:
        """Resolve what is in doubt; then move what waits, unless nothing more may be copied."""
        carrier = self.carrier
        ledger = self.ledger
        carrier.resolve(self.jobs.list_half_done)
        if ledger.memory_removed:
            self._leave_to_person()
            return
        if self.stop_here or not self._may_announce:
            waiting = ledger.list_waiting()
            ledger.close(State.LEFT, waiting)
            return
        for _ in range(_PASSES):  # a copy that was not sent is tried once more
            waiting = [row for row in ledger.list_waiting() if row not in ledger.refused]
            jobs = [self.jobs.make(row) for row in waiting]
            carrier.carry(jobs, self.progress)
            carrier.resolve(self.jobs.list_half_done)

    def _leave_to_person(self) -> None:
        """Close the rows that wait: the bucket forgot them, so a person decides on a new plan.

        Another machine may have moved them.
        """
        ledger = self.ledger
        self._skip_what_went(ledger.list_waiting())
        left = ledger.list_waiting()
        for row in left:
            ledger.reasons[row] = _FORGOTTEN
        ledger.close(State.LEFT, left)

    def _skip_what_went(self, rows: Sequence[int]) -> None:
        """Close the rows whose planned version has left its source.

        A row whose object is parked becomes unproven instead: another machine parked the object,
        and a person decides.
        """
        plan = self.plan
        ledger = self.ledger
        # A row without a destination moves nothing: it is not looked at, and not closed.
        keys = [plan.rows[row].key for row in rows if plan.rows[row].to]
        looks = look_surely(self.bucket, keys, abilities=plan.header.abilities)
        gone_rows = []
        for row in rows:
            planned = plan.rows[row]
            place = compare_with_plan(looks, planned.key, planned, any_version=False)
            if place in (Place.ABSENT, Place.OTHER):
                gone_rows.append(row)
                ledger.reasons[row] = "it has gone since then, or was rewritten"
        parked_rows = self._find_parked(gone_rows)
        for row in parked_rows:
            ledger.reasons[row] = "another machine parked it"
        ledger.close(State.UNPROVEN, sorted(parked_rows))
        ledger.close(State.SKIPPED, [row for row in gone_rows if row not in parked_rows])

    def _find_parked(self, rows: Sequence[int]) -> set[int]:
        """Return those rows of a release or an undo whose planned object is parked."""
        plan = self.plan
        header = plan.header
        if not rows or header.action not in ("move", "undo"):
            return set()
        parked_keys = {
            row: header.get_parked_key(plan.rows[row].key.removeprefix(header.source))
            for row in rows
        }
        looks = look_surely(self.bucket, list(parked_keys.values()), abilities=header.abilities)
        parked = {row: looks.get(key) for row, key in parked_keys.items()}
        return {
            row
            for row, seen in parked.items()
            if seen is not None and seen.has_same_content(plan.rows[row])
        }

    def _remove_stuck_copies(self) -> None:
        """Remove our copies within the worker's reach whose source cannot be deleted."""
        if not self.plan.header.copies_into_reach:
            return
        stuck = []
        for row in self.ledger.rows(State.LANDED):
            job = self.jobs.make(row)
            # With another direction, the worker may have taken the copy, or the copy is parked.
            if row in self.ledger.refused and job.direction is Direction.BACK:
                stuck.append(job)
        self.carrier.remove_copies(stuck)

    def _park(self) -> None:
        """Park what would ship twice, and finish parkings that were cut off."""
        if not self.abilities.parking:
            return
        jobs = self.jobs.list_parkings()
        if jobs:
            self._begin_parking(jobs)
        # Also finish parkings of rows that a person has settled since: these are not in ``jobs``.
        self.carrier.resolve(self.jobs.list_half_done_parkings)

    def _begin_parking(self, jobs: Sequence[Job]) -> None:
        """Park the objects that are still where they were; first collect evidence about them."""
        carrier = self.carrier
        carrier.look_at([job.key for job in jobs])
        new_jobs = []
        for job in jobs:
            is_unannounced = self.ledger.park_states[job.row] is State.NONE
            if is_unannounced and carrier.judge_source(job) is Place.SAME:
                new_jobs.append(job)
        self._note_evidence([job.row for job in new_jobs])
        carrier.carry(new_jobs)

    def _note_evidence(self, rows: Sequence[int]) -> None:
        """Write down what is known of objects' orders before the worker sees the objects vanish."""
        if not rows:
            return
        planned = [self.plan.rows[row] for row in rows]
        texts = self.evidence(planned)
        evidence = {str(row): text for row, text in zip(rows, texts, strict=True) if text}
        self.ledger.note("evidence", found=evidence)

    def _note_losses(self, moved_before: set[int], find_newer: FindNewer) -> None:
        """Write down which newer versions our deletes removed, if the store reports its writes.

        Parameters
        ----------
        moved_before : rows that were moved before this run
        find_newer : finds keys that were written after their planned version
        """
        times = {}
        for row in self.ledger.rows(State.MOVED):
            if row not in moved_before:
                planned = self.plan.rows[row]
                times[planned.key] = planned.last_modified
        newer = find_newer(times)
        if not newer:
            return
        looks = look_surely(self.bucket, sorted(newer), abilities=self.abilities)
        # If anything is at the key now, the newer version does not count as lost.
        lost = [key for key, seen in looks.items() if seen is None]
        if lost:
            self.ledger.note("window", lost=lost, sync=True)

    def _wind_down(self) -> None:
        """After an interrupt, delete the sources of what has landed; copy nothing more."""
        ledger = self.ledger
        rows = [row for row in ledger.rows(State.LANDED) if row not in ledger.in_flight]
        landed = [self.jobs.make(row) for row in rows]
        with suppress(MoveError, KeyboardInterrupt):  # a second interrupt ends this at once
            self.carrier.delete_sources(landed)
            self.books.write_record()

    def _finish(self) -> None:
        """Write this plan's effect into its release; write the end if no further run is needed."""
        ledger = self.ledger
        self.session.renew()
        self.books.write_effect()
        if ledger.memory_removed:
            # Rows that are left need a new plan, except those whose objects have gone.
            self._skip_what_went(ledger.rows(State.LEFT))
        is_half_done = ledger.rows(*HALF_DONE) or ledger.rows(*HALF_DONE, leg=Leg.PARK)
        is_over = not ledger.list_waiting() and not is_half_done
        if is_over and not ledger.is_ended:
            totals = asdict(self._sum_up())
            ledger.note("ended", sync=True, **totals)
        self.books.write_record()

    def _describe_interrupt(self) -> InterruptedMoveError:
        """Return the error that says how far the plan came, and which command goes on."""
        plan = self.plan
        result = self._sum_up()
        way_on = plan.header.resume_command
        if self.is_new and not self.ledger.is_begun and self.ledger.hold is None:
            way_on = f"runbook apply {plan.id} --approve {plan.sha256}"
        moving = [row for row in plan.rows if row.to]
        return InterruptedMoveError(
            moved=result.moved,
            total=len(moving),
            way_on=way_on,
            is_held=result.is_held,
        )

    def _sum_up(self) -> MoveResult:
        """Return what this run and earlier ones did with the plan's rows.

        ``in_reach`` lists the keys that may ship twice if the others go on. It is computed only
        while the others are held.
        """
        settled = 0
        if self.plan.header.action == "settle":
            settled = len(self.books.list_rows_with_effect())
        in_reach: list[str] = []
        if self.ledger.hold is not None:
            in_reach = self.holding.list_in_reach()
        return sum_up(
            self.ledger,
            settled=settled,
            waits_for=self._find_first_command(),
            in_reach=in_reach,
            stopped=self.holding.why_held or self._stopped,
        )

    def _find_first_command(self) -> str:
        """Return the command that must come before any other about this plan; empty for none."""
        unfinished = [record.resume_command for record in self._later if not record.is_over]
        if unfinished:
            return unfinished[0]
        header = self.plan.header
        is_word = header.action in ("settle", "reopen")
        is_open = is_word and bool(self.ledger.rows(State.UNPROVEN, State.CONFLICT))
        if is_open and self.ledger.memory_removed and any(self.logs(header.release).scan()):
            # The bucket forgot these rows. Before they can be settled, the release must be put on
            # record again.
            return make_resume_command(header.release, "move")
        return ""


def _keep_age(plan: MovePlan, age_key: str, job: Job, seen: Seen | None) -> dict[str, str]:
    """Return the headers by which an undo keeps since when an object waits.

    Empty where the copy keeps the source's headers: in other plans, where the age stands there
    already, and where a header could not be sent.
    """
    is_undo = plan.header.action == "undo" and job.leg is Leg.MOVE
    if not is_undo or not age_key or seen is None:
        return {}
    metadata = seen.metadata or {}
    if age_key in metadata:
        return {}
    age_start = plan.rows[job.row].age_start
    metadata = {age_key: format_time(age_start), **metadata}
    headers = dict(seen.headers)
    for name, text in metadata.items():
        headers[f"x-amz-meta-{name}"] = text
    can_be_sent = all(text.isascii() for text in headers.values())
    return headers if can_be_sent else {}
