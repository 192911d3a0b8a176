"""What became of a plan's rows by the end of a run, in counts and keys."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, TypeVar

from .ledger import HALF_DONE, Ledger, Leg
from .plan import MovePlan, PlanFile, PlanHeader, PlanRow
from .table import State

T = TypeVar("T")

#: The most conflicts for which a result names a command.
_NAMED_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What this run of a plan and earlier ones did; of a manifest, the runs of its shards.

    Attributes
    ----------
    moved : how many rows moved to their destination, whether or not a consumer took the objects
    already : at how many of the moved rows' destinations a look found the content: the copy's
        answer was lost, or the content was there before
    skipped, conflicts, failed : ``key`` and ``reason`` of rows that did not move; the failed rows
        may be tried again
    unproven : keys that a person must settle
    parked : keys whose object is parked
    waiting : how many rows are still to be moved or resolved
    left : how many rows this plan will not move any more, but a new plan may; among them the rows
        that, by a person's word, were not taken
    lost_in_window : keys of which a newer version was deleted in the window that the plan states
    settled : on how many rows a person's word was carried out
    reversed : how many rows were taken back since, and how many a consumer took by a person's word
    waits_for : the command that must come first, such as the resume of an undo or a settling that
        is under way; empty when none must
    in_reach : keys that may ship twice if the others go on: so the others stay held
    is_held : whether others are still held for the plan
    is_ended : whether nothing is left to do but what a person must decide
    stopped : why the run ended early, in words; empty when it did not
    ways_on : of a manifest: the commands that go on with its shards
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
    ways_on: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do or to look at.

        Every object that was to move was moved. No object was lost or taken back, and nobody is
        still held. The run did not stop early, and no undo or settling has to go on first.
        """
        lists = (self.skipped, self.conflicts, self.failed, self.unproven, self.lost_in_window)
        counts = (self.waiting, self.left, self.reversed)
        return not any((*lists, *counts, self.is_held, self.stopped, self.waits_for))

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return asdict(self)


def sum_up(
    ledger: Ledger, *, settled: int, waits_for: str, in_reach: list[str], stopped: str
) -> MoveResult:
    """Return the result of a run: what the ledger says, and what only the run knows.

    Parameters
    ----------
    settled, waits_for, in_reach, stopped : as in ``MoveResult``
    """
    counts = Counter(ledger.states.values())
    open_rows = [*ledger.list_waiting(), *ledger.rows(*HALF_DONE)]
    waiting = len(open_rows)
    left = counts[State.LEFT] + counts[State.FREED]
    if ledger.is_ended:  # this plan moves nothing more
        left += waiting
        waiting = 0
    return MoveResult(
        plan=ledger.plan.id,
        moved=counts[State.MOVED],
        already=_count_found_by_look(ledger),
        skipped=_explain_rows(ledger, ledger.rows(State.SKIPPED)),
        conflicts=_explain_rows(ledger, ledger.rows(State.CONFLICT)),
        failed=_explain_rows(ledger, [row for row in open_rows if row in ledger.reasons]),
        unproven=_list_keys(ledger, ledger.rows(State.UNPROVEN)),
        parked=_list_keys(ledger, ledger.rows(State.MOVED, leg=Leg.PARK)),
        waiting=waiting,
        left=left,
        lost_in_window=ledger.lost,
        settled=settled,
        waits_for=waits_for,
        reversed=len(ledger.rows(State.TAKEN, State.UNDONE)),
        in_reach=in_reach,
        is_held=ledger.hold is not None,
        is_ended=ledger.is_ended,
        stopped=stopped,
    )


def add_up(manifest: str, results: Sequence[MoveResult], ways_on: list[str]) -> MoveResult:
    """Return one result for a manifest from the results of its shards."""
    stopped = [f"{result.plan}: {result.stopped}" for result in results if result.stopped]
    return MoveResult(
        plan=manifest,
        moved=sum(result.moved for result in results),
        already=sum(result.already for result in results),
        skipped=_join_lists(result.skipped for result in results),
        conflicts=_join_lists(result.conflicts for result in results),
        failed=_join_lists(result.failed for result in results),
        unproven=_join_lists(result.unproven for result in results),
        parked=_join_lists(result.parked for result in results),
        waiting=sum(result.waiting for result in results),
        left=sum(result.left for result in results),
        lost_in_window=_join_lists(result.lost_in_window for result in results),
        settled=sum(result.settled for result in results),
        reversed=sum(result.reversed for result in results),
        waits_for="",  # ``ways_on`` names what must come first for each shard
        in_reach=_join_lists(result.in_reach for result in results),
        is_held=any(result.is_held for result in results),
        is_ended=all(result.is_ended for result in results),
        stopped="; ".join(stopped),
        ways_on=ways_on,
    )


def _join_lists(lists: Iterable[list[T]]) -> list[T]:
    """Return the items of all lists in one list."""
    return list(chain.from_iterable(lists))


def _count_found_by_look(ledger: Ledger) -> int:
    """Count the moved rows whose content a look found at the destination (``already``)."""
    count = 0
    for row in ledger.rows(State.MOVED):
        landing = ledger.landings.get(row)
        if landing is not None and landing.at is None:
            count += 1
    return count


def _explain_rows(ledger: Ledger, rows: Sequence[int]) -> list[dict[str, str]]:
    """Return for each row its key, and why it did not move."""
    planned = ledger.plan.rows
    explained = []
    for row in rows:
        reason = ledger.reasons.get(row, "")
        if row in ledger.park_reasons and ledger.park_states[row] is not State.MOVED:
            reason = f"{reason}; its copy is not parked: {ledger.park_reasons[row]}"
        explained.append({"key": planned[row].key, "reason": reason})
    return explained


def _list_keys(ledger: Ledger, rows: Sequence[int]) -> list[str]:
    """Return the source keys of rows."""
    return [ledger.plan.rows[row].key for row in rows]


def find_ways_on(plan: PlanFile, result: Mapping[str, Any]) -> list[str]:
    """Return the commands that go on after a run, in their order; empty when all is done.

    Parameters
    ----------
    result : a ``MoveResult`` as JSON
    """
    if not isinstance(plan, MovePlan):
        return list(result.get("ways_on", ()))
    header = plan.header
    if not result.get("is_ended") or result.get("is_held"):
        return [header.resume_command]
    if result.get("waits_for"):
        return [result["waits_for"]]
    # A row that a settling leaves open is settled again through the settling's parent.
    settled_plan = header.parent if header.action == "settle" else plan.id
    ways_on: list[str] = []
    if result.get("unproven"):
        ways_on.append(f"runbook settle {settled_plan}")
    source_keys = {row.key: _get_source_key(header, row) for row in plan.rows}
    for conflict in result.get("conflicts", [])[:_NAMED_CONFLICTS]:
        key = shlex.quote(source_keys[conflict["key"]])
        ways_on.append(f"runbook settle {settled_plan} --key {key}")
    is_freed = header.word == "not_taken" and result.get("settled")
    if not ways_on and (result.get("left") or result.get("skipped") or is_freed):
        ways_on.append("runbook plan")
    return ways_on


def _get_source_key(header: PlanHeader, row: PlanRow) -> str:
    """Return the key by which ``settle`` names a row: where the row's object waits or waited."""
    if header.action == "undo":
        return header.to + row.key.removeprefix(header.source)
    # A row of a settling, or of its reopening, names that key. In a release, it is the row's own.
    return row.facts.get("key", row.key)
