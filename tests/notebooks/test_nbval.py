"""nbval over the notebooks: recorded answers, and the expected outputs beside them.

``WRITE_GOLDEN=1`` writes the expected outputs anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from fulfillment.sections import SECTIONS
from tests.support.replay import AT, load, replay

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

RECORDED = Path(__file__).parent / "recorded"
#: The exercise and the remediation change things: they run on the real stack.
NAMES = [name for name in SECTIONS if name[:3] not in ("04_", "06_")]
#: What differs from run to run.
SANITIZE = r"""
[incident]
regex: inc-\d{8}T\d{6}Z-[0-9a-f]{4}
replace: INCIDENT
[address]
regex: 127\.0\.0\.1:\d+
replace: ADDRESS
[folder]
regex: (?<![\w:/.])/\S+/INCIDENT
replace: FOLDER/INCIDENT
"""
#: The kernel's clock stands at the moment of the recording; the page is compared as plain text.
CLOCK = f"""
from datetime import datetime
from runbook_lib.investigation import Investigation
Investigation.__init__.__kwdefaults__["now"] = lambda: datetime.fromisoformat("{AT.isoformat()}")
"""
CONFTEST = """
def pytest_collectstart(collector):
    if collector.name.endswith(".ipynb"):
        collector.skip_compare += ("text/html", "stderr")
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which notebooks run at the moment of the recording."""
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "clock.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(CLOCK, "utf-8")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    (folder / "sanitize.cfg").write_text(SANITIZE, "utf-8")
    for name, value in {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "RUNBOOK_HOME": str(tmp_path / "reports"),
        "RUNBOOK_ENVIRONMENT": "local",
        "RUNBOOK_SERVICES": "none",
        "WORKER_LOG_CMD": f"cat {RECORDED / 'worker.log'}",
        "MINIO_ROOT_USER": "dataflow",
        "MINIO_ROOT_PASSWORD": "dataflow-secret",
        "LABEL_FINISHED": "metadata:tracking-number",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def test_each_notebook_shows_what_is_expected_of_the_recorded_answers(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replay(load(RECORDED / "answers.json.xz")) as addresses:
        for name, value in addresses.items():
            monkeypatch.setenv(name, value)
        if os.environ.get("WRITE_GOLDEN"):
            for name in NAMES:
                write_expected(name, environment)
            # What is compared finds no incident, either.
            (environment.parent / "reports").rename(environment.parent / "written")
        for name in NAMES:
            copy = (RECORDED / f"{name}.ipynb").read_text("utf-8")
            (environment / f"{name}.ipynb").write_text(copy, "utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=90"),
                *("--nbval-sanitize-with", "sanitize.cfg", "-p", "no:cacheprovider"),
                *("-c", "/dev/null", "--rootdir", str(environment), "-q", str(environment)),
            ],
            cwd=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def write_expected(name: str, folder: Path) -> None:
    """Write a notebook's outputs over the recorded answers, as plain text, beside these."""
    target = RECORDED / f"{name}.ipynb"
    source = SECTIONS.notebooks / target.name
    papermill.execute_notebook(source, target, cwd=folder, progress_bar=False)
    notebook = nbformat.read(target, as_version=4)
    for addition in ("papermill", "widgets"):
        notebook.metadata.pop(addition, None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind in set(data) - {"text/plain"}:
                del data[kind]
    nbformat.write(notebook, target)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_expected_is_of_the_notebook_as_it_is(name: str) -> None:
    ours, theirs = (
        [(cell.id, cell.source) for cell in nbformat.read(path, as_version=4).cells]
        for path in (SECTIONS.notebooks / f"{name}.ipynb", RECORDED / f"{name}.ipynb")
    )
    assert ours == theirs
