"""What the journal of an incident holds, in the order of a report: no HTML, no clock."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from chainlog import LogDamagedError, LogError, read_entries

from ..errors import RecordError
from ..model import Conclusion, Json, NotebookEntry, Reading, Role, Status, Verdict
from ..record.incident import Incident
from ..record.journal import ActionRecord, JournalView, group_actions, number_of, order_of
from ..section import ActionStep, SectionModule, Step
from ..show.text import VERDICT_WORDS

_GOOD = (Verdict.FIXED, Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_ENDED = {"stopped_at_plan": "stopped at the plan", "by_hand": "by hand"}


@dataclass(slots=True)
class StepRecord:
    """One statement of the runbook, and everything the journal has of it."""

    id: str
    title: str
    role: Role | None = None
    readings: list[Reading] = field(default_factory=list)
    actions: list[ActionRecord] = field(default_factory=list)

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self.readings[-1] if self.readings else None

    @property
    def worst(self) -> Reading | None:
        """The breach with the highest value, else the newest unknown, else the newest reading."""
        breaches = [r for r in self.readings if r.status is Status.BREACH]
        unknown = (r for r in reversed(self.readings) if r.status is Status.UNKNOWN)
        worst = max(breaches, key=lambda r: number_of(r.value) or 0.0, default=None)
        return worst or next(unknown, self.latest)

    @property
    def status(self) -> str:
        """A reading's status, an action's phase, or ``not run``."""
        if self.actions:  # a reading beside an action only prepares it
            return str(self.actions[-1].last.phase)
        return str(self.latest.status) if self.latest else "not run"


class RunRecord(NamedTuple):
    """One run of a section's notebook: which one, what it was given, what it came to."""

    run: NotebookEntry
    title: str
    parameters: dict[str, Json]

    @property
    def page(self) -> str:
        """The exported page's name; empty when the notebook's is not a file's."""
        found = re.fullmatch(r"([\w-]{1,100})\.ipynb", self.run.notebook, re.ASCII)
        return f"notebooks/{found[1]}.html" if found else ""


@dataclass(slots=True)
class SectionRecord:
    """One section of the runbook: its steps, its conclusions, its notebook's runs."""

    name: str
    title: str
    steps: list[StepRecord] = field(default_factory=list)
    conclusions: list[Conclusion] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    parameters: dict[str, Json] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Its number and title."""
        number = self.name.partition("_")[0].lstrip("0")
        return f"{number} {self.title}" if number.isdigit() else self.title


class ReportModel:
    """Everything that a report lays out: what the folder holds, up to the first damage.

    Parameters
    ----------
    incident : its ``incident.json`` and its journal may be missing or damaged
    modules : the runbook's sections

    Attributes
    ----------
    facts : the content of ``incident.json``; may be empty
    journal : what it holds; ends early when it is damaged
    damage : what is wrong with the journal or the folder, in words
    sections, steps : of the runbook in its order, then those that this version does not know
    actions : each plan's, in the order in which they were planned
    told : those that were carried out or tried, in the order in which that was
    waiting : those that wait for approval: of each step the newest, while there is a need
    is_good : whether the verdict is that nothing more is to be done
    begin : when a drill began: what was before is none of its business
    drill, objectives : what a drill wrote of itself, and what it had to show
    has_passed : whether a drill met every objective; None when it is none, or was not scored
    impact : how many it was about
    tickets : every one that the incident or a section's parameters name
    """

    def __init__(self, incident: Incident, modules: Mapping[str, SectionModule]) -> None:
        self.incident_id, self.facts, self.damage = incident.id, dict[str, Json](), ""
        try:
            self.facts = incident.redactor.json(incident.facts)
        except RecordError:
            self.damage = "incident.json cannot be read"
        journal = self.journal = self._read_journal(incident)
        self.verdict, self.causes = journal.verdict(), journal.causes()
        self.since, self.recovered_at = journal.since(), journal.recovered_at()
        self.is_good = self.verdict in _GOOD
        self.sections = {module.NAME: _blank(module) for module in modules.values()}
        self.steps = {s.id: s for section in self.sections.values() for s in section.steps}
        self.actions = group_actions(journal.actions)
        self._place()
        told = [action for action in self.actions if action.is_told]
        self.told = sorted(told, key=lambda a: (a.applied or a.last).seq)
        is_over = self.is_good or self.facts.get("closed_at")
        newest = [] if is_over else {a.first.step: a for a in self.actions}.values()
        self.waiting = [a for a in newest if not (a.is_told or a.is_empty or a.last.reason)]
        self.drill = [entry for entry in journal.entries if entry.kind == "drill"]
        self.begin = self.drill[0].at if self.drill else datetime.min.replace(tzinfo=UTC)
        scored = [e.data for e in self.drill if isinstance(e.data.get("objectives"), list)]
        objectives = scored[-1]["objectives"] if scored else ()
        self.objectives: list[dict[str, Json]] = [o for o in objectives if isinstance(o, dict)]
        has_failed = any(entry.data.get("event") == "failed" for entry in self.drill)
        is_met = all(objective.get("met") is True for objective in self.objectives)
        self.has_passed = is_met and not has_failed if self.objectives else None
        self.impact = journal.impact()
        named = (self.facts.get("ticket_id"), *self.impact.tickets)
        self.tickets = list(dict.fromkeys(str(ticket) for ticket in named if ticket))

    def section(self, name: str) -> SectionRecord:
        """Return a section's record, a new one where the runbook has no such section."""
        return self.sections.setdefault(name, SectionRecord(name, name))

    def of(self, *roles: Role) -> list[StepRecord]:
        """Return the steps that have one of some roles, in the runbook's order."""
        return [step for step in self.steps.values() if step.role in roles]

    def _read_journal(self, incident: Incident) -> JournalView:
        """Return what the journal holds; what came before a damage counts."""
        view, path, damage = JournalView(), incident.journal.path, ""
        try:
            try:
                view = incident.journal.redacted()
            except RecordError:  # damaged: what stands before that is read
                view.add(incident.journal.redact(read_entries(path)))
            if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
                damage = "the journal's last line is torn (its writer died); it is left out here"
        except LogDamagedError as error:
            where = f"the journal is damaged at line {error.line} ({error.reason})"
            damage = f"{where}; this report tells only what stands before it"
        except (OSError, LogError) as error:
            damage = f"the journal cannot be read: {error}"
        self.damage = "; ".join(filter(None, (self.damage, damage)))
        return view

    def _place(self) -> None:
        """Put what the journal holds in its place."""
        for start in self.journal.starts:
            self.section(start.section).parameters = start.parameters
        for reading in self.journal.readings:
            self._step(reading.step, reading.name, reading.role).readings.append(reading)
        for conclusion in self.journal.conclusions:
            self.section(conclusion.section).conclusions.append(conclusion)
        for action in self.actions:
            self._step(action.first.step, action.first.action).actions.append(action)
        for name in dict.fromkeys(run.section for run in self.journal.runs):
            self.section(name).runs = list(self._list_runs(self.section(name)))

    def _step(self, step_id: str, name: str, role: Role | None = None) -> StepRecord:
        """Return a step's record: a step belongs to the section that its number names."""
        if step_id not in self.steps:
            number = step_id.partition(".")[0].zfill(2)
            home = next((n for n in self.sections if n.startswith(number)), number)
            self.steps[step_id] = StepRecord(step_id, name, role)
            self.section(home).steps.append(self.steps[step_id])
        return self.steps[step_id]

    def _list_runs(self, section: SectionRecord) -> Iterator[RunRecord]:
        """Say of each run which it is and what it came to, by what stands before its end."""
        runs = [run for run in self.journal.runs if run.section == section.name]
        starts = [start for start in self.journal.starts if start.section == section.name]
        for number, run in enumerate(runs):
            before = [start for start in starts if start.seq < run.seq]
            begun, given = (before[-1].seq, before[-1].parameters) if before else (0, {})
            end = run.seq
            if run.status == "by_hand":  # it is noted when it begins
                end = min((s.seq for s in starts if s.seq > run.seq), default=sys.maxsize)
            within = [a for a in self.actions if a.applied and begun < a.applied.seq < end]
            concluded = [c for c in section.conclusions if begun < c.seq < end]
            ended = _ENDED.get(run.status, run.status)
            if within:
                is_proven = all(a.proof in ("proven", "verified") for a in within)
                ended = f"approved and applied{'' if is_proven else ', and not all of it proven'}"
            elif run.status in ("done", "by_hand") and concluded:
                ended = VERDICT_WORDS[concluded[-1].verdict].lower()
            ordinal = (*_ORDINALS, f"{number + 1}th")[min(number, len(_ORDINALS))]
            which = f", {ordinal} run" if len(runs) > 1 else ""
            yield RunRecord(run, f"{section.words}{which}: {ended}", given)


def _blank(module: SectionModule) -> SectionRecord:
    number = module.NAME[:2].lstrip("0") + "."
    known: dict[str, Step | ActionStep] = {**module.STEPS, **module.ACTIONS}
    roles = {step.id: step.role for step in module.STEPS.values()}
    own = sorted((i for i in known if i.startswith(number)), key=order_of)
    steps = [StepRecord(i, known[i].title, roles.get(i)) for i in own]
    return SectionRecord(module.NAME, module.TITLE, steps)
