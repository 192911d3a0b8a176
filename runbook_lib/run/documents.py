"""The JSON documents that commands print. Fields are added, never renamed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..exit_codes import ExitCode
from ..model import Finding, Json, Observed, Timestamp, Verdict


class Part(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Part):
    """What every document has."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="null"
    )

    schema_name: str = Field(alias="schema")
    at: Timestamp
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return self.model_dump_json(by_alias=True, indent=2)


class UnknownStep(Part):
    """A step that could not be read, and why."""

    step: str
    reason: str


class NotebookResult(Part):
    """How one notebook ended."""

    notebook: str
    status: str
    duration_s: float
    error: str = ""


class ErrorDocument(Document):
    """A command that did not do its work."""

    error: str
    keys: tuple[str, ...] = ()


class InvestigateDocument(Document):
    """``investigate``: readings, causes, and the report's path."""

    readings: tuple[Observed, ...]
    causes: tuple[Finding, ...]
    unknown: tuple[UnknownStep, ...]
    notebooks: tuple[NotebookResult, ...]
    report: str


class RunDocument(Document):
    """``run``: how the chosen notebooks ended."""

    notebooks: tuple[NotebookResult, ...]
    plans: tuple[dict[str, Json], ...]
    report: str


class ReportDocument(Document):
    """``report`` and ``verify-report``."""

    report: str
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
