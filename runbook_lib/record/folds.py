"""What follows from a journal's entries and the time. All functions are pure.

Verdict, since, until, timeline and report are computed from these, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionEntry, ActionPhase, CauseStatus, Measurement, Status, Verdict

#: Actions that can be resumed.
MOVES = ("move", "release", "park", "undo", "settle")
#: Results of an action that count changed objects.
_COUNTS = {"moved", "created", "removed", "settled"}
#: If one of these counts of a proof isn't 0, the move is not proven.
_UNPROVEN = ("unproven", "lost", "duplicated", "foreign_changed")


class Part(StrEnum):
    """What a quantity means for the verdict. A sign only shows that the trouble has begun."""

    SYMPTOM = "symptom"
    ALERT = "alert"
    RECOVERY = "recovery"
    SIGN = "sign"


class Key(NamedTuple):
    """What is measured, and of whom."""

    quantity: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Quantities:
    """The quantities that a runbook measures.

    Attributes
    ----------
    parts : by name; other quantities decide nothing
    needed : those without which no verdict says that all is well
    shown : by step; see ``Policy.measure``
    remedies : steps whose actions should end the trouble; None for all
    """

    parts: Mapping[str, Part]
    needed: Collection[str]
    shown: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    remedies: Collection[str] | None = None

    def list_shown(self, steps: Iterable[str]) -> set[str]:
        shown = chain.from_iterable(self.shown.get(step, ()) for step in steps)
        return {key.quantity for key in shown}


Entry = Measurement | ActionEntry

#: Older readings don't describe the present.
FRESH = timedelta(minutes=10)
#: The trouble lasts while a symptom is a breach or an alert fires.
TROUBLE = (Part.SYMPTOM, Part.ALERT)


@dataclass(frozen=True, slots=True)
class Span:
    """How long a status lasted. ``end`` is None while it lasts; ``seen_at`` is the last reading."""

    quantity: str
    subject: str
    status: Status
    start: datetime
    end: datetime | None
    seen_at: datetime


def read_now(entries: Sequence[Entry], now: datetime) -> dict[Key, Measurement]:
    """Return the newest measurement of each quantity and subject.

    It is ``unknown`` if it is too old, or from before the last change.
    """
    newest: dict[Key, Measurement] = {}
    changed: set[Key] = set()
    for entry in entries:
        if isinstance(entry, Measurement):
            key = Key(entry.quantity, entry.subject)
            newest[key] = entry
            changed.discard(key)
        elif entry.phase is ActionPhase.APPLIED:
            changed.update(newest)
    for key, measured in newest.items():
        is_old = key in changed or measured.at < now - FRESH
        if is_old and measured.status is not Status.LEFT_OUT:
            update = {"status": Status.UNKNOWN, "value": None, "is_stale": True}
            newest[key] = measured.model_copy(update=update)
    return newest


def list_spans(entries: Sequence[Entry]) -> list[Span]:
    """Return how long each status lasted, by start.

    A span starts when its source says, or at its first reading. An unknown reading ends no span,
    because the status may have lasted.
    """
    spans: dict[Key, list[Span]] = {}
    for entry in entries:
        if isinstance(entry, ActionEntry) or entry.status in (Status.UNKNOWN, Status.LEFT_OUT):
            continue
        key = Key(entry.quantity, entry.subject)
        own = spans.setdefault(key, [])
        lasting = own.pop() if own and own[-1].status is entry.status else None
        start = entry.since or entry.at
        if own and start < own[-1].seen_at:
            start = entry.at  # our reading outranks the source's word
        if lasting is not None:
            start = min(start, lasting.start)
        if own:
            own[-1] = replace(own[-1], end=start)
        own.append(Span(*key, entry.status, start, None, entry.at))
    return sorted(chain.from_iterable(spans.values()), key=attrgetter("start"))


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What became of one plan. ``phases`` are its entries, oldest first.

    A later plan undid it if ``is_taken_back``. A person settled ``settled`` of its objects.
    """

    plan: str
    phases: tuple[ActionEntry, ...]
    is_taken_back: bool
    settled: int

    @property
    def first(self) -> ActionEntry:
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest entry. Once it was applied, later approvals and refusals don't count."""
        again = (ActionPhase.APPROVED, ActionPhase.REFUSED) if self.applied else ()
        return next(entry for entry in reversed(self.phases) if entry.phase not in again)

    @property
    def applied(self) -> ActionEntry | None:
        return self.get(ActionPhase.APPLIED)

    @property
    def decisive(self) -> ActionEntry:
        """The entry that stands for the action: the first ``applied``, else the newest."""
        applied = (entry for entry in self.phases if entry.phase is ActionPhase.APPLIED)
        return next(applied, self.last)

    @property
    def approver(self) -> str:
        """Who approved it first, else who made it, or ""."""
        approvals = (entry for entry in self.phases if entry.phase is ActionPhase.APPROVED)
        return next(approvals, self.first).operator

    @property
    def changed(self) -> int | None:
        """How many objects it changed; None if no result says.

        The highest count of all runs: a later one lacks objects that were undone in between.
        """
        counts: list[int] = []
        for entry in self.phases:
            if entry.phase is ActionPhase.APPLIED:
                counts += map(entry.count, _COUNTS & entry.result.keys())
        return max(counts, default=None)

    @property
    def stayed(self) -> int:
        """How many planned objects it skipped for a reason of their own."""
        return self._count("skipped")

    @property
    def waiting(self) -> int:
        return self._count("waiting")

    @property
    def doubtful(self) -> int:
        """How many objects are in doubt, and not settled by a person."""
        return max(0, self._count("unproven") - self.settled)

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody must resume it: objects wait, or it was cut off."""
        is_begun = self.is_cut_off and _find_proof(self.phases[-1]) is None
        return not self.is_taken_back and (self.waiting > 0 or is_begun)

    @property
    def is_proven(self) -> bool:
        """Whether the newest check after the last change found the effect, and nothing in doubt."""
        is_proven = False
        for entry in self.phases:
            found = _find_proof(entry)
            if found is not None or entry.phase is ActionPhase.APPLIED:
                is_proven = bool(found)
        return is_proven and self.applied is not None and not self.doubtful

    @property
    def state(self) -> str:
        """Its newest phase, or what later actions did. Skipped objects don't make a proof fail."""
        if self.is_taken_back:
            return "taken back"
        if _find_proof(self.last):
            return "settled by word" if self.settled else "verified"
        return str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether it was approved or failed last, and never applied."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        return self.last.phase is not ActionPhase.PLANNED

    def _count(self, name: str) -> int:
        return self.applied.count(name) if self.applied else 0

    def get(self, phase: str) -> ActionEntry | None:
        return next((entry for entry in reversed(self.phases) if entry.phase == phase), None)


def _find_proof(entry: ActionEntry) -> bool | None:
    """Return whether an entry proves the effect; None if it isn't a check."""
    if entry.phase is ActionPhase.VERIFIED:
        return True
    if entry.phase is not ActionPhase.FAILED:
        return None
    if "lost" in entry.result:
        # Consumers may take objects before the proof: it fails, but none is missing.
        return not any(map(entry.count, _UNPROVEN))
    return None if entry.action in MOVES else False


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each plan, by first entry."""
    phases: dict[str, list[ActionEntry]] = {}
    for entry in entries:
        phases.setdefault(entry.plan, []).append(entry)
    undone: set[str] = set()
    settled: dict[str, int] = {}
    for own in phases.values():
        applied = [entry for entry in own if entry.phase is ActionPhase.APPLIED]
        about = own[0].about
        if applied and own[0].action == "undo":
            undone.add(about)
        elif applied and own[0].action == "settle":
            settled[about] = settled.get(about, 0) + applied[-1].count("settled")
    return [
        ActionRecord(plan, tuple(own), plan in undone, settled.get(plan, 0))
        for plan, own in phases.items()
    ]


class Ruling(NamedTuple):
    """A verdict, the rule that gave it, and the quantities that the rule is about."""

    verdict: Verdict
    rule: str
    keys: tuple[Key, ...] = ()


def judge(  # noqa: PLR0911, PLR0912  # a rule after the other
    entries: Sequence[Entry],
    *,
    now: datetime,
    quantities: Quantities,
    causes: Mapping[str, CauseStatus],
    is_diagnosed: bool,
    clears_by: datetime | None,
) -> Ruling:
    """Return the verdict by the first rule that holds.

    Parameters
    ----------
    causes : those of this incident that keep the trouble going
    is_diagnosed : causes were checked since the last change and the last symptom
    clears_by : when a firing alert should have cleared; None if unknown
    """
    current = read_now(entries, now)
    tried = list_remedies((e for e in entries if isinstance(e, ActionEntry)), quantities)
    remedies = {action.first.step: action for action in tried if not action.is_taken_back}
    applied = [action for action in remedies.values() if action.applied]
    is_unfinished = any(action.is_unfinished for action in remedies.values())
    has_acted = bool(applied) or is_unfinished
    had_symptom = any(_list_breaches(entries, quantities, (Part.SYMPTOM,)))
    was_bad = has_acted or had_symptom or bool(causes)

    def find(part: Part, *statuses: Status) -> tuple[Key, ...]:
        return tuple(
            key
            for key, measured in current.items()
            if quantities.parts.get(key.quantity) is part and measured.status in statuses
        )

    trouble = Verdict.NOT_FIXED if has_acted else Verdict.INCIDENT
    breaches = find(Part.SYMPTOM, Status.BREACH)
    if breaches:
        return Ruling(trouble, "symptom" if is_diagnosed else "undiagnosed", breaches)
    firing = find(Part.ALERT, Status.BREACH)
    missing = _list_missing(current, quantities)
    recovery = find(Part.RECOVERY, Status.BREACH, Status.UNKNOWN)
    if CauseStatus.SUPPORTED in causes.values():
        is_over = had_symptom or bool(applied)
        if is_over and not (missing or firing or recovery or is_unfinished):
            return Ruling(Verdict.MITIGATED, "mitigated")
        return Ruling(trouble, "cause", firing)
    is_cause_unknown = not is_diagnosed or CauseStatus.UNDECIDED in causes.values()
    is_unexplained = is_cause_unknown and not has_acted
    if firing and (missing or recovery or is_unexplained or not was_bad):
        return Ruling(trouble, "alert", firing)
    if missing:
        rule = "unreadable" if is_diagnosed else "missing"
        if all(key not in current or current[key].is_stale for key in missing):
            rule = "stale"
        return Ruling(Verdict.UNKNOWN, rule, missing)
    if is_unfinished:
        return Ruling(Verdict.NOT_FIXED, "unfinished")
    if firing and clears_by is not None and now > clears_by:
        if all(current[key].at <= clears_by for key in firing):
            return Ruling(Verdict.UNKNOWN, "stale", firing)
        return Ruling(trouble, "alert_late", firing)
    if not was_bad:
        return Ruling(Verdict.HEALTHY, "calm")
    is_measured = Part.RECOVERY not in quantities.parts.values() or find(Part.RECOVERY, Status.OK)
    if recovery or not is_measured:
        is_worse = find(Part.RECOVERY, Status.BREACH)
        verdict = Verdict.NOT_FIXED if is_worse else Verdict.UNKNOWN
        return Ruling(verdict, "recovery", recovery)
    if is_cause_unknown:
        return Ruling(Verdict.UNKNOWN, "cause_unknown", firing)
    if not all(action.is_proven for action in applied):
        return Ruling(Verdict.UNKNOWN, "unproven")
    if firing:
        verdict = Verdict.FIXED_ALERT_DECAYING if clears_by else Verdict.UNKNOWN
        return Ruling(verdict, "alert_clears", firing)
    return Ruling(Verdict.FIXED, "fixed")


def list_remedies(entries: Iterable[ActionEntry], quantities: Quantities) -> Iterator[ActionRecord]:
    steps = quantities.remedies
    for action in group_actions(entries):
        is_remedy = steps is None or action.first.step in steps
        if is_remedy and action.last.phase not in (ActionPhase.PLANNED, ActionPhase.REFUSED):
            yield action


def _list_breaches(
    entries: Sequence[Entry], quantities: Quantities, parts: Collection[Part]
) -> Iterator[Measurement]:
    for entry in entries:
        if isinstance(entry, ActionEntry) or entry.status is not Status.BREACH:
            continue
        if quantities.parts.get(entry.quantity) in parts:
            yield entry


def _list_missing(current: Mapping[Key, Measurement], quantities: Quantities) -> tuple[Key, ...]:
    """Return what a verdict needs that is unknown or unread."""
    unknown = [
        key
        for key, measured in current.items()
        if key.quantity in quantities.needed and measured.status is Status.UNKNOWN
    ]
    read = {key.quantity for key in current}
    unread = [Key(name) for name in sorted({*quantities.needed} - read)]
    return (*unknown, *unread)


class Ends(NamedTuple):
    """From when to when the trouble lasted. ``since`` is None if it never began.

    ``until`` is None while it lasts, or if unknown. ``seen_at`` is when a reading first
    showed a symptom or an alert in breach.
    """

    since: datetime | None
    until: datetime | None
    seen_at: datetime | None


def find_ends(entries: Sequence[Entry], quantities: Quantities, *, had_cause: bool = False) -> Ends:
    """Return the start of the first breach, and the end of the last one.

    A sign alone, such as an old error in a log, is no trouble. It is one if a cause was found that
    stops what the runbook watches.
    """
    seen = [breach.at for breach in _list_breaches(entries, quantities, TROUBLE)]
    parts = (*TROUBLE, Part.SIGN) if seen or had_cause else ()
    breaches = _list_breaches(entries, quantities, parts)
    lasting = (*TROUBLE, Part.RECOVERY)
    ends = [
        span.end
        for span in list_spans(entries)
        if span.status is Status.BREACH and quantities.parts.get(span.quantity) in lasting
    ]
    known = [end for end in ends if end is not None]
    has_ended = bool(known) and len(known) == len(ends)
    return Ends(
        since=min((breach.since or breach.at for breach in breaches), default=None),
        until=max(known) if has_ended else None,
        seen_at=min(seen, default=None),
    )
