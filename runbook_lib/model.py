"""Types that the layers hand to each other. All are frozen, except ``Outcome``."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from .language import ngettext

#: Called with what is going on, how much of it is done, and of how much (0 if unknown).
Progress = Callable[..., None]


def keep_quiet(_words: str, _done: int = 0, _total: int = 0, /) -> None:
    """Show no progress."""


#: A JSON value: None, bool, int, float, str, list or dict of these.
Json = Any


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time, as UTC if it has no zone; raise ValueError otherwise."""
    return to_utc(datetime.fromisoformat(text.strip()))


def parse_json(content: bytes | str) -> Any:
    """Parse JSON; raise ValueError if it is malformed or nested too deep."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deep") from error


def format_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count_of(number: int | None, noun: str) -> str:
    """Write ``1 row`` or ``1,204 rows``; for None ``rows``."""
    if number is None:
        return ngettext(noun, f"{noun}s", 2)
    return f"{number:,} {ngettext(noun, f'{noun}s', number)}"


def to_utc(at: datetime) -> datetime:
    """Return a time in UTC; a time without a zone counts as UTC."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the years 1 to 9999") from error


Timestamp = Annotated[datetime, AfterValidator(to_utc), PlainSerializer(format_time)]


def _format_cell(value: Json) -> Json:
    return format_time(value) if isinstance(value, datetime) else value


#: A value in a table or an observation; times become text.
Cell = Annotated[Json, AfterValidator(_format_cell)]


class Status(StrEnum):
    """Status of a reading. What can't be read is ``unknown``, and never counts as ``ok``."""

    OK = "ok"
    BREACH = "breach"
    UNKNOWN = "unknown"
    LEFT_OUT = "left_out"

    @property
    def is_open(self) -> bool:
        return self in (Status.BREACH, Status.UNKNOWN)


class CauseStatus(StrEnum):
    """Status of a cause, in the order of lists. A ``past`` cause is over."""

    SUPPORTED = "supported"
    UNDECIDED = "undecided"
    PAST = "past"
    REFUTED = "refuted"


class Role(StrEnum):
    """What a step is for, if the package has to know. It knows steps by role, never by id.

    A breach of a ``SYMPTOM`` or the ``BACKLOG`` is an incident, that of a ``SIGN`` or a ``CAUSE``
    only shows that the trouble has begun.
    """

    SYMPTOM = "symptom"
    BACKLOG = "backlog"
    SIGN = "sign"
    CAUSE = "cause"
    UNFINISHED = "unfinished"
    CLEARED = "cleared"
    CHECKLIST = "checklist"


class Verdict(StrEnum):
    """Outcome of a section, an incident or a drill. ``mitigated``: the cause is still there."""

    HEALTHY = "healthy"
    INCIDENT = "incident"
    FIXED = "fixed"
    FIXED_ALERT_DECAYING = "fixed_alert_decaying"
    MITIGATED = "mitigated"
    NOT_FIXED = "not_fixed"
    UNKNOWN = "unknown"


class ActionPhase(StrEnum):
    """How far an action has come. The journal gets an entry for each phase."""

    PLANNED = "planned"
    APPROVED = "approved"
    APPLIED = "applied"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Journalled(BaseModel):
    # Ignore unknown fields from other versions. A field's alias is its name in the journal.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        ser_json_inf_nan="strings",
        validate_by_name=True,
        serialize_by_alias=True,
    )


class Line(_Journalled):
    name: str
    points: tuple[tuple[Timestamp, float], ...]


class Plot(_Journalled):
    title: str = ""
    unit: str = ""
    lines: tuple[Line, ...] = ()
    threshold: float | None = None
    annotations: tuple[tuple[Timestamp, str], ...] = Field((), alias="marks")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind : such as alert, lag, restart, error, notice, trigger; ``unknown`` if unreadable
    source : the system whose clock gave ``at``
    subject : name of an alert, or message of a log line
    state : such as firing, of an alert or a notice; with ``is_end`` it ends here
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


class _Entry(_Journalled):
    seq: int = Field(0, exclude=True)
    at: Timestamp = Field(datetime.min.replace(tzinfo=UTC), exclude=True)


class Measurement(_Entry):
    """What a reading says of one quantity, such as that of one alert (``subject``).

    ``since``: when this status began, if the source says so. ``text`` says why, by default with the
    reading's reason. A stale one is too old to describe the present.
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
    """The fields of a reading in JSON. ``source`` is a URL, PromQL or key."""

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
    """What a step read, and how it judges that.

    Attributes
    ----------
    threshold, source : only where they differ from the step's own
    link : where people see the same; ``{from}`` and ``{to}`` stand for times
    order_ids : affected requests; None if not counted
    longest_minutes, affected_files : their longest wait, and how many files wait
    observations : values that the causes' rules test; None if unknown
    columns : those of ``rows`` to show at first
    clears_by : when a firing alert should have cleared, if the fix works
    finish_commands : commands that finish unfinished work, to run first
    measurements : those that differ from the outcome's own status
    """

    model_config = ConfigDict(
        extra="forbid", ser_json_inf_nan="strings", validate_by_name=True, serialize_by_alias=True
    )

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
    clears_by: Timestamp | None = None
    finish_commands: tuple[str, ...] = Field((), alias="ways_on")
    measurements: tuple[Measurement, ...] = ()

    def judge(self, status: Status, reason: str) -> Self:
        return self.model_copy(update={"status": status, "reason": reason})

    def ok(self, reason: str) -> Self:
        return self.judge(Status.OK, reason)

    def breach(self, reason: str) -> Self:
        return self.judge(Status.BREACH, reason)

    def unknown(self, reason: str) -> Self:
        """Return a copy that is ``unknown``, with the values that were read."""
        return self.judge(Status.UNKNOWN, reason)

    def left_out(self, reason: str) -> Self:
        """Return the outcome as ``left_out``: we don't run the system, so no verdict needs it."""
        return self.judge(Status.LEFT_OUT, reason)


class Reading(Outcome, Observed):
    """What a step found."""

    model_config = _Journalled.model_config

    role: Role | None = None


class Finding(_Journalled):
    """What a section concludes about one cause.

    Attributes
    ----------
    evidence : step ids, or ``#<seq>`` of the journal
    next_step : the step that helps, with its command; or why none helps
    named_at : when a section first found this cause; ``list_causes`` sets it
    """

    name: str
    words: str = ""
    status: CauseStatus
    evidence: tuple[str, ...] = ()
    reason: str = ""
    next_step: str = ""
    named_at: Timestamp | None = Field(None, exclude=True)


class Mark(_Entry):
    """Something that happened to the incident; ``facts`` update its ``IncidentState``."""

    what: str
    reason: str = ""
    facts: dict[str, Json] = {}


class Note(_Entry):
    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    checklist: str = ""
    """id of the checklist's step"""
    lesson: Literal["well", "badly", "luck"] | None = None
    """makes the note a lesson: well, badly or luck"""
    owner: str = ""
    """who does it; makes the note a follow-up"""
    due: date | None = None
    """due day, such as 2026-12-04"""
    ticket: str = ""
    """where the follow-up is tracked"""
    lead: str = ""
    """who leads from now on"""
    summary: str = ""
    """what happened, for the first screen"""
    severity: int | None = Field(None, ge=1, le=4)
    """1 (worst) to 4; default: by the impact"""
    operator: str = ""
    late: bool = False
    """written after the close"""

    @property
    def is_remark(self) -> bool:
        is_other_kind = self.lesson or self.checklist or self.is_follow_up
        return bool(self.text and self.operator) and not is_other_kind

    @property
    def is_follow_up(self) -> bool:
        return bool(self.owner or self.due or self.ticket)


class NotebookEntry(_Entry):
    section: str
    notebook: str
    status: str
    duration_s: float | None = None
    error: str = ""


class ActionEntry(_Entry):
    """One phase of an action. ``result`` says what would change, or what came of it."""

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
        """The id of its plan, or else its source or step."""
        return str(self.result.get("plan") or self.source or self.step)

    @property
    def original(self) -> str:
        """The id of the plan that this one undoes or settles, or ""."""
        return str(self.result.get("about") or "")

    def count(self, name: str) -> int:
        """Return a number of the result, or a list's length; 0 without either."""
        found = self.result.get(name) or 0
        return len(found) if isinstance(found, list) else int(found)


class Conclusion(_Entry):
    """A section's findings and verdict. ``advice`` is for now, ``follow_ups`` for later."""

    section: str = ""
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    advice: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
