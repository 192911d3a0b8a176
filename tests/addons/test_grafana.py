from __future__ import annotations

import json
from pathlib import Path

from addons.grafana.dashboard import render_dashboard
from fulfillment.sections.signals import DASHBOARD_UID, PANEL_TITLE

GRAFANA = Path(__file__).parents[2] / "addons" / "grafana"


def test_the_dashboard_is_what_its_code_renders() -> None:
    committed = (GRAFANA / "dashboards" / "dataflow-overview.json").read_text("utf-8")
    assert committed == render_dashboard(), "python -m addons.grafana.dashboard writes it anew"


def test_the_dashboard_is_the_one_that_the_runbook_names() -> None:
    dashboard = json.loads(render_dashboard())
    assert dashboard["uid"] == DASHBOARD_UID
    assert dashboard["title"] == "Dataflow Overview"
    assert PANEL_TITLE in [panel["title"] for panel in dashboard["panels"]]
