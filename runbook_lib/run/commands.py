"""What the commands of every runbook do: sections headless, reports, incidents, history."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import (
    ActionInterruptedError,
    ExitCode,
    RecordError,
    RunInterruptedError,
    UsageError,
    compute_exit_code,
)
from ..investigation import Investigation, check_undamaged, judge_incident, name_command
from ..model import (
    SYMPTOMS,
    Conclusion,
    Json,
    Line,
    Note,
    Plot,
    Progress,
    Role,
    Status,
    Verdict,
    format_time,
    keep_quiet,
)
from ..policy import Judgement, make_log_entry
from ..record.actions import group_actions
from ..record.alerts import ReceivedAlert, note_alerts, read_alerts
from ..record.history import PHASES, HistoryRow, compute_trends, list_history, write_gauges
from ..record.incident import ENDED_WELL, Incident, open_incident
from ..record.journal import utc_now
from ..record.manifest import is_frozen, verify_attachment, verify_incident
from ..record.notes import list_late_notes
from ..record.view import JournalView, say_as_of
from ..redact import Redactor
from ..report import preload, prepare, write_outputs
from ..runbook import load_policy, name_runbook
from ..section import SectionModule, Sections, check_parameters
from ..settings import Settings
from ..show.plots import Picture, plot_lines
from ..show.tables import tabulate_plans
from . import documents
from .interrupts import Interrupts, do_nothing, hold_interrupts
from .notebooks import NotebookRun, RunStatus, SharedKernel, run_notebook

Given = Mapping[str, object]
"""Parameters, with their names as keys; each section gets those that it knows."""


def run_sections(
    incident: Incident,
    sections: Sections,
    names: Iterable[str],
    parameters: Mapping[str, object] = {},
    *,
    kernel: SharedKernel | None = None,
    command: str = "",
    options: str = "",
    progress: Progress = keep_quiet,
) -> list[NotebookRun]:
    """Run notebooks one after the other; each gets the parameters that its section knows.

    Parameters
    ----------
    kernel : a kernel that was begun before; default: a new one
    command : the command that looks again, without ``runbook`` and the incident, for the message of
        an interrupted run; empty: the message names none
    options : what follows ``command`` on the command line to repeat this run

    Raises
    ------
    RunInterruptedError
        On Ctrl-C or SIGTERM, or when another command closed the incident. Raised after the report
        is written; a second Ctrl-C skips the report. In the middle of a change it is an
        ``ActionInterruptedError``.

    Notes
    -----
    A notebook that fails does not stop the next one.
    """
    runs: list[NotebookRun] = []
    seq_before = incident.journal.view().last_seq
    kernel_context = nullcontext(kernel) if kernel else SharedKernel()
    try:
        # A thread prepares the report's parts while the kernel works.
        with ThreadPoolExecutor(1) as executor, kernel_context as used_kernel:
            with hold_interrupts():
                used_kernel.begin()
                preload()
            chosen = list(names)
            for number, name in enumerate(chosen, start=1):
                progress(f"{number} of {len(chosen)}: {name}")
                run = run_notebook(
                    sections,
                    name,
                    incident,
                    _pick(sections[name], parameters),
                    kernel=used_kernel,
                    progress=progress,
                )
                runs.append(run)
                executor.submit(prepare, incident, run.path, sections[name].STEPS)
    except KeyboardInterrupt as error:
        with Interrupts(again=do_nothing):
            if kernel:
                kernel.stop()
            # An interrupt in the middle of a change says so; any other has no text.
            change_cut_off = str(error)
            text = change_cut_off or _explain_interruption(incident, seq_before, command, options)
            with incident.keep_open() as may_write:
                if may_write:
                    incident.journal.append("interrupted", {"section": "", "reason": text})
        progress("interrupted; writing the report")
        with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
            write_outputs(incident, sections, packs=incident.is_closed)
        kind = ActionInterruptedError if change_cut_off else RunInterruptedError
        raise kind(text) from None
    return runs


def _explain_interruption(incident: Incident, seq_before: int, command: str, options: str) -> str:
    """Say what a run changed before it was interrupted, and what to do next.

    Parameters
    ----------
    seq_before : number of the journal's last entry before the run
    command, options : as in ``run_sections``
    """
    if incident.is_late:
        closed_at = f"{incident.state.closed_at:%H:%M:%S}Z"
        text = f"Another command closed {incident.id} at {closed_at}, so this command ended."
        advice = name_runbook("Look again with: runbook investigate")
        return f"{text} What this command read after the close is not kept. {advice}"
    entries = [entry for entry in incident.journal.view().actions if entry.seq > seq_before]
    describe = load_policy().describe_action
    changes = []
    for action in group_actions(entries):
        if action.is_cut_off:
            changes.append(f"{describe(action)} (begun, and not ended)")
        elif action.applied:
            changes.append(describe(action))
    text = "Interrupted. Nothing was changed."
    if changes:
        text = f"Interrupted after these changes: {'; '.join(changes)}."
    if not command:
        return text
    look_again = name_command(command, incident)
    if changes:
        return f"{text} Look again with: {look_again}"
    return f"{text} Do it again with: {look_again}{options}"


def investigate(
    settings: Settings,
    sections: Sections,
    *,
    incident_id: str = "",
    ticket_id: str = "",
    window_minutes: float = 60,
    alerts_file: Path | None = None,
    after: str = "",
    progress: Progress = keep_quiet,
) -> documents.InvestigateDocument:
    """Carry out the read-only sections and write the report.

    Parameters
    ----------
    alerts_file : a JSON file of alerts, which ``read_alerts`` reads. With such a file, a look that
        saw nothing wrong stays open, since more alerts may join its report. The caller closes
        the look
    after : id of the incident that ended when another episode began. If that incident is still
        open, it is closed here

    Raises
    ------
    UsageError
        When a parameter is wrong; nothing ran.
    """
    parameters = {
        "incident_id": incident_id,
        "ticket_id": ticket_id,
        "window_minutes": window_minutes,
    }
    done = _carry_out(
        settings,
        sections,
        sections.read_only,
        parameters,
        progress,
        command="investigate",
        alerts=read_alerts(alerts_file),
        after=after,
    )
    incident = done.incident
    journal = incident.journal.view()
    policy = load_policy()
    now = utc_now()
    judgement = policy.judge(journal, now=now)
    verdict = judgement.verdict if judgement else Verdict.UNKNOWN
    readings = journal.latest().values()
    unread = [reading for reading in readings if reading.status is Status.UNKNOWN]
    section, _ = policy.choose_next(journal, now=now)
    next_command = _say_close(incident)
    if verdict is not Verdict.HEALTHY and section:
        next_command = name_runbook(f"runbook run {section[:2]}")
    own = journal.of_runs(_list_run_marks(done.runs))
    code = compute_exit_code(verdict)
    # Trouble that was seen decides the exit code, even if a notebook failed.
    if code is not ExitCode.NOT_OK and any(run.status is RunStatus.FAILED for run in done.runs):
        code = ExitCode.RUN_FAILED
    return documents.InvestigateDocument(
        schema_name="runbook/investigate/1",
        at=now,
        incident=incident.id,
        verdict=verdict,
        exit_code=code,
        reason=judgement.reason if judgement else "",
        readings=tuple(readings),
        earlier=tuple(_list_earlier(journal, own, now)),
        causes=journal.findings(),
        unknown=tuple({"step": reading.step, "reason": reading.reason} for reading in unread),
        notebooks=done.runs,
        report=done.report,
        log=make_log_entry(policy, journal, now=now),
        advice=policy.list_advice(journal, now=now),
        next=next_command,
        unfinished=journal.ways_on,
        became=tuple(_say_what_became(own)),
    )


def run_chosen(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    *,
    parameters: Mapping[str, str],
    progress: Progress = keep_quiet,
) -> documents.RunDocument:
    """Run the notebooks of the named sections and write the report.

    Parameters
    ----------
    names : numbers or names of sections
    parameters : each section gets those that it knows; one that none knows is an error

    Raises
    ------
    UsageError
        Before a kernel starts, when a section or parameter is unknown or a value is wrong.
    """
    chosen = [sections.find(name) for name in names]
    known: set[str] = set()
    for section in chosen:
        known.update(section.Parameters.model_fields)
    unknown = sorted(parameters.keys() - known)
    if unknown:
        choices = ", ".join(sorted(known))
        problem = f"none of these sections has a parameter {unknown[0]!r}"
        raise UsageError(f"{problem}; they have {choices}")
    for section in chosen:
        check_parameters(section, _pick(section, parameters))
    chosen_names = [section.NAME for section in chosen]
    numbers = " ".join(name[:2] for name in chosen_names)
    options = ""
    for name, value in parameters.items():
        if name != "incident_id":
            options += f" -p {shlex.quote(f'{name}={value}')}"
    done = _carry_out(
        settings,
        sections,
        chosen_names,
        parameters,
        progress,
        command=f"run {numbers}",
        options=options,
    )
    journal = done.incident.journal.view()
    judgement = _judge_runs(done.runs, sections, journal)
    verdict = judgement.verdict if judgement else None
    reason = judgement.reason if judgement else ""
    conclusion = _find_last_conclusion(done.runs)
    if judgement is None and conclusion is not None:
        verdict = conclusion.verdict
        reason = conclusion.summary
    own = journal.of_runs(_list_run_marks(done.runs))
    became = list(_say_what_became(own))
    advice: tuple[str, ...] = ()
    if verdict in ENDED_WELL:
        became += _say_why_open(done, sections, own)
    elif verdict is not Verdict.UNKNOWN or own.last_diagnosis is not None:
        # If the verdict is unknown, an earlier diagnosis does not count: the symptom may be gone.
        advice = load_policy().list_advice(journal, now=utc_now())
    return documents.RunDocument(
        schema_name="runbook/run/1",
        incident=done.incident.id,
        verdict=verdict,
        exit_code=_choose_exit_code(done.runs, verdict),
        reason=reason,
        notebooks=done.runs,
        plans=tuple(_list_plans(done.incident, own, is_over=verdict in ENDED_WELL)),
        report=done.report,
        advice=advice,
        next=_say_close(done.incident) or _say_next(judgement, done.incident, chosen_names),
        unfinished=journal.ways_on,
        became=tuple(became),
    )


def _say_what_became(own: JournalView) -> Iterator[str]:
    """Yield sentences on what became of the incident, such as that it was opened or closed.

    Parameters
    ----------
    own : only what the command's own notebooks wrote
    """
    for entry in own.entries:
        if entry.kind == "closed":
            verdict = str(entry.data.get("verdict")).replace("_", " ")
            yield f"The incident is closed as {verdict}. Its report stays as it is."
        elif entry.kind in ("opened", "left_to", "adopted", "followed", "continued", "joined"):
            yield str(entry.data.get("reason"))


def _say_why_open(done: _Done, sections: Sections, own: JournalView) -> Iterator[str]:
    """Say why an incident with a good verdict stays open after the section that may close it."""
    closers = sections.having(Role.CLEARED) & {run.section for run in done.runs}
    if not closers or not done.incident.is_open:
        return
    for reading in own.latest().values():
        if reading.role is Role.CLEARED and reading.status.is_open:
            name = done.incident.id
            again = name_runbook(f"runbook run {sorted(closers)[0][:2]} --incident {name}")
            by_hand = name_runbook(f"runbook close {name}")
            yield f"{name} stays open: {reading.step} {reading.reason}"
            yield f"Look again with: {again}. Or close it by hand: {by_hand}"


def _list_run_marks(runs: Sequence[NotebookRun]) -> list[str]:
    """Return the marks of some runs in the journal, as in ``mark_run``."""
    return [run.notebook for run in runs]


def _list_earlier(
    journal: JournalView, own: JournalView, now: datetime
) -> Iterator[dict[str, Json]]:
    """Yield a row for each step that only earlier runs read: its newest reading, with the age.

    Parameters
    ----------
    own : the entries that these runs wrote
    """
    for step, reading in journal.latest().items():
        if step not in own.latest():
            age = now - reading.observed_at
            yield {
                "step": step,
                "status": reading.status,
                "age_minutes": round(age.total_seconds() / 60, 1),
                "reason": reading.reason,
            }


def _judge_runs(
    runs: Sequence[NotebookRun], sections: Sections, journal: JournalView
) -> Judgement | None:
    """Return the incident's judgement, for which only these sections' needed steps must be read.

    None when these sections have no step that a verdict needs, or no symptom was read yet.
    """
    needed: set[Role] = set()
    for run in runs:
        section = sections[run.section]
        needed.update(step.role for step in section.STEPS.values() if step.needed)
    if not needed:
        return None
    return load_policy().judge(journal, now=utc_now(), roles=needed)


def _find_last_conclusion(runs: Sequence[NotebookRun]) -> Conclusion | None:
    """Return the conclusion of the last run that drew one; None without any."""
    for run in reversed(runs):
        if run.conclusion is not None:
            return run.conclusion
    return None


def _say_next(judgement: Judgement | None, incident: Incident, ran: Sequence[str]) -> str:
    """Return the command that comes next; empty when none is needed.

    None is needed if all is well and the next section is one of those that ran.

    Parameters
    ----------
    ran : names of the sections that this command ran
    """
    if judgement is None or not judgement.next.section:
        return ""
    section = judgement.next.section
    if judgement.verdict in ENDED_WELL and section in ran:
        return ""
    return name_command(f"run {section[:2]}", incident)


def _say_close(incident: Incident) -> str:
    """Return the command that closes an open incident in which all is well, else an empty text.

    No section closes an incident that saw no trouble.
    """
    if not incident.is_open or judge_incident(incident).verdict is not Verdict.HEALTHY:
        return ""
    return name_runbook(f"runbook close {incident.id}")


def _pick(section: SectionModule, given: Given) -> dict[str, object]:
    """Return the parameters that a section knows."""
    known = section.Parameters.model_fields
    return {name: value for name, value in given.items() if name in known}


class _Done(NamedTuple):
    """The incident, how each section's run ended, and the report's path."""

    incident: Incident
    runs: tuple[NotebookRun, ...]
    report: str


def _carry_out(
    settings: Settings,
    sections: Sections,
    names: Sequence[str],
    given: Given,
    progress: Progress,
    *,
    command: str,
    options: str = "",
    alerts: Sequence[ReceivedAlert] = (),
    after: str = "",
) -> _Done:
    """Find the incident, run sections on it and write the report.

    If these runs closed the incident, the report is its last one. A look that this command made is
    closed when nothing was wrong and no plan waits.

    Parameters
    ----------
    command, options : as in ``run_sections``
    alerts : written to the journal; if there are any, a look stays open
    after : as in ``investigate``
    """
    opener = sections.investigation or Investigation
    opener.check_ticket(settings, str(given.get("ticket_id", "")))
    with SharedKernel() as kernel:
        named = str(given.get("incident_id", ""))
        incident, is_new = opener.find_or_make(
            settings, named, after=after, on_accepted=kernel.begin
        )
        if incident.is_closed:
            advice = "leave --incident out, or write --incident new"
            text = f"incident {incident.id} is closed, and its report stays as it is; {advice}"
            raise UsageError(text)
        note_alerts(incident, alerts)
        runs = run_sections(
            incident,
            sections,
            names,
            given,
            kernel=kernel,
            command=command,
            options=options,
            progress=progress,
        )
        with Interrupts() as interrupts:
            may_close = is_new and not alerts
            report = _finish(incident, sections, kernel, may_close=may_close)
        if interrupts.count:
            text = f"Interrupted after all was done; the report is {report}"
            look_again = name_command(command, incident)
            raise RunInterruptedError(f"{text}. Look again with: {look_again}")
    return _Done(incident, tuple(runs), str(report))


def _finish(
    incident: Incident,
    sections: Sections,
    kernel: SharedKernel,
    *,
    may_close: bool,
) -> Path:
    """End the kernel, then write the incident's report; return the report's path.

    Parameters
    ----------
    may_close : whether a look is closed before that; if one of its plans waits, the look is kept
        for later commands instead
    """
    kernel.begin_to_stop()
    if may_close and not (incident.is_open or incident.is_closed):
        plans = incident.journal.view().list_plans().values()
        if all(plan.result.get("is_empty") for plan in plans):
            incident.close(judge_incident(incident).verdict)
        else:
            incident.update(kept=True)
    return write_outputs(incident, sections, packs=incident.is_closed)


def _choose_exit_code(runs: Sequence[NotebookRun], verdict: Verdict | None) -> ExitCode:
    """Return the worst code of runs that did not come to their end, else the verdict's.

    ``INTERRUPTED`` is not among them: an interrupted run raises.
    """
    codes = {run.exit_code for run in runs}
    for code in (ExitCode.USAGE, ExitCode.RUN_FAILED, ExitCode.REFUSED):
        if code in codes:
            return code
    return ExitCode.OK if verdict is None else compute_exit_code(verdict)


def _list_plans(
    incident: Incident, own: JournalView, *, is_over: bool
) -> Iterator[dict[str, Json]]:
    """Yield what a run planned; ``apply`` is the command that approves a plan.

    Parameters
    ----------
    own : the entries that the run wrote
    is_over : whether nothing more is to be done; if so, and the run changed something, no plan is
        offered. A plan from before the run's last change is never offered
    """
    is_offered = not is_over or own.last_applied is None
    planned = own.list_plans()
    for row in tabulate_plans(own).rows:
        apply = ""
        is_older = own.last_applied is not None and planned[row["plan"]].seq < own.last_applied.seq
        why = row["why"]
        if row["status"] == "planned" and is_older:
            why = f"from before the last change, so it may not fit now: plan again. {why}".strip()
        elif row["status"] == "planned" and is_offered:
            section = row["step"].partition(".")[0].zfill(2)
            command = name_command(f"run {section}", incident)
            apply = f"{command} -p plan={row['plan']} -p approve={row['sha256']}"
        plan = {name: value for name, value in row.items() if name != "hash"}
        yield {**plan, "why": why, "apply": apply}


def rebuild_report(
    settings: Settings,
    sections: Sections,
    incident_id: str,
    *,
    alerts_file: Path | None = None,
) -> documents.ReportDocument:
    """Build a report again from its journal. The report of a closed incident stays as it is.

    Parameters
    ----------
    alerts_file : a JSON file of alerts, which ``read_alerts`` reads; they join the report
    """
    alerts = read_alerts(alerts_file)
    incident = _open(settings, incident_id)
    note_alerts(incident, alerts)
    note = "closed: its report stays as it is" if is_frozen(incident) else ""
    return documents.ReportDocument(
        schema_name="runbook/report/1",
        incident=incident.id,
        report=str(write_outputs(incident, sections)),
        note=note,
        late_notes=_list_late_notes(incident),
    )


def _list_late_notes(incident: Incident) -> tuple[Note, ...]:
    """Return the notes that came after the close; none if the journal cannot be read."""
    with suppress(RecordError):
        return tuple(list_late_notes(incident.journal.view()))
    return ()


def check_report(settings: Settings, incident_or_path: str) -> documents.ReportDocument:
    """Check the journal's chain and the manifest. Only reads.

    Parameters
    ----------
    incident_or_path : an incident's id, the path of its folder, or that of its zip
    """
    path = Path(incident_or_path)
    if not path.exists():
        path = _open(settings, incident_or_path).folder
    if path.is_dir():
        checked = verify_incident(path)
        report = path / "report.html"
    else:
        checked = verify_attachment(path)
        report = path
    return documents.ReportDocument(
        schema_name="runbook/verify-report/1",
        exit_code=ExitCode.of(not checked.problems),
        incident=checked.incident,
        report=str(report),
        problems=checked.problems,
        newer=checked.newer,
    )


def close_incident(
    settings: Settings, sections: Sections, incident_id: str
) -> documents.CloseDocument:
    """Read what a verdict needs, close an incident by hand, and write its last report.

    The exit code is the verdict's: what cannot be read now makes it unknown.

    Raises
    ------
    UsageError
        When there is no such incident, it is closed already, or its journal is damaged.
    """
    incident = _open(settings, incident_id)
    check_undamaged(incident)
    closed_at = incident.state.closed_at
    if closed_at is not None:
        raise UsageError(f"{incident.id} was closed at {format_time(closed_at)}")
    _read_again(settings, sections, incident)
    judgement = judge_incident(incident)
    verdict = judgement.verdict
    journal = incident.journal.view()
    unfinished = journal.ways_on
    words = verdict.replace("_", " ")
    as_of = ""
    if journal.last_look_at is not None and verdict not in ENDED_WELL:
        current = journal.list_current(journal.last_look_at).values()
        symptoms = [reading for reading in current if reading.role in SYMPTOMS]
        breaches = [reading for reading in symptoms if reading.status is Status.BREACH]
        as_of = say_as_of(breaches or symptoms)
    reason = f"{judgement.reason}{as_of}"
    incident.close(verdict, reason=f"{settings.operator} closed it as {words}: {reason}")
    note = ""
    if verdict not in ENDED_WELL:
        note = "If trouble goes on, the next look opens a new incident. "
        note += "Within an hour, or for the same alert, the new one names this one."
    return documents.CloseDocument(
        schema_name="runbook/close/1",
        incident=incident.id,
        verdict=verdict,
        exit_code=compute_exit_code(verdict),
        report=str(write_outputs(incident, sections)),
        note=note,
        reason=reason,
        unfinished=unfinished,
        next=name_runbook("runbook investigate") if note else "",
    )


def _read_again(settings: Settings, sections: Sections, incident: Incident) -> None:
    """Read the causes, and every step that a verdict needs, once each."""
    kind = sections.investigation or Investigation
    done: set[str] = set()
    for module in sections.values():
        inv = kind(incident, section=module, settings=settings)
        for step_id, declared in module.STEPS.items():
            is_judged = declared.needed or declared.role is Role.CAUSE
            if is_judged and step_id not in done:
                done.add(step_id)
                inv.read_step(step_id)


def list_incidents(settings: Settings) -> documents.IncidentsDocument:
    """Return the incidents, the open ones first; a drill only while it is open."""
    home = settings.runbook_home
    rows = list_history(home, load_policy())
    still_open = [row for row in rows if row.is_open]
    over = [row for row in rows if not row.is_open and not row.scenario]
    note = ""
    if len(still_open) + len(over) < len(rows):
        note = name_runbook("`runbook incidents --all` lists ended drills, too")
    return documents.IncidentsDocument(
        schema_name="runbook/incidents/1", incidents=(*still_open, *over), note=note
    )


def write_history(settings: Settings) -> documents.HistoryDocument:
    """Return every incident and drill, and how each scenario's drills went.

    Writes the picture of the trends, and the file of gauges, anew.
    """
    home = settings.runbook_home
    rows = tuple(list_history(home, load_policy()))
    document = documents.HistoryDocument(schema_name="runbook/history/1", history=rows)
    if not rows:
        return document
    plot = home / "history.png"
    plot.write_bytes(draw_trends(rows).png)
    gauges = write_gauges(home, rows)
    trends = {
        "drills": compute_trends(rows, utc_now()),
        "plot": str(plot),
        "gauges": str(gauges),
    }
    return document.model_copy(update=trends)


def draw_trends(rows: Sequence[HistoryRow]) -> Picture:
    """Draw how long the phases of drills took, drill by drill."""
    drills = [row for row in reversed(rows) if row.scenario]
    lines = []
    for phase in PHASES:
        points = []
        for row in drills:
            seconds = getattr(row, phase)
            if seconds is not None:
                points.append((row.opened_at, seconds))
        lines.append(Line(name=phase.removesuffix("_s"), points=tuple(points)))
    return plot_lines(Plot(title="Phases of the drills", unit="seconds", lines=tuple(lines)))


def _open(settings: Settings, incident_id: str) -> Incident:
    """Open an incident by id; without an id, the one that ``open_incident`` chooses."""
    home = settings.runbook_home.resolve()
    incident = open_incident(home, incident_id, redactor=Redactor(settings.secrets))
    if incident is None:
        raise UsageError(f"no incident is open under {settings.runbook_home}")
    return incident
