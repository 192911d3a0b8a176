"""Which drill is under way in RUNBOOK_HOME, so that a killed drill's fault can be taken back.

The file is there from before the fault until everything is taken back. A drill holds a lock that
ends with its process: a file without a lock means that the drill was killed, or could not take its
fault back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from runbook_lib.errors import RecordError, RunbookError
from runbook_lib.model import Json
from runbook_lib.record.incident import write_json

_RECORD = ".drill.json"
_LOCK_S = 0.2
#: The command that takes back the fault of a killed drill.
REVERT_COMMAND = "runbook drill --revert"


class DrillError(RunbookError):
    """A drill could not be carried out, or its fault could not be taken back."""


class DrillRecord(BaseModel, frozen=True):
    """The ids of the incident and of the drill, and the name of the fault."""

    incident: str
    drill: str
    scenario: str


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
    """Return the record of a drill that no process carries out any more. Only reads."""
    record = read_record(home)
    if record is not None:
        with suppress(DrillError), lock_drills(home):
            return record
    return None


def describe_killed_drill(record: DrillRecord) -> dict[str, Json]:
    """Return a killed drill as a row of 1.5, with the command that takes it back."""
    return {
        "plan": record.drill,
        "rows": 0,
        "way_on": REVERT_COMMAND,
        "held_by": "",
        "held_since": "",
    }
