"""Sections headless, then the report: ``runbook investigate`` and ``runbook run``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import UsageError
from ..exit_codes import ExitCode, compute_exit_code
from ..investigation import Investigation
from ..model import Json, Progress, Role, Status, Verdict, keep_quiet
from ..record.incident import Incident
from ..record.log import utc_now
from ..report import preload, write_outputs
from ..section import SectionModule, Sections, check_parameters
from ..settings import Settings
from ..show.tables import tabulate_plans
from .documents import InvestigateDocument, RunDocument, UnknownStep
from .notebooks import NotebookRun, RunStatus, SharedKernel, run_notebook


def run_sections(
    incident: Incident,
    sections: Sections,
    names: Iterable[str],
    *,
    parameters: Mapping[str, object] | None = None,
    progress: Progress = keep_quiet,
    kernel: SharedKernel | None = None,
) -> list[NotebookRun]:
    """Run notebooks one after the other; each gets the parameters that its section knows.

    Parameters
    ----------
    kernel : one that was started before; it is stopped at the end

    Notes
    -----
    A notebook that fails does not stop the next one. On Ctrl-C the report is written before
    ``KeyboardInterrupt`` goes on.
    """
    runs: list[NotebookRun] = []
    try:
        with kernel or SharedKernel() as used:
            for name in names:
                progress(name)
                given = _pick(sections[name], parameters or {})
                runs.append(run_notebook(sections, name, incident, given, kernel=used))
    except KeyboardInterrupt:
        incident.journal.append("interrupted", {"section": ""})
        write_outputs(incident, sections)
        raise
    return runs


def investigate(
    settings: Settings,
    sections: Sections,
    *,
    incident_id: str = "",
    ticket_id: str = "",
    window_minutes: float = 60,
    progress: Progress = keep_quiet,
) -> InvestigateDocument:
    """Carry out the read-only sections and write the report.

    Raises
    ------
    UsageError
        When a parameter is wrong; nothing ran.
    """
    with SharedKernel() as kernel:
        kernel.begin()
        preload()
        incident, is_new = _find(settings, sections, incident_id, ticket_id)
        before = incident.journal.view().last_seq
        given = {"ticket_id": ticket_id, "window_minutes": window_minutes}
        runs = run_sections(
            incident,
            sections,
            sections.read_only,
            parameters=given,
            progress=progress,
            kernel=kernel,
        )
    journal = incident.journal.view()
    verdict = journal.verdict(after=before) or Verdict.UNKNOWN
    if verdict is Verdict.HEALTHY:
        verdict = journal.verdict() or verdict
    report = _end(incident, sections, runs, is_new=is_new)
    readings, now = journal.latest(), utc_now()
    unread = [reading for reading in readings.values() if reading.status is Status.UNKNOWN]
    notebook, _ = journal.way_on(now)
    code = compute_exit_code(verdict)
    if code is not ExitCode.NOT_OK and any(run.status is RunStatus.FAILED for run in runs):
        code = ExitCode.RUN_FAILED
    return InvestigateDocument(
        schema_name="runbook/investigate/1",
        at=now,
        incident=incident.id,
        verdict=verdict,
        exit_code=code,
        readings=tuple(readings.values()),
        causes=journal.findings(),
        unknown=tuple(UnknownStep(step=r.step, reason=r.reason) for r in unread),
        notebooks=tuple(runs),
        report=str(report),
        log=journal.log_entry(now),
        advice=journal.advice(now),
        next="" if verdict is Verdict.HEALTHY else f"runbook run {notebook[:2]}",
    )


def run_chosen(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    *,
    incident_id: str = "",
    parameters: Mapping[str, str],
    progress: Progress = keep_quiet,
) -> RunDocument:
    """Run the notebooks of the named sections and write the report.

    Parameters
    ----------
    names : such as ``06`` or ``remediation``
    parameters : each section gets those that it knows; one that none knows is an error

    Raises
    ------
    UsageError
        Before a kernel starts, when a section or parameter is unknown or a value is wrong.
    """
    chosen = [sections.find(name) for name in names]
    known = {name for section in chosen for name in section.Parameters.model_fields}
    if unknown := sorted(parameters.keys() - known):
        has = ", ".join(sorted(known))
        raise UsageError(f"none of these sections has a parameter {unknown[0]!r}; they have {has}")
    for section in chosen:
        check_parameters(section, _pick(section, parameters))
    named = incident_id or parameters.get("incident_id", "")
    incident, is_new = _find(settings, sections, named, parameters.get("ticket_id", ""))
    first = incident.journal.view().last_seq
    names = [section.NAME for section in chosen]
    runs = run_sections(incident, sections, names, parameters=parameters, progress=progress)
    report = _end(incident, sections, runs, is_new=is_new)
    verdict = _verdict(runs, sections)
    return RunDocument(
        schema_name="runbook/run/1",
        incident=incident.id,
        verdict=verdict,
        exit_code=_exit_code(runs, verdict),
        notebooks=tuple(runs),
        plans=tuple(_plans(incident, first)),
        report=str(report),
    )


def _pick(section: SectionModule, given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that a section knows."""
    return {k: v for k, v in given.items() if k in section.Parameters.model_fields}


def _find(
    settings: Settings, sections: Sections, incident_id: str, ticket_id: str
) -> tuple[Incident, bool]:
    opener = sections.investigation or Investigation
    opener.check_ticket(settings, ticket_id)
    incident, is_new = opener.find(settings, incident_id)
    if incident.is_closed:
        raise UsageError(
            f"incident {incident.id} is closed, and its report stays as it is; leave --incident "
            "out, or write --incident new"
        )
    return incident, is_new


def _end(
    incident: Incident, sections: Sections, runs: Sequence[NotebookRun], *, is_new: bool
) -> Path:
    """Write the report, the last one of an incident that these runs closed.

    A look that this command made is over when nothing was wrong and no plan waits.
    """
    journal = incident.journal.view()
    plans = (plan.result.get("is_empty") for plan in journal.list_plans().values())
    if is_new and not (incident.is_open or incident.is_closed):
        if all(plans):
            incident.close()
        else:
            incident.update(kept=True)
    if incident.is_closed and sections.having(Role.CLEARED) & {run.section for run in runs}:
        incident.closed_here = True
    return write_outputs(incident, sections)


def _verdict(runs: Sequence[NotebookRun], sections: Sections) -> Verdict | None:
    """Return what the section that reads recovery says, else the worst that was said."""
    said = {run.section: run.conclusion.verdict for run in runs if run.conclusion}
    judged = [verdict for name, verdict in said.items() if name in sections.having(Role.RECOVERY)]
    order = (*judged, Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED, Verdict.UNKNOWN)
    return next((v for v in (*order, *said.values()) if v in said.values()), None)


def _exit_code(runs: Sequence[NotebookRun], verdict: Verdict | None) -> ExitCode:
    codes = {run.exit_code for run in runs}
    for code in (ExitCode.USAGE, ExitCode.RUN_FAILED, ExitCode.REFUSED):
        if code in codes:
            return code
    return ExitCode.OK if verdict is None else compute_exit_code(verdict)


def _plans(incident: Incident, first: int) -> Iterator[dict[str, Json]]:
    """Yield what was planned past an entry; ``apply`` is the command that approves a plan."""
    for row in tabulate_plans(incident.journal.view(), after=first).rows:
        section, plan = row["step"].partition(".")[0].zfill(2), row["plan"]
        named = f"runbook run {section} --incident {incident.id} -p plan={plan}"
        is_open = row["status"] == "planned"
        yield {
            **{name: value for name, value in row.items() if name != "hash"},
            "apply": f"{named} -p approve={row['sha256']}" if is_open else "",
        }
