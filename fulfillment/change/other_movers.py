"""Who else moves labels: how ``WORKER_CONTROL`` holds the worker while a plan is carried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from objectmove.errors import MoveError, MoversError
from runbook_lib import errors
from runbook_lib.record.journal import utc_now
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


Sleep = Callable[[float], None]


class _Stillness(NamedTuple):
    """How still the worker stands.

    Attributes
    ----------
    paused : paused or stopped
    fully_running : runs again, and is not still starting
    moving : in the middle of a pass, as far as the worker tells
    last_move_at : when it last moved a label; None when no system tells
    """

    paused: bool
    fully_running: bool
    moving: bool = False
    last_move_at: datetime | None = None


#: Stands for a worker that nobody asks or holds. The approved plan says that nobody holds it.
_NOT_ASKED = _Stillness(paused=True, fully_running=True)


@dataclass(slots=True)
class WorkerHold:
    """Pauses and resumes the worker, and looks whether it stands still.

    Attributes
    ----------
    name : of the worker, the same on every machine
    words : how the worker is held, for the plan
    ask : reads how still the worker stands; raises ``MoversError``, or ``ClientError`` without an
        answer
    do_pause, do_resume : pause and resume the worker; raise ``ClientError``; do nothing where
        nobody holds the worker
    holds : whether ``pause`` keeps the worker still; False: nobody holds the worker, and ``check``
        only looks (with ``WORKER_CONTROL=none`` not even that)
    way_back : how a person resumes the worker
    question : what ``ask`` reads, in words, for the message when it fails
    now : the clock
    changes : when the worker was paused and resumed, in words
    _still : what the last ``check`` saw; None: since pause or resume, no ``check`` succeeded
    """

    name: str
    words: str
    ask: Callable[[], _Stillness]
    sleep: Sleep
    do_pause: Callable[[], object] = lambda: None
    do_resume: Callable[[], object] = lambda: None
    way_back: str = ""
    question: str = "the worker moves"
    holds: bool = True
    now: Callable[[], datetime] = utc_now
    changes: list[str] = field(default_factory=list)
    _still: _Stillness | None = None

    def read(self) -> _Stillness:
        """Return how still the worker stands; ``MoversError`` when that cannot be known."""
        try:
            return self.ask()
        except errors.ClientError as error:
            text = f"whether {self.question} is not known ({error})"
            raise MoversError(f"{text}. Are WORKER_CONTROL and WORKER_SERVICE right?") from error

    def is_paused(self) -> bool:
        """Tell whether the worker is paused or stopped; ``MoversError`` when nobody can know."""
        return self.read().paused

    def pause(self) -> None:
        """Pause the worker; ``MoversError`` when that fails.

        If the request ends with an error, a look decides: the pause may have worked all the same.
        """
        self._still = None
        _, why = attempt(self.do_pause)
        if why and not self.is_paused():
            raise MoversError(f"the worker was not paused ({why})")
        self.changes.append(f"worker paused {self.now():%H:%M:%SZ}")

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
        """Resume the worker; ``MoveError`` unless a look shows that it is fully running again.

        The look decides, whether the request ended with an error or not.
        """
        self._still = None
        _, reason = attempt(self.do_resume)
        try:
            if self.read().fully_running:
                self.changes.append(f"resumed {self.now():%H:%M:%SZ}")
                return
        except MoversError as error:
            reason = str(error)
        reason = reason or "it is not fully running yet"
        raise MoveError(f"the worker may still be paused ({reason}). {self.way_back}")


def describe_hold(hold: WorkerHold) -> str:
    """Say how the worker is held, and what it does now. Only reads."""
    try:
        still = hold.read()
    except MoversError as error:
        return f"{hold.words}; as it is now, `apply` will be refused: {error}"
    if still is _NOT_ASKED:
        return hold.words
    if not still.paused:
        state = "it is not paused now, and may move what it can until the first run begins"
    elif still.moving:
        state = "it is paused now, and its last pass still runs"
    else:
        state = "it stands still now"
    return f"{hold.words}; {state}"


def make_hold(settings: Settings, clients: Clients, *, sleep: Sleep) -> WorkerHold:
    """Return the hold that ``WORKER_CONTROL`` names. Sends nothing yet.

    Raises
    ------
    SettingsError
        When ``RUNBOOK_SERVICES`` does not fit ``WORKER_CONTROL``.
    """
    kind = settings.worker_control
    service = settings.worker_service
    if kind == "none":
        return WorkerHold(
            name=service,
            words=f"nobody holds the worker: {_TWICE}",
            ask=lambda: _NOT_ASKED,
            sleep=sleep,
            holds=False,
            _still=_NOT_ASKED,  # so ``check`` looks only once
        )
    if kind == "metric":
        words = (
            f"nobody holds the worker: Prometheus is asked before each batch whether the worker's "
            f"last move was at least {_QUIET_S:.0f} s ago. Prometheus does not see a move since "
            f"its last scrape, nor a pass that begins meanwhile: {_TWICE}"
        )
        query = settings.worker_last_move_query
        return WorkerHold(
            name=service,
            words=words,
            ask=lambda: _read_metric(clients.prometheus, query),
            sleep=sleep,
            holds=False,
        )
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        words = f"each run pauses the worker through {address}, and looks at it before each batch"
        return WorkerHold(
            name=service,
            words=words,
            ask=lambda: _read_worker(clients, service),
            sleep=sleep,
            do_pause=worker.pause_worker,
            do_resume=worker.resume_worker,
            way_back=f"Resume it: POST {address}/resume",
        )
    if kind not in ("command", settings.runbook_services):
        raise errors.SettingsError(f"WORKER_CONTROL={kind} needs RUNBOOK_SERVICES={kind}")
    stopper = "WORKER_STOP_CMD" if kind == "command" else kind
    return WorkerHold(
        name=service,
        words=f"each run stops {service} by {stopper}, and looks at it before each batch",
        ask=lambda: _read_service(clients, service),
        sleep=sleep,
        do_pause=lambda: clients.find_switch(service).stop(service),
        do_resume=lambda: clients.find_switch(service).start(service),
        way_back=f"Start {service}.",
        question=f"{service} runs",
    )


def _read_metric(prometheus: PrometheusClient, query: str) -> _Stillness:
    """Ask Prometheus how long ago the worker's last move was, by Prometheus' clock.

    Raises ``MoversError`` if that was under 60 s ago, or if Prometheus returns no number.
    """
    name = "WORKER_LAST_MOVE_QUERY"
    result = prometheus.query(f"time() - (\n{query}\n)")
    ages_s = [series.samples[-1].value for series in result if series.samples]
    if not ages_s or not all(math.isfinite(age_s) for age_s in ages_s):
        text = (
            f"Prometheus returns no number for {name}, so it is not known whether the worker moves"
        )
        raise MoversError(text)
    age_s = min(ages_s)
    if age_s < _QUIET_S:
        text = f"the worker moved {age_s:.0f} s ago, as {name} says, and a metric cannot stop it"
        raise MoversError(f"{text}: stop the worker, and wait {_QUIET_S:.0f} s")
    # Nobody can pause or resume the worker here. So a quiet worker counts as paused for ``check``,
    # and as fully running for ``resume``.
    return _Stillness(paused=True, fully_running=True)


def _read_worker(clients: Clients, service: str) -> _Stillness:
    """Ask the worker's API. If the connection is refused, a stopped service counts as paused."""
    try:
        worker = clients.fulfillment.read_worker()
    except errors.ConnectionRefusedClientError:
        now = _read_service(clients, service)
        if now.paused:
            return now
        raise
    return _Stillness(
        paused=worker.paused,
        fully_running=not worker.paused,
        moving=worker.moving,
        last_move_at=worker.last_move_at,
    )


def _read_service(clients: Clients, name: str) -> _Stillness:
    """Read the service's state from what stops and starts it. Stopped counts as paused."""
    service = read_service(clients.find_switch(name), name)
    return _Stillness(paused=service.state in _STOPPED, fully_running=service.running)
