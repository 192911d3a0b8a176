"""Step 2.2: the number that the Grafana panel shows."""

from __future__ import annotations

import math

from ..investigation import Investigation
from ..model import Json, Reading, Status

__all__ = ["DASHBOARD_UID", "PANEL_TITLE", "read_panel"]

DASHBOARD_UID = "dataflow-overview"
PANEL_TITLE = "Fulfillment backlog"


def read_panel(inv: Investigation) -> Reading:
    """Ask Prometheus the panel's own query; unknown without Grafana or without a number."""
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    rows: list[dict[str, Json]] = []
    for expression in panel.expressions:
        for series in inv.clients.prometheus.query(expression):
            if math.isfinite(series.samples[-1].value):
                labels = " ".join(f"{k}={v}" for k, v in sorted(series.labels.items()))
                rows.append({"series": labels or expression, "value": series.samples[-1].value})
    total = sum(float(r["value"]) for r in rows)
    return inv.make_reading(
        "2.2",
        f"panel {panel.title}",
        Status.OK if rows else Status.UNKNOWN,
        value=total if rows else None,
        unit="objects",
        source=f"{panel.link}: {'; '.join(panel.expressions)}",
        reason="what the panel shows now: compare with 2.3"
        if rows
        else "the panel's queries give no number",
        rows=rows[:200],
    )
