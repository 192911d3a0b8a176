"""Read, start and stop the environment's services, never through a shell.

Back ends register in the entry point group ``runbook.services``. Here are docker compose, and your
own commands for the worker alone (with systemd, Kubernetes, podman or a script).
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points
from typing import Literal, NamedTuple, Protocol

from runbook_lib import errors
from runbook_lib.http import parse_when
from runbook_lib.model import Json, format_time, parse_time
from runbook_lib.redact import Redactor

from ..settings import Settings

_READ_TIMEOUT_S = 20.0  # even starting a command takes seconds on a busy machine
_CHANGE_TIMEOUT_S = 120.0
_MAX_LINE_CHARS = 8000
_MAX_LINES = 20_000
#: How much of each log is read, from its end.
MAX_LOG_BYTES = 4_000_000
Verb = Literal["restart", "start", "stop"]
_bad = partial(errors.BadAnswerError, system="services")
#: A time at the start of a line, or in a field of its JSON.
_TIME = re.compile(
    r"^\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    r'|"(?:ts|time|timestamp|@timestamp|at)" ?: ?"?([^",}]+)'
)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service. What the back end doesn't say is None."""

    name: str
    running: bool
    state: str  # in the back end's words, such as RUNNING, FATAL, exited
    since: datetime | None = None
    exit_code: int | None = None
    health: str = ""  # healthy, unhealthy or starting, if something checks it


class LogLine(NamedTuple):
    """A log line. Without a time of its own, it has that of the line before, if any."""

    at: datetime | None
    text: str


class ServicesClient(Protocol):
    """Reads, stops and starts services.

    Every method raises a ``ClientError`` if the back end can't be asked, and ``NotFoundError`` for
    an unknown service.
    """

    def list_services(self) -> list[ServiceState]:
        """Return every service, sorted by name."""

    def change(self, name: str, verb: Verb) -> None:
        """Stop, start or restart a service; a restart can't be undone."""

    def read_logs(self, name: str, *, since: datetime) -> list[LogLine]:
        """Return the last lines since a time, at most 20,000, oldest first."""

    def read_effective_settings(self, name: str) -> dict[str, str]:
        """Return the settings that a service runs with, secrets too: compare them, show none."""


def connect_services(settings: Settings) -> ServicesClient:
    """Return a client of the back end that ``RUNBOOK_SERVICES`` names.

    Raises ``NotConfiguredError`` for ``none``, and ``ConnectionRefusedClientError`` if the back end
    is not installed.
    """
    if settings.runbook_services == "none":
        text = "RUNBOOK_SERVICES=none: the runbook can neither see nor restart services"
        raise errors.NotConfiguredError(text, system="services")
    try:
        (entry,) = entry_points(group="runbook.services", name=settings.runbook_services)
        client: ServicesClient = entry.load()(settings)
    except (ImportError, ValueError) as error:  # ValueError: no package registers such a back end
        missing = f"RUNBOOK_SERVICES={settings.runbook_services}: its programs are not installed"
        text = f"{missing}; pip install 'fulfillment-runbook[stack]'"
        raise errors.ConnectionRefusedClientError(text, system="services") from error
    return client


def _run_program(
    words: Sequence[str], settings: Settings, *, setting: str, is_change: bool = False
) -> str:
    """Run a program without a shell, and return what it prints.

    Messages name the ``setting`` that holds the command, and redact the secrets of ``settings``.
    """
    timeout_s = _CHANGE_TIMEOUT_S if is_change else _READ_TIMEOUT_S
    logging.getLogger(__name__).info("%s", shlex.join(words))
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        text = f"{setting} did not end within {timeout_s:g} s"
        raise errors.ClientTimeoutError(text, system="services") from error
    except OSError as error:
        text = f"{setting}: `{words[0]}` cannot be run ({error.strerror})"
        raise errors.ConnectionRefusedClientError(text, system="services") from error
    if done.returncode:
        output = Redactor(settings.secrets).text(done.stderr.decode("utf-8", "replace"))
        ending = " ".join(output.split())[-300:]
        raise _bad(f"{setting} failed ({done.returncode}): {ending}")
    return done.stdout.decode("utf-8", "replace")


def _run_command(settings: Settings, setting: str, *, is_change: bool = False) -> str:
    command = getattr(settings, setting.lower())
    if not command:
        text = f"{setting} is empty: the runbook cannot do this"
        raise errors.NotConfiguredError(text, system="services")
    return _run_program(shlex.split(command), settings, setting=setting, is_change=is_change)


def make_unknown_service_error(name: str, known: Iterable[str]) -> errors.ClientError:
    names = ", ".join(sorted(known)) or "none"
    text = f"there is no service {name[:80]!r}; there are: {names}"
    return errors.NotFoundError(text, system="services")


def read_service(services: ServicesClient | CommandServices, name: str) -> ServiceState:
    """Return a service's state; raise ``NotFoundError`` for an unknown service."""
    states = {state.name: state for state in services.list_services()}
    if name not in states:
        raise make_unknown_service_error(name, states)
    return states[name]


def select_lines(texts: Iterable[str], *, since: datetime, timed: bool = False) -> list[LogLine]:
    """Add each line's time, and return the last 20,000 lines since a time.

    Lines before the first timestamp are kept. If ``timed``, each line begins with a timestamp and a
    space; both are removed.
    """
    lines: list[LogLine] = []
    line_at: datetime | None = None
    for text in texts:
        if timed:
            head, _, shown = text.partition(" ")
            own_time = try_time(head)
        else:
            shown = text
            own_time = _find_time(text)
        line_at = own_time or line_at
        if line_at is None or line_at >= since:
            lines.append(LogLine(line_at, shown[:_MAX_LINE_CHARS]))
    return lines[-_MAX_LINES:]


def _find_time(text: str) -> datetime | None:
    """Return the time at the start of a line or in its JSON, if any."""
    match = _TIME.search(text)
    if match is None:
        return None
    return try_time((match[1] or match[2]).replace(",", "."))


def try_time(value: Json) -> datetime | None:
    """Parse a time, as text or in seconds since 1970; return None if it is neither."""
    with suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(float(value), UTC)
    with suppress(ValueError, OverflowError):
        return parse_time(str(value))
    return None


class ComposeServices:
    """The compose back end. Compose itself reads COMPOSE_FILE."""

    def __init__(self, settings: Settings) -> None:
        self._execute = partial(_run_program, settings=settings, setting="COMPOSE_CMD")
        self._command = shlex.split(settings.compose_cmd)

    def list_services(self) -> list[ServiceState]:
        """Return every service that was ever created."""
        ids = self._run_compose("ps", "--all", "--quiet").split()
        if not ids:
            return []
        output = self._execute(["docker", "inspect", *ids])
        with _parsing():
            states = map(_make_state, json.loads(output))
            return sorted(states, key=lambda state: state.name)

    def read_logs(self, name: str, *, since: datetime) -> list[LogLine]:
        self._require_config(name)
        output = self._run_compose(
            "logs",
            "--no-color",
            "--no-log-prefix",
            "--timestamps",
            "--since",
            format_time(since),
            "--tail",
            str(_MAX_LINES),
            name,
        )
        tail = output[-MAX_LOG_BYTES:].splitlines()
        return select_lines(tail, since=since, timed=True)

    def change(self, name: str, verb: Verb) -> None:
        self._require_config(name)
        self._run_compose(verb, name, is_change=True)

    def read_effective_settings(self, name: str) -> dict[str, str]:
        config = self._require_config(name)
        environment = config.get("environment") or {}
        # Compose also gives numbers and null.
        return {name: str(value or "") for name, value in environment.items()}

    def _require_config(self, name: str) -> dict[str, Json]:
        """Return a service's part of compose's configuration, or raise ``NotFoundError``."""
        output = self._run_compose("config", "--format", "json")
        with _parsing():
            configs: dict[str, dict[str, Json]] = dict(json.loads(output)["services"])
        if name not in configs:
            raise make_unknown_service_error(name, configs)
        return configs[name]

    def _run_compose(self, *words: str, is_change: bool = False) -> str:
        return self._execute([*self._command, *words], is_change=is_change)


@contextmanager
def _parsing() -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _bad("docker's answer is not understood: docker compose 2.x is needed") from error


def _make_state(container: dict[str, Json]) -> ServiceState:
    state = container["State"]
    running = state["Status"] == "running"
    health = state.get("Health") or {}
    return ServiceState(
        name=container["Config"]["Labels"]["com.docker.compose.service"],
        running=running,
        state=state["Status"],
        since=parse_when(state["StartedAt" if running else "FinishedAt"]),
        exit_code=None if running else state["ExitCode"],
        health=health.get("Status", ""),
    )


#: Whether the worker runs, by the words of a status command.
_RUNS_BY_WORD = {
    **dict.fromkeys(("running", "active"), True),
    **dict.fromkeys(("stopped", "inactive", "failed", "exited", "dead", "created"), False),
}


def _parse_status(output: str) -> bool | None:
    """Tell whether the worker runs, by its command's output: words, or how many copies run.

    None if there is no word, one is unknown, or they contradict each other.
    """
    answers: set[bool | None] = set()
    for word in output.lower().split():
        if word.isdecimal():
            answers.add(int(word) > 0)
        elif word != "loaded":  # systemd's word that the unit exists
            answers.add(_RUNS_BY_WORD.get(word))
    if len(answers) != 1:
        return None
    return answers.pop()


def read_log_command(settings: Settings, *, since: datetime) -> list[LogLine]:
    output = _run_command(settings, "WORKER_LOG_CMD")
    lines = output[-MAX_LOG_BYTES:].splitlines()
    return select_lines(lines, since=since)


class CommandServices:
    """The worker alone, by ``WORKER_STATUS_CMD``, ``WORKER_STOP_CMD`` and ``WORKER_START_CMD``.

    Raises a ``ClientError`` if a command failed, or its output does not say whether
    the worker runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list_services(self) -> list[ServiceState]:
        output = _run_command(self._settings, "WORKER_STATUS_CMD")
        running = _parse_status(output)
        if running is None:
            shown = output.lower().strip()[:80]
            raise _bad(
                f"WORKER_STATUS_CMD printed {shown!r}. That does not tell whether the worker runs"
            )
        state = "running" if running else "stopped"
        return [ServiceState(self._settings.worker_service, running, state)]

    def change(self, _name: str, verb: Verb) -> None:
        if verb != "start":
            _run_command(self._settings, "WORKER_STOP_CMD", is_change=True)
        if verb != "stop":
            _run_command(self._settings, "WORKER_START_CMD", is_change=True)
