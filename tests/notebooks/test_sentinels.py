"""No secret is in any byte that a run writes, when everything fails and services leak."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Response

from fulfillment.sections import SECTIONS
from fulfillment.settings import HTTP_SYSTEMS, Settings
from runbook_lib.model import Status, Verdict
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from runbook_lib.run.notebooks import RunStatus, SharedKernel, run_notebook
from tests.support.gateway import wait_until

pytestmark = pytest.mark.timeout(300)

USER, PASSWORD, URL_WORD = "sentinel-user-9f2c", "sentinel-pw-41d7", "sentinel-url-7b18"
URLS = [name.upper() for name in HTTP_SYSTEMS]
SENTINELS = {
    "MINIO_ROOT_PASSWORD": PASSWORD,
    "MINIO_SESSION_TOKEN": "sentinel-token-8e17",
    "MINIO_CHANGE_PASSWORD": "sentinel-change-2d90",
    **{f"{name}_AUTH": f"sentinel-{name.lower()}-c03e" for name in URLS},
}
#: These systems take a token, the others user and password.
TOKENS = {f"{name}_AUTH" for name in URLS[::2]}
SECRETS = (*SENTINELS.values(), URL_WORD)
LOGGED = "upload refused with key"
_DATA_URI = re.compile(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)")


def test_every_setting_that_is_a_secret_has_a_sentinel() -> None:
    fields = {name: field.annotation for name, field in Settings.model_fields.items()}
    assert {name.upper() for name, kind in fields.items() if kind is SecretStr} == set(SENTINELS)
    others = {"proxy_url", "ticket_url", "panel_url", "dag_url", "query_url"}
    services = {name for name in fields if name.endswith("_url")} - others
    assert services == {f"{n.lower()}_url" for n in URLS}


@pytest.fixture
def leaking_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> Path:
    """Every service fails and says the secrets in body and header; the store is away."""

    def leak(_request: object) -> Response:
        words = f"failed with {' '.join(SECRETS)} at http://u:{URL_WORD}@host/"
        return Response(words, status=500, headers={"X-Debug": PASSWORD, "Date": "x"})

    httpserver.expect_request(re.compile(".*")).respond_with_handler(leak)
    monkeypatch.setenv("MINIO_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    monkeypatch.setenv("MINIO_ROOT_USER", USER)
    for name, word in SENTINELS.items():
        value = word
        if name.endswith("_AUTH"):
            value = f"Bearer {word}" if name in TOKENS else f"Basic {USER}:{word}"
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MINIO_CHANGE_USER", USER)
    monkeypatch.setenv("RUNBOOK_SERVICES", "supervisor")
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(tmp_path / "stack"))
    for name in URLS:
        monkeypatch.setenv(f"{name}_URL", f"http://127.0.0.1:{httpserver.port}")
    monkeypatch.setenv("TICKET_URL", f"http://someone:{URL_WORD}@tickets/{{ticket}}")
    return tmp_path / "reports"


@pytest.fixture
def leaking_service(tmp_path: Path) -> Iterator[None]:
    """A real supervisor runs a worker that has secrets in its environment and in its log."""
    home = tmp_path / "stack"
    log = home / "logs" / "fulfillment-service.log"
    log.parent.mkdir(parents=True)
    words = " ".join(SECRETS)
    program = (
        "import datetime, time; now = datetime.datetime.now(datetime.UTC).isoformat(); "
        f"print(now, 'ERROR {LOGGED} {words}', flush=True); time.sleep(600)"
    )
    (home / "worker.py").write_text(program)
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        conf = home / "supervisord.conf"
        conf.write_text(
            f"""
[unix_http_server]
file={folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisord]
nodaemon=true
logfile={home}/supervisord.log
pidfile={home}/supervisord.pid
[program:fulfillment-service]
command={sys.executable} {home}/worker.py
environment=MINIO_ROOT_PASSWORD="{PASSWORD}",SERVICE_API_TOKEN="{SENTINELS["PIPELINE_AUTH"]}"
redirect_stderr=true
stdout_logfile={log}
"""
        )
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: log.exists() and PASSWORD in log.read_text(), what="a log line")
                yield
            finally:
                process.terminate()


def find_leaks(content: bytes) -> set[str]:
    pictures = [base64.b64decode(found) for found in _DATA_URI.findall(content)]
    forms = {s: {s.encode(), json.dumps(s)[1:-1].encode(), base64.b64encode(s.encode())}
             for s in SECRETS}  # fmt: skip
    blobs = [content, *pictures]
    return {s for s, all_forms in forms.items() if any(f in b for f in all_forms for b in blobs)}


def test_every_notebook_runs_to_its_end_and_no_byte_that_it_writes_holds_a_secret(
    leaking_world: Path, leaking_service: None
) -> None:
    incident = create_incident(
        leaking_world, redactor=Redactor(Settings.load().secrets), environment="production"
    )
    with SharedKernel() as kernel:
        runs = {name: run_notebook(SECTIONS, name, incident, kernel=kernel) for name in SECTIONS}
    read_only = {name: runs[name] for name in (*SECTIONS.read_only, "07_postmortem")}
    assert {name: run.error for name, run in read_only.items()} == dict.fromkeys(read_only, "")
    assert {run.status for run in read_only.values()} == {RunStatus.DONE}
    detected = runs["02_signals_detection"].conclusion
    assert detected is not None
    assert detected.verdict is Verdict.UNKNOWN
    readings = incident.journal.view().readings
    assert all(reading.reason for reading in readings if reading.status is Status.UNKNOWN)
    incident.journal.append("note", {"section": "", "text": f"somebody pasted {PASSWORD}"})
    write_outputs(incident, SECTIONS)

    files = [path for path in incident.folder.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".ipynb", ".html", ".jsonl", ".json"} <= kinds
    leaks = {path.name: found for path in files if (found := find_leaks(path.read_bytes()))}
    assert leaks == {}
    told = incident.journal.path.read_text("utf-8")
    assert "somebody pasted" in told
    # the service's log and its environment were read, and lost their secrets on the way
    assert LOGGED in told
    assert '"credentials_match":true' in told


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
