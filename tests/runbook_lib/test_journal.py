"""The journal is read once, and each question about an incident has one answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.model import ActionPhase, Outcome, Plot
from runbook_lib.record.journal import Journal, set_run
from runbook_lib.record.view import JournalView
from runbook_lib.redact import MASK, Redactor
from tests.support.incidents import Clock, Teller


def view_of(tell: Teller) -> JournalView:
    return tell.incident.journal.view()


def test_what_another_process_wrote_is_seen(tell: Teller) -> None:
    view_of(tell)
    other = Journal(tell.incident.journal.path, redactor=Redactor(), clock=tell.clock)
    other.append("note", {"section": "", "text": "from the other desk"})

    assert [note.text for note in view_of(tell).notes] == ["from the other desk"]


@pytest.mark.parametrize("data", [{}, {"reading": 3}, {"reading": None}, {"reading": {"step": 1}}])
def test_an_entry_of_another_shape_is_left_out(tell: Teller, data: dict[str, Any]) -> None:
    tell.record("reading", data)
    tell.read("2.1", "lag", "ok")

    assert len(view_of(tell).readings) == 1


def test_the_journal_keeps_the_names_of_its_fields(tell: Teller) -> None:
    marks = (("2026-11-24T03:14:00Z", "an alert fired"),)
    written = {"ways_on": ("runbook resume rel-1",), "plot": {"marks": marks}}
    outcome = Outcome.model_validate(written)

    assert outcome.finish_commands == written["ways_on"]
    assert isinstance(outcome.plot, Plot)
    assert outcome.plot.annotations[0][1] == "an alert fired"
    named = Outcome(finish_commands=outcome.finish_commands, plot=outcome.plot)
    again = named.model_dump(mode="json", exclude_defaults=True)
    assert set(again) == set(written)
    assert set(again["plot"]) == {"marks"}


def test_each_run_tells_what_it_did_itself(tell: Teller) -> None:
    set_run("06_remediation.ipynb")
    tell.act(ActionPhase.PLANNED)
    set_run("06_remediation-2.ipynb")
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.REFUSED)
    set_run("06_remediation.ipynb")
    tell.act(ActionPhase.APPLIED)
    set_run("")
    tell.act(ActionPhase.VERIFIED)
    view = view_of(tell)
    first = view.of_runs(["06_remediation.ipynb"])
    second = view.of_runs(["06_remediation-2.ipynb"])
    assert [action.phase for action in first.actions] == ["planned", "applied"]
    assert [action.phase for action in second.actions] == ["planned", "refused"]
    assert len(view.actions) == 5


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", redactor=Redactor(["admin12345"]), clock=Clock())


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
