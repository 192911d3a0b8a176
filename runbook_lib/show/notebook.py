"""The investigation as a notebook sees it: what a cell returns is shown, safely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ..approvals import Plan
from ..investigation import Investigation as _Investigation
from ..model import ActionEntry, Conclusion, Reading
from ..section import SectionModule
from ..settings import Settings
from . import cards
from .progress import make_bar

__all__ = ["Investigation", "register_formatters"]


class Investigation(_Investigation):
    """One section at work on one incident; in IPython its values show themselves."""

    @classmethod
    def open(
        cls,
        incident_id: str = "",
        *,
        section: SectionModule,
        settings: Settings | None = None,
        **parameters: Any,
    ) -> Self:
        """Open the incident's folder for one section, and teach IPython to show what it gives."""
        is_shown = register_formatters()
        inv = super().open(incident_id, section=section, settings=settings, **parameters)
        inv.progress = make_bar if is_shown else None
        return inv

    def _repr_html_(self) -> str:
        return str(cards.investigation_html(self))

    def __repr__(self) -> str:
        return cards.investigation_text(self)


def register_formatters() -> bool:
    """Tell IPython how to show readings, conclusions, actions and plans.

    Returns
    -------
    Whether IPython runs here. Registering again changes nothing.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return False
    formatters = shell.display_formatter.formatters
    shown: list[tuple[Any, Callable[[Any], str], Callable[[Any], str]]] = [
        (Reading, cards.reading_html, cards.reading_text),
        (Conclusion, cards.conclusion_html, cards.conclusion_text),
        (ActionEntry, cards.action_html, cards.action_text),
        (Plan, cards.plan_html, cards.plan_text),
    ]
    for kind, to_html, to_text in shown:
        for mime, render in (("text/html", to_html), ("text/plain", _as_printer(to_text))):
            formatters[mime].for_type(kind, render)
    return True


def _as_printer(to_text: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    def render(value: Any, printer: Any, _cycle: bool) -> None:
        printer.text(to_text(value))

    return render
