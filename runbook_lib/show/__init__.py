"""What a notebook shows: tables, plots, forms. Values in, safe HTML and text out."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

_HOMES = {
    "display": ("file_link", "overview", "plans"),
    "plots": ("plot_reading",),
    "widgets": ("confirm", "form", "live", "say", "take_back", "write_down"),
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is first used, so that the report needs no widgets."""
    for home, names in _HOMES.items():
        if name in names:
            return resolve_name(f"{__name__}.{home}:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
