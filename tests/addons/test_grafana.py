from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.refresher import Refresher
from addons.grafana.dashboard import render_dashboard
from dataflow_stack.services.fulfillment.signals import Signals
from fulfillment.sections.signals import DASHBOARD_UID, PANEL_TITLE
from tests.support.fake_artifact_store import FakeArtifactStore

GRAFANA = Path(__file__).parents[2] / "addons" / "grafana"
METRIC = re.compile(r"\b(?:fulfillment|synthetic|minio|support)_[a-z_]+\b")


def read_dashboard() -> dict[str, Any]:
    text = (GRAFANA / "dashboards" / "dataflow-overview.json").read_text("utf-8")
    dashboard: dict[str, Any] = json.loads(text)
    return dashboard


def panel_expressions() -> Iterable[tuple[str, str]]:
    for panel in read_dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Give every series name that exporter and fulfillment-service export."""
    collector = BacklogCollector(15)
    inventory = ArtifactInventory(
        FakeArtifactStore(),
        waiting_prefixes=["pending/"],
        ready_prefix="ready/",
        clock=lambda: datetime(2026, 11, 24, tzinfo=UTC),
    )
    Refresher(inventory, collector, interval_s=15).refresh()
    registry = CollectorRegistry()
    registry.register(collector)
    Signals(registry)
    return {sample.name for family in registry.collect() for sample in family.samples}


def test_the_dashboard_is_what_its_code_renders() -> None:
    committed = (GRAFANA / "dashboards" / "dataflow-overview.json").read_text("utf-8")
    assert committed == render_dashboard(), "python -m addons.grafana.dashboard writes it anew"


def test_the_dashboard_is_the_one_that_the_runbook_names() -> None:
    dashboard = read_dashboard()
    assert dashboard["uid"] == DASHBOARD_UID
    assert dashboard["title"] == "Dataflow Overview"
    assert PANEL_TITLE in [panel["title"] for panel in dashboard["panels"]]


@pytest.mark.parametrize(("title", "expression"), list(panel_expressions()))
def test_a_panel_asks_only_for_metrics_that_are_exported(
    title: str, expression: str, exported: set[str]
) -> None:
    asked = set(METRIC.findall(expression))
    assert asked, f"{title} asks for no metric"
    assert asked <= exported
