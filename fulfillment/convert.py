"""Read a journal of steps as readings of quantities, and phases of actions as changes of plans.

The one place that knows which step shows which quantity.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from runbook_lib.model import ActionEntry, ActionPhase, AlertState, Json, Reading, Role, Status
from runbook_lib.record import entries
from runbook_lib.record.entries import Change, Entry, Message
from runbook_lib.record.view import JournalView

from .outcome import Backlog, Uploads
from .quantities import Quantity

DELAY_ALERT = "FulfillmentDelay"
UPLOAD_ALERT = "FulfillmentUploadFailing"
#: The steps whose actions are the remedy: labels are moved, or a service is brought back.
_REMEDIES = ("6.1", "6.2")
#: Counts of a proof. If one is not 0, the move is not proven.
_UNPROVEN = ("unproven", "lost", "duplicated", "foreign_changed")
#: Actions that can be resumed.
_MOVES = ("release", "park", "undo", "settle")
_QUANTITIES = {
    "2.2": Quantity.PANEL,
    "2.5": Quantity.TIMELINE,
    "2.6": Quantity.PROBE,
}
_BY_ROLE = {
    Role.BACKLOG: Quantity.BACKLOG,
    Role.SYMPTOM: Quantity.STORE,
    Role.TICKET: Quantity.TIMELINE,
}
_UPLOADS = {
    Uploads.SUCCEEDING: Status.OK,
    Uploads.UNASKED: Status.LEFT_OUT,
    Uploads.FAILING: Status.BREACH,
    Uploads.NONE: Status.BREACH,
}
_UPLOAD_WORDS = {
    Uploads.FAILING: "uploads fail",
    Uploads.NONE: "no label arrives although orders want one",
}
_BACKLOGS = {
    Backlog.USUAL: Status.OK,
    Backlog.ABOVE: Status.BREACH,
}
_ALERTS = {
    AlertState.FIRING: Status.BREACH,
    AlertState.RESOLVED: Status.OK,
    AlertState.PENDING: Status.UNKNOWN,
    AlertState.UNKNOWN: Status.UNKNOWN,
}
_LOW = {True: Status.OK, False: Status.BREACH, None: Status.UNKNOWN}


def convert(journal: JournalView) -> list[Entry]:
    """Return the readings and changes of a journal, in its order."""
    converted: list[tuple[int, Entry]] = []
    for reading in journal.readings:
        converted += [(reading.seq, shown) for shown in _convert_reading(reading)]
    converted += [(action.seq, convert_action(action)) for action in journal.actions]
    return [entry for _, entry in sorted(converted, key=itemgetter(0))]


def _convert_reading(reading: Reading) -> Iterator[entries.Reading]:
    """Yield the quantities that a step's reading shows."""

    def make(
        quantity: Quantity, status: Status, value: Json = None, *, subject: str = "", text: str = ""
    ) -> entries.Reading:
        """Return what the reading says of one quantity.

        Parameters
        ----------
        text : why it has this status; empty: the reading's reason
        """
        since = None
        if status is Status.OK and quantity is not Quantity.STORE:
            since = reading.well_since
        elif status is Status.BREACH and quantity is Quantity.LAG:
            since = reading.since
        return entries.Reading(
            at=reading.observed_at,
            step=reading.step,
            quantity=quantity,
            subject=subject,
            status=status,
            value=value,
            since=since,
            message=Message(id="quote", values={"text": text or reading.reason}),
            source=reading.source,
        )

    observed = reading.observations
    if reading.role is Role.ALERT:
        yield make(Quantity.LAG, _judge_lag(reading), reading.value)
        if reading.well_since:
            yield make(Quantity.BACKLOG, Status.OK)
        if not reading.alerts:
            status = reading.status
            is_known = status in (Status.UNKNOWN, Status.LEFT_OUT)
            yield make(Quantity.ALERT, status if is_known else Status.OK, subject=DELAY_ALERT)
    elif reading.role in _BY_ROLE:
        quantity = _QUANTITIES.get(reading.step, _BY_ROLE[reading.role])
        yield make(quantity, reading.status, reading.value)
    for name, state in reading.alerts.items():
        text = f"{name}: {state}"
        yield make(Quantity.ALERT, _ALERTS[state], str(state), subject=name, text=text)
    if "uploads" in observed:
        uploads = Uploads(observed["uploads"])
        yield make(
            Quantity.UPLOADS, _UPLOADS[uploads], str(uploads), text=_UPLOAD_WORDS.get(uploads, "")
        )
    is_recovery = reading.role is Role.RECOVERY
    if "lag_is_low" in observed:
        is_low = observed["lag_is_low"]
        yield make(Quantity.LOW_LAG, _LOW[is_low])
        if is_recovery and is_low:
            yield make(Quantity.LAG, Status.OK)
    if observed.get("waiting") is not None:
        waiting = Backlog(observed["waiting"])
        yield make(Quantity.USUAL_BACKLOG, _BACKLOGS.get(waiting, Status.UNKNOWN), str(waiting))
        if is_recovery:
            is_late = waiting is Backlog.OVERDUE
            yield make(Quantity.BACKLOG, Status.BREACH if is_late else Status.OK)


def _judge_lag(reading: Reading) -> Status:
    """Return the lag's own status: an alert that fires at a low lag is no late label."""
    is_low = reading.observations.get("lag_is_over") is False
    if reading.status is Status.BREACH and is_low:
        return Status.OK
    return reading.status


def convert_action(action: ActionEntry) -> Change:
    """Return a phase of a plan."""
    result = action.result
    plan = str(result.get("plan") or action.source or action.step)
    counts = {}
    for name, count in result.items():
        if isinstance(count, list):
            counts[name] = len(count)
        elif isinstance(count, int):
            counts[name] = int(count)
    phase = action.phase
    if action.phase is ActionPhase.FAILED and "lost" not in counts and action.action in _MOVES:
        phase = ActionPhase.INTERRUPTED  # the failure is of the move itself, not of a proof
    elif phase is ActionPhase.FAILED and not any(counts.get(name) for name in _UNPROVEN):
        # A proof may fail although every label is accounted for: others took some first.
        phase = ActionPhase.VERIFIED if "lost" in counts else phase
    return Change(
        at=action.at,
        step=action.step,
        plan=plan,
        about=action.about,
        verb=action.action,
        target=action.target,
        phase=phase,
        is_remedy=action.step.startswith(_REMEDIES) and action.action != "none",
        by=action.operator,
        counts=counts,
        message=Message(id="quote", values={"text": action.reason}),
    )
