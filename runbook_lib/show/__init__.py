"""What a notebook shows: tables, plots, forms. Values in, safe HTML and text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .incident_overview import file_link, overview
    from .plots import plot_reading
    from .widgets import confirm, form, live, plan_table, take_back, write_down

__all__ = [
    "confirm",
    "file_link",
    "form",
    "live",
    "overview",
    "plan_table",
    "plot_reading",
    "take_back",
    "write_down",
]

_HOMES = {
    "file_link": "incident_overview",
    "overview": "incident_overview",
    "plot_reading": "plots",
}


def __getattr__(name: str) -> object:
    """Load a function when it is first asked for, so that the report needs no widgets."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES.get(name, 'widgets')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
