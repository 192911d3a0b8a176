"""Run notebooks headless through papermill, and journal how each run ended."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_core.utils import run_sync
from pydantic import BaseModel, Field

from ..errors import ExitCode, RunbookError, StoppedAtPlanError, exit_code_of_error
from ..model import Conclusion, Progress, keep_quiet
from ..record.incident import Incident, write_json
from ..record.journal import get_run, set_run
from ..report.export import NOT_A_NOTEBOOK, load_nbformat
from ..runbook import find_runbook, is_logging
from ..section import Sections, check_parameters
from .interrupts import Interrupts, delay_interrupts

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager

_CELL_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
#: How long an interrupted cell may take to restore what it changed, such as a paused service.
CELL_ENDS_S = 60.0
_INTERRUPTED = "interrupted: the running cell has 60 s to finish; Ctrl-C again stops it at once"
_WARM_UP = """\
import ipywidgets, matplotlib.figure
from runbook_lib.runbook import find_runbook
find_runbook()"""
_WARM_UP_LOG = """
from runbook_lib.runbook import start_logging
start_logging()"""
# Empties the kernel before each notebook; `gc.freeze` makes that quick. `keeps_notebook` stops the
# recording of cells, because a headless run keeps the notebook itself.
_FRESH_START = """\
import gc; gc.freeze(); gc.set_threshold(1_000_000)
get_ipython().run_line_magic("reset", "-f")
get_ipython().execution_count = 1
get_ipython().keeps_notebook = True
from runbook_lib.record.journal import set_run
set_run({run!r})"""


class RunStatus(StrEnum):
    DONE = "done"
    STOPPED_AT_PLAN = "stopped_at_plan"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: How a notebook ended, by its error's code. Any other code is a fault of the run itself.
_STATUS_OF_CODE = {
    ExitCode.INTERRUPTED: RunStatus.INTERRUPTED,
    ExitCode.REFUSED: RunStatus.REFUSED,
    ExitCode.USAGE: RunStatus.FAILED,
}


class NotebookRun(BaseModel, frozen=True):
    """How a notebook ended; ``error`` is "" unless something stopped it.

    JSON has the first four fields.
    """

    notebook: str
    status: RunStatus
    duration_s: float
    error: str = ""
    section: str = Field(exclude=True)
    path: Path = Field(exclude=True)
    exit_code: ExitCode = Field(exclude=True)
    conclusion: Conclusion | None = Field(exclude=True)


class Failure(NamedTuple):
    """What stopped a notebook; ``error`` is the class of a cell's error."""

    why: str
    error: str = ""


class SharedKernel(AbstractContextManager["SharedKernel"]):
    """A context manager for a kernel that runs notebooks in turn, each in an empty namespace.

    Starting a kernel takes most of a section's time. A Ctrl-C in the terminal doesn't reach the
    kernel; ``end_run`` does. A dead kernel is replaced.
    """

    def __init__(self, progress: Progress = keep_quiet) -> None:
        self.must_end = False
        self.has_cell = False
        self._progress = progress
        self._manager: AsyncKernelManager | None = None
        self._client: AsyncKernelClient | None = None
        self._deadline = threading.Timer(CELL_ENDS_S, self.kill)
        self._deadline.daemon = True

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()
        self.stop()

    def ensure_started(self) -> AsyncKernelManager:
        """Begin to start a kernel unless one runs; return its manager."""
        with delay_interrupts():
            if self._manager is None or not run_sync(self._manager.is_alive)():
                self.stop()
                self._manager = _start_kernel()
            return self._manager

    def connect(self) -> AsyncKernelClient:
        """Return the client of a ready kernel. A heartbeat would take a second to stop."""
        manager = self.ensure_started()
        if self._client is None:
            self._client = manager.client()
            self._client.allow_stdin = False
            self._client.start_channels(hb=False)
            run_sync(self._client.wait_for_ready)(timeout=_START_TIMEOUT_S)
        return self._client

    def end_run(self) -> None:
        """Interrupt the running cell, and kill the kernel if the cell does not end."""
        self.must_end = True
        self._deadline.start()
        if self.has_cell:
            self.send(signal.SIGINT)
        with suppress(RuntimeError):  # the signal may have interrupted a print
            self._progress(_INTERRUPTED)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the kernel; safe in signal handlers and other threads."""
        if self._manager is not None and self._manager.has_kernel:
            provisioner: Any = self._manager.provisioner
            provisioner.process.send_signal(number)

    def stop(self) -> None:
        """End the kernel, if there is one, and its client."""
        with delay_interrupts():
            if self._manager is not None:
                if self._client is not None:
                    self._client.stop_channels()
                if self._manager.has_kernel:
                    run_sync(self._manager.shutdown_kernel)(now=True)
            self._manager = None
            self._client = None


def _start_kernel() -> AsyncKernelManager:
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager(
        kernel_name="python3", shutdown_wait_time=1.0, transport_encryption="auto"
    )
    warm_up = _WARM_UP
    options = ["--log-level=50", "--HistoryManager.hist_file=:memory:"]
    if is_logging():
        warm_up += _WARM_UP_LOG
        options.append("--IPKernelApp.capture_fd_output=False")
    options.append(f"--IPKernelApp.exec_lines={warm_up}")
    run_sync(manager.start_kernel)(extra_arguments=options)
    return manager


def run_notebook(
    sections: Sections,
    name: str,
    incident: Incident,
    parameters: Mapping[str, object] = {},
    *,
    kernel: SharedKernel,
) -> NotebookRun:
    """Run one section's notebook on an incident and journal how it ended.

    A failing cell raises nothing. The first SIGINT or SIGTERM goes to the running cell, which has
    60 s to end; a second one kills the kernel.

    Raises UsageError before the start if a parameter is wrong, and KeyboardInterrupt once an
    interruption is journalled.
    """
    given = {**parameters, "incident_id": incident.id}
    values = check_parameters(sections[name], given).model_dump(mode="json", include=set(given))
    path = _choose_path(incident, name)
    source = sections.notebooks / f"{name}.ipynb"
    started = time.monotonic()
    set_run(path.name)
    failure: Failure | None = Failure("")  # if an interrupt ends `_execute`
    try:
        with Interrupts(kernel.end_run, kernel.kill):
            failure = _execute(source, values, kernel, partial(_keep, incident, path))
    except KeyboardInterrupt:
        kernel.must_end = True
    conclusion = incident.journal.view().of_runs([path.name]).find_conclusion(name)
    if kernel.must_end and failure is not None:
        failure = Failure("", KeyboardInterrupt.__name__)
    elif conclusion is None and failure is None:
        failure = Failure("it ended without a conclusion in the journal")
    status, code, error = _describe_ending(name, failure)
    run = NotebookRun(
        section=name,
        notebook=path.name,
        status=status,
        error=error,
        duration_s=round(time.monotonic() - started, 3),
        path=path,
        exit_code=code,
        conclusion=conclusion,
    )
    incident.journal.append("notebook", {"section": name, **run.model_dump()})
    if not path.stat().st_size:
        path.unlink()  # ended before its first cell
    set_run("")
    if kernel.must_end or status is RunStatus.INTERRUPTED:
        raise KeyboardInterrupt
    return run


def _choose_path(incident: Incident, name: str) -> Path:
    """Make an empty file, ``<name>.ipynb`` or ``<name>-2.ipynb`` …, and return its path."""
    path = incident.path("notebooks", f"{name}.ipynb")
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{name}-{number}.ipynb")
    path.touch(exist_ok=False)
    return path


def _execute(
    source: Path, values: Mapping[str, Any], kernel: SharedKernel, keep: Callable[[Any], None]
) -> Failure | None:
    """Execute a notebook, which ``keep`` saves however it ends; return what stopped it, if any."""
    nbformat = load_nbformat()
    import papermill
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    from .engine import register_engine

    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            nbformat.read(source, as_version=4),
            None,
            parameters=dict(values),
            engine_name=register_engine(),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=_CELL_TIMEOUT_S,
            client=kernel.connect(),
            keep=keep,
            kernel=kernel,
            fresh_start=_FRESH_START.format(run=get_run()),
        )
    except PapermillExecutionError as error:
        return Failure(error.evalue, error.ename)
    except CellTimeoutError:
        kernel.stop()  # still busy with that cell
        return Failure(f"a cell took over {_CELL_TIMEOUT_S} s")
    except (PapermillException, RuntimeError, *NOT_A_NOTEBOOK) as error:
        return Failure(f"{source}: {type(error).__name__}: {error}")
    return None


def _describe_ending(name: str, failure: Failure | None) -> tuple[RunStatus, ExitCode, str]:
    """Return a run's status, exit code, and what stopped it, or ""."""
    if failure is None:
        return RunStatus.DONE, ExitCode.OK, ""
    kind = _find_error(failure.error)
    code = exit_code_of_error(kind, find_runbook().errors)
    if code not in _STATUS_OF_CODE:
        why = ": ".join(filter(None, (failure.error, failure.why)))
        return RunStatus.FAILED, ExitCode.RUN_FAILED, f"notebook {name} stopped: {why}"
    status = _STATUS_OF_CODE[code]
    if issubclass(kind, StoppedAtPlanError):
        status = RunStatus.STOPPED_AT_PLAN
    return status, code, failure.why or str(status)


def _find_error(name: str) -> type[BaseException]:
    """Return the error of that name that has an exit code, else ``Exception``."""
    kinds: list[type[BaseException]] = [KeyboardInterrupt, RunbookError, *find_runbook().errors]
    for kind in kinds:
        if kind.__name__ == name:
            return kind
        kinds.extend(kind.__subclasses__())  # the loop reaches them, too
    return Exception


def _keep(incident: Incident, path: Path, notebook: Any) -> None:
    write_json(path, incident.redactor.json(notebook))
