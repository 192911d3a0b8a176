"""Run notebooks headless through papermill; what became of a run comes from our own journal."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_core.utils import run_sync

from ..approvals import load_plan
from ..errors import (
    ActionInterruptedError,
    ExitCode,
    RunbookError,
    StoppedAtPlanError,
    exit_code_of_error,
)
from ..investigation import say_interrupted
from ..model import Conclusion, Progress, keep_quiet
from ..record.actions import group_actions
from ..record.incident import Incident, write_json
from ..report.export import load_nbformat
from ..runbook import find_runbook, get_runbook_name
from ..section import SectionModule, Sections, check_parameters
from .documents import NotebookResult
from .interrupts import CellInterrupt, Interrupts, hold_interrupts

_CELL_TIMEOUT_S = 600
_START_TIMEOUT_S = 60
_REPAIR = "Put it back: git checkout, or install the package again."
_SAVE_EVERY_S = 1.0
_FRESH_TAG = "fresh-start"
_WARM_UP = """\
import ipywidgets, matplotlib.figure
from runbook_lib.runbook import use_runbook
use_runbook({name!r}).load_sections()"""
# IPython's reset collects garbage twice: what was imported is left out of that.
_FRESH_START = """\
import gc; gc.freeze(); gc.set_threshold(1_000_000)
get_ipython().run_line_magic("reset", "-f")
get_ipython().execution_count = 1
get_ipython().keeps_notebook = True"""


class RunStatus(StrEnum):
    """What became of a notebook run."""

    DONE = "done"
    STOPPED_AT_PLAN = "stopped_at_plan"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class NotebookRun(NotebookResult):
    """One run: its executed notebook, how it ended, and the section's conclusion if it drew one.

    ``error`` is empty, and ``exit_code`` OK, when nothing stopped it; ``after`` is the last entry
    of the journal before it.
    """

    section: str
    after: int
    path: Path
    status: RunStatus
    exit_code: ExitCode
    conclusion: Conclusion | None


class Failure(NamedTuple):
    """What stopped a notebook; ``error`` is the name of a cell's, ``where`` which cell."""

    why: str
    error: str = ""
    where: str = ""


class SharedKernel(AbstractContextManager["SharedKernel"]):
    """A kernel for several notebooks, one after the other; each finds it empty. A context manager.

    Starting one and importing what notebooks show takes most of a section's time. One that died
    is replaced. It has a session of its own: a Ctrl-C in the terminal does not reach it.
    """

    _manager: Any = None
    _client: Any = None
    _is_ending = False

    def __exit__(self, *_: object) -> None:
        self.stop()

    def begin(self) -> None:
        """Have it start while something else is done; what is wrong shows when it is taken."""
        with suppress(KeyError, OSError, RuntimeError):
            self.take()

    def take(self) -> Any:
        """Return the manager for the next notebook; begins to start a kernel if none runs."""
        from jupyter_client.manager import AsyncKernelManager

        with hold_interrupts():
            if self._manager is None or self._is_ending or not run_sync(self._manager.is_alive)():
                self.stop()
                how: Any = {"shutdown_wait_time": 1.0, "transport_encryption": "auto"}
                self._manager = AsyncKernelManager(kernel_name="python3", **how)
                run_sync(self._manager.start_kernel)(extra_arguments=_list_kernel_options())
                self._manager.client = partial(self._connect, self._manager.client)
            return self._manager

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the cell that runs."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End the kernel at once; who waits for a cell of it is told that it died."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the kernel, from a signal handler or another thread, too."""
        if self._manager is not None and self._manager.has_kernel:
            pid: int = self._manager.provisioner.process.pid
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """Have it end while something else is done; ``stop`` need not wait for it then."""
        if self._manager is not None and self._manager.has_kernel:
            with hold_interrupts():
                run_sync(self._manager.signal_kernel)(signal.SIGKILL)
                self._is_ending = True

    def stop(self) -> None:
        """End the kernel; the next notebook gets a new one."""
        with hold_interrupts():
            if self._client is not None:
                self._client.stop_channels()
            if self._manager is not None and self._manager.has_kernel:
                run_sync(self._manager.shutdown_kernel)(now=True)
            self._manager, self._client, self._is_ending = None, None, False

    def _connect(self, connect: Callable[..., Any], **how: Any) -> Any:
        if self._client is None:
            self._client = connect(**how)
            # whether it lives is asked of its process; stopping a heartbeat takes a second
            self._client.start_channels = partial(self._client.start_channels, hb=False)
        else:  # it is connected, and was ready: to ask again takes a third of a second
            self._client.start_channels = self._client.wait_for_ready = lambda **_: None
        return self._client


def _list_kernel_options() -> list[str]:
    """Return the options of a kernel that carries out the runbook of this process."""
    warm_up = _WARM_UP.format(name=get_runbook_name())
    return [
        "--log-level=50",
        "--HistoryManager.hist_file=:memory:",
        f"--IPKernelApp.exec_lines={warm_up}",
    ]


def run_notebook(
    sections: Sections,
    name: str,
    incident: Incident,
    parameters: Mapping[str, object] | None = None,
    *,
    kernel: SharedKernel | None = None,
    progress: Progress = keep_quiet,
) -> NotebookRun:
    """Run one section's notebook on an incident and journal how it ended.

    Parameters
    ----------
    sections, name : the section whose notebook runs
    incident : handed to the notebook as ``incident_id``
    parameters : checked against the section's model first; the notebook's own value otherwise
    kernel : one that other notebooks use too; default: one of its own
    progress : told when an interrupt waits for a cell

    Returns
    -------
    How it ended. Failing cells do not raise: the run says so.

    Raises
    ------
    UsageError
        When a parameter is unknown or wrong; no kernel was started.
    KeyboardInterrupt
        After the interruption is journalled. Its text is what a change that was cut off says, with
        the command that goes on; empty when no change was under way.

    Notes
    -----
    SIGINT and SIGTERM go to the cell that runs, once; it gets 60 s to end. A second signal ends it
    at once.
    """
    given = {**(parameters or {}), "incident_id": incident.id}
    values = check_parameters(sections[name], given).model_dump(mode="json", include=set(given))
    path = incident.new_notebook(name)
    after, started = incident.journal.view().last_seq, time.monotonic()
    is_asked = False
    try:
        with nullcontext(kernel) if kernel else SharedKernel() as used:
            source = sections.notebooks / f"{name}.ipynb"
            cell = CellInterrupt(used, progress)
            with closing(cell), Interrupts(cell.ask, used.kill):
                failure = _execute(source, values, used, partial(_keep, incident, path), cell)
            is_asked = cell.is_asked
    except KeyboardInterrupt:
        failure = Failure("", KeyboardInterrupt.__name__)
    conclusion = incident.journal.view().conclusion(name, after=after)
    if is_asked and failure is not None:
        failure = _explain_cut(sections[name], incident, after, failure)
    if conclusion is None and failure is None:
        failure = Failure("it ended without a conclusion in the journal")
    status, code, error = _judge(name, failure)
    took = {"duration_s": round(time.monotonic() - started, 3)}
    run = {"section": name, "notebook": path.name, "status": status, "error": error, **took}
    incident.journal.append("notebook", run)
    if is_asked or status is RunStatus.INTERRUPTED:
        is_change = failure is not None and failure.error == ActionInterruptedError.__name__
        raise KeyboardInterrupt(error if is_change else "")
    told: Any = {"path": path, "after": after, "exit_code": code, "conclusion": conclusion}
    return NotebookRun(**run, **told)


def _explain_cut(
    section: SectionModule, incident: Incident, after: int, failure: Failure
) -> Failure:
    """Return what an interrupted notebook failed with: the change that was cut off, if one was.

    A cell that was killed, or that turned the interrupt into another error, does not say it: the
    journal does, by a change that began and was not carried out.
    """
    if failure.error == ActionInterruptedError.__name__:
        return failure
    kinds = [kind for action in section.ACTIONS.values() for kind in action.kinds]
    begun = [a for a in incident.journal.view().actions if a.seq > after]
    for action in group_actions(begun):
        if action.is_cut_off:
            plan = load_plan(incident.find_plan(action.plan), kinds)
            text = say_interrupted(plan, incident, section)
            return Failure(text, ActionInterruptedError.__name__)
    return Failure("", KeyboardInterrupt.__name__)


def _execute(
    source: Path,
    values: Mapping[str, Any],
    kernel: SharedKernel,
    keep: Callable[[Any], None],
    cell: CellInterrupt,
) -> Failure | None:
    nbformat = load_nbformat()
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        notebook = nbformat.read(source, as_version=4)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Failure(f"{source} is damaged ({type(error).__name__}). {_REPAIR}")
    fresh = nbformat.v4.new_code_cell(_FRESH_START, metadata={"tags": [_FRESH_TAG]})
    notebook.cells.insert(0, fresh)
    try:
        papermill.execute_notebook(
            notebook,
            None,
            parameters=dict(values),
            engine_name=_register_engine(),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=_CELL_TIMEOUT_S,
            km=kernel.take(),
            keep=keep,
            cell=cell,
        )
    except PapermillExecutionError as error:
        first = error.source.strip().partition("\n")[0][:80]
        return Failure(error.evalue, error.ename, f" (in the cell that begins {first!r})")
    except CellTimeoutError:
        kernel.stop()  # it is still busy with that cell
        return Failure(f"a cell took over {_CELL_TIMEOUT_S} s")
    except (DeadKernelError, NoSuchKernel, PapermillException, RuntimeError) as error:
        return Failure(f"{type(error).__name__}: {error}")
    return None


def _judge(name: str, failure: Failure | None) -> tuple[RunStatus, ExitCode, str]:
    """Return how a notebook ended, by the name of its cell's error, and what is said of it."""
    if failure is None:
        return RunStatus.DONE, ExitCode.OK, ""
    more = find_runbook().errors
    kinds: list[type[BaseException]] = [KeyboardInterrupt, RunbookError, *more]
    for kind in kinds:  # and what is below each
        kinds += kind.__subclasses__()
    named = (kind for kind in kinds if kind.__name__ == failure.error)
    code = exit_code_of_error(next(named, Exception), more)
    if code is ExitCode.INTERRUPTED:
        return RunStatus.INTERRUPTED, code, failure.why or "interrupted"
    if failure.error == StoppedAtPlanError.__name__:
        return RunStatus.STOPPED_AT_PLAN, code, failure.why
    if code in (ExitCode.REFUSED, ExitCode.USAGE):
        status = RunStatus.REFUSED if code is ExitCode.REFUSED else RunStatus.FAILED
        return status, code, failure.why
    why = ": ".join(filter(None, (failure.error, failure.why)))
    return RunStatus.FAILED, ExitCode.RUN_FAILED, f"notebook {name} stopped: {why}{failure.where}"


@cache
def _register_engine() -> str:
    """Make papermill's engine hand over the notebook as it grows; return its name there.

    papermill itself would write it twice a cell, and the whole each time. It knows of no interrupt
    either, and leaves its event loop in the middle.
    """
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines

    class KeepingClient(PapermillNotebookClient):  # type: ignore[misc]
        """Tells ``running`` when the kernel begins and ends a cell."""

        running: CellInterrupt

        def process_message(self, message: Any, *where: Any, **named: Any) -> Any:
            kind = message["msg_type"]
            if kind == "execute_input":
                self.running.begin()
            elif kind == "status" and message["content"]["execution_state"] == "idle":
                self.running.end()
            return super().process_message(message, *where, **named)

    class KeepingEngine(Engine):  # type: ignore[misc]
        """Calls ``keep`` with the notebook once a second, and at last."""

        @classmethod
        def execute_managed_notebook(
            cls,
            nb_man: Any,
            kernel_name: str,
            *,
            keep: Callable[[Any], None],
            cell: CellInterrupt,
            km: Any,
            execution_timeout: float,
            **_: object,
        ) -> None:
            kept_at = time.monotonic()
            start_cell = nb_man.cell_start

            def save(**_: object) -> None:
                nonlocal kept_at
                if nb_man.end_time or time.monotonic() - kept_at >= _SAVE_EVERY_S:
                    keep(nb_man.nb)
                    kept_at = time.monotonic()

            def start(*where: Any, **named: Any) -> None:
                if cell.is_asked:
                    raise KeyboardInterrupt
                start_cell(*where, **named)

            keep(nb_man.nb)
            nb_man.save = save
            nb_man.cell_start = start
            log = logging.getLogger("papermill")
            how: Any = {"kernel_name": kernel_name, "timeout": execution_timeout, "log": log}
            client = KeepingClient(nb_man, km=km, startup_timeout=_START_TIMEOUT_S, **how)
            client.running = cell
            client.execute()

    papermill_engines.register("keeping", KeepingEngine)
    return "keeping"


def _keep(incident: Incident, path: Path, notebook: Any) -> None:
    """Write a notebook as it is now, redacted."""
    cells = [c for c in notebook.cells if _FRESH_TAG not in c.metadata.get("tags", ())]
    write_json(path, incident.redactor.json({**notebook, "cells": cells}))
