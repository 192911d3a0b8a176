"""Services through a real supervisord, and through a docker that answers as recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dataflow_stack import services_client
from fulfillment.clients.services import (
    ComposeServices,
    ServicesClient,
    Verb,
    connect_services,
    select_lines,
)
from fulfillment.settings import Settings
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
)
from tests.support.gateway import wait_until

SECRET = "the-stores-%secret-1"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

PROGRAM = """
import sys, time
print('{"ts": "2026-11-24T03:00:00Z", "level": "info", "msg": "too old"}')
print('{"ts": "2026-11-24T03:14:00Z", "level": "error", "msg": "upload failed"}')
print("Traceback (most recent call last):", flush=True)
time.sleep(600)
"""


def stack_at(home: Path) -> Settings:
    return Settings(runbook_services="supervisor", runbook_stack_home=home)


def write_conf(home: Path, socket: Path, secret: str) -> None:
    program = home / "program.py"
    program.write_text(PROGRAM)
    common = f"startsecs=0\nredirect_stderr=true\ndirectory={home}\n"
    escaped = secret.replace("%", "%%")
    (home / "supervisord.conf").write_text(
        textwrap.dedent(f"""
        [unix_http_server]
        file={socket}
        [rpcinterface:supervisor]
        supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
        [supervisord]
        logfile={home}/supervisord.log
        pidfile={home}/supervisord.pid
        nodaemon=true
        """)
        + f"[program:worker]\ncommand={sys.executable} -u {program}\n{common}"
        + f"stdout_logfile={home}/worker.log\n"
        + f'environment=MINIO_ROOT_PASSWORD="{escaped}",READY_PREFIX="a,b/",'
        + 'SERVICE_DB_URL="postgres://u:pw123456@db/x",SERVICE_TOKEN=""\n'
        + f"[program:idle]\ncommand={sys.executable} -u {program}\nautostart=false\n{common}"
        + f'stdout_logfile={home}/idle.log\nenvironment=MINIO_ROOT_PASSWORD="other-secret"\n'
        + f"[program:broken]\ncommand={home}/no-such-program\nautostart=false\n{common}"
        + f"stdout_logfile={home}/broken.log\n"
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("stack")
    # The socket stands elsewhere, as the stack does when its folder's path is too long.
    socket = tmp_path_factory.mktemp("s") / "x.sock"
    write_conf(home, socket, SECRET)
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord"]
    with (home / "out.txt").open("wb") as out:
        process = subprocess.Popen(
            [*command, "-c", str(home / "supervisord.conf")], stdout=out, stderr=out, cwd=home
        )
    try:
        wait_until(socket.exists, what="supervisor listens")
        yield home
    finally:
        process.terminate()
        process.wait(15)


@pytest.fixture
def supervisor(home: Path) -> ServicesClient:
    services = connect_services(
        Settings(runbook_services="supervisor", runbook_stack_home=home, minio_root_password=SECRET)
    )
    wait_until(lambda: bool(state_of(services, "worker").running), what="the worker runs")
    return services


def state_of(services: ServicesClient, name: str) -> Any:
    return {state.name: state for state in services.list_services()}[name]


@pytest.mark.process
def test_every_service_is_listed_with_its_state(supervisor: ServicesClient) -> None:
    assert [s.name for s in supervisor.list_services()] == ["broken", "idle", "worker"]
    worker, idle = state_of(supervisor, "worker"), state_of(supervisor, "idle")
    assert (worker.running, worker.state, worker.exit_code) == (True, "RUNNING", None)
    assert worker.since is not None
    assert abs(datetime.now(UTC) - worker.since) < timedelta(minutes=5)
    assert (idle.running, idle.since) == (False, None)


@pytest.mark.process
def test_a_service_that_cannot_start_is_a_bad_answer(supervisor: ServicesClient) -> None:
    with pytest.raises(BadAnswerError, match=r"broken.*log"):
        supervisor.change("broken", "start")


@pytest.mark.process
@pytest.mark.parametrize("name", ["nobody", "../x", "worker; rm", ""])
def test_a_name_that_is_no_service_is_not_found(supervisor: ServicesClient, name: str) -> None:
    with pytest.raises(NotFoundError, match="broken, idle, worker"):
        supervisor.change(name, "restart")
    with pytest.raises(NotFoundError, match="broken, idle, worker"):
        supervisor.read_effective_settings(name)
    with pytest.raises(NotFoundError):
        supervisor.read_logs(name, since=LONG_AGO)


@pytest.mark.process
def test_logs_begin_at_the_time_asked_for(supervisor: ServicesClient, home: Path) -> None:
    wait_until(lambda: "Traceback" in (home / "worker.log").read_text(), what="a traceback")
    since = datetime(2026, 11, 24, 3, 10, tzinfo=UTC)
    os.utime(home / "worker.log")
    lines = supervisor.read_logs("worker", since=since)
    assert "too old" not in "".join(line.text for line in lines)
    assert json.loads(lines[0].text)["msg"] == "upload failed"
    assert lines[1].text == "Traceback (most recent call last):"
    assert lines[1].at == lines[0].at == datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


@pytest.mark.process
def test_logs_are_bounded_and_reach_into_rotated_files(
    supervisor: ServicesClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "idle.log").write_text("".join(f"new {n:04}\n" for n in range(100)))
    (home / "idle.log.1").write_text("".join(f"old {n:04}\n" for n in range(100)))
    everything = supervisor.read_logs("idle", since=LONG_AGO)
    assert [everything[0].text, everything[-1].text, len(everything)] == [
        "old 0000",
        "new 0099",
        200,
    ]
    monkeypatch.setattr(services_client, "MAX_LOG_BYTES", 1003)
    few = supervisor.read_logs("idle", since=LONG_AGO)
    assert few[0].text == "old 0089"  # the first line is cut off, so it is left out
    assert few[-1].text == "new 0099"


@pytest.mark.process
def test_settings_show_no_secret(supervisor: ServicesClient) -> None:
    settings = supervisor.read_effective_settings("worker")
    assert settings["MINIO_ROOT_PASSWORD"] == "equal to the store's"
    assert settings["READY_PREFIX"] == "a,b/"
    assert settings["SERVICE_TOKEN"] == "absent"
    assert "pw123456" not in str(settings)
    assert "HOME" not in settings


def test_a_back_end_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulfillment.clients.services.entry_points", lambda **_: ())
    with pytest.raises(ConnectionRefusedClientError, match=r"pip install.*\[stack\]"):
        connect_services(stack_at(tmp_path))


def test_a_dead_supervisor_is_refused(tmp_path: Path) -> None:
    write_conf(tmp_path, tmp_path / "none.sock", SECRET)
    services = connect_services(
        Settings(runbook_services="supervisor", runbook_stack_home=tmp_path)
    )
    with pytest.raises(ConnectionRefusedClientError, match="runbook stack up"):
        services.list_services()


@pytest.mark.process
def test_a_hanging_supervisor_costs_its_time_out(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "h.sock"
    write_conf(tmp_path, path, SECRET)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        services = connect_services(
            Settings(runbook_services="supervisor", runbook_stack_home=tmp_path, http_timeout_s=0.3)
        )
        with pytest.raises(ClientTimeoutError, match=r"0\.3 s"):
            services.list_services()


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
    """A compose back end over a program that answers what the test says."""

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
            Settings(compose_file="a.yml:b.yml", minio_root_password=SECRET)
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
def test_compose_logs_carry_dockers_time(compose: Compose) -> None:
    compose.answers["logs"] = {
        "out": '2026-11-24T03:14:00.1Z {"msg": "x"}\n2026-11-24T03:14:01Z  File "a.py"\n'
    }
    compose.save()
    since = datetime(2026, 11, 24, 3, tzinfo=UTC)
    lines = compose.services.read_logs("worker", since=since)
    assert [line.text for line in lines] == ['{"msg": "x"}', ' File "a.py"']
    assert lines[0].at == datetime(2026, 11, 24, 3, 14, 0, 100_000, tzinfo=UTC)
    assert compose.commands()[-1][5:] == [
        "logs", "--no-color", "--no-log-prefix", "--timestamps",
        "--since", "2026-11-24T03:00:00.000Z", "--tail", "20000", "worker",
    ]  # fmt: skip


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
def test_compose_settings_show_no_secret(compose: Compose) -> None:
    assert compose.services.read_effective_settings("worker") == {
        "MINIO_ROOT_PASSWORD": "equal to the store's",
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


@pytest.mark.process
@pytest.mark.parametrize("out", ["not json", "[1]", '{"a":', "7"])
def test_a_compose_that_answers_something_else_is_a_bad_answer(compose: Compose, out: str) -> None:
    compose.answers["inspect"]["out"] = compose.answers["config"]["out"] = out
    compose.save()
    with pytest.raises(BadAnswerError):
        compose.services.list_services()
    with pytest.raises(BadAnswerError):
        compose.services.read_effective_settings("worker")


@pytest.mark.process
def test_no_docker_is_refused_and_says_what_to_do() -> None:
    services = ComposeServices(Settings(compose_cmd="no-such-docker compose"))
    with pytest.raises(ConnectionRefusedClientError, match="COMPOSE_CMD"):
        services.list_services()


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
