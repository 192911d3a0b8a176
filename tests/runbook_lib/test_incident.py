"""Incident folders: made, found, changed by two people, never left."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.errors import RecordError, UsageError
from runbook_lib.model import Verdict
from runbook_lib.record.incident import (
    Incident,
    create_incident,
    list_incidents,
    list_neighbours,
    open_incident,
)
from runbook_lib.redact import Redactor

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
REDACTOR = Redactor(["admin12345"])


def clock(minutes: float = 0) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(minutes=minutes)


def create(home: Path, minutes: float = 0, *, exercise: str = "") -> Incident:
    return create_incident(
        home, redactor=REDACTOR, environment="local", exercise=exercise, clock=clock(minutes)
    )


def test_the_newest_open_incident_that_is_no_exercise_is_opened(tmp_path: Path) -> None:
    assert open_incident(tmp_path, redactor=REDACTOR) is None
    create(tmp_path, 1)
    wanted = create(tmp_path, 2)
    create(tmp_path, 3, exercise="surge")
    create(tmp_path, 4).close(Verdict.FIXED)
    (tmp_path / "not-an-incident").mkdir()
    (tmp_path / "inc-20991124T031400Z-0000").mkdir()  # without its journal
    found = open_incident(tmp_path, redactor=REDACTOR)
    assert found is not None
    assert found.id == wanted.id
    assert len(list(list_incidents(tmp_path))) == 4


@pytest.mark.parametrize(
    ("opened", "closed", "is_beside"),
    [(0, 5, False), (0, 30, True), (15, 16, True), (25, None, False), (15, None, True)],
)
def test_neighbours_are_the_incidents_that_were_open_at_the_same_time(
    tmp_path: Path, opened: float, closed: float | None, *, is_beside: bool
) -> None:
    mine = create(tmp_path, 10)
    close_at(mine, 20)
    other = create(tmp_path, opened)
    if closed is not None:
        close_at(other, closed)
    assert list(list_neighbours(mine)) == [other.id] * is_beside


def close_at(incident: Incident, minutes: float) -> None:
    Incident(incident.folder, redactor=REDACTOR, clock=clock(minutes)).close(Verdict.FIXED)


@pytest.mark.parametrize(
    "incident_id",
    ["..", "../x", "inc-1", "inc-20261124T031400Z-7f3a/../x", "inc-20261124T031400Z-7f3a\n", "/"],
)
def test_an_id_that_could_lead_elsewhere_is_refused(tmp_path: Path, incident_id: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(incident_id))):
        open_incident(tmp_path, incident_id, redactor=REDACTOR)


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(RecordError, match="RUNBOOK_HOME"):
        create(tmp_path / "home")
    assert list(list_incidents(tmp_path / "home")) == []


def test_an_incident_is_closed_once(tmp_path: Path) -> None:
    mine = create(tmp_path)
    mine.close(Verdict.FIXED)
    mine.close(Verdict.NOT_FIXED)
    mine.update(kept=True)
    assert mine.state.verdict is Verdict.FIXED
    assert [mark.what for mark in mine.journal.view().marks] == ["opened", "closed"]
