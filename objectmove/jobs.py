"""The jobs of a plan: which object goes from where to where, and which rows are to be parked."""

from __future__ import annotations

from .carry import Job
from .ledger import HALF_DONE, Ledger, Leg
from .plan import PlanRow
from .table import Direction, State


class Jobs:
    """Makes the jobs of one plan.

    Parameters
    ----------
    is_still : whether, by a person's word, nobody takes from the destination of a release; False
        on a store without a fence
    """

    def __init__(self, ledger: Ledger, *, is_still: bool) -> None:
        self._ledger = ledger
        self._plan = ledger.plan
        self._is_still = is_still

    def make(self, row: int, leg: Leg = Leg.MOVE) -> Job:
        """Return the job that moves a row to its destination, or parks it."""
        planned = self._plan.rows[row]
        if leg is Leg.PARK:
            return self._make_parking(row, planned)
        return Job(
            row=row,
            leg=leg,
            direction=self._choose_direction(planned),
            key=planned.key,
            to=planned.to,
            planned=planned,
            sha256=planned.sha256,
        )

    def list_half_done(self) -> list[Job]:
        """Return the moves whose copy was announced and whose source may still be there."""
        return [self.make(row) for row in self._ledger.rows(*HALF_DONE)]

    def list_half_done_parkings(self) -> list[Job]:
        """Return the parkings whose copy was announced and whose source may still be there."""
        rows = self._ledger.rows(*HALF_DONE, leg=Leg.PARK)
        return [self.make(row, Leg.PARK) for row in rows]

    def list_parkings(self) -> list[Job]:
        """Return the parkings of objects that must not ship before a person decides.

        Parkings that have ended, and those that the store refused in this run, are left out.
        """
        ledger = self._ledger
        states = [State.CONFLICT]
        # If the worker took the source of an unproven row, the object could ship twice. A plan that
        # copies into the worker's reach has its sources elsewhere.
        if not self._plan.header.copies_into_reach:
            states.append(State.UNPROVEN)
        ended = (State.MOVED, State.SKIPPED, State.CONFLICT)
        rows = [row for row in ledger.rows(*states) if ledger.park_states[row] not in ended]
        return [self.make(row, Leg.PARK) for row in rows if row not in ledger.refused]

    def _make_parking(self, row: int, planned: PlanRow) -> Job:
        """Return the job that takes a row's object out of the worker's reach.

        The object is the source, or our copy at the destination if the worker takes from there.
        """
        header = self._plan.header
        key = planned.key
        rest = key.removeprefix(header.source)
        any_version = False
        if header.copies_into_reach:
            # Of our own copy, only the content is known for certain.
            key = planned.to
            rest = key.removeprefix(header.reached_prefix)
            any_version = True
        return Job(
            row=row,
            leg=Leg.PARK,
            direction=Direction.PARK,
            key=key,
            to=header.get_parked_key(rest),
            planned=planned,
            sha256=planned.sha256,
            any_version=any_version,
        )

    def _choose_direction(self, planned: PlanRow) -> Direction:
        """Return a row's direction for the decision table: who may take from its destination."""
        header = self._plan.header
        if planned.to.startswith(header.parked):
            return Direction.PARK
        if header.action == "undo":
            return Direction.BACK
        if header.action == "settle":
            # A worker that moved although it was held may have taken our copy. Where nothing can
            # hold the worker, the person who approved gave their word that it moves nothing.
            return Direction.THERE if self._ledger.was_going else Direction.BACK
        return Direction.STILL if self._is_still else Direction.THERE
