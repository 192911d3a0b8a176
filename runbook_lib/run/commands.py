"""The commands of every runbook: sections headless, reports, notes, incidents."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from ..errors import (
    CODE_OF_VERDICT,
    ActionInterruptedError,
    ExitCode,
    RunInterruptedError,
    UsageError,
)
from ..investigation import close_if_quiet, judge_incident
from ..language import gettext
from ..model import (
    ActionPhase,
    CauseStatus,
    Finding,
    Json,
    Note,
    Observed,
    Progress,
    Role,
    Verdict,
    count_of,
    format_time,
    keep_quiet,
)
from ..policy import Judgement
from ..record.folds import MOVES, group_actions
from ..record.history import compute_trends, list_history
from ..record.incident import ENDED_WELL, Incident, open_incident
from ..record.journal import utc_now
from ..record.manifest import verify_incident
from ..record.notes import ReceivedAlert, list_follow_ups, mark_alerts, read_alerts, write_note
from ..record.view import JournalView
from ..redact import Redactor
from ..report import write_outputs
from ..report.export import load_exporter
from ..runbook import load_policy
from ..section import SectionModule, Sections, check_fields, check_parameters
from ..settings import Settings
from ..show.tables import tabulate_plans
from ..show.text import VERDICT_WORDS, capitalise, format_value
from .console import IncidentId, command, list_options
from .documents import Document
from .interrupts import Interrupts, delay_interrupts, do_nothing
from .notebooks import NotebookRun, SharedKernel, run_notebook

app = Typer()

#: The exit codes, the one that matters most first: several runs exit with one code.
_ORDER = (ExitCode.USAGE, ExitCode.REFUSED, ExitCode.NOT_OK, ExitCode.RUN_FAILED, ExitCode.UNKNOWN)


def run_sections(
    incident: Incident,
    sections: Sections,
    names: Sequence[str],
    parameters: Mapping[str, object] = {},
    *,
    progress: Progress = keep_quiet,
) -> list[NotebookRun]:
    """Run notebooks one after the other, each with the parameters that its section knows.

    A failing notebook does not stop the next one; the close of the incident does. On Ctrl-C or
    SIGTERM, writes the report and raises RunInterruptedError, or ActionInterruptedError in the
    middle of a change.
    """
    runs: list[NotebookRun] = []
    seq_before = incident.journal.view().last_seq
    try:
        with SharedKernel(progress) as kernel:
            with delay_interrupts():
                kernel.ensure_started()
                load_exporter()
            for number, name in enumerate(names, start=1):
                if incident.is_closed:
                    break
                progress(f"{number} of {len(names)}: {name}")
                run = run_notebook(
                    sections,
                    name,
                    incident,
                    _pick_parameters(sections[name], parameters),
                    kernel=kernel,
                )
                runs.append(run)
    except KeyboardInterrupt:
        with Interrupts(again=do_nothing):
            interruption = _explain_interruption(incident, seq_before)
            incident.mark("interrupted", str(interruption))
        progress("interrupted; writing the report")
        with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
            write_outputs(incident, sections)
        raise interruption from None
    return runs


def _explain_interruption(incident: Incident, seq_before: int) -> RunInterruptedError:
    """Return the error of an interrupted run, whose entries come after ``seq_before``."""
    entries = [entry for entry in incident.journal.view().actions if entry.seq > seq_before]
    for action in group_actions(entries):
        if action.is_cut_off and action.first.action in MOVES:
            plan = action.first.original or action.plan
            # A killed cell wrote no reason.
            text = action.last.reason or f"Interrupted. Carry on with: runbook resume {plan}"
            return ActionInterruptedError(text)
    return RunInterruptedError("Interrupted. Begin again with: runbook investigate")


def _pick_parameters(section: SectionModule, given: Mapping[str, object]) -> dict[str, object]:
    known = section.Parameters.model_fields
    return {name: value for name, value in given.items() if name in known}


def _run_and_report(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    given: Mapping[str, object],
    progress: Progress,
    *,
    incident_id: str,
    alerts: Sequence[ReceivedAlert] = (),
    schema: str,
) -> Document:
    """Find or make the incident, run sections on it with ``given`` parameters, and report.

    An incident made here is closed if nothing is wrong and no plan waits, unless ``alerts`` began
    it.
    """
    for section_name in names:
        section = sections[section_name]
        check_parameters(section, _pick_parameters(section, given))
    opener = sections.investigation
    opener.check_ticket(settings, str(given.get("ticket_id", "")))
    incident, is_new = opener.find_or_make(settings, incident_id)
    if incident.is_closed:
        advice = "leave --incident out, or write --incident new"
        raise UsageError(f"incident {incident.id} is closed; {advice}")
    mark_alerts(incident, alerts)
    runs = run_sections(incident, sections, names, given, progress=progress)
    with Interrupts():  # all is done, so ignore the first Ctrl-C
        if is_new and not alerts:
            close_if_quiet(incident)
        report = write_outputs(incident, sections)
    return _describe_runs(incident, sections, names, runs, report=report, schema=schema)


def _describe_runs(
    incident: Incident,
    sections: Sections,
    names: Sequence[str],
    runs: Sequence[NotebookRun],
    *,
    report: Path,
    schema: str,
) -> Document:
    """Return what runs of sections found, planned and changed, and what to do next.

    The verdict uses only symptoms that these sections read, or else their last conclusion.
    """
    journal = incident.journal.view()
    of_runs = journal.of_runs([run.notebook for run in runs])
    now = utc_now()
    policy = load_policy()
    steps = chain.from_iterable(sections[name].STEPS.values() for name in names)
    needed = {step.id for step in steps if step.needed}
    judged = policy.judge(journal, now=now, steps=needed)
    if not (needed and judged.verdict):  # then the last conclusion counts
        judged = judged._replace(verdict=None, reason="", next=policy.first_step)
        for conclusion in filter(None, [run.conclusion for run in runs]):
            judged = judged._replace(verdict=conclusion.verdict, reason=conclusion.summary)
    verdict = judged.verdict
    is_over = verdict in ENDED_WELL
    section_of_step = {step: name for name in names for step in sections[name].ACTIONS}
    plans = tuple(_list_plans(of_runs, section_of_step, is_over=is_over))
    has_waiting_plan = any(plan["apply"] for plan in plans)
    next_command = next(iter(journal.finish_commands), "")
    if not (next_command or incident.is_closed or has_waiting_plan):
        next_command = judged.next.command
        if verdict is Verdict.HEALTHY:  # no section closes an incident without trouble
            next_command = "runbook close"
    since = judged.since and format_time(judged.since)
    until = judged.until and format_time(judged.until)
    affected = str(policy.compute_impact(journal))
    causes = journal.diagnosis.findings
    readings = of_runs.list_current().values()
    return Document(
        schema_name=schema,
        at=now,
        incident=incident.id,
        verdict=verdict,
        exit_code=_choose_exit_code(runs, verdict),
        answer=_say_outcome(judged, causes, affected),
        report=str(report),
        reason=judged.reason,
        unfinished=journal.finish_commands,
        next=next_command,
        notebooks=runs,
        readings=[Observed.model_validate(vars(reading)) for reading in readings],
        causes=causes,
        since=since,
        until=until,
        affected=affected,
        plans=plans,
        advice=() if is_over or has_waiting_plan else judged.advice,
    )


def _say_outcome(judged: Judgement, causes: Sequence[Finding], affected: str) -> str:
    """Say the verdict, from when to when the trouble lasted, why, and who was ``affected``."""
    words = gettext(VERDICT_WORDS[judged.verdict]) if judged.verdict else ""
    since = format_value(judged.since)
    if judged.until:
        until = format_value(judged.until)
        words += f". {gettext('Trouble from %(since)s to %(until)s', since=since, until=until)}"
    elif judged.since:
        words += f". {gettext('Trouble since')} {since}"
    supported = [
        f"{cause.name}: {gettext(cause.reason)}"
        for cause in causes
        if cause.status is CauseStatus.SUPPORTED
    ]
    return ". ".join(filter(None, [words, *(supported or [capitalise(judged.reason)]), affected]))


@command(app)
def investigate(
    settings: Settings,
    sections: Sections,
    *,
    ticket_id: Annotated[str, Option("--ticket", help="ticket of an affected customer")] = "",
    incident_id: IncidentId = "",
    alerts_file: Annotated[Path | None, Option("--alerts", hidden=True)] = None,
    progress: Progress = keep_quiet,
) -> Document:
    """Run the sections that only read, then write the report. Changes no system.

    Notes
    -----
    With ``alerts_file``, a quiet incident stays open until the caller closes it.
    """
    return _run_and_report(
        settings,
        sections,
        sections.read_only,
        {"ticket_id": ticket_id},
        progress,
        incident_id=incident_id,
        alerts=read_alerts(alerts_file),
        schema="runbook/investigate/1",
    )


@command(app)
def run(
    settings: Settings,
    sections: Sections,
    names: Annotated[list[str], Argument(metavar="sections", help="such as 06, or remediation")],
    *,
    parameter: Annotated[
        list[str] | None, Option("-p", "--parameter", help="name=value; repeatable")
    ] = None,
    incident_id: IncidentId = "",
    progress: Progress = keep_quiet,
) -> Document:
    """Run chosen notebooks headless; changes stop at their plans without -p approve=SHA256.

    Raises
    ------
    UsageError
        For an unknown section or parameter, or a wrong value. Nothing ran.
    """
    parameters: dict[str, str] = {}
    chosen = [sections.find(name) for name in names]
    known = set().union(*(section.Parameters.model_fields for section in chosen))
    for item in parameter or ():
        name, _, value = item.partition("=")
        if name not in known:
            text = f"-p wants name=value, not {item!r}; the parameters of these sections are"
            raise UsageError(f"{text}: {', '.join(sorted(known))}")
        parameters[name] = value
    return _run_and_report(
        settings,
        sections,
        [section.NAME for section in chosen],
        parameters,
        progress,
        incident_id=parameters.pop("incident_id", incident_id),
        schema="runbook/run/1",
    )


def _choose_exit_code(runs: Sequence[NotebookRun], verdict: Verdict | None) -> ExitCode:
    """Return the exit code of the runs and the verdict that comes first in ``_ORDER``."""
    codes = {run.exit_code for run in runs}
    if verdict is not None:
        codes.add(CODE_OF_VERDICT[verdict])
    return next((code for code in _ORDER if code in codes), ExitCode.OK)


def _list_plans(
    of_runs: JournalView, section_of_step: Mapping[str, str], *, is_over: bool
) -> Iterator[dict[str, Json]]:
    """Yield what some runs planned, and in ``apply`` the command that approves it.

    ``apply`` is "" for a plan that no longer waits: it was carried out or refused, a later change
    may have made it wrong, or a change has ended the trouble (``is_over``).
    """
    planned = {action.plan: action for action in of_runs.list_actions(ActionPhase.PLANNED)}
    change = of_runs.last_applied
    for row in tabulate_plans(of_runs).rows:
        entry = planned[row["plan"]]
        command = ""
        is_needed = change is None or (entry.seq > change.seq and not is_over)
        if row["status"] == "planned" and is_needed:
            section = section_of_step[row["step"]].partition("_")[0]
            command = f"runbook run {section} -p plan={row['plan']} -p approve={row['hash']}"
            if entry.original:
                command = f"runbook {entry.action} {entry.original}"
        plan = {**row, "apply": command}
        del plan["hash"]
        yield plan


@command(app)
def report(
    settings: Settings,
    sections: Sections,
    incident: Annotated[str, Argument(help="id; with --check, also a folder or a zip")] = "",
    *,
    check: Annotated[bool, Option("--check", help="name what was altered")] = False,
) -> Document:
    """Build the report again from the journal; --check compares journal and files instead."""
    if check:
        path = Path(incident)
        if not incident or not path.exists():
            path = _open_incident(settings, incident).folder
        checked = verify_incident(path)
        count = len(checked.problems)
        return Document(
            schema_name="runbook/verify-report/1",
            exit_code=ExitCode.of(not count),
            answer=f"{count_of(count, 'problem')} found" if count else "Done",
            report=str(path),
            **checked._asdict(),
        )
    opened = _open_incident(settings, incident)
    return Document(
        schema_name="runbook/report/1",
        answer="Done",
        incident=opened.id,
        report=str(write_outputs(opened, sections)),
    )


@command(app)
def close(
    settings: Settings,
    sections: Sections,
    incident_id: Annotated[str, Argument(metavar="incident", help="default: the open one")] = "",
) -> Document:
    """Close an incident: read what its verdict needs, and write its report a last time.

    The exit code is the verdict's: what can't be read now makes it unknown.
    """
    incident = _open_incident(settings, incident_id)
    if incident.is_closed:
        raise UsageError(f"{incident.id} is closed already")
    _read_again(settings, sections, incident)
    judgement = judge_incident(incident)
    verdict = judgement.verdict or Verdict.UNKNOWN
    words = gettext(verdict.replace("_", " "))
    by = f"{gettext('closed by')} {settings.operator} {gettext('as')} {words}"
    reason = f": {judgement.reason}".removesuffix(": ")
    incident.close(verdict, reason=f"{by}{reason}")
    journal = incident.journal.view()
    next_command = "" if verdict in ENDED_WELL else "runbook investigate"
    next_command = next(iter(journal.finish_commands), next_command)
    return Document(
        schema_name="runbook/close/1",
        incident=incident.id,
        verdict=verdict,
        exit_code=CODE_OF_VERDICT[verdict],
        answer=f"{gettext('Closed')}. {gettext(VERDICT_WORDS[verdict])}{reason}",
        report=str(write_outputs(incident, sections)),
        reason=judgement.reason,
        unfinished=journal.finish_commands,
        next=next_command,
    )


def _read_again(settings: Settings, sections: Sections, incident: Incident) -> None:
    """Read and journal what a verdict needs, the causes, and what is unfinished."""
    for step, module in sections.list_steps().values():
        if step.needed or step.role in (Role.CAUSE, Role.UNFINISHED):
            inv = sections.investigation(incident, section=module, settings=settings)
            inv.read_step(step.id)


@command(app)
def incidents(
    settings: Settings,
    *,
    show_all: Annotated[bool, Option("--all", help="also drills, with their trends")] = False,
) -> Document:
    """List the incidents, the open ones first."""
    rows = list_history(settings.runbook_home, load_policy())
    shown = [row for row in rows if row.is_open or show_all or not row.exercise]
    shown.sort(key=lambda row: not row.is_open)
    count = sum(1 for row in shown if row.is_open)
    return Document(
        schema_name="runbook/incidents/1",
        answer=f"{count_of(count, 'incident')} open" if count else "No incident is open",
        status="incident" if count else "ok",
        incidents=shown,
        drills=compute_trends(rows) if show_all else (),
    )


@command(
    app, *list_options(Note, "lead", "summary", "severity", "owner", "due", "ticket", went="lesson")
)
def note(
    settings: Settings,
    sections: Sections,
    text: Annotated[str, Argument(help="the remark, or what is to be done")] = "",
    *,
    incident_id: IncidentId = "",
    **fields: object,
) -> Document:
    """Write what a person knows: a remark, a lesson, a follow-up, who leads, what happened."""
    given = {"text": text, "operator": settings.operator, **fields}
    written = check_fields(Note, given)
    incident = _open_incident(settings, incident_id)
    is_late = incident.is_closed
    entry = write_note(incident, written)
    late = ", marked as after the close" if is_late else ""
    return Document(
        schema_name="runbook/note/1",
        incident=incident.id,
        answer=f"Noted in {incident.id}{late}. The report shows it.",
        entry=entry,
        late=is_late,
        report=str(write_outputs(incident, sections)),
        follow_ups=list_follow_ups(incident.journal.view()),
    )


def _open_incident(settings: Settings, incident_id: str) -> Incident:
    home = settings.runbook_home.resolve()
    incident = open_incident(home, incident_id, redactor=Redactor(settings.secrets))
    if incident is None:
        raise UsageError(f"no incident is open under {home}; name one of `runbook incidents --all`")
    return incident
