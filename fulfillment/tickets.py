"""``runbook tickets``: the known support tickets, and what support says of each.

Support cannot search for tickets. So they are known from elsewhere: alerts, the incidents under
RUNBOOK_HOME, or a file. Only reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from runbook_lib.errors import ClientError, ExitCode, NotFoundError, RecordError, UsageError
from runbook_lib.model import Json
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from runbook_lib.run.documents import Document

from .clients import Clients
from .settings import Settings

#: Labels and annotations of an alert that name a ticket.
_NAMES = ("support_case", "ticket", "ticket_id")
_MAX_TICKETS = 200


class TicketsDocument(Document):
    """``tickets``: the known tickets, each with its sources, its status and its orders.

    The status is empty when support was not or could not be asked, and ``unknown to support`` when
    support has no such ticket. ``problem`` says why support or Alertmanager could not be asked.
    """

    tickets: tuple[dict[str, Json], ...]
    problem: str = ""

    @property
    def answer(self) -> str:
        """How many tickets are known, and how to make one known."""
        if self.tickets:
            return f"Known tickets: {len(self.tickets)}"
        return "No ticket is known. Take the id from a customer's case, and name it with --ticket"

    @property
    def mark(self) -> str:
        """``left_out`` without a known ticket, since that is neither good nor bad."""
        return super().mark if self.tickets else "left_out"

    @property
    def commands(self) -> tuple[str, ...]:
        """The command that looks with the first open ticket of the list."""
        for row in self.tickets:
            if row["status"] not in ("", "closed", "unknown to support"):
                return (f"runbook investigate --ticket {row['ticket']}",)
        return ()


class _Known(NamedTuple):
    """A ticket's id, and where it is known from."""

    ticket: str
    source: str


def list_tickets(
    settings: Settings, clients: Clients | None = None, *, from_file: Path | None = None
) -> TicketsDocument:
    """List the known tickets, each once and 200 at most; ask support, if there is one, about each.

    Raises
    ------
    UsageError
        When the file cannot be read.
    """
    systems = clients or Clients(settings)
    problems: list[str] = []
    known = list(_list_file(from_file)) if from_file else []
    try:
        known += _list_alerts(systems)
    except ClientError as error:
        problems.append(str(error))
    known += _list_history(settings)
    sources: dict[str, list[str]] = {}
    for ticket, source in known:
        known_from = sources.setdefault(ticket, [])
        if source not in known_from:
            known_from.append(source)
    rows: list[dict[str, Json]] = []
    for ticket, known_from in list(sources.items())[:_MAX_TICKETS]:
        row: dict[str, Json] = {
            "ticket": ticket,
            "status": "",
            "orders": "",
            "known_from": known_from,
        }
        if settings.support_url:
            problem = _add_status(systems, row)
            if problem and problem not in problems:
                problems.append(problem)
        rows.append(row)
    return TicketsDocument(
        schema_name="runbook/tickets/1",
        tickets=tuple(rows),
        problem="; ".join(problems),
        exit_code=ExitCode.OK if not problems else ExitCode.UNKNOWN,
    )


def _add_status(clients: Clients, row: dict[str, Json]) -> str:
    """Ask support, and write status and orders into a ticket's row.

    Returns
    -------
    Why support cannot be asked; empty when it answered.
    """
    try:
        case = clients.support.read_case(row["ticket"])
    except NotFoundError:
        row["status"] = "unknown to support"
    except (ClientError, UsageError) as error:
        return str(error)
    else:
        row["status"] = case.status
        row["orders"] = ", ".join(str(order_id) for order_id in case.order_ids)
    return ""


def _list_file(path: Path) -> Iterator[_Known]:
    """Yield the ids in a file: the first word of each line, unless it begins with ``#``."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from {path} cannot be read: {error}") from error
    for line in lines:
        words = line.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            yield _Known(words[0], "file")


def _list_alerts(clients: Clients) -> Iterator[_Known]:
    """Yield the tickets that alerts name in a label or an annotation."""
    if not clients.alertmanager.url:
        return
    for alert in clients.alertmanager.list_alerts():
        for name in _NAMES:
            ticket = alert.labels.get(name) or alert.annotations.get(name)
            if ticket:
                yield _Known(ticket, f"alert {alert.labels.get('alertname', '')}".strip())


def _list_history(settings: Settings) -> Iterator[_Known]:
    """Yield the tickets of the incidents under RUNBOOK_HOME, the newest incident first.

    A damaged incident is skipped.
    """
    redactor = Redactor(settings.secrets)
    for folder in list_incidents(settings.runbook_home.resolve()):
        incident = Incident(folder, redactor=redactor)
        with suppress(RecordError):
            tickets = [incident.state.ticket_id or "", *incident.journal.view().tickets()]
            for ticket in tickets:
                if ticket:
                    yield _Known(ticket, folder.name)
