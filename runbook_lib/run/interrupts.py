"""Hold Ctrl-C and SIGTERM back while something runs that must not be cut off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: How long a cell may take to put back what it changed, such as a service that it paused.
_CELL_ENDS_S = 60.0
_INTERRUPTED = "interrupted: the running cell ends first, within 60 s; Ctrl-C again ends it at once"


def do_nothing() -> None:
    """Do nothing at a signal; ``Interrupts`` counts the signal all the same."""


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


class Interrupts(AbstractContextManager["Interrupts"]):
    """Handle SIGINT and SIGTERM; the first signal raises nothing by default. A context manager.

    Parameters
    ----------
    first : called at the first signal; by default nothing happens, and only ``count`` grows
    again : called at each further signal; by default it raises ``KeyboardInterrupt``

    Attributes
    ----------
    count : how many signals came

    Notes
    -----
    Outside of the main thread no signal is handled. A signal that the process ignores stays
    ignored.
    """

    def __init__(
        self, first: Callable[[], None] = do_nothing, again: Callable[[], None] = _raise_interrupt
    ) -> None:
        self.count = 0
        self._first = first
        self._again = again
        self._handlers_before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # None: the handler was not set from Python, and could not be put back.
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
def hold_interrupts() -> Iterator[None]:
    """Let a short block come to its end before a signal interrupts it.

    Raises
    ------
    KeyboardInterrupt
        After the block, when a signal came during the block.

    Notes
    -----
    Use this where an interrupt does harm: an event loop would print a traceback, and an import may
    swallow the interrupt. Inside of an ``Interrupts`` this does nothing: the signals are handled
    already.
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


class CellInterrupt:
    """Hand one interrupt to the running cell, and give the cell time to end.

    Parameters
    ----------
    kernel : runs the cells, one at a time; has ``interrupt`` and ``kill``
    say : shows a text to a person: what is waited for

    Attributes
    ----------
    must_end : whether the run is to end; then no further cell begins

    Notes
    -----
    A kernel ignores a signal that comes before it runs the cell that it was sent. Such a signal is
    handed over once that cell runs.
    """

    def __init__(self, kernel: Any, say: Callable[[str], None]) -> None:
        self.must_end = False
        self._kernel = kernel
        self._say = say
        self._is_running = False
        self._is_sent = False
        self._deadline = threading.Timer(_CELL_ENDS_S, kernel.kill)
        self._deadline.daemon = True

    def end_run(self) -> None:
        """End the run: interrupt the running cell, and kill the kernel if the cell does not end."""
        self.must_end = True
        self._deadline.start()
        self._send()
        with suppress(RuntimeError):  # the signal may have come in the middle of a print
            self._say(_INTERRUPTED)

    def begin(self) -> None:
        """Note that the kernel runs a cell now; interrupt the cell if an interrupt waits for it."""
        self._is_running = True
        if self.must_end:
            self._send()

    def end(self) -> None:
        """Note that the cell has ended."""
        self._is_running = False

    def close(self) -> None:
        """Cancel the time limit after which the kernel would be killed."""
        self._deadline.cancel()

    def _send(self) -> None:
        """Interrupt the running cell, at most once."""
        if self._is_running and not self._is_sent:
            self._is_sent = True
            self._kernel.interrupt()
