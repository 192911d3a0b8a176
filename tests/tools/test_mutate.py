"""What `python -m tools.mutate` changes, and that a seed tells what it draws."""

from __future__ import annotations

import ast

import pytest

from tools.mutate import draw, list_places, make_mutant


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("if not a:\n    b()", {"if a:", "if True:", "if False:", "pass"}),
        ("def f(a: 'b'=1): return a", {"def f(a: 'b'=0):", "def f(a: 'b'=2):", "return None"}),
        ("A = ['b', 'c', 'some prose']", {f"A = ['{x}', '{x}', 'some prose']" for x in "bc"}),
        ("_TABLE = '''\na b c d E f\na b c d G f\n'''", {"a b c d E f", "a b c d G f"}),
    ],
)
def test_each_change_is_made_alone(source: str, changed: set[str]) -> None:
    tree = ast.parse(source)
    places = list(list_places(tree))
    mutants = [make_mutant("", "", tree, change) for changes in places for change in changes]
    assert {mutant.after for mutant in mutants} == changed
    assert ast.unparse(tree) == ast.unparse(ast.parse(source))


def test_a_seed_tells_what_is_drawn() -> None:
    assert draw("gate", size=3, seed=1) == draw("gate", size=3, seed=1)
