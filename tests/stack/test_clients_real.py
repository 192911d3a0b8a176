"""Every client and every service action against the real servers of the local stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow_stack.orders import open_ticket
from fulfillment.change.service_actions import plan_service
from fulfillment.clients import Clients
from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.model import ActionPhase
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from runbook_lib.section import SectionParameters
from tests.support.stack import RunningStack, stack

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
        target = open_ticket(Settings().support_url, 1)
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
