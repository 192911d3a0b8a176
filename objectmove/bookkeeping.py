"""Write a plan's record into the bucket, and the plan's effect where its release finds it.

An undo, a settling and a reopening have an effect on rows of an earlier plan, their release. The
effect is written into the ledger and the record of the release, and of the plan's parent; that of a
reopening, only into the release's ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from chainlog import ChainedLog

from . import record as records
from .ledger import HALF_DONE, Ledger, Leg
from .record import About, Record
from .session import Session
from .table import State

#: After so many new states, the old states are removed.
_CLEAN_EVERY = 64
#: How ``Record.settled`` names these states.
_WORDS: Mapping[State, Literal["taken", "not_taken", "undone"]] = {
    State.TAKEN: "taken",
    State.FREED: "not_taken",
    State.UNDONE: "undone",
}


class Bookkeeping:
    """Keeps one plan's record in the bucket, and writes the plan's effect for its release.

    Parameters
    ----------
    record : what the bucket knows of the plan; None when it knows nothing
    logs : the ledgers of the plans that this one is about, by plan id
    operator : who runs the plan

    Attributes
    ----------
    record : the record that was put last, or that the bucket had before
    may_be_on_record : whether a state of this run may be in the bucket
    """

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        record: Record | None,
        *,
        logs: Mapping[str, ChainedLog],
        operator: str,
    ) -> None:
        self.record = record
        self.may_be_on_record = False
        self._session = session
        self._bucket = session.bucket
        self._ledger = ledger
        self._plan = ledger.plan
        self._logs = logs
        self._operator = operator
        self._states_put = 0

    def write_record(self, *, is_held: bool = True) -> None:
        """Write what the ledger says into the bucket; the first time, put the plan there, too.

        Parameters
        ----------
        is_held : False when a hold ends: the new record then names no hold, although the ledger
            still does. The caller ends the hold in the ledger afterwards
        """
        if self.record is None:
            records.put_recorded_plan(self._session, self._plan)
        self.may_be_on_record = True
        state = self._describe()
        if not is_held:
            state = state.model_copy(update={"hold": None})
        self.record = records.put_record(self._session, state)
        self._states_put += 1
        if self._states_put % _CLEAN_EVERY == 0:
            records.remove_old_states(self._session, self._plan.id)

    def list_rows_with_effect(self) -> list[int]:
        """Return the rows on which this plan had an effect; empty for a release."""
        action = self._plan.header.action
        ledger = self._ledger
        record = self.record
        if action == "move" or not ledger.is_begun:
            return []
        if record is not None and record.ended_without_effect:
            return []  # another machine, which knew of no beginning of the plan, ended the plan
        done = [State.MOVED]
        if action == "settle":
            done.append(State.SKIPPED)  # the row's object has gone, and the word still counts
        rows = []
        for row, planned in enumerate(self._plan.rows):
            is_word_only = action == "settle" and not planned.to
            if action == "reopen" or is_word_only or ledger.states[row] in done:
                rows.append(row)
        return rows

    def write_effect(self) -> None:
        """Write this plan's effect into the ledgers and records of the plans that it is about.

        The effect of a reopening is written into the release's ledger only. Rows whose effect was
        written before are left out.
        """
        header = self._plan.header
        ledger = self._ledger
        rows_with_effect = self.list_rows_with_effect()
        unreported = [row for row in rows_with_effect if row not in ledger.reported_rows]
        if not unreported:
            return
        # Write this plan's ledger and record first. If this process is killed before the release's
        # ledger and record name the effect, the next run still knows the effect.
        ledger.note("telling", sync=True)
        self.write_record()
        for plan_id, log in self._logs.items():
            if header.action == "reopen" and plan_id != header.release:
                continue  # the rows are open again in the release's ledger, not in the settling's
            fact = "release_row" if plan_id == header.release else "row"
            rows = sorted(self._read_row_number(row, fact) for row in unreported)
            self._write_effect_on(plan_id, log, rows)
        ledger.note("told", unreported, sync=True)

    def end_release(self) -> None:
        """Write into the release's ledger and record that it ended, because an undo has begun."""
        release_id = self._plan.header.release
        record = records.read_record(self._bucket, release_id)
        if record is None or record.ended:
            return
        log = self._logs[release_id]
        known_hashes = {entry.hash for entry in log.scan()}
        entry = log.append("ended", {"by": self._plan.id})
        changes: dict[str, object] = {"ended": True}
        # If the ledger lacks the line that the record names, the ledger is an older copy. Then the
        # record goes on naming that line, so that every reader sees that this ledger is behind.
        if record.ledger in known_hashes:
            changes["ledger"] = entry.hash
        changed = record.model_copy(update=changes)
        records.put_record(self._session, changed)

    def remove_earlier_record(self, earlier: Record) -> None:
        """Remove the record of an earlier plan of this name, which never began.

        For example, an undo that is planned again has the name of the earlier undo. If the worker
        was paused for the earlier plan, this plan takes the hold over, and ends the hold.
        """
        if earlier.hold is not None and self._ledger.hold is None:
            note = earlier.hold.model_dump(mode="json")
            self._ledger.note("hold", note=note, sync=True)
        records.remove_record(self._session, self._plan.id)

    def take_over_forgotten(self) -> None:
        """Take rows that the bucket forgot, and that this plan names now, out of other records.

        After the bucket's memory had been removed, a person's word let these rows be planned again.
        """
        own_keys = {row.key for row in self._plan.rows}
        for record, plan in records.list_open_plans(self._bucket):
            forgotten = record.forgotten_rows
            taken_over = {row for row in forgotten if plan.rows[row].key in own_keys}
            if taken_over:
                left = record.left - taken_over
                changed = record.model_copy(update={"left": left})
                records.put_record(self._session, changed)

    def _describe(self) -> Record:
        """Return the plan's record, by what the ledger says now."""
        plan = self._plan
        ledger = self._ledger
        record = self.record
        number = 0
        is_tombstone = False
        # The ledger knows best when the plan was begun, then the record. Without both, it is now.
        begun_at = self._session.stamp
        if record is not None:
            number = record.number
            is_tombstone = record.is_tombstone
            begun_at = record.begun_at
        if ledger.begun_at is not None:
            begun_at = ledger.begun_at
        unproven = frozenset(ledger.rows(State.UNPROVEN))
        return Record(
            plan=plan.id,
            release=plan.header.release,
            parent=plan.header.parent,
            action=plan.header.action,
            begun_at=begun_at,
            sha256=plan.sha256,
            by=ledger.approved_by or self._operator,
            host=self._session.claim.host,
            ledger=ledger.head,
            fence_at=self._get_fence(),
            begun=ledger.begun,
            announced=frozenset(ledger.rows(*HALF_DONE)),
            deleting=frozenset(ledger.rows(State.DELETING)),
            waiting=frozenset(ledger.states.waiting_again),
            left=frozenset(ledger.rows(State.LEFT)),
            skipped=frozenset(ledger.rows(State.SKIPPED)),
            unproven=unproven - ledger.reopened_by.keys(),
            conflicts=frozenset(ledger.rows(State.CONFLICT)),
            settled={row: _WORDS[ledger.states[row]] for row in ledger.rows(*_WORDS)},
            parking=frozenset(ledger.rows(*HALF_DONE, leg=Leg.PARK)),
            parked=frozenset(ledger.rows(State.MOVED, leg=Leg.PARK)),
            about=self._describe_about(),
            hold=ledger.hold,
            words=tuple(dict.fromkeys(ledger.words)),
            was_going=ledger.was_going,
            versions=ledger.versions,
            memory_removed=ledger.memory_removed,
            ended=ledger.is_ended,
            number=number,
            is_tombstone=is_tombstone,
        )

    def _get_fence(self) -> datetime:
        """Return the store's time after which no request of the plan can take effect."""
        ledger = self._ledger
        is_half_done = ledger.rows(*HALF_DONE) or ledger.rows(*HALF_DONE, leg=Leg.PARK)
        if ledger.in_flight or is_half_done:
            return max(self._session.fence_at, ledger.fence_at)
        return ledger.fence_at

    def _describe_about(self) -> dict[int, About]:
        """Return this plan's effect on its release. The keys are numbers of the release's rows."""
        effect = self._name_effect()
        about = {}
        for row in self.list_rows_with_effect():
            release_row = self._read_row_number(row, "release_row")
            about[release_row] = effect
        return about

    def _name_effect(self) -> About:
        """Name the effect that this plan has on rows of its release."""
        header = self._plan.header
        if header.action == "undo":
            return "undone"
        if header.action == "settle" and header.word:
            return header.word
        return "reopened"

    def _read_row_number(self, row: int, fact: str) -> int:
        """Return the number that a row of this plan has in an earlier plan.

        Parameters
        ----------
        fact : ``row`` for the number in the parent, ``release_row`` for the number in the release
        """
        return int(self._plan.rows[row].facts[fact])

    def _write_effect_on(self, plan_id: str, log: ChainedLog, rows: Sequence[int]) -> None:
        """Write the effect into an earlier plan's ledger, and into its record.

        A tombstone does not change. A reopening does not change its release's record, either: the
        reopened rows stand in the reopening's own record.

        Parameters
        ----------
        rows : the numbers of the rows in the earlier plan
        """
        effect = self._name_effect()
        kind = "taken_back" if effect == "undone" else effect
        known_hashes = {entry.hash for entry in log.scan()}
        fields = {"rows": rows, "by": self._operator, "plan": self._plan.id}
        entry = log.append(kind, fields)
        record = records.read_record(self._bucket, plan_id)
        if record is None or record.is_tombstone or effect == "reopened":
            return
        settled = {**record.settled, **dict.fromkeys(rows, effect)}
        changes: dict[str, object] = {
            "unproven": record.unproven.difference(rows),
            "conflicts": record.conflicts.difference(rows),
            "settled": settled,
        }
        # If the ledger lacks the line that the record names, the ledger is an older copy. Then the
        # record goes on naming that line, so that every reader sees that this ledger is behind.
        if record.ledger in known_hashes:
            changes["ledger"] = entry.hash
        changed = record.model_copy(update=changes)
        records.put_record(self._session, changed)
