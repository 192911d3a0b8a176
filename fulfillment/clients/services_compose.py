"""Services under docker compose, through its command line; never through a shell."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from functools import partial
from typing import Any

from runbook_lib.errors import BadAnswerError
from runbook_lib.fields import parse_when
from runbook_lib.model import Json, format_time

from ..settings import Settings
from . import services
from .services import LogLine, ServiceState

_ADVICE = "Set COMPOSE_CMD, or RUNBOOK_SERVICES=supervisor for the local environment."
_bad = partial(BadAnswerError, system="services")


class ComposeServices:
    """The compose back end; see ``ServicesClient``.

    Parameters
    ----------
    settings : ``compose_cmd`` (words), ``compose_file`` (colon-separated; empty: compose's own
        default) and the secrets to hide
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        files = [part for part in settings.compose_file.split(":") if part]
        self._command = shlex.split(settings.compose_cmd)
        self._command += [word for file in files for word in ("-f", file)]

    def list_services(self) -> list[ServiceState]:
        """Return every service, by name; one that was never made is not in the list."""
        output = self._run("ps", "--all", "--format", "json")
        rows = _read_json_lines(output)
        with_id = [row for row in rows if row.get("ID")]
        states = self._inspect([str(row["ID"]) for row in with_id])
        found = [_state(row, state) for row, state in zip(with_id, states, strict=True)]
        return sorted(found, key=lambda state: state.name)

    def read_logs(self, name: str, *, since: datetime, max_lines: int = 20_000) -> list[LogLine]:
        """Return a service's last lines since a time, oldest first."""
        options = ("--no-color", "--no-log-prefix", "--timestamps")
        limits = ("--since", format_time(since), "--tail", str(max_lines))
        output = self._run("logs", *options, *limits, self._checked(name))
        tail = output[-services.MAX_LOG_BYTES :].splitlines()
        return services.select_lines(tail, since=since, max_lines=max_lines, timed=True)

    def restart(self, name: str) -> None:
        """Restart a service."""
        self._run("restart", self._checked(name), is_change=True)

    def stop(self, name: str) -> None:
        """Stop a service."""
        self._run("stop", self._checked(name), is_change=True)

    def start(self, name: str) -> None:
        """Start a service that was made before."""
        self._run("start", self._checked(name), is_change=True)

    def read_effective_settings(self, name: str) -> dict[str, str]:
        """Return the environment that compose gives the service."""
        environment = self._read_config()[self._checked(name)].get("environment") or {}
        return services.hide_secrets(
            {str(k): None if v is None else str(v) for k, v in environment.items()}, self._settings
        )

    def _checked(self, name: str) -> str:
        known = self._read_config()
        if name not in known:
            raise services.unknown_service(name, known)
        return name

    def _read_config(self) -> dict[str, Any]:
        output = self._run("config", "--format", "json")
        try:
            found: dict[str, Any] = json.loads(output)["services"]
        except (ValueError, KeyError, TypeError) as error:
            raise _bad("compose config is not understood: docker compose 2.x is needed") from error
        return found

    def _inspect(self, ids: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        words = ["docker", "inspect", "--format", "{{json .State}}", *ids]
        states = _read_json_lines(self._execute(words))
        if len(states) != len(ids):
            raise _bad("a container went away while it was looked at; ask again")
        return states

    def _run(self, *words: str, is_change: bool = False) -> str:
        return self._execute([*self._command, *words], is_change=is_change)

    def _execute(self, words: list[str], *, is_change: bool = False) -> str:
        return services.run_program(words, self._settings, is_change=is_change, advice=_ADVICE)


def _read_json_lines(output: str) -> list[dict[str, Json]]:
    """Read one JSON object per line, or one array of them, as older versions print it."""
    try:
        text = output.strip()
        rows = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
        return [dict(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise _bad("the answer is not JSON: docker compose 2.x is needed") from error


def _state(row: dict[str, Json], state: dict[str, Json]) -> ServiceState:
    running = state.get("Status") == "running"
    return ServiceState(
        name=str(row["Service"]),
        running=running,
        state=str(state.get("Status", row.get("State", "unknown"))),
        since=parse_when(state.get("StartedAt" if running else "FinishedAt")),
        exit_code=None if running else int(state.get("ExitCode", 0)),
        health=str((state.get("Health") or {}).get("Status", "")),
    )
