"""Real faults in real processes, by name."""

from __future__ import annotations

from .base import Fault
from .behaviour import BEHAVIOUR_FAULTS
from .processes import PROCESS_FAULTS
from .storage import STORAGE_FAULTS

__all__ = ["FAULTS", "Fault"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in sorted(
        (*BEHAVIOUR_FAULTS, *PROCESS_FAULTS, *STORAGE_FAULTS), key=lambda fault: fault.name
    )
}
