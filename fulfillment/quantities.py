"""What this runbook measures, and how each quantity counts for the verdict."""

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


DELAY_ALERT = "FulfillmentDelay"
UPLOAD_ALERT = "FulfillmentUploadFailing"
#: How each quantity counts. A step whose quantity is not named here shows one of its own.
MEANINGS: Mapping[str, Meaning] = {
    **dict.fromkeys(Quantity, Meaning.SYMPTOM),
    Quantity.ALERT: Meaning.ALERT,
    Quantity.LOW_LAG: Meaning.RECOVERY,
    Quantity.USUAL_BACKLOG: Meaning.RECOVERY,
}


def measure(
    statuses: Mapping[Quantity, Status],
    *others: Measurement,
    begun: datetime | None = None,
    well_since: datetime | None = None,
) -> tuple[Measurement, ...]:
    """Return measurements of quantities with these statuses, and others, each with its start.

    What is ok has lasted since ``well_since``, anything else since ``begun``.
    """
    own = [Measurement(quantity=quantity, status=status) for quantity, status in statuses.items()]
    return tuple(
        each.model_copy(update={"since": well_since if each.status is Status.OK else begun})
        for each in (*own, *others)
    )
