"""What the journal of an incident holds, arranged as in a report: no HTML, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from chainlog import LogError, read_entries

from ..errors import RecordError
from ..model import Conclusion, Json, NotebookEntry, Reading, Role, Status
from ..record.actions import ActionRecord, group_actions
from ..record.incident import ENDED_WELL, Incident, list_neighbours
from ..record.view import JournalView, get_number, order_of
from ..runbook import load_policy
from ..section import SectionModule


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
        """The breach with the highest value, else the newest unknown, else the newest reading."""
        breaches = [reading for reading in self.readings if reading.status is Status.BREACH]
        if breaches:
            return max(breaches, key=get_number)
        unknown = [reading for reading in self.readings if reading.status is Status.UNKNOWN]
        return unknown[-1] if unknown else self.latest

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
        number = self.name.partition("_")[0].lstrip("0")
        return f"{number} {self.title}" if number.isdigit() else self.title


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
    tickets : every one that the incident, a section's parameters or a reading names
    """

    def __init__(self, incident: Incident, modules: Mapping[str, SectionModule]) -> None:
        # Each value may need those above it.
        self.incident_id = incident.id
        self.policy = load_policy()
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
        tickets = [self.facts.get("ticket_id"), *self.journal.tickets()]
        self.tickets = list(dict.fromkeys(str(ticket) for ticket in tickets if ticket))

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
        known = {section_name[:2]: section for section_name, section in self.sections.items()}
        return known.get(name[:2]) or self.sections.setdefault(name, ReportSection(name, name))

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
    prefix = f"{module.NAME[:2].lstrip('0')}."
    own = [step_id for step_id in steps if step_id.startswith(prefix)]
    own.sort(key=order_of)
    return ReportSection(module.NAME, module.TITLE, [steps[step_id] for step_id in own])
