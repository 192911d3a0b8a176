"""Each reading on a folder of its own, and the whole runbook as the command carries it out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sample import section
from sample.section import Investigation
from sample.settings import Settings

from runbook_lib.model import Status


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the settings name; it is empty."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    monkeypatch.setenv("SAMPLE_HOME", str(tmp_path / "reports"))
    monkeypatch.setenv("SAMPLE_FOLDER", str(folder))
    return folder


def put_old_file(folder: Path) -> None:
    """Write a file that is an hour old."""
    path = folder / "a.csv"
    path.write_text("a")
    written_at = path.stat().st_mtime - 3600
    os.utime(path, (written_at, written_at))


def read(step: str) -> Status:
    """Return what a step says now."""
    return Investigation.open(section=section, settings=Settings.load()).read_step(step).status


@pytest.mark.usefixtures("inbox")
def test_an_empty_folder_is_well() -> None:
    assert (read("1.1"), read("1.2")) == (Status.OK, Status.OK)


def test_an_old_file_is_a_breach(inbox: Path) -> None:
    put_old_file(inbox)
    assert read("1.1") is Status.BREACH


def test_a_folder_that_is_not_there_is_not_known(inbox: Path) -> None:
    inbox.rmdir()
    assert read("1.1") is Status.UNKNOWN


def test_investigate_reports_an_incident(inbox: Path) -> None:
    put_old_file(inbox)
    command = [sys.executable, "-m", "runbook_lib", "--runbook", "sample", "investigate", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=inbox)
    assert done.returncode == 3, done.stderr
    assert "No file waits too long" in Path(json.loads(done.stdout)["report"]).read_text("utf-8")
