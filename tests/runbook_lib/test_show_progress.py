"""A bar says how much is done, how fast, and how long it still takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulfillment.sections import remediation
from runbook_lib.show.progress import make_meter, say_progress
from tests.support.world import World


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "parts"),
    [
        (0, 100, 0.0, ("0 of 100",)),
        (50, 100, 5.0, ("50 of 100", "5 s")),
        (100, 100, 5.0, ("100 of 100",)),
        (1_000, 0, 10.0, ("1,000",)),
        (1, 3, 6.0, ("1 of 3", "12 s")),
    ],
)
def test_progress_has_the_time_left(
    done: int, total: int, elapsed_s: float, parts: tuple[str, ...]
) -> None:
    said = say_progress("moved", done, total, elapsed_s).split(", ")
    assert all(text.startswith(part) for text, part in zip(said, parts, strict=True))


def test_a_terminal_is_told_once_a_second_and_at_the_end() -> None:
    seconds, said = iter([0.0, 0.5, 1.2, 1.3]), list[str]()
    tell = make_meter(lambda *shown: said.append(shown[-1]), clock=lambda: next(seconds))
    for done in (0, 1, 2, 3):
        tell("moved", done, 3)
    assert [text.split(",")[0] for text in said] == ["0 of 3 moved", "2 of 3 moved", "3 of 3 moved"]


def test_the_same_words_without_a_number_are_said_every_ten_seconds() -> None:
    seconds, said = iter([0.0, 1.0, 9.0, 10.5, 11.0, 11.5]), list[str]()
    tell = make_meter(lambda *shown: said.append(shown[-1]), clock=lambda: next(seconds))
    for _ in range(5):
        tell("a claim lapses soon")
    tell("look again")
    assert said == ["a claim lapses soon", "a claim lapses soon", "look again"]


def test_work_that_begins_anew_is_timed_anew() -> None:
    seconds, said = iter([0.0, 10.0, 20.0, 25.0]), list[str]()
    tell = make_meter(lambda *shown: said.append(shown[-1]), clock=lambda: next(seconds))
    for done in (0, 100, 0, 100):
        tell("moved", done, 200)
    assert "10 s left" in said[1]
    assert "5 s left" in said[3]


def test_what_is_waited_for_is_said_at_once() -> None:
    said = list[str]()
    tell = make_meter(lambda *shown: said.append(shown[-1]), clock=lambda: 0.0)
    for words in ("inject", "detect"):
        tell(words)
    assert said == ["inject", "detect"]


def test_planning_and_applying_a_release_tell_how_far_they_are(tmp_path: Path) -> None:
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
