"""The worker by its owner's three commands: what they may say, and what they may not do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from fulfillment.change.release import make_hold
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


def make_settings(status: str, stop: str = "true", start: str = "true") -> Settings:
    return Settings(
        worker_control="command",
        worker_status_cmd=status,
        worker_stop_cmd=stop,
        worker_start_cmd=start,
        runbook_services="none",
        minio_root_password="the-secret-77",
    )


def says(text: str) -> str:
    script = f"import sys; print({text!r}); print({text!r}, file=sys.stderr)"
    return f'{sys.executable} -c "{script}"'


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "running"),
    [
        ("Active\n", True),
        ("loaded\nactive", True),
        ("inactive", False),
        ("loaded\nfailed", False),
    ],
)  # fmt: skip
def test_what_it_prints_says_whether_it_runs(said: str, running: bool) -> None:
    (state,) = CommandServices(make_settings(says(said))).list_services()
    assert (state.name, state.running) == ("fulfillment-service", running)


@pytest.mark.process
@pytest.mark.parametrize("said", ["", "not-found\ninactive", "running stopped"])
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
        ({"worker_control": "metric"}, "WORKER_LAST_MOVE_QUERY"),
    ],
)
def test_what_a_kind_needs_is_asked_for_at_once(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings(**given)
