"""What a report says of an incident, from its folder: no HTML, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from ..errors import LogDamagedError, RecordError
from ..model import (
    SIGNS,
    ActionEntry,
    ActionPhase,
    Conclusion,
    Json,
    Reading,
    Role,
    Status,
    Verdict,
)
from ..record.incident import Incident
from ..record.journal import JournalView, NotebookRun, order_of
from ..record.log import Entry, read_entries
from ..section import SectionModule
from ..show.text import VERDICT_WORDS, clip, format_bytes, format_duration, format_value

_ENDED_WELL = ("done", "stopped_at_plan")
_GOOD = (Verdict.FIXED, Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
_DRILL_FACTS = ("scenario", "seconds", "by", "steps", "reason", "verdict")
_READ = SIGNS | {Role.CAUSE, Role.EFFECT, Role.RECOVERY}
_CHECKLIST = (Role.CLEARED, Role.CHECKLIST)
_NO_CAUSE = "the cause is not proven"
_ACTIONS = {
    "release": "released {n} by move",
    "undo": "took {n} back",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {n} for an exercise",
    "revert_synthetic": "removed {n} of an exercise",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the first screen; ``is_wide``: it holds a sentence, not a value."""

    name: str
    text: str
    note: str = ""
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str
    seq: int | None


@dataclass(slots=True)
class ActionRecord:
    """One action through its phases, each with the journal entry that says so."""

    phases: list[tuple[Entry, ActionEntry]] = field(default_factory=list)

    @property
    def first(self) -> ActionEntry:
        """The oldest phase."""
        return self.phases[0][1]

    @property
    def last(self) -> ActionEntry:
        """The newest phase."""
        return self.phases[-1][1]

    @property
    def is_done(self) -> bool:
        """Whether it changed the world."""
        return any(a.phase is ActionPhase.APPLIED for _, a in self.phases)

    @property
    def is_waiting(self) -> bool:
        """Whether it is planned, and was neither approved nor empty."""
        return self.last.phase is ActionPhase.PLANNED and not self.last.reason and not self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether the plan has nothing to do."""
        return any(a.result.get("is_empty") is True for _, a in self.phases)

    @property
    def way_back(self) -> str:
        """How to take it back, or that there is no way."""
        results = [self.result(p).get("way_back") for p in ("planned", "applied", "verified")]
        undo = self.first.undo or next((str(text) for text in results if text), "")
        return undo or ("undo" if self.first.reversible else "there is none")

    def result(self, phase: ActionPhase | str) -> dict[str, Json]:
        """What the newest entry of a phase says came of it."""
        return next((a.result for _, a in reversed(self.phases) if a.phase == phase), {})

    def count(self, *names: str) -> int | None:
        """Return the first of these numbers that its result says; None when it says none."""
        found = (self.result(ActionPhase.APPLIED).get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


@dataclass(slots=True)
class StepRecord:
    """One statement of the runbook, and everything the journal has of it."""

    id: str
    title: str
    role: Role | None = None
    readings: list[tuple[Entry, Reading]] = field(default_factory=list)
    actions: list[ActionRecord] = field(default_factory=list)

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self.readings[-1][1] if self.readings else None

    @property
    def worst(self) -> Reading | None:
        """The breach with the highest value, else the newest unknown, else the newest reading."""
        breaches = [r for _, r in self.readings if r.status is Status.BREACH]
        if breaches:
            return max(breaches, key=lambda r: _number(r.value) or 0.0)
        unknown = (r for _, r in reversed(self.readings) if r.status is Status.UNKNOWN)
        return next(unknown, self.latest)

    @property
    def status(self) -> str:
        """``ok``, ``breach``, ``unknown``, an action's phase, or ``not run``."""
        if self.actions:  # a reading beside an action only prepares it
            return str(self.actions[-1].last.phase)
        return str(self.readings[-1][1].status) if self.readings else "not run"


@dataclass(slots=True)
class SectionRecord:
    """One section of the runbook: its steps, its conclusions, its notebook."""

    name: str
    title: str
    steps: list[StepRecord] = field(default_factory=list)
    conclusions: list[tuple[Entry, Conclusion]] = field(default_factory=list)
    parameters: dict[str, Json] = field(default_factory=dict)
    runs: list[NotebookRun] = field(default_factory=list)

    @property
    def page(self) -> str:
        """The newest run's exported page; empty when its name is not a file's."""
        name = self.runs[-1].notebook if self.runs else ""
        found = re.fullmatch(r"([\w-]{1,100})\.ipynb", name, re.ASCII)
        return f"notebooks/{found[1]}.html" if found else ""


class ReportModel:
    """Everything that a report lays out.

    Attributes
    ----------
    facts : the content of ``incident.json``; may be empty
    journal : what it holds; may end early when it is damaged
    sections, steps : of the runbook in its order, then those that this version does not know
    actions : each plan's, in the order in which they were planned
    damage : what is wrong with the journal or the folder, in words
    """

    def __init__(
        self,
        incident_id: str,
        *,
        facts: Mapping[str, Json],
        journal: JournalView,
        sections: Mapping[str, SectionModule],
        damage: str = "",
    ) -> None:
        self.incident_id, self.facts, self.journal = incident_id, facts, journal
        self.damage = damage
        self._sections = {module.NAME: _blank(module) for module in sections.values()}
        self.steps = {s.id: s for section in self.sections for s in section.steps}
        for entry, reading in journal.readings:
            self._step(reading.step, reading.name, reading.role).readings.append((entry, reading))
        actions: dict[tuple[str, str], ActionRecord] = {}
        for entry, action in journal.actions:
            key = (action.step, str(action.result.get("plan") or action.source))
            if key not in actions:
                actions[key] = ActionRecord()
                self._step(action.step, action.action).actions.append(actions[key])
            actions[key].phases.append((entry, action))
        self.actions = list(actions.values())
        for entry, conclusion in journal.conclusions:
            self._section(conclusion.section).conclusions.append((entry, conclusion))
        for name, given in journal.parameters:
            self._section(name).parameters = given
        for run in journal.runs:
            self._section(run.section).runs.append(run)
        self.verdict, self.causes = journal.verdict(), journal.causes()
        self.since, self.recovered_at = journal.since(), journal.recovered_at()

    @property
    def sections(self) -> list[SectionRecord]:
        """The sections."""
        return list(self._sections.values())

    @property
    def drills(self) -> list[dict[str, Json]]:
        """What a drill wrote of itself."""
        return [entry.data for entry in self.journal.entries if entry.kind == "drill"]

    @property
    def tickets(self) -> list[str]:
        """Every ticket that the incident or a section's parameters name."""
        named = (self.facts.get("ticket_id"), *self.journal.impact().tickets)
        return list(dict.fromkeys(str(t) for t in named if t))

    def _section(self, name: str) -> SectionRecord:
        return self._sections.setdefault(name, SectionRecord(name, name))

    def of(self, *roles: Role) -> list[StepRecord]:
        """Return the steps that have one of some roles, in the runbook's order."""
        return [step for step in self.steps.values() if step.role in roles]

    def _step(self, step_id: str, name: str, role: Role | None = None) -> StepRecord:
        """Return a step's record: a step belongs to the section that its number names."""
        if step_id not in self.steps:
            number = step_id.partition(".")[0].zfill(2)
            home = next((n for n in self._sections if n.startswith(number)), number)
            self.steps[step_id] = StepRecord(step_id, name, role)
            self._section(home).steps.append(self.steps[step_id])
        return self.steps[step_id]


def read_report_model(incident: Incident, sections: Mapping[str, SectionModule]) -> ReportModel:
    """Return what the folder holds, as far as it can be read: up to the first damage."""
    damage: list[str] = []
    facts: dict[str, Json] = {}
    entries: list[Entry] = []
    redact = incident.redactor.json
    try:
        facts = redact(incident.facts)
    except RecordError:
        damage.append("incident.json cannot be read")
    path = incident.journal.path
    try:
        for entry in read_entries(path):
            # one by one: what came before the damage counts
            entries.append(entry._replace(data=redact(entry.data)))  # noqa: PERF401
        if path.read_bytes()[-1:] not in (b"", b"\n"):
            damage.append("the journal's last line is torn (its writer died); it is left out here")
    except FileNotFoundError:
        pass
    except LogDamagedError as error:
        damage.append(
            f"the journal is damaged at line {error.line} ({error.why}); "
            "this report tells only what stands before it"
        )
    except (OSError, RecordError) as error:
        damage.append(f"the journal cannot be read: {error}")
    return ReportModel(
        incident.id,
        facts=facts,
        journal=JournalView(entries),
        sections=sections,
        damage="; ".join(damage),
    )


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause."""
    verdict = model.verdict
    if verdict is None:
        what = "concluded" if model.journal.entries else "recorded"
        return f"Nothing was {what} yet"
    words = VERDICT_WORDS[verdict].partition(";")[0]
    if verdict is Verdict.HEALTHY:
        return f"{words}: no label waits too long"
    if verdict is Verdict.UNKNOWN and not model.causes:
        return f"{words}: what a verdict needs could not be read"
    causes = " and ".join(c.words or c.name for c in model.causes[:2])
    return f"{words}: {causes or _NO_CAUSE}"


def format_clock(at: datetime, today: date) -> str:
    """Write a time of day, with its date only when that is not the report's day."""
    return f"{at:%H:%M:%SZ}" if at.date() == today else f"{at:%Y-%m-%d %H:%M:%SZ}"


def list_facts(model: ReportModel, *, today: date) -> list[Fact]:
    """Return what the first screen must say, in order; nothing is left out, only said unknown."""
    return [
        Fact("What happened", *_what_happened(model), is_wide=True),
        Fact("Since", *_since_when(model, today)),
        Fact("Labels", *_how_many(model)),
        Fact("Cause", *_why(model)),
        Fact("Tickets", ", ".join(model.tickets) or "none named"),
        Fact("What was done", *_what_was_done(model), is_wide=True),
    ]


def _what_happened(model: ReportModel) -> tuple[str, str]:
    about = [c for _, c in model.journal.conclusions if c.section[:2] in ("02", "03", "05")]
    incident = next((c for c in about if c.verdict is Verdict.INCIDENT), None)
    if incident:
        return incident.summary, ""
    breaches = [r for _, r in model.journal.readings if r.status is Status.BREACH]
    if breaches:
        return "; ".join(f"{r.name}: {_value(r)}" for r in breaches[:2]), breaches[0].reason
    return about[-1].summary if about else "nothing was read yet", ""


def _since_when(model: ReportModel, today: date) -> tuple[str, str]:
    since, end = model.since, model.recovered_at
    if since is None:
        return "no breach was seen", ""
    if end is not None and end > since:
        text = f"{format_clock(since, today)} to {format_clock(end, today)}"
        until = f"until recovery was read ({_ids(model, Role.RECOVERY)})"
        return text, f"{format_duration(end - since)} {until}"
    lasted = format_duration(model.journal.entries[-1].at - since)
    note = f"{lasted} up to the last journal entry; recovery was not read"
    return format_clock(since, today), note


def _how_many(model: ReportModel) -> tuple[str, str]:
    if model.journal.impact().objects is None:
        return f"not known: {_ids(model, Role.BACKLOG)} was not read", ""
    text, _, note = str(model.journal.impact()).partition("; ")
    return text, note


def _why(model: ReportModel) -> tuple[str, str]:
    if not model.causes:
        return _NO_CAUSE if model.journal.findings() else "not looked for yet (section 5)", ""
    text = "; ".join(c.words or c.name for c in model.causes)
    return text[:1].upper() + text[1:], model.causes[0].reason


def _what_was_done(model: ReportModel) -> tuple[str, str]:
    done = [a for a in model.actions if a.is_done]
    if not done:
        waiting = sum(1 for a in model.actions if a.is_waiting)
        note = f"{waiting} planned, waiting for approval" if waiting else ""
        return "nothing was changed", note
    # what an exercise made and took back again is told below
    main = [a for a in done if a.first.step.startswith("6.")] or done
    text = "; ".join(map(_say_action, main))
    return text[:1].upper() + text[1:], ""


def _say_action(action: ActionRecord) -> str:
    first, number = action.first, action.count("moved", "created", "removed")
    words = _ACTIONS.get(first.action, f"{first.action.replace('_', ' ')}: {{target}}")
    noun = "synthetic object" if "synthetic" in first.action else "object"
    amount = "" if number is None else f"{number:,} "
    objects = f"{amount}{noun}{'' if number == 1 else 's'}"
    # a target may hold braces: it is put in by replacement, never by format
    text = words.replace("{n}", objects).replace("{target}", clip(first.target, 70))
    phases = [a.phase for _, a in action.phases]
    after = phases[len(phases) - 1 - phases[::-1].index(ActionPhase.APPLIED) :]
    if after[-1] is ActionPhase.FAILED:
        proof = "the check afterwards failed"
    elif ActionPhase.VERIFIED not in after:
        proof = "not verified"
    else:
        proof = "proven" if first.action in ("release", "undo") else "verified"
    return f"{text} ({proof})"


def list_timeline(model: ReportModel) -> list[TimelineRow]:
    """Return every change of a reading's status, and everything that was done, in order."""
    return sorted(_timeline(model), key=lambda row: (row.at, row.seq or 0))


def _timeline(model: ReportModel) -> Iterator[TimelineRow]:
    if model.since is not None:
        yield TimelineRow(model.since, "breach", "The trouble began", "as a reading says", None)
    for step in model.steps.values():
        status = None
        for entry, reading in step.readings:
            if reading.status is not status and (status or reading.status is not Status.OK):
                text = f"{step.id} {reading.name}: {_value(reading)}"
                yield TimelineRow(entry.at, str(reading.status), text, reading.reason, entry.seq)
            status = reading.status
    journal = model.journal
    for entry, action in journal.actions:
        text = f"{action.step} {action.action} on {action.target}"
        yield TimelineRow(entry.at, str(action.phase), text, action.reason, entry.seq)
    for entry, conclusion in journal.conclusions:
        text = f"{conclusion.section}: {VERDICT_WORDS[conclusion.verdict]}"
        yield TimelineRow(entry.at, str(conclusion.verdict), text, conclusion.summary, entry.seq)
    for entry, text in journal.notes:
        yield TimelineRow(entry.at, "note", text, "", entry.seq)
    yield from _observed_rows(model)
    for entry in journal.entries:
        if row := _say_entry(entry):
            yield TimelineRow(entry.at, *row, entry.seq)


def _observed_rows(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield what the newest timeline says of the systems; what we did stands here already."""
    timelines = [(e, c.timeline) for e, c in model.journal.conclusions if c.timeline]
    for entry, timeline in timelines[-1:]:
        for event in timeline:
            if event.kind not in ("action", "drill"):
                note = f"by the clock of {event.source}" if event.source else ""
                yield TimelineRow(event.at, event.kind, event.text, note, entry.seq)


def _say_entry(entry: Entry) -> tuple[str, str, str] | None:
    """Return tone, text and note of an entry that is no reading, action, conclusion or note."""
    data = entry.data
    if entry.kind == "interrupted":
        return "failed", "The run was interrupted", ""
    if entry.kind == "torn_tail":
        text = "A torn last line of the journal was set aside"
        return "unknown", text, f"kept as {data.get('kept_as')}"
    if entry.kind == "notebook" and data.get("error"):
        return "note", f"Notebook {data.get('notebook')}: {data.get('status')}", str(data["error"])
    if entry.kind == "closed":
        return "closed", "The incident was closed", ""
    if entry.kind == "drill" and (event := data.get("event")):
        facts = {k: v for k, v in data.items() if k in _DRILL_FACTS and v not in (None, [])}
        note = ", ".join(f"{name} {_say(value)}" for name, value in facts.items())
        return "drill", str(event).replace("_", " "), note
    return None


def list_open(model: ReportModel) -> list[tuple[str, tuple[str, ...]]]:
    """Return what is still open, each with the ids of the steps that say so."""
    return [*_open_in_record(model), *_open_actions(model), *_open_steps(model)]


def _open_in_record(model: ReportModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    if model.damage:
        yield model.damage, ()
    if unreadable := model.journal.unreadable:
        yield f"{len(unreadable)} journal entries could not be understood", ()
    for entry in model.journal.entries:
        if entry.kind == "interrupted":
            yield f"the run was interrupted at {entry.at:%H:%M:%SZ}", ()
    for section in model.sections:
        run = section.runs[-1] if section.runs else None
        if run and run.status not in _ENDED_WELL:
            yield f"notebook {run.notebook} ended as {run.status}: {run.error}", ()


def _open_actions(model: ReportModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    done = [str(a.result(ActionPhase.APPLIED).get("plan", "")) for a in model.actions]
    for action in model.actions:
        first, last = action.first, action.last
        steps = (first.step,)
        if action.is_waiting:
            yield f"{first.action} on {first.target} is planned and waits for approval", steps
        elif last.phase in (ActionPhase.REFUSED, ActionPhase.FAILED):
            yield f"{first.action} was {last.phase}: {last.reason}", steps
        result = action.result(ActionPhase.APPLIED)
        plan, unproven = str(result.get("plan", "")), result.get("unproven") or ()
        if unproven and not any(other.startswith(f"{plan}-settle") for other in done):
            yield (
                f"{len(unproven)} label{'s' * (len(unproven) != 1)}: nobody can know whether "
                f"shipped. runbook settle {plan} --taken|--not-taken [KEY…]",
                steps,
            )
        if result.get("waiting"):
            yield f"{plan} is not finished: runbook resume {plan}", steps


def _open_steps(model: ReportModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    last, journal = model.journal.last_applied, model.journal
    judged = max((e.seq for e, c in journal.conclusions if c.section.startswith("06")), default=0)
    # section 6 judged by what is newer than its action: older symptoms are history
    judged_from = last[0].seq if last and judged > last[0].seq else 0
    open_ones = [
        (s, s.latest)
        for s in model.steps.values()
        if s.latest is not None
        and s.latest.status is not Status.OK
        and not (s.role in SIGNS and s.readings[-1][0].seq < judged_from)
    ]
    said: set[Role | None] = set()
    for step, reading in open_ones:
        is_symptom = step.role in SIGNS and model.verdict not in _GOOD
        if reading.status is Status.BREACH and (is_symptom or step.role is Role.RECOVERY):
            said.add(step.role)
            yield f"{reading.name}: {_value(reading)}", (step.id,)
    unread = [s.id for s, r in open_ones if r.status is Status.UNKNOWN and s.role in _READ]
    if unread:
        yield "could not be read:", tuple(unread)
    for step, reading in open_ones:
        # that it cleared and that it fires are about the same alert
        if step.role in _CHECKLIST and not (step.role is Role.CLEARED and Role.ALERT in said):
            yield f"{step.title}: {reading.reason}", (step.id,)


def _blank(module: SectionModule) -> SectionRecord:
    number = module.NAME[:2].lstrip("0") + "."
    titles = {i: step.title for i, step in module.STEPS.items()}
    titles |= {i: action.title for i, action in module.ACTIONS.items()}
    own = sorted((i for i in titles if i.startswith(number)), key=order_of)
    roles = {i: step.role for i, step in module.STEPS.items()}
    steps = [StepRecord(i, titles[i], roles.get(i)) for i in own]
    return SectionRecord(module.NAME, module.TITLE, steps)


def _ids(model: ReportModel, role: Role) -> str:
    return ", ".join(step.id for step in model.of(role))


def _say(value: Json) -> str:
    """Return a small JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else format_value(value)


def _value(reading: Reading) -> str:
    number = _number(reading.value)
    if reading.unit == "bytes" and number is not None:
        return format_bytes(number)
    return format_value(reading.value, reading.unit)


def _number(value: Json) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
