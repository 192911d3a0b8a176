"""Our engine for papermill: it hands the notebook over at its end, and obeys interrupts.

papermill's own engine writes the whole notebook twice for each cell, and an interrupt breaks its
event loop off halfway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

_NAME = "keeping"
_START_TIMEOUT_S = 60


def register_engine() -> str:
    """Make the engine known to papermill; return its name there."""
    papermill_engines.register(_NAME, KeepingEngine)
    return _NAME


class KeepingClient(PapermillNotebookClient):  # type: ignore[misc]
    """Tells ``kernel`` when it begins and ends a cell."""

    kernel: Any

    def execute_cell(self, *cell: Any, **named: Any) -> Any:
        """Run a cell.

        Raises
        ------
        KeyboardInterrupt
            When the run is to end.
        """
        if self.kernel.must_end:
            raise KeyboardInterrupt
        return super().execute_cell(*cell, **named)

    def process_message(self, message: Any, *where: Any, **named: Any) -> Any:
        """Tell ``kernel`` what the message says of the cell; then papermill handles it, too."""
        kind = message["msg_type"]
        if kind == "execute_input":
            self.kernel.note_cell(runs=True)
        elif kind == "status" and message["content"]["execution_state"] == "idle":
            self.kernel.note_cell(runs=False)
        return super().process_message(message, *where, **named)


class KeepingEngine(Engine):  # type: ignore[misc]
    """Runs a notebook with the client above."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        *,
        keep: Callable[[Any], None],
        kernel: Any,
        km: Any,
        execution_timeout: float,
        **_: object,
    ) -> Any:
        """Run the notebook's cells; give ``keep`` the notebook, whatever ended the run."""
        manager = NotebookExecutionManager(nb, progress_bar=False)
        manager.notebook_start()
        client = KeepingClient(
            manager,
            km=km,
            kernel_name=kernel_name,
            startup_timeout=_START_TIMEOUT_S,
            timeout=execution_timeout,
            log=logging.getLogger("papermill"),
        )
        client.kernel = kernel
        try:
            client.execute()
        finally:
            manager.notebook_complete()
            keep(manager.nb)
        return manager.nb
