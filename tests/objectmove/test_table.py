"""The decision table: each cell has one rule, and what no run may do stands in none."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from objectmove.table import RULES, UNENDED, Act, Direction, Place, Proof, State, decide


def list_deciding(state: State, direction: Direction) -> list[tuple[Place, Place, Act | State]]:
    cells = []
    for source, destination in product(Place, Place):
        rule = decide(direction=direction, state=state, source=source, destination=destination)
        cells.append((source, destination, rule.act))
    return cells


def test_each_cell_has_exactly_one_rule() -> None:
    rules = Counter(cell for rule in RULES for cell in rule.list_cells())

    assert set(rules) == set(product(Direction, State, Place, Place))
    assert set(rules.values()) == {1}


@pytest.mark.parametrize("state", [State.DOUBTFUL, State.RENAMING, State.LANDED, State.DELETING])
def test_a_release_sends_nothing_again_that_a_consumer_may_have_taken(state: State) -> None:
    for source, destination, act in list_deciding(state, Direction.THERE):
        if act is Act.SEND:
            # A rename that left the planned version where it was has had no effect.
            assert state is State.RENAMING
            assert (source, destination) == (Place.SAME, Place.ABSENT)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("state", list(State))
def test_no_source_is_deleted_that_is_not_the_planned_content(
    state: State, direction: Direction
) -> None:
    for source, _, act in list_deciding(state, direction):
        if act is Act.DELETE:
            assert source.is_here


@pytest.mark.parametrize("direction", [Direction.BACK, Direction.ASIDE])
def test_no_way_back_or_aside_deletes_before_a_look_found_the_copy(direction: Direction) -> None:
    for state in State:
        for _, destination, act in list_deciding(state, direction):
            if act is Act.DELETE:
                assert destination.is_here


@pytest.mark.parametrize("state", sorted({*State}.difference(UNENDED)))
def test_a_row_that_has_ended_is_left_alone(state: State) -> None:
    for direction in Direction:
        assert {act for *_, act in list_deciding(state, direction)} == {Act.NOTHING}


def test_a_moved_row_whose_content_is_at_its_source_again_is_duplicated() -> None:
    for source in (Place.SAME, Place.AGAIN):
        rule = decide(
            direction=Direction.THERE, state=State.MOVED, source=source, destination=Place.ABSENT
        )
        assert rule.proof is Proof.DUPLICATED
