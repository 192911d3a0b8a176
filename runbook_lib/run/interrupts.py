"""Delay Ctrl-C and SIGTERM while something must not be cut off."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def do_nothing() -> None:
    """Do nothing at a signal; ``Interrupts`` still counts it."""


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


class Interrupts(AbstractContextManager["Interrupts"]):
    """A context manager that handles SIGINT and SIGTERM, and counts them.

    The first signal calls ``first``, each further one ``again``. Outside the main thread no signal
    is handled; ignored signals stay ignored.
    """

    def __init__(
        self, first: Callable[[], None] = do_nothing, again: Callable[[], None] = _raise_interrupt
    ) -> None:
        self.count = 0
        self._first = first
        self._again = again
        self._handlers_before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # None is a handler from outside Python, which we couldn't restore.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers_before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self.count == 1:
            self._first()
        else:
            self._again()


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Let a short block finish; raise KeyboardInterrupt after it if Ctrl-C or SIGTERM came.

    Without it, an event loop would print a traceback, and an import may swallow the signal. Inside
    an ``Interrupts`` it does nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    # An `Interrupts` sets one of its own methods as the handler.
    if isinstance(getattr(handler, "__self__", None), Interrupts):
        yield
        return
    with Interrupts(again=do_nothing) as interrupts:
        yield
    if interrupts.count:
        raise KeyboardInterrupt
