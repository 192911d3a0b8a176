"""nbval over all eight notebooks, on the real stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from runbook_lib.investigation import Investigation
from runbook_lib.run.notebooks import NOTEBOOKS
from runbook_lib.sections import SECTIONS
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
    chaos = {"plan": create.id, "approve": create.sha256}
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    for name in SECTIONS:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            prepared / f"{name}.ipynb",
            parameters={"incident_id": inv.incident.id, **(chaos if name[:2] == "04" else {})},
            prepare_only=True,
            progress_bar=False,
        )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=90"),
            *("-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(prepared), "-q"),
            str(prepared),
        ],
        env={**stack.settings_env, "RUNBOOK_HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
