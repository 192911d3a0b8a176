"""Which faults are on: kept in the stack's folder, so that any later command can undo them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runbook_lib.record.incident import write_file

from .config import StackConfig, read_kept

__all__ = ["active", "forget", "remember"]


def active(config: StackConfig) -> dict[str, dict[str, Any]]:
    """Return, for each fault that is on, what was noted for its undoing."""
    return read_kept(_file(config), dict[str, dict[str, Any]], {})


def remember(config: StackConfig, name: str, note: dict[str, Any]) -> None:
    """Note a fault before it is made, so that a crash in between can be undone too."""
    _write(config, active(config) | {name: note})


def forget(config: StackConfig, name: str) -> None:
    """Note that a fault is off."""
    _write(config, {key: note for key, note in active(config).items() if key != name})


def _file(config: StackConfig) -> Path:
    return config.home / "faults.json"


def _write(config: StackConfig, content: dict[str, dict[str, Any]]) -> None:
    write_file(_file(config), json.dumps(content, indent=1) + "\n")
