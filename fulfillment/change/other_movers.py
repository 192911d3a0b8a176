"""Who else moves labels while a plan is carried out: the worker is held, other writes are heard.

``WORKER_CONTROL`` says how the worker is kept still; a store that speaks MinIO's dialect tells of
each write under a prefix.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote_plus

from objectmove.bucket import Request, S3Bucket, parse_time
from objectmove.errors import MoveError, MoversError, StoreError
from runbook_lib import errors

from ..clients import Clients
from ..clients.http_systems import PrometheusClient
from ..settings import Settings

_APART_S = 0.2
_TRIES = 150  # 30 s
_QUIET_S = 60.0
_TWICE = "a pass of it between our look and our copy can ship a label twice"
# Of supervisor, of compose and of commands. EXITED is none: supervisor starts it again at once.
_STOPPED = frozenset({"STOPPED", "FATAL", "exited", "dead", "created", "stopped"})


Sleep = Callable[[float], None]


class _Stillness(NamedTuple):
    """``paused``: or stopped; ``back``: works again, which one that just starts does not yet."""

    paused: bool
    back: bool
    moving: bool = False
    last_move_at: datetime | None = None


#: Nobody looks: that nobody holds the worker stands in the approved plan.
_NOT_ASKED = _Stillness(paused=True, back=True)


@dataclass(slots=True)
class WorkerHold:
    """Pauses and resumes the worker, and looks whether it stands still.

    Attributes
    ----------
    words : how it is held, for the plan
    read : how still it stands; raises ``MoversError``
    do_pause, do_resume : raise a ``ClientError``; where nobody is held, there is nothing to do
    way_back : how a person resumes it
    """

    words: str
    read: Callable[[], _Stillness]
    sleep: Sleep
    do_pause: Callable[[], object] = lambda: None
    do_resume: Callable[[], object] = lambda: None
    way_back: str = ""
    _still: _Stillness | None = None

    def is_paused(self) -> bool:
        """Tell whether it is paused or stopped; ``MoversError`` when that cannot be known."""
        return self.read().paused

    def pause(self) -> None:
        """Pause it; ``MoversError`` when it is not. A look makes up for a lost answer."""
        self._still = None
        try:
            self.do_pause()
        except errors.ClientError as error:
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
        except errors.ClientError as error:
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


def describe_hold(hold: WorkerHold) -> str:
    """Say how the worker is held, and whether it stands still now. Only reads."""
    try:
        still = hold.read()
    except MoversError as error:
        return f"{hold.words}; as it is now, `apply` will be refused: {error}"
    if still is _NOT_ASKED:
        return hold.words
    return f"{hold.words}; {'it stands still now' if still.paused else 'it works now'}"


def make_hold(settings: Settings, clients: Clients, *, sleep: Sleep) -> WorkerHold:
    """Return what keeps the worker still, by ``WORKER_CONTROL``; asks nothing yet.

    Raises
    ------
    SettingsError
        When ``RUNBOOK_SERVICES`` does not fit it.
    """
    kind, service = settings.worker_control, settings.worker_service
    if kind == "none":
        words = f"nobody holds the worker: {_TWICE}"
        return WorkerHold(words, lambda: _NOT_ASKED, sleep, _still=_NOT_ASKED)
    if kind == "metric":
        words = (
            f"nobody holds the worker: Prometheus is asked before each batch whether its last move "
            f"is {_QUIET_S:.0f} s ago. It cannot know of one since its last scrape, nor of a pass "
            f"that begins meanwhile: {_TWICE}"
        )
        read = partial(_read_metric, clients.prometheus, settings.worker_last_move_query)
        return WorkerHold(words, read, sleep)
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        words = f"the worker is paused through {address}, and looked at before each batch"
        read, back = partial(_read_worker, clients, service), f"Resume it: POST {address}/resume"
        return WorkerHold(words, read, sleep, worker.pause_worker, worker.resume_worker, back)
    if kind not in ("command", settings.runbook_services):
        raise errors.SettingsError(f"WORKER_CONTROL={kind} needs RUNBOOK_SERVICES={kind}")
    by = "WORKER_STOP_CMD" if kind == "command" else kind
    return WorkerHold(
        f"{service} is stopped by {by}, and looked at before each batch",
        lambda: _read_service(clients, service),
        sleep,
        do_pause=lambda: clients.find_switch(service).stop(service),
        do_resume=lambda: clients.find_switch(service).start(service),
        way_back=f"Start {service}.",
    )


def _read_metric(prometheus: PrometheusClient, query: str) -> _Stillness:
    """Tell that the last move is long ago, by Prometheus's own clock; ``MoversError`` else."""
    name = "WORKER_LAST_MOVE_QUERY"
    try:
        found = prometheus.query(f"time() - (\n{query}\n)")
    except errors.ClientError as error:
        raise MoversError(f"whether the worker moves is not known ({error})") from error
    ages = [series.samples[-1].value for series in found if series.samples]
    if not ages or not all(map(math.isfinite, ages)):
        raise MoversError(f"whether the worker moves is not known: {name} has no value")
    if (age_s := min(ages)) < _QUIET_S:
        text = f"the worker moved {age_s:.0f} s ago, as {name} says, and a metric cannot stop it"
        raise MoversError(f"{text}: stop it, and wait until that is {_QUIET_S:.0f} s ago")
    return _Stillness(paused=True, back=True)


def _read_worker(clients: Clients, service: str) -> _Stillness:
    try:
        worker = clients.fulfillment.read_worker()
    except errors.NotFoundError as error:
        text = f"the worker cannot be paused, as WORKER_CONTROL=api wants ({error})"
        raise MoversError(f"{text}. Set WORKER_CONTROL to what keeps it still here.") from error
    except errors.ClientError as error:
        if isinstance(error, errors.ConnectionRefusedClientError):
            now = _read_service(clients, service)
            if now.paused:
                return now
        raise MoversError(f"whether the worker moves is not known ({error})") from error
    return _Stillness(worker.paused, not worker.paused, worker.moving, worker.last_move_at)


def _read_service(clients: Clients, name: str) -> _Stillness:
    try:
        services = clients.find_switch(name).list_services()
    except errors.ClientError as error:
        raise MoversError(f"whether {name} runs is not known ({error})") from error
    if (found := next((s for s in services if s.name == name), None)) is None:
        raise MoversError(f"{name} is not among the services. Is WORKER_SERVICE right?")
    return _Stillness(paused=found.state in _STOPPED, back=found.running)


_OPEN_S = 2.0
_BLANK_S = 1.5  # the server sends a blank twice a second


@contextmanager
def watch_writes(
    bucket: S3Bucket, prefix: str
) -> Iterator[Callable[[Mapping[str, datetime]], set[str]]]:
    """Yield what returns the keys that were written later than the times that it is given.

    Notes
    -----
    Only reads. Where the store tells nothing, or the stream breaks, the answer is empty.
    """
    writes: list[tuple[str, datetime]] = []
    opened, blank, is_over = (threading.Event() for _ in range(3))
    rest = b""

    def take(part: bytes) -> None:
        nonlocal rest
        if is_over.is_set():
            raise StoreError("the watch is over")
        opened.set()
        *lines, rest = (rest + part).split(b"\n")
        for line in filter(bytes.strip, lines):
            for record in json.loads(line).get("Records") or ():
                at = parse_time(str(record["eventTime"]))
                writes.append((unquote_plus(str(record["s3"]["object"]["key"])), at))
        if not rest.strip():
            blank.set()

    def listen() -> None:
        with suppress(StoreError):
            query = {"events": "s3:ObjectCreated:*", "prefix": prefix, "suffix": ""}
            bucket.fetch(Request("get", query=query), "listen to writes", take)
        opened.set()
        blank.set()

    def find_newer(than: Mapping[str, datetime]) -> set[str]:
        blank.clear()
        if thread.is_alive():
            blank.wait(_BLANK_S)  # what comes before it has been told
        return {key for key, at in writes if key in than and at > than[key]}

    thread = threading.Thread(target=listen, daemon=True, name="watch")
    thread.start()
    opened.wait(_OPEN_S)
    try:
        yield find_newer
    finally:
        is_over.set()
