"""Let Ctrl-C through at once, also while a store that hangs is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["run_interruptibly"]

T = TypeVar("T")

_GRACE_S = 0.7


def run_interruptibly(work: Callable[[], T], *, stop: threading.Event) -> T:
    """Do work on a thread of its own and return what it returns.

    Parameters
    ----------
    work : looks at ``stop`` between its steps, and cleans up after itself

    Raises
    ------
    KeyboardInterrupt
        After an interrupt, as soon as the work has ended, within a second at the latest. Work that
        waits for a store goes on in the background until the store answers or its time-out is
        over, then sees ``stop``, changes nothing more and cleans up.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="change")
    future = pool.submit(work)
    try:
        return future.result()
    except BaseException:
        stop.set()
        wait([future], timeout=_GRACE_S)
        raise
    finally:
        pool.shutdown(wait=False)
