"""Who else moves labels: how ``WORKER_CONTROL`` holds the worker while a plan is carried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from objectmove.errors import MoveError, MoversError
from runbook_lib import errors
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.http_systems import PrometheusClient
from ..clients.services import read_service
from ..settings import Settings

#: The time between two looks at a worker that is to stand still.
_APART_S = 0.2
_TRIES = 150  # together 30 s
#: With WORKER_CONTROL=metric, the worker counts as standing still if its last move is so long ago.
_QUIET_S = 60.0
_TWICE = "a pass of the worker between our look and our copy can ship a label twice"
# What supervisor, compose and commands call a stopped service. EXITED is not here, since supervisor
# restarts such a service.
_STOPPED = frozenset({"STOPPED", "FATAL", "exited", "dead", "created", "stopped"})


class Stillness(NamedTuple):
    """How still the worker stands.

    Attributes
    ----------
    paused : paused or stopped; False: it runs; None: it is still starting or stopping
    moving : in the middle of a pass, as far as the worker tells
    last_move_at : when it last moved a label; None when no system tells
    """

    paused: bool | None
    moving: bool = False
    last_move_at: datetime | None = None


def _do_nothing() -> None:
    pass


@dataclass(slots=True, kw_only=True)
class WorkerHold:
    """Pauses and resumes the worker, and looks whether it stands still.

    Attributes
    ----------
    name : of the worker, the same on every machine
    words, way_back : how the worker is held, for the plan, and how a person resumes it
    ask : reads how still the worker stands; raises ``MoversError``, or ``ClientError`` without an
        answer
    do_pause, do_resume : pause and resume the worker; raise ``ClientError``
    can_pause : whether ``pause`` keeps the worker idle; if not, ``check`` only watches it
    _still : what the last ``check`` saw; None: since pause or resume, no ``check`` succeeded
    """

    name: str
    words: str
    ask: Callable[[], Stillness]
    sleep: Callable[[float], None]
    do_pause: Callable[[], object] = _do_nothing
    do_resume: Callable[[], object] = _do_nothing
    way_back: str = ""
    can_pause: bool = True
    _still: Stillness | None = None

    def read(self) -> Stillness:
        """Return how still the worker stands; ``MoversError`` when that cannot be known."""
        try:
            return self.ask()
        except errors.ClientError as error:
            text = f"the worker's state is not known ({error})"
            raise MoversError(f"{text}. Are WORKER_CONTROL and WORKER_SERVICE right?") from error

    def is_paused(self) -> bool:
        """Tell whether the worker is paused or stopped; ``MoversError`` when nobody can know."""
        return self.read().paused is True

    def pause(self) -> None:
        """Pause the worker; ``MoversError`` when that fails.

        If the request ends with an error, a look decides: the pause may have worked all the same.
        """
        self._still = None
        _, why = attempt(self.do_pause)
        if why and not self.is_paused():
            raise MoversError(f"the worker was not paused ({why})")

    def check(self) -> None:
        """Make sure that the worker stands still; the first time, wait until its pass has ended.

        Between two objects of a pass the worker is idle for a moment. So two looks in a row must
        agree on the last move. Later checks look once, and compare with the check before.

        Raises
        ------
        MoversError
            When the worker is not paused, moved since the last check, or does not stop within 30 s.
        """
        before = self._still
        self._still = None
        tries = 1 if before else _TRIES
        for _ in range(tries):
            now = self.read()
            if not now.paused:
                raise MoversError(
                    "the worker is not paused: nobody paused it, or someone resumed it"
                )
            if now == before and not now.moving:
                self._still = now
                return
            before = now
            self.sleep(_APART_S)
        raise MoversError("the worker still moves, although it is paused. Look at its log.")

    def resume(self) -> None:
        """Resume the worker; ``MoveError`` unless a look shows that it runs again.

        The look decides, whether the request ended with an error or not.
        """
        if not self.can_pause:
            return
        self._still = None
        _, why = attempt(self.do_resume)
        now, why_unknown = attempt(self.ask)
        if now is None or now.paused is not False:
            why = why_unknown or why or "it does not run yet"
            raise MoveError(f"the worker may still be paused ({why}). {self.way_back}")


def make_hold(
    settings: Settings, clients: Clients, *, sleep: Callable[[float], None]
) -> WorkerHold:
    """Return the hold that ``WORKER_CONTROL`` names. Sends nothing yet."""
    kind = settings.worker_control
    service = settings.worker_service
    hold = partial(WorkerHold, name=service, sleep=sleep)
    if kind == "none":
        return hold(
            words=f"nobody holds the worker: {_TWICE}",
            ask=lambda: Stillness(paused=True),  # the approved plan says that nobody holds it
            can_pause=False,
        )
    if kind == "metric":
        return hold(
            words=f"nobody holds the worker: Prometheus is asked before each batch whether the "
            f"worker's last move was at least {_QUIET_S:.0f} s ago. It does not see a move since "
            f"its last scrape, nor a pass that begins meanwhile: {_TWICE}",
            ask=lambda: _ask_metric(clients.prometheus, settings.worker_last_move_query),
            can_pause=False,
        )
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        return hold(
            words=f"each run pauses the worker through {address}, and looks before each batch",
            ask=lambda: _ask_api(clients, service),
            do_pause=worker.pause_worker,
            do_resume=worker.resume_worker,
            way_back=f"Resume it: POST {address}/resume",
        )
    return hold(
        words=f"each run stops {service} (WORKER_CONTROL={kind}), and looks before each batch",
        ask=lambda: _ask_service(clients, service),
        do_pause=lambda: clients.find_switch(service).change(service, "stop"),
        do_resume=lambda: clients.find_switch(service).change(service, "start"),
        way_back=f"Start {service}.",
    )


def _ask_metric(prometheus: PrometheusClient, query: str) -> Stillness:
    """Ask Prometheus how long ago the worker's last move was, by Prometheus' clock.

    Raises ``MoversError`` if that was under 60 s ago, or if Prometheus returns no number.
    """
    name = "WORKER_LAST_MOVE_QUERY"
    result = prometheus.query(f"time() - (\n{query}\n)")
    ages_s = [series.samples[-1].value for series in result if series.samples]
    if not ages_s or not all(math.isfinite(age_s) for age_s in ages_s):
        raise MoversError(f"Prometheus returns no number for {name}")
    age_s = min(ages_s)
    if age_s < _QUIET_S:
        text = f"the worker moved {age_s:.0f} s ago, as {name} says, and a metric cannot stop it"
        raise MoversError(f"{text}: stop the worker, and wait {_QUIET_S:.0f} s")
    return Stillness(paused=True)


def _ask_api(clients: Clients, name: str) -> Stillness:
    """Ask the worker's API. If the connection is refused, a stopped service counts as paused."""
    try:
        worker = clients.fulfillment.read_worker()
    except errors.ConnectionRefusedClientError:
        now = _ask_service(clients, name)
        if now.paused:
            return now
        raise
    return Stillness(worker.paused, moving=worker.moving, last_move_at=worker.last_move_at)


def _ask_service(clients: Clients, name: str) -> Stillness:
    """Read the service's state from what stops and starts it. Stopped counts as paused."""
    service = read_service(clients.find_switch(name), name)
    if service.running:
        return Stillness(paused=False)
    return Stillness(paused=True if service.state in _STOPPED else None)
