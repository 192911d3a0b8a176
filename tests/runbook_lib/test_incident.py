"""Incident folders: made, found, changed by two people, never left."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib.errors import RecordError, UsageError
from runbook_lib.investigation import say_interrupted
from runbook_lib.model import Note, Verdict, format_time
from runbook_lib.record.incident import (
    Incident,
    create_incident,
    list_incidents,
    list_neighbours,
    open_incident,
)
from runbook_lib.record.journal import mark_run
from runbook_lib.record.notes import ReceivedAlert, write_note
from runbook_lib.redact import MASK, Redactor

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
REDACTOR = Redactor(["admin12345"])


def clock(minutes: float = 0) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(minutes=minutes)


def create(home: Path, minutes: float = 0, *, drill: bool = False) -> Incident:
    return create_incident(
        home, redactor=REDACTOR, environment="local", drill=drill, clock=clock(minutes)
    )


def test_a_new_incident_has_its_folders_and_facts(tmp_path: Path) -> None:
    incident = create(tmp_path / "reports")
    assert incident.id.startswith("inc-20261124T031400Z-")
    names = {path.name for path in incident.folder.iterdir() if path.suffix != ".lock"}
    assert names == {"plans", "ledger", "notebooks", "evidence", "journal.jsonl"}
    assert incident.is_open
    assert format_time(incident.state.opened_at) == "2026-11-24T03:14:00.000Z"


def test_the_newest_open_incident_that_is_no_drill_is_opened(tmp_path: Path) -> None:
    assert open_incident(tmp_path, redactor=REDACTOR) is None
    create(tmp_path, 1)
    wanted = create(tmp_path, 2)
    create(tmp_path, 3, drill=True)
    create(tmp_path, 4).close(Verdict.FIXED)
    (tmp_path / "not-an-incident").mkdir()
    (tmp_path / "inc-20991124T031400Z-0000").mkdir()  # without its journal
    found = open_incident(tmp_path, redactor=REDACTOR)
    assert found is not None
    assert found.id == wanted.id
    assert len(list(list_incidents(tmp_path))) == 4


def test_a_drill_is_opened_by_its_id(tmp_path: Path) -> None:
    drill = create(tmp_path, drill=True)
    found = open_incident(tmp_path, drill.id, redactor=REDACTOR)
    assert found is not None
    assert found.id == drill.id


def test_a_damaged_incident_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    healthy = create(tmp_path)
    damaged = create(tmp_path, 1)
    damaged.journal.append("note", {"section": "", "text": "a note"})
    text = damaged.journal.path.read_text("utf-8")
    damaged.journal.path.write_text(text.replace("a note", "no note"), "utf-8")
    found = open_incident(tmp_path, redactor=REDACTOR)
    assert found is not None
    assert found.id == healthy.id
    assert str(damaged.folder) in caplog.text
    assert "line 2 was altered" in caplog.text


@pytest.mark.parametrize(
    ("opened", "closed", "is_beside"),
    [(0, 5, False), (0, 30, True), (15, 16, True), (25, None, False), (15, None, True)],
)
def test_neighbours_are_the_incidents_that_were_open_at_the_same_time(
    tmp_path: Path, opened: float, closed: float | None, *, is_beside: bool
) -> None:
    mine = create(tmp_path, 10)
    close_at(mine, 20)
    close_at(create(tmp_path, 10, drill=True), 20)
    other = create(tmp_path, opened)
    if closed is not None:
        close_at(other, closed)
    assert list_neighbours(mine) == [other.id] * is_beside


def close_at(incident: Incident, minutes: float) -> None:
    """Close an incident at a time."""
    Incident(incident.folder, redactor=REDACTOR, clock=clock(minutes)).close(Verdict.FIXED)


@pytest.mark.parametrize(
    "incident_id",
    ["..", "../x", "inc-1", "inc-20261124T031400Z-7f3a/../x", "inc-20261124T031400Z-7f3a\n", "/"],
)
def test_an_id_that_could_lead_elsewhere_is_refused(tmp_path: Path, incident_id: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(incident_id))):
        open_incident(tmp_path, incident_id, redactor=REDACTOR)


def test_an_unknown_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"inc-20261124T031400Z-7f3a.*{tmp_path}"):
        open_incident(tmp_path, "inc-20261124T031400Z-7f3a", redactor=REDACTOR)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\n", "a b", "x" * 152])
def test_a_file_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(name))):
        create(tmp_path).path("plans", name)


def test_only_the_incidents_own_folders_have_files(tmp_path: Path) -> None:
    incident = create(tmp_path)
    assert incident.path("plans", "p-1.jsonl") == incident.folder / "plans" / "p-1.jsonl"
    with pytest.raises(UsageError):
        incident.path("..", "x")


def test_facts_are_changed_without_secrets(tmp_path: Path) -> None:
    incident = create(tmp_path)
    incident.update(ticket_id="T-1", note="with admin12345")
    assert incident.state.ticket_id == "T-1"
    assert incident.state.to_json()["note"] == f"with {MASK}"
    assert incident.state.environment == "local"


def test_two_people_who_change_facts_lose_neither(tmp_path: Path) -> None:
    folder = create(tmp_path).folder

    def change(who: str) -> None:
        mine = Incident(folder, redactor=REDACTOR)
        for number in range(20):
            mine.update(**{f"{who}{number}": number})

    threads = [threading.Thread(target=change, args=(who,)) for who in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    facts = Incident(folder, redactor=REDACTOR).state.to_json()
    assert sum(key[0] in "abc" and key[1:].isdigit() for key in facts) == 60


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\udcff", '{"closed_at": null}'])
def test_an_old_state_that_is_damaged_is_an_error_of_the_tree(tmp_path: Path, text: str) -> None:
    incident = create(tmp_path)
    path = incident.folder / "incident.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError, match=incident.id):
        _ = incident.state


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(RecordError, match="RUNBOOK_HOME"):
        create(tmp_path / "home")
    assert list(list_incidents(tmp_path / "home")) == []


@pytest.mark.parametrize("closed_at", [None, "2026-11-01T11:00:00.000Z"])
def test_a_folder_of_the_older_version_is_read_and_not_written(
    tmp_path: Path, closed_at: str | None
) -> None:
    incident = create(tmp_path)
    incident.journal.path.unlink()
    old = {"opened_at": "2026-11-01T10:00:00.000Z", "closed_at": closed_at, "kept": True}
    (incident.folder / "incident.json").write_text(json.dumps(old))
    assert incident.is_closed
    assert incident.is_late
    incident.update(ticket_id="t-1")
    assert not incident.journal.path.exists()
    assert open_incident(tmp_path, redactor=REDACTOR) is None
    assert open_incident(tmp_path, incident.id, redactor=REDACTOR) is not None


def test_two_runs_that_begin_at_one_time_get_a_notebook_each(tmp_path: Path) -> None:
    incident = create(tmp_path)
    names = [incident.reserve_notebook("06_remediation").name for _ in range(3)]
    assert names == ["06_remediation.ipynb", "06_remediation-2.ipynb", "06_remediation-3.ipynb"]


def test_nothing_is_written_after_another_command_has_closed_the_incident(tmp_path: Path) -> None:
    mine = create(tmp_path)
    with mine.keep_open() as may_write:
        assert may_write
    Incident(mine.folder, redactor=REDACTOR).close(Verdict.FIXED)
    with mine.keep_open() as may_write:
        assert not may_write
    mine.close(Verdict.NOT_FIXED)
    assert not mine.closed_here
    assert mine.state.verdict is Verdict.FIXED
    assert list_marks(mine) == ["opened", "closed"]


def list_marks(incident: Incident) -> list[str]:
    """Return what each mark says, in sequence."""
    return [mark.what for mark in incident.journal.view().marks]


@pytest.mark.parametrize(("run", "is_own"), [("07-2.ipynb", True), ("07-3.ipynb", False)])
def test_a_command_goes_on_writing_when_the_notebook_that_it_runs_closed_the_incident(
    tmp_path: Path, run: str, *, is_own: bool
) -> None:
    mine = create(tmp_path)
    mark_run("07-2.ipynb")
    try:
        Incident(mine.folder, redactor=REDACTOR).close(Verdict.FIXED)
        mark_run(run)
        with mine.keep_open() as may_write:
            assert may_write is is_own
    finally:
        mark_run("")


def test_a_close_waits_until_what_is_being_written_is_whole(tmp_path: Path) -> None:
    mine = create(tmp_path)
    other = Incident(mine.folder, redactor=REDACTOR)
    closer = threading.Thread(target=other.close, args=(Verdict.FIXED,))
    with mine.keep_open():
        closer.start()
        closer.join(0.3)
        assert not mine.is_closed
        mine.journal.append("note", {"section": "", "text": "before"})
    closer.join(30)
    assert mine.is_late
    assert list_marks(mine) == ["opened", "closed"]
    assert [entry.kind for entry in mine.journal.view().entries] == ["mark", "note", "mark"]


@pytest.mark.parametrize(
    "write",
    [
        lambda mine: mine.join("you"),
        lambda mine: mine.update(kept=True),
        lambda mine: mine.close(Verdict.FIXED),
    ],
    ids=["join", "update", "close"],
)
def test_a_close_between_a_check_and_its_write_keeps_the_write_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Incident], object]
) -> None:
    mine = create(tmp_path)
    mine.join("me")
    other = Incident(mine.folder, redactor=REDACTOR)
    lock = mine.lock
    closed: list[bytes] = []

    def close_first(name: str) -> AbstractContextManager[None]:
        if not closed:
            other.close(Verdict.HEALTHY)
            closed.append(mine.journal.path.read_bytes())
        return lock(name)

    monkeypatch.setattr(mine, "lock", close_first)
    write(mine)
    assert closed == [mine.journal.path.read_bytes()]


def test_a_note_that_waits_for_a_close_is_marked_as_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = create(tmp_path)
    other = Incident(mine.folder, redactor=REDACTOR)
    lock = mine.lock

    def close_first(name: str) -> AbstractContextManager[None]:
        other.close(Verdict.HEALTHY)
        return lock(name)

    monkeypatch.setattr(mine, "lock", close_first)
    write_note(mine, Note(text="it was the carrier", operator="me"))
    (note,) = mine.journal.view().notes
    assert note.late


@pytest.mark.parametrize(
    ("ends_at", "words"), [(None, "since 03:14:00Z, f"), (NOW + timedelta(seconds=9), "until")]
)
def test_an_alert_that_ended_before_the_look_is_received_with_its_end(
    ends_at: datetime | None, words: str
) -> None:
    labels = {"alertname": "Delay"}
    alert = ReceivedAlert(fingerprint="f", starts_at=NOW, labels=labels, ends_at=ends_at)
    assert words in alert.line
    assert ("03:14:09Z" in alert.line) is bool(ends_at)


def test_a_command_on_a_closed_incident_is_named_without_it(tmp_path: Path) -> None:
    incident = create(tmp_path)
    kind = SimpleNamespace(resume=None)
    plan = cast(Any, SimpleNamespace(kind=kind, action="restart", target="worker"))
    section = cast(Any, SimpleNamespace(NAME="06_remediation"))
    before = say_interrupted(plan, incident, section)
    assert before.endswith(f"runbook run 06 --incident {incident.id}")
    incident.close(Verdict.FIXED)
    assert say_interrupted(plan, incident, section).endswith("runbook run 06")
