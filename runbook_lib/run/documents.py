"""The JSON documents that commands print. Fields are added, never renamed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..exit_codes import ExitCode
from ..model import CauseStatus, Finding, Json, Observed, Status, Timestamp, Verdict
from ..record.history import HistoryRow
from ..record.log import utc_now
from ..show.text import VERDICT_WORDS, count_of


class Part(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Part):
    """What every document has."""

    model_config = ConfigDict(populate_by_name=True, ser_json_inf_nan="null")

    schema_name: str = Field(alias="schema")
    at: Timestamp = Field(default_factory=lambda: utc_now())  # noqa: PLW0108 - a test has its own
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode = ExitCode.OK

    @property
    def answer(self) -> str:
        """What a person wants to know first, in one line."""
        return VERDICT_WORDS[self.verdict] if self.verdict else ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type next."""
        return ()

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """What each plan would do, and the command that approves it."""
        return ()

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return self.model_dump_json(by_alias=True, indent=2)


class NotebookResult(Part):
    """How one notebook ended."""

    notebook: str
    status: str
    duration_s: float
    error: str = ""


class ErrorDocument(Document):
    """A command that did not do its work."""

    error: str


class InvestigateDocument(Document):
    """``investigate``: readings, causes, the report's path.

    ``unknown`` are the steps that could not be read, each with the reason, ``log`` is the entry of
    the incident log, ``advice`` what helps, in order, ``next`` a command.
    """

    readings: tuple[Observed, ...]
    causes: tuple[Finding, ...]
    unknown: tuple[dict[str, str], ...]
    notebooks: tuple[NotebookResult, ...]
    report: str
    log: dict[str, Json] = {}
    advice: tuple[str, ...] = ()
    next: str = ""

    @property
    def answer(self) -> str:
        """The verdict, since when, the causes or else the first signs, and how many."""
        since, many = str(self.log.get("since") or "")[:16], self.log.get("affected")
        causes = [f for f in self.causes if f.status is CauseStatus.SUPPORTED]
        signs = [f"{r.step} {r.reason}" for r in self.readings if r.status is Status.BREACH]
        why = [f"{f.name}: {f.reason}" for f in causes] or signs[:2]
        first = f"{super().answer} since {since}Z" if since else super().answer
        return ". ".join([first, *why, *([str(many)] if many else [])])

    @property
    def commands(self) -> tuple[str, ...]:
        """The next one."""
        return (self.next,) if self.next else ()


class RunDocument(Document):
    """``run``: how the chosen notebooks ended."""

    notebooks: tuple[NotebookResult, ...]
    plans: tuple[dict[str, Json], ...]
    report: str

    @property
    def answer(self) -> str:
        """How each notebook ended."""
        words = {"stopped_at_plan": "stopped at the plan, nothing was changed"}
        ended = (f"{n.notebook}: {words.get(n.status, n.status)}" for n in self.notebooks)
        return "; ".join([super().answer, *ended]).removeprefix("; ")

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """Each plan that has something to do."""
        return tuple((f"{p['step']} {p['what']}", p["apply"]) for p in self.plans if p["apply"])


class ReportDocument(Document):
    """``report``, ``verify-report`` and ``close``; ``note`` says what was not done, and why."""

    report: str
    note: str = ""
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """Whether something was altered."""
        return f"{count_of(len(self.problems), 'problem')} found" if self.problems else "Done"


class IncidentsDocument(Document):
    """``incidents``: the open ones first."""

    incidents: tuple[HistoryRow, ...]


class HistoryDocument(Document):
    """``history``: the newest first; paths of the trends' picture and of the gauges."""

    history: tuple[HistoryRow, ...]
    plot: str = ""
    gauges: str = ""
