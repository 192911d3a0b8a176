"""Every incident and drill as a row, read from the folders."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from math import nan
from pathlib import Path
from statistics import median
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from pydantic import BaseModel, Field, computed_field

from ..errors import JournalDamagedError, RecordError
from ..model import (
    CauseStatus,
    Conclusion,
    Finding,
    Json,
    Timestamp,
    Verdict,
    parse_time,
)
from ..redact import Redactor
from .detection import find_detection, list_moments
from .incident import Incident, list_incidents
from .journal import utc_now
from .view import JournalView


class Judged(Protocol):
    """The part of a judgement that the history uses."""

    @property
    def verdict(self) -> Verdict:
        """The verdict."""

    @property
    def until(self) -> datetime | None:
        """When the trouble had ended; None: not known, or not yet."""


class Judge(Hashable, Protocol):
    """The part of a runbook's policy that the history uses."""

    def list_causes(self, journal: JournalView) -> Sequence[Finding]:
        """Return the causes that the policy names."""

    def judge(self, journal: JournalView) -> Judged | None:
        """Return the policy's judgement as of the newest look."""


#: How long a scenario may go without a drill that met every objective; as in the alert's rule.
OVERDUE = timedelta(days=35)
#: The durations in a row, in the order in which the phases follow each other.
PHASES = ("detect_s", "notify_s", "diagnose_s", "remediate_s", "clear_s")


class HistoryRow(BaseModel, frozen=True):
    """One incident, or one drill. For a drill ``scenario`` names its fault; otherwise it is empty.

    Durations are in seconds; None: not reached, or not known. A drill measures detection and
    notification from the beginning of the injection. Its diagnosis and its remediation are measured
    from their own beginnings. An incident measures detection from the first sign to what detected
    it first, diagnosis and remediation from the first look at the trouble. Both measure clearing
    from the last action. Where a drill takes its fault back to end the trouble, that counts as the
    last action.

    Attributes
    ----------
    cause_found : names of the causes, separated by commas
    lost : how many objects are lost, by the proofs of the actions; None: no proof counted them
    verdict : of the close; before that, as of the newest look
    is_good : whether a drill met every objective; None: it is no drill, or was not scored
    is_quiet : whether no trouble was seen, and nothing was planned or done
    damage : what is wrong with the journal; empty: nothing. The row then lacks what it holds
    """

    incident: str
    opened_at: Timestamp
    closed_at: Timestamp | None = None
    scenario: str = ""
    cause_found: str = ""
    detect_s: float | None = None
    notify_s: float | None = None
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None
    lost: int | None = None
    verdict: Verdict | None = None
    is_good: bool | None = None
    damage: str = ""
    is_quiet: bool = Field(False, exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_open(self) -> bool:
        """Whether the incident or drill is not closed. With any damage it counts as closed."""
        return self.closed_at is None and not self.damage

    @computed_field  # type: ignore[prop-decorator]
    @property
    def took_s(self) -> str:
        """The known durations in seconds, each after the name of its phase."""
        parts = []
        for phase in PHASES:
            seconds = getattr(self, phase)
            if seconds is not None:
                name = phase.removesuffix("_s")
                parts.append(f"{name} {seconds:g}")
        return ", ".join(parts)


def list_history(home: Path, judge: Judge) -> list[HistoryRow]:
    """Return every incident and drill, the newest first; closed ones that were quiet are left out.

    Only reads. This process keeps what it read of a folder until the folder changes.

    Parameters
    ----------
    judge : the runbook's policy
    """
    rows = [_read_row(folder, judge, _stamp(folder)) for folder in list_incidents(home)]
    rows.sort(key=lambda row: row.incident, reverse=True)
    return [row for row in rows if row.is_open or not row.is_quiet]


def _stamp(folder: Path) -> str:
    """Return a stamp that changes when the journal of a folder changes."""
    path = folder / "journal.jsonl"
    if not path.exists():
        return ""
    stat = path.stat()
    return f"{stat.st_mtime_ns}:{stat.st_size}"


@lru_cache(maxsize=1_000)
def _read_row(folder: Path, judge: Judge, _changed: str) -> HistoryRow:
    """Return an incident's row, without what cannot be read.

    A folder that changed has another ``_changed``, so the cache misses it.
    """
    row: dict[str, Json] = {
        "incident": folder.name,
        "opened_at": parse_time(folder.name[4:20]),  # as in inc-20261124T031400Z-7f3a
    }
    incident = Incident(folder, redactor=Redactor())
    try:
        state = incident.state
    except RecordError:
        row["damage"] = "its state cannot be read"
        return HistoryRow.model_validate(row)
    with suppress(RecordError, ValueError, KeyError, TypeError, AttributeError):
        facts = {name: value for name, value in state.to_json().items() if value is not None}
        row.update({name: facts[name] for name in facts.keys() & HistoryRow.model_fields.keys()})
        measured = _read_journal(incident, judge)
        return HistoryRow.model_validate({**row, **measured})
    return HistoryRow.model_validate(row)


def _read_journal(incident: Incident, judge: Judge) -> dict[str, Json]:
    """Return the fields of a row that the journal fills; of a damaged journal, only ``damage``."""
    try:
        journal = incident.journal.view()
    except JournalDamagedError as error:
        return {"damage": error.damage}
    causes = [str(cause.name) for cause in judge.list_causes(journal)]
    row: dict[str, Json] = {
        "cause_found": ", ".join(causes),
        "lost": _count_lost(journal),
    }
    state = incident.state
    judgement = judge.judge(journal)
    row["verdict"] = state.verdict or (judgement.verdict if judgement else None)
    is_calm = row["verdict"] in (None, Verdict.HEALTHY, Verdict.UNKNOWN)
    row["is_quiet"] = is_calm and not (state.drill_id or journal.actions or journal.since())
    scores = [entry.data for entry in journal.entries if entry.data.get("event") == "scored"]
    if scores:
        row.update(_read_score(scores[-1]))
    elif not state.drill:
        row.update(_measure(journal, judgement.until if judgement else None))
    return row


def _count_lost(journal: JournalView) -> int | None:
    """Return how many objects are lost, by the newest proof of each plan; None: no proof.

    Entries of every phase are read: a proof that finds a loss has failed, so the phase of its entry
    is not ``verified``.
    """
    losses: dict[str, int] = {}
    for entry in journal.actions:
        if "lost" in entry.result:
            plan = str(entry.result.get("plan"))
            losses[plan] = int(entry.result["lost"])
    if not losses:
        return None
    return sum(losses.values())


def _read_score(score: dict[str, Json]) -> dict[str, Json]:
    """Return the fields of a row that a drill's score fills: durations and ``is_good``.

    The notification ends with the channel that was told last.
    """
    row = dict(score.get("phases") or {})
    channels = row.pop("notify_s", None) or {}
    notified = [seconds for seconds in channels.values() if seconds is not None]
    row["notify_s"] = max(notified, default=None)
    row["is_good"] = all(objective["met"] for objective in score["objectives"])
    return row


def _measure(journal: JournalView, ended_at: datetime | None) -> dict[str, float]:
    """Return an incident's durations by their fields in a row, as far as its journal knows them."""
    diagnoses_at = [c.at for c in journal.conclusions if _names_cause(c)]
    first_look_at = journal.first_look_at()
    diagnosis_at = min(diagnoses_at, default=None)
    change_at = journal.last_applied_at
    moments = list_moments(journal)
    detection = find_detection(moments)
    durations = {
        "detect_s": _measure_span(moments[0].at, detection.at) if detection else None,
        "diagnose_s": _measure_span(first_look_at, diagnosis_at),
        "remediate_s": _measure_span(first_look_at, change_at),
        "clear_s": _measure_span(change_at, ended_at),
    }
    return {name: seconds for name, seconds in durations.items() if seconds is not None}


def _measure_span(start: datetime | None, end: datetime | None) -> float | None:
    """Return a duration in seconds; None if a time is not known, or the end is before the start."""
    if start is None or end is None or end < start:
        return None
    duration = end - start
    return round(duration.total_seconds(), 1)


def _names_cause(conclusion: Conclusion) -> bool:
    """Tell whether a conclusion supports a cause."""
    statuses = [finding.status for finding in conclusion.findings]
    return CauseStatus.SUPPORTED in statuses


class DrillTrend(BaseModel, frozen=True):
    """How the drills of one scenario went.

    Each duration is the median over the drills in which it is known, in seconds; None: not known in
    any drill.

    Attributes
    ----------
    runs, passed : how many drills were scored, and how many of them met every objective
    last_at, last_passed : when the newest drill began, and whether it met every objective
    good_at : when the newest drill that met every objective began; None: no drill did
    is_overdue : whether ``good_at`` is None, or longer ago than ``OVERDUE``
    """

    scenario: str
    runs: int
    passed: int
    last_at: Timestamp
    last_passed: bool
    good_at: Timestamp | None
    is_overdue: bool
    detect_s: float | None
    notify_s: float | None
    diagnose_s: float | None
    remediate_s: float | None
    clear_s: float | None


def compute_trends(rows: Sequence[HistoryRow], now: datetime) -> tuple[DrillTrend, ...]:
    """Return a trend for each scenario that has a scored drill, sorted by name.

    Parameters
    ----------
    rows : of the history, the newest first
    """
    drills: dict[str, list[HistoryRow]] = {}
    for row in rows:
        if row.scenario and row.is_good is not None:
            drills.setdefault(row.scenario, []).append(row)
    return tuple(_compute_trend(scenario, drills[scenario], now) for scenario in sorted(drills))


def _compute_trend(scenario: str, rows: Sequence[HistoryRow], now: datetime) -> DrillTrend:
    """Return the trend of one scenario's drills, given the newest first."""
    newest = rows[0]
    good_drill = find_last_good_drill(rows)
    good_at = good_drill.opened_at if good_drill else None
    return DrillTrend(
        scenario=scenario,
        runs=len(rows),
        passed=sum(1 for row in rows if row.is_good),
        last_at=newest.opened_at,
        last_passed=bool(newest.is_good),
        good_at=good_at,
        is_overdue=good_at is None or now - good_at > OVERDUE,
        detect_s=_compute_median([row.detect_s for row in rows]),
        notify_s=_compute_median([row.notify_s for row in rows]),
        diagnose_s=_compute_median([row.diagnose_s for row in rows]),
        remediate_s=_compute_median([row.remediate_s for row in rows]),
        clear_s=_compute_median([row.clear_s for row in rows]),
    )


def _compute_median(durations: Sequence[float | None]) -> float | None:
    """Return the median of the durations that are known; None if none is."""
    known = [seconds for seconds in durations if seconds is not None]
    return round(median(known), 1) if known else None


def find_last_good_drill(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    """Return the newest drill that met every objective; ``rows`` begin with the newest."""
    for row in rows:
        if row.is_good:
            return row
    return None


def describe_last_drill(rows: Sequence[HistoryRow], now: datetime) -> str:
    """Say which drill was the last to meet every objective, and how many days ago it ended."""
    drill = find_last_good_drill(rows)
    if drill is None or drill.closed_at is None:
        return "none met every objective yet"
    age = now - drill.closed_at
    closed_at = f"{drill.closed_at:%Y-%m-%d %H:%MZ}"
    return f"{drill.scenario}, {age.days} days ago ({closed_at}, {drill.incident})"


def write_gauges(home: Path, rows: Sequence[HistoryRow]) -> Path:
    """Write what node-exporter's textfile collector reads: ``<home>/metrics/runbook.prom``."""
    registry = CollectorRegistry()
    last_good_at = Gauge(
        "runbook_last_good_drill_timestamp_seconds",
        "When a drill last met every objective; 0: never.",
        registry=registry,
    )
    last_good_at.set(0)
    drill = find_last_good_drill(rows)
    if drill and drill.closed_at:
        last_good_at.set(drill.closed_at.timestamp())
    durations = Gauge(
        "runbook_drill_seconds",
        "How long each phase of the newest drill took.",
        ["scenario", "phase"],
        registry=registry,
    )
    good_at_by_scenario = Gauge(
        "runbook_drill_last_good_timestamp_seconds",
        "When a drill of this scenario last met every objective; 0: never.",
        ["scenario"],
        registry=registry,
    )
    for trend in compute_trends(rows, utc_now()):
        good_at = trend.good_at.timestamp() if trend.good_at else 0
        good_at_by_scenario.labels(trend.scenario).set(good_at)
    drills = [row for row in rows if row.scenario]
    for row in reversed(drills):  # the newest is written last, and replaces the others
        for phase in PHASES:
            seconds = getattr(row, phase)
            gauge = durations.labels(row.scenario, phase.removesuffix("_s"))
            gauge.set(nan if seconds is None else seconds)
    path = home / "metrics" / "runbook.prom"
    path.parent.mkdir(exist_ok=True)
    write_to_textfile(str(path), registry)
    return path
