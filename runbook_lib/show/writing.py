"""The human parts of a postmortem, written into the incident folder and not into the notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..investigation import Investigation
from .tables import render_rows
from .text import visible

__all__ = ["Writing", "write_down"]


def write_down(inv: Investigation, questions: Mapping[str, str]) -> Writing:
    """Ask questions whose answers become notes in the incident's journal.

    Parameters
    ----------
    inv : its incident gets the notes
    questions : step of the checklist → question; a saved answer ticks that step

    Notes
    -----
    Changes the journal only, and only when "Save" is pressed. Notes are appended: nobody's words
    are overwritten.
    """
    return Writing(inv, questions)


class Writing:
    """The form of free texts, and the notes that the journal has already."""

    def __init__(self, inv: Investigation, questions: Mapping[str, str]) -> None:
        import ipywidgets as widgets

        self._inv = inv
        self.answers = {
            step: widgets.Textarea(placeholder=question, layout={"width": "48rem"})
            for step, question in questions.items()
        }
        self.button = widgets.Button(description="Save", button_style="primary")
        self._said = widgets.HTML()
        self.button.on_click(lambda _: self.save())
        fields = [
            widgets.VBox([widgets.Label(f"{step} {question}"), self.answers[step]])
            for step, question in questions.items()
        ]
        self._box = widgets.VBox([*fields, widgets.HBox([self.button, self._said])])

    def save(self) -> int:
        """Append each answer that is not empty as a note; returns how many."""
        written = 0
        for step, field in self.answers.items():
            if text := field.value.strip():
                self._inv.note(text, checklist=step)
                field.value = ""
                written += 1
        self._said.value = f"✓ {written} saved to the journal." if written else "Nothing to save."
        return written

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        notes = [
            {"at": f"{e.at:%H:%M:%SZ}", "step": e.data.get("checklist"), "text": e.data.get("text")}
            for e, _ in self._inv.journal.notes
        ]
        text = "\n".join(f"{n['at']} {n['step'] or ''} {n['text']}" for n in notes)
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {
            **bundle,
            "text/html": str(render_rows(notes, caption="Notes in the journal")),
            "text/plain": visible(text or "no notes in the journal yet"),
        }
