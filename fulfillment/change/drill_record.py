"""Which drill under RUNBOOK_HOME is not taken back yet: its incident is still open.

A drill closes its incident once its fault is taken back. It holds a lock that ends with its
process. So an open incident without the lock means that the drill was killed, or could not take its
fault back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from runbook_lib.errors import RecordError, RunbookError
from runbook_lib.model import Json
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.record.view import JournalView
from runbook_lib.redact import Redactor

_LOCK_S = 0.2
_APPROVER = "drill:"
#: The command that takes back the fault of a killed drill.
REVERT_COMMAND = "runbook drill --revert"


class DrillError(RunbookError):
    """A drill could not be carried out, or its fault could not be taken back."""


def make_approver(incident_id: str) -> str:
    """Return the name under which the drill of an incident approves."""
    return f"{_APPROVER}d{incident_id.removeprefix('inc-').lower()}"


def get_drill_id(incident: Incident) -> str:
    """Return the id of an incident's drill; empty: it has none."""
    return incident.state.approver.removeprefix(_APPROVER)


def list_drill_orders(journal: JournalView) -> set[int]:
    """Return the orders that a drill injected."""
    injected = journal.find_mark("drill_injected")
    return set(injected.facts["orders"]) if injected else set()


@contextmanager
def lock_drills(home: Path) -> Iterator[None]:
    """Be the only drill under RUNBOOK_HOME; raises ``DrillError`` while another one runs."""
    home.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(home / ".drill.lock", timeout=_LOCK_S).acquire()
    except Timeout:
        raise DrillError("another drill is running here; wait for it to end") from None
    with held:
        yield


def find_open_drill(home: Path, *, redactor: Redactor) -> Incident | None:
    """Return the incident of a drill that is under way or was killed; None without one."""
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        with suppress(RecordError):  # what cannot be read is no drill that could be taken back
            if not incident.is_closed and get_drill_id(incident):
                return incident
    return None


def find_killed_drill(home: Path) -> dict[str, Json] | None:
    """Return a drill that no process carries out any more, as a row of 1.5. Only reads."""
    incident = find_open_drill(home, redactor=Redactor())
    if incident is None:
        return None
    with suppress(DrillError), lock_drills(home):
        return {
            "plan": get_drill_id(incident),
            "rows": 0,
            "way_on": REVERT_COMMAND,
            "held_by": "",
            "held_since": "",
        }
    return None
