"""Every incident as a row, computed from its journal.

An exercise is an incident that somebody caused on purpose. Its runbook scores it.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ..errors import RecordError
from ..model import Json, Timestamp, Verdict, format_time, parse_time
from ..redact import Redactor
from .detection import find_detection
from .incident import Incident, list_incidents
from .view import JournalView


class HistoryRow(BaseModel, frozen=True):
    """One incident.

    An exercise's seconds and ``is_good`` come from its score. Otherwise detection counts from the
    first sign of trouble, diagnosis and remediation from its first reading, and clearing from the
    last action. ``lost`` is None if no proof counted it. With ``damage`` to the journal, its facts
    are missing.
    """

    detect_s: float | None = None
    notify_s: float | None = None
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None
    incident: str
    opened_at: Timestamp
    closed_at: Timestamp | None = None
    exercise: str = Field("", serialization_alias="scenario")
    cause_found: str = ""
    lost: int | None = None
    verdict: Verdict | None = None
    is_good: bool | None = None
    damage: str = ""
    is_open: bool = False


def list_history(home: Path, policy: Any) -> list[HistoryRow]:
    """Return the incidents, newest first, without closed ones that were quiet."""
    rows = []
    for folder in list_incidents(home):
        journal = folder / "journal.jsonl"
        size_bytes = journal.stat().st_size if journal.exists() else 0
        rows.append(_read_row(folder, policy, size_bytes))
    return list(filter(None, rows))


@lru_cache(maxsize=1_000)
def _read_row(folder: Path, policy: Any, _size_bytes: int) -> HistoryRow | None:
    """Return an incident's row, or None if it is closed, was quiet and is no exercise.

    The cache knows the journal's size, so one that grew is read again.
    """
    row: dict[str, Json] = {
        "incident": folder.name,
        "opened_at": parse_time(folder.name[4:20]),  # as in inc-20261124T031400Z-7f3a
    }
    incident = Incident(folder, redactor=Redactor())
    try:
        row |= incident.state.model_dump(include={"opened_at", "closed_at", "exercise"})
        journal = incident.journal.view()
        judged = policy.judge(journal)
        score = policy.read_score(journal)
        causes = policy.list_causes(journal)
        proofs = list_proofs(journal)
        detection = find_detection(journal, judged.since, judged.seen_at)
        changed_at = journal.last_applied_at
        phases = {
            "detect_s": count_seconds(judged.since, detection.at if detection else None),
            "diagnose_s": count_seconds(
                judged.seen_at, min((cause.named_at for cause in causes), default=None)
            ),
            "remediate_s": count_seconds(judged.seen_at, changed_at),
            "clear_s": count_seconds(changed_at, judged.until),
        }
        row |= score.phases if score else phases
        row["is_good"] = score.is_good if score else None
        row["cause_found"] = ", ".join(cause.name for cause in causes)
        row["lost"] = sum(proof["lost"] for proof in proofs) if proofs else None
        row["verdict"] = judged.verdict
        row["is_open"] = row["closed_at"] is None
        if row["closed_at"] and not row["exercise"] and policy.is_quiet(journal):
            return None
    except RecordError as error:
        row["damage"] = str(error)
    return HistoryRow.model_validate(row)


def list_proofs(journal: JournalView) -> list[dict[str, Json]]:
    """Return the newest counts of each plan's objects; a proof that finds a loss counts, too."""
    proofs = {entry.plan: entry.result for entry in journal.actions if "lost" in entry.result}
    return list(proofs.values())


def count_seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return a duration by the whole seconds that people see, None if unknown or negative."""
    if start is None or end is None or end < start:
        return None
    return float(int(end.timestamp()) - int(start.timestamp()))


def compute_trends(rows: Sequence[HistoryRow]) -> tuple[dict[str, Json], ...]:
    """Return how the scored incidents of each exercise went; ``rows`` begin with the newest.

    ``passed`` met every objective, the newest of them at ``good_at``.
    """
    trends: dict[str, dict[str, Json]] = {}
    for row in rows:
        if row.is_good is None:
            continue
        blank = {"scenario": row.exercise, "runs": 0, "passed": 0, "good_at": None}
        trend = trends.setdefault(row.exercise, blank)
        trend["runs"] += 1
        if row.is_good:
            trend["passed"] += 1
            trend["good_at"] = trend["good_at"] or format_time(row.opened_at)
    return tuple(trends[name] for name in sorted(trends))
