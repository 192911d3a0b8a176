"""Put our panels below those of a dashboard: ``python -m addons.grafana.join YOURS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from addons.grafana import DASHBOARD

__all__ = ["join_dashboards"]


def join_dashboards(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return their dashboard with our panels below theirs, under ids of their own."""
    panels = theirs.get("panels", [])
    last = max((panel.get("id") or 0 for panel in panels), default=0)
    places = [panel["gridPos"] for panel in panels if "gridPos" in panel]
    bottom = max((place["y"] + place["h"] for place in places), default=0)
    below = [
        panel
        | {"id": panel["id"] + last}
        | {"gridPos": panel["gridPos"] | {"y": panel["gridPos"]["y"] + bottom}}
        for panel in ours["panels"]
    ]
    return theirs | {"panels": [*panels, *below]}


if __name__ == "__main__":
    theirs, ours = (json.loads(Path(p).read_text("utf-8")) for p in (sys.argv[1], DASHBOARD))
    json.dump(join_dashboards(theirs, ours), sys.stdout, indent=2, ensure_ascii=False)
