"""Grafana's data source and the dashboard ``Dataflow Overview``."""

from pathlib import Path

__all__ = ["DASHBOARD"]

#: What Grafana reads; the runbook finds it by the entry point ``runbook.dashboards``.
DASHBOARD = Path(__file__).parent / "dashboards" / "dataflow-overview.json"
