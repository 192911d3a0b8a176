"""Run notebooks headless through papermill; our own journal says how a run ended."""

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
from ..record.journal import get_run, mark_run
from ..report.export import NOT_A_NOTEBOOK, load_nbformat
from ..runbook import find_runbook, get_runbook_name, is_logging
from ..section import Sections, check_parameters
from .interrupts import Interrupts, hold_interrupts

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager

_CELL_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
#: How long a cell may take to put back what it changed, such as a service that it paused.
CELL_ENDS_S = 60.0
_INTERRUPTED = "interrupted: the running cell ends first, within 60 s; Ctrl-C again ends it at once"
# What every kernel does once, at its start.
_WARM_UP = """\
import ipywidgets, matplotlib.figure
from runbook_lib.runbook import use_runbook
use_runbook({name!r})"""
_WARM_UP_LOG = """
from runbook_lib.runbook import start_logging
start_logging()"""
# Empties the kernel before each notebook. IPython's reset collects garbage twice; `gc.freeze` makes
# the collector skip what was imported (ADR 0013). `keeps_notebook` says that this is a headless
# run, which keeps the notebook itself: no recording of cells begins.
_FRESH_START = """\
import gc; gc.freeze(); gc.set_threshold(1_000_000)
get_ipython().run_line_magic("reset", "-f")
get_ipython().execution_count = 1
get_ipython().keeps_notebook = True
from runbook_lib.record.journal import mark_run
mark_run({run!r})"""


class RunStatus(StrEnum):
    """What became of a notebook run."""

    DONE = "done"
    STOPPED_AT_PLAN = "stopped_at_plan"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: The status of a notebook that an error of one of these codes stopped. Any other code is a fault
#: of the run itself.
_STATUS_OF_CODE = {
    ExitCode.INTERRUPTED: RunStatus.INTERRUPTED,
    ExitCode.REFUSED: RunStatus.REFUSED,
    ExitCode.USAGE: RunStatus.FAILED,
}


class NotebookRun(BaseModel, frozen=True):
    """How a notebook ended. JSON has the first four fields.

    ``error`` says what stopped it, and is empty if nothing did; then ``exit_code`` is OK.
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
    """What stopped a notebook: a text, and the name of the error's class if a cell raised it."""

    why: str
    error: str = ""


class SharedKernel(AbstractContextManager["SharedKernel"]):
    """A kernel for several notebooks, one after the other; each finds it empty. A context manager.

    To start a kernel and import what notebooks need takes most of a section's time. A kernel that
    died is replaced. The kernel runs in its own session, so a Ctrl-C in the terminal does not reach
    it: ``end_run`` does.

    Parameters
    ----------
    progress : shows a text to a person: what is waited for

    Attributes
    ----------
    must_end : whether the run is to end; then no further cell begins
    has_cell : whether a cell runs
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
        """Return the kernel's manager for the next notebook; begin to start one if none runs."""
        with hold_interrupts():
            if self._manager is None or not run_sync(self._manager.is_alive)():
                self.stop()
                self._manager = _start_kernel()
            return self._manager

    def connect(self) -> AsyncKernelClient:
        """Return the client of a kernel that is ready. It stays connected between notebooks.

        There is no heartbeat, which takes a second to stop: the kernel's process tells whether it
        lives.
        """
        manager = self.ensure_started()
        if self._client is None:
            self._client = manager.client()
            self._client.allow_stdin = False
            self._client.start_channels(hb=False)
            run_sync(self._client.wait_for_ready)(timeout=_START_TIMEOUT_S)
        return self._client

    def end_run(self) -> None:
        """End the run: interrupt the cell that runs; kill the kernel if the cell does not end."""
        self.must_end = True
        self._deadline.start()
        if self.has_cell:
            self.send(signal.SIGINT)
        with suppress(RuntimeError):  # the signal may have come in the middle of a print
            self._progress(_INTERRUPTED)

    def kill(self) -> None:
        """End the kernel at once; whoever waits for a cell learns that the kernel died."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the kernel; safe in a signal handler and in another thread."""
        if self._manager is not None and self._manager.has_kernel:
            provisioner: Any = self._manager.provisioner
            provisioner.process.send_signal(number)

    def stop(self) -> None:
        """End the kernel, and wait for its end; the next notebook gets a new kernel."""
        with hold_interrupts():
            if self._manager is not None:
                if self._client is not None:
                    self._client.stop_channels()
                if self._manager.has_kernel:
                    run_sync(self._manager.shutdown_kernel)(now=True)
            self._manager = None
            self._client = None


def _start_kernel() -> AsyncKernelManager:
    """Begin to start a kernel that carries out the runbook of this process; return its manager."""
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager(
        kernel_name="python3",
        shutdown_wait_time=1.0,
        transport_encryption="auto",
    )
    warm_up = _WARM_UP.format(name=get_runbook_name())
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

    Parameters
    ----------
    sections, name : the section whose notebook runs
    incident : handed to the notebook as ``incident_id``
    parameters : checked against the section's model first. A parameter that is not given has the
        notebook's own value
    kernel : runs this notebook, and perhaps others before and after it

    Returns
    -------
    How the run ended. A failing cell does not raise here: ``status`` and ``error`` say it.

    Raises
    ------
    UsageError
        When a parameter is unknown or wrong; no kernel was started.
    KeyboardInterrupt
        After the interruption is journalled

    Notes
    -----
    The first SIGINT or SIGTERM goes to the running cell, which gets 60 s to end. A second signal
    ends the kernel at once.
    """
    given = {**parameters, "incident_id": incident.id}
    values = check_parameters(sections[name], given).model_dump(mode="json", include=set(given))
    path = incident.path("notebooks", f"{name}.ipynb")
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{name}-{number}.ipynb")
    path.touch(exist_ok=False)
    started = time.monotonic()
    mark_run(path.name)
    source = sections.notebooks / f"{name}.ipynb"
    failure: Failure | None = Failure("")
    try:
        with Interrupts(kernel.end_run, kernel.kill):
            failure = _execute(source, values, kernel, partial(_keep, incident, path))
    except KeyboardInterrupt:
        kernel.must_end = True
    conclusion = incident.journal.view().of_runs([path.name]).conclusion(name)
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
        path.unlink()  # the run ended before its first cell
    mark_run("")
    if kernel.must_end or status is RunStatus.INTERRUPTED:
        raise KeyboardInterrupt
    return run


def _execute(
    source: Path,
    values: Mapping[str, Any],
    kernel: SharedKernel,
    keep: Callable[[Any], None],
) -> Failure | None:
    """Run the cells of a section's notebook; return what stopped it, or None."""
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
        kernel.stop()  # the kernel is still busy with that cell
        return Failure(f"a cell took over {_CELL_TIMEOUT_S} s")
    except (PapermillException, RuntimeError, *NOT_A_NOTEBOOK) as error:
        return Failure(f"{source}: {type(error).__name__}: {error}")
    return None


def _describe_ending(name: str, failure: Failure | None) -> tuple[RunStatus, ExitCode, str]:
    """Return how a notebook ended: its status, its exit code, and the text of its error."""
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
    """Return the error class with this name; ``Exception`` for an unknown name."""
    kinds: list[type[BaseException]] = [KeyboardInterrupt, RunbookError, *find_runbook().errors]
    for kind in kinds:
        if kind.__name__ == name:
            return kind
        kinds.extend(kind.__subclasses__())
    return Exception


def _keep(incident: Incident, path: Path, notebook: Any) -> None:
    """Write a notebook as it is now, redacted."""
    write_json(path, incident.redactor.json(notebook))
