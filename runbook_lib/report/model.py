"""What the journal of an incident holds, arranged as in a report: no HTML, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from chainlog import LogDamagedError, LogError, read_entries

from ..errors import RecordError
from ..model import Conclusion, Json, NotebookEntry, Reading, Role, Status
from ..policy import Policy
from ..record.actions import ActionRecord, group_actions
from ..record.incident import ENDED_WELL, Incident, list_neighbours
from ..record.view import JournalView, get_number, order_of
from ..runbook import load_policy
from ..section import SectionModule

#: How a run ended, in words, by its status; any other status is its own word.
_ENDED = {"stopped_at_plan": "stopped at the plan", "by_hand": "by hand"}


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
        if not self.readings:
            return None
        return self.readings[-1]

    @property
    def worst(self) -> Reading | None:
        """The breach with the highest value, else the newest unknown, else the newest reading."""
        breaches = self._list_readings(Status.BREACH)
        if breaches:
            return max(breaches, key=get_number)
        unknown = self._list_readings(Status.UNKNOWN)
        if unknown:
            return unknown[-1]
        return self.latest

    def _list_readings(self, status: Status) -> list[Reading]:
        return [reading for reading in self.readings if reading.status is status]

    @property
    def status(self) -> str:
        """The state of the newest action, else the status of the newest reading, or ``not run``.

        A plan that nobody tried to carry out counts only if no other plan was tried.
        """
        if self.actions:  # a reading of the same step only prepares the action
            tried = [action for action in self.actions if action.was_tried]
            return (tried or self.actions)[-1].state
        if self.latest is None:
            return "not run"
        return str(self.latest.status)


class ReportRun(NamedTuple):
    """One run of a section's notebook; the title says how the run ended.

    ``entry`` is the journal's entry at the run's end; of a run by hand, the one at its beginning.
    """

    entry: NotebookEntry
    title: str
    parameters: dict[str, Json]

    @property
    def page(self) -> str:
        """The exported page's path; empty when the notebook's name is not a file name."""
        match = re.fullmatch(r"([\w-]{1,100})\.ipynb", self.entry.notebook, re.ASCII)
        if match is None:
            return ""
        return f"notebooks/{match[1]}.html"


@dataclass(slots=True)
class ReportSection:
    """One section of the runbook: its steps, its conclusions, its notebook's runs.

    ``parameters`` are those of the newest run.
    """

    name: str
    title: str
    steps: list[ReportStep] = field(default_factory=list)
    conclusions: list[Conclusion] = field(default_factory=list)
    runs: list[ReportRun] = field(default_factory=list)
    parameters: dict[str, Json] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """Its number without leading zeros; empty when its name has none."""
        prefix, _, _ = self.name.partition("_")
        number = prefix.lstrip("0")
        if not number.isdigit():
            return ""
        return number

    @property
    def words(self) -> str:
        """Its number and title."""
        return f"{self.number} {self.title}".strip()


class ReportModel:
    """Everything that a report lays out: what the folder holds, up to the first damage.

    Parameters
    ----------
    incident : its journal may be missing or damaged
    modules : the runbook's sections
    policy : the runbook's; default: the installed one's

    Attributes
    ----------
    facts : the incident's state; may be empty
    neighbours : ids of other incidents that were open at the same time
    journal : the journal's entries, up to the first damage
    damage : what is wrong with the journal or the folder, in words
    sections, steps : the runbook's, one after the other, by name and by id; then those of the
        journal that this version of the runbook does not know
    titles : what the runbook's steps observe, by id; an action may have the same id
    actions : one for each plan, sorted by when it was planned
    tried : actions that were approved, refused, carried out, or failed, sorted by when that
        happened
    remedies : those of ``tried`` that belong to the section that reads recovery; if none does, all
    waiting : actions that wait for approval: the newest of each step; none once the verdict is good
        or the incident is closed
    judgement, verdict : what the policy says as of the newest reading or change; None: no symptom
        was read yet
    causes : those that the policy names, the most supported first
    since, until : when the trouble began, and the first sample after which all stayed well; None:
        not known, or there is none
    is_good : whether the verdict is that nothing more is to be done
    begin : when a drill began; without a drill, the year 1. Earlier events are ignored
    drill, objectives : the journal's entries of a drill, and what it had to show
    has_passed : whether a drill met every objective; None when it is not a drill, or was not scored
    impact : how much the incident affected
    tickets : every one that the incident, a section's parameters or a reading names
    pictures : the folder that keeps drawn pictures for the next report
    """

    def __init__(
        self,
        incident: Incident,
        modules: Mapping[str, SectionModule],
        policy: Policy | None = None,
    ) -> None:
        # Each value may need those above it.
        self.incident_id = incident.id
        self.pictures = incident.pictures
        self.policy = policy or load_policy()
        self.facts: dict[str, Json] = {}
        self.neighbours: list[str] = []
        with suppress(RecordError):
            self.facts = incident.redactor.json(incident.state.to_json())
            self.neighbours = list_neighbours(incident)
        self.journal, self.damage = _read_journal(incident)
        self.judgement = self.policy.judge(self.journal, now=self.journal.last_look_at)
        self.verdict = self.judgement.verdict if self.judgement else None
        self.until = self.judgement.until if self.judgement else None
        self.causes = self.policy.list_causes(self.journal)
        self.since = self.journal.since()
        self.is_good = self.verdict in ENDED_WELL
        self.sections: dict[str, ReportSection] = {}
        self.steps: dict[str, ReportStep] = {}
        self.titles: dict[str, str] = {}
        for module in modules.values():
            self._add_section(module)
        self.actions = group_actions(self.journal.actions)
        self._place_entries()
        self.tried = [action for action in self.actions if action.was_tried]
        self.tried.sort(key=lambda action: action.decisive.seq)
        remedies = [action for action in self.tried if self._is_remedy(action)]
        self.remedies = remedies or self.tried
        self.waiting = self._list_waiting()
        self.drill = [entry for entry in self.journal.entries if entry.kind == "drill"]
        self.begin = datetime.min.replace(tzinfo=UTC)
        if self.drill:
            self.begin = self.drill[0].at
        self.objectives = self._list_objectives()
        self.has_passed = self._has_passed()
        self.impact = self.policy.compute_impact(self.journal)
        self.tickets = self._list_tickets()

    def _add_section(self, module: SectionModule) -> None:
        """Add a section of the runbook, its own steps, and the titles of all that it observes."""
        section = _make_section(module)
        self.sections[section.name] = section
        for own_step in section.steps:
            self.steps[own_step.id] = own_step
        for step in module.STEPS.values():
            self.titles[step.id] = step.title

    def section(self, name: str) -> ReportSection:
        """Return a section; if the model has none of this name yet, add an empty one."""
        return self.sections.setdefault(name, ReportSection(name, name))

    def of(self, *roles: Role) -> list[ReportStep]:
        """Return the steps that have one of some roles, sorted as in the runbook."""
        return [step for step in self.steps.values() if step.role in roles]

    def section_with(self, role: Role) -> ReportSection | None:
        """Return the first section with a step of a role; None without one."""
        for section in self.sections.values():
            roles = [step.role for step in section.steps]
            if role in roles:
                return section
        return None

    def find_section_of(self, step_id: str) -> ReportSection:
        """Return the section whose number begins a step's id; without one, add an empty section."""
        prefix, _, _ = step_id.partition(".")
        number = prefix.zfill(2)
        for name, section in self.sections.items():
            if name.startswith(number):
                return section
        return self.section(number)

    def _is_remedy(self, action: ActionRecord) -> bool:
        """Tell whether an action belongs to the section that reads recovery."""
        section = self.find_section_of(action.first.step)
        return section is self.section_with(Role.RECOVERY)

    def _list_waiting(self) -> list[ActionRecord]:
        """Return the newest action of each step that waits for its approval.

        Left out are plans that were tried, or whose entry gives a reason why they were left alone.
        """
        if self.is_good or self.facts.get("closed_at"):
            return []
        newest = {action.first.step: action for action in self.actions}
        return [a for a in newest.values() if not a.was_tried and not a.last.reason]

    def _list_tickets(self) -> list[str]:
        """Return every ticket once, the incident's own first."""
        tickets = []
        own = self.facts.get("ticket_id")
        if own:
            tickets.append(str(own))
        tickets.extend(self.journal.tickets())
        return list(dict.fromkeys(tickets))

    def _list_objectives(self) -> list[dict[str, Json]]:
        """Return what a drill had to show, as it was scored last."""
        for entry in reversed(self.drill):
            objectives = entry.data.get("objectives")
            if isinstance(objectives, list):
                return [objective for objective in objectives if isinstance(objective, dict)]
        return []

    def _has_passed(self) -> bool | None:
        """Tell whether a drill met every objective and did not break off; None: not scored."""
        if not self.objectives:
            return None
        events = [entry.data.get("event") for entry in self.drill]
        if "failed" in events:
            return False
        return all(objective.get("met") is True for objective in self.objectives)

    def _place_entries(self) -> None:
        """Put what the journal holds into its steps and sections."""
        for start in self.journal.starts:
            self.section(start.section).parameters = start.parameters
        for reading in self.journal.readings:
            step = self._step(reading.step, reading.name, reading.role)
            step.readings.append(reading)
        for conclusion in self.journal.conclusions:
            section = self.section(conclusion.section)
            section.conclusions.append(conclusion)
        for action in self.actions:
            first = action.first
            step = self._step(first.step, first.action)
            step.actions.append(action)
        run_sections = [run.section for run in self.journal.runs]
        for name in dict.fromkeys(run_sections):
            section = self.section(name)
            section.runs = self._list_runs(section)

    def _step(self, step_id: str, name: str, role: Role | None = None) -> ReportStep:
        """Return a step; if the model has none of this id yet, add an empty one to its section."""
        if step_id not in self.steps:
            step = ReportStep(step_id, name, role)
            self.steps[step_id] = step
            section = self.find_section_of(step_id)
            section.steps.append(step)
        return self.steps[step_id]

    def _list_runs(self, section: ReportSection) -> list[ReportRun]:
        """Return the runs of a section's notebook, each with the parameters that it began with."""
        starts = [start for start in self.journal.starts if start.section == section.name]
        runs = []
        for run in self.journal.runs:
            if run.section != section.name:
                continue
            begun = [start.parameters for start in starts if start.seq < run.seq]
            parameters = begun[-1] if begun else {}
            ending = _ENDED.get(run.status, run.status)
            runs.append(ReportRun(run, f"{section.words}: {ending}", parameters))
        return runs


def _read_journal(incident: Incident) -> tuple[JournalView, str]:
    """Return what the journal holds up to the first damage, and the damage; empty: none."""
    journal = incident.journal
    view = JournalView()
    try:
        try:
            view = journal.redacted()
        except RecordError:  # damaged: read what stands before the damage
            entries = read_entries(journal.path)
            view.add(journal.redact(entries))
        if _is_torn(journal.path):
            return view, "the journal's last line is torn (its writer died); it is left out here"
    except LogDamagedError as error:
        where = f"the journal is damaged at line {error.line} ({error.reason})"
        return view, f"{where}; this report tells only what stands before that line"
    except (OSError, LogError) as error:
        return view, f"the journal cannot be read: {error}"
    return view, ""


def _is_torn(path: Path) -> bool:
    """Tell whether a file's last line has no line break: it was not written to its end."""
    if not path.exists():
        return False
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def _make_section(module: SectionModule) -> ReportSection:
    """Return a section and the steps with its number, as yet without anything from the journal."""
    number = module.NAME[:2].lstrip("0")
    by_id: dict[str, ReportStep] = {}
    for step in module.STEPS.values():
        by_id[step.id] = ReportStep(step.id, step.title, step.role)
    for action in module.ACTIONS.values():
        # An action may have the id of a step; the section then shows the action's title.
        step_of_action = by_id.setdefault(action.id, ReportStep(action.id, action.title))
        step_of_action.title = action.title
    own = [step_id for step_id in by_id if step_id.startswith(f"{number}.")]
    own.sort(key=order_of)
    steps = [by_id[step_id] for step_id in own]
    return ReportSection(module.NAME, module.TITLE, steps)
