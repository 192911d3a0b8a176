"""``runbook new``: what it makes looks, reports and passes its own tests, in its own folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.second_runbook import (
    COMMAND,
    HELPER,
    link_packages,
    register,
    run_command,
)


@pytest.mark.process
@pytest.mark.timeout(200)
def test_a_new_runbook_passes_its_tests_and_reports_into_its_own_folder(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    link_packages(site, HELPER)
    register(site, "fulfillment-runbook", COMMAND)  # the helper alone: no runbook is installed
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{site}{os.pathsep}{work / 'backups'}",
    }
    runbook = [sys.executable, "-m", "runbook_lib"]

    def run(*arguments: str, folder: Path = work, code: int = 0) -> str:
        done = run_command(arguments, cwd=folder, environment=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    run(*runbook, "new", "backups")
    for wrong in ("backups", "Backups", "json", "../x"):
        run(*runbook, "new", wrong, code=2)
    made = work / "backups"
    assert "sample" not in "".join(
        path.read_text("utf-8").lower() for path in made.rglob("*") if path.is_file()
    )
    register(site, "backups-runbook", "[runbook]\nbackups = backups.runbook:RUNBOOK\n")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=made)
    (made / "inbox").mkdir()
    document = json.loads(run(*runbook, "investigate", "--json", folder=made))
    assert document["verdict"] == "healthy"
    assert Path(document["report"]).is_relative_to(made / "reports")
