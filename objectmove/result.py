"""What became of a plan: what runs did, what a new listing proves, and the commands to run next."""

from datetime import datetime, timedelta
from typing import NamedTuple

from .bucket import S3Bucket, format_time
from .looks import get_ends, judge_ends, look_surely, scan_rows
from .plan import Plan
from .settling import list_answerable
from .state import BucketState, Move, Way, read_release, read_state
from .table import UNENDED, Direction, Proof, State, decide

#: The most keys that a proof names for each outcome.
_NAMED = 100


class MoveResult(NamedTuple):
    """What this run of a plan and earlier ones did."""

    plan: str
    moved: int  # whether or not a consumer took them since
    already: int  # rows whose content this run found at the destination before it sent anything
    skipped: list[dict[str, str]]  # key and reason of rows that this plan doesn't move
    conflicts: list[dict[str, str]]  # the skipped rows with other content at their destination
    failed: list[dict[str, str]]  # key and reason of rows that were tried and have not ended
    unproven: list[str]  # keys of objects that a consumer may have taken
    waiting: int  # rows that have not ended
    left: int  # rows that a new plan may move
    is_held: bool  # whether the worker is paused by us
    stopped: str  # why the run ended early, or ""
    in_reach: list[str]  # keys that may ship twice if the worker is resumed, so it stays paused
    ways_on: list[str]  # the next commands, without the program's name


def list_ways_on(bucket: S3Bucket, state: BucketState, release: Move) -> list[str]:
    """Return the next commands for a plan, without ``plan``; none when nothing is left to do."""
    if release.unended is not None:
        return [get_resume(release.unended)]
    plan = release.plan
    doubts = list_answerable(bucket, release)
    ways_on = []
    if any(doubt.is_open for doubt in doubts):
        # `settle` refuses while another plan is unfinished.
        other = state.unfinished
        ways_on.append(get_resume(other) if other is not None else f"settle {plan}")
    held = state.held
    if held is None or held.plan != plan:
        return ways_on
    is_in_reach = any(doubt.is_in_reach for doubt in doubts)
    worker = " --resume-worker" if held.is_kept or is_in_reach else ""
    return [*ways_on, f"resume {plan}{worker}"]


def get_resume(move: Move) -> str:
    """Return the command that resumes a move, with the confirmation that it began with."""
    command = f"resume {move.plan}"
    if move.is_ended or (move.still_since is None and not move.is_undo):
        return command
    since = f"={format_time(move.still_since)}" if move.still_since is not None else ""
    return f"{command} --consumer-stands-still{since}"


class Unfinished(NamedTuple):
    """A plan that needs more work: its next command, and who paused the worker for it, or "".

    ``rows`` counts the rows that haven't ended, and the unproven ones.
    """

    plan: str
    rows: int
    way_on: str
    held_by: str
    held_since: str


def list_unfinished(bucket: S3Bucket) -> list[Unfinished]:
    """Return the plans that need more work. Only reads; raises as ``read_state`` does."""
    read = read_state(bucket)
    found: list[Unfinished] = []
    if read is None:
        return found
    held = read.state.held
    for release in read.state.moves.values():
        ways_on = list_ways_on(bucket, read.state, release)
        if not ways_on:
            continue
        move = release.unended or release.undo or release
        rows = sum(each.end - each.next for each in release.all_moves)
        rows += len(release.list_all_rows(*UNENDED, State.UNPROVEN))
        holder = ("", "")
        if held is not None and held.plan == move.plan:
            holder = (held.by, format_time(held.since))
        found.append(Unfinished(move.id, rows, ways_on[0], *holder))
    return found


class MoveProof(NamedTuple):
    """What a fresh listing of source and destination proves.

    ``counts`` has each outcome of ``table.Proof``, and ``foreign_changed``: objects with a row's
    content, written under the destination since the move began, at a key that no row names.
    """

    at: datetime  # the store's time right before the listing
    counts: dict[str, int]
    keys: dict[str, list[str]]  # for each outcome but ``in_place``, at most 100
    taken_back_by: str  # the id of the undo that moved rows back, or ""
    undo_until: datetime | None  # when the undo period ends


def verify_plan(bucket: S3Bucket, plan: Plan) -> MoveProof:
    """List source and destination, and ask the table about each row. Only reads.

    Raises NotNowError when the bucket doesn't know the plan (never begun, or forgotten), and
    StoreError or PlanError when it can't be read or understood, so that nothing is proven.
    """
    release, now = read_release(bucket, plan.id)
    header = plan.header
    rows = plan.rows
    undo = release.undo
    began_at = release.announced_at
    contents = {(row.etag, row.size_bytes) for row in rows}
    destinations = {row.to for row in rows}
    foreign = []
    for seen in bucket.list_objects(header.to):
        is_ours = (seen.etag, seen.size_bytes) in contents and seen.key not in destinations
        if is_ours and began_at is not None and seen.last_modified >= began_at:
            foreign.append(seen.key)
    outcomes: dict[str, list[str]] = {outcome: [] for outcome in Proof}
    outcomes["foreign_changed"] = foreign
    for number, row, looks in scan_rows(bucket, plan, range(len(rows))):
        stored = release.get_last_row(number)
        state = stored.state
        direction = stored.way.direction
        if direction is Direction.ASIDE:
            looks.update(look_surely(bucket, [*get_ends(plan, row, stored.way)]))
            if state in UNENDED:  # on its way to the parking place, or back
                state = stored.rest
                direction = Direction.THERE
        ends = judge_ends(bucket, plan, row, stored.way, looks)
        outcome: str = decide(direction, state, *ends).proof
        if state is State.MOVED and stored.way is Way.BACK and outcome != Proof.DUPLICATED:
            outcome = Proof.TAKEN_BACK
        outcomes[outcome].append(row.key)
    return MoveProof(
        at=now,
        counts={outcome: len(keys) for outcome, keys in outcomes.items()},
        keys={
            outcome: keys[:_NAMED]
            for outcome, keys in outcomes.items()
            if keys and outcome != Proof.IN_PLACE
        },
        taken_back_by=undo.id if undo is not None and undo.announced_at is not None else "",
        undo_until=began_at and began_at + timedelta(seconds=header.undo_s),
    )
