"""The record of the drill that is under way: which fault to take back if the drill is killed.

The record lies in RUNBOOK_HOME from before the fault until everything is taken back. A drill
has a lock that ends with its process. So if there is a record and nobody has the lock, the drill
was killed, or it ended and could not take its fault back. Below, such a drill is called killed.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from runbook_lib.errors import RecordError
from runbook_lib.model import Json, Timestamp
from runbook_lib.record.incident import write_json

_RECORD = ".drill.json"
_LOCK = ".drill.lock"
#: The command that takes back the fault of a killed drill.
REVERT_COMMAND = "runbook drill --revert"


class DrillRecord(BaseModel, frozen=True):
    """Which drill is under way.

    Attributes
    ----------
    incident, drill, scenario : the incident's id, the drill's, and the name of its fault
    began_at : when the drill began
    """

    incident: str
    drill: str
    scenario: str
    began_at: Timestamp


def lock_drills(home: Path, *, timeout_s: float = 1) -> FileLock:
    """Return the lock that one drill at a time has. Entering the lock may raise ``Timeout``."""
    return FileLock(home / _LOCK, timeout=timeout_s)


def write_record(home: Path, record: DrillRecord) -> None:
    """Note a drill before it changes anything; undone by ``remove_record``."""
    write_json(home / _RECORD, record.model_dump(mode="json"))


def remove_record(home: Path) -> None:
    """Remove the record, once everything of the drill is taken back."""
    (home / _RECORD).unlink(missing_ok=True)


def read_record(home: Path) -> DrillRecord | None:
    """Return the record of a drill that is under way or was killed; None without one. Only reads.

    Raises
    ------
    RecordError
        When the record cannot be read.
    """
    path = home / _RECORD
    try:
        return DrillRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        advice = "`runbook stack up` takes back every fault; then remove this file"
        raise RecordError(f"{path} cannot be read ({type(error).__name__}): {advice}") from error


def find_killed_drill(home: Path) -> DrillRecord | None:
    """Return the record of a drill that was killed before it took its fault back; else None.

    Only reads.
    """
    record = read_record(home)
    if record is None:
        return None
    try:
        with lock_drills(home, timeout_s=0):
            return record
    except Timeout:
        return None


def describe_killed_drill(record: DrillRecord) -> dict[str, Json]:
    """Return a killed drill as a row of 1.5, with the command that takes it back."""
    return {
        "plan": record.drill,
        "by": f"drill:{record.drill}",
        "state": f"the drill of {record.scenario} was killed: its fault may still be there",
        "rows": 0,
        "way_on": REVERT_COMMAND,
        "held_by": "",
        "held_since": "",
    }
