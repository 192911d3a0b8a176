"""Allow chaos, faults and drills only where the setting and a marker object both say so."""

from __future__ import annotations

from runbook_lib.errors import EnvironmentForbidsError
from runbook_lib.model import parse_json

from ..clients.object_store import ObjectStore
from ..settings import Settings

MARKER_KEY = ".runbook/environment.json"


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
