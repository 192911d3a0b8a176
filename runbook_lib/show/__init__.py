"""What a notebook shows: tables, plots, forms. Values in, safe HTML and text out."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

_HOMES = {
    "confirm": "widgets:Confirmation",
    "file_link": "display:file_link",
    "form": "widgets:Form",
    "live": "widgets:LiveView",
    "overview": "display:overview",
    "plans": "display:plans",
    "plot_reading": "plots:plot_reading",
    "take_back": "widgets:TakeBack",
    "write_down": "widgets:Writing",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is first used, so that the report needs no widgets."""
    if name in _HOMES:
        return resolve_name(f"{__name__}.{_HOMES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
