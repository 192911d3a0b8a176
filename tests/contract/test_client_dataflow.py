"""The clients of DataFlow's services on recorded answers, and on broken ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fulfillment.clients.http_systems import (
    FulfillmentClient,
    GrafanaClient,
    NotificationsClient,
    PipelineClient,
    ProbeClient,
    SupportClient,
)
from runbook_lib.errors import (
    BadAnswerError,
    NotFoundError,
    UsageError,
)

SINCE = datetime(2026, 11, 24, 3, tzinfo=UTC)
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
        4242,
    )


@pytest.mark.parametrize("ticket", ["", "..", "a/../b", "x?y=1", "a b"])
def test_a_ticket_id_cannot_lead_elsewhere(httpserver: HTTPServer, ticket: str) -> None:
    client = support_of(httpserver)
    for ask in (client.read_case, client.refresh_timeline, client.close_case):
        with pytest.raises(UsageError):
            ask(ticket)
    assert not httpserver.log


def test_collection_failures_are_counted_by_stage(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/metrics").respond_with_data(
        "# TYPE support_timeline_collection_failures_total counter\n"
        'support_timeline_collection_failures_total{stage="shipments"} 3.0\n'
        'support_timeline_collection_failures_total{stage="orders"} 0.0\n'
        'support_timeline_collection_failures_created{stage="shipments"} 1.7e+09\n'
    )
    assert support_of(httpserver).read_collection_failures() == {"shipments": 3.0, "orders": 0.0}


@pytest.mark.parametrize(
    "body",
    [[], {}, {**CASE, "timeline": {}}, {**CASE, "timeline": [7]}, {**CASE, "context": "x"},
     {**CASE, "timeline": [{"orderId": "many"}]}],
)  # fmt: skip
def test_a_ticket_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request(f"/support/cases/{TICKET}").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        support_of(httpserver).read_case(TICKET)


WORKER = {
    "paused": False,
    "lastRunAt": "2026-11-24T03:14:00.123456Z",
    "lastMoveAt": None,
    "lastError": None,
    "moving": True,
    "pendingPrefix": "pending/",
    "readyPrefix": "ready/",
    "bucket": "fulfillment-artifacts",
    "endpoint": "127.0.0.1:9000",
    "pipelineDagId": "fulfillment_release",
    "credentials": "present",
}


def fulfillment_of(server: HTTPServer) -> FulfillmentClient:
    return FulfillmentClient(server.url_for(""), timeout_s=5)


@pytest.mark.parametrize(
    "body",
    [{}, [], {**WORKER, "paused": "no"}, {**WORKER, "moving": None}, {**WORKER, "lastRunAt": "x"}],
)
def test_a_worker_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/fulfillment/worker").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        fulfillment_of(httpserver).read_worker()


DAG = {
    "dag_id": "fulfillment_release",
    "is_paused": True,
    "is_stale": False,
    "has_import_errors": False,
    "next_dagrun_run_after": None,
}


def pipeline_of(server: HTTPServer, **more: Any) -> PipelineClient:
    return PipelineClient(server.url_for(""), dag_id="fulfillment_release", timeout_s=5, **more)


def test_a_pipeline_without_tokens_gets_credentials_only_when_there_are_some(
    httpserver: HTTPServer,
) -> None:
    httpserver.expect_request("/auth/token").respond_with_json({"detail": "Not Found"}, 404)
    httpserver.expect_request("/api/v2/dags/fulfillment_release").respond_with_json(DAG)
    pipeline_of(httpserver).read_dag()
    pipeline_of(httpserver, auth="Basic ops:pw").read_dag()
    seen = [(request.path, request.authorization) for request, _ in httpserver.log]
    assert seen[0] == ("/api/v2/dags/fulfillment_release", None)
    path, authorization = seen[-1]
    assert path == "/api/v2/dags/fulfillment_release"
    assert authorization is not None
    assert (authorization.type, authorization.username) == ("basic", "ops")


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


@pytest.mark.parametrize("body", [{}, {**DAG, "is_paused": "false"}, {**DAG, "is_paused": None}])
def test_a_dag_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/api/v2/dags/fulfillment_release").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        pipeline_of(httpserver).read_dag()


@pytest.mark.parametrize("body", [{}, {"items": {}}, {"items": [{"channel": "slack"}]}, []])
def test_notifications_of_another_shape_are_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/notifications").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        NotificationsClient(httpserver.url_for(""), timeout_s=5).list_notifications(SINCE)


@pytest.mark.parametrize("body", [{}, {"status": "ok"}, {"status": "ok", "steps": [{}]}, []])
def test_a_probe_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/status").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        ProbeClient(httpserver.url_for(""), timeout_s=5).read_status()


DASHBOARD = {
    "meta": {"url": "/d/dataflow-overview/dataflow-overview"},
    "dashboard": {
        "uid": "dataflow-overview",
        "panels": [
            {"id": 1, "title": "Row", "type": "row", "panels": [
                {"id": 7, "title": "Fulfillment backlog ", "targets": [
                    {"expr": "sum by (origin) (x)"},
                    {"expr": "rate(y[1m])"},
                    {"rawSql": "select 1"},
                ]},
            ]},
        ],
    },
}  # fmt: skip


def grafana_of(server: HTTPServer) -> GrafanaClient:
    return GrafanaClient(server.url_for(""), auth="Basic admin:pw", timeout_s=5)


def test_a_panel_is_found_in_a_folded_row(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/dashboards/uid/dataflow-overview").respond_with_json(DASHBOARD)
    client = grafana_of(httpserver)
    panel = client.find_panel("dataflow-overview", "fulfillment backlog")
    assert panel.expressions == ("sum by (origin) (x)", "rate(y[1m])")
    assert panel.link == f"{client.url}/d/dataflow-overview/dataflow-overview?viewPanel=7"


def test_a_panel_that_is_not_there_is_not_found(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/dashboards/uid/dataflow-overview").respond_with_json(DASHBOARD)
    with pytest.raises(NotFoundError, match="no panel 'Other'"):
        grafana_of(httpserver).find_panel("dataflow-overview", "Other")


@pytest.mark.parametrize("body", [[], {}, {"dashboard": 7}, {"dashboard": {"panels": [7]}}])
def test_a_dashboard_of_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/api/dashboards/uid/x").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        grafana_of(httpserver).find_panel("x", "y")
