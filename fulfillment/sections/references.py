"""Section 8: every reference of the runbook, checked. Only reads."""

from __future__ import annotations

from runbook_lib.model import Conclusion, Outcome, Role, Status, Verdict
from runbook_lib.section import (
    ActionStep,
    ReadStep,
    SectionParameters,
    by_id,
    rows_of,
    step,
    to_rows,
)
from runbook_lib.settings import find_checkout

from ..investigation import Investigation
from .detection import ALERT, DASHBOARD_UID, PANEL_TITLE

NAME = "08_references"
TITLE = "References"
Parameters = SectionParameters

_TARGET = "chaos-fulfillment-delay"
_BACKLOG = [f"fulfillment_artifacts_backlog_{unit}" for unit in ("objects", "bytes")]
_METRICS = ["fulfillment_lag_minutes", *_BACKLOG]
#: DataFlow's runbook names the first; MinIO exports the others (v2 metrics).
_CAPACITY = [f"minio_cluster_capacity_{part}free_bytes" for part in ("", "usable_", "raw_")]


def _check_file(
    step_id: str, path: str, needle: str = "", own: str = "", name: str = ""
) -> ReadStep:
    """Return a step on a file of DataFlow, and on a text in it when one is named.

    Parameters
    ----------
    own : the step's title; the file is one of ours
    name : of its readings, where it is not the path
    """
    source = path if own else f"$DATAFLOW_HOME/{path}"
    title, name = own or f"Document {path}", name or path

    @step(step_id, title, name=name, role=Role.REFERENCE, source=source, threshold="it is missing")
    def check(inv: Investigation) -> Outcome:
        seen, home = Outcome(), find_checkout() if own else inv.settings.dataflow_home
        if home is None and own:
            return seen.unknown("this is not run from a checkout")
        if home is None:
            return seen.left_out("DATAFLOW_HOME is empty: there is no checkout of DataFlow here")
        if not (home / path).is_file():
            return seen.breach("the file does not exist")
        if needle.lower() not in (home / path).read_text("utf-8", "replace").lower():
            return seen.breach(f"the file does not mention {needle.strip()!r}")
        mentions = f" and mentions {needle.strip()!r}" if needle else ""
        return Outcome(value="found").ok(f"exists{mentions}")

    return check


@step(
    "8.6", "Dashboard", name=f"dashboard {DASHBOARD_UID}", role=Role.REFERENCE,
    source=f"$grafana_url: dashboard {DASHBOARD_UID}",
    threshold="the panel is missing or asks nothing",
)  # fmt: skip
def _check_dashboard(inv: Investigation) -> Outcome:
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    seen, asked = Outcome(value=panel.title, source=panel.link), len(panel.expressions)
    reason = f"the panel asks {asked} quer{'y' if asked == 1 else 'ies'}"
    return seen.ok(reason) if asked else seen.breach(reason)


@step(
    "8.7", "Metrics", name="metrics", role=Role.REFERENCE, unit="metrics",
    source="$prometheus_url/api/v1/query",
    threshold="a metric that the runbook names has no series",
)  # fmt: skip
def _check_metrics(inv: Investigation) -> Outcome:
    counts = {name: len(inv.clients.prometheus.query(name)) for name in (*_METRICS, *_CAPACITY)}
    missing = [name for name in _METRICS if not counts[name]]
    if not any(counts[name] for name in _CAPACITY):
        missing.append("any of the store's capacity metrics")
    rows = to_rows(("metric", "series"), counts.items())
    seen = Outcome(value=sum(n > 0 for n in counts.values()), rows=rows)
    if missing:
        return seen.breach(f"no series: {', '.join(missing)}")
    return seen.ok("every metric has series")


@step(
    "8.8", "Alert rule", name=f"alert {ALERT}", role=Role.REFERENCE, unit="rules",
    source="$prometheus_url/api/v1/rules", threshold="not loaded, or broken",
)  # fmt: skip
def _check_rule(inv: Investigation) -> Outcome:
    rules = [r for r in inv.clients.prometheus.list_rules() if r.name == ALERT]
    seen = Outcome(value=len(rules), rows=rows_of(rules, "query", "for_s", "state", rule="name"))
    if not rules:
        return seen.breach("the rule is not loaded: see addons/README.md")
    if any(r.health == "err" for r in rules):
        return seen.breach("the rule cannot be evaluated")
    return seen.ok(f"loaded, for {rules[0].for_s:g} s")


STEPS = by_id(
    _check_file("8.1", "scripts/chaos/simulate_fulfillment_delay.py", own="Chaos script"),
    _check_file("8.2", "Makefile", f"\n{_TARGET}:", own="Make target", name=f"make {_TARGET}"),
    _check_file("8.3", "docs/monitoring/README.md"),
    _check_file("8.4", "docs/monitoring/incident-runbook.md", "Fulfillment artifacts backlog"),
    _check_file("8.5", "docs/design/implementation/wave-4-ops-hardening.md"),
    *(_check_dashboard, _check_metrics, _check_rule),
)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which references hold: this section judges no symptom."""
    readings = inv.latest()
    found = {s: readings[s].status if s in readings else Status.UNKNOWN for s in STEPS}
    told = {Status.BREACH: "broken", Status.UNKNOWN: "not checked", Status.LEFT_OUT: "left out"}
    steps = {what: [s for s in STEPS if found[s] is status] for status, what in told.items()}
    rest = "".join(f"; {what}: {', '.join(which)}" for what, which in steps.items() if which)
    held = [*found.values()].count(Status.OK)
    verdict = Verdict.HEALTHY if held else Verdict.UNKNOWN
    return Conclusion(verdict=verdict, summary=f"{held} of {len(STEPS)} references hold{rest}")
