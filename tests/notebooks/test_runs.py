"""How a headless run ends, whatever its notebook does."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from pytest_httpserver import HTTPServer

from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor
from runbook_lib.run.notebooks import NotebookRun, RunStatus, SharedKernel, run_notebook
from runbook_lib.section import Sections

pytestmark = pytest.mark.timeout(120)

DETECTION = SECTIONS["02_signals_detection"]
SECRET = "sesame-7731"
OPEN = """\
from fulfillment import Investigation
from fulfillment.sections import detection
inv = Investigation.open(incident_id, section=detection)
"""


@pytest.fixture
def incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> Incident:
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    monkeypatch.setenv("MINIO_ROOT_USER", "nobody")
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", SECRET)
    monkeypatch.setenv("RUNBOOK_SERVICES", "supervisor")
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(tmp_path / "stack"))
    monkeypatch.setenv("MINIO_ENDPOINT", "127.0.0.1:1")
    for name in ("PROMETHEUS", "ALERTMANAGER", "GRAFANA", "SUPPORT", "FULFILLMENT", "PIPELINE"):
        monkeypatch.setenv(f"{name}_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PROBE_URL", httpserver.url_for(""))
    return create_incident(
        tmp_path / "reports", redactor=Redactor([SECRET]), environment="production"
    )


def run(incident: Incident, folder: Path, *cells: str) -> NotebookRun:
    parameters = new_code_cell('incident_id = ""', metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[parameters, *map(new_code_cell, cells)])
    nbformat.write(notebook, folder / f"{DETECTION.NAME}.ipynb")
    sections = Sections([DETECTION], notebooks=folder, read_only=(), investigation=Investigation)
    with SharedKernel() as kernel:
        return run_notebook(sections, DETECTION.NAME, incident, kernel=kernel)


def last_entry(incident: Incident) -> dict[str, object]:
    entry = incident.journal.view().entries[-1]
    assert entry.kind == "notebook"
    return entry.data


def test_a_forced_failure_is_failed_and_saved_before_it_is_told(
    incident: Incident, tmp_path: Path
) -> None:
    done = run(incident, tmp_path, OPEN, "1 / 0", "inv.conclude()")
    assert done.status is RunStatus.FAILED
    assert "ZeroDivisionError" in done.error
    assert last_entry(incident)["status"] == "failed"
    saved = json.loads(done.path.read_text("utf-8"))
    assert any("ZeroDivisionError" in json.dumps(cell) for cell in saved["cells"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("runbook_lib.errors import SafetyError", RunStatus.REFUSED),
        ("objectmove.errors import StoppedError", RunStatus.FAILED),
    ],
)
def test_a_refusal_is_no_failure_whichever_package_refuses(
    incident: Incident, tmp_path: Path, error: str, status: RunStatus
) -> None:
    name = error.rpartition(" ")[2]
    done = run(incident, tmp_path, OPEN, f"from {error}\nraise {name}('it expired; plan again')")
    assert done.status is status
    assert "it expired; plan again" in done.error


@pytest.mark.parametrize(
    "cell", ["pass", "import sys; sys.exit(0)"], ids=["does nothing", "exits with 0"]
)
def test_a_green_run_without_a_conclusion_is_failed(
    incident: Incident, tmp_path: Path, cell: str
) -> None:
    done = run(incident, tmp_path, OPEN, cell)
    assert (done.status, done.conclusion) == (RunStatus.FAILED, None)
    assert "without a conclusion" in done.error
