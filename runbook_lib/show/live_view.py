"""Readings that keep themselves fresh while someone looks at them."""

from __future__ import annotations

import threading
from typing import Any

from markupsafe import Markup

from ..errors import RunbookError
from ..investigation import Investigation
from ..model import Reading
from .cards import reading_html, reading_text
from .text import safe

__all__ = ["LiveView", "live"]


def live(inv: Investigation, *steps: str, every_s: float = 10) -> LiveView:
    """Show the readings of some steps, refreshed on demand or every few seconds until stopped.

    Parameters
    ----------
    inv : reads them; its section has the steps
    steps : ids, such as ``2.1``
    every_s : seconds between two refreshes, after "Start" was pressed

    Notes
    -----
    Only reads. A reading is journalled when its status changes, not at every refresh. The cell
    returns at once: other cells run meanwhile.
    """
    return LiveView(inv, steps, every_s)


class LiveView:
    """The view; ``refresh``, ``start`` and ``stop`` are its buttons."""

    def __init__(self, inv: Investigation, steps: tuple[str, ...], every_s: float) -> None:
        import ipywidgets as widgets

        self._inv, self._steps, self._every_s = inv, steps, max(1.0, every_s)
        self._stopped = threading.Event()
        self._stopped.set()
        self._busy = threading.Lock()
        self._readings: dict[str, Reading] = {}
        self._shown = widgets.HTML()
        self._said = widgets.HTML()
        self._buttons = {
            name: widgets.Button(description=name) for name in ("Refresh now", "Start", "Stop")
        }
        for name, call in zip(self._buttons, (self.refresh, self.start, self.stop), strict=True):
            self._buttons[name].on_click(lambda _, call=call: call())
        bar = widgets.HBox([*self._buttons.values(), self._said])
        self._box = widgets.VBox([bar, self._shown])
        self.refresh()

    @property
    def is_running(self) -> bool:
        """Whether it refreshes by itself."""
        return not self._stopped.is_set()

    @property
    def readings(self) -> dict[str, Reading]:
        """The newest reading of each step."""
        return dict(self._readings)

    def refresh(self) -> None:
        """Read every step now; does nothing while a refresh is under way."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            for step in self._steps:
                reading = self._inv.observe(step)
                old = self._readings.get(step)
                self._readings[step] = reading
                if old is None or old.status is not reading.status:
                    self._inv.record("reading", {"reading": reading.model_dump(mode="json")})
            self._shown.value = str(self._html())
            at = f"{self._inv.now():%H:%M:%SZ}"
            again = f", again every {self._every_s:g} s" if self.is_running else ""
            self._said.value = f"read at {at}{again}"
        except RunbookError as error:
            self._said.value = str(Markup("could not refresh: {}").format(safe(error)))
        finally:
            self._busy.release()

    def start(self) -> None:
        """Refresh every few seconds, on a thread of its own, until ``stop``."""
        if self.is_running:
            return
        self._stopped.clear()
        threading.Thread(target=self._run, name="live-readings", daemon=True).start()

    def stop(self) -> None:
        """Stop refreshing; the last readings stay."""
        self._stopped.set()
        self._said.value = f"stopped at {self._inv.now():%H:%M:%SZ}"

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.refresh()
            self._stopped.wait(self._every_s)

    def _html(self) -> Markup:
        cards = (reading_html(reading) for reading in self._readings.values())
        return Markup("<hr>").join(cards)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        text = "\n".join(reading_text(reading) for reading in self._readings.values())
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {**bundle, "text/html": str(self._html()), "text/plain": text}
