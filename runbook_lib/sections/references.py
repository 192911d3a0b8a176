"""Section 8: every reference of the runbook, checked. Only reads."""

from __future__ import annotations

from pathlib import Path

from ..investigation import Investigation
from ..model import Conclusion, Reading, Status, Verdict
from ..section import ActionStep, SectionParameters, Step
from .alerting import ALERT
from .panel import DASHBOARD_UID, PANEL_TITLE

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude"]

NAME = "08_references"
TITLE = "References"
_SCRIPT = "scripts/chaos/simulate_fulfillment_delay.py"
_TARGET = "chaos-fulfillment-delay"
_METRICS = (
    "fulfillment_lag_minutes",
    "fulfillment_artifacts_backlog_objects",
    "fulfillment_artifacts_backlog_bytes",
)
#: DataFlow's runbook names the first; MinIO exports the others (v2 metrics).
_CAPACITY = (
    "minio_cluster_capacity_free_bytes",
    "minio_cluster_capacity_usable_free_bytes",
    "minio_cluster_capacity_raw_free_bytes",
)
_INCIDENT_HEADING = "Fulfillment artifacts backlog"


class Parameters(SectionParameters):
    """Parameters of section 8."""


def _find_checkout() -> Path | None:
    """Return the folder of this project's checkout; None when it is installed elsewhere."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "Makefile").is_file() else None


def _check_file(
    inv: Investigation, step: str, name: str, *, home: Path | None, setting: str, needle: str = ""
) -> Reading:
    """Check that a file is there, and holds a text when one is named."""
    path = home / name if home else None
    if path is None:
        status, reason = Status.UNKNOWN, setting
    elif not path.is_file():
        status, reason = Status.BREACH, "the file does not exist"
    elif needle and needle.lower() not in path.read_text("utf-8", "replace").lower():
        status, reason = Status.BREACH, f"the file does not mention {needle.strip()!r}"
    else:
        status, reason = (
            Status.OK,
            "exists" + (f" and mentions {needle.strip()!r}" if needle else ""),
        )
    return inv.make_reading(
        step,
        name,
        status,
        value="found" if status is Status.OK else None,
        threshold="it is missing",
        source=name,
        reason=reason,
    )


def _read_script(inv: Investigation) -> Reading:
    return _check_file(
        inv, "8.1", _SCRIPT, home=_find_checkout(), setting="this is not run from a checkout"
    )


def _read_target(inv: Investigation) -> Reading:
    return _check_file(
        inv,
        "8.2",
        "Makefile",
        home=_find_checkout(),
        setting="this is not run from a checkout",
        needle=f"\n{_TARGET}:",
    )


def _read_document(step: str, name: str, needle: str = "") -> Step:
    def read(inv: Investigation) -> Reading:
        return _check_file(
            inv,
            step,
            name,
            home=inv.settings.dataflow_home,
            setting="DATAFLOW_HOME is not set: set it to a checkout of DataFlow",
            needle=needle,
        )

    return Step(step, f"Document {name}", read, f"$DATAFLOW_HOME/{name}", name=name)


def _read_dashboard(inv: Investigation) -> Reading:
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    return inv.make_reading(
        "8.6",
        f"dashboard {DASHBOARD_UID}",
        Status.OK if panel.expressions else Status.BREACH,
        value=panel.title,
        threshold="the panel is missing or asks nothing",
        source=panel.link,
        reason=f"the panel asks {len(panel.expressions)} queries",
    )


def _read_metrics(inv: Investigation) -> Reading:
    prometheus = inv.clients.prometheus
    counts = {name: len(prometheus.query(name)) for name in (*_METRICS, *_CAPACITY)}
    missing = [name for name in _METRICS if not counts[name]]
    if not any(counts[name] for name in _CAPACITY):
        missing.append("any of the store's capacity metrics")
    return inv.make_reading(
        "8.7",
        "metrics",
        Status.BREACH if missing else Status.OK,
        value=sum(n > 0 for n in counts.values()),
        unit="metrics",
        threshold="a metric that the runbook names has no series",
        source=f"{prometheus.url}/api/v1/query",
        reason=f"no series: {', '.join(missing)}" if missing else "every metric has series",
        rows=[{"metric": name, "series": n} for name, n in counts.items()],
    )


def _read_rule(inv: Investigation) -> Reading:
    rules = [r for r in inv.clients.prometheus.list_rules() if r.name == ALERT]
    broken = [r for r in rules if r.health == "err"]
    if not rules:
        status, reason = Status.BREACH, "the rule is not loaded: see addons/README.md"
    elif broken:
        status, reason = Status.BREACH, "the rule cannot be evaluated"
    else:
        status, reason = Status.OK, f"loaded, for {rules[0].for_s:g} s"
    return inv.make_reading(
        "8.8",
        f"alert {ALERT}",
        status,
        value=len(rules),
        unit="rules",
        threshold="not loaded, or broken",
        source=f"{inv.clients.prometheus.url}/api/v1/rules",
        reason=reason,
        rows=[
            {"rule": r.name, "query": r.query, "for_s": r.for_s, "state": r.state} for r in rules
        ],
    )


STEPS = {
    step.id: step
    for step in (
        Step("8.1", "Chaos script", _read_script, _SCRIPT, name=_SCRIPT),
        Step("8.2", "Make target", _read_target, "Makefile", name=f"make {_TARGET}"),
        _read_document("8.3", "docs/monitoring/README.md"),
        _read_document("8.4", "docs/monitoring/incident-runbook.md", _INCIDENT_HEADING),
        _read_document("8.5", "docs/design/implementation/wave-4-ops-hardening.md"),
        Step("8.6", "Dashboard", _read_dashboard, "Grafana", name=f"dashboard {DASHBOARD_UID}"),
        Step("8.7", "Metrics", _read_metrics, "Prometheus", name="metrics"),
        Step("8.8", "Alert rule", _read_rule, "Prometheus /api/v1/rules", name=f"alert {ALERT}"),
    )
}
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which references hold: this section judges no symptom."""
    readings = inv.latest()
    broken = [s for s in STEPS if s in readings and readings[s].status is Status.BREACH]
    unknown = tuple(s for s in STEPS if s not in readings or readings[s].status is Status.UNKNOWN)
    held = len(STEPS) - len(broken) - len(unknown)
    return Conclusion(
        section=NAME,
        verdict=Verdict.HEALTHY if held else Verdict.UNKNOWN,
        summary=f"{held} of {len(STEPS)} references hold"
        + (f"; broken: {', '.join(broken)}" if broken else "")
        + (f"; not checked: {', '.join(unknown)}" if unknown else ""),
        unknown_steps=unknown,
    )
