"""No secret is in any byte that a run writes, when everything fails and services leak."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from runbook_lib.record.incident import create_incident
from runbook_lib.record.manifest import write_manifest
from runbook_lib.redact import Redactor
from runbook_lib.report import export_notebooks, write_report
from runbook_lib.run.notebooks import run_notebook
from runbook_lib.sections import SECTIONS
from runbook_lib.settings import load_settings

pytestmark = pytest.mark.timeout(300)

USER, PASSWORD, GRAFANA = "sentinel-user-9f2c", "sentinel-pw-41d7", "sentinel-grafana-c03e"
URL_WORD = "sentinel-url-7b18"
SECRETS = (PASSWORD, GRAFANA, URL_WORD)
_DATA_URI = re.compile(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)")


@pytest.fixture
def leaking_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> Path:
    """Every service fails and says the secrets in body, header and log; the store is away."""

    def leak(_request: object) -> Response:
        words = f"failed with {' '.join(SECRETS)} at http://u:{URL_WORD}@host/"
        return Response(words, status=500, headers={"X-Debug": PASSWORD, "Date": "x"})

    httpserver.expect_request(re.compile(".*")).respond_with_handler(leak)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MINIO_ENDPOINT", f"127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    monkeypatch.setenv("MINIO_ROOT_USER", USER)
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", PASSWORD)
    monkeypatch.setenv("GRAFANA_USER", "viewer")
    monkeypatch.setenv("GRAFANA_PASSWORD", GRAFANA)
    monkeypatch.setenv("RUNBOOK_SERVICES", "supervisor")
    logs = tmp_path / "stack" / "logs"
    logs.mkdir(parents=True)
    (logs / "fulfillment-service.log").write_text(f'{{"level":"error","msg":"key {PASSWORD}"}}\n')
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(tmp_path / "stack"))
    url = f"http://someone:{URL_WORD}@127.0.0.1:{httpserver.port}"
    names = ("PROMETHEUS", "ALERTMANAGER", "GRAFANA", "SUPPORT", "FULFILLMENT", "PIPELINE")
    for name in (*names, "PROBE", "NOTIFICATIONS"):
        monkeypatch.setenv(f"{name}_URL", url)
    return tmp_path / "reports"


def find_leaks(content: bytes) -> set[str]:
    """Return the secrets in some bytes, in their JSON-escaped and decoded forms too."""
    pictures = [base64.b64decode(found) for found in _DATA_URI.findall(content)]
    forms = {s: {s.encode(), json.dumps(s)[1:-1].encode(), base64.b64encode(s.encode())}
             for s in SECRETS}  # fmt: skip
    blobs = [content, *pictures]
    return {s for s, all_forms in forms.items() if any(f in b for f in all_forms for b in blobs)}


def find_pictures(notebook: Path) -> bytes:
    """Return the pictures of a notebook's outputs, decoded."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    data = [o.get("data", {}) for cell in cells for o in cell.get("outputs", [])]
    return b"".join(base64.b64decode(d["image/png"]) for d in data if "image/png" in d)


def test_no_byte_of_an_incident_folder_holds_a_secret(leaking_world: Path) -> None:
    incident = create_incident(
        leaking_world, redactor=Redactor(load_settings().secrets), environment="production"
    )
    for section in SECTIONS.values():
        run_notebook(section, incident)
    incident.journal.append("note", {"section": "", "text": f"somebody pasted {PASSWORD}"})
    export_notebooks(incident)
    write_report(incident)
    write_manifest(incident)

    files = [path for path in incident.folder.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".ipynb", ".html", ".jsonl", ".json"} <= kinds
    leaks = {path.name: found for path in files if (found := find_leaks(path.read_bytes()))}
    leaks |= {
        f"pictures of {path.name}": found
        for path in files
        if path.suffix == ".ipynb" and (found := find_leaks(find_pictures(path)))
    }
    assert leaks == {}
    assert "somebody pasted" in incident.journal.path.read_text("utf-8")


@pytest.mark.parametrize("command", [["check"], ["plan"], ["check", "--json"], ["plan", "--json"]])
def test_no_output_of_a_command_holds_a_secret(leaking_world: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runbook_lib", *command],
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode != 0
    assert done.stdout + done.stderr
    assert find_leaks(done.stdout + done.stderr) == set()
