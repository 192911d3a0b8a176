"""``runbook new``: what it makes looks, reports and passes its own tests, in its own folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.package.conftest import MakeMachine


def test_a_new_runbook_passes_its_tests_and_reports_into_its_own_folder(
    make_machine: MakeMachine,
) -> None:
    machine = make_machine("objectmove", "runbook-lib")
    machine.run("runbook", "new", "backups")
    for wrong in ("backups", "Backups", "json", "../x"):
        machine.run("runbook", "new", wrong, exit_code=2)
    made = machine.work / "backups"
    files = [path for path in made.rglob("*") if path.is_file()]
    assert all("sample" not in path.read_text("utf-8").lower() for path in files)
    machine.run("python", "-m", "pip", "install", "--quiet", "./backups")
    machine.run("bash", "-c", "cd backups && mkdir inbox && python -m pytest -q")
    done = machine.run("bash", "-c", "cd backups && runbook investigate --json")
    document = json.loads(done.stdout)
    assert document["verdict"] == "healthy"
    assert Path(document["report"]).is_relative_to(made / "reports")
