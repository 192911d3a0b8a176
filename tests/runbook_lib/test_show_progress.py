"""Progress is a line for each piece of work."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fulfillment.sections import remediation
from runbook_lib.show import progress
from tests.support.world import World


def test_a_log_has_a_line_for_each_piece_of_work() -> None:
    console = Console(file=io.StringIO())
    with progress.show_progress(console) as tell:
        for done in (0, 1, 2):
            tell("moved\x1b", done, 2)
        tell("verify")
    assert console.file.getvalue().splitlines() == ["… moved‹U+001B›", "… verify"]  # type: ignore[attr-defined]


def test_a_notebook_shows_one_line_that_changes_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []

    class Handle:
        def __init__(self, line: dict[str, str], **_: Any) -> None:
            lines.append(line["text/plain"])

        def update(self, line: dict[str, str], **_: Any) -> None:
            lines[-1] = line["text/plain"]
            lines.append(lines[-1])

    monkeypatch.setattr("IPython.display.display", Handle)
    tell = progress.show_lines()
    for done in (0, 1, 2, 3):
        tell("moved", done, 3)
    assert lines[-1] == "3 of 3 moved"
    assert "1 of 3 moved" not in lines


def test_planning_a_release_tells_how_far_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(3):
        world.put_label(20, number + 1)
    inv = world.open(remediation, way="release")
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(words: str, done: int = 0, total: int = 0, /) -> None:
        told.setdefault(words, []).append((done, total))

    inv.progress = tell
    plan = inv.plan("6.1")
    assert told["listed"][-1] == (3, 0)
    assert not plan.is_empty
