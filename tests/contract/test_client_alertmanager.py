"""AlertmanagerClient on recorded answers (Alertmanager 0.28), and on broken ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pytest_httpserver import HTTPServer

from fulfillment.clients.http_systems import AlertmanagerClient

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


def client_of(server: HTTPServer) -> AlertmanagerClient:
    return AlertmanagerClient(server.url_for(""), timeout_s=5)


def status(server: HTTPServer, original: Any) -> None:
    server.expect_request("/api/v2/status").respond_with_json(
        {
            "cluster": {"status": "disabled"},
            "config": {"original": original},
            "versionInfo": {"version": "0.28.1"},
        }
    )


def test_alerts_have_receivers_and_silences(httpserver: HTTPServer) -> None:
    other = {**ALERT, "labels": {"alertname": 'Other"x'}}
    httpserver.expect_request("/api/v2/alerts").respond_with_json([ALERT, other])
    client = client_of(httpserver)
    alert, second = client.list_alerts()
    assert alert.receivers == ("slack-critical", "email-oncall")
    assert (alert.state, alert.silenced_by, alert.inhibited_by) == ("suppressed", ("3fa8",), ())
    assert alert.starts_at == datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
    assert second.labels == {"alertname": 'Other"x'}


def test_placeholders_are_named_where_they_stand(httpserver: HTTPServer) -> None:
    status(httpserver, CONFIG)
    assert client_of(httpserver).read_placeholders() == [
        "smtp_smarthost: smtp.example.com:587",
        "url: https://hooks.slack.com/services/REPLACE/ME",
    ]
