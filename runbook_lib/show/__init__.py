"""What a notebook shows: tables, plots, forms. Values in, safe HTML and text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entrance import door, file_link
    from .forms import form
    from .live_view import live
    from .plans import confirm, plan_table, take_back
    from .plots import plot_reading
    from .tables import readings_frame, render_table
    from .writing import write_down

__all__ = [
    "confirm",
    "door",
    "file_link",
    "form",
    "live",
    "plan_table",
    "plot_reading",
    "readings_frame",
    "render_table",
    "take_back",
    "write_down",
]

_HOMES = {
    "confirm": "plans",
    "door": "entrance",
    "file_link": "entrance",
    "form": "forms",
    "live": "live_view",
    "plan_table": "plans",
    "plot_reading": "plots",
    "readings_frame": "tables",
    "render_table": "tables",
    "take_back": "plans",
    "write_down": "writing",
}


def __getattr__(name: str) -> object:
    """Load a function when it is first asked for, so that the report needs no widgets."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
