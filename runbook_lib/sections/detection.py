"""Section 2: is there an incident? Alert, panel, backlog, ticket, probe. Only reads."""

from __future__ import annotations

from datetime import timedelta

from ..investigation import Investigation
from ..model import Conclusion, Json, Reading, Status
from ..section import ActionStep, SectionParameters, Step
from .alerting import read_alert
from .backlog import read_backlog_bytes, read_backlog_objects
from .panel import read_panel
from .symptoms import conclude_symptoms
from .ticket import read_ticket

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude"]

NAME = "02_signals_detection"
TITLE = "Signals and detection"
# The probe runs every night: an older run says nothing of today.
_PROBE_MAX_AGE = timedelta(hours=26)


class Parameters(SectionParameters):
    """Parameters of section 2."""


def _read_probe(inv: Investigation) -> Reading:
    probe = inv.clients.probe.read_status()
    step = next((s for s in probe.steps if s.name == "timeline_refresh"), None)
    age = inv.now() - probe.ran_at if probe.ran_at else None
    observations: dict[str, Json] = {}
    if age is None or age > _PROBE_MAX_AGE:
        status, reason = Status.UNKNOWN, "the probe has not run within the last 26 hours"
    elif step is not None and step.status == "error":
        status, reason = Status.BREACH, f"the timeline refresh failed: {step.message}"
        observations["probe_refresh_failed"] = True
    elif step is not None and step.status == "ok":
        status, reason = Status.OK, f"the timeline refresh worked {age.total_seconds():.0f} s ago"
        observations["probe_refresh_failed"] = False
    else:
        status = Status.UNKNOWN
        errors = "; ".join(s.message for s in probe.steps if s.status == "error")
        reason = f"the probe did not get to the timeline refresh: {errors or probe.status}"
        observations["probe_failed_before"] = probe.status == "error"
    return inv.make_reading(
        "2.6",
        "probe, timeline refresh",
        status,
        value=step.status if step else probe.status,
        threshold="the timeline refresh has status=error",
        source=f"{inv.clients.probe.url}/status",
        reason=reason,
        rows=[{"step": s.name, "status": s.status, "message": s.message} for s in probe.steps],
        observations=observations,
    )


STEPS = {
    step.id: step
    for step in (
        Step(
            "2.1",
            "Alert FulfillmentDelay, or lag over the threshold",
            read_alert,
            "Prometheus /api/v1/alerts and fulfillment_lag_minutes",
            needed=True,
            name="lag",
        ),
        Step(
            "2.2",
            "Grafana panel Fulfillment backlog",
            read_panel,
            "Grafana dashboard dataflow-overview",
            name="panel",
        ),
        Step(
            "2.3",
            "Backlog objects, metric against listing",
            read_backlog_objects,
            "listing of the bucket and fulfillment_artifacts_backlog_objects",
            needed=True,
            name="backlog objects",
        ),
        Step(
            "2.4",
            "Backlog bytes, metric against listing",
            read_backlog_bytes,
            "listing of the bucket and fulfillment_artifacts_backlog_bytes",
            name="backlog bytes",
        ),
        Step(
            "2.5",
            "Support timeline of a ticket",
            read_ticket,
            "GET /support/cases/{ticketId}?includeTimeline=true",
            name="ticket timeline",
        ),
        Step(
            "2.6",
            "Synthetic probe, timeline refresh",
            _read_probe,
            "GET /status of the synthetic probe",
            name="probe, timeline refresh",
        ),
    )
}
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, from this section's readings in the journal."""
    return conclude_symptoms(inv)
