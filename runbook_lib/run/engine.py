"""Our engine for papermill: it saves the growing notebook once a second, and obeys interrupts.

papermill's own engine writes the whole notebook twice for each cell, and an interrupt breaks its
event loop off halfway.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

from .interrupts import CellInterrupt

_NAME = "keeping"
_SAVE_EVERY_S = 1.0
_START_TIMEOUT_S = 60

#: A function that saves the notebook as it is now.
Keep = Callable[[Any], None]


def register_engine() -> str:
    """Make the engine known to papermill; return its name there."""
    papermill_engines.register(_NAME, KeepingEngine)
    return _NAME


class KeepingManager(NotebookExecutionManager):  # type: ignore[misc]
    """Calls ``keep`` once a second at most, and at the end; begins no cell if the run is to end."""

    keep: Keep
    running: CellInterrupt
    kept_at = -math.inf

    def save(self, **_: object) -> None:
        """Call ``keep`` if its last call was a second ago or earlier, or the run is over."""
        if self.end_time or time.monotonic() - self.kept_at >= _SAVE_EVERY_S:
            self.keep(self.nb)
            self.kept_at = time.monotonic()

    def cell_start(self, cell: Any, *where: Any, **named: Any) -> None:
        """Begin a cell.

        Raises
        ------
        KeyboardInterrupt
            When the run is to end.
        """
        if self.running.must_end:
            raise KeyboardInterrupt
        super().cell_start(cell, *where, **named)


class KeepingClient(PapermillNotebookClient):  # type: ignore[misc]
    """Tells ``running`` when the kernel begins and ends a cell."""

    running: CellInterrupt

    def process_message(self, message: Any, *where: Any, **named: Any) -> Any:
        """Tell ``running`` what the message says of the cell; then papermill handles it, too."""
        kind = message["msg_type"]
        if kind == "execute_input":
            self.running.begin()
        elif kind == "status" and message["content"]["execution_state"] == "idle":
            self.running.end()
        return super().process_message(message, *where, **named)


class KeepingEngine(Engine):  # type: ignore[misc]
    """Runs a notebook with the manager and the client above."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        *,
        keep: Keep,
        cell: CellInterrupt,
        km: Any,
        execution_timeout: float,
        **_: object,
    ) -> Any:
        """Run the notebook's cells; return the notebook with their outputs."""
        manager = KeepingManager(nb, progress_bar=False)
        manager.keep = keep
        manager.running = cell
        manager.notebook_start()
        client = KeepingClient(
            manager,
            km=km,
            kernel_name=kernel_name,
            startup_timeout=_START_TIMEOUT_S,
            timeout=execution_timeout,
            log=logging.getLogger("papermill"),
        )
        client.running = cell
        try:
            client.execute()
        finally:
            manager.notebook_complete()
        return manager.nb
