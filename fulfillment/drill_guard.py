"""The interlock: what keeps a drill from beginning in a marked environment. Only reads.

A drill during real trouble would hide the trouble. A drill during a release would disturb the
release.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from objectmove.errors import MoveError
from objectmove.state import find_holder, read_state
from runbook_lib import errors
from runbook_lib.section import attempt
from runbook_lib.show.text import count_of

from .change.release import GATE, check_store
from .change.synthetic import count_overdue
from .clients import Clients
from .convert import DELAY_ALERT, UPLOAD_ALERT
from .sections.signals import BLIND_ALERT
from .settings import Settings

#: Alerts about labels. The alert that a drill is overdue is not among them: it must not prevent the
#: drill.
_ALERTS = (DELAY_ALERT, UPLOAD_ALERT, BLIND_ALERT)


def check_interlock(settings: Settings, clients: Clients, *, now: datetime) -> None:
    """Refuse a drill while there is a reason against it. Only reads.

    Raises
    ------
    SafetyError
        Names every reason, and the next command.
    """
    reasons = list(list_trouble(settings, clients, now=now))
    if reasons:
        text = "; ".join(reasons)
        raise errors.SafetyError(
            f"no drill now: {text}. Nothing was injected. Next: `runbook investigate`"
        )


def list_trouble(settings: Settings, clients: Clients, *, now: datetime) -> Iterator[str]:
    """Yield each trouble that a drill must not meet, in words. Only reads.

    A system that cannot be read is a trouble, too, unless the settings leave it out. If the store
    is unhealthy, nothing else is read.
    """
    try:
        check_store(clients)
    except errors.StoreNotReadyError as error:
        yield str(error)
        return
    yield from _catch_errors(_say_alerts(clients))
    yield from _catch_errors(_say_releases(settings, clients))
    yield from _catch_errors(_say_backlog(settings, clients, now))


def is_alert_pending(clients: Clients) -> bool:
    """Tell whether an alert about labels is pending; False when nobody can tell. Only reads."""
    alerts, _ = attempt(clients.prometheus.list_alerts)
    pending = {alert.name for alert in alerts or () if alert.state == "pending"}
    return not pending.isdisjoint(_ALERTS)


def _catch_errors(troubles: Iterator[str]) -> Iterator[str]:
    """Yield the troubles; if a system cannot be read, that is the last one.

    A system that the settings leave out is no trouble.
    """
    try:
        yield from troubles
    except errors.NotConfiguredError:
        return
    except (errors.ClientError, MoveError) as error:
        yield f"it cannot be seen whether all is calm ({error})"


def _say_alerts(clients: Clients) -> Iterator[str]:
    """Yield each alert about labels that is pending or fires."""
    for alert in clients.prometheus.list_alerts():
        if alert.name in _ALERTS:
            verb = "fires" if alert.state == "firing" else f"is {alert.state}"
            yield f"{alert.name} {verb}"


def _say_releases(settings: Settings, clients: Clients) -> Iterator[str]:
    """Yield who works in the bucket, and each release that is unfinished or holds the worker."""
    lock = find_holder(read_state(clients.bucket), settings.release_clock_spread_s)
    if lock is not None:
        yield f"{lock.by} on {lock.host} carries out {lock.plan}"
    for row in GATE.list_unfinished(clients):
        if row["held_by"]:
            yield f"{row['held_by']} holds the worker for {row['plan']} since {row['held_since']}"
        elif row["state"] == "not finished":
            yield f"{row['plan']} is not finished: {row['way_on']}"


def _say_backlog(settings: Settings, clients: Clients, now: datetime) -> Iterator[str]:
    """Yield how many real labels wait too long; nothing if none does."""
    count = count_overdue(settings, clients.store, now=now)
    if count:
        verb = "waits" if count == 1 else "wait"
        labels = count_of(count, "real label")
        yield f"{labels} {verb} over {settings.lag_threshold_minutes:g} min"
