"""docs/connect.md, followed from ``runbook init`` to a drill, on a DataFlow with the add-ons."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from tests.foreign.services import Fulfillment, Support
from tests.support.gateway import (
    ACCESS_KEY,
    SECRET_KEY,
    find_free_ports,
    run_juicefs,
    wait_until,
)
from tests.support.network import Received, make_answer, run_server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "connect.md").read_text("utf-8")
SETTINGS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)[0]
INIT, _, CHECK, DRILLS = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
TOKEN = "token-7"


@dataclass
class Owner:
    """The platform's owner in a shell, in an empty folder."""

    folder: Path

    def run(self, line: str, *, code: int = 0, deadline_s: float = 60) -> str:
        """Run a line as it stands; return what it prints."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "RUNBOOK_HOME": str(self.folder / "reports"),
        }
        done = subprocess.run(
            ["sh", "-euc", line],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def read(self, line: str, **how: Any) -> Any:
        """Run a line with ``--json``; return the document."""
        command, _, _ = line.partition("#")
        return json.loads(self.run(f"{command.strip()} --json", **how))

    def fill_in(self, changes: dict[str, str]) -> None:
        """Write the settings of part 1 of the page, with these addresses and keys."""
        given = dict(line.split("=", 1) for line in SETTINGS.splitlines())
        assert given.keys() >= changes.keys() - {"FULFILLMENT_AUTH", "SUPPORT_AUTH"}
        lines = [f"{name}={value}" for name, value in (given | changes).items()]
        (self.folder / ".env").write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run what DataFlow has, with the add-ons in their quick profile; yield the settings."""
    folder = tmp_path_factory.mktemp("connected")
    with ExitStack() as stack:
        store = stack.enter_context(run_juicefs(folder / "store"))
        fulfillment = Fulfillment(TOKEN, set)
        support = Support(TOKEN, fulfillment)
        urls = {
            name: f"http://{stack.enter_context(run_server(service)).endpoint}"
            for name, service in (("FULFILLMENT", fulfillment), ("SUPPORT", support))
        }
        sink = stack.enter_context(run_server(accept))
        names = ("PROMETHEUS", "ALERTMANAGER", "EXPORTER", "SMTP")
        ports = dict(zip(names, find_free_ports(4), strict=True))
        mail = Controller(Sink(), hostname="127.0.0.1", port=ports["SMTP"])
        mail.start()
        stack.callback(mail.stop)
        at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        render(folder, at, sink.endpoint, store.endpoint)
        run_monitors(stack, folder, at, store.endpoint)
        yield {
            "MINIO_ENDPOINT": store.endpoint,
            "MINIO_SECURE": "false",
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_CHANGE_USER": "",
            "MINIO_CHANGE_PASSWORD": "",
            "PROMETHEUS_URL": f"http://{at['PROMETHEUS']}",
            "ALERTMANAGER_URL": f"http://{at['ALERTMANAGER']}",
            "GRAFANA_URL": "",
            "RUNBOOK_SERVICES": "none",
            **{f"{name}_URL": url for name, url in urls.items()},
            **{f"{name}_AUTH": f"Bearer {TOKEN}" for name in urls},
        }


def accept(_: Received) -> bytes:
    return make_answer(b"ok", 200, "content-type: text/plain")


def render(folder: Path, at: dict[str, str], sink: str, store: str) -> None:
    """Render the add-ons' configuration for these addresses."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TARGET_MINIO": store,
        "TARGET_FULFILLMENT": "",
        "TARGET_SUPPORT": "",
        "TARGET_EXPORTER": at["EXPORTER"],
        "TARGET_ALERTMANAGER": at["ALERTMANAGER"],
        "TARGET_PROMETHEUS": at["PROMETHEUS"],
        "ALERTMANAGER_SLACK_WEBHOOK_URL": f"http://{sink}/slack",
        "ALERTMANAGER_TEAMS_WEBHOOK_URL": f"http://{sink}/teams",
        "ALERTMANAGER_SMTP_SMARTHOST": at["SMTP"],
        "ALERTMANAGER_SMTP_REQUIRE_TLS": "false",
    }
    command = [sys.executable, "-m", "addons.render", "--profile", "demo", "--out", "."]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)


def run_monitors(stack: ExitStack, folder: Path, at: dict[str, str], store: str) -> None:
    """Run Prometheus, Alertmanager and the exporter until the stack closes."""
    exporter = {
        "MINIO_ENDPOINT": store,
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "EXPORTER_PORT": at["EXPORTER"].partition(":")[2],
        "EXPORTER_REFRESH_S": "1",
        "PYTHONPATH": str(ROOT),
    }
    programs = {
        "PROMETHEUS": ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"],
        "ALERTMANAGER": [
            shutil.which("prometheus-alertmanager") or "alertmanager",
            "--config.file=alertmanager.yml",
            "--storage.path=am",
            "--cluster.listen-address=",
        ],
        "EXPORTER": [sys.executable, "-m", "addons.artifact_exporter"],
    }
    for name, words in programs.items():
        listen = [] if name == "EXPORTER" else [f"--web.listen-address={at[name]}"]
        log = stack.enter_context((folder / f"{name.lower()}.log").open("wb"))
        process = subprocess.Popen(
            [*words, *listen],
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], **exporter},
        )
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
    lag = {"query": "fulfillment_lag_minutes"}

    def has_lag() -> bool:
        try:
            answer = requests.get(f"http://{at['PROMETHEUS']}/api/v1/query", lag, timeout=5)
            alerts = requests.get(f"http://{at['ALERTMANAGER']}/-/ready", timeout=5)
        except requests.ConnectionError:
            return False
        return alerts.ok and answer.ok and bool(answer.json()["data"]["result"])

    wait_until(has_lag, what="the lag in Prometheus")


def test_the_page_leads_from_init_to_a_drill(connected: dict[str, str], tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    owner.run(INIT)
    assert (tmp_path / ".env").is_file()
    owner.fill_in(connected)
    checked = owner.read(CHECK)
    reachable = {system["name"] for system in checked["systems"] if system["recognised"]}
    assert reachable == {"store", "prometheus", "alertmanager", "fulfillment", "support"}
    marker, _, drill, schedule = DRILLS.splitlines()
    shown = owner.read(marker, code=5)
    assert list(shown["writes"]) == ["endpoint", "bucket", "key", "content"]
    pasted = owner.read(shown["apply"])
    assert "demo" in pasted["marker"]
    scored = owner.read(drill, deadline_s=400)
    objectives = {o["name"]: (o["met"], o["actual"]) for o in scored["objectives"]}
    assert all(met for met, _ in objectives.values()), objectives
    line = owner.run(schedule)
    assert "drill synthetic" in line
    assert str(tmp_path) in line
