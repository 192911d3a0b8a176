"""What a notebook shows: tables, plots, the gate of a plan. Values in, safe HTML and text out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: A mapping from each name that a notebook uses to its module.
_HOMES = {
    "confirm": "widgets",
    "file_link": "display",
    "overview": "display",
    "plans": "display",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first used, so that the report needs no widgets."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
