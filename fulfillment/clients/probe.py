"""Ask the synthetic probe how its last run went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field

from runbook_lib.fields import Text, When
from runbook_lib.http import HttpClient


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step of a run, such as ``timeline_refresh``."""

    name: Annotated[str, Field(validation_alias=AliasChoices("step", "name"))]
    status: str
    message: Text = ""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """The last run; ``ran_at`` is None before the first."""

    status: str
    steps: tuple[ProbeStep, ...]
    ran_at: When = None


class ProbeClient(HttpClient):
    """Read the probe. Only reads."""

    SYSTEM = "probe"

    def read_status(self) -> ProbeStatus:
        """Return how the last run went, step by step."""
        return self.get("/status", ProbeStatus)
