"""Others' cases: each can be played, is judged by its answer, and stands in the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnosis.foreign import RECORDS
from tests.diagnosis.foreign_cases import ABSTENTIONS, CASES, FOREIGN, find_misses
from tests.diagnosis.foreign_play import PLAYS
from tests.diagnosis.foreign_table import write_document
from tests.diagnosis.matrix import read_runs

_DOCUMENT = Path(__file__).parents[2] / "docs" / "diagnosis-cases.md"


def test_every_case_can_be_played() -> None:
    assert list(PLAYS) == list(CASES)


def test_every_fault_names_its_source_and_no_abstention_names_a_cause() -> None:
    assert all(case.source for case in FOREIGN)
    assert not any(case.expected for case in ABSTENTIONS)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("corrupted_secret", [[], ["bad_credentials"]]),
        ("changed_password", [["bad_credentials", "metrics_blind"]]),
        ("container_kill", [[], []]),
    ],
)
def test_the_expected_causes_are_right(name: str, looks: list[list[str]]) -> None:
    assert find_misses(CASES[name], looks) == []


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("corrupted_secret", []),
        ("corrupted_secret", [["bad_credentials"], []]),
        ("corrupted_secret", [["no_permission"], ["bad_credentials"]]),
        ("corrupted_secret", [["bad_credentials", "metrics_blind"]]),
        ("container_kill", [["worker_stopped"], []]),
    ],
)
def test_a_missing_or_another_cause_is_a_miss_even_for_a_moment(
    name: str, looks: list[list[str]]
) -> None:
    assert len(find_misses(CASES[name], looks)) == 1


def test_the_document_shows_the_recorded_runs(tmp_path: Path) -> None:
    first = read_runs(RECORDS / "first.jsonl")
    later = read_runs(RECORDS / "later.jsonl")
    assert [run["case"] for run in first] == list(CASES)
    write_document(first, later, tmp_path / "cases.md")
    assert (tmp_path / "cases.md").read_text("utf-8") == _DOCUMENT.read_text("utf-8")
