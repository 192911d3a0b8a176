"""The journal is read once, and each question about an incident has one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbook_lib.model import ActionPhase, Reading
from runbook_lib.record.journal import Journal, mark_run
from runbook_lib.record.view import JournalView
from runbook_lib.redact import Redactor
from tests.support.incidents import Teller, make_incident


def view_of(tell: Teller) -> JournalView:
    return tell.incident.journal.view()


def test_only_new_lines_are_parsed(tell: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    model = Reading
    parse = model.model_validate
    monkeypatch.setattr(model, "model_validate", lambda d: parsed.append(1) or parse(d))
    for _ in range(3):
        tell.read("2.1", "lag", "ok")
    assert len(view_of(tell).readings) == len(view_of(tell).readings) == 3
    tell.read("2.1", "lag", "breach")

    assert view_of(tell).latest()["2.1"].status == "breach"
    assert len(parsed) == 4


def test_what_another_process_wrote_is_seen(tell: Teller) -> None:
    view_of(tell)
    other = Journal(tell.incident.journal.path, redactor=Redactor(), clock=tell.clock)
    other.append("note", {"section": "", "text": "from the other desk"})

    assert [note.text for note in view_of(tell).notes] == ["from the other desk"]


def test_a_file_that_is_another_one_now_is_read_anew(tell: Teller, tmp_path: Path) -> None:
    tell.record("note", {"text": "a"})
    view_of(tell)
    other = make_incident(tmp_path)
    other.record("note", {"text": "b"})
    tell.incident.journal.path.write_bytes(other.incident.journal.path.read_bytes())

    assert [note.text for note in view_of(tell).notes] == ["b"]


def test_what_is_read_is_numbered_and_in_the_runbooks_order(tell: Teller) -> None:
    for step in ("10.1", "5.1", "2.10", "2.2"):
        tell.read(step, step, "ok")

    latest = view_of(tell).latest()
    assert list(latest) == ["2.2", "2.10", "5.1", "10.1"]
    assert [r.seq for r in latest.values()] == [5, 4, 3, 2]


def test_plans_and_what_was_carried_out_are_told_by_phase(tell: Teller) -> None:
    for plan in ("rel-a", "rel-b", "rel-a"):
        tell.act(ActionPhase.PLANNED, result={"plan": plan})
    view = view_of(tell)
    assert view.last_applied_at is None
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-b"})
    last = view_of(tell).last_applied
    assert last is not None
    assert (last.seq, last.result["plan"]) == (5, "rel-b")


@pytest.mark.parametrize("data", [{}, {"reading": 3}, {"reading": None}, {"reading": {"step": 1}}])
def test_an_entry_of_another_shape_is_left_out(tell: Teller, data: dict[str, Any]) -> None:
    tell.record("reading", data)
    tell.read("2.1", "lag", "ok")

    assert len(view_of(tell).readings) == 1


def test_each_run_tells_what_it_did_itself(tell: Teller) -> None:
    mark_run("06_remediation.ipynb")
    tell.act(ActionPhase.PLANNED)
    mark_run("06_remediation-2.ipynb")
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.REFUSED)
    mark_run("06_remediation.ipynb")
    tell.act(ActionPhase.APPLIED)
    mark_run("")
    tell.act(ActionPhase.VERIFIED)
    view = view_of(tell)
    first = view.of_runs(["06_remediation.ipynb"])
    second = view.of_runs(["06_remediation-2.ipynb"])
    assert [action.phase for action in first.actions] == ["planned", "applied"]
    assert [action.phase for action in second.actions] == ["planned", "refused"]
    assert len(view.actions) == 5
