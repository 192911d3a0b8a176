"""A drill's score, computed from the marks in its journal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from runbook_lib.errors import ExitCode
from runbook_lib.model import ActionPhase, Json, Mark, Verdict
from runbook_lib.record.history import list_proofs
from runbook_lib.record.view import JournalView
from runbook_lib.run.documents import Document
from runbook_lib.run.notebooks import RunStatus
from runbook_lib.section import to_rows
from runbook_lib.show.text import VERDICT_WORDS

from .analysis.causes import CAUSES
from .change.drill_record import REVERT_COMMAND
from .policy import POLICY
from .sections.immediate import CHANNELS

_Marks = Mapping[str, Mark]
#: For each phase, the marks at its start and its end.
_PHASES = {
    "detect_s": ("inject", "detect"),
    "diagnose_s": ("diagnosis", "diagnosed"),
    "remediate_s": ("remedy", "remedied"),
    "revert_s": ("revert", "reverted"),
}
#: Name, target, what was measured, and whether it met the target.
_Objective = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Goals:
    """What a drill must show. To the alert's timeouts, a drill adds the waits of its rule."""

    cause_expected: str  # for section 5; the fault has the same name
    alert: str = "FulfillmentDelay"  # or "" if none fires
    verdict_expected: Verdict = Verdict.FIXED  # of section 6, after repair or revert
    releases: bool = False  # labels move, so a proof is needed
    detect_timeout_s: float = 45  # until the alert fires
    notify_timeout_s: float = 20  # until every channel got it
    clear_timeout_s: float = 35

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that meet the goal."""
        if self.verdict_expected is Verdict.HEALTHY:
            # A reading may catch brief trouble, such as a probe that fails during a restart.
            return (Verdict.HEALTHY, Verdict.FIXED)
        return (self.verdict_expected,)


def score(journal: JournalView, goals: Goals, *, incident: str, drill: str) -> Document:
    """Return what a drill measured, and which goals it met.

    ``phases`` are in seconds, or None if not reached or unknown. ``detect_s`` and ``notify_s``
    count from the injection, and ``clear_s`` from the last repair or revert until the alert is gone
    and every channel knows it.
    """
    marks = {mark.what.removeprefix("drill_"): mark for mark in journal.marks}
    proofs = list_proofs(journal)
    cause_found: tuple[str, ...] = ()
    if "diagnosed" in marks:
        last_seq = marks["diagnosed"].seq
        diagnosis = JournalView(entry for entry in journal.entries if entry.seq <= last_seq)
        cause_found = tuple(cause.name for cause in POLICY.list_causes(diagnosis))
    judged = journal.conclusion("06_remediation")
    document = Document(
        schema_name="runbook/drill/1",
        incident=incident,
        verdict=judged.verdict if judged else Verdict.UNKNOWN,
        commands=() if "reverted" in marks else (REVERT_COMMAND,),
        scenario=goals.cause_expected,
        drill=drill,
        phases=_measure_phases(journal, marks),
        cause_expected=goals.cause_expected,
        cause_found=cause_found,
        objects_lost=sum(proof["lost"] for proof in proofs) if proofs else None,
        foreign_touched=sum(proof["foreign_changed"] for proof in proofs) if proofs else None,
        reverted="reverted" in marks,
        error=marks["failed"].reason if "failed" in marks else "",
        report="",
    )
    objectives = to_rows(
        ("name", "target", "actual", "met"), _list_objectives(document, journal, marks, goals)
    )
    missed = tuple(row["name"] for row in objectives if not row["met"])
    exit_code = ExitCode.RUN_FAILED if document.error else ExitCode.of(not missed)
    end = "passed" if exit_code is ExitCode.OK else "FAILED"
    answer = f"Drill {goals.cause_expected} {end}"
    if missed:
        answer += f": {', '.join(missed)}"
    update = {"objectives": objectives, "missed": missed, "exit_code": exit_code, "answer": answer}
    return document.model_copy(update=update)


def list_durations(phases: Mapping[str, Json]) -> dict[str, Json]:
    """Return the phases in seconds; ``notify_s`` is that of the last channel."""
    told = [seconds for seconds in phases["notify_s"].values() if seconds is not None]
    return {**phases, "notify_s": max(told, default=None)}


def _measure_phases(journal: JournalView, marks: _Marks) -> dict[str, Json]:
    phases: dict[str, Json] = {}
    for name, (start, end) in _PHASES.items():
        is_measured = start in marks and end in marks
        phases[name] = _count_seconds(marks[start].at, marks[end].at) if is_measured else None
    told_s = marks["notify"].facts["told_s"] if "notify" in marks else {}
    phases["notify_s"] = {channel: told_s.get(channel) for channel in CHANNELS}
    phases["clear_s"] = None
    if "cleared" in marks:
        cleared_at = marks["cleared"].at
        repairs = [*journal.list_actions(ActionPhase.APPLIED), marks.get("reverted")]
        repaired_at = [repair.at for repair in repairs if repair and repair.at <= cleared_at]
        if repaired_at:
            phases["clear_s"] = _count_seconds(max(repaired_at), cleared_at)
    return phases


def _count_seconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 2)


def _list_objectives(
    document: Document, journal: JournalView, marks: _Marks, goals: Goals
) -> Iterator[_Objective]:
    phases = document.phases
    if goals.alert:
        yield _judge_time("alert fires", phases["detect_s"], goals.detect_timeout_s)
        if "notify" in marks:
            missing = [channel for channel, told_s in phases["notify_s"].items() if told_s is None]
            actual = f"missing: {', '.join(missing)}" if missing else "all"
            yield "every channel is notified", ", ".join(CHANNELS), actual, not missing
        yield _judge_time("alert clears", phases["clear_s"], goals.clear_timeout_s)
    expected = document.cause_expected
    found = " and ".join(CAUSES[name].words for name in document.cause_found)
    is_found = expected in document.cause_found
    yield "cause is named", CAUSES[expected].words, found or "none", is_found
    verdict = document.verdict or Verdict.UNKNOWN
    allowed = " or ".join(VERDICT_WORDS[verdict] for verdict in goals.verdicts)
    yield "verdict", allowed, VERDICT_WORDS[verdict], verdict in goals.verdicts
    has_run = (RunStatus.DONE, RunStatus.STOPPED_AT_PLAN)
    failed = [run.section for run in journal.runs if run.status not in has_run]
    yield "no notebook fails", "no failure", ", ".join(failed) or "no failure", not failed
    is_steady = "steady_again" in marks
    reverted = "reverted" if document.reverted else "not reverted"
    health = "healthy again" if is_steady else "not healthy again"
    is_over = document.reverted and is_steady
    yield "the fault is taken back", "reverted, healthy again", f"{reverted}, {health}", is_over
    if goals.releases:
        # A label that arrived and was then taken by a consumer counts as in place.
        in_place = sum(p["in_place"] + p["gone_after_landed"] for p in list_proofs(journal))
        target = "at least 1 proven in place"
        yield "labels are released", target, f"{in_place} proven in place", in_place > 0
        counts = {
            "nothing is lost": document.objects_lost,
            "nothing outside the plan is written": document.foreign_touched,
        }
        for name, count in counts.items():
            yield name, "0", "no proof" if count is None else str(count), count == 0


def _judge_time(name: str, actual_s: float | None, limit_s: float) -> _Objective:
    """Judge a time against its limit; None never meets it."""
    actual = "not reached" if actual_s is None else f"{actual_s:.1f} s"
    return name, f"within {limit_s:.0f} s", actual, actual_s is not None and actual_s <= limit_s
