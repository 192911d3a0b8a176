"""One section at work on one incident, with this runbook's settings and clients."""

from __future__ import annotations

from runbook_lib.show import display

from .clients import Clients
from .settings import Settings


class Investigation(display.Investigation[Settings, Clients]):
    """What sections, commands and notebooks open."""

    SETTINGS = Settings

    @classmethod
    def connect(cls, settings: Settings) -> Clients:
        """Return every client; none asks anything before it is used."""
        return Clients(settings)
