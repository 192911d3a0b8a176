"""A damaged file is one sentence: which file, and what to do. What does not need it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from runbook_lib.cli import run_command
from runbook_lib.record.incident import Incident
from runbook_lib.run.notebooks import RunStatus, SharedKernel, run_notebook
from runbook_lib.section import Sections
from tests.support.incidents import make_incident


class Printed(NamedTuple):
    code: int
    out: str
    errors: str

    @property
    def sentence(self) -> str:
        """The one line that says what is wrong."""
        (line,) = self.errors.splitlines()
        return line


Run = Callable[..., Printed]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path))

    def run(*arguments: str) -> Printed:
        capsys.readouterr()
        code = run_command(arguments)
        return Printed(code, *capsys.readouterr())

    return run


@pytest.fixture
def incident(tmp_path: Path) -> Incident:
    return make_incident(tmp_path).incident


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("content", ["", "{", "[]\n", "{}\n"])
def test_incidents_lists_the_others_and_marks_the_damaged_one(
    run: Run, incident: Incident, tmp_path: Path, content: str
) -> None:
    other = make_incident(tmp_path).incident
    incident.journal.path.write_text(content)
    rows = json.loads(run("incidents", "--json").out)["incidents"]
    damages = {row["incident"]: row["damage"] for row in rows}
    assert damages.keys() == {incident.id, other.id}
    assert damages[incident.id]
    assert damages[other.id] == ""
    assert {row["incident"] for row in rows if row["is_open"]} == {other.id}


@pytest.mark.parametrize("command", ["close", "report"])
def test_what_needs_a_damaged_incident_names_the_file(
    run: Run, incident: Incident, command: str
) -> None:
    cut(incident.journal.path)
    printed = run(command, incident.id)
    if command == "report":  # it says in the report what it could not read
        assert printed.code == 0
    else:
        assert printed.code == 1
        assert str(incident.folder) in printed.sentence


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"files": 7}', b"[" * 100_000])
def test_a_damaged_manifest_names_the_command_that_writes_a_new_one(
    run: Run, incident: Incident, content: bytes
) -> None:
    (incident.folder / "manifest.json").write_bytes(content)
    printed = run("verify-report", incident.id)
    assert printed.code == 1
    assert f"{incident.id}/manifest.json" in printed.sentence
    assert f"runbook report {incident.id}" in printed.sentence
    assert run("report", incident.id).code == 0
    assert run("verify-report", incident.id).code == 0


@pytest.mark.parametrize("line", ["RUNBOOK_OPERATOR ann", "RUNBOOK_OPERA", "X='not closed"])
def test_a_damaged_line_of_the_settings_is_named_without_what_it_holds(
    run: Run, tmp_path: Path, line: str
) -> None:
    (tmp_path / ".env").write_text(f"# settings\n\nHTTP_TIMEOUT_S=4\n{line}\n")
    printed = run("incidents")
    assert printed.code == 2
    assert f"{tmp_path / '.env'}, line " in printed.sentence
    assert line not in printed.sentence
    assert run("incidents", "--json").errors.count("\n") == 1


def test_settings_that_are_no_text_are_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"RUNBOOK_OPERATOR=\xff\n")
    printed = run("incidents")
    assert printed.code == 2
    assert str(tmp_path / ".env") in printed.sentence


def test_empty_values_comments_and_exports_are_no_damage(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\n\nPROXY_URL=\nexport HTTP_TIMEOUT_S=4 # s\n")
    assert run("incidents").code == 0


@pytest.mark.parametrize("content", ["", '{"cells": [{"ce', "[1]", '{"cells": 7}', None])
def test_a_damaged_notebook_fails_with_its_path_and_starts_no_kernel(
    incident: Incident, tmp_path: Path, content: str | None
) -> None:
    section = SECTIONS["02_signals_detection"]
    folder = tmp_path / "sources"
    shutil.copytree(SECTIONS.notebooks, folder)
    source = folder / f"{section.NAME}.ipynb"
    source.unlink()
    if content is not None:
        source.write_text(content)
    sections = Sections([section], notebooks=folder, read_only=(), investigation=Investigation)
    run = run_notebook(sections, section.NAME, incident, kernel=SharedKernel())
    assert run.status is RunStatus.FAILED
    assert str(source) in run.error
    assert "\n" not in run.error
