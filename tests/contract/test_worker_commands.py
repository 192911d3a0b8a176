"""The worker by its owner's three commands: real programs, as systemd, Kubernetes and podman."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from fulfillment.change.other_movers import make_hold
from fulfillment.clients import Clients, services
from fulfillment.clients.services import CommandServices
from fulfillment.settings import Settings
from objectmove.errors import MoversError
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
)

#: Keeps its state in a file, and speaks as the program after which it is called.
PROGRAM = """#!{python}
import pathlib, sys
state = pathlib.Path({state!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with state.with_suffix(".calls").open("a") as calls:
    calls.write(repr(words) + "\\n")
if "stop" in words or "--replicas=0" in words:
    state.write_text("0")
elif "start" in words or "--replicas=1" in words:
    state.write_text("1")
else:
    runs = state.read_text() == "1"
    print({{"systemctl": "loaded\\nactive" if runs else "loaded\\ninactive",
            "kubectl": "1" if runs else "0",
            "podman": "running" if runs else "exited"}}[name])
"""
COMMANDS = {
    "systemctl": (
        "systemctl show --property=LoadState --property=ActiveState --value worker",
        "systemctl stop worker",
        "systemctl start worker",
    ),
    "kubectl": (
        "kubectl get pods --selector app=worker --output 'go-template={{len .items}}'",
        "kubectl scale deployment/worker --replicas=0",
        "kubectl scale deployment/worker --replicas=1",
    ),
    "podman": (
        "podman inspect --format {{.State.Status}} worker",
        "podman stop worker",
        "podman start worker",
    ),
}


def make_settings(status: str, stop: str = "true", start: str = "true") -> Settings:
    return Settings(
        worker_control="command",
        worker_status_cmd=status,
        worker_stop_cmd=stop,
        worker_start_cmd=start,
        runbook_services="none",
        minio_root_password="the-secret-77",
    )


def says(text: str, code: int = 0) -> str:
    script = f"import sys; print({text!r}); print({text!r}, file=sys.stderr); sys.exit({code})"
    return f'{sys.executable} -c "{script}"'


@pytest.mark.process
@pytest.mark.parametrize("program", COMMANDS)
def test_a_worker_is_stopped_and_started_as_its_owner_does(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.write_text("1")
    path = tmp_path / program
    path.write_text(PROGRAM.format(python=sys.executable, state=str(state)))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = make_settings(*COMMANDS[program])
    hold = make_hold(settings, Clients(settings), sleep=lambda _: None)
    assert not hold.is_paused()
    hold.pause()
    hold.check()
    assert (hold.is_paused(), state.read_text()) == (True, "0")
    hold.resume()
    assert (hold.is_paused(), state.read_text()) == (False, "1")


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "running"),
    [
        ("running", True), ("Active\n", True), ("3", True), ("loaded\nactive", True),
        ("stopped", False), ("inactive", False), ("failed", False), ("0\n", False),
        ("loaded\nfailed", False), ("exited", False),
    ],
)  # fmt: skip
def test_what_it_prints_says_whether_it_runs(said: str, running: bool) -> None:
    (state,) = CommandServices(make_settings(says(said))).list_services()
    assert (state.name, state.running) == ("fulfillment-service", running)


@pytest.mark.process
@pytest.mark.parametrize(
    "said", ["", "not-found\ninactive", "activating", "running stopped", "0 1", "-1", "loaded", "²"]
)
def test_any_other_word_is_no_knowledge(said: str) -> None:
    settings = make_settings(says(said))
    with pytest.raises(BadAnswerError, match="WORKER_STATUS_CMD"):
        CommandServices(settings).list_services()
    hold = make_hold(settings, Clients(settings), sleep=lambda _: None)
    with pytest.raises(MoversError, match="WORKER_STATUS_CMD"):
        hold.is_paused()


@pytest.mark.process
def test_a_command_that_hangs_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_READ_TIMEOUT_S", "_CHANGE_TIMEOUT_S"):
        monkeypatch.setattr(services, name, 0.2)
    hang = f'{sys.executable} -c "import time; time.sleep(600)"'
    worker = CommandServices(make_settings(hang, hang, hang))
    for ask in (worker.list_services, lambda: worker.change("fulfillment-service", "stop")):
        with pytest.raises(ClientTimeoutError, match=r"\b0\.2 s"):
            ask()


@pytest.mark.process
def test_a_program_that_is_not_there_names_its_setting() -> None:
    with pytest.raises(ConnectionRefusedClientError, match="WORKER_STATUS_CMD"):
        CommandServices(make_settings("/no/such/program")).list_services()


@pytest.mark.process
def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    words = f"echo running; touch {mark} && $(touch {mark}) | tee {mark}"
    with pytest.raises(ClientError):
        CommandServices(make_settings(words)).list_services()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"worker_control": "command"}, "WORKER_STATUS_CMD, WORKER_STOP_CMD, WORKER_START_CMD"),
        ({"worker_control": "command", "worker_status_cmd": "x", "worker_stop_cmd": " "}, "_STOP_"),
        ({"worker_control": "metric"}, "WORKER_LAST_MOVE_QUERY"),
        ({"worker_stop_cmd": "systemctl 'stop"}, "a quote is not closed"),
    ],
)
def test_what_a_kind_needs_is_asked_for_at_once(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings(**given)
