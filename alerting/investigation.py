"""Run ``runbook investigate`` and ``close``: each in its own process, one at a time."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runbook_lib.errors import ExitCode
from runbook_lib.model import Json
from runbook_lib.redact import Redactor

from .alerts import KnownAlert
from .settings import ServeSettings

_TIMEOUT_S = 300


class Investigation(NamedTuple):
    """The result of an investigation."""

    incident: str
    verdict: str  # or "" if the investigation failed
    next: str  # the next command
    since: str  # when the trouble began, or ""
    error: str  # why the investigation failed


class Investigator:
    """Runs the runbook's own commands that change no system, one at a time.

    Each runs in a child process, without the key ``MINIO_CHANGE_USER``. The child inherits the
    lock: if it outlives this process, no second command begins beside it.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._home = settings.serve_home
        self._redactor = Redactor(settings.secrets)

    def investigate(
        self, alerts: Sequence[KnownAlert], *, incident: str = "", ticket: str = ""
    ) -> Investigation:
        """Run ``runbook investigate`` and return its result.

        Without ``incident``, the command chooses it. After a usage error, such as for an unknown
        ``ticket`` (a customer's case), it runs again without the ticket.
        """
        rows = [alert._asdict() for alert in alerts]
        command = ["investigate"]
        if incident:
            command += ["--incident", incident]
        with tempfile.TemporaryDirectory(prefix="runbook-serve-") as folder:
            if alerts:
                path = Path(folder) / "alerts.json"
                path.write_text(json.dumps(rows), "utf-8")
                command += ["--alerts", str(path)]
            if ticket:
                code, document = self._run_command([*command, "--ticket", ticket])
                if code != ExitCode.USAGE:
                    return _read_document(document, code)
            code, document = self._run_command(command)
        return _read_document(document, code)

    def close(self, incident: str) -> str:
        """Close an incident; return the error, or ""."""
        _, document = self._run_command(["close", incident])
        return str(document.get("error", ""))

    def _run_command(self, command: Sequence[str]) -> tuple[int, dict[str, Json]]:
        """Wait until no other command runs; run one, and return its exit code and its document."""
        keyless = {
            **os.environ,
            "MINIO_CHANGE_USER": "",
            "MINIO_CHANGE_PASSWORD": "",
            "RUNBOOK_OPERATOR": "runbook serve",  # no person looks
        }
        with (self._home / "look.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = subprocess.Popen(
                [sys.executable, "-m", "runbook_lib", *command, "--json"],
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
            try:
                output, errors = process.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return ExitCode.RUN_FAILED, {"error": f"it took longer than {_TIMEOUT_S} s"}
        try:
            document = json.loads(output)
        except ValueError:
            text = self._redactor.text(errors.strip())
            document = {"error": text.splitlines()[-1] if text else ""}
        return process.returncode, document


def _read_document(document: dict[str, Json], code: int) -> Investigation:
    """Return the result that a command's document describes; without a verdict it has an error."""
    error = str(document.get("error", ""))
    if not error and not document.get("verdict"):
        error = f"the command ended with exit code {code}"
    return Investigation(
        incident=str(document.get("incident") or ""),
        verdict=str(document.get("verdict") or ""),
        next=str(document.get("next") or ""),
        since=str(document.get("since") or ""),
        error=error,
    )
