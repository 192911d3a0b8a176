"""The fulfilment backlog runbook, executable: notebooks over a small library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .show.display import Investigation

__all__ = ["Investigation"]


def __getattr__(name: str) -> object:
    """Load ``Investigation`` when a notebook asks for it, so that importing stays quick."""
    if name == "Investigation":
        from .show.display import Investigation

        return Investigation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
