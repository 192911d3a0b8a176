"""The investigation: ``runbook investigate`` in a process of its own, one at a time."""

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

_GRACE_S = 15
#: Deliveries go first: to get the next process ready takes a core for some seconds.
_READY_AFTER_S = 5.0
_MOST_CHARS = 2_000


class Look(NamedTuple):
    """What an investigation said.

    Attributes
    ----------
    incident : its folder's name; empty when there is none
    verdict : empty when the investigation failed
    next : the command to go on with
    error : why it failed; empty when it did not
    """

    incident: str
    verdict: str
    next: str
    error: str


class _Child(NamedTuple):
    """A process, and the file whose lock it holds while it works."""

    process: subprocess.Popen[str]
    lock: IO[str]


class Looker:
    """Runs the runbook's own commands that only look.

    The child holds the lock, too: if it outlives its parent, no second look begins beside it. It
    gets no key for changes. A process may wait for the next investigation: it has imported
    everything and started its kernel, which takes half the time of a look.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._redactor = Redactor(settings.secrets)
        self._children: set[subprocess.Popen[str]] = set()
        self._ready: _Child | None = None
        self._ready_guard = threading.Lock()
        self._is_stopped = threading.Event()

    def get_ready(self) -> None:
        """Start the process that waits for the next investigation, unless there is one."""
        with self._ready_guard:
            if self._is_stopped.is_set() or not self._settings.serve_look_ready:
                return
            if self._ready is None:
                lock = self._open_lock()
                self._ready = _Child(self._start("runbook_lib.prepared", [], lock), lock)

    def investigate(
        self,
        alerts: Sequence[KnownAlert],
        *,
        incident: str = "",
        after: str = "",
        ticket: str = "",
    ) -> Look:
        """Carry out ``runbook investigate`` and return what it says.

        Parameters
        ----------
        alerts : they stand in the incident's report
        incident : empty: the one that ``runbook investigate`` chooses
        after : the incident that this episode ended; the look closes it, and both reports say so
        ticket : a case of support; one that support does not know is left out
        """
        options = ["--incident", incident] if incident else []
        options += ["--after", after] if after else []
        with _write_alerts(alerts) as path:
            joins = ["--alerts", str(path)] if alerts else []
            command = ["investigate", *options, *joins]
            try:
                if ticket:
                    code, document = self._run_command([*command, "--ticket", ticket])
                    if code != ExitCode.USAGE:
                        return _read_look(document, code)
                code, document = self._run_command(command)
            finally:
                later = threading.Timer(_READY_AFTER_S, self.get_ready)
                later.daemon = True
                later.start()
        return _read_look(document, code)

    def add_alerts(self, incident: str, alerts: Sequence[KnownAlert]) -> str:
        """Let alerts join an incident's report; return what went wrong, or nothing."""
        with _write_alerts(alerts) as path:
            _, document = self._run_command(["report", incident, "--alerts", str(path)])
        return str(document.get("error", ""))

    def close(self, incident: str) -> str:
        """Close a folder in which nothing was wrong; return what went wrong, or nothing."""
        _, document = self._run_command(["close", incident])
        return str(document.get("error", ""))

    def stop(self) -> None:
        """End the look that runs: it is repeated after the next start."""
        self._is_stopped.set()
        for child in tuple(self._children):
            _signal(child, signal.SIGTERM)

    def _run_command(self, words: Sequence[str]) -> tuple[int, dict[str, Json]]:
        """Run a command of the runbook; return its exit code and its document."""
        words = [*words, "--json"]
        ready = self._take_ready() if words[0] == "investigate" else None
        lock = ready.lock if ready else self._open_lock()
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if ready:
                process = ready.process
                line = f"{json.dumps(words)}\n"
            else:
                process = self._start("runbook_lib", words, lock)
                line = ""
            output, errors = self._wait(process, line)
        if self._is_stopped.is_set():
            # Write no result: the step is repeated after the next start.
            threading.Event().wait()
        try:
            document = json.loads(output)
        except ValueError:
            text = self._redactor.text(errors.strip()[-_MOST_CHARS:])
            why = text.splitlines()[-1] if text else f"it ended with {process.returncode}"
            document = {"error": why}
        if not isinstance(document, dict):
            document = {"error": "it printed no document"}
        return process.returncode, document

    def _take_ready(self) -> _Child | None:
        """Return the process that waits, which nobody else gets; None when none is alive."""
        with self._ready_guard:
            ready = self._ready
            self._ready = None
        if ready is None or ready.process.poll() is None:
            return ready
        self._children.discard(ready.process)
        ready.lock.close()
        return None

    def _start(self, module: str, words: Sequence[str], lock: IO[str]) -> subprocess.Popen[str]:
        name = get_runbook_name()
        runbook = ["--runbook", name] if name else []
        keyless = {**os.environ, "MINIO_CHANGE_USER": "", "MINIO_CHANGE_PASSWORD": ""}
        process = subprocess.Popen(
            [sys.executable, "-m", module, *runbook, *words],
            stdin=subprocess.PIPE,
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

    def _wait(self, process: subprocess.Popen[str], line: str) -> tuple[str, str]:
        """Send a process a line; return what it printed. One that takes too long is ended."""
        timeout_s = self._settings.serve_look_timeout_s
        try:
            return process.communicate(line, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGTERM)
        finally:
            self._children.discard(process)
        try:
            process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.communicate()
        return "", f"it took longer than {timeout_s:g} s (SERVE_LOOK_TIMEOUT_S)"

    def _open_lock(self) -> IO[str]:
        return (self._settings.serve_home / "look.lock").open("w")


def _signal(child: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


@contextmanager
def _write_alerts(alerts: Sequence[KnownAlert]) -> Iterator[Path]:
    """Write alerts into a file that ``--alerts`` reads."""
    rows = [
        {
            "fingerprint": alert.fingerprint,
            "starts_at": format_time(alert.started_at),
            "labels": alert.labels,
        }
        for alert in alerts
    ]
    with tempfile.TemporaryDirectory(prefix="runbook-serve-") as folder:
        path = Path(folder) / "alerts.json"
        path.write_text(json.dumps(rows), "utf-8")
        yield path


def _read_look(document: dict[str, Json], code: int) -> Look:
    error = str(document.get("error", ""))
    if not error and not document.get("verdict"):
        error = f"it ended with {code}"
    return Look(
        incident=str(document.get("incident") or ""),
        verdict=str(document.get("verdict") or ""),
        next=str(document.get("next") or ""),
        error=error,
    )
