"""Every client and every service action against the real servers of the local stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import requests

from fulfillment.analysis.log_groups import group_lines
from fulfillment.change.service_actions import plan_service
from fulfillment.clients import Clients
from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.errors import NotFoundError
from runbook_lib.model import ActionPhase
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from runbook_lib.section import SectionParameters
from tests.support.stack import RunningStack, stack, wait_until

__all__ = ["stack"]

pytestmark = pytest.mark.stack
DASHBOARD = Path(__file__).parents[2] / "addons/grafana/dashboards/dataflow-overview.json"


@pytest.fixture
def clients(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> Clients:
    for name, value in stack.env.items():
        monkeypatch.setenv(name, value)
    return Clients(Settings())


def test_prometheus_answers_every_query_of_the_dashboard(clients: Clients) -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) == 9
    answers = {
        query: clients.prometheus.query(query.replace("$__rate_interval", "1m")) for query in asked
    }
    # a counter has no series before it has counted
    counters = {query for query in asked if "_total" in query or "_bucket" in query}
    assert {query for query, series in answers.items() if not series} <= counters
    assert len(counters) == 4


def test_prometheus_is_understood(clients: Clients) -> None:
    prometheus = clients.prometheus
    lag = 'fulfillment_lag_minutes{origin="real"}'
    wait_until(
        lambda: any(len(s.samples) >= 2 for s in prometheus.query_samples(lag, 60)),
        what="two samples of the lag",
    )
    (now,) = prometheus.query(lag)
    assert now.samples[0].value >= 0
    assert abs(now.samples[0].at - datetime.now(UTC)) < timedelta(minutes=1)
    (scrapes,) = prometheus.query_samples(lag, 60)
    gaps = {(b.at - a.at) for a, b in zip(scrapes.samples, scrapes.samples[1:], strict=False)}
    assert all(gap > timedelta(0) for gap in gaps)
    end = datetime.now(UTC)
    assert prometheus.query_range(lag, end - timedelta(minutes=1), end, 1)
    rules = {rule.name: rule for rule in prometheus.list_rules()}
    assert rules["FulfillmentDelay"].for_s > 0
    assert rules["FulfillmentDelay"].group_interval_s > 0
    assert "artifact-exporter" in {target.job for target in prometheus.list_targets()}
    assert prometheus.check_reachable()


def test_alertmanager_is_understood(clients: Clients) -> None:
    alertmanager = clients.alertmanager
    receivers = alertmanager.get("/api/v2/receivers", list[dict[str, str]])
    assert {"slack-critical", "email-oncall", "teams-oncall"} <= {r["name"] for r in receivers}
    assert {"slack", "email"} <= {c.integration for c in alertmanager.read_notification_counts()}
    assert alertmanager.read_placeholders() == []
    assert all(part >= 0 for part in alertmanager.read_group_timing())
    assert alertmanager.check_reachable()
    assert isinstance(alertmanager.list_alerts(), list)


def test_every_http_system_tells_its_time(clients: Clients) -> None:
    for client in (
        clients.prometheus, clients.alertmanager, clients.support, clients.fulfillment,
        clients.pipeline, clients.probe, clients.notifications,
    ):  # fmt: skip
        assert abs(client.read_clock() - datetime.now(UTC)) < timedelta(seconds=30)
        assert client.read_health()


def test_dataflows_services_are_understood(clients: Clients) -> None:
    worker = clients.fulfillment.read_worker()
    assert (worker.pending_prefix, worker.raw["credentials"]) == ("pending/", "present")
    assert not clients.pipeline.read_dag().is_paused
    wait_until(lambda: bool(clients.pipeline.list_runs()), what="a run of the DAG")
    assert {run.state for run in clients.pipeline.list_runs(3)} == {"success"}
    wait_until(lambda: clients.probe.read_status().ran_at is not None, what="the probe ran")
    assert any(step.name == "timeline_refresh" for step in clients.probe.read_status().steps)
    assert isinstance(clients.notifications.list_notifications(datetime.now(UTC)), list)
    with pytest.raises(NotFoundError):
        clients.support.read_case("00000000-0000-4000-8000-000000000000")


def test_a_ticket_lives_through_its_calls(clients: Clients) -> None:
    shipments = partial(clients.fulfillment.get, "/fulfillment/shipments", dict, {"limit": 1})
    wait_until(lambda: bool(shipments()["items"]), what="a shipment")
    order = int(shipments()["items"][0]["orderId"])
    support = clients.support
    case = support.create_case("Where is it?", order_ids=(order,))
    assert case.order_ids == (order,)
    base, message = f"/support/cases/{case.id}", {"authorType": "agent", "message": "looking"}
    support.post(f"{base}/messages", object, message)
    file = {"file": ("report.html", b"<html></html>")}
    requests.post(f"{support.url}{base}/attachments", files=file, timeout=20).raise_for_status()
    timeline = support.refresh_timeline(case.id).timeline
    assert {"shipment", "conversation", "attachment"} <= {entry.type for entry in timeline}
    assert all(entry.at is not None for entry in timeline)
    support.close_case(case.id)
    assert support.read_case(case.id).status == "closed"
    assert "shipments" in support.read_collection_failures()


def test_services_are_listed_with_logs_and_settings(clients: Clients, stack: RunningStack) -> None:
    services = clients.services
    states = {state.name: state for state in services.list_services()}
    assert states["fulfillment-service"].running
    assert states["fulfillment-service"].since
    since = datetime.now(UTC) - timedelta(hours=1)
    wait_until(
        lambda: bool(services.read_logs("fulfillment-service", since=since)),
        what="a line of the log",
    )
    lines = services.read_logs("fulfillment-service", since=since)
    assert any(line.at is not None for line in lines)
    assert group_lines((line.at, line.text) for line in lines)
    settings = services.read_effective_settings("fulfillment-service")
    assert settings["MINIO_ROOT_PASSWORD"] == "equal to the store's"
    assert settings["PENDING_PREFIX"] == "pending/"
    assert stack.env["MINIO_ROOT_PASSWORD"] not in str(settings)


@pytest.fixture
def disturbed(clients: Clients) -> Iterator[Clients]:
    """Clients whose pipeline and worker are put right afterwards."""
    yield clients
    clients.pipeline.set_paused(False)
    clients.fulfillment.resume_worker()


@pytest.mark.parametrize("action", ["restart", "unpause", "retrigger", "resume", "refresh"])
def test_each_action_has_its_effect(disturbed: Clients, tmp_path: Path, action: str) -> None:
    target = {"restart": "carrier-api", "unpause": disturbed.pipeline.read_dag().id}.get(
        action, "worker"
    )
    if action == "unpause":
        disturbed.pipeline.set_paused(True)
    elif action == "resume":
        disturbed.fulfillment.pause_worker()
    elif action == "refresh":
        target = disturbed.support.create_case("x", order_ids=()).id
    inv = Investigation(
        create_incident(tmp_path, redactor=Redactor(), environment="local"),
        section=SECTIONS["06_remediation"],
        parameters=SectionParameters(),
        settings=Settings(),
        clients=disturbed,
    )
    plan = plan_service(inv, step="6.2", action=action, target=target, reason="test")
    assert not plan.is_empty
    inv.apply(plan, approve=plan.sha256)
    checked = inv.verify(plan)
    assert checked.phase is ActionPhase.VERIFIED, checked.reason
