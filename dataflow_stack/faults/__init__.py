"""Real faults in real processes, by name."""

from __future__ import annotations

import logging

from .. import fault_state
from ..config import StackConfig, StackError
from .base import Fault
from .behaviour import BEHAVIOUR_FAULTS
from .processes import PROCESS_FAULTS
from .storage import STORAGE_FAULTS

__all__ = ["FAULTS", "Fault", "list_on", "turn_off_all"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in sorted(
        (*BEHAVIOUR_FAULTS, *PROCESS_FAULTS, *STORAGE_FAULTS), key=lambda fault: fault.name
    )
}

log = logging.getLogger(__name__)


def list_on(config: StackConfig) -> list[str]:
    """Return the noted faults that the system still has, or that cannot be seen just now."""

    def may_be_on(name: str) -> bool:
        try:
            return FAULTS[name].is_on(config)
        except StackError:
            return True

    return sorted(filter(may_be_on, fault_state.active(config)))


def turn_off_all(config: StackConfig, *, for_shutdown: bool = False) -> list[str]:
    """Turn off every fault that is on; return their names.

    Parameters
    ----------
    for_shutdown
        The stack is about to stop: a fault that cannot be undone now stays noted, and the
        next start undoes it.
    """
    names = list(fault_state.active(config))
    for name in names:
        try:
            FAULTS[name].restore(config)
        except StackError:
            if not for_shutdown:
                raise
            log.warning("fault %s could not be undone now; the next start will", name)
    return names
