"""The decision table: each cell has one rule, and the rules keep the promises."""

from __future__ import annotations

import os
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from objectmove.table import RULES, Act, Place, Proof, State, decide

DOCS = Path(__file__).parents[2] / "docs" / "decision-table.md"
CELLS = list(product(State, Place, Place))


def test_each_cell_has_exactly_one_rule() -> None:
    found = Counter(cell for rule in RULES for cell in rule.cells())
    assert set(found) == set(CELLS)
    assert set(found.values()) == {1}
    assert all(rule.reason for rule in RULES)


def rule_of(cell: tuple[State, Place, Place]) -> tuple[Act | State, Proof]:
    state, source, destination = cell
    rule = decide(state=state, source=source, destination=destination)
    return rule.act, rule.proof


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_no_cell_breaks_a_promise(cell: tuple[State, Place, Place]) -> None:
    state, source, destination = cell
    act, proof = rule_of(cell)
    changes = act in (Act.COPY, Act.ADOPT, Act.DELETE)
    if act is Act.COPY:  # once a copy may have been visible, it is never put there again
        assert state is State.NONE
        assert (source, destination) == (Place.SAME, Place.ABSENT)
    if act is Act.DELETE:  # only what is certain to have been at its destination
        assert state is State.LANDED
    if act is Act.ADOPT:
        assert destination is Place.SAME
    if changes:
        assert source is Place.SAME
    if proof in (Proof.IN_PLACE, Proof.GONE_AFTER_LANDED):  # a good word needs a reason
        assert state in (State.LANDED, State.MOVED, State.TAKEN) or destination is Place.SAME
        assert state is State.TAKEN or source is not Place.SAME
    if Place.UNKNOWN in (source, destination):
        assert act is not Act.COPY


def test_the_docs_show_the_table_of_the_code() -> None:
    """WRITE_TABLE=1 prints it anew."""
    names = ("ledger", "source", "destination", "act", "proof", "why")
    lines = [f"| {' | '.join(row)} |" for row in (names, *RULES)]
    table = "\n".join([lines[0], f"|{'---|' * len(names)}", *lines[1:]])
    text = DOCS.read_text("utf-8")
    if "WRITE_TABLE" in os.environ:
        DOCS.write_text(f"{text[: text.index(lines[0][:10])]}{table}\n", "utf-8")
    assert table in DOCS.read_text("utf-8")
