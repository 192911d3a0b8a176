"""Types that the layers hand to each other. All values are frozen, except an ``Outcome``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from .language import ngettext

#: Where work reports what is going on, how much of it is done, and of how much; 0: not known.
Progress = Callable[..., None]


def keep_quiet(_words: str, _done: int = 0, _total: int = 0, /) -> None:
    """Show no progress."""


#: A JSON value: None, bool, int, float, str, list or dict of these.
Json = Any


def parse_time(text: str) -> datetime:
    """Parse ISO 8601 with ``Z``, an offset, or no zone (read as UTC), or raise ValueError."""
    return to_utc(datetime.fromisoformat(text.strip()))


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON text; raise ``ValueError`` when it is malformed or nested too deep."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deep") from error


def format_time(at: datetime) -> str:
    """Write a time as ISO 8601 UTC with ``Z`` and milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count_of(number: int | None, noun: str) -> str:
    """Write a number of things, such as ``1 row`` or ``1,204 rows``; None: ``rows``."""
    if number is None:
        return ngettext(noun, f"{noun}s", 2)
    return f"{number:,} {ngettext(noun, f'{noun}s', number)}"


def to_utc(at: datetime) -> datetime:
    """Return a time in UTC; a time without a zone is read as UTC."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the years 1 to 9999") from error


Timestamp = Annotated[datetime, AfterValidator(to_utc), PlainSerializer(format_time)]


def _format_cell(value: Json) -> Json:
    return format_time(value) if isinstance(value, datetime) else value


#: A value of a table or an observation; a time becomes text.
Cell = Annotated[Json, AfterValidator(_format_cell)]


class Status(StrEnum):
    """Status of a reading: what can't be read is ``unknown`` and never counts as ``ok``."""

    OK = "ok"
    BREACH = "breach"
    UNKNOWN = "unknown"
    LEFT_OUT = "left_out"

    @property
    def is_open(self) -> bool:
        """Whether somebody should look: a breach, or something that could not be read."""
        return self in (Status.BREACH, Status.UNKNOWN)


class AlertState(StrEnum):
    """What Prometheus says of one alert. An alert that never fired is ``resolved``, too."""

    FIRING = "firing"
    PENDING = "pending"
    RESOLVED = "resolved"
    UNKNOWN = "unknown"


class CauseStatus(StrEnum):
    """Status of a cause, in the order of lists; a ``past`` cause isn't there any more."""

    SUPPORTED = "supported"
    UNDECIDED = "undecided"
    PAST = "past"
    REFUTED = "refuted"


class Role(StrEnum):
    """What a step is for. This package knows steps by their role, and never by their id.

    ``GROUND`` is what the other steps rest on, such as rights and clocks; ``EFFECT`` is what a plan
    would change; ``CLEARED`` says whether the alert is over.
    """

    GROUND = "ground"
    UNFINISHED = "unfinished"
    ALERT = "alert"
    BACKLOG = "backlog"
    TICKET = "ticket"
    SYMPTOM = "symptom"
    IMPACT = "impact"
    DELIVERY = "delivery"
    LOG = "log"
    CAUSE = "cause"
    EFFECT = "effect"
    RECOVERY = "recovery"
    CLEARED = "cleared"
    CHECKLIST = "checklist"
    REFERENCE = "reference"


#: Steps with one of these roles show whether there is an incident.
SYMPTOMS = frozenset({Role.ALERT, Role.BACKLOG, Role.TICKET, Role.SYMPTOM})


class Verdict(StrEnum):
    """Outcome of a section, an incident or a drill. ``mitigated``: the cause is still there."""

    HEALTHY = "healthy"
    INCIDENT = "incident"
    FIXED = "fixed"
    FIXED_ALERT_DECAYING = "fixed_alert_decaying"
    MITIGATED = "mitigated"
    NOT_FIXED = "not_fixed"
    UNKNOWN = "unknown"


class Lesson(StrEnum):
    """How something went, in hindsight: well, badly, or well only by luck."""

    WELL = "well"
    BADLY = "badly"
    LUCK = "luck"


class ActionPhase(StrEnum):
    """How far an action has come. The journal gets an entry each time that it reaches a phase."""

    PLANNED = "planned"
    APPROVED = "approved"
    APPLIED = "applied"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Journalled(BaseModel):
    # Ignore unknown fields from other versions.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Line(_Journalled):
    """One line of a plot: values over time."""

    name: str
    points: tuple[tuple[Timestamp, float], ...]


class Plot(_Journalled):
    """What a reading draws: values over time, a threshold, and moments with their words."""

    title: str = ""
    unit: str = ""
    lines: tuple[Line, ...] = ()
    threshold: float | None = None
    marks: tuple[tuple[Timestamp, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind : such as alert, lag, backlog, restart, error, notice, trigger or action; ``unknown`` is
        what could not be read
    source : names the system whose clock gave ``at``
    subject : of an alert and a notice, the alert; of a log line, what it says
    state : of an alert and a notice, such as firing; an alert's begins or, with ``is_end``, ends
    channel : of a notice, who got it
    link : see ``Outcome``
    """

    at: Timestamp
    kind: str
    text: str
    source: str = ""
    subject: str = ""
    state: str = ""
    is_end: bool = False
    channel: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class ClearTime:
    """By when a firing alert clears; one that still fires then shows that the fix did not work."""

    deadline: Timestamp


class _Entry(_Journalled):
    """What every entry of the journal has: its number, and when it was written."""

    seq: int = Field(0, exclude=True)
    at: Timestamp = Field(datetime.min.replace(tzinfo=UTC), exclude=True)


class Measurement(_Entry):
    """What a reading says of one quantity.

    Attributes
    ----------
    subject : tells two of a quantity apart, such as an alert's name
    since : when this status began, if the source says so
    text : why it has this status; default: the reading's reason
    is_stale : whether it is too old to say what is so now
    """

    step: str = Field("", exclude=True)
    is_stale: bool = Field(False, exclude=True)
    quantity: str
    subject: str = ""
    status: Status
    value: Json = None
    since: Timestamp | None = None
    text: str = ""


class Observed(_Entry):
    """The fields of a reading that the JSON documents hold.

    ``threshold`` says what would be a breach, ``source`` where it was read (URL, PromQL, key).
    """

    step: str
    name: str
    value: float | int | str | bool | None = None
    unit: str = ""
    threshold: str = ""
    status: Status
    observed_at: Timestamp
    source: str
    reason: str = ""


class Outcome(BaseModel):
    """What a step read, and how the step judges that.

    Attributes
    ----------
    threshold, source : set where they differ from reading to reading
    link : an address at which people see the same; ``{from}`` and ``{to}`` stand for times
    order_ids : ids of the customers' requests that are affected; None: not counted
    longest_minutes, affected_files : the longest wait of these requests, and how many files wait
    observations : named values that the rules of the causes test; None: not known
    rows, columns, text, facts, plot : what people look at; ``columns`` are those to show unfolded
    events : what happened in the window
    clear : when the alert will clear after the last action
    ways_on : commands that finish what was begun; people must run them before anything else
    measurements : what it says of quantities, where that differs from its own status
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    status: Status = Status.UNKNOWN
    reason: str = ""
    value: float | int | str | bool | None = None
    threshold: str = ""
    source: str = ""
    link: str = ""
    since: Timestamp | None = None
    order_ids: tuple[str, ...] | None = None
    longest_minutes: float | None = None
    affected_files: int = 0
    ticket: str = ""
    observations: dict[str, Cell] = {}
    rows: tuple[dict[str, Cell], ...] = ()
    columns: tuple[str, ...] = ()
    text: str = ""
    facts: dict[str, Json] = {}
    plot: Plot | None = None
    events: tuple[Event, ...] = ()
    clear: ClearTime | None = None
    ways_on: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def judge(self, status: Status, reason: str) -> Self:
        """Return the outcome with a status and the reason for it."""
        return self.model_copy(update={"status": status, "reason": reason})

    def ok(self, reason: str) -> Self:
        """Return the outcome as ``ok``."""
        return self.judge(Status.OK, reason)

    def breach(self, reason: str) -> Self:
        """Return the outcome as a breach."""
        return self.judge(Status.BREACH, reason)

    def unknown(self, reason: str) -> Self:
        """Return the outcome as ``unknown``; it keeps what was read."""
        return self.judge(Status.UNKNOWN, reason)

    def left_out(self, reason: str) -> Self:
        """Return the outcome as ``left_out``: we don't run the system, so no verdict needs it."""
        return self.judge(Status.LEFT_OUT, reason)


class Reading(Outcome, Observed):
    """One observed fact of a step, with its evidence.

    ``role`` is the role of its step.
    ``alerts`` and ``well_since`` are of the older version, which knew no measurements.
    """

    model_config = _Journalled.model_config

    role: Role | None = None
    alerts: dict[str, AlertState] = {}
    well_since: Timestamp | None = None


class Finding(_Journalled):
    """What a section concludes about one cause.

    Attributes
    ----------
    evidence : references into the journal: a step id, or ``#<seq>``
    next_step : the step that helps, with its command; or why none helps
    named_at : when a section first concluded that the cause is there; ``list_causes`` sets it
    """

    name: str
    words: str = ""
    status: CauseStatus
    evidence: tuple[str, ...] = ()
    reason: str = ""
    next_step: str = ""
    named_at: Timestamp | None = Field(None, exclude=True)


class Mark(_Entry):
    """Something that happened to the incident, such as its opening or its close.

    Attributes
    ----------
    reason : in words
    facts : what is so from then on; see ``IncidentState``
    """

    what: str
    reason: str = ""
    facts: dict[str, Json] = {}


class Note(_Entry):
    """A person's remark."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    checklist: str = ""
    """id of the checklist's step that it answers"""
    lesson: Lesson | None = None
    """makes the note a lesson: how it went: well, badly, luck"""
    owner: str = ""
    """who does it; makes the note a follow-up"""
    due: date | None = None
    """by which day, such as 2026-12-04"""
    ticket: str = ""
    """where the follow-up is tracked"""
    lead: str = ""
    """who leads from now on"""
    summary: str = ""
    """what happened, for the first screen"""
    severity: int | None = Field(None, ge=1, le=4)
    """1, the worst, to 4; default: by the impact"""
    operator: str = ""
    late: bool = False
    """whether it was written after the close"""

    @property
    def is_remark(self) -> bool:
        """Whether it says what a person saw or did."""
        is_other_kind = self.lesson or self.checklist or self.is_follow_up
        return bool(self.text and self.operator) and not is_other_kind

    @property
    def is_follow_up(self) -> bool:
        """Whether somebody has to do what the note says."""
        return bool(self.owner or self.due or self.ticket)


class NotebookEntry(_Entry):
    """How one run of a section's notebook ended."""

    section: str
    notebook: str
    status: str
    duration_s: float | None = None
    error: str = ""


class ActionEntry(_Entry):
    """One phase of an action; ``result`` says what would change, or what came of it."""

    step: str
    action: str
    phase: ActionPhase
    target: str
    undo: str = ""
    reason: str = ""
    source: str = ""
    operator: str = ""
    result: dict[str, Json] = {}

    @property
    def plan(self) -> str:
        """The id of its plan; where the entry names none, its source or its step."""
        return str(self.result.get("plan") or self.source or self.step)

    @property
    def about(self) -> str:
        """The id of the plan that this one takes back or settles, or empty."""
        # Entries of earlier versions only spell it in the id of their plan: ``rel-1-undo-2``.
        spelled, _, _ = self.plan.rpartition(f"-{self.action}")
        return str(self.result.get("about") or spelled)

    def count(self, name: str) -> int:
        """Return a count of the result: a number, or the length of a list; 0 without it."""
        found = self.result.get(name) or 0
        return len(found) if isinstance(found, list) else int(found)


class Conclusion(_Entry):
    """A section's findings and verdict, from the journal alone.

    Attributes
    ----------
    advice : what to do now, one thing after the other
    follow_ups : what is left to do after the incident
    """

    section: str = ""
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    advice: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
