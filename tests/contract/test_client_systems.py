"""The clients of Prometheus, Alertmanager and DataFlow's services, on recorded answers."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fulfillment.clients.http_systems import (
    AlertmanagerClient,
    PipelineClient,
    PrometheusClient,
    Sample,
    SupportClient,
)
from runbook_lib.errors import (
    BadAnswerError,
    NotFoundError,
    UsageError,
)

AT = 1795490040.123


def client_of(server: HTTPServer) -> PrometheusClient:
    return PrometheusClient(server.url_for(""), timeout_s=5)


def answer(server: HTTPServer, path: str, data: Any, **extra: Any) -> None:
    server.expect_request(path).respond_with_json({"status": "success", "data": data, **extra})


def vector(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"resultType": "vector", "result": list(rows)}


def test_a_query_gives_one_sample_per_series(httpserver: HTTPServer) -> None:
    metric = {"__name__": "fulfillment_lag_minutes", "origin": "real"}
    answer(
        httpserver,
        "/api/v1/query",
        vector({"metric": metric, "value": [AT, "12.5"]}),
        warnings=["PromQL warning: this is only a warning"],
    )
    (series,) = client_of(httpserver).query("fulfillment_lag_minutes")
    assert series.labels == metric
    assert series.samples == (Sample(datetime.fromtimestamp(AT, UTC), 12.5),)


def test_values_that_are_no_numbers_stay_what_they_are(httpserver: HTTPServer) -> None:
    rows = [{"metric": {"i": v}, "value": [AT, v]} for v in ("NaN", "+Inf", "-Inf")]
    answer(httpserver, "/api/v1/query", vector(*rows))
    nan, high, low = (s.samples[0].value for s in client_of(httpserver).query("x"))
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "success", "data": vector({"metric": {}, "value": [AT, "many"]})},
        {"status": "error", "errorType": "timeout", "error": "query timed out"},
    ],
)
def test_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/api/v1/query").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        client_of(httpserver).query("x")


ALERT: dict[str, Any] = {
    "annotations": {"summary": "Backlog"},
    "endsAt": "2026-11-24T03:18:00.000Z",
    "fingerprint": "a1b2c3d4e5f60718",
    "receivers": [{"name": "slack-critical"}, {"name": "email-oncall"}],
    "startsAt": "2026-11-24T03:14:00.000Z",
    "status": {"inhibitedBy": [], "mutedBy": [], "silencedBy": ["3fa8"], "state": "suppressed"},
    "updatedAt": "2026-11-24T03:14:00.100Z",
    "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
    "labels": {"alertname": "FulfillmentDelay", "severity": "high"},
}

CONFIG = """
global:
  resolve_timeout: 5m
  smtp_from: alertmanager@example.com
  smtp_smarthost: smtp.example.com:587
  smtp_auth_password: <secret>
route:
  receiver: slack-critical
receivers:
- name: slack-critical
  slack_configs:
  - api_url: <secret>
    channel: '#data-ops'
- name: email-oncall
  email_configs:
  - to: oncall@example.com
    smarthost: 127.0.0.1:25
- name: teams-oncall
  msteamsv2_configs:
  - webhook_url: <secret>
  webhook_configs:
  - url: https://hooks.slack.com/services/REPLACE/ME
"""


def alertmanager_of(server: HTTPServer) -> AlertmanagerClient:
    return AlertmanagerClient(server.url_for(""), timeout_s=5)


def test_alerts_have_receivers_and_silences(httpserver: HTTPServer) -> None:
    other = {**ALERT, "labels": {"alertname": 'Other"x'}}
    httpserver.expect_request("/api/v2/alerts").respond_with_json([ALERT, other])
    alert, second = alertmanager_of(httpserver).list_alerts()
    assert alert.receivers == ("slack-critical", "email-oncall")
    assert alert.muted_by == ("3fa8",)
    assert alert.starts_at == datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
    assert second.labels == {"alertname": 'Other"x'}


def test_placeholders_are_named_where_they_stand(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v2/status").respond_with_json(
        {
            "cluster": {"status": "disabled"},
            "config": {"original": CONFIG},
            "versionInfo": {"version": "0.28.1"},
        }
    )
    assert alertmanager_of(httpserver).read_placeholders() == [
        "smtp_smarthost: smtp.example.com:587",
        "url: https://hooks.slack.com/services/REPLACE/ME",
    ]


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
