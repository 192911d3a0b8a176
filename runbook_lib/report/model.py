"""What the journal of an incident holds, arranged as in a report: no HTML, no clock."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from chainlog import LogDamagedError, LogError, read_entries

from ..errors import RecordError
from ..model import Conclusion, Json, NotebookEntry, Reading, Role, Status, Verdict
from ..policy import Policy
from ..record.actions import ActionRecord, group_actions
from ..record.incident import Incident
from ..record.view import JournalView, order_of, to_number
from ..runbook import load_policy
from ..section import SectionModule
from ..show.text import VERDICT_WORDS

_GOOD = (Verdict.FIXED, Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
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
        if breaches:
            return max(breaches, key=lambda reading: to_number(reading.value) or 0.0)
        unknown = [r for r in self.readings if r.status is Status.UNKNOWN]
        return unknown[-1] if unknown else self.latest

    @property
    def status(self) -> str:
        """A reading's status, an action's phase, or ``not run``."""
        if self.actions:  # a reading of the same step only prepares the action
            return str(self.actions[-1].last.phase)
        return str(self.latest.status) if self.latest else "not run"


class RunRecord(NamedTuple):
    """One run of a section's notebook: its parameters, and in its title how it ended."""

    run: NotebookEntry
    title: str
    parameters: dict[str, Json]

    @property
    def page(self) -> str:
        """The exported page's name; empty when the notebook's name is no file name."""
        match = re.fullmatch(r"([\w-]{1,100})\.ipynb", self.run.notebook, re.ASCII)
        return f"notebooks/{match[1]}.html" if match else ""


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
    def number(self) -> str:
        """Its number, without zeros in front; empty when its name has none."""
        number = self.name.partition("_")[0].lstrip("0")
        return number if number.isdigit() else ""

    @property
    def words(self) -> str:
        """Its number and title."""
        return f"{self.number} {self.title}".strip()


class ReportModel:
    """Everything that a report lays out: what the folder holds, up to the first damage.

    Parameters
    ----------
    incident : its ``incident.json`` and its journal may be missing or damaged
    modules : the runbook's sections
    policy : the runbook's; default: the installed one's

    Attributes
    ----------
    facts : the content of ``incident.json``; may be empty
    journal : what it holds; ends early when it is damaged
    damage : what is wrong with the journal or the folder, in words
    sections, steps : of the runbook, one after the other, then those that this version does not
        know
    titles : what the runbook's steps observe, by id; an action may have the same id
    actions : each plan's, sorted by when it was planned
    tried : actions that were carried out, refused or failed, sorted by when that was
    remedies : those of ``tried`` that belong to the section that reads recovery; without any, all
    waiting : actions that wait for approval: the newest of each step, unless the incident is over
    is_good : whether the verdict is that nothing more is to be done
    begin : when a drill began. Earlier events are ignored
    drill, objectives : the journal's entries of a drill, and what it had to show
    has_passed : whether a drill met every objective; None when it is none, or was not scored
    impact : how much it affected
    tickets : every one that the incident or a section's parameters name
    """

    def __init__(
        self,
        incident: Incident,
        modules: Mapping[str, SectionModule],
        policy: Policy | None = None,
    ) -> None:
        self.incident_id = incident.id
        self.policy = policy or load_policy()
        self.facts, facts_damage = _read_facts(incident)
        self.journal, journal_damage = _read_journal(incident)
        self.damage = "; ".join(filter(None, (facts_damage, journal_damage)))
        self.verdict = self.policy.compute_verdict(self.journal)
        self.causes = self.policy.list_causes(self.journal)
        self.since = self.journal.since()
        self.recovered_at = self.journal.recovered_at()
        self.is_good = self.verdict in _GOOD
        self.sections = {module.NAME: _make_section(module) for module in modules.values()}
        self.steps: dict[str, StepRecord] = {}
        for section in self.sections.values():
            self.steps |= {step.id: step for step in section.steps}
        self.titles: dict[str, str] = {}
        for module in modules.values():
            self.titles |= {step.id: step.title for step in module.STEPS.values()}
        self.actions = group_actions(self.journal.actions)
        self._place_entries()
        tried = [action for action in self.actions if action.was_tried]
        self.tried = sorted(tried, key=lambda action: action.decisive.seq)
        remedies = [action for action in self.tried if self._is_remedy(action)]
        self.remedies = remedies or self.tried
        self.waiting = [] if self._is_over() else self._list_waiting()
        self.drill = [entry for entry in self.journal.entries if entry.kind == "drill"]
        self.begin = self.drill[0].at if self.drill else datetime.min.replace(tzinfo=UTC)
        self.objectives = self._list_objectives()
        self.has_passed = self._has_passed() if self.objectives else None
        self.impact = self.policy.compute_impact(self.journal)
        tickets = (self.facts.get("ticket_id"), *self.journal.tickets())
        self.tickets = list(dict.fromkeys(str(ticket) for ticket in tickets if ticket))

    def section(self, name: str) -> SectionRecord:
        """Return a section's record, a new one where the runbook has no such section."""
        return self.sections.setdefault(name, SectionRecord(name, name))

    def of(self, *roles: Role) -> list[StepRecord]:
        """Return the steps that have one of some roles, sorted as in the runbook."""
        return [step for step in self.steps.values() if step.role in roles]

    def section_with(self, role: Role) -> SectionRecord | None:
        """Return the section that has a step of a role as its own; None without one."""
        for section in self.sections.values():
            if any(step.role is role for step in section.steps):
                return section
        return None

    def find_section_of(self, step_id: str) -> SectionRecord:
        """Return the section to which a step belongs: the one that its number names."""
        number = step_id.partition(".")[0].zfill(2)
        for name, section in self.sections.items():
            if name.startswith(number):
                return section
        return self.section(number)

    def _is_remedy(self, action: ActionRecord) -> bool:
        """Tell whether an action belongs to the section that reads recovery."""
        return self.find_section_of(action.first.step) is self.section_with(Role.RECOVERY)

    def _is_over(self) -> bool:
        return self.is_good or bool(self.facts.get("closed_at"))

    def _list_waiting(self) -> list[ActionRecord]:
        """Return the newest action of each step that waits for its approval."""
        newest = {action.first.step: action for action in self.actions}
        return [
            action
            for action in newest.values()
            if not (action.was_tried or action.is_empty or action.last.reason)
        ]

    def _list_objectives(self) -> list[dict[str, Json]]:
        """Return what a drill had to show, as it was scored last."""
        for entry in reversed(self.drill):
            objectives = entry.data.get("objectives")
            if isinstance(objectives, list):
                return [objective for objective in objectives if isinstance(objective, dict)]
        return []

    def _has_passed(self) -> bool:
        if any(entry.data.get("event") == "failed" for entry in self.drill):
            return False
        return all(objective.get("met") is True for objective in self.objectives)

    def _place_entries(self) -> None:
        """Put what the journal holds into its steps and sections."""
        for start in self.journal.starts:
            self.section(start.section).parameters = start.parameters
        for reading in self.journal.readings:
            self._step(reading.step, reading.name, reading.role).readings.append(reading)
        for conclusion in self.journal.conclusions:
            self.section(conclusion.section).conclusions.append(conclusion)
        for action in self.actions:
            self._step(action.first.step, action.first.action).actions.append(action)
        for name in dict.fromkeys(run.section for run in self.journal.runs):
            self.section(name).runs = self._list_runs(self.section(name))

    def _step(self, step_id: str, name: str, role: Role | None = None) -> StepRecord:
        """Return a step's record, a new one where the runbook has no such step."""
        if step_id not in self.steps:
            record = StepRecord(step_id, name, role)
            self.steps[step_id] = record
            self.find_section_of(step_id).steps.append(record)
        return self.steps[step_id]

    def _list_runs(self, section: SectionRecord) -> list[RunRecord]:
        """Return the runs of a section's notebook, each with a title of its own."""
        runs = [run for run in self.journal.runs if run.section == section.name]
        starts = [start for start in self.journal.starts if start.section == section.name]
        records = []
        for number, run in enumerate(runs, start=1):
            before = [start for start in starts if start.seq < run.seq]
            begin = before[-1].seq if before else 0
            parameters = before[-1].parameters if before else {}
            end = run.seq
            if run.status == "by_hand":  # noted when it begins: it ends where the next one begins
                following = [start.seq for start in starts if start.seq > run.seq]
                end = following[0] if following else sys.maxsize
            ended = self._describe_end(section, run.status, begin, end)
            ordinal = _ORDINALS.get(number, f"{number}th")
            which = f", {ordinal} run" if len(runs) > 1 else ""
            records.append(RunRecord(run, f"{section.words}{which}: {ended}", parameters))
        return records

    def _describe_end(self, section: SectionRecord, status: str, begin: int, end: int) -> str:
        """Return how a run ended: by what it changed or concluded between two entries."""
        applied = [a for a in self.actions if a.applied and begin < a.applied.seq < end]
        if applied:
            is_verified = all(action.is_verified for action in applied)
            return f"approved and applied{'' if is_verified else ', and not all of it proven'}"
        concluded = [c for c in section.conclusions if begin < c.seq < end]
        if status in ("done", "by_hand") and concluded:
            return VERDICT_WORDS[concluded[-1].verdict].lower()
        return _ENDED.get(status, status)


def _read_facts(incident: Incident) -> tuple[dict[str, Json], str]:
    """Return the content of ``incident.json``, and what is wrong with it."""
    try:
        facts: dict[str, Json] = incident.redactor.json(incident.facts)
    except RecordError:
        return {}, "incident.json cannot be read"
    return facts, ""


def _read_journal(incident: Incident) -> tuple[JournalView, str]:
    """Return what the journal holds up to the first damage, and what is wrong with it."""
    path = incident.journal.path
    view = JournalView()
    try:
        try:
            view = incident.journal.redacted()
        except RecordError:  # damaged: read what stands before the damage
            view.add(incident.journal.redact(read_entries(path)))
        if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
            return view, "the journal's last line is torn (its writer died); it is left out here"
    except LogDamagedError as error:
        where = f"the journal is damaged at line {error.line} ({error.reason})"
        return view, f"{where}; this report tells only what stands before it"
    except (OSError, LogError) as error:
        return view, f"the journal cannot be read: {error}"
    return view, ""


def _make_section(module: SectionModule) -> SectionRecord:
    """Return an empty record of a section and of its own steps."""
    number = module.NAME[:2].lstrip("0") + "."
    titles = {step.id: step.title for step in module.STEPS.values()}
    titles |= {action.id: action.title for action in module.ACTIONS.values()}
    own = sorted((step_id for step_id in titles if step_id.startswith(number)), key=order_of)
    steps = []
    for step_id in own:
        step = module.STEPS.get(step_id)
        steps.append(StepRecord(step_id, titles[step_id], step.role if step else None))
    return SectionRecord(module.NAME, module.TITLE, steps)
