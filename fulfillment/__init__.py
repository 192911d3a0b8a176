"""The fulfilment backlog runbook as code: notebooks over a small library."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .investigation import Investigation

__all__ = ["Investigation"]


def __getattr__(name: str) -> object:
    """Load ``Investigation`` on demand, so that importing stays quick."""
    if name == "Investigation":
        from .investigation import Investigation

        return Investigation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
