"""Call ``runbook`` from a task. All that DAGs here know of it: words, exit codes, JSON documents.

The command runs in an environment of its own; nothing of it is imported here. Settings are
environment variables of Airflow's scheduler, workers and DAG processor:

- ``RUNBOOK_AIRFLOW_COMMAND``: the command line, such as ``/opt/runbook/.venv/bin/runbook``
- ``RUNBOOK_AIRFLOW_FOLDER``: where it runs; its ``.env`` holds the settings of ``runbook``
- ``RUNBOOK_AIRFLOW_APPROVERS``: ids of Airflow's users who may approve, with commas between
- ``RUNBOOK_AIRFLOW_PARTS_AT_ONCE``: how many parts of a release are carried out at a time (4)
- ``RUNBOOK_AIRFLOW_RETRY_S``: after so many seconds a task that failed is tried again (60)
- ``RUNBOOK_AIRFLOW_ALERTMANAGER``: who tells the receivers when a task failed; empty: nobody
- ``RUNBOOK_AIRFLOW_SCENARIO``: what the weekly drill injects; empty: the runbook's default
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

__all__ = ["Answer", "ExitCode", "list_approvers", "read_setting", "run_runbook"]

_log = logging.getLogger(__name__)
#: Airflow kills a task 60 s after it asked it to end.
_ENDS_S = 50.0
#: So often the memory of a running command is read.
_LOOK_S = 0.5
_HIDDEN = ("AIRFLOW", "RUNBOOK_AIRFLOW_", "PYTHON", "VIRTUAL_ENV", "_AIRFLOW")


class ExitCode:
    """What the exit codes of ``runbook`` mean; the same in all commands."""

    OK = 0
    USAGE = 2
    UNKNOWN = 4
    REFUSED = 5


@dataclass(frozen=True)
class Answer:
    """How a command ended.

    Attributes
    ----------
    words : of the command line, without the program
    code : exit code; negative when a signal ended it
    document : what it said as JSON; empty when it said nothing
    errors : what it said on stderr
    seconds : how long it took
    peak_mib : the most memory that its process held; 0 where there is no /proc
    """

    words: tuple[str, ...]
    code: int
    document: dict[str, Any]
    errors: str
    seconds: float
    peak_mib: int

    @property
    def reason(self) -> str:
        """What it said of its end, in words."""
        for name in ("error", "summary", "reason"):
            text = self.document.get(name)
            if text:
                return str(text)
        return self.errors.strip()

    @property
    def ways_on(self) -> list[str]:
        """The commands that go on."""
        return [str(command) for command in self.document.get("way_on") or ()]

    def describe(self) -> str:
        """Say how it ended, and what goes on."""
        command = shlex.join(("runbook", *self.words))
        lines = [f"{command}: exit {self.code}. {self.reason}", *self.ways_on]
        return "\n".join(lines)

    def fail(self, *, is_final: bool) -> AirflowException:
        """Return the error that ends the task.

        Parameters
        ----------
        is_final : whether trying again is of no use
        """
        kind = AirflowFailException if is_final else AirflowException
        return kind(self.describe())


def read_setting(name: str, default: str = "") -> str:
    """Return ``RUNBOOK_AIRFLOW_<name>``."""
    return os.environ.get(f"RUNBOOK_AIRFLOW_{name}", "").strip() or default


def list_approvers() -> list[str]:
    """Return the ids of the users who may approve a release; none: nobody may."""
    names = read_setting("APPROVERS").split(",")
    return [name.strip() for name in names if name.strip()]


def run_runbook(*words: str, operator: str = "") -> Answer:
    """Run ``runbook … --json`` to its end.

    Parameters
    ----------
    words : command and arguments
    operator : who stands in state, journal and report; empty: whom the settings name

    Raises
    ------
    AirflowFailException
        When the folder is not set, or the program is not there.

    Notes
    -----
    When Airflow ends the task, the command gets SIGINT. It finishes what is under way.
    """
    command = [*shlex.split(read_setting("COMMAND", "runbook")), *words, "--json"]
    folder = read_setting("FOLDER")
    if not folder:
        raise AirflowFailException(
            "RUNBOOK_AIRFLOW_FOLDER is not set: name the folder of runbook's .env"
        )
    environment = _make_environment(operator)
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise AirflowFailException(f"runbook does not start: {error}") from error
    output, errors, peak_mib = _wait(process)
    answer = Answer(
        words=words,
        code=process.returncode,
        document=_parse(output),
        errors=errors,
        seconds=round(time.monotonic() - began, 1),
        peak_mib=peak_mib,
    )
    _log.info("%s", answer.describe())
    return answer


def _make_environment(operator: str) -> dict[str, str]:
    """Return this task's environment without what belongs to Airflow."""
    inherited = os.environ.items()
    environment = {name: value for name, value in inherited if not name.startswith(_HIDDEN)}
    if operator:
        environment["RUNBOOK_OPERATOR"] = operator
    return environment


def _wait(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """Return what a command says until its end, and the most memory that it held, in MiB.

    Interrupts the command when this task is ended.
    """
    peak_mib = 0
    try:
        while True:
            try:
                output, errors = process.communicate(timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                peak_mib = max(peak_mib, _read_peak_mib(process.pid))
            else:
                return output, errors, peak_mib
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _read_peak_mib(pid: int) -> int:
    """Return the most memory, in MiB, that a process held until now; 0 when it has ended.

    What the system reports at its end (``ru_maxrss``) begins with the memory of Airflow's worker,
    which started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) // 1024
    return 0


def _parse(output: str) -> dict[str, Any]:
    try:
        document = json.loads(output)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
