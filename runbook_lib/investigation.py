"""The context in which sections work. They share findings through the incident's folder."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Generic, Self, cast

from typing_extensions import TypeVar

from . import errors, model
from .approvals import SHORT_HASH, Plan, Work, is_approved, load_plan, use_plan
from .model import ActionEntry, ActionPhase, Json, Note, Reading, Role, Status, Verdict
from .policy import Judgement, Policy
from .record.incident import Incident, create_incident, lock_file, open_incident
from .record.journal import utc_now
from .record.notes import write_note
from .record.view import JournalView
from .redact import Redactor
from .runbook import find_runbook, keep_log, load_policy, use_runbook
from .section import SectionModule, check_parameters, split_list
from .settings import Settings

#: Given as an incident's id, makes a new incident.
NEW = "new"
_KEPT_ROWS = 50

S = TypeVar("S", bound=Settings, default=Settings)
C = TypeVar("C", default=None)
T = TypeVar("T")

_log = logging.getLogger(__name__)


def make_incident(settings: Settings, home: Path | None = None, **facts: Json) -> Incident:
    """Make an incident; ``facts`` are fields of its state."""
    return create_incident(
        home or settings.runbook_home.resolve(),
        redactor=Redactor(settings.secrets),
        environment=settings.runbook_environment,
        **facts,
    )


def judge_incident(incident: Incident) -> Judgement:
    return load_policy().judge(incident.journal.view())


def close_if_quiet(incident: Incident) -> None:
    """Close an open incident that saw no trouble, and has no waiting plan and no action."""
    if load_policy().is_quiet(incident.journal.view()):
        incident.close(judge_incident(incident).verdict)


@dataclass(eq=False, repr=False)
class Investigation(Generic[S, C]):
    """One section at work on one incident. Each runbook subclasses it.

    ``runbook`` is its name for notebooks opened by hand, or "". Nothing is written if ``is_over``:
    the incident was closed before.
    """

    runbook: ClassVar[str] = ""

    incident: Incident
    _: KW_ONLY
    section: SectionModule
    parameters: Any = None  # the section's own; set in __post_init__
    settings: S
    clients: C = None  # type: ignore[assignment]  # set in __post_init__
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep
    progress: model.Progress = model.keep_quiet

    def __post_init__(self) -> None:
        self.parameters = self.parameters or self.section.Parameters()
        self.clients = self.clients or self.connect(self.settings)
        self.is_over = self.incident.is_closed
        keep_log(self.incident.folder)
        self._plans: list[Plan] = []  # made by this object
        self._has_changed = False  # whether the current plan changed something

    @classmethod
    def connect(cls, _settings: S) -> C:
        """Make the clients that the settings describe."""
        return cast(C, None)

    @classmethod
    def check_connected(cls, _settings: S) -> None:
        """Raise NotConnectedError if nothing could be judged."""

    @classmethod
    def check_ticket(cls, _settings: S, _ticket_id: str) -> None:
        """Raise UsageError if a ticket does not exist."""

    @classmethod
    def read_calm_time(cls, _settings: S) -> timedelta:
        """Return how long needed symptoms must be ok before an episode has ended."""
        return timedelta(0)

    @classmethod
    def find_or_make(cls, settings: S, incident_id: str = "") -> tuple[Incident, bool]:
        """Return the incident to work on, and whether this call made it.

        ``incident_id`` is an id, ``new``, or "" for the open one, or a new one if none is open. If
        the open incident's episode has ended and another has begun, close it and make a new one.

        Raises UsageError without such an incident, and what ``check_connected`` raises, before
        anything is written.
        """
        home = settings.runbook_home.resolve()
        redactor = Redactor(settings.secrets)
        named = None
        if incident_id not in ("", NEW):
            named = open_incident(home, incident_id, redactor=redactor)
        cls.check_connected(settings)
        if named is not None:
            return named, False
        # Two commands that run at once must not make two incidents.
        with lock_file(home / ".incidents.lock", timeout_s=120):
            current = open_incident(home, redactor=redactor)
            if current is None:
                return make_incident(settings), True
            must_replace = incident_id == NEW or cls._has_next_episode(current, settings)
            if not must_replace:
                return current, False
            made = make_incident(settings)
            text = f"Incident {current.id} is closed: another episode has begun, in {made.id}."
            current.close(judge_incident(current).verdict, reason=text)
            made.mark("took_over", text)
            _log.warning(text)
        return made, True

    @classmethod
    def _has_next_episode(cls, incident: Incident, settings: S) -> bool:
        """Tell whether an open incident was fixed, and the trouble came back later.

        Trouble that comes back within ``read_calm_time`` still belongs to the incident. Journals
        nothing, because what it reads may belong to the next one.
        """
        judgement = judge_incident(incident)
        ended_at = judgement.until
        calm_time = cls.read_calm_time(settings)
        if judgement.verdict is not Verdict.FIXED or ended_at is None:
            return False
        if utc_now() - ended_at < calm_time:
            return False
        for step, section in find_runbook().sections.list_steps().values():
            if not step.needed:
                continue
            reading = cls(incident, section=section, settings=settings).observe(step.id)
            if reading.status is Status.BREACH:
                began_at = reading.since or reading.observed_at
                return began_at - ended_at >= calm_time
        return False

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
        """Open the incident of ``find_or_make`` for one section.

        Raises what that raises, and UsageError for a wrong parameter or ticket.
        """
        if cls.runbook:
            use_runbook(cls.runbook)
        if settings is None:
            settings = cast(S, find_runbook().settings.load())
        parameters["incident_id"] = incident_id
        checked = check_parameters(section, parameters)
        cls.check_ticket(settings, checked.ticket_id)
        incident, _ = cls.find_or_make(settings, incident_id)
        if checked.ticket_id:
            incident.update(ticket_id=checked.ticket_id)
        inv = cls(
            incident, section=section, parameters=checked, settings=settings, progress=progress
        )
        inv._begin()
        return inv

    def _begin(self) -> None:
        """Do what comes before the first cell. The notebooks' subclass overrides this."""

    @property
    def operator(self) -> str:
        """Who approves and writes: the incident's approver, else RUNBOOK_OPERATOR."""
        return self.incident.state.approver or self.settings.operator

    @property
    def ticket_id(self) -> str:
        return self.parameters.ticket_id or self.incident.state.ticket_id or ""

    @property
    def window(self) -> timedelta:
        return timedelta(minutes=self.parameters.window_minutes)

    @property
    def journal(self) -> JournalView:
        return self.incident.journal.view()

    @property
    def since(self) -> datetime | None:
        return self.policy.judge(self.journal).since

    @property
    def policy(self) -> Policy:
        return load_policy()

    def record(self, kind: str, data: dict[str, Json]) -> int:
        """Journal an entry of this section; return its number, 0 if ``is_over``."""
        if self.is_over:
            return 0
        fields = {"section": self.section.NAME, **data}
        return self.incident.journal.append(kind, fields).seq

    def note(self, text: str, **fields: Json) -> int:
        """Journal a remark with ``Note``'s fields; return the entry's number."""
        note = Note(text=text, operator=self.operator, **fields)
        return write_note(self.incident, note)

    def observe(self, step_id: str) -> Reading:
        """Carry out one step without journalling it.

        What can't be read is ``unknown``; a step of a system that isn't configured is ``left_out``.
        """
        step = self._find_declared(step_id, self.section.STEPS)
        unreadable: tuple[type[BaseException], ...] = (errors.ClientError, *find_runbook().errors)
        try:
            outcome = step.read(self)
        except errors.NotConfiguredError as error:
            outcome = model.Outcome().left_out(str(error))
        except unreadable as error:
            outcome = model.Outcome().unknown(f"could not be read: {error}")
        # The outcome's source and threshold, if set, replace the step's.
        fields: dict[str, Json] = {
            "source": self._fill_in(step.source),
            "threshold": self._fill_in(step.threshold),
            **outcome.model_dump(exclude_unset=True),
            "step": step.id,
            "name": step.name,
            "role": step.role,
            "unit": step.unit,
            "observed_at": self.now(),
            "measurements": self.policy.measure(step.id, outcome.status, outcome.measurements),
        }
        content = Reading.model_validate(fields).model_dump(mode="json")
        return Reading.model_validate(self.incident.redactor.json(content))

    def _fill_in(self, text: str) -> str:
        """Put settings in place of their ``$name``; an empty one is named, as ``GRAFANA_URL``."""
        values = {
            name: f"{value:g}" if isinstance(value, float) else value or name.upper()
            for name, value in self.settings
        }
        return Template(text).safe_substitute(values)

    def read_step(
        self, step_id: str, *, max_age_s: float | None = None, only_ok: bool = False
    ) -> Reading:
        """Return a step's reading: a recent one if ``max_age_s`` allows, else carry the step out.

        A new reading is journalled with its first 50 rows. Readings from before the last action
        aren't reused; with ``only_ok``, breaches aren't either, because they may have ended.
        """
        if max_age_s is not None:
            oldest_allowed = self.now() - timedelta(seconds=max_age_s)
            known = self.journal.list_current(self.now()).get(step_id)
            reusable = (Status.OK,) if only_ok else (Status.OK, Status.BREACH, Status.LEFT_OUT)
            if known and known.status in reusable and known.observed_at >= oldest_allowed:
                return known
        reading = self.observe(step_id)
        content = reading.model_dump(mode="json")
        content["rows"] = content["rows"][:_KEPT_ROWS]
        seq = self.record("reading", {"reading": content})
        return reading.model_copy(update={"seq": seq})

    def latest(self) -> dict[str, Reading]:
        return self.journal.latest()

    def conclude(self) -> model.Conclusion:
        """Draw findings and verdict from the journal, and journal them.

        If this section read that the alert is over, or that no system tells, close a fixed
        incident, unless it is an exercise.
        """
        drawn = self.section.conclude(self)
        conclusion = drawn.model_copy(update={"section": self.section.NAME})
        content = conclusion.model_dump(mode="json")
        self.record("conclusion", {"conclusion": content})
        # ``left_out`` counts, because then no system could tell more.
        is_cleared = any(
            reading.role is Role.CLEARED and reading.status in (Status.OK, Status.LEFT_OUT)
            for step, reading in self.latest().items()
            if step in self.section.STEPS
        )
        if is_cleared and not (self.is_over or self.incident.state.exercise):
            judgement = self.policy.judge(self.journal, now=self.now())
            if judgement.verdict is Verdict.FIXED:
                self.incident.close(Verdict.FIXED)
        return conclusion

    def plan(self, step_id: str, **changed: Any) -> Plan:
        """Make a step's plan, or load the first that the parameter ``plan`` names.

        ``changed`` parameters hold from now on. Changes the incident folder, and for a move, what
        ``MoveGate.plan_move`` says.
        """
        action = self._find_declared(step_id, self.section.ACTIONS)
        if self.incident.is_closed:
            raise errors.UsageError(f"{self.incident.id} is closed: plan in the open incident")
        if changed:
            given = self.parameters.model_dump() | changed
            self.parameters = check_parameters(self.section, given)
        named_plans = (plan for plan in self._load_named_plans() if plan.step == step_id)
        plan = next(named_plans, None) or action.plan(self)
        self._plans.append(plan)
        if not plan.is_empty:
            self._write_phase(plan, ActionPhase.PLANNED, result=plan.summary)
        return plan

    def apply(self, plan: Plan, *, approve: str = "", may_wait: bool = False) -> ActionEntry:
        """Carry out a plan that ``approve`` names by its SHA-256 or its first 12 characters.

        ``approve`` is comma-separated; if it names only other plans, nothing is done. With
        ``may_wait``, a plan without an approval is skipped, because nothing later needs its effect.

        Raises StoppedAtPlanError without any approval of work that may not wait, and SafetyError
        for a hash of no plan of this run. Raises SafetyError when a safety rule refuses, and
        ActionInterruptedError when interrupted; both are journalled.
        """
        approved = self._read_approvals(approve, plan)
        if not plan.is_empty and plan.sha256 in approved:
            self._write_phase(plan, ActionPhase.APPROVED)
            return self._carry_out(plan, plan.kind.apply)
        if not (plan.is_empty or approved or may_wait):
            words = f"{plan.action} on {plan.target} is planned, not done. Read the plan above."
            advice = "To carry it out, approve it there and run this cell again, or set:"
            code = f"approve = {plan.sha256[:SHORT_HASH]!r}"
            if not plan.original:
                code = f"plan = {plan.id!r}\n{code}"
            raise errors.StoppedAtPlanError(f"{words} {advice}\n\n{code}")
        return plan.make_entry(ActionPhase.PLANNED, reason="nothing was done")

    def _read_approvals(self, approve: str, plan: Plan) -> list[str]:
        """Return the plans' hashes that ``approve`` names, or raise SafetyError."""
        plans = [*self._load_named_plans(), *self._plans, plan]
        hashes = {known.sha256 for known in plans if not known.is_empty}
        approved: list[str] = []
        for typed in split_list(approve):
            meant = [sha256 for sha256 in hashes if is_approved(sha256, typed)]
            if len(meant) != 1:
                text = f"{typed} is the hash of no plan that was made or named in this run."
                choices = ", ".join(sha256[:SHORT_HASH] for sha256 in sorted(hashes))
                raise errors.SafetyError(f"{text} Plan again, or approve one of: {choices}")
            approved += meant
        return approved

    def resume(self, plan: Plan) -> ActionEntry:
        """Resume a plan that was cut off, or raise UsageError if its kind can't."""
        if plan.kind.resume is None:
            raise errors.UsageError(f"{plan.id} cannot be resumed: plan again")
        return self._carry_out(plan, plan.kind.resume)

    def begin_change(self) -> None:
        """Note that the plan passed its last check, and changes something now."""
        self._has_changed = True

    def verify(self, plan: Plan) -> ActionEntry:
        """Read the world again, and journal whether the plan's effect is there.

        A plan that was carried out in an earlier incident is checked, and not journalled here.
        """
        if plan.is_empty or not plan.trace.exists():
            return plan.make_entry(ActionPhase.PLANNED, reason="nothing to verify")
        effect = plan.kind.verify(self, plan)
        phase = ActionPhase.VERIFIED if effect.is_ok else ActionPhase.FAILED
        is_own = self._has_outcome(plan)
        return self._write_phase(plan, phase, effect.reason, effect.result, is_kept=is_own)

    def _carry_out(self, plan: Plan, change: Work) -> ActionEntry:
        """Carry a plan out by ``change``, and journal what came of it, even a failure.

        For an earlier incident's plan that had nothing left to do, journal nothing.
        """
        if self.incident.is_closed:
            raise errors.UsageError(f"{self.incident.id} is closed: act in the open incident")
        self._has_changed = False
        try:
            if plan.kind.resume is None:  # before the change, so that no second run begins it
                state = plan.kind.read_state(self, plan)
                use_plan(plan, self.incident.redactor.json(state), now=self.now())
            effect = change(self, plan)
        except KeyboardInterrupt as error:
            doubt = f"Interrupted. {plan.action} of {plan.target} may or may not have taken effect."
            # A move's error says how far it got.
            text = str(error) or f"{doubt} Check with: runbook investigate"
            self._write_phase(plan, ActionPhase.FAILED, text)
            raise errors.ActionInterruptedError(text) from None
        except Exception as error:
            code = errors.exit_code_of_error(type(error), find_runbook().errors)
            is_refused = code is errors.ExitCode.REFUSED
            phase = ActionPhase.REFUSED if is_refused else ActionPhase.FAILED
            self._write_phase(plan, phase, str(error) or type(error).__name__)
            raise
        # A move, which can be resumed, calls ``begin_change`` unless nothing was left to do.
        has_changed = self._has_changed or plan.kind.resume is None
        is_kept = has_changed or self._has_outcome(plan)
        return self._write_phase(
            plan, ActionPhase.APPLIED, effect.reason, effect.result, is_kept=is_kept
        )

    def _has_outcome(self, plan: Plan) -> bool:
        """Tell whether this incident's journal has more of the plan than an approval."""
        return any(
            action.plan == plan.id and action.phase is not ActionPhase.APPROVED
            for action in self.journal.actions
        )

    def _load_named_plans(self) -> list[Plan]:
        """Load the plans whose ids the section's parameter ``plan`` lists."""
        plan_ids = split_list(getattr(self.parameters, "plan", ""))
        kinds = [kind for action in self.section.ACTIONS.values() for kind in action.kinds]
        return [load_plan(self.incident.find_plan(plan_id), kinds) for plan_id in plan_ids]

    def _find_declared(self, step_id: str, declared: Mapping[str, T]) -> T:
        """Return a step or action of the section, or raise UsageError."""
        if step_id in declared:
            return declared[step_id]
        ids = ", ".join(declared) or "none"
        raise errors.UsageError(f"{self.section.NAME} has no {step_id!r}; it has {ids}")

    def _write_phase(
        self,
        plan: Plan,
        phase: ActionPhase,
        reason: str = "",
        result: Mapping[str, Json] = {},
        *,
        is_kept: bool = True,
    ) -> ActionEntry:
        """Return an entry for a phase of a plan; journal it if ``is_kept``."""
        entry = plan.make_entry(phase, reason=reason, result=result)
        entry = entry.model_copy(update={"operator": self.operator})
        if is_kept:
            self.record("action", {"action": entry.model_dump(mode="json")})
        return entry
