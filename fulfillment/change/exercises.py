"""Where exercises may run, and the drill under RUNBOOK_HOME whose fault is not reverted yet.

A drill closes its incident once its fault is reverted, and holds a lock while its process runs. So
if the incident is open without the lock, the drill was killed, or couldn't revert its fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from runbook_lib.errors import EnvironmentForbidsError, RecordError, RunbookError
from runbook_lib.model import Json, parse_json
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.record.view import JournalView
from runbook_lib.redact import Redactor

from ..clients.object_store import ObjectStore
from ..settings import Settings

MARKER_KEY = ".runbook/environment.json"
_LOCK_S = 0.2
_APPROVER = "drill:"
REVERT_COMMAND = "runbook drill --revert"


class DrillError(RunbookError):
    """A drill could not be carried out, or its fault could not be reverted."""


def make_approver(incident_id: str) -> str:
    return f"{_APPROVER}d{incident_id.removeprefix('inc-').lower()}"


def get_drill_id(incident: Incident) -> str:
    """Return the id of an incident's drill, or ""."""
    return incident.state.approver.removeprefix(_APPROVER)


def list_drill_orders(journal: JournalView) -> set[int]:
    injected = journal.find_mark("drill_injected")
    return set(injected.facts["orders"]) if injected else set()


@contextmanager
def lock_drills(home: Path) -> Iterator[None]:
    """Be the only drill under RUNBOOK_HOME; raise ``DrillError`` if another one runs."""
    home.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(home / ".drill.lock", timeout=_LOCK_S).acquire()
    except Timeout:
        raise DrillError("another drill is running here; wait for it to end") from None
    with held:
        yield


def find_open_drill(home: Path, *, redactor: Redactor) -> Incident | None:
    """Return the incident of a drill that runs or was killed, if any."""
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        with suppress(RecordError):  # a drill that cannot be read cannot be reverted
            if not incident.is_closed and get_drill_id(incident):
                return incident
    return None


def find_killed_drill(home: Path) -> dict[str, Json] | None:
    """Return a killed drill as a row of 1.5, if there is one."""
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


def read_marker(store: ObjectStore) -> str:
    """Return the environment in the bucket's marker object, or ``unreadable``, or "" without one.

    Raises a ``ClientError`` if the store cannot be read.
    """
    content = store.read(MARKER_KEY)
    if content is None:
        return ""
    try:
        return str(parse_json(content)["environment"])
    except (ValueError, LookupError, TypeError):
        return "unreadable"


def check_environment(settings: Settings) -> None:
    """Raise EnvironmentForbidsError unless RUNBOOK_ENVIRONMENT is local or demo."""
    if not settings.is_playground:
        environment = settings.runbook_environment
        rule = "chaos, faults and drills run only in 'local' or 'demo'. Nothing was changed."
        raise EnvironmentForbidsError(f"RUNBOOK_ENVIRONMENT is {environment!r}: {rule}")


def check_playground(settings: Settings, store: ObjectStore) -> None:
    """Raise EnvironmentForbidsError unless setting and marker both say local, or both demo."""
    check_environment(settings)
    environment = settings.runbook_environment
    marker = read_marker(store)
    if marker == environment:
        return
    state = f"says {marker!r}" if marker else "is missing"
    raise EnvironmentForbidsError(
        f"the marker object {MARKER_KEY} of bucket {store.bucket} {state}, not {environment!r}"
        ": this may not be the store you think. Nothing was changed."
    )
