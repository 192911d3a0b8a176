"""What this runbook measures: each quantity, its part in the verdict, and what a verdict needs."""

from __future__ import annotations

from enum import StrEnum, auto

from runbook_lib.record.entries import Part, Quantities


class Quantity(StrEnum):
    """A quantity; several steps may show one."""

    # Symptoms
    LAG = auto()
    BACKLOG = auto()
    STORE = auto()
    UPLOADS = auto()
    TIMELINE = auto()
    PROBE = auto()
    PANEL = auto()
    # The alerts; the subject is the alert's name
    ALERT = auto()
    # Recovery
    LOW_LAG = auto()
    USUAL_BACKLOG = auto()
    # What causes are judged by; the value says more than the status
    CLOCK = auto()
    PROMETHEUS = auto()
    EXPORTER = auto()
    WORKER = auto()
    WORKER_PASS = auto()
    WORKER_PLACE = auto()
    WORKER_KEY = auto()
    PIPELINE = auto()
    PIPELINE_RUNS = auto()
    CARRIER = auto()
    CREDENTIALS = auto()
    PERMISSION = auto()
    ROOM = auto()
    DRAIN = auto()
    SURPLUS = auto()
    SYNTHETIC = auto()
    SUPPORT = auto()
    # What else is shown
    UNFINISHED = auto()
    IMPACT = auto()
    DELIVERY = auto()
    LOG = auto()
    OTHER = auto()


_SYMPTOMS = ["lag", "backlog", "store", "uploads", "timeline", "probe", "panel"]
_RECOVERY = ["low_lag", "usual_backlog"]
_SHOWN = ["unfinished", "impact", "delivery", "log", "other"]


def _make_parts() -> dict[str, Part]:
    parts: dict[str, Part] = dict.fromkeys(Quantity, Part.CAUSE)
    parts |= dict.fromkeys(_SYMPTOMS, Part.SYMPTOM)
    parts |= dict.fromkeys(_RECOVERY, Part.RECOVERY)
    parts |= dict.fromkeys(_SHOWN, Part.NONE)
    parts[Quantity.ALERT] = Part.ALERT
    return parts


QUANTITIES = Quantities(
    parts=_make_parts(),
    needed=frozenset({Quantity.LAG, Quantity.BACKLOG, Quantity.STORE, Quantity.ALERT}),
    remedies=frozenset({"6.1", "6.1.1", "6.1.2", "6.2"}),
)
