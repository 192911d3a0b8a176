"""Our engine for papermill, whose own can't redact a notebook before it is written.

It also breaks its event loop off when interrupted.
"""

from collections.abc import Callable
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

_NAME = "keeping"


def register_engine() -> str:
    papermill_engines.register(_NAME, KeepingEngine)
    return _NAME


class KeepingClient(PapermillNotebookClient):  # type: ignore[misc]
    """Empties the kernel first."""

    kernel: Any
    fresh_start: str

    def papermill_execute_cells(self) -> None:
        self.kc.execute(self.fresh_start, silent=True)
        super().papermill_execute_cells()

    def execute_cell(self, *cell: Any, **named: Any) -> Any:
        """Execute a cell unless the run must end; let ``kernel`` know meanwhile that one runs."""
        if self.kernel.must_end:
            raise KeyboardInterrupt
        self.kernel.has_cell = True
        try:
            return super().execute_cell(*cell, **named)
        finally:
            self.kernel.has_cell = False


class KeepingEngine(Engine):  # type: ignore[misc]
    """Runs a notebook, and hands it to ``keep`` however it ended."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        keep: Callable[[Any], None],
        kernel: Any,
        fresh_start: str,
        client: Any,
        execution_timeout: float,
        **_: object,
    ) -> None:
        run = KeepingClient(
            nb_man, km=client.parent, kernel_name=kernel_name, timeout=execution_timeout
        )
        run.kc = client
        run.kernel = kernel
        run.fresh_start = fresh_start
        try:
            run.execute()
        finally:
            keep(nb_man.nb)
