"""Wait for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from runbook_lib.errors import ClientError


def wait_for(check: Callable[[], bool], *, timeout_s: float, every_s: float) -> bool:
    """Ask again until ``check`` is true or the time is up.

    A client that cannot be read counts as "not yet".

    Returns
    -------
    Whether it became true in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if check():
                return True
        except ClientError:
            if time.monotonic() >= deadline:
                raise
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
