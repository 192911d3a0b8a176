"""What this runbook measures, and how each quantity counts for the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum, auto

from runbook_lib.model import Measurement, Status
from runbook_lib.record.folds import Meaning


class Quantity(StrEnum):
    """What the steps measure for the verdict, beside quantities of their own."""

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


class AlertState(StrEnum):
    """State of an alert. One that never fired is ``resolved``, too."""

    FIRING = "firing"
    PENDING = "pending"
    RESOLVED = "resolved"
    UNKNOWN = "unknown"


class Uploads(StrEnum):
    """Whether labels arrive in the store."""

    SUCCEEDING = "succeeding"
    FAILING = "failing"
    NONE = "none"
    """Orders want labels, but none arrives."""
    UNASKED = "unasked"
    """No order wanted a label lately, or nothing counts the labels that arrive."""


class Backlog(StrEnum):
    """What waits, compared with the hour before the incident.

    Without Prometheus, the listing alone decides.
    """

    USUAL = "usual"
    ABOVE = "above"
    """More labels wait than usual; no label is overdue."""
    OVERDUE = "overdue"
    UNPROVEN = "unproven"
    """The comparison could not be made."""


DELAY_ALERT = "FulfillmentDelay"
UPLOAD_ALERT = "FulfillmentUploadFailing"
#: How each quantity counts. A step whose quantity is not named here shows one of its own.
MEANINGS: Mapping[str, Meaning] = {
    **dict.fromkeys(Quantity, Meaning.SYMPTOM),
    Quantity.ALERT: Meaning.ALERT,
    Quantity.LOW_LAG: Meaning.RECOVERY,
    Quantity.USUAL_BACKLOG: Meaning.RECOVERY,
}
_UPLOADS = {
    Uploads.SUCCEEDING: (Status.OK, ""),
    Uploads.UNASKED: (Status.LEFT_OUT, ""),
    Uploads.FAILING: (Status.BREACH, "uploads fail"),
    Uploads.NONE: (Status.BREACH, "no label arrives although orders want one"),
}
_BACKLOGS = {
    Backlog.USUAL: Status.OK,
    Backlog.ABOVE: Status.BREACH,
}
_ALERTS = {
    AlertState.FIRING: Status.BREACH,
    AlertState.RESOLVED: Status.OK,
}
_LOW = {True: Status.OK, False: Status.BREACH, None: Status.UNKNOWN}


def measure_lag(status: Status, *, is_over: bool | None, is_low: bool | None) -> dict[str, Status]:
    """Return the lag's own status, and whether it is low enough for a recovery.

    ``status`` is that of step 2.1, which an alert may breach although the lag is low.
    """
    is_alert_alone = status is Status.BREACH and is_over is False
    lag = Status.OK if is_alert_alone else status
    return {Quantity.LAG: lag, Quantity.LOW_LAG: _LOW[is_low]}


def measure_recovery(is_low: bool | None, backlog: Backlog) -> dict[str, Status]:
    """Return the status of lag and backlog after a reading of the recovery."""
    is_late = backlog is Backlog.OVERDUE
    statuses: dict[str, Status] = {
        Quantity.LOW_LAG: _LOW[is_low],
        Quantity.BACKLOG: Status.BREACH if is_late else Status.OK,
    }
    if is_low:
        statuses[Quantity.LAG] = Status.OK
    return statuses


def measure(
    statuses: Mapping[str, Status],
    *,
    alerts: Mapping[str, AlertState] | None = None,
    uploads: Uploads | None = None,
    backlog: Backlog | None = None,
    begun: datetime | None = None,
    well_since: datetime | None = None,
) -> tuple[Measurement, ...]:
    """Return measurements of quantities with these statuses, of alerts, uploads and backlog.

    Statuses and alerts that aren't ok have lasted since ``begun``. What is ok has lasted since
    ``well_since``. Uploads and backlog have no start until they are ok.
    """

    def make(
        quantity: str, status: Status, since: datetime | None = None, **fields: str
    ) -> Measurement:
        if status is Status.OK:
            since = well_since
        return Measurement(quantity=quantity, status=status, since=since, **fields)

    found = [make(name, status, begun) for name, status in statuses.items()]
    for name, state in (alerts or {}).items():
        status = _ALERTS.get(state, Status.UNKNOWN)
        found.append(make(Quantity.ALERT, status, begun, subject=name, text=f"{name}: {state}"))
    if uploads is not None:
        status, text = _UPLOADS[uploads]
        found.append(make(Quantity.UPLOADS, status, value=str(uploads), text=text))
    if backlog is not None:
        status = _BACKLOGS.get(backlog, Status.UNKNOWN)
        found.append(make(Quantity.USUAL_BACKLOG, status, value=str(backlog)))
    return tuple(found)
