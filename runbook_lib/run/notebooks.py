"""Run notebooks headless through papermill; our own journal says how a run ended."""

from __future__ import annotations

import logging
import os
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

from ..errors import (
    ExitCode,
    RunbookError,
    StoppedAtPlanError,
    disk_errors,
    exit_code_of_error,
)
from ..model import Conclusion, Progress, keep_quiet
from ..record.incident import Incident, write_json
from ..record.journal import get_run, mark_run
from ..report.export import NOT_A_NOTEBOOK, load_nbformat
from ..runbook import find_runbook, get_runbook_name
from ..section import Sections, check_parameters
from .documents import NotebookResult
from .interrupts import Interrupts, hold_interrupts

if TYPE_CHECKING:
    from .kernel import SharedKernelManager

_CELL_TIMEOUT_S = 600
#: How long a cell may take to put back what it changed, such as a service that it paused.
CELL_ENDS_S = 60.0
_INTERRUPTED = "interrupted: the running cell ends first, within 60 s; Ctrl-C again ends it at once"
_REPAIR = "Put it back: git checkout, or install the package again."
#: The tag of the cell that we put first; the kept notebook does not have that cell.
_FRESH_TAG = "fresh-start"
# What every kernel does once, at its start.
_WARM_UP = """\
import ipywidgets, matplotlib.figure
from runbook_lib.runbook import use_runbook
use_runbook({name!r}).load_sections()"""
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
#: What the journal keeps of a run.
_JOURNALLED = {"section", "notebook", "status", "error", "duration_s"}


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


class NotebookRun(NotebookResult):
    """One run: its executed notebook, how it ended, and the section's conclusion if it drew one.

    ``error`` is empty, and ``exit_code`` OK, when nothing stopped the run.
    """

    section: str
    path: Path
    status: RunStatus
    exit_code: ExitCode
    conclusion: Conclusion | None


class Failure(NamedTuple):
    """What stopped a notebook.

    Attributes
    ----------
    why : the error's text, or what else stopped it
    error : name of the class of a cell's error; empty: something else stopped it
    where : in which cell, in words that follow the text
    """

    why: str
    error: str = ""
    where: str = ""


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
    """

    def __init__(self, progress: Progress = keep_quiet) -> None:
        self.must_end = False
        self._progress = progress
        self._manager: SharedKernelManager | None = None
        self._has_cell = False
        self._is_interrupted = False
        self._deadline = threading.Timer(CELL_ENDS_S, self.kill)
        self._deadline.daemon = True

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()
        self.stop()

    def begin(self) -> None:
        """Begin to start the kernel. An error is ignored: ``ensure_started`` tries again later."""
        with suppress(KeyError, OSError, RuntimeError):
            self.ensure_started()

    def ensure_started(self) -> SharedKernelManager:
        """Return the kernel's manager for the next notebook; begin to start one if none runs."""
        with hold_interrupts():
            if self._manager is None or not run_sync(self._manager.is_alive)():
                self.stop()
                self._manager = _start_kernel()
            return self._manager

    def end_run(self) -> None:
        """End the run: interrupt the cell that runs; kill the kernel if the cell does not end."""
        self.must_end = True
        self._deadline.start()
        self._interrupt()
        with suppress(RuntimeError):  # the signal may have come in the middle of a print
            self._progress(_INTERRUPTED)

    def note_cell(self, *, runs: bool) -> None:
        """Note that the kernel runs a cell now, or has ended it.

        A kernel ignores a signal that comes before the cell that it was sent for. Such a signal is
        handed over once the cell runs.
        """
        self._has_cell = runs
        if self.must_end:
            self._interrupt()

    def _interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the cell that runs, at most once."""
        if self._has_cell and not self._is_interrupted:
            self._is_interrupted = True
            self.send(signal.SIGINT)

    def kill(self) -> None:
        """End the kernel at once; whoever waits for a cell learns that the kernel died."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the kernel; safe in a signal handler and in another thread."""
        if self._manager is not None and self._manager.has_kernel:
            provisioner: Any = self._manager.provisioner
            with suppress(ProcessLookupError):
                os.kill(provisioner.process.pid, number)

    def stop(self) -> None:
        """End the kernel, and wait for its end; the next notebook gets a new kernel."""
        with hold_interrupts():
            if self._manager is not None:
                self._manager.disconnect()
                if self._manager.has_kernel:
                    run_sync(self._manager.shutdown_kernel)(now=True)
            self._manager = None


def _start_kernel() -> SharedKernelManager:
    """Begin to start a kernel that carries out the runbook of this process; return its manager."""
    from .kernel import SharedKernelManager

    settings: dict[str, Any] = {"shutdown_wait_time": 1.0, "transport_encryption": "auto"}
    manager = SharedKernelManager(kernel_name="python3", **settings)
    options = [
        "--log-level=50",
        "--HistoryManager.hist_file=:memory:",
        f"--IPKernelApp.exec_lines={_WARM_UP.format(name=get_runbook_name())}",
    ]
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
    path = incident.find_free_notebook(name)
    with disk_errors(f"cannot make {path}"):
        path.touch(exist_ok=False)
    started = time.monotonic()
    mark_run(path.name)
    source = sections.notebooks / f"{name}.ipynb"
    keep = partial(_keep, incident, path)
    try:
        with Interrupts(kernel.end_run, kernel.kill):
            failure = _execute(source, values, kernel, keep)
    except KeyboardInterrupt:
        kernel.must_end = True
        failure = Failure("")
    own = incident.journal.view().of_runs([path.name])
    conclusion = own.conclusion(name)
    if kernel.must_end and failure is not None:
        failure = Failure("", KeyboardInterrupt.__name__)
    if conclusion is None and failure is None:
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
    incident.journal.append("notebook", run.model_dump(include=_JOURNALLED))
    if path.exists() and not path.stat().st_size:
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
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    from .engine import register_engine

    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        notebook = nbformat.read(source, as_version=4)
    except NOT_A_NOTEBOOK as error:
        return Failure(f"{source} is damaged ({type(error).__name__}). {_REPAIR}")
    fresh_start = _FRESH_START.format(run=get_run())
    fresh = nbformat.v4.new_code_cell(fresh_start, metadata={"tags": [_FRESH_TAG]})
    notebook.cells.insert(0, fresh)
    try:
        papermill.execute_notebook(
            notebook,
            None,
            parameters=dict(values),
            engine_name=register_engine(),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=_CELL_TIMEOUT_S,
            km=kernel.ensure_started(),
            keep=keep,
            kernel=kernel,
        )
    except PapermillExecutionError as error:
        first_line = error.source.strip().partition("\n")[0][:80]
        return Failure(error.evalue, error.ename, f" (in the cell that begins {first_line!r})")
    except CellTimeoutError:
        kernel.stop()  # the kernel is still busy with that cell
        return Failure(f"a cell took over {_CELL_TIMEOUT_S} s")
    except (DeadKernelError, NoSuchKernel, PapermillException, RuntimeError) as error:
        return Failure(f"{type(error).__name__}: {error}")
    return None


def _describe_ending(name: str, failure: Failure | None) -> tuple[RunStatus, ExitCode, str]:
    """Return how a notebook ended: its status, its exit code, and the text of its error."""
    if failure is None:
        return RunStatus.DONE, ExitCode.OK, ""
    code = _find_exit_code(failure.error)
    status = _STATUS_OF_CODE.get(code)
    if status is None:
        why = ": ".join(filter(None, (failure.error, failure.why)))
        text = f"notebook {name} stopped: {why}{failure.where}"
        return RunStatus.FAILED, ExitCode.RUN_FAILED, text
    if failure.error == StoppedAtPlanError.__name__:
        status = RunStatus.STOPPED_AT_PLAN
    return status, code, failure.why or str(status)


def _find_exit_code(error_name: str) -> ExitCode:
    """Return the exit code of the error class with this name; RUN_FAILED for an unknown name."""
    errors = find_runbook().errors
    classes: list[type[BaseException]] = [KeyboardInterrupt, RunbookError, *errors]
    for kind in classes:
        classes.extend(kind.__subclasses__())
    known = {kind.__name__: kind for kind in classes}
    return exit_code_of_error(known.get(error_name, Exception), errors)


def _keep(
    incident: Incident,
    path: Path,
    notebook: Any,
) -> None:
    """Write a notebook as it is now, redacted, and without the cell that empties the kernel."""
    cells = [c for c in notebook.cells if _FRESH_TAG not in c.metadata.get("tags", ())]
    content = incident.redactor.json({**notebook, "cells": cells})
    write_json(path, content)
