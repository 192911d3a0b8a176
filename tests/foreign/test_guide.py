"""addons/README.md, followed to the letter on files with the traits of DataFlow's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from pytest_httpserver import HTTPServer

from tests.support.gateway import run_alertmanager, wait_until

ROOT = Path(__file__).parents[2]
DATAFLOW = Path(__file__).with_name("dataflow")
PROMETHEUS = Path("monitoring") / "prometheus"
ALERTMANAGER = Path("monitoring") / "alertmanager"
_BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALERT = {
    "labels": {"alertname": "FulfillmentDelay", "severity": "High", "service": "fulfillment"},
    "annotations": {"summary": "đã chờ 12 phút", "description": "xem runbook"},
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("guide")
    dataflow = work / "dataflow"
    shutil.copytree(DATAFLOW, dataflow)
    blocks = _BLOCK.findall((ROOT / "addons" / "README.md").read_text("utf-8"))
    assert [kind for kind, _ in blocks] == ["bash", "yaml", "bash", "bash", "bash"]
    for kind, text in blocks:
        if kind == "yaml":
            add_below(dataflow / PROMETHEUS / "prometheus.yml", yaml.safe_load(text))
            continue
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DATAFLOW": str(dataflow),
        }
        run(["sh", "-euc", text], work, environment)
    return dataflow


def add_below(path: Path, lists: dict[str, list[Any]]) -> None:
    config = yaml.safe_load(path.read_text("utf-8"))
    for name, items in lists.items():
        config[name] += items
    path.write_text(yaml.safe_dump(config), "utf-8")


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill_in(folder: Path, sink: HTTPServer) -> Path:
    values = {
        "SLACK_WEBHOOK_URL": sink.url_for("/slack"),
        "TEAMS_WEBHOOK_URL": sink.url_for("/teams"),
        "EMAIL_TO": "oncall@example.com",
        "EMAIL_FROM": "alerts@example.com",
        "SMTP_SMARTHOST": "127.0.0.1:1",
        "SMTP_USERNAME": "alerts",
        "SMTP_PASSWORD": "secret",
    }
    environment = {f"ALERTMANAGER_{name}": value for name, value in values.items()}
    run(["sh", "entrypoint.sh"], folder, environment | {"PATH": os.environ["PATH"]})
    return folder / "alertmanager.yml"


def fire(url: str, **labels: str) -> None:
    # one that began longer ago than group_wait is told at once
    began = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    alert = {**ALERT, "labels": ALERT["labels"] | labels, "startsAt": began}
    requests.post(f"{url}/api/v2/alerts", json=[alert], timeout=5).raise_for_status()


def test_one_alert_and_one_drill_arrive_with_an_alertmanager_of_0_27(
    followed: Path, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/slack").respond_with_data("ok")
    httpserver.expect_request("/teams").respond_with_data("1")
    config = fill_in(followed / ALERTMANAGER, httpserver)
    assert "msteamsv2_configs" not in config.read_text("utf-8")
    assert "5 receivers" in run(["amtool", "check-config", str(config)], config.parent)
    with run_alertmanager(config) as url:
        fire(url)
        fire(url, drill="true")
        wait_until(lambda: len(bodies(httpserver)) >= 4, what="the messages")
    told = bodies(httpserver)
    assert {path for path, _ in told} == {"/slack", "/teams"}
    assert all("đã chờ 12 phút" in body for _, body in told)
    assert sorted("[DRILL]" in body for _, body in told) == [False, False, True, True]


def bodies(sink: HTTPServer) -> list[tuple[str, str]]:
    told = {(r.path, json.dumps(json.loads(r.data), ensure_ascii=False)) for r, _ in sink.log}
    return sorted(told)
