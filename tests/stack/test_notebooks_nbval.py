"""nbval over all eight notebooks, on the real stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from tests.support.stack import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_every_notebook_passes_nbval(
    stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "reports"
    for name, value in (*stack.env.items(), ("RUNBOOK_HOME", str(home))):
        monkeypatch.setenv(name, value)
    inv = Investigation.open(section=SECTIONS["04_chaos_verification"], count=3)
    create = inv.plan("4.1")
    incident = {"incident_id": inv.incident.id}
    run_nbval(
        stack,
        tmp_path / "chaos",
        {"04_chaos_verification": {**incident, "plan": create.id, "approve": create.sha256}},
    )
    revert = inv.plan("4.2")
    inv.apply(revert, approve=revert.sha256)
    assert stack.list_keys(stack.env["CHAOS_PREFIX"]) == []
    run_nbval(stack, tmp_path / "rest", {n: incident for n in SECTIONS if n[:2] != "04"})


def run_nbval(stack: RunningStack, folder: Path, notebooks: dict[str, dict[str, str]]) -> None:
    """Give the notebooks their parameters, and run nbval over them."""
    folder.mkdir()
    for name, parameters in notebooks.items():
        papermill.execute_notebook(
            SECTIONS.notebooks / f"{name}.ipynb",
            folder / f"{name}.ipynb",
            parameters=parameters,
            prepare_only=True,
            progress_bar=False,
        )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=90"),
            *("-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder), "-q"),
            str(folder),
        ],
        env={**stack.settings_env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
