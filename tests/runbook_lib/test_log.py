"""The journal as a chained log: no secret is written, each line is JSON, an edit is seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chainlog import LogDamagedError
from runbook_lib.errors import RecordError
from runbook_lib.record.journal import Journal
from runbook_lib.redact import MASK, Redactor

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    path = tmp_path / "deep" / "journal.jsonl"
    return Journal(path, redactor=Redactor(["admin12345"]), clock=lambda: NOW)


def test_secrets_are_hidden_before_they_are_written(log: Journal) -> None:
    entry = log.append("note", {"admin12345": "x admin12345", "password": "other"})
    assert entry.data == {MASK: f"x {MASK}", "password": MASK}
    assert b"admin12345" not in log.path.read_bytes()


def test_numbers_that_are_none_become_text_so_that_each_line_is_json(log: Journal) -> None:
    log.append("note", {"lag": float("nan"), "rows": [float("inf"), 1.5]})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    record = json.loads(log.path.read_text(), parse_constant=refuse)
    assert record["data"] == {"lag": "nan", "rows": ["inf", 1.5]}
    assert len(log.view().entries) == 1


def test_damage_is_an_error_of_the_tree_that_names_the_line(log: Journal) -> None:
    log.append("note", {"n": 1})
    damaged = log.path.read_bytes().replace(b'"n":1', b'"n":9')
    log.path.write_bytes(damaged)
    with pytest.raises(RecordError, match=r"line 1: ") as caught:
        log.view()
    assert isinstance(caught.value.__cause__, LogDamagedError)
    with pytest.raises(RecordError, match=r"line 1: "):
        log.append("note", {})
    assert log.path.read_bytes() == damaged
