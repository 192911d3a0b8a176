"""Which faults are on: kept in the stack's folder, so that any later command can undo them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from .config import StackConfig, StackError
from .store_client import STORE_ERRORS

__all__ = ["active", "forget", "list_on", "remember", "turn_off_all"]

log = logging.getLogger(__name__)


def active(config: StackConfig) -> dict[str, dict[str, Any]]:
    """Return what each fault that is on has noted for its undoing."""
    file = _file(config)
    if not file.exists():
        return {}
    content: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return content


def list_on(config: StackConfig) -> list[str]:
    """Return the noted faults that the system still has, or that cannot be seen just now."""
    from .faults import FAULTS

    def may_be_on(name: str) -> bool:
        try:
            return FAULTS[name].is_on(config)
        except StackError:
            return True

    return sorted(filter(may_be_on, active(config)))


def remember(config: StackConfig, name: str, note: dict[str, Any]) -> None:
    """Note a fault before it is made, so that a crash in between can be undone too."""
    _write(config, active(config) | {name: note})


def forget(config: StackConfig, name: str) -> None:
    """Note that a fault is off."""
    _write(config, {key: note for key, note in active(config).items() if key != name})


def turn_off_all(config: StackConfig, *, for_shutdown: bool = False) -> list[str]:
    """Turn off every fault that is on; return their names.

    Parameters
    ----------
    for_shutdown
        The stack is about to stop: a fault that cannot be undone now stays noted, and the
        next start undoes it.
    """
    from .faults import FAULTS

    names = list(active(config))
    for name in names:
        try:
            FAULTS[name].restore(config)
        except (StackError, *STORE_ERRORS):
            if not for_shutdown:
                raise
            log.warning("fault %s could not be undone now; the next start will", name)
    return names


def _file(config: StackConfig) -> Path:
    return config.home / "faults.json"


def _write(config: StackConfig, content: dict[str, dict[str, Any]]) -> None:
    _file(config).write_text(json.dumps(content, indent=1) + "\n")
