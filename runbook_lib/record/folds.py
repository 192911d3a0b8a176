"""What follows from a journal's entries and the time. Pure; each function returns a value.

A runbook measures *quantities*. ``read_now`` says what is so, ``list_spans`` what was so from when
to when, ``group_actions`` what became of each plan. Verdict, since, until, timeline and report are
computed from these, so they cannot disagree.
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
#: Fields of an action's result that say how many objects it changed.
_COUNTS = {"moved", "created", "removed", "settled"}
#: Counts of a proof. If one is not 0, the move is not proven.
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
    parts : the part of each quantity, by name; any other quantity decides nothing
    needed : the quantities without which no verdict says that all is well
    shown : what each step shows; see ``Policy.measure``
    remedies : the steps whose actions are meant to end the trouble; None: all
    """

    parts: Mapping[str, Part]
    needed: Collection[str]
    shown: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    remedies: Collection[str] | None = None

    def list_shown(self, steps: Iterable[str]) -> set[str]:
        """Return the quantities that some steps show."""
        shown = chain.from_iterable(self.shown.get(step, ()) for step in steps)
        return {key.quantity for key in shown}


Entry = Measurement | ActionEntry

#: An older reading says nothing of the present.
FRESH = timedelta(minutes=10)
_BAD = (Status.BREACH, Status.UNKNOWN)
#: While a symptom is a breach or an alert fires, the trouble lasts.
TROUBLE = (Part.SYMPTOM, Part.ALERT)


@dataclass(frozen=True, slots=True)
class Span:
    """A status that lasted.

    Attributes
    ----------
    start, end : from when until when; the end is None while the status lasts
    seen_at : when it was last seen
    """

    quantity: str
    subject: str
    status: Status
    start: datetime
    end: datetime | None
    seen_at: datetime


def read_now(entries: Sequence[Entry], now: datetime) -> dict[Key, Measurement]:
    """Return the newest measurement of each quantity and subject.

    One that is too old, or from before the last change, is ``unknown``: it cannot show what is so
    now.
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
    """Return each status of each quantity and subject, from when to when, by their starts.

    A span starts when its first reading says that the status began, else when that was read. An
    unknown reading ends no span: what was so before may still be so.
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
            start = entry.at  # what was seen counts more than what a source says
        if lasting is not None:
            start = min(start, lasting.start)
        if own:
            own[-1] = replace(own[-1], end=start)
        own.append(Span(*key, entry.status, start, None, entry.at))
    return sorted(chain.from_iterable(spans.values()), key=attrgetter("start"))


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What became of one plan.

    Attributes
    ----------
    phases : its entries, in sequence; each says that the action reached a phase
    is_taken_back : whether a later plan undid it
    settled : how many of its objects a person settled
    """

    plan: str
    phases: tuple[ActionEntry, ...]
    is_taken_back: bool
    settled: int

    @property
    def first(self) -> ActionEntry:
        """The oldest entry."""
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest entry; of an action that was carried out, a second try does not count."""
        again = (ActionPhase.APPROVED, ActionPhase.REFUSED) if self.applied else ()
        return next(entry for entry in reversed(self.phases) if entry.phase not in again)

    @property
    def applied(self) -> ActionEntry | None:
        """The newest entry that says that the action changed the world; None without one."""
        return self.get(ActionPhase.APPLIED)

    @property
    def decisive(self) -> ActionEntry:
        """The entry that stands for the action: the first ``applied``, else the newest."""
        applied = (entry for entry in self.phases if entry.phase is ActionPhase.APPLIED)
        return next(applied, self.last)

    @property
    def approver(self) -> str:
        """Who approved it first, else who did it; empty: not known."""
        approvals = (entry for entry in self.phases if entry.phase is ActionPhase.APPROVED)
        return next(approvals, self.first).operator

    @property
    def changed(self) -> int | None:
        """How many objects it changed; None when no result says.

        Of several runs the highest count holds: a later run leaves out what was taken back
        meanwhile.
        """
        counts: list[int] = []
        for entry in self.phases:
            if entry.phase is ActionPhase.APPLIED:
                counts += map(entry.count, _COUNTS & entry.result.keys())
        return max(counts, default=None)

    @property
    def stayed(self) -> int:
        """How many objects of its plan it left where they were, for a reason of their own."""
        return self._count("skipped")

    @property
    def left(self) -> int:
        """How many objects it still has to move."""
        return self._count("waiting")

    @property
    def doubtful(self) -> int:
        """How many objects it left in doubt, of which no person has said what became of them."""
        return max(0, self._count("unproven") - self.settled)

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody must resume it: it left objects, or was cut off."""
        is_begun = self.is_cut_off and _find_proof(self.phases[-1]) is None
        return not self.is_taken_back and (self.left > 0 or is_begun)

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
        """What a later action did to it, in words; else its newest phase.

        What stayed where it was does not make a proof fail.
        """
        if self.is_taken_back:
            return "taken back"
        if _find_proof(self.last):
            return "settled by word" if self.settled else "verified"
        return str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether its newest entry is an approval or a failure, and no entry says ``applied``."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        """Whether the action came further than its plan."""
        return self.last.phase is not ActionPhase.PLANNED

    def _count(self, name: str) -> int:
        return self.applied.count(name) if self.applied else 0

    def get(self, phase: str) -> ActionEntry | None:
        """Return the newest entry of a phase; None without one."""
        return next((entry for entry in reversed(self.phases) if entry.phase == phase), None)


def _find_proof(entry: ActionEntry) -> bool | None:
    """Return whether an entry proves the action's effect; None: it is of no check."""
    if entry.phase is ActionPhase.VERIFIED:
        return True
    if entry.phase is not ActionPhase.FAILED:
        return None
    if "lost" in entry.result:
        # A proof may fail although every object is accounted for: others took some first.
        return not any(map(entry.count, _UNPROVEN))
    return None if entry.action in MOVES else False


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each plan that entries name, sorted by their first entries.

    Plans that had nothing to do, which the older version journalled, are left out.
    """
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
        if not own[0].result.get("is_empty")
    ]


class Ruling(NamedTuple):
    """A verdict, the name of the rule that gave it, and what it rests on.

    Attributes
    ----------
    keys : the quantities of which the rule speaks
    """

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
    """Return the verdict by the first of twelve rules that holds.

    Parameters
    ----------
    now : the time by which readings are current, or too old
    causes : each cause that this incident found, and that keeps the trouble going, with its status
        now
    is_diagnosed : whether somebody looked for causes since the last change and the last symptom
    clears_by : when a firing alert should have cleared; None: not known
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
        """Return what of a part has one of these statuses now."""
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
    recovery = find(Part.RECOVERY, *_BAD)
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
    """Yield what was tried to end the trouble."""
    steps = quantities.remedies
    for action in group_actions(entries):
        is_remedy = steps is None or action.first.step in steps
        if is_remedy and action.last.phase not in (ActionPhase.PLANNED, ActionPhase.REFUSED):
            yield action


def _list_breaches(
    entries: Sequence[Entry], quantities: Quantities, parts: Collection[Part]
) -> Iterator[Measurement]:
    """Yield the breaches of quantities with some parts, in sequence."""
    for entry in entries:
        if isinstance(entry, ActionEntry) or entry.status is not Status.BREACH:
            continue
        if quantities.parts.get(entry.quantity) in parts:
            yield entry


def _list_missing(current: Mapping[Key, Measurement], quantities: Quantities) -> tuple[Key, ...]:
    """Return what a verdict needs, and is unknown or was not read."""
    unknown = [
        key
        for key, measured in current.items()
        if key.quantity in quantities.needed and measured.status is Status.UNKNOWN
    ]
    read = {key.quantity for key in current}
    unread = [Key(name) for name in sorted({*quantities.needed} - read)]
    return (*unknown, *unread)


class Ends(NamedTuple):
    """From when to when the trouble lasted; None: it never began, it lasts, or nobody knows.

    Attributes
    ----------
    seen_at : when somebody first read that a symptom was a breach, or that an alert fired
    """

    since: datetime | None
    until: datetime | None
    seen_at: datetime | None


def find_ends(entries: Sequence[Entry], quantities: Quantities, *, had_cause: bool = False) -> Ends:
    """Return the start of the first breach, and the end of the last one.

    A sign alone is no trouble, such as an old error in a log.

    Parameters
    ----------
    had_cause : whether a cause was found that stops what the runbook watches
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
