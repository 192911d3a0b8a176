"""Refreshes the numbers on threads of their own, so that a slow store delays no scrape."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.store import StoreReadError

__all__ = ["Refresher"]

_log = logging.getLogger(__name__)


#: Counting what is ready takes at most this part of the time, however much there is.
_READY_SHARE = 0.1


class Refresher:
    """Runs one refresh after another until it is stopped.

    What is ready is counted on a second thread: it becomes ever more, and delays no lag.
    """

    def __init__(
        self, inventory: ArtifactInventory, collector: BacklogCollector, *, interval_s: float
    ) -> None:
        self._inventory = inventory
        self._collector = collector
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._threads = (
            self._make_thread("refresh", self.refresh, share=1),
            self._make_thread("ready", self.count_ready, share=_READY_SHARE),
        )

    @property
    def is_alive(self) -> bool:
        """Whether refreshes still happen."""
        return all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start refreshing; the first refresh begins at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the refresh that is running, at most its time-outs later."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def refresh(self) -> None:
        """Refresh once: the numbers are new afterwards, or gone."""
        try:
            self._collector.record(self._inventory.read_snapshot())
        except StoreReadError as error:
            _log.warning("refresh failed: %s", error)
            self._collector.record_failure(error.reason)
        except Exception:  # noqa: BLE001
            # Whatever it is, the thread must go on, and the old numbers must not stay.
            _log.exception("refresh failed")
            self._collector.record_failure("other")

    def count_ready(self) -> None:
        """Count what is ready once: the number is new afterwards, or gone."""
        try:
            self._collector.record_ready(self._inventory.count_ready())
        except StoreReadError as error:
            _log.warning("what is ready was not counted: %s", error)
            self._collector.record_ready(None)
        except Exception:  # noqa: BLE001
            _log.exception("what is ready was not counted")
            self._collector.record_ready(None)

    def _make_thread(
        self, name: str, work: Callable[[], None], *, share: float
    ) -> threading.Thread:
        """Return a thread that works again and again, for at most a part of the time."""

        def run() -> None:
            while not self._stop.is_set():
                began = time.monotonic()
                work()
                took_s = time.monotonic() - began
                rest_s = took_s / share - took_s
                self._stop.wait(max(self._interval_s, rest_s))

        return threading.Thread(target=run, name=name, daemon=True)
