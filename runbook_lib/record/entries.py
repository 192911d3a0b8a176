"""What a runbook measures. ``folds`` reads measurements of quantities, and phases of actions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ..model import ActionEntry, Measurement


class Part(StrEnum):
    """What a quantity means for the verdict. A sign only shows that the trouble has begun."""

    SYMPTOM = "symptom"
    ALERT = "alert"
    RECOVERY = "recovery"
    SIGN = "sign"


class Key(NamedTuple):
    """What is measured, and of whom."""

    quantity: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Quantities:
    """The quantities that a runbook measures.

    Attributes
    ----------
    parts : the part of each quantity, by name; any other quantity decides nothing
    needed : the quantities without which no verdict says that all is well
    shown : for each step that shows a quantity, what it shows; each has the status of the step's
        reading, unless the outcome's ``measurements`` say otherwise
    remedies : the steps whose actions are meant to end the trouble; None: all
    """

    parts: Mapping[str, Part]
    needed: Collection[str]
    shown: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    remedies: Collection[str] | None = None

    def list_shown(self, steps: Iterable[str]) -> set[str]:
        """Return the quantities that some steps show."""
        names: set[str] = set()
        for step in steps:
            names.update(key.quantity for key in self.shown.get(step, ()))
        return names


Entry = Measurement | ActionEntry
