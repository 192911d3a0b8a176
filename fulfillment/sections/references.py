"""Section 8: every reference of the runbook, checked. Only reads."""

from __future__ import annotations

from pathlib import Path

from runbook_lib.model import Conclusion, Outcome, Role, Status, Verdict
from runbook_lib.section import (
    ActionStep,
    SectionParameters,
    Step,
    by_id,
    rows_of,
    step,
    to_rows,
)
from runbook_lib.settings import find_checkout

from ..investigation import Investigation
from .signals import ALERT, DASHBOARD_UID, PANEL_TITLE

NAME = "08_references"
TITLE = "References"
Parameters = SectionParameters

_METRICS = [
    "fulfillment_lag_minutes",
    "fulfillment_artifacts_backlog_objects",
    "fulfillment_artifacts_backlog_bytes",
]
#: The steps that check a document.
DOCUMENTS = ("8.3", "8.4", "8.5")
#: One of these is enough: DataFlow's runbook names the first, MinIO exports the rest.
_CAPACITY_METRICS = [
    "minio_cluster_capacity_free_bytes",
    "minio_cluster_capacity_usable_free_bytes",
    "minio_cluster_capacity_raw_free_bytes",
]


def _make_file_step(
    step_id: str, title: str, path: str, wanted: str = "", *, is_ours: bool = False
) -> Step:
    """Return a step that checks that a file of DataFlow exists, and contains a text.

    If DATAFLOW_HOME is empty, it checks our own file if the file ``is_ours``, too.
    """

    @step(
        step_id,
        title,
        name=path,
        role=Role.REFERENCE,
        source=f"$DATAFLOW_HOME/{path}",
        threshold="the file, or a wanted text in it, is missing",
    )
    def check(inv: Investigation) -> Outcome:
        home = inv.settings.dataflow_home
        if home is None and is_ours:
            home = find_checkout()
        if home is None:
            return Outcome().left_out("DATAFLOW_HOME is empty: there is no checkout of DataFlow")
        return _check_file(home / path, wanted)

    return check


def _check_file(path: Path, wanted: str) -> Outcome:
    """Check that a file exists and contains a text, in any case."""
    if not path.is_file():
        return Outcome().breach("the file does not exist")
    if wanted.lower() not in path.read_text("utf-8", "replace").lower():
        return Outcome().breach(f"the file does not mention {wanted.strip()!r}")
    return Outcome(value="found").ok("the file exists")


@step(
    "8.6",
    "Dashboard",
    name=f"dashboard {DASHBOARD_UID}",
    role=Role.REFERENCE,
    source=f"$grafana_url/d/{DASHBOARD_UID}",
    threshold="the panel is missing, or has no query",
)
def _check_dashboard(inv: Investigation) -> Outcome:
    """Check that Grafana has the panel, with a query."""
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    outcome = Outcome(value=panel.title, source=panel.link)
    if not panel.expressions:
        return outcome.breach("the panel has no query")
    return outcome.ok(f"queries of the panel: {len(panel.expressions)}")


@step(
    "8.7",
    "Metrics",
    name="metrics",
    role=Role.REFERENCE,
    unit="metrics",
    source="$prometheus_url/api/v1/query",
    threshold="a needed metric has no series",
)
def _check_metrics(inv: Investigation) -> Outcome:
    """Check that each of the runbook's metrics has a series, and one of the capacity metrics."""
    prometheus = inv.clients.prometheus
    counts = {name: len(prometheus.query(name)) for name in (*_METRICS, *_CAPACITY_METRICS)}
    missing = [name for name in _METRICS if not counts[name]]
    if not any(counts[name] for name in _CAPACITY_METRICS):
        missing.append("the store's free capacity")
    outcome = Outcome(
        value=sum(count > 0 for count in counts.values()),
        rows=to_rows(("metric", "series"), counts.items()),
    )
    if missing:
        return outcome.breach(f"no series: {', '.join(missing)}")
    return outcome.ok("every needed metric has series")


@step(
    "8.8",
    "Alert rule",
    name=f"alert {ALERT}",
    role=Role.REFERENCE,
    unit="rules",
    source="$prometheus_url/api/v1/rules",
    threshold="the rule is not loaded, or is broken",
)
def _check_rule(inv: Investigation) -> Outcome:
    """Check that FulfillmentDelay's rule is loaded, and can be evaluated."""
    rules = [rule for rule in inv.clients.prometheus.list_rules() if rule.name == ALERT]
    rows = rows_of(rules, "query", "for_s", "state", rule="name")
    outcome = Outcome(value=len(rules), rows=rows)
    if not rules:
        return outcome.breach("the rule is not loaded: see addons/README.md")
    if any(rule.health == "err" for rule in rules):
        return outcome.breach("the rule cannot be evaluated")
    return outcome.ok(f"the rule is loaded, with a `for` of {rules[0].for_s:g} s")


STEPS = by_id(
    _make_file_step(
        "8.1", "Chaos script", "scripts/chaos/simulate_fulfillment_delay.py", is_ours=True
    ),
    _make_file_step("8.2", "Make target", "Makefile", "\nchaos-fulfillment-delay:", is_ours=True),
    _make_file_step("8.3", "Monitoring and drills", "docs/monitoring/README.md"),
    _make_file_step(
        "8.4",
        "Incident runbook",
        "docs/monitoring/incident-runbook.md",
        "Fulfillment artifacts backlog",
    ),
    _make_file_step("8.5", "Plan", "docs/design/implementation/wave-4-ops-hardening.md"),
    _check_dashboard,
    _check_metrics,
    _check_rule,
)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say how many references are right, and which aren't.

    Outside an incident, the verdict is ``healthy`` if any reference is right, else ``unknown``.
    """
    readings = [reading for step_id, reading in inv.latest().items() if step_id in STEPS]
    right = [reading for reading in readings if reading.status is Status.OK]
    others = [
        f"{reading.step} {reading.status.replace('_', ' ')}"
        for reading in readings
        if reading not in right
    ]
    summary = "; ".join([f"{len(right)} of {len(STEPS)} references are right", *others])
    verdict = Verdict.HEALTHY if right else Verdict.UNKNOWN
    return inv.conclude_without_symptoms(verdict, summary)
