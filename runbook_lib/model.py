"""Frozen types that the layers hand to each other.

Everything here is a value. JSON Schemas of the documents come from these models.
Source: the words of the design.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer


class Progress(Protocol):
    """Told what is going on in words, how much of it is done, and of how much (0: not known)."""

    def __call__(self, words: str, done: int = 0, total: int = 0, /) -> None:
        """Show it."""


def keep_quiet(_words: str, _done: int = 0, _total: int = 0, /) -> None:
    """Show no progress to anybody."""


#: A JSON value: None, bool, int, float, str, list or dict of these.
Json = Any


def parse_time(text: str) -> datetime:
    """Parse ISO 8601 with ``Z``, an offset, or no zone (read as UTC).

    Returns
    -------
    An aware datetime in UTC.

    Raises
    ------
    ValueError
        When the text is not a time.
    """
    return to_utc(datetime.fromisoformat(text.strip()))


def format_time(at: datetime) -> str:
    """Write a time as ISO 8601 UTC with ``Z`` and milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_utc(at: datetime) -> datetime:
    """Return a time in UTC; one without a zone is UTC. Raises ValueError past the calendar."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the years 1 to 9999") from error


Timestamp = Annotated[datetime, AfterValidator(to_utc), PlainSerializer(format_time)]
#: A value of a table or an observation; a time is told as text.
Cell = Annotated[
    Json, AfterValidator(lambda told: format_time(told) if isinstance(told, datetime) else told)
]


class Status(StrEnum):
    """Of a reading. What could not be read is ``unknown`` and never counts as ``ok``.

    ``left_out`` is what the settings say we do not have.
    """

    OK = "ok"
    BREACH = "breach"
    UNKNOWN = "unknown"
    LEFT_OUT = "left_out"

    @property
    def is_open(self) -> bool:
        """Whether somebody should look: a breach, or something that could not be read."""
        return self in (Status.BREACH, Status.UNKNOWN)


class CauseStatus(StrEnum):
    """Of a cause, in the order of listing. Unknown inputs leave it undecided, never refuted."""

    SUPPORTED = "supported"
    UNDECIDED = "undecided"
    PAST = "past"
    REFUTED = "refuted"


class Role(StrEnum):
    """What a step is to others: code outside its own section names roles, never ids."""

    GROUND = "ground"
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


#: A breach of one is an incident.
SYMPTOMS = frozenset({Role.ALERT, Role.BACKLOG, Role.TICKET, Role.SYMPTOM})
#: What shows that something is wrong, whether it is an incident by itself or not.
SIGNS = SYMPTOMS | {Role.IMPACT, Role.DELIVERY, Role.LOG}


class Verdict(StrEnum):
    """Of a section, an incident or a drill."""

    HEALTHY = "healthy"
    INCIDENT = "incident"
    FIXED = "fixed"
    FIXED_ALERT_DECAYING = "fixed_alert_decaying"
    MITIGATED = "mitigated"
    NOT_FIXED = "not_fixed"
    UNKNOWN = "unknown"


class ActionPhase(StrEnum):
    """Where an action stands."""

    PLANNED = "planned"
    APPROVED = "approved"
    APPLIED = "applied"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"


class _Journalled(BaseModel):
    # A journal of another version has other fields: what is known here is read.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Episode(_Journalled):
    """One stretch of trouble, by its alert.

    ``key`` tells the alert from others; ``start`` is when the trouble began: a calm that was
    shorter than LAG_FOR_MINUTES does not end an episode.
    """

    key: str
    start: Timestamp


class Line(_Journalled):
    """One line of a plot: values over time."""

    name: str
    points: tuple[tuple[Timestamp, float], ...]


class Plot(_Journalled):
    """What a reading draws: values over time, or how many objects wait how long.

    Attributes
    ----------
    part : signals, diagnosis or forecast: of the report, in which it stands
    threshold : drawn as a line, in the plot's unit
    windows : spans to shade, such as while an alert fires; an open one has no end
    marks : moments to annotate, such as an action
    ages : from and to in minutes (None: open), and how many objects
    """

    title: str = ""
    unit: str = ""
    part: str = "signals"
    lines: tuple[Line, ...] = ()
    threshold: float | None = None
    windows: tuple[tuple[Timestamp, Timestamp | None], ...] = ()
    marks: tuple[tuple[Timestamp, str], ...] = ()
    ages: tuple[tuple[float, float | None, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    ``kind`` is such as alert, lag, backlog, restart, error, notification or action, or unknown for
    what could not be read; ``source`` is whose clock ``at`` was read from.
    """

    at: Timestamp
    kind: str
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class ClearTime:
    """When a firing alert clears.

    Attributes
    ----------
    earliest, latest : bounds of the time at which the alert stops firing
    deadline : ``latest`` plus the margin; firing after it means that the fix did not work
    channels_latest : the time by which every channel has got ``resolved``
    parts : the seconds that make up ``latest``, by name, and the margin
    """

    earliest: Timestamp
    latest: Timestamp
    deadline: Timestamp
    channels_latest: Timestamp
    parts: dict[str, float]


class DrainForecast(_Journalled):
    """How fast labels come and leave, and when none waits, in words and numbers."""

    arrival_per_min: float | None
    drain_per_min: float | None
    empty_in_minutes: float | None
    text: str


class _Entry(_Journalled):
    """What an entry of the journal holds: its number there, and when it was written."""

    seq: int = Field(0, exclude=True)
    at: Timestamp = Field(datetime.min.replace(tzinfo=UTC), exclude=True)


class Observed(_Entry):
    """What a step says: the fields of a reading that the JSON documents hold.

    ``value`` has the unit ``unit``; ``threshold`` says what would be a breach; ``source`` names
    where it was read (URL, PromQL, key); ``reason`` says in words why the status is what it is.
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
    """What a step read, and how it judges it.

    Attributes
    ----------
    status, reason : set by ``ok``, ``breach``, ``unknown`` and ``left_out``
    threshold, source : said here when they differ from reading to reading
    since : since when it is so, for a breach
    orders : how many are affected, where they were counted
    ticket : that it is about; empty: none
    episode : the alert that a breach belongs to, where there is one
    observations : named values that the hypotheses test; None is unknown
    first_seen : the first sign of a cause, by cause
    rows, columns, text, facts, plot : what people look at; a table with ``columns`` is shown
        unfolded, in that order
    events : what happened in the window, and what of it could not be read
    forecast : of the drain
    clear : when the alert will clear after what was done
    ways_on : commands that finish what was begun; they come before anything else
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    status: Status = Status.UNKNOWN
    reason: str = ""
    value: float | int | str | bool | None = None
    threshold: str = ""
    source: str = ""
    since: Timestamp | None = None
    orders: int | None = None
    ticket: str = ""
    episode: Episode | None = None
    observations: dict[str, Cell] = {}
    first_seen: dict[str, Timestamp] = {}
    rows: tuple[dict[str, Cell], ...] = ()
    columns: tuple[str, ...] = ()
    text: str = ""
    facts: dict[str, Json] = {}
    plot: Plot | None = None
    events: tuple[Event, ...] = ()
    forecast: DrainForecast | None = None
    clear: ClearTime | None = None
    ways_on: tuple[str, ...] = ()

    def judge(self, status: Status, reason: str) -> Self:
        """Return it with a status, and in words why it is so."""
        return self.model_copy(update={"status": status, "reason": reason})

    def ok(self, reason: str) -> Self:
        """Return what was read as being as it should."""
        return self.judge(Status.OK, reason)

    def breach(self, reason: str) -> Self:
        """Return what was read as being over its threshold."""
        return self.judge(Status.BREACH, reason)

    def unknown(self, reason: str) -> Self:
        """Return that it cannot be told, with whatever was read all the same."""
        return self.judge(Status.UNKNOWN, reason)

    def left_out(self, reason: str) -> Self:
        """Return that the settings say we do not have this; no verdict asks for it."""
        return self.judge(Status.LEFT_OUT, reason)


class Reading(Outcome, Observed):
    """One observed fact of a step, with its evidence; ``role`` is what its step is to others."""

    model_config = _Journalled.model_config

    role: Role | None = None


class Finding(_Journalled):
    """What a section concludes about one cause.

    ``words`` say what the cause is.
    ``score`` is the weight of what supports it minus what refutes it, from -1 to 1.
    ``evidence`` holds references into the journal: a step id, or ``#<seq>``.
    ``next_step`` is the step of section 6 with its command, or "do not release: …".
    """

    name: str
    words: str = ""
    status: CauseStatus
    score: float = 0.0
    evidence: tuple[str, ...] = ()
    reason: str = ""
    next_step: str = ""
    first_seen: Timestamp | None = None


class Start(_Entry):
    """That a section began, and with which parameters."""

    section: str
    parameters: dict[str, Json]


class Note(_Entry):
    """A free remark; ``checklist`` is the step that it answers."""

    text: str
    checklist: str = ""


class NotebookEntry(_Entry):
    """How one run of a section's notebook ended; ``notebook`` is the executed file's name."""

    section: str
    notebook: str
    status: str
    duration_s: float | None = None
    error: str = ""


class ActionEntry(_Entry):
    """One phase of something that changes the world; ``operator`` approved or did it."""

    step: str
    action: str
    phase: ActionPhase
    target: str
    reversible: bool
    undo: str = ""
    reason: str = ""
    source: str = ""
    operator: str = ""
    result: dict[str, Json] = {}


class Conclusion(_Entry):
    """A section's findings and verdict, from the journal alone.

    Attributes
    ----------
    unknown_steps : ids of the steps that could not be read
    timeline : what happened, on this machine's clock, oldest first; and what could not be read
    forecast : of the drain
    clear : when the alert will clear, where it is fixed and still fires
    advice : what to do now, in order
    follow_ups : what is open after the incident
    """

    section: str = ""
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    unknown_steps: tuple[str, ...] = ()
    timeline: tuple[Event, ...] = ()
    forecast: DrainForecast | None = None
    clear: ClearTime | None = None
    advice: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
