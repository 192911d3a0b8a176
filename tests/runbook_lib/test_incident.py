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
from runbook_lib.investigation import name_command, say_interrupted
from runbook_lib.model import Episode, Note, Verdict, format_time
from runbook_lib.record.alerts import ReceivedAlert, note_alerts
from runbook_lib.record.incident import Incident, create_incident, list_incidents, open_incident
from runbook_lib.record.journal import mark_run
from runbook_lib.record.notes import write_note
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
    assert {p.name for p in incident.folder.iterdir()} == {
        "plans", "ledger", "notebooks", "evidence", "incident.json",
    }  # fmt: skip
    assert incident.is_open
    assert format_time(incident.state.opened_at) == "2026-11-24T03:14:00.000Z"


def test_the_newest_open_incident_that_is_no_drill_is_opened(tmp_path: Path) -> None:
    assert open_incident(tmp_path, redactor=REDACTOR) is None
    create(tmp_path, 1)
    wanted = create(tmp_path, 2)
    create(tmp_path, 3, drill=True)
    create(tmp_path, 4).update(closed_at="2026-11-24T04:00:00Z")
    (tmp_path / "not-an-incident").mkdir()
    (tmp_path / "inc-20991124T031400Z-0000").mkdir()  # without its facts
    found = open_incident(tmp_path, redactor=REDACTOR)
    assert found is not None
    assert found.id == wanted.id
    assert len(list(list_incidents(tmp_path))) == 4


def test_a_drill_is_opened_by_its_id(tmp_path: Path) -> None:
    drill = create(tmp_path, drill=True)
    found = open_incident(tmp_path, drill.id, redactor=REDACTOR)
    assert found is not None
    assert found.id == drill.id


def test_a_look_at_a_drills_alert_never_becomes_an_incident(tmp_path: Path) -> None:
    look = create_incident(tmp_path, redactor=Redactor(), drill=True, opened_by="")
    look.open("2.1")
    assert not look.is_open
    assert not look.journal.view().entries


def test_a_look_stays_one_while_another_incident_is_open_for_its_trouble(tmp_path: Path) -> None:
    look = create_incident(tmp_path, redactor=REDACTOR, opened_by="", clock=clock())
    other = create_incident(tmp_path, redactor=REDACTOR, opened_by="", clock=clock(1))
    other.open("2.1", why="the lag is long")
    for by in ("2.1", "02_signals"):
        look.open(by)
    assert (look.is_open, look.state.same_as) == (False, other.id)
    assert [entry.kind for entry in look.journal.view().entries] == ["left_to"]
    [opened] = other.journal.view().entries
    assert "2.1 saw trouble: the lag is long" in opened.data["reason"]
    # Later commands go on in the other incident: this look is not chosen, nor what went before.
    assert name_command("run 06", look) == "runbook run 06"
    look.update(kept=True)
    look.close(Verdict.INCIDENT)
    other.close(Verdict.FIXED)
    assert open_incident(tmp_path, redactor=REDACTOR) is None
    later = create_incident(tmp_path, redactor=REDACTOR, opened_by="", clock=clock(2))
    later.open("2.1")
    assert later.state.previous == ""


def test_whoever_changes_something_in_a_look_makes_it_an_incident_all_the_same(
    tmp_path: Path,
) -> None:
    look = create_incident(tmp_path, redactor=REDACTOR, opened_by="", clock=clock())
    create(tmp_path, 1)
    look.open("2.1")
    assert look.state.same_as
    look.open("hand", why="a plan is carried out")
    assert (look.is_open, look.state.same_as) == (True, "")


def test_a_look_beside_a_drill_or_a_closed_incident_becomes_one(tmp_path: Path) -> None:
    create(tmp_path, drill=True)
    create(tmp_path, 1).close(Verdict.FIXED)
    look = create_incident(tmp_path, redactor=REDACTOR, opened_by="", clock=clock(2))
    look.open("2.1")
    assert look.is_open


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


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\udcff"])
def test_damaged_facts_are_an_error_of_the_tree(tmp_path: Path, text: str) -> None:
    incident = create(tmp_path)
    path = incident.folder / "incident.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for ask in (lambda: incident.state, lambda: incident.is_open, lambda: incident.update(a=1)):
        with pytest.raises(RecordError, match=r"incident\.json"):
            ask()
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(RecordError, match="RUNBOOK_HOME"):
        create(tmp_path / "home")
    assert list(list_incidents(tmp_path / "home")) == []


def test_an_old_folder_loads_and_what_is_not_known_stays(tmp_path: Path) -> None:
    incident = create(tmp_path)
    path = incident.folder / "incident.json"
    old = {"opened_at": "2026-11-01T10:00:00.000Z", "kept": True, "of_another_version": [1, 2]}
    path.write_text(json.dumps(old))
    state = incident.state
    assert (state.opened_by, state.is_open, state.verdict) == ("hand", True, None)
    incident.update(ticket_id="t-1")
    assert json.loads(path.read_text()) == {**old, "ticket_id": "t-1"}


def test_a_state_that_is_none_is_not_written(tmp_path: Path) -> None:
    incident = create(tmp_path)
    before = (incident.folder / "incident.json").read_bytes()
    with pytest.raises(ValueError, match="verdict"):
        incident.update(verdict="splendid")
    assert (incident.folder / "incident.json").read_bytes() == before


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
    assert [entry.kind for entry in mine.journal.view().entries] == ["closed"]


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
    assert [entry.kind for entry in mine.journal.view().entries] == ["note", "closed"]


@pytest.mark.parametrize(
    "write",
    [
        lambda mine: mine.open("2.1", Episode(key="lag", start=NOW)),
        lambda mine: mine.join("you"),
        lambda mine: mine.follow(create(mine.folder.parent, -1).id, "rel-1"),
        lambda mine: mine.update(kept=True),
    ],
    ids=["open", "join", "follow", "update"],
)
def test_a_close_between_a_check_and_its_write_keeps_the_write_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Incident], object]
) -> None:
    mine = create_incident(tmp_path, redactor=REDACTOR, clock=clock(), opened_by="")
    mine.join("me")
    other = Incident(mine.folder, redactor=REDACTOR)
    lock = mine.lock
    closed: list[bytes] = []

    def close_first(name: str) -> AbstractContextManager[None]:
        if not closed:
            other.close(Verdict.HEALTHY)
            closed.append(read_record(mine))
        return lock(name)

    monkeypatch.setattr(mine, "lock", close_first)
    write(mine)
    assert closed == [read_record(mine)]


def read_record(incident: Incident) -> bytes:
    """Return the bytes of an incident's state and journal."""
    state = (incident.folder / "incident.json").read_bytes()
    return state + incident.journal.path.read_bytes()


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


@pytest.mark.parametrize(
    ("fired", "is_named"), [((2, 5), True), ((2, 40), True), ((31, 40), False), ((2, None), False)]
)
def test_a_note_of_alerts_names_the_incident_that_was_open_while_they_fired(
    tmp_path: Path, fired: tuple[float, float | None], is_named: bool
) -> None:
    earlier = create(tmp_path)
    earlier.update(opened_by="2.1", closed_at=NOW + timedelta(minutes=30))
    quiet = create(tmp_path, 1)
    quiet.update(opened_by="")
    look = create(tmp_path, 45)
    begins, ends = fired
    ends_at = None if ends is None else NOW + timedelta(minutes=ends)
    starts_at = NOW + timedelta(minutes=begins)
    alert = ReceivedAlert(fingerprint="f", starts_at=starts_at, labels={}, ends_at=ends_at)
    note_alerts(look, [alert])
    (note,) = [entry for entry in look.journal.view().entries if entry.kind == "note"]
    assert (earlier.id in note.data["text"]) is is_named
    assert quiet.id not in note.data["text"]
