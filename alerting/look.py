"""Run ``runbook investigate`` and ``close``: each in its own process, one at a time."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from runbook_lib.errors import ExitCode
from runbook_lib.model import Json, format_time
from runbook_lib.redact import Redactor
from runbook_lib.runbook import get_runbook_name

from .settings import ServeSettings

if TYPE_CHECKING:
    from .book import KnownAlert

#: How long a process that is told to end may take before it is killed.
_GRACE_S = 15
_MOST_ERROR_CHARS = 2_000


class Look(NamedTuple):
    """The result of an investigation.

    Attributes
    ----------
    incident : the incident's id; empty when there is none
    verdict : empty when the investigation failed
    next : the command to go on with; may be empty
    error : why the investigation failed; empty when it did not
    """

    incident: str
    verdict: str
    next: str
    error: str


class Looker:
    """Runs the runbook's own commands that change no system, one at a time.

    Each command runs in a child process, which does not get the key ``MINIO_CHANGE_USER``. The
    child inherits the lock: if the child outlives this process, no second command begins beside
    it.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._redactor = Redactor(settings.secrets)
        self._children: set[subprocess.Popen[str]] = set()
        self._is_stopped = threading.Event()

    def investigate(
        self,
        alerts: Sequence[KnownAlert],
        *,
        incident: str = "",
        ticket: str = "",
    ) -> Look:
        """Carry out ``runbook investigate`` and return its result.

        Parameters
        ----------
        alerts : the alerts to write into the incident's report
        incident : the incident to go on with; empty: ``runbook investigate`` chooses it
        ticket : the id of a customer's case; empty: none. If the command ends with a usage error,
            as it does for a case that support does not know, it is repeated without the case
        """
        command = ["investigate"]
        if incident:
            command += ["--incident", incident]
        with _write_alerts(alerts) as path:
            if alerts:
                command += ["--alerts", str(path)]
            if ticket:
                code, document = self._run_command([*command, "--ticket", ticket])
                if code != ExitCode.USAGE:
                    return _read_look(document, code)
            code, document = self._run_command(command)
        return _read_look(document, code)

    def close(self, incident: str) -> str:
        """Close an incident; return the error, or an empty string."""
        _, document = self._run_command(["close", incident])
        return str(document.get("error", ""))

    def stop(self) -> None:
        """End every child. The command that runs is repeated after the service's next start."""
        self._is_stopped.set()
        for child in tuple(self._children):
            _signal(child, signal.SIGTERM)

    def _run_command(self, command: Sequence[str]) -> tuple[int, dict[str, Json]]:
        """Run a command of the runbook; return its exit code and its document.

        Waits until no other command runs. Never returns after ``stop``: the job that asked then
        gets no result, and so is repeated after the service's next start.
        """
        with (self._settings.serve_home / "look.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = self._start([*command, "--json"], lock)
            output, errors = self._wait(process)
        if self._is_stopped.is_set():
            threading.Event().wait()  # for ever: nobody sets this event
        try:
            document = json.loads(output)
        except ValueError:
            text = self._redactor.text(errors.strip()[-_MOST_ERROR_CHARS:])
            exit_text = f"the command ended with exit code {process.returncode}"
            document = {"error": text.splitlines()[-1] if text else exit_text}
        if not isinstance(document, dict):
            document = {"error": "the command printed no document"}
        return process.returncode, document

    def _start(self, words: Sequence[str], lock: IO[str]) -> subprocess.Popen[str]:
        """Start a command of the runbook, in a group of processes that inherits the lock's file."""
        name = get_runbook_name()
        runbook = ["--runbook", name] if name else []
        keyless = {
            **os.environ,
            "MINIO_CHANGE_USER": "",
            "MINIO_CHANGE_PASSWORD": "",
            "RUNBOOK_OPERATOR": "runbook serve",  # no person looks
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "runbook_lib", *runbook, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=keyless,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )
        self._children.add(process)
        return process

    def _wait(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Return a process's stdout and stderr when it has ended.

        After ``SERVE_LOOK_TIMEOUT_S`` the process is ended, and stderr is our own message.
        """
        timeout_s = self._settings.serve_look_timeout_s
        try:
            return process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGTERM)
        finally:
            self._children.discard(process)
        try:
            process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.communicate()
        return "", f"the command took longer than {timeout_s:g} s (SERVE_LOOK_TIMEOUT_S)"


def _signal(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to a child and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


@contextmanager
def _write_alerts(alerts: Sequence[KnownAlert]) -> Iterator[Path]:
    """Write alerts into a file that ``--alerts`` reads; it is removed at the end."""
    rows = [
        {
            "fingerprint": alert.fingerprint,
            "starts_at": format_time(alert.started_at),
            "ends_at": format_time(alert.ended_at) if alert.ended_at else None,
            "labels": alert.labels,
        }
        for alert in alerts
    ]
    with tempfile.TemporaryDirectory(prefix="runbook-serve-") as folder:
        path = Path(folder) / "alerts.json"
        path.write_text(json.dumps(rows), "utf-8")
        yield path


def _read_look(document: dict[str, Json], code: int) -> Look:
    """Return the look that a command's document describes; without a verdict it has an error."""
    error = str(document.get("error", ""))
    if not error and not document.get("verdict"):
        error = f"the command ended with exit code {code}"
    return Look(
        incident=str(document.get("incident") or ""),
        verdict=str(document.get("verdict") or ""),
        next=str(document.get("next") or ""),
        error=error,
    )
