"""Make sure that nobody else moves objects while a plan is carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ClientError, ConnectionRefusedClientError, NotFoundError, OthersMovingError
from ..model import format_time
from ..record.incident import write_json
from ..record.log import utc_now

if TYPE_CHECKING:
    from ..clients import Clients

__all__ = ["check_nobody_moves", "hold_worker"]

_LAST_MOVE = "fulfillment_worker_last_move_timestamp_seconds"
_LOOK_APART_S = 2.0


@contextmanager
def hold_worker(
    clients: Clients,
    *,
    service: str = "fulfillment-service",
    note: Path | None = None,
    idle_s: float = 120,
    wait_s: float = 30,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utc_now,
) -> Iterator[str]:
    """Keep the worker paused inside the ``with`` block; yields how that was made sure of.

    Parameters
    ----------
    service : the worker's service, to see that it is stopped when it does not answer
    note : a file that says that the pause is ours while it lasts, so that a run after a crash
        takes it back
    idle_s : where the worker has no such API, its last move must be older than this, twice
    wait_s : how long a pass under way may take to end

    Raises
    ------
    OthersMovingError
        When it moves on, or nothing shows that it does not.

    Notes
    -----
    Changes the worker: pauses it, and resumes only what it paused.
    """
    try:
        worker = clients.fulfillment.read_worker()
    except ClientError as error:
        yield check_nobody_moves(
            clients, error, service=service, idle_s=idle_s, sleep=sleep, now=now
        )
        return
    ours = not worker.paused or (note is not None and note.exists())
    if ours and note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"paused_at": format_time(now())})
    if not worker.paused:
        clients.fulfillment.pause_worker()
    try:
        _wait_until_still(clients, wait_s, sleep)
        yield "paused for this release" if ours else "it was paused already"
    finally:
        if ours:
            clients.fulfillment.resume_worker()
            if note is not None:
                note.unlink(missing_ok=True)


def check_nobody_moves(
    clients: Clients,
    error: ClientError,
    *,
    service: str,
    idle_s: float,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utc_now,
) -> str:
    """Return what shows that a worker that cannot be paused does not move.

    Parameters
    ----------
    error : why it could not be asked

    Raises
    ------
    OthersMovingError
        When nothing shows it.
    """
    seen = [f"the worker cannot be paused ({error})"]
    if isinstance(error, ConnectionRefusedClientError):
        try:
            state = next((s for s in clients.services.list_services() if s.name == service), None)
        except ClientError as why:
            seen.append(f"its state is not known ({why})")
        else:
            if state is not None and not state.running:
                return f"{service} is {state.state}"
            seen.append(f"{service} is {state.state if state else 'not among the services'}")
    if isinstance(error, ConnectionRefusedClientError | NotFoundError):
        try:
            return _find_idle(clients, idle_s, sleep, now)
        except ClientError as why:
            seen.append(f"its last move is not known ({why})")
        except OthersMovingError as why:
            seen.append(str(why))
    raise OthersMovingError(f"{'; '.join(seen)}. Stop {service}, then try again.")


def _find_idle(
    clients: Clients, idle_s: float, sleep: Callable[[float], None], now: Callable[[], datetime]
) -> str:
    moves: list[float] = []
    for look in range(2):
        if look:
            sleep(_LOOK_APART_S)
        series = clients.prometheus.query(_LAST_MOVE)
        if not series or not series[0].samples:
            raise OthersMovingError(f"no sample of {_LAST_MOVE}")
        moves.append(max(sample.value for one in series for sample in one.samples))
        idle = now().timestamp() - moves[-1]
        if not idle >= idle_s:
            raise OthersMovingError(f"it moved {idle:.0f} s ago")
    if moves[0] != moves[1]:
        raise OthersMovingError("it moved just now")
    return f"its last move is over {idle_s:.0f} s ago, seen twice"


def _wait_until_still(clients: Clients, wait_s: float, sleep: Callable[[float], None]) -> None:
    waited, step = 0.0, 0.1
    while clients.fulfillment.read_worker().moving:
        if waited >= wait_s:
            raise OthersMovingError(
                f"the worker is still moving {wait_s:.0f} s after it was paused. Look at its log."
            )
        sleep(step)
        waited += step
