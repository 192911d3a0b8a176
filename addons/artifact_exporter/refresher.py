"""Refreshes the numbers on a thread of its own, so that a slow store delays no scrape."""

from __future__ import annotations

import logging
import threading

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.store import StoreReadError

__all__ = ["Refresher"]

_log = logging.getLogger(__name__)


class Refresher:
    """Runs one refresh after another until it is stopped."""

    def __init__(
        self, inventory: ArtifactInventory, collector: BacklogCollector, *, interval_s: float
    ) -> None:
        self._inventory = inventory
        self._collector = collector
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether refreshes still happen."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start refreshing; the first refresh begins at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the refresh that is running, at most its time-outs later."""
        self._stop.set()
        self._thread.join()

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

    def _run(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(self._interval_s)
