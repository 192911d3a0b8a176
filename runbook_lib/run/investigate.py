"""Sections 1, 2, 3, 5 and 8, read-only, then the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..errors import UsageError
from ..exit_codes import ExitCode, compute_exit_code
from ..model import Status, Verdict
from ..record.incident import Incident, create_incident, open_incident
from ..record.log import utc_now
from ..redact import Redactor
from ..section import SectionModule
from ..sections import SECTIONS
from ..settings import Settings
from .documents import InvestigateDocument, NotebookResult, UnknownStep
from .finish import close_incident, write_outputs
from .notebooks import NotebookRun, RunStatus, run_notebook

__all__ = [
    "READ_ONLY_SECTIONS",
    "get_incident",
    "investigate",
    "run_sections",
]

READ_ONLY_SECTIONS = (
    "01_purpose",
    "02_signals_detection",
    "03_immediate_actions",
    "05_root_cause",
    "08_references",
)
Progress = Callable[[str], None]


def get_incident(settings: Settings, incident_id: str = "") -> tuple[Incident, bool]:
    """Open the named or newest open incident, or make one; says whether it was made."""
    redactor = Redactor(settings.secrets)
    home = settings.runbook_home.resolve()
    if (found := open_incident(home, incident_id, redactor=redactor)) is not None:
        return found, False
    return (
        create_incident(home, redactor=redactor, environment=settings.runbook_environment),
        True,
    )


def run_sections(
    incident: Incident,
    names: Iterable[str],
    *,
    parameters: Mapping[str, object] | None = None,
    progress: Progress = lambda _: None,
) -> list[NotebookRun]:
    """Run notebooks one after the other; each gets the parameters that its section knows.

    Notes
    -----
    A notebook that fails does not stop the next one. On Ctrl-C the report is written before
    ``KeyboardInterrupt`` goes on.
    """
    runs: list[NotebookRun] = []
    try:
        for name in names:
            section = SECTIONS[name]
            progress(name)
            runs.append(run_notebook(section, incident, _known(section, parameters or {})))
    except KeyboardInterrupt:
        incident.journal.append("interrupted", {"section": ""})
        write_outputs(incident)
        raise
    return runs


def investigate(
    settings: Settings,
    *,
    incident_id: str = "",
    ticket_id: str = "",
    window_minutes: float = 60,
    progress: Progress = lambda _: None,
) -> InvestigateDocument:
    """Carry out the read-only sections and write the report.

    Raises
    ------
    UsageError
        When a parameter is wrong; nothing ran.
    """
    incident, is_new = get_incident(settings, incident_id)
    if not is_new and not incident.is_open:
        raise UsageError(f"incident {incident.id} is closed; leave --incident out for a new one")
    if ticket_id:
        incident.update(ticket_id=ticket_id)
    before = incident.journal.view().last_seq
    runs = run_sections(
        incident,
        READ_ONLY_SECTIONS,
        parameters={"ticket_id": ticket_id, "window_minutes": window_minutes},
        progress=progress,
    )
    journal = incident.journal.view()
    verdict = journal.verdict(after=before) or Verdict.UNKNOWN
    if verdict is Verdict.HEALTHY:
        verdict = journal.verdict() or verdict
    if verdict is Verdict.HEALTHY and is_new:
        close_incident(incident, verdict)
    report = write_outputs(incident)
    readings = journal.latest()
    code = compute_exit_code(verdict)
    if code is not ExitCode.NOT_OK and any(run.status is RunStatus.FAILED for run in runs):
        code = ExitCode.RUN_FAILED
    return InvestigateDocument(
        schema_name="runbook/investigate/1",
        at=utc_now(),
        incident=incident.id,
        verdict=verdict,
        exit_code=code,
        readings=tuple(readings.values()),
        causes=journal.findings(),
        unknown=tuple(
            UnknownStep(step=r.step, reason=r.reason)
            for r in readings.values()
            if r.status is Status.UNKNOWN
        ),
        notebooks=tuple(to_result(run) for run in runs),
        report=str(report),
    )


def to_result(run: NotebookRun) -> NotebookResult:
    """Return what a document says of a run."""
    return NotebookResult(
        notebook=run.path.name,
        status=str(run.status),
        duration_s=run.duration_s,
        error=str(run.error or ""),
    )


def _known(section: SectionModule, given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in section.Parameters.model_fields}
