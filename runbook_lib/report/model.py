"""What a report says of an incident, as values: no HTML, no clock.

``ReportModel`` arranges what the journal holds. The functions below it say the first screen, the
timeline, and what is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from chainlog import LogError, read_entries

from ..errors import RecordError
from ..model import (
    ActionPhase,
    CauseStatus,
    Conclusion,
    Event,
    Finding,
    Json,
    NotebookEntry,
    Reading,
    Role,
    Status,
    Verdict,
)
from ..policy import say_causes
from ..record.actions import ActionRecord, group_actions
from ..record.detection import Moment, find_detection, list_moments, list_triggers
from ..record.incident import ENDED_WELL, Incident, list_neighbours
from ..record.view import JournalView, get_number, order_of
from ..runbook import load_policy
from ..section import SectionModule
from ..show.text import VERDICT_WORDS, capitalise

#: The statuses of notebooks that did not break off; an interruption has an entry of its own.
_NOT_FAILED = ("done", "stopped_at_plan", "by_hand", "interrupted")
#: Verdicts about what an action achieved.
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
#: The tone of the entries that stand in the timeline: of marks by what they say, of a drill's
#: entries by kind and event, of others by kind.
_TOLD = {
    "plan_of_closed": "note",
    "joined": "note",
    "interrupted": "failed",
    "closed": "closed",
    "took_over": "note",
    "drill_started": "drill",
    "drill_injected": "drill",
    "drill_failed": "failed",
    "drill_reverted": "drill",
    "drill_revert_failed": "failed",
}


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
        """The breach or else the unknown reading with the highest value, else the newest one."""
        for status in (Status.BREACH, Status.UNKNOWN):
            found = [reading for reading in self.readings if reading.status is status]
            if found:
                return max(reversed(found), key=get_number)
        return self.latest

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
        """Its number, without leading zeros, and its title."""
        number = self.name.partition("_")[0]
        return f"{int(number)} {self.title}" if number.isdigit() else self.title


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
    judgement, verdict : what the policy says as of the newest reading or change; None: no symptom
        was read yet
    causes : those that the policy names, the most supported first
    since, until : when the trouble began, and when it ended; None: not known, or there is none
    is_good : whether the verdict is that nothing more is to be done
    drill, objectives : the journal's entries of a drill, and what it had to show
    has_passed : whether a drill met every objective; None when it is not a drill, or was not scored
    impact : how much the incident affected
    tickets : every one that a section's parameters or a reading names
    """

    def __init__(self, incident: Incident, modules: Mapping[str, SectionModule]) -> None:
        # Each value may need those above it.
        self.incident_id = incident.id
        self.policy = load_policy()
        self.facts: dict[str, Json] = {}
        self.neighbours: list[str] = []
        self.notebooks = {path.name for path in incident.folder.glob("notebooks/*.ipynb")}
        with suppress(RecordError):
            self.facts = incident.redactor.json(incident.state.to_json())
            self.neighbours = list_neighbours(incident)
        self.journal, self.damage = _read_journal(incident)
        self.judgement = self.policy.judge(self.journal, now=self.journal.last_look_at)
        self.verdict = self.judgement.verdict if self.judgement else None
        self.until = self.judgement.until if self.judgement else None
        self.causes = self.policy.list_causes(self.journal)
        self.ends = self.policy.find_ends(self.journal)
        self.since = self.ends.since
        self.is_good = self.verdict in ENDED_WELL
        self.sections = {module.NAME: _make_section(module) for module in modules.values()}
        self.steps: dict[str, ReportStep] = {}
        for section in self.sections.values():
            self.steps.update({step.id: step for step in section.steps})
        self.actions = group_actions(self.journal.actions)
        self._place_entries()
        self.tried = [action for action in self.actions if action.was_tried]
        self.tried.sort(key=lambda action: action.decisive.seq)
        self.drill = [entry for entry in self.journal.entries if entry.kind == "drill"]
        events = {entry.data.get("event"): entry.data for entry in self.drill}
        self.objectives: list[dict[str, Json]] = events.get("scored", {}).get("objectives", [])
        self.has_passed: bool | None = None
        if self.objectives:
            has_met_all = all(objective["met"] for objective in self.objectives)
            self.has_passed = has_met_all and "failed" not in events
        self.impact = self.policy.compute_impact(self.journal)
        self.tickets = self.journal.tickets()

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

    def _section(self, name: str) -> ReportSection:
        """Return a section by its number; if the model has none, add an empty one."""
        number, _, _ = name.partition("_")
        for section_name, section in self.sections.items():
            if section_name.startswith(f"{number}_"):
                return section
        return self.sections.setdefault(name, ReportSection(name, name))

    def _step(self, step_id: str, name: str, role: Role | None = None) -> ReportStep:
        """Return a step; if the model has none of this id yet, add an empty one to its section."""
        if step_id not in self.steps:
            self.steps[step_id] = ReportStep(step_id, name, role)
            number = step_id.partition(".")[0].zfill(2)
            self._section(number).steps.append(self.steps[step_id])
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


def _make_section(module: SectionModule) -> ReportSection:
    """Return a section and the steps with its number, as yet without anything from the journal."""
    steps = {step.id: ReportStep(step.id, step.title, step.role) for step in module.STEPS.values()}
    for action in module.ACTIONS.values():
        # An action may have the id of a step; the section then shows the action's title.
        steps.setdefault(action.id, ReportStep(action.id, action.title)).title = action.title
    number, _, _ = module.NAME.partition("_")
    prefix = f"{number.lstrip('0')}."
    own = [step_id for step_id in steps if step_id.startswith(prefix)]
    own.sort(key=order_of)
    return ReportSection(module.NAME, module.TITLE, [steps[step_id] for step_id in own])


class Done(NamedTuple):
    """What was carried out or begun; ``proof`` says how far it is proven, ``by`` who approved."""

    text: str
    proof: str
    by: str


class Summary(NamedTuple):
    """What the first screen says beside the values of the model.

    Attributes
    ----------
    headline : the verdict and the cause; for a drill, whether it passed
    trigger : the first change that began the trouble; None: no system tells
    detected : what detected the trouble, and when
    severity : of the last alert that fired, with the alert's name; empty: none fired
    related : ids of incidents that were open at the same time, or belong to the same fault
    """

    headline: str
    trigger: Event | None
    detected: Moment | None
    severity: str
    done: list[Done]
    related: list[str]


class EventRow(NamedTuple):
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str = ""


class Open(NamedTuple):
    """What is still open, and the ids of the steps that say so."""

    text: str
    steps: tuple[str, ...] = ()


def summarise(model: ReportModel) -> Summary:
    """Return the first screen as values."""
    begun = [action for action in model.tried if action.applied or action.is_cut_off]
    severity = ""
    for reading in model.journal.readings:
        for row in reading.rows if reading.role is Role.ALERT else ():
            if row.get("state") == "firing":
                drill = " (drill)" if row.get("drill") else ""
                severity = f"{row.get('severity')}, by the alert {row.get('alert')}{drill}"
    related = [*model.neighbours, str(model.facts.get("fault_drill") or "")]
    return Summary(
        headline=write_headline(model),
        trigger=next(iter(list_triggers(model.journal)), None),
        detected=find_detection(list_moments(model.journal, model.ends)),
        severity=severity,
        done=[_describe_done(model, action) for action in begun],
        related=list(dict.fromkeys(filter(None, related))),
    )


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; for a drill, whether it passed."""
    if model.has_passed is not None:
        words = say_causes(model.causes) or "no cause was found"
        return f"Drill {'passed' if model.has_passed else 'failed'}: {words}"
    if model.verdict is None:
        return "Nothing was concluded yet"
    causes = model.causes
    if not model.is_good:  # a cause may be gone while the trouble lasts
        still = [f.name for f in model.journal.findings() if f.status is CauseStatus.SUPPORTED]
        causes = [cause for cause in causes if cause.name in still]
    words = VERDICT_WORDS[model.verdict].partition(";")[0]
    return f"{words}: {model.policy.make_headline(model.verdict, causes)}"


def _describe_done(model: ReportModel, action: ActionRecord) -> Done:
    """Return what an action did, and how far it is proven; if it changed nothing, how it ended."""
    if action.is_cut_off and not action.is_taken_back:
        proof = action.last.reason or "begun, and not ended"
    elif action.applied is None:
        proof = action.last.reason or action.state
    else:
        proof = model.policy.describe_proof(action)
    return Done(capitalise(model.policy.describe_action(action)), proof, action.approver)


def list_events(model: ReportModel) -> list[EventRow]:
    """Return the timeline, sorted by time. A drill's begins with the drill."""
    rows = sorted(_list_rows(model), key=attrgetter("at"))
    return [row for row in rows if not model.drill or row.at >= model.drill[0].at]


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model.journal)
    for event in list_triggers(model.journal):
        yield EventRow(event.at, "trigger", capitalise(event.text), f"as {event.source} says")
    if model.since is not None:
        yield EventRow(model.since, "breach", "First sign of trouble")
        yield from _list_alerts(model, model.since)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.tried:
        text, proof, by = _describe_done(model, action)
        note = f"approved by {by}; {proof}" if by else proof
        yield EventRow(action.decisive.at, action.state, text, note)
    if model.until:
        yield EventRow(model.until, "ok", "The last symptom or alert had ended")
    looks = [look for look in model.journal.conclusions if look.verdict in _OUTCOMES]
    for verdict, same in groupby(looks, attrgetter("verdict")):
        look = next(same)
        yield EventRow(look.at, str(verdict), VERDICT_WORDS[verdict], look.summary)


def _list_entries(journal: JournalView) -> Iterator[EventRow]:
    """Yield what marks, drills and people say, and which runs went wrong."""
    for entry in journal.entries:
        kind = str(entry.data.get("what", entry.kind))
        if kind == "drill":
            kind = f"drill_{entry.data.get('event')}"
        if kind in _TOLD:
            text = capitalise(kind.replace("_", " "))
            yield EventRow(entry.at, _TOLD[kind], text, str(entry.data.get("reason") or ""))
    for note in journal.notes:
        if note.is_remark:
            yield EventRow(note.at, "note", f"{note.operator}: {note.text}")
    for run in journal.runs:
        if run.status not in _NOT_FAILED:
            error = run.error.partition("\n")[0]
            yield EventRow(run.at, run.status, f"Notebook {run.notebook}", error)


def _list_alerts(model: ReportModel, since: datetime) -> Iterator[EventRow]:
    """Yield how alerts changed since the trouble began, and which channels were told of it.

    Each look tells of its whole window, so what is repeated is one event.
    """
    events = {}
    for look in model.journal.conclusions:
        for event in look.timeline:
            if event.at >= since and event.kind in ("alert", "notice"):
                events[f"{event.at:%c}", event.text] = event
    ordered = sorted(events.values(), key=attrgetter("kind", "subject", "at"))
    for _, group in groupby(ordered, attrgetter("kind", "subject", "state", "is_end")):
        same = list(group)
        first = same[0]
        text = first.text
        if first.kind == "notice":
            channels = dict.fromkeys(event.channel for event in same)
            text = f"{', '.join(channels)} received: {first.subject}: {first.state}"
        yield EventRow(first.at, first.kind, text)


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[EventRow]:
    """Yield when a cause was first named; and when its first sign was, unless this is a drill."""
    words = say_causes([cause])
    for look in model.journal.conclusions:
        supported = [f for f in look.findings if f.status is CauseStatus.SUPPORTED]
        reasons = [finding.reason for finding in supported if finding.name == cause.name]
        if reasons:
            yield EventRow(look.at, "cause", f"Cause named: {words}", reasons[0])
            break
    if cause.first_seen and not model.drill:
        yield EventRow(cause.first_seen, "cause", f"First sign of the cause: {words}")


def list_open(model: ReportModel) -> Iterator[Open]:
    """Yield damage, what was begun and left something to do, what comes next, and open points.

    Points of the checklist that nobody looked at are open once the trouble is over.
    """
    if model.damage:
        yield Open(model.damage)
    for reading in model.journal.latest().values():
        applied = model.journal.list_actions(ActionPhase.APPLIED, after=reading.seq)
        finished = {str(action.result.get("plan")) for action in applied}
        for command in reading.ways_on:
            if finished.isdisjoint(command.split()):
                yield Open(f"begun, and not finished: {command}", (reading.step,))
    for action in model.tried:
        for text in model.policy.list_unfinished(action):
            yield Open(text, (action.first.step,))
    if model.facts.get("closed_at") and not model.is_good:
        yield Open("closed before all was well")
    elif model.judgement and not model.is_good:
        section, reason = model.judgement.next
        yield Open(f"next, in {section}: {reason}")
    points = model.of(Role.CHECKLIST, Role.CLEARED) if model.is_good else model.of(Role.CHECKLIST)
    for step in points:
        if step.latest and step.latest.status.is_open:
            yield Open(f"{step.title}: {step.latest.reason}", (step.id,))
    unread = [step.id for step in points if not step.latest]
    # ``healthy`` says that there never was a symptom: then no point needs a look.
    # Of a drill's fault, the drill's own incident has the checklist.
    has_no_points = model.verdict is Verdict.HEALTHY or bool(model.facts.get("fault_drill"))
    if unread and model.is_good and not has_no_points:
        yield Open("not run yet:", tuple(unread))
