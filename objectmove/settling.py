"""A person's answers about objects of which nobody can know whether a consumer took them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from .bucket import S3Bucket
from .errors import NotNowError, PlanError, StoreError
from .looks import look_aside
from .plan import Plan
from .state import Answer, Row, Way, read_state, read_story
from .table import Place, State

_ANSWERABLE = (State.UNPROVEN, State.TAKEN, State.FREED)


class Doubt(NamedTuple):
    """A row on which a person must answer, or may answer anew: its object is there to decide on.

    Attributes
    ----------
    number : of the row in the plan
    row : what is stored of it: unproven, or what was answered before
    source, parked : what is at its source, and at its parking place
    """

    number: int
    key: str
    row: Row
    source: Place
    parked: Place

    @property
    def is_open(self) -> bool:
        """Whether an answer is needed, because there is none."""
        return self.row.state is State.UNPROVEN


def list_doubts(bucket: S3Bucket, plan: Plan) -> list[Doubt]:
    """Return the rows of a plan on which a person must or may answer, as they are now. Only reads.

    Raises
    ------
    NotNowError
        When the bucket does not know the plan.
    StoreError
        When the bucket cannot be read.
    """
    read = read_state(bucket)
    if read is None:
        raise NotNowError(f"{plan.id} was never begun: nothing was moved")
    story = read_story(bucket, read.state, plan.id)
    rows = dict(story.list_rows(*_ANSWERABLE))
    places = look_aside(bucket, plan, sorted(rows))
    doubts = []
    for number, (source, parked) in places.items():
        if source.may_be_here or parked.may_be_here:
            doubts.append(Doubt(number, plan.rows[number].key, rows[number], source, parked))
    return doubts


def choose_answers(
    doubts: Sequence[Doubt], taken: Sequence[str], not_taken: Sequence[str]
) -> dict[Doubt, Answer]:
    """Return the rows on which answers are given, each with its answer.

    Raises
    ------
    PlanError
        When a key has both answers, or is not in doubt.
    StoreError
        When an object could not be read.
    """
    given: dict[str, Answer] = dict.fromkeys(taken, "taken")
    for key in not_taken:
        if key in given:
            raise PlanError(f"{key!r} cannot be both taken and not taken")
        given[key] = "not_taken"
    answers = {doubt: given[doubt.key] for doubt in doubts if doubt.key in given}
    unknown = given.keys() - {doubt.key for doubt in answers}
    if unknown:
        raise PlanError(f"{min(unknown)!r} is not in doubt")
    for doubt in answers:
        if Place.UNKNOWN in (doubt.source, doubt.parked):
            raise StoreError(f"{doubt.key} could not be read: try again")
    return answers


def digest_answers(plan: Plan, answers: Mapping[Doubt, Answer]) -> str:
    """Return the hash that approves answers; it covers what was shown of each row, too."""
    lines = []
    for doubt, answer in answers.items():
        lines.append("\t".join((doubt.key, answer, doubt.row.state, doubt.source, doubt.parked)))
    return plan.digest("settle", *lines)


def answer_row(row: Row, doubt: Doubt, answer: Answer) -> Row:
    """Return a row as a person's answer makes it: to be parked, brought back, or done.

    *taken* parks the object for good. *not taken* lets a new plan move it.
    """
    row = replace(row, answer=answer, lies="parked" if doubt.parked.is_here else "source")
    if answer == "not_taken" and doubt.parked.is_here:
        return replace(row, state=State.WAITING, way=Way.FREE)
    # A row that is said to be taken is parked by ``Carrier.park``, if it is still at its source.
    return replace(row, state=State.FREED if answer == "not_taken" else State.TAKEN)
