"""Keep a section that is carried out by hand in the incident's folder, cell by cell."""

from __future__ import annotations

from typing import Any

from ..model import Json
from .incident import Incident, write_json


class Recording:
    """The cells that a kernel runs since a section was opened, with what they showed.

    Parameters
    ----------
    shell : IPython's; it tells of each cell
    incident, section : whose ``notebooks/`` get the file, and the section's name

    Notes
    -----
    Changes the journal once, with the first cell, and the file after each. What a front end saves,
    or does not save, is another matter.
    """

    def __init__(self, shell: Any, incident: Incident, section: str) -> None:
        self._shell, self._incident, self.section = shell, incident, section
        self.path = incident.new_notebook(section)
        self._cells: list[dict[str, Json]] = []
        shell.events.register("post_run_cell", self.keep)

    def keep(self, result: Any) -> None:
        """Add the cell that just ran."""
        if not result.info.store_history or self._incident.is_late:
            return  # nothing comes beside the report of an incident that is over
        if not self._cells:
            run = {"section": self.section, "notebook": self.path.name, "status": "by_hand"}
            self._incident.journal.append("notebook", run)
        told = {"source": result.info.raw_cell, "outputs": self._show(result)}
        self._cells.append({"cell_type": "code", "execution_count": None, "metadata": {}} | told)
        notebook = {"cells": self._cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        write_json(self.path, self._incident.redactor.json(notebook))

    def stop(self) -> None:
        """Keep no further cells."""
        self._shell.events.unregister("post_run_cell", self.keep)

    def _show(self, result: Any) -> list[dict[str, Json]]:
        if error := result.error_before_exec or result.error_in_exec:
            words = {"ename": type(error).__name__, "evalue": str(error), "traceback": []}
            return [{"output_type": "error", **words}]
        if result.result is None:
            return []
        shown, _ = self._shell.display_formatter.format(result.result)
        return [{"output_type": "display_data", "data": shown, "metadata": {}}]


def begin_recording(incident: Incident, section: str) -> None:
    """Record from now on what this kernel runs, unless who runs it keeps the notebook itself."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if getattr(shell, "keeps_notebook", False):
        return
    if isinstance(before := getattr(shell, "recording", None), Recording):
        before.stop()
    shell.recording = Recording(shell, incident, section)
