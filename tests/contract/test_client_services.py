"""Services through a docker that answers as recorded, and a supervisor that is not well."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fulfillment.clients.services import (
    ComposeServices,
    Verb,
    connect_services,
    select_lines,
)
from fulfillment.settings import Settings
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    NotFoundError,
)

SECRET = "the-stores-%secret-1"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_damaged_configuration_does_not_leak_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "supervisord.conf").write_text(f"MINIO_ROOT_PASSWORD={SECRET}\n[oops")
    services = connect_services(
        Settings(runbook_services="supervisor", runbook_stack_home=tmp_path)
    )
    with pytest.raises(ClientError) as caught:
        services.list_services()
    assert SECRET not in str(caught.value)


DOCKER = """#!{python}
import json, sys, time
words = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(json.dumps(words) + "\\n")
answers = json.load(open({answers!r}))
names = ("ps", "config", "logs", "restart", "stop", "start", "inspect")
name = next((w for w in names if w in words), "")
answer = answers.get(name, {{"out": ""}})
time.sleep(answer.get("sleep", 0))
sys.stderr.write(answer.get("err", ""))
sys.stdout.write(answer["out"])
sys.exit(answer.get("code", 0))
"""

STATES = {
    "worker": {
        "Status": "running", "Running": True, "Pid": 71, "ExitCode": 0,
        "StartedAt": "2026-11-24T03:14:00.123456789Z", "FinishedAt": "0001-01-01T00:00:00Z",
        "Health": {"Status": "unhealthy"}},
    "minio": {
        "Status": "exited", "Running": False, "Pid": 0, "ExitCode": 137,
        "StartedAt": "2026-11-24T03:00:00Z", "FinishedAt": "2026-11-24T03:10:00Z"},
}  # fmt: skip
INSPECT = [
    {"State": state, "Config": {"Labels": {"com.docker.compose.service": name}}}
    for name, state in STATES.items()
]
CONFIG = {
    "name": "dataflow",
    "services": {
        "worker": {"environment": {"MINIO_ROOT_PASSWORD": SECRET, "READY_PREFIX": "ready/",
                                   "NOTHING": None}},
        "minio": {"environment": None},
    },
}  # fmt: skip


class Compose:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answers, self._log = folder / "answers.json", folder / "log.jsonl"
        program = folder / "docker"
        program.write_text(
            DOCKER.format(python=sys.executable, log=str(self._log), answers=str(self._answers))
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        self.answers: dict[str, dict[str, Any]] = {
            "ps": {"out": "aa11\nbb22\n"},
            "inspect": {"out": json.dumps(INSPECT)},
            "config": {"out": json.dumps(CONFIG)},
        }
        self.services = ComposeServices(
            Settings(compose_cmd="docker compose -f a.yml -f b.yml", minio_root_password=SECRET)
        )
        self.save()

    def save(self) -> None:
        self._answers.write_text(json.dumps(self.answers))

    def commands(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    return Compose(tmp_path, monkeypatch)


@pytest.mark.process
def test_compose_lists_services(compose: Compose) -> None:
    minio, worker = compose.services.list_services()
    assert (worker.name, worker.running, worker.health) == ("worker", True, "unhealthy")
    assert worker.since == datetime(2026, 11, 24, 3, 14, 0, 123456, tzinfo=UTC)
    assert (minio.running, minio.state, minio.exit_code) == (False, "exited", 137)
    assert minio.since == datetime(2026, 11, 24, 3, 10, tzinfo=UTC)
    assert compose.commands() == [
        ["compose", "-f", "a.yml", "-f", "b.yml", "ps", "--all", "--quiet"],
        ["inspect", "aa11", "bb22"],
    ]


@pytest.mark.process
def test_compose_changes_one_checked_service(compose: Compose) -> None:
    verbs: tuple[Verb, ...] = ("restart", "stop", "start")
    for verb in verbs:
        compose.services.change("worker", verb)
        with pytest.raises(NotFoundError, match="minio, worker"):
            compose.services.change("--all; rm -rf /", verb)
    done = [words[5:] for words in compose.commands() if "config" not in words]
    assert done == [["restart", "worker"], ["stop", "worker"], ["start", "worker"]]


@pytest.mark.process
def test_compose_settings_are_text(compose: Compose) -> None:
    assert compose.services.read_effective_settings("worker") == {
        "MINIO_ROOT_PASSWORD": SECRET,
        "READY_PREFIX": "ready/",
        "NOTHING": "",
    }
    assert compose.services.read_effective_settings("minio") == {}


@pytest.mark.process
def test_a_compose_that_fails_says_why_without_secrets(compose: Compose) -> None:
    compose.answers["ps"] = {"out": "", "err": f"cannot connect, password={SECRET}", "code": 1}
    compose.save()
    with pytest.raises(BadAnswerError, match="cannot connect") as caught:
        compose.services.list_services()
    assert SECRET not in str(caught.value)


def test_lines_get_their_time_from_any_form() -> None:
    texts = [
        "no time yet",
        "2026-11-24 03:14:00,500 ERROR x",
        '{"time": 1795490041, "msg": "epoch"}',
        '{"@timestamp": "2026-11-24T10:14:02+07:00"}',
        "[2026-11-24T03:14:03Z] y",
        "{not json",
        '{"ts": {"a": 1}}',
        "9999-99-99T99:99:99Z nonsense",
    ]
    times = [line.at for line in select_lines(texts, since=LONG_AGO)]
    second = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
    assert times == [
        None,
        second + timedelta(milliseconds=500),
        datetime.fromtimestamp(1795490041, UTC),
        second + timedelta(seconds=2),
        *[second + timedelta(seconds=3)] * 4,
    ]
