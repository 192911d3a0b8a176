"""Sections 1, 2, 3, 5 and 8, read-only, then the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..errors import UsageError
from ..exit_codes import ExitCode, compute_exit_code
from ..model import Finding, Reading, Status, Verdict
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
    "combine_verdicts",
    "get_incident",
    "investigate",
    "read_journal_facts",
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
    runs = run_sections(
        incident,
        READ_ONLY_SECTIONS,
        parameters={"ticket_id": ticket_id, "window_minutes": window_minutes},
        progress=progress,
    )
    verdict = combine_verdicts(runs)
    if verdict is Verdict.HEALTHY and is_new:
        close_incident(incident, verdict)
    else:
        incident.update(verdict=str(verdict))
    report = write_outputs(incident)
    readings, findings = read_journal_facts(incident)
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
        causes=findings,
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


def combine_verdicts(runs: Iterable[NotebookRun]) -> Verdict:
    """Return the incident's verdict from sections 2, 3 and 5.

    An incident that one section proves is an incident whatever the others could not read. A cause
    that section 5 supports counts too: with failing uploads no label waits, and none ships.
    """
    verdicts = {run.name: run.conclusion.verdict for run in runs if run.conclusion}
    if Verdict.INCIDENT in verdicts.values():
        return Verdict.INCIDENT
    symptoms = {verdicts.get(name) for name in ("02_signals_detection", "03_immediate_actions")}
    return Verdict.HEALTHY if symptoms == {Verdict.HEALTHY} else Verdict.UNKNOWN


def read_journal_facts(incident: Incident) -> tuple[dict[str, Reading], tuple[Finding, ...]]:
    """Return the newest reading of each step and the newest findings, from the journal."""
    readings: dict[str, Reading] = {}
    findings: tuple[Finding, ...] = ()
    for entry in incident.journal.read():
        if entry.kind == "reading":
            reading = Reading.model_validate(entry.data["reading"])
            readings[reading.step] = reading
        elif entry.kind == "conclusion" and entry.data["conclusion"]["findings"]:
            findings = tuple(map(Finding.model_validate, entry.data["conclusion"]["findings"]))
    return dict(sorted(readings.items(), key=lambda item: _step_order(item[0]))), findings


def _step_order(step: str) -> tuple[int, ...]:
    return tuple(int(part) for part in step.split(".") if part.isdigit())


def _known(section: SectionModule, given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in section.Parameters.model_fields}
