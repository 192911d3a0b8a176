"""A manifest names the first thing that was altered, and what merely came later."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from runbook_lib.errors import RecordError
from runbook_lib.record.incident import Incident
from runbook_lib.record.manifest import (
    verify_incident,
    write_attachment,
    write_manifest,
)
from tests.support.incidents import make_incident


@pytest.fixture
def incident(tmp_path: Path) -> Incident:
    tell = make_incident(tmp_path)
    for number in range(1, 7):
        tell.read(f"2.{number}", "lag", "ok")
    told = tell.incident
    told.path("evidence", "proof.json").write_text('{"lost": 0}')
    told.path("ledger", "rel-1.jsonl").write_text('{"a": 1}\n')
    told.path("plans", "rel-1.jsonl").write_text('{"a": 1}\n')
    return told


def test_an_untouched_folder_is_what_its_manifest_says(incident: Incident) -> None:
    manifest = json.loads(write_manifest(incident).read_text())

    found = verify_incident(incident.folder)

    assert (found.problems, found.newer) == ((), ())
    assert len(manifest["files"]) == 4


def test_lines_appended_later_are_newer(incident: Incident) -> None:
    write_manifest(incident)
    incident.journal.append("note", {"section": "", "text": "later"})
    with incident.path("ledger", "rel-1.jsonl").open("a") as file:
        file.write('{"b": 2}\n')
    incident.path("evidence", "more.json").write_text("{}")

    found = verify_incident(incident.folder)

    assert not found.problems
    assert [text.partition(": ")[0] for text in found.newer] == [
        "journal.jsonl",
        "ledger/rel-1.jsonl",
        "evidence/more.json",
    ]


def test_an_altered_journal_line_is_named(incident: Incident) -> None:
    write_manifest(incident)
    lines = incident.journal.path.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b"ok", b"no")
    incident.journal.path.write_bytes(b"".join(lines))

    found = verify_incident(incident.folder)

    assert found.problems
    assert found.problems[0].startswith("journal.jsonl, line 7: ")


@pytest.mark.parametrize("name", ["evidence/proof.json", "plans/rel-1.jsonl"])
@pytest.mark.parametrize("change", ["alter", "append", "delete"])
def test_a_changed_file_is_named(incident: Incident, name: str, change: str) -> None:
    write_manifest(incident)
    path = incident.folder / name
    if change == "alter":
        path.write_bytes(path.read_bytes().replace(b'"', b"'", 1))
    elif change == "append":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()

    found = verify_incident(incident.folder)

    assert found.problems
    assert found.problems[0].startswith(f"{name}: ")


def test_a_zip_holds_all_that_the_manifest_names_and_is_checked_where_it_arrives(
    incident: Incident, tmp_path: Path
) -> None:
    write_manifest(incident)
    path = write_attachment(incident).rename(tmp_path / "from-a-ticket.zip")

    found = verify_incident(path)

    assert (found.incident, found.problems, found.newer) == (incident.id, (), ())
    with zipfile.ZipFile(path) as file:
        packed = set(file.namelist())
    manifest = json.loads((incident.folder / "manifest.json").read_text())
    assert packed == {f"{incident.id}/{name}" for name in ("manifest.json", *manifest["files"])}


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all"])
def test_what_is_no_zip_of_a_report_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=path.name):
        verify_incident(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../escape.txt", "out")
    with pytest.raises(RecordError, match=path.name):
        verify_incident(path)
    assert not (tmp_path.parent / "escape.txt").exists()
