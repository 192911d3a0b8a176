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
from .quantities import DELAY_ALERT, UPLOAD_ALERT
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

    A system that can't be read is a trouble, too, unless the settings leave it out.
    """
    try:
        return list(_find_trouble(settings, clients))
    except errors.StoreNotReadyError as error:
        return [str(error)]
    except (errors.ClientError, MoveError) as error:
        return [f"it cannot be seen whether all is calm ({error})"]


def _find_trouble(settings: Settings, clients: Clients) -> Iterator[str]:
    """Yield alerts about labels, work in the bucket, unfinished releases, and a real backlog."""
    check_store(clients)
    if settings.prometheus_url:
        for alert in clients.prometheus.list_alerts():
            if alert.name in _ALERTS:
                yield f"{alert.name} is {alert.state}"
    lock = find_holder(read_state(clients.bucket), settings.release_clock_spread_s)
    if lock is not None:
        yield f"{lock.by} on {lock.host} carries out {lock.plan}"
    for row in GATE.list_unfinished(clients):
        yield f"{row['plan']} is not finished: {row['way_on']}"
    now = utc_now()
    objects = iter_with_metadata(clients.store, settings.pending_prefix)
    labels = [read_label(info, settings, now) for info in objects]
    limit_minutes = settings.lag_threshold_minutes
    count = sum(1 for label in labels if label.origin == "real" and label.minutes > limit_minutes)
    if count:
        yield f"{count_of(count, 'overdue real label')} (over {limit_minutes:g} min)"
