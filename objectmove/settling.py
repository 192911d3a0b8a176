"""Objects that no other plan may move, where they are, and a person's answers about them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from .bucket import S3Bucket, Version
from .errors import PlanError, StoreError
from .looks import get_ends, judge_ends, look_surely
from .plan import Plan, PlanRow, fetch_plan
from .state import BucketState, Move, Row, Way, read_release
from .table import OPEN, Place, State

_ANSWERABLE = (State.UNPROVEN, State.TAKEN, State.FREED)


class Doubt(NamedTuple):
    """A row that no other plan may move, or that a person freed, and where its object is.

    ``source`` says what is at the row's source, ``parked`` what is at its parking place.
    """

    number: int
    key: str
    planned: PlanRow
    row: Row
    source: Place
    parked: Place

    @property
    def is_open(self) -> bool:
        return self.row.state is State.UNPROVEN

    @property
    def is_in_reach(self) -> bool:
        """Whether the worker, once resumed, may ship the object a second time.

        A request for an open row may still take effect, whatever was seen.
        """
        may_be_there = self.source.may_be_here or self.parked is Place.UNKNOWN
        return self.row.is_reserved and (self.row.state in OPEN or may_be_there)


def look_aside(bucket: S3Bucket, plan: Plan, rows: Iterable[tuple[int, Row]]) -> list[Doubt]:
    """Return a doubt for each row: what lies at its source, and at its parking place."""
    found = [(number, plan.rows[number], row) for number, row in rows]
    keys: list[str] = []
    for _, planned, _ in found:
        keys += get_ends(plan, planned, Way.PARK)
    looks = look_surely(bucket, keys)
    doubts = []
    for number, planned, row in found:
        places = judge_ends(bucket, plan, planned, Way.PARK, looks)
        doubts.append(Doubt(number, planned.key, planned, row, *places))
    return doubts


def find_doubts(bucket: S3Bucket, release: Move) -> list[Doubt]:
    """Return a plan's reserved and freed rows, each with where its object is."""
    rows = [each for each in release.list_all_rows(*State) if each[1].is_reserved]
    rows += release.list_all_rows(State.FREED)
    if not rows:
        return []
    return look_aside(bucket, fetch_plan(bucket, release.sha256), rows)


def list_answerable(bucket: S3Bucket, release: Move) -> list[Doubt]:
    """Return the rows on which a person must answer, or may change an answer.

    A row whose object is neither at its source nor parked needs no answer.
    """
    doubts = [each for each in find_doubts(bucket, release) if each.row.state in _ANSWERABLE]
    return [each for each in doubts if each.source.may_be_here or each.parked.may_be_here]


def list_doubts(bucket: S3Bucket, plan: Plan) -> list[Doubt]:
    """Return the rows on which a person must or may answer. Only reads.

    Raises as ``read_release`` does.
    """
    release, _ = read_release(bucket, plan.id)
    return list_answerable(bucket, release)


def find_in_reach(bucket: S3Bucket, state: BucketState) -> dict[str, str]:
    """Return what the worker, once resumed, may ship a second time, as {source key: plan id}."""
    in_reach: dict[str, str] = {}
    for release in state.moves.values():
        for doubt in find_doubts(bucket, release):
            if doubt.is_in_reach:
                in_reach[doubt.key] = release.plan
    return in_reach


def make_explain(
    bucket: S3Bucket, state: BucketState, *, beside: str = ""
) -> Callable[[Version], str]:
    """Return a function that says why an object must not move, or "".

    It must not if it has the key and content of a reserved row, except one of the plan ``beside``.
    """
    reasons: dict[tuple[str, str, int], str] = {}
    for release in state.moves.values():
        if release.plan == beside:
            continue
        for doubt in find_doubts(bucket, release):
            planned = doubt.planned
            if doubt.row.is_reserved:
                reason = "taken" if doubt.row.state is State.TAKEN else "in_doubt"
                reasons[planned.key, planned.etag, planned.size_bytes] = reason
    return lambda seen: reasons.get((seen.key, seen.etag, seen.size_bytes), "")


def choose_answers(
    doubts: Sequence[Doubt], taken: Sequence[str], not_taken: Sequence[str]
) -> list[tuple[Doubt, State]]:
    """Return each row that a person answers, with the state that the answer gives it.

    Raises PlanError when a key has both answers or is not in ``doubts``, and StoreError when its
    object could not be read.
    """
    given = dict.fromkeys(taken, State.TAKEN)
    for key in not_taken:
        if key in given:
            raise PlanError(f"{key!r} cannot be both taken and not taken")
        given[key] = State.FREED
    answers = [(doubt, given[doubt.key]) for doubt in doubts if doubt.key in given]
    unknown = given.keys() - {doubt.key for doubt, _ in answers}
    if unknown:
        raise PlanError(f"{min(unknown)!r} is not in doubt")
    for doubt, _ in answers:
        if Place.UNKNOWN in (doubt.source, doubt.parked):
            raise StoreError(f"{doubt.key} could not be read: try again")
    return answers


def digest_answers(plan: Plan, answers: Iterable[tuple[Doubt, State]]) -> str:
    """Return the hash that approves answers, and the states and places that were shown."""
    lines = []
    for doubt, answer in answers:
        lines.append("\t".join((doubt.key, answer, doubt.row.state, doubt.source, doubt.parked)))
    return plan.digest("settle", *lines)


def answer_row(doubt: Doubt, answer: State) -> Row:
    """Return a row with a person's answer.

    ``rest`` is the state in which the row ends once its object is parked or brought back.
    """
    if answer is State.TAKEN:  # ``Carrier.park`` parks its object for good
        return replace(doubt.row, state=answer, rest=answer)
    if doubt.parked.is_here:  # bring it back to its source first
        return replace(doubt.row, state=State.WAITING, way=Way.FREE, rest=State.UNPROVEN)
    return replace(doubt.row, state=answer)  # freed: a new plan may move its object
