"""Ask the synthetic probe how its last run went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .fields import as_list, parse_when
from .http import HttpSystem

__all__ = ["ProbeClient", "ProbeStatus", "ProbeStep"]


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step of a run, such as ``timeline_refresh``."""

    name: str
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """The last run; ``ran_at`` is None before the first."""

    status: str
    ran_at: datetime | None
    steps: tuple[ProbeStep, ...]
    latency_ms: float | None
    errors: tuple[str, ...]


class ProbeClient(HttpSystem):
    """Read the probe. Only reads.

    Parameters
    ----------
    url : the probe's address; empty where there is none
    timeout_s : limit for each question
    """

    SYSTEM = "probe"

    def read_status(self) -> ProbeStatus:
        """Return how the last run went, step by step."""
        path = "/status"
        answer = self.http.get_json(path)
        with self.http.parsing(path):
            latency = answer.get("latency_ms")
            return ProbeStatus(
                status=str(answer["status"]),
                ran_at=parse_when(answer.get("ran_at")),
                steps=tuple(
                    ProbeStep(
                        str(step.get("step") or step["name"]),
                        str(step["status"]),
                        str(step.get("message") or ""),
                    )
                    for step in as_list(answer["steps"])
                ),
                latency_ms=float(latency) if latency is not None else None,
                errors=tuple(map(str, answer.get("errors") or ())),
            )
