"""What a report says of an incident, as values: no HTML, no clock.

``ReportModel`` arranges what the journal holds. ``summarise`` says what comes first, and what
``report.json`` holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter

from pydantic import BaseModel, Field

from chainlog import LogError, read_entries

from ..errors import RecordError
from ..model import (
    CauseStatus,
    Conclusion,
    Finding,
    Json,
    NotebookEntry,
    Plot,
    Reading,
    Role,
    Status,
    Timestamp,
    Verdict,
)
from ..policy import say_causes
from ..record import detection
from ..record.actions import ActionRecord, group_actions
from ..record.history import count_seconds, list_proofs
from ..record.incident import ENDED_WELL, Incident, list_neighbours, was_made
from ..record.notes import find_word, list_follow_ups
from ..record.view import JournalView, order_of
from ..runbook import load_policy
from ..section import SectionModule
from ..show.text import VERDICT_WORDS, capitalise
from .chart import Chart, draw_chart, gather_lines

#: The statuses of notebooks that did not break off; an interruption has an entry of its own.
_NOT_FAILED = ("done", "stopped_at_plan", "by_hand", "interrupted")
#: Verdicts about what an action achieved.
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
#: The marks that stand in the timeline, besides those of the policy.
_TOLD = ("plan_of_closed", "joined", "alerts_received", "interrupted", "closed", "took_over")


@dataclass(slots=True)
class ReportStep:
    """One statement of the runbook, and everything that the journal holds about it."""

    id: str
    title: str
    role: Role | None = None
    readings: list[Reading] = field(default_factory=list)
    actions: list[ActionRecord] = field(default_factory=list)

    @property
    def latest(self) -> Reading | None:
        """The newest reading; None without one."""
        return self.readings[-1] if self.readings else None

    @property
    def worst(self) -> Reading | None:
        """The newest breach, else the newest unknown reading, else the newest one."""
        by_status = {reading.status: reading for reading in self.readings}
        return by_status.get(Status.BREACH) or by_status.get(Status.UNKNOWN) or self.latest

    @property
    def status(self) -> str:
        """The state of the newest action, else the status of the newest reading, or ``not run``.

        A plan that nobody tried to carry out counts only if no other plan was tried.
        """
        if self.actions:  # a reading of the same step only prepares the action
            tried = [action for action in self.actions if action.was_tried]
            return (tried or self.actions)[-1].state
        return str(self.latest.status) if self.latest else "not run"


@dataclass(slots=True)
class ReportSection:
    """One section of the runbook: its steps, its conclusions, its notebook's runs."""

    name: str
    title: str
    steps: list[ReportStep] = field(default_factory=list)
    conclusions: list[Conclusion] = field(default_factory=list)
    runs: list[NotebookEntry] = field(default_factory=list)

    @property
    def words(self) -> str:
        """Its number, and its title."""
        number = _read_number(self.name)
        return f"{number} {self.title}" if number.isdigit() else self.title


def _read_number(name: str) -> str:
    """Return a section's number without leading zeros; of a name without number, the name."""
    return name.partition("_")[0].lstrip("0")


class ReportModel:
    """Everything that a report lays out: what the folder holds, up to the first damage.

    Parameters
    ----------
    incident : its journal may be missing or damaged
    modules : the runbook's sections

    Attributes
    ----------
    facts : the incident's state; may be empty
    neighbours : ids of other incidents that were open at the same time
    notebooks : names of the executed notebooks in the folder
    journal : the journal's entries, up to the first damage
    damage : what is wrong with the journal or the folder, in words
    sections, steps : the runbook's, one after the other, by name and by id; then those of the
        journal that this version of the runbook does not know
    actions : one for each plan, sorted by when it was planned
    tried : actions that were approved, refused, carried out, or failed, sorted by when that
        happened
    remedies : those that changed something to end the trouble
    judgement, verdict : what the policy says as of the newest reading or change; None: no symptom
        was read yet
    causes : those that the policy names, the most supported first
    triggers : the changes that began the trouble, as far as a system reports them; of those before
        it began, only the last
    since, until : when the trouble began, and when it ended; None: not known, or there is none
    is_good : whether the verdict is that nothing more is to be done
    is_over : whether the trouble is told in the past tense
    is_made : see ``was_made``
    score : what the incident had to show, and showed; None: the runbook scored nothing
    impact : how much the incident held back
    tickets : every one that a section's parameters or a reading names
    """

    def __init__(self, incident: Incident, modules: Mapping[str, SectionModule]) -> None:
        # Each value may need those above it.
        self.incident_id = incident.id
        self.policy = load_policy()
        self.facts: dict[str, Json] = {}
        self.neighbours: list[str] = []
        self.is_made = was_made(incident)
        self.notebooks = {path.name for path in incident.folder.glob("notebooks/*.ipynb")}
        with suppress(RecordError):
            self.facts = incident.redactor.json(incident.state.model_dump(mode="json"))
            self.neighbours = [folder.name for folder, _ in list_neighbours(incident)]
        self.journal, self.damage = _read_journal(incident)
        self.judgement = self.policy.judge(self.journal)
        self.verdict = self.judgement.verdict
        self.until = self.judgement.until
        self.causes = self.policy.list_causes(self.journal)
        self.ends = self.policy.find_ends(self.journal)
        self.since = self.ends.since
        triggers = detection.list_triggers(self.journal)
        earlier = [trigger for trigger in triggers if self.since and trigger.at <= self.since]
        self.triggers = [*earlier[-1:], *triggers[len(earlier) :]]
        self.is_good = self.verdict in ENDED_WELL
        is_gone = self.is_good or self.verdict is Verdict.MITIGATED
        self.is_over = is_gone or bool(self.facts.get("closed_at"))
        self.sections: dict[str, ReportSection] = {}
        self.steps: dict[str, ReportStep] = {}
        for module in modules.values():
            self._add_steps(module)
        self.actions = group_actions(self.journal.actions)
        self._place_entries()
        self.tried = [action for action in self.actions if action.was_tried]
        self.tried.sort(key=lambda action: action.decisive.seq)
        steps = self.policy.quantities.remedies
        self.remedies = [
            action
            for action in self.tried
            if action.applied and (steps is None or action.first.step in steps)
        ]
        self.score = self.policy.read_score(self.journal)
        self.impact = self.policy.compute_impact(self.journal)
        tickets = dict.fromkeys(reading.ticket for reading in self.journal.readings)
        self.tickets = tuple(filter(None, tickets))

    def of(self, *roles: Role) -> list[ReportStep]:
        """Return the steps that have one of some roles, sorted as in the runbook."""
        return [step for step in self.steps.values() if step.role in roles]

    def _place_entries(self) -> None:
        """Put what the journal holds into its steps and sections."""
        for reading in self.journal.readings:
            self._step(reading.step, reading.name, reading.role).readings.append(reading)
        for action in self.actions:
            self._step(action.first.step, action.first.action).actions.append(action)
        for conclusion in self.journal.conclusions:
            self._section(conclusion.section).conclusions.append(conclusion)
        for run in self.journal.runs:
            self._section(run.section).runs.append(run)

    def _add_steps(self, module: SectionModule) -> None:
        """Add a section, and the steps with its number."""
        section = self._section(module.NAME, module.TITLE)
        # An action may have the id of a step; the section then shows the action's title.
        titles = {step.id: step.title for step in module.STEPS.values()}
        titles |= {action.id: action.title for action in module.ACTIONS.values()}
        for step_id in sorted(titles, key=order_of):
            if step_id.startswith(f"{_read_number(section.name)}."):
                role = module.STEPS[step_id].role if step_id in module.STEPS else None
                self._step(step_id, titles[step_id], role)

    def _section(self, name: str, title: str = "") -> ReportSection:
        """Return a section by its number; if the model has none, add it."""
        section = ReportSection(name, title or name)
        return self.sections.setdefault(_read_number(name), section)

    def _step(self, step_id: str, name: str, role: Role | None = None) -> ReportStep:
        """Return a step; if the model has none of this id yet, add it to its section."""
        if step_id not in self.steps:
            self.steps[step_id] = ReportStep(step_id, name, role)
            self._section(step_id.partition(".")[0]).steps.append(self.steps[step_id])
        return self.steps[step_id]


def _read_journal(incident: Incident) -> tuple[JournalView, str]:
    """Return what the journal holds up to the first damage, and the damage; empty: none."""
    journal = incident.journal
    view = JournalView()
    try:
        view.add(journal.redact(read_entries(journal.path)))
        if not journal.path.read_bytes().endswith(b"\n"):
            return view, "the journal's last line is torn (its writer died); it is left out here"
    except (OSError, LogError) as error:
        text = f"{error}".removeprefix(f"{incident.folder}/")
        return view, f"{text}: this report tells only what stands before that"
    return view, ""


class EventRow(BaseModel, frozen=True):
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: Timestamp
    tone: str
    text: str
    note: str = ""


class Task(BaseModel, frozen=True):
    """What is to be done next, by whom and until when."""

    text: str
    owner: str = ""
    due: date | None = None
    ticket: str = ""


class Number(BaseModel, frozen=True):
    """One of the five numbers; the unit ``s`` makes it a duration. None: not known."""

    name: str
    value: int | float | None
    words: str
    unit: str = ""


class Summary(BaseModel, frozen=True):
    """What a report says first; ``report.json`` holds these fields.

    Attributes
    ----------
    is_made : whether somebody made the trouble on purpose, as in a drill
    state : the verdict in words; with a score, whether it passed
    severity : 1 to 4
    lead, reviewed_by : who leads, and who wrote the summary; empty: nobody yet
    title : what was held back, for how many requests, and why
    story : what happened, and what was done; a person's summary instead, if there is one
    affected : ids of the requests that were held back
    """

    schema_name: str = Field("runbook/report/1", serialization_alias="schema")
    incident: str
    is_made: bool
    environment: str
    state: str
    verdict: Verdict | None
    severity: int
    lead: str
    reviewed_by: str
    title: str
    story: tuple[str, ...]
    since: Timestamp | None
    until: Timestamp | None
    numbers: tuple[Number, ...]
    do_next: tuple[Task, ...]
    tickets: tuple[str, ...]
    causes: tuple[Finding, ...]
    done: tuple[EventRow, ...]
    timeline: tuple[EventRow, ...]
    affected: tuple[str, ...]


def summarise(model: ReportModel) -> Summary:
    """Return what the report says first."""
    journal = model.journal
    impact = model.impact
    verdict = model.verdict
    state = VERDICT_WORDS[verdict] if verdict else "Not judged yet"
    made = model.policy.exercise_word
    if model.score is not None:
        state = f"{made} {'passed' if model.score.is_good else 'failed'}"
    words = find_word(journal, "summary")
    done = [_tell_action(model, action) for action in model.remedies]
    title = model.policy.make_title(impact, model.causes, is_over=model.is_over)
    return Summary(
        incident=model.incident_id,
        is_made=model.is_made,
        environment=model.facts.get("environment") or "environment not known",
        state=state,
        verdict=verdict,
        severity=find_word(journal, "severity").severity or model.policy.compute_severity(impact),
        lead=find_word(journal, "lead").lead,
        reviewed_by=words.operator,
        title=f"[{made.upper()}] {title}" if model.is_made else title,
        story=(words.summary,) if words.summary else tuple(_tell_story(model, done)),
        since=model.since,
        until=model.until,
        numbers=tuple(_list_numbers(model)),
        do_next=tuple(list_tasks(model)),
        tickets=model.tickets,
        causes=tuple(model.causes),
        done=tuple(done),
        timeline=tuple(list_events(model)),
        affected=tuple(impact.requests),
    )


def _tell_story(model: ReportModel, done: Sequence[EventRow]) -> Iterator[str]:
    """Yield what happened, and what was done, as sentences."""
    if model.triggers:
        trigger = model.triggers[0]
        yield f"{capitalise(trigger.text)} at {trigger.at:%H:%M:%SZ}."
    elif model.causes:
        yield f"Evidence: {model.causes[0].reason.rstrip('.')}."
    remarks = [note for note in model.journal.notes if note.is_remark]
    if done:
        names = [each.text[:1].lower() + each.text[1:] for each in done]
        yield f"We {' and '.join(names)}."
    elif remarks:
        remark = remarks[-1]
        yield f"The runbook changed nothing. {remark.operator}: {remark.text}"
    elif model.since:
        yield "Nothing was changed."


def _list_numbers(model: ReportModel) -> Iterator[Number]:
    """Yield the five numbers; a duration is that of the seconds that are shown."""
    impact = model.impact
    request = model.policy.request
    files = f" (up to {impact.files:,} files)" if impact.files else ""
    yield Number(
        name="affected",
        value=impact.affected,
        words=f"{request}s held back{files}",
    )
    yield Number(
        name="longest_wait_minutes",
        value=impact.longest_minutes,
        unit="min",
        words="longest wait",
    )
    lasted = count_seconds(model.since, model.until)
    yield Number(
        name="lasted_s",
        value=lasted,
        unit="s",
        words="from cause to recovery",
    )
    seen = detection.find_detection(model.journal, model.ends)
    words = seen.name if seen else "an alert fired"
    detected = count_seconds(model.since, seen.at if seen else None)
    yield Number(
        name="detected_s",
        value=detected,
        unit="s",
        words=f"until {words}",
    )
    proofs = list_proofs(model.journal)
    harmed = sum(proof["lost"] + proof.get("duplicated", 0) for proof in proofs)
    yield Number(
        name="harmed",
        value=harmed if proofs else None,
        words="lost or shipped twice",
    )


def draw_waiting(model: ReportModel) -> Chart | None:
    """Draw what waited, with cause, alert, actions and recovery marked."""
    steps = model.of(Role.BACKLOG)
    if not steps or model.since is None:
        return None
    began_at = model.triggers[0].at if model.triggers else model.since
    marks = {"cause": began_at}
    for event in detection.list_events(model.journal):
        if event.at >= model.since and detection.is_firing(event):
            marks.setdefault("alert", event.at)
    for action in model.remedies:
        marks.setdefault(action.first.action.replace("_", " "), action.decisive.at)
    if model.until:
        marks["recovery"] = model.until
    plot = Plot(
        title=f"{model.policy.noun.capitalize()}s waiting",
        lines=tuple(gather_lines(steps[0].readings)),
        marks=tuple((at, text) for text, at in marks.items()),
    )
    return draw_chart(plot, began_at - timedelta(minutes=2))


def list_tasks(model: ReportModel) -> Iterator[Task]:
    """Yield what is next: first what is unfinished, then what people wrote down, then advice."""
    if model.damage:
        yield Task(text=model.damage)
    applied = model.journal.last_applied
    for reading in model.journal.latest().values():
        if applied is None or reading.seq > applied.seq:
            for command in reading.ways_on:
                yield Task(text=f"Do this first: {command}")
    for action in model.tried:
        for text in model.policy.list_unfinished(action):
            yield Task(text=text)
    if model.verdict and not model.is_good:
        section, reason = model.judgement.next
        command = f"runbook run {section[:2]}"
        if model.facts.get("closed_at"):
            reason = "Closed before all was well: look again."
            command = "runbook investigate"
        yield Task(text=f"{reason} {command}")
    follow_ups = list_follow_ups(model.journal)
    for note in follow_ups:
        yield Task(text=note.text, owner=note.owner, due=note.due, ticket=note.ticket)
    advised = [each.follow_ups for each in model.journal.conclusions if each.follow_ups]
    for text in advised[-1] if advised else ():
        if text not in [note.text for note in follow_ups]:
            yield Task(text=capitalise(text))
    has_points = any(step.latest for step in model.of(Role.CHECKLIST))
    if model.is_good and model.tried and not has_points:
        yield Task(text="Go through the checklist: runbook run 08 07")


def list_events(model: ReportModel) -> list[EventRow]:
    """Return the timeline, sorted by time."""
    return sorted(_list_rows(model), key=attrgetter("at"))


def _tell(at: datetime, tone: str, text: str, note: str = "") -> EventRow:
    return EventRow(at=at, tone=tone, text=capitalise(text), note=note)


def _tell_action(model: ReportModel, action: ActionRecord) -> EventRow:
    """Return the row of an action: what it did, how far it is proven, and who approved it."""
    by = f"approved by {action.approver}" if action.applied else action.last.reason
    text = model.policy.describe_action(action)
    return _tell(action.decisive.at, action.state, text, by)


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model.journal, {*_TOLD, *model.policy.marks})
    for event in model.triggers:
        yield _tell(event.at, "trigger", event.text, f"as {event.source} says")
    if model.since is not None:
        yield _tell(model.since, "breach", "first sign of trouble")
        yield from _list_alerts(model, model.since)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.tried:
        yield _tell_action(model, action)
    if model.until:
        yield _tell(model.until, "ok", "the last symptom or alert had ended")
    looks = [look for look in model.journal.conclusions if look.verdict in _OUTCOMES]
    for verdict, same in groupby(looks, attrgetter("verdict")):
        look = next(same)
        yield _tell(look.at, str(verdict), "verdict")


def _list_entries(journal: JournalView, told: Collection[str]) -> Iterator[EventRow]:
    """Yield what marks and people say, and which runs went wrong."""
    for mark in journal.marks:
        if mark.what in told:
            words = mark.what.replace("_", " ")
            yield _tell(mark.at, "note", mark.reason or words)
    for note in journal.notes:
        if note.is_remark:
            yield _tell(note.at, "note", f"{note.operator}: {note.text}")
    for run in journal.runs:
        if run.status not in _NOT_FAILED:
            error = run.error.partition("\n")[0]
            yield _tell(run.at, run.status, f"notebook {run.notebook}", error)


def _list_alerts(model: ReportModel, since: datetime) -> Iterator[EventRow]:
    """Yield how alerts changed since the trouble began, and which channels were told of it."""
    events = [
        event
        for event in detection.list_events(model.journal)
        if event.at >= since and event.kind in ("alert", "notice") and event.state != "pending"
    ]
    ordered = sorted(events, key=attrgetter("kind", "subject", "at"))
    for _, group in groupby(ordered, attrgetter("kind", "subject", "state", "is_end")):
        same = list(group)
        first = same[0]
        text = first.text
        if first.kind == "notice":
            channels = dict.fromkeys(event.channel for event in same)
            text = f"{', '.join(channels)} received: {first.subject}: {first.state}"
        yield EventRow(at=first.at, tone=first.kind, text=text)


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[EventRow]:
    """Yield when a cause was first named."""
    for look in model.journal.conclusions:
        named = [f.name for f in look.findings if f.status is CauseStatus.SUPPORTED]
        if cause.name in named:
            yield _tell(look.at, "cause", f"cause named: {say_causes([cause])}")
            break
