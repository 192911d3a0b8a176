"""The context that a notebook opens: settings, clients, journal, clock.

Sections hand over through the incident folder, never through kernel state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from typing_extensions import TypeVar

from . import errors, model
from .approvals import Effect, Plan, check_use, load_plan
from .model import ActionEntry, ActionPhase, Json, Reading, Status, Verdict
from .record.incident import Incident, create_incident, lock_home, open_incident
from .record.journal import JournalView, utc_now
from .redact import Redactor
from .runbook import find_runbook
from .section import SectionModule, SectionParameters, check_parameters, find_unknown, split_list
from .settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame

#: In place of an incident's id: a new one, opened by hand.
NEW = "new"

S = TypeVar("S", bound=Settings, default=Settings)
C = TypeVar("C", default=None)
T = TypeVar("T")

_log = logging.getLogger(__name__)

_FILLED = ("source", "threshold")
_FIXED = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING)


def make_incident(settings: Settings, home: Path | None = None, **facts: Json) -> Incident:
    """Make an incident's folder, under RUNBOOK_HOME unless another is named."""
    home, redactor = home or settings.runbook_home.resolve(), Redactor(settings.secrets)
    environment = settings.runbook_environment
    return create_incident(home, redactor=redactor, environment=environment, **facts)


def check_undamaged(incident: Incident) -> None:
    """Refuse an incident whose journal is damaged. Only reads.

    Raises
    ------
    UsageError
        Says what is damaged, and the way on.
    """
    damage = incident.find_damage()
    if damage:
        text = f"The journal of {incident.id} is damaged ({damage}), so nothing more is done in it."
        way_on = "Leave the incident out: the look goes on in a new one."
        raise errors.UsageError(f"{text} It stays as it is. {way_on}")


def _tell_damage(incident: Incident, facts: Mapping[str, Json]) -> None:
    """Say, on the terminal and in the journal, whose place a new incident takes."""
    before = f"The journal of {facts['previous']} is damaged ({facts['previous_damage']})."
    text = f"{before} It stays as it is; this look goes on in {incident.id}."
    incident.journal.append("journal_damaged", {"section": "", "reason": text})
    _log.warning(text)


def say_interrupted(plan: Plan, incident: Incident, section: SectionModule) -> str:
    """Return what a person is told when a plan was cut off in the middle: the next command."""
    if plan.kind.resume is not None:
        return f"Interrupted. Go on with: runbook resume {plan.id}"
    what = f"Interrupted. Nobody knows whether {plan.action} of {plan.target} took effect."
    return f"{what} Look again with: runbook run {section.NAME[:2]} --incident {incident.id}"


@dataclass(eq=False, repr=False)
class Investigation(Generic[S, C]):
    """One section at work on one incident.

    A runbook's own class says which clients it has, by ``connect``; the settings are the runbook's.

    Attributes
    ----------
    incident, section, parameters, settings, clients, sleep : what they say
    now : returns the current time in UTC
    progress : shows how far work is to whoever looks
    """

    incident: Incident
    _: KW_ONLY
    section: SectionModule
    parameters: SectionParameters = None  # type: ignore[assignment]  # the section's defaults
    settings: S
    clients: C = None  # type: ignore[assignment]  # those of the settings
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep
    progress: model.Progress = model.keep_quiet

    def __post_init__(self) -> None:
        self.parameters = self.parameters or self.section.Parameters()
        self.clients = self.clients or self.connect(self.settings)
        self._plans: dict[str, Plan] = {}
        self._approvals: dict[str, str] = {}

    @classmethod
    def connect(cls, _settings: S) -> C:
        """Return the clients by the settings; this class has none."""
        return cast(C, None)

    @classmethod
    def check_connected(cls, _settings: S) -> None:
        """Raise NotConnectedError where nothing can be read; this class reads nothing."""

    @classmethod
    def check_ticket(cls, _settings: S, _ticket_id: str) -> None:
        """Raise UsageError for a ticket that does not exist; this class knows of none."""

    @classmethod
    def read_calm(cls, _settings: S) -> timedelta:
        """Return for how long all needed symptoms are ok when an episode has ended."""
        return timedelta(0)

    @classmethod
    def find(
        cls,
        settings: S,
        incident_id: str = "",
        *,
        keeps: bool = False,
        but: str = "",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[Incident, bool]:
        """Return the incident to work on, and whether it was made for that.

        Parameters
        ----------
        incident_id : empty: the open one, when what is wrong now belongs to it, or a look that
            was kept, or a new look; ``new``: one that is opened by hand
        keeps : whether a new look is kept, for others to go on with
        but : a step that the caller looks at itself; it opens the incident then
        meanwhile : begins something that goes on by itself; called when nothing is refused

        Raises
        ------
        NotConnectedError
            Before anything is written.
        UsageError
            When there is no such incident, or its journal is damaged.

        Notes
        -----
        The next episode closes an open incident, and does not write into it. An incident whose
        journal is damaged stays as it is, as evidence: a new one goes on in its place, and says so.
        """
        home, redactor = settings.runbook_home.resolve(), Redactor(settings.secrets)
        is_hand, is_named = incident_id == NEW, incident_id not in ("", NEW)
        found = open_incident(home, incident_id, redactor=redactor) if is_named else None
        if found is not None:
            check_undamaged(found)
        cls.check_connected(settings)
        if found is not None:
            return found, False
        meanwhile()
        facts: dict[str, Json] = {"opened_by": "hand" if is_hand else "", "kept": keeps}
        with lock_home(home):
            found = open_incident(home, redactor=redactor)
            damage = "" if found is None else found.find_damage()
            if found is not None and damage:
                facts |= {"previous": found.id, "previous_damage": damage}
                facts["ticket_id"] = found.facts.get("ticket_id")
                found = None
            if found is not None and found.is_open:
                if not is_hand and not cls._see_other_trouble(found, settings):
                    return found, False
                found.close()
                facts["previous"] = found.id
            kept = None if is_hand or (found and found.is_closed) else found
            found = kept or make_incident(settings, **facts)
            if damage:
                _tell_damage(found, facts)
            if not found.is_open and (breach := cls._see_breach(found, settings, but)):
                found.open(breach.step, breach.episode)
        return found, kept is None

    @classmethod
    def _see_breach(cls, incident: Incident, settings: S, but: str = "") -> Reading | None:
        """Return a breach of a needed symptom, as it is now; nothing is written."""
        for step, section in find_runbook().load_sections().list_needed().items():
            inv = cls(incident, section=section, settings=settings)
            if step != but and (reading := inv.observe(step)).status is Status.BREACH:
                return reading
        return None

    @classmethod
    def _see_other_trouble(cls, incident: Incident, settings: S) -> bool:
        """Tell whether something is wrong now that does not belong to an open incident."""
        needed, calm = find_runbook().load_sections().list_needed(), cls.read_calm(settings)
        is_over = partial(incident.is_over, needed=needed, calm=calm)
        seen = cls._see_breach(incident, settings) if is_over(utc_now(), is_alert=True) else None
        if seen is None:
            return False
        began = seen.episode.start if seen.episode else seen.observed_at
        return is_over(began, is_alert=bool(seen.episode))

    @classmethod
    def open(
        cls,
        incident_id: str = "",
        *,
        section: SectionModule,
        settings: S | None = None,
        progress: model.Progress = model.keep_quiet,
        **parameters: Any,
    ) -> Self:
        """Open the incident's folder for one section, as ``find`` does.

        Parameters
        ----------
        section : one of the runbook's modules
        parameters : the section's parameters, checked against its model

        Raises
        ------
        UsageError
            When a parameter is unknown or wrong, or there is no such incident or ticket.
        NotConnectedError
            Before anything is written.
        """
        settings = settings or cast(S, find_runbook().load_settings())
        checked = check_parameters(section, {**parameters, "incident_id": incident_id})
        cls.check_ticket(settings, checked.ticket_id)
        incident, _ = cls.find(settings, incident_id, keeps=True)
        if checked.ticket_id and not incident.is_closed:
            incident.update(ticket_id=checked.ticket_id)
        about: dict[str, Any] = {"parameters": checked, "progress": progress}
        inv = cls(incident, section=section, settings=settings, **about)
        inv._begin()
        return inv

    def _begin(self) -> None:
        """Journal that the section begins; what shows its work does more."""
        self.record("section_started", {"parameters": self.parameters.model_dump(mode="json")})

    @property
    def operator(self) -> str:
        """Who approves and writes: ``drill:<id>`` in a drill, else RUNBOOK_OPERATOR."""
        drill = self.incident.facts.get("drill_id")
        return f"drill:{drill}" if drill else self.settings.operator

    @property
    def ticket_id(self) -> str:
        """The ticket to look at: the parameter's, else the incident's, else empty."""
        return self.parameters.ticket_id or str(self.incident.facts.get("ticket_id") or "")

    @property
    def window(self) -> timedelta:
        """How far back to look."""
        return timedelta(minutes=self.parameters.window_minutes)

    @property
    def journal(self) -> JournalView:
        """What the incident's journal holds by now."""
        return self.incident.journal.view()

    def record(self, kind: str, data: dict[str, Json]) -> int:
        """Write an entry of this section to the journal; returns its sequence number.

        Once the incident is closed only notes are written, marked as late; the number is 0 else.
        """
        if self.incident.is_late:
            if kind != "note":
                return 0
            data = {**data, "late": True}
        return self.incident.journal.append(kind, {"section": self.section.NAME, **data}).seq

    def note(self, text: str, **data: Json) -> int:
        """Write a free remark to the journal."""
        return self.record("note", {"text": text, **data})

    def observe(self, step_id: str) -> Reading:
        """Carry out one step; what could not be read is ``unknown``, with the reason.

        Raises
        ------
        UsageError
            When the section has no such step.
        """
        step = self._named("step", step_id, self.section.STEPS)
        words = {n: f"{v:g}" if isinstance(v, float) else v for n, v in self.settings}
        try:
            found: model.Outcome = step.read(self)
        except errors.NotConfiguredError as error:
            found = model.Outcome().left_out(str(error))
        except errors.ClientError as error:
            found = model.Outcome().unknown(f"could not be read: {error}")
        told = {name: Template(getattr(step, name)).safe_substitute(words) for name in _FILLED}
        told |= {"step": step.id, "name": step.name, "role": step.role, "unit": step.unit}
        told |= found.model_dump(exclude_unset=True) | {"observed_at": self.now()}
        shown = Reading.model_validate(told).model_dump(mode="json")
        return Reading.model_validate(self.incident.redactor.json(shown))

    def read_step(self, step_id: str, *, max_age_s: float | None = None) -> Reading:
        """Carry out one step and journal its reading.

        Parameters
        ----------
        step_id : such as ``2.1``
        max_age_s : reuse a reading of the journal that is not older, in seconds; ``unknown``
            readings, and those from before the last action, are never reused
        """
        if (is_late := self.incident.is_late) or max_age_s is not None:
            journal, since = self.journal, self.now() - timedelta(seconds=max_age_s or 0)
            since, old = max(since, journal.last_applied_at or since), journal.latest().get(step_id)
            is_fresh = old and old.observed_at >= since and old.status is not Status.UNKNOWN
            if old and (is_late or is_fresh):
                return old
        reading = self.observe(step_id)
        seq = self.record("reading", {"reading": reading.model_dump(mode="json")})
        if seq and reading.status is Status.BREACH and reading.role in model.SYMPTOMS:
            self.incident.open(step_id, reading.episode)
        return reading.model_copy(update={"seq": seq})

    def latest(self) -> dict[str, Reading]:
        """Return the newest reading of each step in the journal."""
        return self.journal.latest()

    def frame(self, step_id: str) -> DataFrame:
        """Return the rows of a step's newest reading in the journal, as ``to_frame`` does.

        Its columns, with their dtypes, are those that the section's ``COLUMNS`` declares, also
        where the step was not read or has no row. Only reads.
        """
        from .frames import to_frame

        declared = getattr(self.section, "COLUMNS", {})
        return to_frame(self.latest().get(step_id), declared.get(step_id))

    def conclude(self) -> model.Conclusion:
        """Draw and journal the section's findings and verdict, from the journal.

        An incident that is fixed and whose alert has cleared is closed by the section that sees so.
        """
        unread = find_unknown(self.section.STEPS, self.latest())
        about = {"section": self.section.NAME, "unknown_steps": unread}
        conclusion = self.section.conclude(self).model_copy(update=about)
        self.record("conclusion", {"conclusion": conclusion.model_dump(mode="json")})
        if self.incident.is_late:
            return conclusion
        verdict = self.journal.verdict()
        if conclusion.verdict is Verdict.INCIDENT:
            self.incident.open(self.section.NAME)
        seen = (r for s, r in self.latest().items() if s in self.section.STEPS)
        has_cleared = any(r.role is model.Role.CLEARED and r.status is Status.OK for r in seen)
        if verdict in _FIXED and has_cleared and not self.incident.facts.get("drill"):
            self.incident.close(Verdict.FIXED)
        elif verdict is not None:
            self.incident.update(verdict=str(verdict))
        return conclusion

    def plan(self, step_id: str, **changed: Any) -> Plan:
        """Make the plan of a step, or load the one that the parameter ``plan`` names.

        Parameters
        ----------
        step_id : such as ``6.1``
        changed : parameters of the section that are others from now on

        Notes
        -----
        Changes nothing but the incident folder (a release probes the store's abilities on
        scratch objects under a prefix of its own).
        """
        action = self._named("action", step_id, self.section.ACTIONS)
        if self.incident.is_late:
            raise errors.UsageError(f"{self.incident.id} is closed: plan in the one that is open")
        if changed:
            given = {**self.parameters.model_dump(), **changed}
            self.parameters = check_parameters(self.section, given)
        named = (plan for plan in self.load_named_plans() if plan.step == step_id)
        plan = next(named, None) or action.plan(self)
        self._plans[plan.sha256] = plan
        self._enter(plan, ActionPhase.PLANNED, result={**plan.summary, "is_empty": plan.is_empty})
        return plan

    def apply(self, plan: Plan, *, approve: str = "") -> ActionEntry:
        """Carry out a plan that ``approve`` names by its SHA-256; else stop at the plan.

        Parameters
        ----------
        plan : from ``plan``
        approve : SHA-256s, comma-separated. Empty: stop here. When it names other plans of this
            section but not this one, this one is left alone.

        Raises
        ------
        StoppedAtPlanError
            When ``approve`` is empty and there is something to do.
        SafetyError
            When a safety rule refuses; journalled.
        """
        approved = split_list(approve)
        here = (*self.load_named_plans(), *self._plans.values(), plan)
        known = {one.sha256: one.id for one in here}
        if unknown := [a for a in approved if a not in known]:
            plans = "\n".join(f"{plan_id}\n{sha256}" for sha256, plan_id in known.items())
            text = f"the approval {unknown[0][:12]!r}… is of none of the plans here. Approve one"
            text += f" of these by its whole hash, or plan again:\n\n{plans}"
            raise errors.PlanNotApprovedError(text)
        if plan.is_empty:
            why = str(plan.summary.get("reason") or "") or "nothing to do"
            return self._enter(plan, ActionPhase.VERIFIED, why)
        if not approved:
            text = f"{plan.action} on {plan.target} is planned, not done. Read the plan above. To "
            text += "carry it out, approve it there and run this cell again, or set:"
            more = f"plan = {plan.id!r}\napprove = {plan.sha256!r}"
            raise errors.StoppedAtPlanError(f"{text}\n\n{more}")
        if plan.sha256 not in approved:
            return self._enter(plan, ActionPhase.PLANNED, "left alone: not in this approval")
        self._enter(plan, ActionPhase.APPROVED)
        self._approvals[plan.id] = next(typed for typed in approved if typed == plan.sha256)
        return self._carry_out(plan, plan.kind.apply)

    def get_approval(self, plan: Plan) -> str:
        """Return the hash with which a plan was approved, as it was typed; empty before that."""
        return self._approvals.get(plan.id, "")

    def resume(self, plan: Plan) -> ActionEntry:
        """Go on with a plan that was approved, begun and cut off, here or on another machine."""
        if plan.kind.resume is None:
            raise errors.UsageError(f"{plan.id} is carried out once: it cannot be resumed")
        return self._carry_out(replace(plan, action="resume"), plan.kind.resume)

    def verify(self, plan: Plan) -> ActionEntry:
        """Read the world again and journal whether the plan's effect is there."""
        if plan.is_empty:
            why = plan.summary.get("reason")
            why = f"nothing was done: {why}" if why else "nothing to do"
            return self._enter(plan, ActionPhase.VERIFIED, why)
        if not plan.trace.exists():
            return self._enter(plan, ActionPhase.PLANNED, "not applied: nothing to verify")
        found = plan.kind.verify(self, plan)
        phase = ActionPhase.VERIFIED if found.is_ok else ActionPhase.FAILED
        return self._enter(plan, phase, found.reason, found.result)

    def _carry_out(self, plan: Plan, change: Callable[[Any, Plan], Effect]) -> ActionEntry:
        """Change the world, and journal what came of it, whatever it was."""
        if self.incident.is_late:
            raise errors.UsageError(f"{self.incident.id} is closed: nothing more is done in it")
        self.incident.open("hand")
        try:
            if plan.kind.resume is None:  # what keeps a ledger is checked by who writes it
                check_use(plan, now=self.now())
            done = change(self, plan)
        except KeyboardInterrupt as error:
            # who carries out the change knows best how far it came
            text = str(error) or say_interrupted(plan, self.incident, self.section)
            self._enter(plan, ActionPhase.FAILED, text)
            raise errors.ActionInterruptedError(text) from None
        except Exception as error:
            is_refused = isinstance(error, plan.kind.refusals)
            phase = ActionPhase.REFUSED if is_refused else ActionPhase.FAILED
            self._enter(plan, phase, str(error) or type(error).__name__)
            raise
        return self._enter(plan, ActionPhase.APPLIED, done.reason, done.result)

    def load_named_plans(self) -> list[Plan]:
        """Return the plans that the parameter ``plan`` names."""
        kinds = [kind for action in self.section.ACTIONS.values() for kind in action.kinds]
        named = split_list(getattr(self.parameters, "plan", ""))
        return [load_plan(self.incident.find_plan(p), kinds) for p in named]

    def _named(self, kind: str, step_id: str, known: Mapping[str, T]) -> T:
        if step_id not in known:
            what = f"{self.section.NAME} has no {kind} {step_id!r}"
            raise errors.UsageError(f"{what}; it has {', '.join(known) or 'none'}")
        return known[step_id]

    def _enter(
        self, plan: Plan, phase: ActionPhase, reason: str = "", result: Mapping[str, Json] = {}
    ) -> ActionEntry:
        """Journal one phase of a plan."""
        entry = plan.make_entry(phase, reason=reason, result=result)
        if phase not in (ActionPhase.PLANNED, ActionPhase.VERIFIED):
            entry = entry.model_copy(update={"operator": self.operator})
        self.record("action", {"action": entry.model_dump(mode="json")})
        return entry
