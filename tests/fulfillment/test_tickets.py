"""Which tickets are known, and what support says of each."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from fulfillment.clients import Clients
from fulfillment.clients.http_systems import RoutedAlert
from fulfillment.tickets import TicketsDocument, list_tickets
from runbook_lib.errors import ExitCode, UsageError
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from tests.support.world import NOW, ORDER, TICKET, FakeClients, World

OTHER = "0d1f7c52-9f57-4a44-9c85-9d1f4d5d9a10"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a healthy world whose support knows TICKET."""
    return World(tmp_path / "home")


def look(world: World, from_file: Path | None = None) -> TicketsDocument:
    clients = cast(Clients, FakeClients(world))
    return list_tickets(world.settings, clients, from_file=from_file)


def route(world: World, **annotations: str) -> None:
    alert = RoutedAlert(
        labels={"alertname": "FulfillmentDelay"},
        starts_at=NOW,
        receivers=(),
        state="active",
        silenced_by=(),
        inhibited_by=(),
        annotations=annotations,
    )
    world.routed.append(alert)


def test_a_ticket_is_listed_once_with_every_place_that_names_it(
    world: World, tmp_path: Path
) -> None:
    route(world, ticket=TICKET)
    incident = create_incident(world.home, redactor=Redactor(), ticket_id=TICKET)
    file = tmp_path / "tickets.txt"
    file.write_text(f"# from the desk\n{TICKET}, urgent\n\n", "utf-8")

    [row] = look(world, file).tickets

    assert row["ticket"] == TICKET
    assert row["known_from"] == ["file", "alert FulfillmentDelay", incident.id]
    assert row["orders"] == str(ORDER)


def test_a_ticket_that_support_does_not_know_says_so(world: World) -> None:
    route(world, ticket_id=OTHER)
    world.case = None

    [row] = look(world).tickets
    assert (row["ticket"], row["status"]) == (OTHER, "unknown to support")


def test_without_support_the_tickets_are_listed_all_the_same(world: World) -> None:
    route(world, ticket=TICKET)
    world.down.add("support")

    document = look(world)
    assert [row["ticket"] for row in document.tickets] == [TICKET]
    assert document.problem
    assert document.exit_code is ExitCode.UNKNOWN


def test_where_none_is_known_nothing_is_listed(world: World) -> None:
    document = look(world)
    assert (document.tickets, document.commands) == ((), ())
    assert document.exit_code is ExitCode.OK


def test_a_file_that_is_not_there_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        look(world, tmp_path / "missing.txt")
