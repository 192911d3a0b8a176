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


def test_a_row_is_looked_at_again_only_for_what_could_not_be_read() -> None:
    for direction, state, source, destination in product(Direction, UNENDED, Place, Place):
        rule = decide(direction, state, source, destination)
        assert rule.act is not Act.NOTHING
        if source is Place.UNKNOWN:
            assert rule.act is Act.LOOK
        if rule.act is Act.LOOK:
            assert Place.UNKNOWN in (source, destination)
            assert rule.proof is (Proof.WAITING if state is State.WAITING else Proof.UNPROVEN)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("state", [*UNENDED, State.MOVED])
def test_a_proof_says_what_the_two_ends_show(state: State, direction: Direction) -> None:
    shown = {
        Place.ABSENT: Proof.GONE_AFTER_LANDED,
        Place.OTHER: Proof.CHANGED_BY_OTHERS,
        Place.UNKNOWN: Proof.UNPROVEN,
    }
    for source, destination in product(Place, Place):
        rule = decide(direction, state, source, destination)
        if rule.act is Act.SEND:
            assert source.is_here
            assert rule.proof is Proof.WAITING
        elif rule.act is State.OCCUPIED:
            assert (source.is_here, destination) == (True, Place.OTHER)
            assert rule.proof is Proof.CHANGED_BY_OTHERS
        elif rule.act is State.SHIPPED:
            assert (source.is_here, destination.is_here) == (False, False) or state is State.WAITING
            assert rule.proof is Proof.GONE_AFTER_LANDED
        elif rule.act is State.SKIPPED:
            assert not source.is_here
            assert rule.proof is Proof.CHANGED_BY_OTHERS
        elif state is State.MOVED and source.is_here:
            assert rule.proof is Proof.DUPLICATED
        elif rule.act in (State.MOVED, Act.NOTHING):
            assert not source.is_here
            assert rule.proof is shown.get(destination, Proof.IN_PLACE)
