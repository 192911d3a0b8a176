"""The decision table: each cell has one rule, and the rules keep the promises."""

from __future__ import annotations

import os
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from objectmove.table import RULES, Act, Direction, Place, Proof, State, decide

DOCS = Path(__file__).parents[2] / "docs" / "decision-table.md"
CELLS = list(product(Direction, State, Place, Place))


def test_each_cell_has_exactly_one_rule() -> None:
    found = Counter(cell for rule in RULES for cell in rule.cells())
    assert set(found) == set(CELLS)
    assert set(found.values()) == {1}
    assert all(rule.reason for rule in RULES)


Cell = tuple[Direction, State, Place, Place]


def rule_of(cell: Cell) -> tuple[Act | State, Proof]:
    direction, state, source, destination = cell
    rule = decide(direction=direction, state=state, source=source, destination=destination)
    return rule.act, rule.proof


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_no_cell_breaks_a_promise(cell: Cell) -> None:
    direction, state, source, destination = cell
    act, _ = rule_of(cell)
    if act is Act.COPY:
        assert (source, destination) == (Place.SAME, Place.ABSENT)
        # once a copy may have been visible to consumers, it is never put there again
        if direction is Direction.THERE:
            assert state is State.NONE
        if direction is Direction.STILL:
            assert state in (State.NONE, State.DOUBTFUL)
    if act is Act.DELETE:  # only what is certain to have been at its destination
        assert state in (State.LANDED, State.DELETING)
    if act is Act.DELETE and direction in (Direction.BACK, Direction.PARK):
        assert destination is Place.SAME
    if act is Act.ADOPT:
        assert destination is Place.SAME
    if act in (Act.COPY, Act.ADOPT, Act.DELETE):
        assert source is Place.SAME
    if act is State.UNPROVEN:  # nobody ships from where an undo or a parking copies to
        assert direction in (Direction.THERE, Direction.STILL)
    if Place.UNKNOWN in (source, destination):
        assert act is not Act.COPY


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_good_word_needs_a_reason(cell: Cell) -> None:
    _, state, source, destination = cell
    _, proof = rule_of(cell)
    if proof in (Proof.IN_PLACE, Proof.GONE_AFTER_LANDED):
        assert state in (State.LANDED, State.DELETING, State.MOVED) or destination is Place.SAME
        assert source is not Place.SAME
    # a person's word is not proof, and what was taken back is not there
    if state in (State.TAKEN, State.FREED, State.UNDONE):
        assert proof in (Proof.SETTLED_BY_WORD, Proof.TAKEN_BACK, Proof.WAITING)


@pytest.mark.parametrize("state", [State.LANDED, State.DELETING])
def test_g17_an_undo_never_deletes_the_last_copy(state: State) -> None:
    for source, destination in product(Place, Place):
        act, _ = rule_of((Direction.BACK, state, source, destination))
        assert act is not Act.DELETE or (source, destination) == (Place.SAME, Place.SAME)
    assert rule_of((Direction.BACK, state, Place.SAME, Place.ABSENT))[0] is Act.COPY


def test_the_docs_show_the_table_of_the_code() -> None:
    """WRITE_TABLE=1 prints it anew."""
    names = ("direction", "ledger", "source", "destination", "act", "proof", "why")
    lines = [f"| {' | '.join(row)} |" for row in (names, *RULES)]
    table = "\n".join([lines[0], f"|{'---|' * len(names)}", *lines[1:]])
    text = DOCS.read_text("utf-8")
    if "WRITE_TABLE" in os.environ:
        DOCS.write_text(f"{text[: text.index(lines[0][:10])]}{table}\n", "utf-8")
    assert table in DOCS.read_text("utf-8")
