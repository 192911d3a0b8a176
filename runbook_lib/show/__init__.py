"""What a notebook shows: tables, plots, the gate of a plan. Values in, safe HTML and text out."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any


def confirm(plan: Any, namespace: MutableMapping[str, Any]) -> Any:
    """Return the gate of a plan; see ``widgets.Gate``."""
    from .widgets import Gate  # the report needs no widgets

    return Gate(plan, namespace)
