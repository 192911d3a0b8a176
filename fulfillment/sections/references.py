"""Section 8: every reference of the runbook, checked. Only reads."""

from __future__ import annotations

from pathlib import Path

from runbook_lib.model import Conclusion, Role, Status, Verdict
from runbook_lib.section import (
    ActionStep,
    Outcome,
    SectionParameters,
    Step,
    breach,
    by_id,
    find_unknown,
    left_out,
    ok,
    step,
    unknown,
)

from ..investigation import Investigation
from .detection import ALERT, DASHBOARD_UID, PANEL_TITLE
from .samples import to_rows

NAME = "08_references"
TITLE = "References"
Parameters = SectionParameters

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


def _find_checkout() -> Path | None:
    """Return the folder of this project's checkout; None when it is installed elsewhere."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "Makefile").is_file() else None


def _check_file(path: Path, needle: str = "") -> Outcome:
    """Check that a file is there, and holds a text when one is named."""
    if not path.is_file():
        return breach("the file does not exist")
    if needle.lower() not in path.read_text("utf-8", "replace").lower():
        return breach(f"the file does not mention {needle.strip()!r}")
    return ok("exists" + (f" and mentions {needle.strip()!r}" if needle else ""), value="found")


def _check_own(step_id: str, title: str, name: str, path: str, needle: str = "") -> Step:
    """Return a step on a file of this project."""

    @step(step_id, title, name=name, role=Role.REFERENCE, source=path, threshold="it is missing")
    def check(inv: Investigation) -> Outcome:  # noqa: ARG001
        if (home := _find_checkout()) is None:
            return unknown("this is not run from a checkout")
        return _check_file(home / path, needle)

    return check


def _check_document(step_id: str, path: str, needle: str = "") -> Step:
    """Return a step on a document of DataFlow."""

    @step(
        step_id, f"Document {path}", name=path, role=Role.REFERENCE,
        source=f"$DATAFLOW_HOME/{path}", threshold="it is missing",
    )  # fmt: skip
    def check(inv: Investigation) -> Outcome:
        if (home := inv.settings.dataflow_home) is None:
            return left_out("DATAFLOW_HOME is empty: there is no checkout of DataFlow here")
        return _check_file(home / path, needle)

    return check


@step(
    "8.6", "Dashboard", name=f"dashboard {DASHBOARD_UID}", role=Role.REFERENCE,
    source=f"$grafana_url: dashboard {DASHBOARD_UID}",
    threshold="the panel is missing or asks nothing",
)  # fmt: skip
def _check_dashboard(inv: Investigation) -> Outcome:
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    judge = ok if panel.expressions else breach
    asked = len(panel.expressions)
    reason = f"the panel asks {asked} quer{'y' if asked == 1 else 'ies'}"
    return judge(reason, value=panel.title, source=panel.link)


@step(
    "8.7", "Metrics", name="metrics", role=Role.REFERENCE, unit="metrics",
    source="$prometheus_url/api/v1/query",
    threshold="a metric that the runbook names has no series",
)  # fmt: skip
def _check_metrics(inv: Investigation) -> Outcome:
    names = (*_METRICS, *_CAPACITY)
    counts = {name: len(inv.clients.prometheus.query(name)) for name in names}
    missing = [name for name in _METRICS if not counts[name]]
    if not any(counts[name] for name in _CAPACITY):
        missing.append("any of the store's capacity metrics")
    judge = breach if missing else ok
    return judge(
        f"no series: {', '.join(missing)}" if missing else "every metric has series",
        value=sum(n > 0 for n in counts.values()),
        rows=to_rows(("metric", "series"), counts.items()),
    )


@step(
    "8.8", "Alert rule", name=f"alert {ALERT}", role=Role.REFERENCE, unit="rules",
    source="$prometheus_url/api/v1/rules", threshold="not loaded, or broken",
)  # fmt: skip
def _check_rule(inv: Investigation) -> Outcome:
    rules = [r for r in inv.clients.prometheus.list_rules() if r.name == ALERT]
    if not rules:
        return breach("the rule is not loaded: see addons/README.md", value=0)
    columns, broken = ("rule", "query", "for_s", "state"), any(r.health == "err" for r in rules)
    rows = to_rows(columns, ((r.name, r.query, r.for_s, r.state) for r in rules))
    judge = breach if broken else ok
    reason = "the rule cannot be evaluated" if broken else f"loaded, for {rules[0].for_s:g} s"
    return judge(reason, value=len(rules), rows=rows)


STEPS = by_id(
    _check_own("8.1", "Chaos script", _SCRIPT, _SCRIPT),
    _check_own("8.2", "Make target", f"make {_TARGET}", "Makefile", f"\n{_TARGET}:"),
    _check_document("8.3", "docs/monitoring/README.md"),
    _check_document("8.4", "docs/monitoring/incident-runbook.md", "Fulfillment artifacts backlog"),
    _check_document("8.5", "docs/design/implementation/wave-4-ops-hardening.md"),
    _check_dashboard,
    _check_metrics,
    _check_rule,
)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which references hold: this section judges no symptom."""
    readings = inv.latest()
    broken = [s for s in STEPS if s in readings and readings[s].status is Status.BREACH]
    missing = find_unknown(STEPS, readings)
    absent = [s for s in STEPS if s in readings and readings[s].status is Status.LEFT_OUT]
    held = len(STEPS) - len(broken) - len(missing) - len(absent)
    return Conclusion(
        section=NAME,
        verdict=Verdict.HEALTHY if held else Verdict.UNKNOWN,
        summary=f"{held} of {len(STEPS)} references hold"
        + (f"; broken: {', '.join(broken)}" if broken else "")
        + (f"; not checked: {', '.join(missing)}" if missing else "")
        + (f"; left out: {', '.join(absent)}" if absent else ""),
        unknown_steps=missing,
    )
