"""A person's answers about objects of which nobody can know whether a consumer took them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from .bucket import S3Bucket
from .errors import NotApprovedError, NotNowError, PlanError, StoreError
from .looks import judge, look_surely
from .plan import Plan
from .state import Answer, Row, Way, read_state, read_story
from .table import Place, State

_ANSWERABLE = (State.UNPROVEN, State.TAKEN, State.FREED)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row on which a person must answer, or may answer anew.

    Attributes
    ----------
    number : of the row in the plan
    state : unproven, or what was answered before
    source, parked : what is at its source, and at its parking place
    evidence : what was known of the object's order before the object was parked
    why : why nobody can know
    """

    number: int
    key: str
    state: State
    source: Place
    parked: Place
    evidence: str
    why: str

    @property
    def is_open(self) -> bool:
        """Whether an answer is needed: it has none, and there is an object to decide on."""
        return self.state is State.UNPROVEN and self.has_object

    @property
    def has_object(self) -> bool:
        """Whether the object is at its source or parked, as far as can be read."""
        return self.source.may_be_here or self.parked.may_be_here


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
    planned = {number: plan.rows[number] for number in sorted(rows)}
    keys = []
    for row in planned.values():
        keys += [row.key, plan.header.get_parked_key(row.key)]
    looks = look_surely(bucket, keys)
    doubts = []
    for number, row in planned.items():
        state = rows[number]
        doubt = Doubt(
            number=number,
            key=row.key,
            state=state.state,
            source=judge(bucket, row, looks, row.key),
            parked=judge(bucket, row, looks, plan.header.get_parked_key(row.key)),
            evidence=state.evidence,
            why=state.why,
        )
        if doubt.has_object:
            doubts.append(doubt)
    return doubts


def digest_answers(
    plan: Plan, doubts: Sequence[Doubt], *, taken: Sequence[str], not_taken: Sequence[str]
) -> str:
    """Return the hash that approves answers; it covers what was shown of each row, too.

    Raises
    ------
    PlanError
        When a key has both answers, or is not one of the rows.
    """
    answers = _read_answers(doubts, taken, not_taken)
    lines = []
    for doubt in doubts:
        if doubt.number in answers:
            words = (doubt.key, answers[doubt.number], doubt.state, doubt.source, doubt.parked)
            lines.append("\t".join(words))
    return plan.digest("settle", *lines)


def _read_answers(
    doubts: Sequence[Doubt], taken: Sequence[str], not_taken: Sequence[str]
) -> dict[int, Answer]:
    """Return the answer for each row's number."""
    by_key = {doubt.key: doubt for doubt in doubts}
    both = set(taken) & set(not_taken)
    if both:
        raise PlanError(f"{min(both)!r} cannot be both taken and not taken")
    answers: dict[int, Answer] = {}
    named: list[tuple[str, Answer]] = [(key, "taken") for key in taken]
    named += [(key, "not_taken") for key in not_taken]
    for key, answer in named:
        if key not in by_key:
            some = ", ".join(repr(key) for key in sorted(by_key)[:10]) or "none"
            raise PlanError(f"{key!r} is not in doubt; in doubt are: {some}")
        answers[by_key[key].number] = answer
    return answers


def check_answers(
    bucket: S3Bucket,
    plan: Plan,
    *,
    taken: Sequence[str],
    not_taken: Sequence[str],
    approve: str,
) -> Mapping[Doubt, Answer]:
    """Return the approved answers.

    Raises
    ------
    NotApprovedError
        When the approval is of other answers, or something changed since it was shown.
    StoreError
        When an object could not be read.
    """
    doubts = list_doubts(bucket, plan)
    needed = ""
    with suppress(PlanError):  # an object has gone since
        needed = digest_answers(plan, doubts, taken=taken, not_taken=not_taken)
    if approve != needed or not needed:
        text = "the approval is not of these answers, or something changed since: look again"
        raise NotApprovedError(text, needed=needed, way_on=f"settle {plan.id}")
    answers = _read_answers(doubts, taken, not_taken)
    chosen = {doubt: answers[doubt.number] for doubt in doubts if doubt.number in answers}
    for doubt in chosen:
        if Place.UNKNOWN in (doubt.source, doubt.parked):
            raise StoreError(f"{doubt.key} could not be read: try again")
    return chosen


def answer_row(row: Row, doubt: Doubt, answer: Answer) -> Row:
    """Return a row as a person's answer makes it: to be parked, brought back, or done.

    *taken* parks the object for good. *not taken* lets a new plan move it.
    """
    row = replace(row, answer=answer, lies="parked" if doubt.parked.is_here else "source")
    if answer == "not_taken" and doubt.parked.is_here:
        return replace(row, state=State.WAITING, way=Way.FREE)
    # A row that is said to be taken is parked by ``Carrier.park``, if it is still at its source.
    return replace(row, state=State.FREED if answer == "not_taken" else State.TAKEN)
