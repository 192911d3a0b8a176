"""Real faults in real processes, by name."""

from __future__ import annotations

from typing import Protocol

from ..config import StackConfig


class Fault(Protocol):
    def off(self, config: StackConfig) -> None: ...


__all__ = ["FAULTS"]

FAULTS: dict[str, Fault] = {}
