"""What became of a plan by the end of a run, and which commands lead on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from .bucket import S3Bucket, format_time
from .plan import Plan
from .state import BucketState, Move, Row, read_part, read_state
from .table import OPEN, State


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What this run of a plan and earlier ones did.

    Attributes
    ----------
    plan : id of the move: the plan's, or ``<plan>-undo``
    moved : how many rows moved, whether or not a consumer took them since
    already : of how many a look of this run found the content at the destination
    skipped : ``key`` and ``reason`` of rows that this plan does not move
    conflicts : those of them whose destination was taken by other content
    failed : ``key`` and ``reason`` of rows that were tried, and wait or are open
    unproven : keys of which nobody can know whether a consumer took the object
    parked : keys of objects that are parked
    waiting : how many rows still wait or are open
    left : how many rows a new plan may move
    is_held : whether the worker is held
    is_ended : whether no row waits or is open
    stopped : why the run ended early; empty when it did not
    in_reach : keys that the worker may ship a second time if it is resumed; so it stays held
    ways_on : commands that lead on, without the program's name
    """

    plan: str
    moved: int = 0
    already: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    conflicts: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    waiting: int = 0
    left: int = 0
    is_held: bool = False
    is_ended: bool = True
    stopped: str = ""
    in_reach: list[str] = field(default_factory=list)
    ways_on: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every row moved, and nobody is held for it any more."""
        lists = (self.skipped, self.failed, self.unproven)
        return not any((*lists, self.waiting, self.left, self.stopped, self.in_reach))

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return asdict(self)


_UNFINISHED = (State.WAITING, *OPEN)
_SKIPPED = (State.SKIPPED, State.SHIPPED)


def sum_up(
    plan: Plan,
    move: Move,
    state: BucketState,
    pieces: Sequence[Move],
    *,
    already: int = 0,
    stopped: str = "",
    in_reach: Sequence[str] = (),
) -> MoveResult:
    """Return the result of a run.

    Parameters
    ----------
    move : what was done last about the plan: its release, or its undo
    pieces : the moves of the release's parts that have begun, or the release; and the undo
    """
    rows = _list_rows(pieces)
    last = [piece for piece in pieces if piece.is_undo is move.is_undo]
    moved = ahead = 0
    for piece in last:
        stored_ahead = sum(number >= piece.next for number in piece.rows)
        moved += piece.next - piece.start - len(piece.rows) + stored_ahead
        ahead += piece.end - piece.next - stored_ahead
    stored = _list_rows(last)
    unfinished = [(number, row) for number, row in stored if row.state in _UNFINISHED]
    skipped = [(number, row) for number, row in stored if row.state in _SKIPPED]
    rest = len(plan.rows) - moved - ahead - len(stored)
    waiting = ahead + len(unfinished)
    left = sum(row.state is State.FREED for _, row in rows)
    if not move.is_ended:
        waiting += rest
    elif not move.is_undo:
        left += rest + sum(row.state is State.LEFT for _, row in stored)
    unended = [piece for piece in pieces if not piece.is_ended]
    ways_on = list_ways_on(state, unended[-1] if unended else move, pieces)
    if not ways_on and (left or skipped) and not move.is_undo:
        ways_on = ["plan"]
    return MoveResult(
        plan=move.id,
        moved=moved,
        already=already,
        skipped=_explain(plan, skipped),
        # Where the object is where it was, something else is where it would go.
        conflicts=_explain(plan, [(number, row) for number, row in skipped if row.lies]),
        failed=_explain(plan, [(number, row) for number, row in unfinished if row.why]),
        unproven=[plan.rows[number].key for number, row in rows if row.state is State.UNPROVEN],
        parked=[plan.rows[number].key for number, row in rows if row.lies == "parked"],
        waiting=waiting,
        left=left,
        is_held=state.held is not None,
        is_ended=move.is_ended,
        stopped=stopped or move.stopped,
        in_reach=list(in_reach),
        ways_on=ways_on,
    )


def _list_rows(pieces: Sequence[Move]) -> list[tuple[int, Row]]:
    """Return the stored rows of several moves, each with its number."""
    rows: list[tuple[int, Row]] = []
    for piece in pieces:
        rows += sorted(piece.rows.items())
    return rows


def _explain(plan: Plan, rows: Sequence[tuple[int, Row]]) -> list[dict[str, str]]:
    """Return for each row its key, and why it is in its state."""
    return [{"key": plan.rows[number].key, "reason": row.why} for number, row in rows]


def list_ways_on(state: BucketState, move: Move, pieces: Sequence[Move]) -> list[str]:
    """Return the commands that lead on from a move, without ``plan``; none when it is over."""
    if not move.is_ended:
        return [get_resume(move)]
    rows = [row for _, row in _list_rows(pieces)]
    ways_on = []
    if any(row.state is State.UNPROVEN and row.lies for row in rows):
        ways_on = [f"settle {move.plan}"]
    held = state.held
    if held is None or held.plan != move.plan:
        return ways_on
    in_doubt = (State.UNPROVEN, State.TAKEN)
    is_in_reach = any(row.state in in_doubt and row.lies == "source" for row in rows)
    worker = " --resume-worker" if held.is_kept or is_in_reach else ""
    return [*ways_on, f"resume {move.plan}{worker}"]


def get_resume(move: Move) -> str:
    """Return the command that goes on with a move; it repeats what a person confirmed."""
    command = f"resume {move.plan}"
    if move.is_ended or (move.still_since is None and not move.is_undo):
        return command
    since = f"={format_time(move.still_since)}" if move.still_since is not None else ""
    return f"{command} --consumer-stands-still{since}"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A move that is not over.

    Attributes
    ----------
    rows : how many rows wait, are open or unproven
    way_on : the command that leads on
    held_by, held_since : who holds the worker for it, and since when; empty when nobody does
    """

    plan: str
    by: str
    state: str
    rows: int
    way_on: str
    held_by: str = ""
    held_since: str = ""


def list_unfinished(bucket: S3Bucket) -> list[Unfinished]:
    """Return the moves that are not over, with the command that leads on. Only reads.

    Raises
    ------
    StoreError, PlanError, OldReleaseError
        As ``read_state`` raises them.
    """
    read = read_state(bucket)
    if read is None:
        return []
    state = read.state
    found = []
    held = state.held
    for plan in dict.fromkeys(move.plan for move in state.moves.values()):
        moves = [move for move in state.moves.values() if move.plan == plan]
        pieces = list(chain.from_iterable(list_pieces(bucket, move) for move in moves))
        unended = [move for move in moves if not move.is_ended]
        move = unended[-1] if unended else moves[-1]
        ways_on = list_ways_on(state, move, pieces)
        if not ways_on:
            continue
        rows = sum(piece.end - piece.next for piece in pieces)
        rows += sum(len(piece.find(*OPEN, State.WAITING, State.UNPROVEN)) for piece in pieces)
        is_held = held is not None and held.plan == plan
        found.append(
            Unfinished(
                plan=move.id,
                by=move.by,
                state="not finished" if unended else "in doubt",
                rows=rows,
                way_on=ways_on[0],
                held_by=held.by if held is not None and is_held else "",
                held_since=format_time(held.since) if held is not None and is_held else "",
            )
        )
    return found


def list_pieces(bucket: S3Bucket, move: Move) -> list[Move]:
    """Return the moves of the parts that have begun; without parts, the move itself."""
    if not move.parts:
        return [move]
    parts = [read_part(bucket, move, number) for number in range(1, len(move.parts) + 1)]
    return [part for part in parts if part is not None]
