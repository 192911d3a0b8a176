"""Sections headless, then the report: ``runbook investigate`` and ``runbook run``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

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
from .documents import InvestigateDocument, RunDocument
from .notebooks import NotebookRun, RunStatus, SharedKernel, run_notebook


def run_sections(
    incident: Incident,
    sections: Sections,
    names: Iterable[str],
    parameters: Mapping[str, object] | None = None,
    *,
    progress: Progress = keep_quiet,
) -> list[NotebookRun]:
    """Run notebooks one after the other; each gets the parameters that its section knows.

    Notes
    -----
    A notebook that fails does not stop the next one. On Ctrl-C the report is written before
    ``KeyboardInterrupt`` goes on.
    """
    runs: list[NotebookRun] = []
    try:
        with SharedKernel() as kernel:
            kernel.begin()
            preload()
            for name in names:
                progress(name)
                given = _pick(sections[name], parameters or {})
                runs.append(run_notebook(sections, name, incident, given, kernel=kernel))
    except KeyboardInterrupt:
        incident.journal.append("interrupted", {"section": ""})
        write_outputs(incident, sections)
        raise
    return runs


def investigate(
    settings: Settings, sections: Sections, *, progress: Progress = keep_quiet, **parameters: object
) -> InvestigateDocument:
    """Carry out the read-only sections and write the report.

    Parameters
    ----------
    parameters : such as ``incident_id``; each section gets those that it knows

    Raises
    ------
    UsageError
        When a parameter is wrong; nothing ran.
    """
    done = _carry_out(settings, sections, sections.read_only, parameters, progress)
    journal = done.incident.journal.view()
    verdict = journal.verdict(after=done.after) or Verdict.UNKNOWN
    if verdict is Verdict.HEALTHY:
        verdict = journal.verdict() or verdict
    readings, now = journal.latest(), utc_now()
    unread = [r for r in readings.values() if r.status is Status.UNKNOWN]
    notebook, _ = journal.way_on(now)
    code = compute_exit_code(verdict)
    if code is not ExitCode.NOT_OK and any(run.status is RunStatus.FAILED for run in done.runs):
        code = ExitCode.RUN_FAILED
    return InvestigateDocument(
        schema_name="runbook/investigate/1",
        at=now,
        incident=done.incident.id,
        verdict=verdict,
        exit_code=code,
        readings=tuple(readings.values()),
        causes=journal.findings(),
        unknown=tuple({"step": r.step, "reason": r.reason} for r in unread),
        notebooks=done.runs,
        report=done.report,
        log=journal.log_entry(now),
        advice=journal.advice(now),
        next="" if verdict is Verdict.HEALTHY else f"runbook run {notebook[:2]}",
    )


def run_chosen(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    *,
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
    names = [section.NAME for section in chosen]
    done = _carry_out(settings, sections, names, parameters, progress)
    verdict = _verdict(done.runs, sections)
    return RunDocument(
        schema_name="runbook/run/1",
        incident=done.incident.id,
        verdict=verdict,
        exit_code=_exit_code(done.runs, verdict),
        notebooks=done.runs,
        plans=tuple(_plans(done)),
        report=done.report,
    )


def _pick(section: SectionModule, given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that a section knows."""
    return {k: v for k, v in given.items() if k in section.Parameters.model_fields}


class _Done(NamedTuple):
    """What was carried out on an incident, past which entry of its journal."""

    incident: Incident
    after: int
    runs: tuple[NotebookRun, ...]
    report: str


def _carry_out(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    parameters: Mapping[str, object],
    progress: Progress,
) -> _Done:
    """Find the incident, run sections on it and write the report.

    It is the last one of an incident that these runs closed. A look that this command made is over
    when nothing was wrong and no plan waits.
    """
    opener = sections.investigation or Investigation
    opener.check_ticket(settings, str(parameters.get("ticket_id", "")))
    incident, is_new = opener.find(settings, str(parameters.get("incident_id", "")))
    if incident.is_closed:
        raise UsageError(
            f"incident {incident.id} is closed, and its report stays as it is; leave --incident "
            "out, or write --incident new"
        )
    after = incident.journal.view().last_seq
    runs = run_sections(incident, sections, names, parameters, progress=progress)
    if is_new and not (incident.is_open or incident.is_closed):
        plans = incident.journal.view().list_plans().values()
        if all(plan.result.get("is_empty") for plan in plans):
            incident.close()
        else:
            incident.update(kept=True)
    if incident.is_closed and sections.having(Role.CLEARED) & {run.section for run in runs}:
        incident.closed_here = True
    return _Done(incident, after, tuple(runs), str(write_outputs(incident, sections)))


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


def _plans(done: _Done) -> Iterator[dict[str, Json]]:
    """Yield what was planned; ``apply`` is the command that approves a plan."""
    for row in tabulate_plans(done.incident.journal.view(), after=done.after).rows:
        section, plan = row["step"].partition(".")[0].zfill(2), row["plan"]
        named = f"runbook run {section} --incident {done.incident.id} -p plan={plan}"
        is_open = row["status"] == "planned"
        yield {
            **{name: value for name, value in row.items() if name != "hash"},
            "apply": f"{named} -p approve={row['sha256']}" if is_open else "",
        }
