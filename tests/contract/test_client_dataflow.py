"""The clients of DataFlow's services on recorded answers, and on broken ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fulfillment.clients.http_systems import (
    PipelineClient,
    SupportClient,
)
from runbook_lib.errors import (
    BadAnswerError,
    NotFoundError,
    UsageError,
)

TICKET = "4be0643f-1d98-573b-97cd-ca98a65347dd"
CASE: dict[str, Any] = {
    "id": TICKET,
    "subject": "Where is my parcel?",
    "channel": "email",
    "status": "open",
    "context": [
        {"type": "order", "orderId": 4242},
        {"type": "note"},
        {"type": "order", "orderId": 4242},
    ],
    "createdAt": "2026-11-24T03:00:00.000001Z",
    "timeline": [
        {
            "source": "fulfillment-service",
            "type": "shipment",
            "shipmentId": "s-1",
            "orderId": 4242,
            "status": "LABEL_PENDING",
            "trackingNumber": None,
            "timestamp": "2026-11-24T03:01:00.5",
        },
        {"type": "conversation", "authorType": "customer", "message": "<script>alert(1)</script>",
         "timestamp": "2026-11-24T10:02:00+07:00"},
        {"type": "attachment", "timestamp": "2026-11-24T03:03:00Z"},
        {"type": "context", "timestamp": "just now"},
    ],
}  # fmt: skip


def support_of(server: HTTPServer) -> SupportClient:
    return SupportClient(server.url_for(""), timeout_s=5)


def test_a_ticket_is_read_with_times_in_three_forms(httpserver: HTTPServer) -> None:
    httpserver.expect_request(
        f"/support/cases/{TICKET}", query_string="includeTimeline=true"
    ).respond_with_json(CASE)
    case = support_of(httpserver).read_case(TICKET)
    assert (case.id, case.status, case.order_ids) == (TICKET, "open", (4242,))
    assert [entry.at for entry in case.timeline] == [
        datetime(2026, 11, 24, 3, 1, 0, 500_000, tzinfo=UTC),
        datetime(2026, 11, 24, 3, 2, tzinfo=UTC),
        datetime(2026, 11, 24, 3, 3, tzinfo=UTC),
        None,
    ]
    shipment = case.timeline[0]
    assert (shipment.type, shipment.source, shipment.status, shipment.order_id) == (
        "shipment",
        "fulfillment-service",
        "LABEL_PENDING",
        "4242",
    )


@pytest.mark.parametrize("ticket", ["", "a/../b", "x?y=1"])
def test_a_ticket_id_cannot_lead_elsewhere(httpserver: HTTPServer, ticket: str) -> None:
    client = support_of(httpserver)
    for ask in (client.read_case, client.refresh_timeline):
        with pytest.raises(UsageError):
            ask(ticket)
    assert not httpserver.log


@pytest.mark.parametrize(
    "body",
    [[], {**CASE, "timeline": [{"orderId": ["many"]}]}],
)
def test_a_ticket_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request(f"/support/cases/{TICKET}").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        support_of(httpserver).read_case(TICKET)


def test_a_dag_id_cannot_lead_elsewhere(httpserver: HTTPServer) -> None:
    paths: list[str] = []

    def note(request: Request) -> Response:
        paths.append(str(request.environ["REQUEST_URI"]))
        return Response("{}", 404, content_type="application/json")

    httpserver.expect_request(re.compile(".*")).respond_with_handler(note)
    client = PipelineClient(httpserver.url_for(""), dag_id="a/../b?c", timeout_s=5)
    with pytest.raises(NotFoundError):
        client.read_dag()
    assert paths == ["/api/v2/dags/a%2F..%2Fb%3Fc"]
