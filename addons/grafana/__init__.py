"""Grafana's data source and the dashboard ``Dataflow Overview``."""

from pathlib import Path

__all__ = ["DASHBOARD"]

#: What Grafana reads.
DASHBOARD = Path(__file__).parent / "dashboards" / "dataflow-overview.json"
