"""The order feed: brings an order every few seconds, some of them late."""

from __future__ import annotations

import random
from datetime import timedelta

from pydantic import Field

from ..clock import Clock
from ..plumbing import ApiModel
from .shipments import Order, Shipments
from .signals import Signals

__all__ = ["Feed", "FeedPace"]

_CARRIERS = ("GHN", "GHTK", "VTP")
_random = random.SystemRandom()
_LATE_MINUTES = (15.0, 40.0)


class FeedPace(ApiModel):
    """How often an order comes, and which share was shipped 15 to 40 minutes ago."""

    interval_s: float = Field(gt=0, le=3600)
    late_share: float = Field(ge=0, le=1)


class Feed:
    """Make orders at a pace that can be changed."""

    def __init__(
        self, pace: FeedPace, *, clock: Clock, shipments: Shipments, signals: Signals
    ) -> None:
        self.pace = pace
        self._clock, self._shipments, self._signals = clock, shipments, signals

    def run(self) -> float:
        """Bring one order; return the seconds to the next."""
        late = _random.random() < self.pace.late_share
        ago = (
            timedelta(minutes=_random.uniform(*_LATE_MINUTES))
            if late
            else timedelta(seconds=_random.uniform(0, 20))
        )
        order = Order(
            self._shipments.next_feed_id(), self._clock.now() - ago, _random.choice(_CARRIERS)
        )
        self._signals.received.inc(self._shipments.add([order]))
        return self.pace.interval_s
