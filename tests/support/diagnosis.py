"""Section 5 as an operator gets it: read every step, conclude. Only reads."""

from __future__ import annotations

from fulfillment.investigation import Investigation
from fulfillment.sections import root_cause
from fulfillment.settings import Settings
from runbook_lib.model import CauseStatus, Conclusion
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor


def open_diagnosis(settings: Settings) -> Investigation:
    incident = create_incident(
        settings.runbook_home,
        redactor=Redactor(settings.secrets),
        environment=settings.runbook_environment,
    )
    return Investigation.open(incident.id, section=root_cause, settings=settings)


def ask_why(inv: Investigation) -> Conclusion:
    for step in root_cause.STEPS:
        inv.read_step(step)
    return inv.conclude()


def list_causes(conclusion: Conclusion, status: CauseStatus) -> set[str]:
    return {str(f.name) for f in conclusion.findings if f.status is status}
