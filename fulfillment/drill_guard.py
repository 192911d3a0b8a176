"""What keeps a drill from beginning in a marked environment. Only reads.

A drill during real trouble would hide the trouble. A drill during a release would disturb the
release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from objectmove.errors import MoveError
from objectmove.state import find_holder, read_state
from runbook_lib import errors
from runbook_lib.record.journal import utc_now
from runbook_lib.show.text import count_of

from .change.release import GATE, check_store
from .clients import Clients
from .convert import DELAY_ALERT, UPLOAD_ALERT
from .sections.signals import BLIND_ALERT
from .settings import Settings
from .waiting import iter_with_metadata, read_label

#: Alerts about labels. The alert that a drill is overdue must not prevent the drill.
_ALERTS = (DELAY_ALERT, UPLOAD_ALERT, BLIND_ALERT)


def wait_for(check: Callable[[], bool], *, timeout_s: float, apart_s: float = 0.5) -> bool:
    """Call ``check`` every ``apart_s`` seconds until it is true or time is up; return the last.

    An error of a client counts as "not yet", but in the last try it is raised.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(errors.ClientError):
            if check():
                return True
        time.sleep(apart_s)
    return check()


def wait_until_calm(settings: Settings, clients: Clients, *, timeout_s: float) -> list[str]:
    """Wait until there is no trouble; return what is left when time is up. Only reads."""

    def is_calm() -> bool:
        return not list_trouble(settings, clients)

    wait_for(is_calm, timeout_s=timeout_s, apart_s=2)
    return list_trouble(settings, clients)


def list_trouble(settings: Settings, clients: Clients) -> list[str]:
    """Return each trouble that a drill must not meet, in words. Only reads.

    A system that can't be read is a trouble, too, unless the settings leave it out. If the store is
    unhealthy, nothing else is read.
    """
    try:
        check_store(clients)
    except errors.StoreNotReadyError as error:
        return [str(error)]
    troubles: list[str] = []
    for find in (_find_alerts, _find_releases, _find_backlog):
        try:
            troubles += find(settings, clients)
        except errors.NotConfiguredError:
            continue
        except (errors.ClientError, MoveError) as error:
            troubles.append(f"it cannot be seen whether all is calm ({error})")
    return troubles


def _find_alerts(_: Settings, clients: Clients) -> Iterator[str]:
    """Yield each alert about labels that is pending or fires."""
    for alert in clients.prometheus.list_alerts():
        if alert.name in _ALERTS:
            yield f"{alert.name} is {alert.state}"


def _find_releases(settings: Settings, clients: Clients) -> Iterator[str]:
    """Yield who works in the bucket, and each release that somebody must finish."""
    lock = find_holder(read_state(clients.bucket), settings.release_clock_spread_s)
    if lock is not None:
        yield f"{lock.by} on {lock.host} carries out {lock.plan}"
    for row in GATE.list_unfinished(clients):
        yield f"{row['plan']} is not finished: {row['way_on']}"


def _find_backlog(settings: Settings, clients: Clients) -> Iterator[str]:
    """Yield how many real labels wait too long, if any does."""
    count = 0
    now = utc_now()
    for info in iter_with_metadata(clients.store, settings.pending_prefix):
        label = read_label(info, settings, now)
        if label.origin == "real" and label.minutes > settings.lag_threshold_minutes:
            count += 1
    if count:
        labels = count_of(count, "overdue real label")
        yield f"{labels} (over {settings.lag_threshold_minutes:g} min)"
