"""One section at work on one incident, with this runbook's settings and clients."""

from __future__ import annotations

from typing import Any, Self

from runbook_lib.section import SectionModule
from runbook_lib.show import display

from .clients import Clients
from .clients.support import check_ticket
from .settings import Settings


class Investigation(display.Investigation[Settings, Clients]):
    """What sections, commands and notebooks open."""

    SETTINGS = Settings

    @classmethod
    def open(
        cls,
        incident_id: str = "",
        *,
        section: SectionModule,
        settings: Settings | None = None,
        **parameters: Any,
    ) -> Self:
        """Open the incident's folder, as the helper does; an unknown ticket is never kept."""
        settings = settings or Settings.load()
        check_ticket(settings, str(parameters.get("ticket_id") or ""))
        return super().open(incident_id, section=section, settings=settings, **parameters)

    @classmethod
    def connect(cls, settings: Settings) -> Clients:
        """Return every client; none asks anything before it is used."""
        return Clients(settings)
