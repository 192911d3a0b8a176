"""Where chaos, faults and drills may run: the setting and a marker object both say so."""

from __future__ import annotations

from runbook_lib.errors import EnvironmentForbidsError
from runbook_lib.model import parse_json

from ..clients.object_store import ObjectStore
from ..settings import Settings

MARKER_KEY = ".runbook/environment.json"


def read_marker(store: ObjectStore) -> str:
    """Return the environment that the bucket's marker object names.

    Empty when there is no marker; ``unreadable`` when it is not the JSON that ``init`` writes.

    Raises
    ------
    ClientError
        When the store cannot be read.
    """
    content = store.read(MARKER_KEY)
    if content is None:
        return ""
    try:
        return str(parse_json(content)["environment"])
    except (ValueError, LookupError, TypeError):
        return "unreadable"


def check_environment(settings: Settings) -> None:
    """Refuse unless RUNBOOK_ENVIRONMENT is local or demo. Asks no system.

    Raises
    ------
    EnvironmentForbidsError
        When RUNBOOK_ENVIRONMENT is another one, or unset.
    """
    if not settings.is_playground:
        environment = settings.runbook_environment
        rule = "chaos, faults and drills run only in 'local' or 'demo'. Nothing was changed."
        raise EnvironmentForbidsError(f"RUNBOOK_ENVIRONMENT is {environment!r}: {rule}")


def check_playground(settings: Settings, store: ObjectStore) -> None:
    """Refuse unless the environment and the bucket's marker both say local or demo.

    Raises
    ------
    EnvironmentForbidsError
        When the setting or the marker says something else, or when the two differ.
    """
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
