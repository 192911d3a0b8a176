"""Keep the worker from moving labels during a plan, as ``WORKER_CONTROL`` says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from objectmove.errors import MoveError, MoversError
from runbook_lib import errors
from runbook_lib.moving import WatchedWorker
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.http_systems import PrometheusClient
from ..clients.services import read_service
from ..settings import Settings

#: The time between two readings of a worker that should become idle.
_APART_S = 0.2
_TRIES = 150  # together 30 s
#: With WORKER_CONTROL=metric, the worker counts as idle this long after its last move.
_QUIET_S = 60.0
_TWICE = "a pass of the worker between our check and our copy can ship a label twice"
# A stopped service, in the words of supervisor, compose and commands. EXITED is missing, because
# supervisor restarts such a service.
_STOPPED = frozenset({"STOPPED", "FATAL", "exited", "dead", "created", "stopped"})


class WorkerActivity(NamedTuple):
    """Whether the worker is paused and idle, as far as anything tells."""

    paused: bool | None  # or stopped; None while it starts or stops
    moving: bool = False  # in the middle of a pass
    last_move_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class WorkerHold:
    """Pauses and resumes the worker, and checks whether it is idle.

    ``ask``, ``do_pause`` and ``do_resume`` may raise ``ClientError``.
    """

    name: str  # the worker's, the same on every machine
    words: str  # how the worker is held, for the plan
    ask: Callable[[], WorkerActivity]
    sleep: Callable[[float], None]
    do_pause: Callable[[], object]
    do_resume: Callable[[], object]
    way_back: str  # how a person resumes the worker
    can_pause: bool = True
    #: What the last successful `check` read, since pause or resume.
    _idle: WorkerActivity | None = None

    def read(self) -> WorkerActivity:
        """Return whether the worker is paused and idle; raise ``MoversError`` if unknown."""
        try:
            return self.ask()
        except errors.ClientError as error:
            text = f"the worker's state is not known ({error})"
            raise MoversError(f"{text}. Are WORKER_CONTROL and WORKER_SERVICE right?") from error

    def is_paused(self) -> bool:
        """Tell whether the worker is paused or stopped; raise ``MoversError`` if unknown."""
        return self.read().paused is True

    def pause(self) -> None:
        """Pause the worker, or raise ``MoversError``.

        After an error it reads the worker, because the pause may have worked anyway.
        """
        self._idle = None
        _, why = attempt(self.do_pause)
        if why and not self.is_paused():
            raise MoversError(f"the worker was not paused ({why})")

    def check(self) -> None:
        """Make sure that the worker is idle; the first time, wait until its pass has ended.

        The worker is idle between two objects of a pass, too, so two readings in a row must show
        the same last move. Later checks read the worker once, and compare with the previous check.

        Raises ``MoversError`` if the worker is not paused, moved since, or moves longer than 30 s.
        """
        before = self._idle
        self._idle = None
        tries = 1 if before else _TRIES
        for _ in range(tries):
            now = self.read()
            if not now.paused:
                raise MoversError(
                    "the worker is not paused: nobody paused it, or someone resumed it"
                )
            if now == before and not now.moving:
                self._idle = now
                return
            before = now
            self.sleep(_APART_S)
        raise MoversError("the worker still moves, although it is paused. Read its log.")

    def resume(self) -> None:
        """Resume the worker; raise ``MoveError`` unless it then runs, whatever the request said."""
        self._idle = None
        _, why = attempt(self.do_resume)
        now, why_unknown = attempt(self.ask)
        if now is None or now.paused is not False:
            why = why_unknown or why or "it does not run yet"
            raise MoveError(f"the worker may still be paused ({why}). {self.way_back}")


def make_hold(
    settings: Settings, clients: Clients, *, sleep: Callable[[float], None]
) -> WorkerHold | WatchedWorker:
    """Return the hold for ``WORKER_CONTROL``. Sends nothing yet."""
    kind = settings.worker_control
    service = settings.worker_service
    if kind == "none":
        # The approved plan says that nobody holds it.
        return WatchedWorker(words=f"nobody holds the worker: {_TWICE}", name=service)
    if kind == "metric":
        return WatchedWorker(
            words="nobody holds the worker: Prometheus is asked at most 2 s before each batch "
            f"whether the worker's last move was at least {_QUIET_S:.0f} s ago. It does not see a "
            f"move since its last scrape, nor a pass that begins meanwhile: {_TWICE}",
            name=service,
            check=lambda: _check_metric(clients.prometheus, settings.worker_last_move_query),
        )
    hold = partial(WorkerHold, name=service, sleep=sleep)
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        return hold(
            words=f"each run pauses the worker through {address}, and checks it at most 2 s before "
            "each batch",
            ask=lambda: _ask_api(clients, service),
            do_pause=worker.pause_worker,
            do_resume=worker.resume_worker,
            way_back=f"Resume it: POST {address}/resume",
        )
    return hold(
        words=f"each run stops {service} (WORKER_CONTROL={kind}), and checks it at most 2 s before "
        "each batch",
        ask=lambda: _ask_service(clients, service),
        do_pause=lambda: clients.find_switch(service).change(service, "stop"),
        do_resume=lambda: clients.find_switch(service).change(service, "start"),
        way_back=f"Start {service}.",
    )


def _check_metric(prometheus: PrometheusClient, query: str) -> None:
    """Raise ``MoversError`` unless Prometheus says that the last move was at least 60 s ago."""
    name = "WORKER_LAST_MOVE_QUERY"
    result, why = attempt(lambda: prometheus.query(f"time() - (\n{query}\n)"))
    ages_s = [series.samples[-1].value for series in result or () if series.samples]
    if not ages_s or not all(math.isfinite(age_s) for age_s in ages_s):
        raise MoversError(f"Prometheus returns no number for {name}. {why}".rstrip())
    age_s = min(ages_s)
    if age_s < _QUIET_S:
        text = f"the worker moved {age_s:.0f} s ago, as {name} says, and a metric cannot stop it"
        raise MoversError(f"{text}: stop the worker, and wait {_QUIET_S:.0f} s")


def _ask_api(clients: Clients, name: str) -> WorkerActivity:
    """Ask the worker's API. If it refuses the connection, a stopped service counts as paused."""
    try:
        worker = clients.fulfillment.read_worker()
    except errors.ConnectionRefusedClientError:
        now = _ask_service(clients, name)
        if now.paused:
            return now
        raise
    return WorkerActivity(worker.paused, moving=worker.moving, last_move_at=worker.last_move_at)


def _ask_service(clients: Clients, name: str) -> WorkerActivity:
    """Read the service's state; stopped counts as paused."""
    service = read_service(clients.find_switch(name), name)
    if service.running:
        return WorkerActivity(paused=False)
    return WorkerActivity(paused=True if service.state in _STOPPED else None)
