"""What a notebook shows: tables, plots, a plan's gate. Values in, safe HTML and text out."""

from collections.abc import MutableMapping
from typing import Any


def confirm(plan: Any, namespace: MutableMapping[str, Any]) -> Any:
    """Return a plan's ``widgets.Gate``."""
    from .widgets import Gate  # the report needs no widgets

    return Gate(plan, namespace)
