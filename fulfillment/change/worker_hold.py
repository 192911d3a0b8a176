"""Keep the worker still while a plan is carried out, as ``WORKER_CONTROL`` says how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from objectmove.errors import MoveError, MoversError
from objectmove.move import Hold
from runbook_lib.errors import (
    ClientError,
    ConnectionRefusedClientError,
    NotFoundError,
    SettingsError,
)

from ..clients import Clients
from ..settings import Settings

_APART_S = 0.2
_TRIES = 150  # 30 s
# Of supervisor and of compose. EXITED is none of them: supervisor starts it again at once.
_STOPPED = frozenset({"STOPPED", "FATAL", "exited", "dead", "created"})


@dataclass(frozen=True, slots=True)
class _Stillness:
    """``paused``: or stopped; ``back``: works again, which one that just starts does not yet."""

    paused: bool
    back: bool
    moving: bool = False
    last_move_at: datetime | None = None


@dataclass(slots=True)
class WorkerHold:
    """Pauses and resumes the worker, and looks whether it stands still.

    Attributes
    ----------
    words : how it is held, for the plan
    read : how still it stands; raises ``MoversError``
    do_pause, do_resume : raise a ``ClientError``
    way_back : how a person resumes it
    """

    words: str
    read: Callable[[], _Stillness]
    do_pause: Callable[[], object]
    do_resume: Callable[[], object]
    way_back: str
    sleep: Callable[[float], None]
    _still: _Stillness | None = None

    def is_paused(self) -> bool:
        """Tell whether it is paused or stopped; ``MoversError`` when that cannot be known."""
        return self.read().paused

    def pause(self) -> None:
        """Pause it; ``MoversError`` when it is not. A look makes up for a lost answer."""
        self._still = None
        try:
            self.do_pause()
        except ClientError as error:
            if not self.is_paused():
                raise MoversError(f"the worker was not paused ({error})") from error

    def check(self) -> None:
        """Make sure that it stands still; the first time, wait until its pass has ended.

        Between two objects of a pass it is not moving for a moment: what counts are two looks
        that know of the same last move.

        Raises
        ------
        MoversError
            When it is not paused, moved since the last check, or does not stop within 30 s.
        """
        still, self._still = self._still, None
        before = still or self._read_paused()
        for _ in range(1 if still else _TRIES):
            if not still:
                self.sleep(_APART_S)
            now = self._read_paused()
            is_new = before.last_move_at != now.last_move_at
            if not (before.moving or now.moving or is_new):
                self._still = now
                return
            before = now
        raise MoversError("the worker still moves, although it is paused. Look at its log.")

    def resume(self) -> None:
        """Resume it; ``MoveError`` when it is not certain that it is."""
        self._still, why = None, ""
        try:
            self.do_resume()
        except ClientError as error:
            why = f" ({error})"
        try:
            if self.read().back:
                return
        except MoversError as error:
            why = f" ({error})"
        raise MoveError(f"the worker may still be paused{why}. {self.way_back}")

    def _read_paused(self) -> _Stillness:
        now = self.read()
        if not now.paused:
            raise MoversError("the worker is not paused: it was never, or someone resumed it")
        return now


@dataclass(slots=True)
class NoHold:
    """Holds nobody, and says so: its words stand in the approved plan."""

    words: str = (
        "nobody holds the worker: a pass of it between our look and our copy can ship a label twice"
    )

    def is_paused(self) -> bool:
        """Return True: there is nothing of ours to pause, nor to resume."""
        return True

    def pause(self) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Find nothing wrong."""

    def resume(self) -> None:
        """Do nothing."""


def make_hold(settings: Settings, clients: Clients, *, sleep: Callable[[float], None]) -> Hold:
    """Return what keeps the worker still, by ``WORKER_CONTROL``; asks nothing yet.

    Raises
    ------
    SettingsError
        When there is no such way yet, or ``RUNBOOK_SERVICES`` does not fit it.
    """
    kind, service = settings.worker_control, settings.worker_service
    if kind == "none":
        return NoHold()
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        return WorkerHold(
            f"the worker is paused through {address}, and looked at before each batch",
            read=lambda: _read_worker(clients, service),
            do_pause=worker.pause_worker,
            do_resume=worker.resume_worker,
            way_back=f"Resume it: POST {address}/resume",
            sleep=sleep,
        )
    if kind != "supervisor":
        raise SettingsError(
            f"WORKER_CONTROL={kind} comes with a later release; there are api, supervisor and none"
        )
    if settings.runbook_services != "supervisor":
        raise SettingsError("WORKER_CONTROL=supervisor needs RUNBOOK_SERVICES=supervisor")
    return WorkerHold(
        f"{service} is stopped by supervisor, and looked at before each batch",
        read=lambda: _read_service(clients, service),
        do_pause=lambda: clients.services.stop(service),
        do_resume=lambda: clients.services.start(service),
        way_back=f"Start {service}.",
        sleep=sleep,
    )


def _read_worker(clients: Clients, service: str) -> _Stillness:
    try:
        worker = clients.fulfillment.read_worker()
    except NotFoundError as error:
        raise MoversError(
            f"the worker cannot be paused, as WORKER_CONTROL=api wants ({error}). Set "
            "WORKER_CONTROL to what keeps it still here."
        ) from error
    except ClientError as error:
        if isinstance(error, ConnectionRefusedClientError):
            now = _read_service(clients, service)
            if now.paused:
                return now
        raise MoversError(f"whether the worker moves is not known ({error})") from error
    return _Stillness(worker.paused, not worker.paused, worker.moving, worker.last_move_at)


def _read_service(clients: Clients, name: str) -> _Stillness:
    try:
        found = next((s for s in clients.services.list_services() if s.name == name), None)
    except ClientError as error:
        raise MoversError(f"whether {name} runs is not known ({error})") from error
    if found is None:
        raise MoversError(f"{name} is not among the services. Is WORKER_SERVICE right?")
    return _Stillness(paused=found.state in _STOPPED, back=found.running)
