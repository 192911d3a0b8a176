"""What follows from a journal's entries and the time, by pure functions.

Verdict, since, until, timeline and report all use these, so they can't disagree.
"""

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


class Meaning(StrEnum):
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
    meanings : by name; other quantities decide nothing
    needed : those without which no verdict says that all is well
    shown : by step; see ``Policy.measure``
    remedies : steps whose actions should end the trouble; None for all
    """

    meanings: Mapping[str, Meaning]
    needed: Collection[str]
    shown: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    remedies: Collection[str] | None = None

    def list_shown(self, steps: Iterable[str]) -> set[str]:
        keys = chain.from_iterable(self.shown.get(step, ()) for step in steps)
        return {key.quantity for key in keys}


Entry = Measurement | ActionEntry

#: Older readings don't describe the present.
FRESH = timedelta(minutes=10)
#: The trouble lasts while a symptom is a breach or an alert fires.
TROUBLE = (Meaning.SYMPTOM, Meaning.ALERT)


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

    It is ``unknown`` and stale if it is over ten minutes old, or from before the last change.
    """
    newest: dict[Key, Measurement] = {}
    before_change: set[Key] = set()
    for entry in entries:
        if isinstance(entry, Measurement):
            key = Key(entry.quantity, entry.subject)
            newest[key] = entry
            before_change.discard(key)
        elif entry.phase is ActionPhase.APPLIED:
            before_change.update(newest)
    for key, measured in newest.items():
        is_stale = key in before_change or measured.at < now - FRESH
        if is_stale and measured.status is not Status.LEFT_OUT:
            update = {"status": Status.UNKNOWN, "value": None, "is_stale": True}
            newest[key] = measured.model_copy(update=update)
    return newest


def list_spans(entries: Sequence[Entry]) -> list[Span]:
    """Return how long each status lasted, for each quantity and subject, by start.

    A span starts when its source says, or at its first reading. An unknown reading ends no span,
    because the status may have lasted.
    """
    spans: dict[Key, list[Span]] = {}
    for entry in entries:
        if isinstance(entry, ActionEntry) or entry.status in (Status.UNKNOWN, Status.LEFT_OUT):
            continue
        key = Key(entry.quantity, entry.subject)
        earlier = spans.setdefault(key, [])
        # The same status again prolongs its span.
        prolonged = earlier.pop() if earlier and earlier[-1].status is entry.status else None
        start = entry.since or entry.at
        if earlier and start < earlier[-1].seen_at:
            start = entry.at  # our reading outranks the source's word
        if prolonged is not None:
            start = min(start, prolonged.start)
        if earlier:
            earlier[-1] = replace(earlier[-1], end=start)
        earlier.append(Span(*key, entry.status, start, end=None, seen_at=entry.at))
    return sorted(chain.from_iterable(spans.values()), key=attrgetter("start"))


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What became of one plan. ``phases`` are its entries, oldest first.

    A later plan undid it if ``is_undone``. A person settled ``settled`` of its objects.
    """

    plan: str
    phases: tuple[ActionEntry, ...]
    is_undone: bool
    settled: int

    @property
    def first(self) -> ActionEntry:
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest entry. Once it was applied, later approvals and refusals don't count."""
        ignored = (ActionPhase.APPROVED, ActionPhase.REFUSED) if self.applied else ()
        return next(entry for entry in reversed(self.phases) if entry.phase not in ignored)

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

        The highest count of any run: that of a later run lacks what was undone in between.
        """
        counts: list[int] = []
        for entry in self.phases:
            if entry.phase is ActionPhase.APPLIED:
                counts += map(entry.count, _COUNTS & entry.result.keys())
        return max(counts, default=None)

    @property
    def stayed(self) -> int:
        """How many planned objects it skipped, such as objects that had changed."""
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
        """Whether somebody must resume it: objects wait, or it was cut off and not yet checked."""
        was_checked = _find_proof(self.phases[-1]) is not None
        has_rest = self.waiting > 0 or (self.is_cut_off and not was_checked)
        return has_rest and not self.is_undone

    @property
    def is_proven(self) -> bool:
        """Whether the newest check after the last change found the effect, and nothing in doubt."""
        is_proven = False
        for entry in self.phases:
            proof = _find_proof(entry)
            if proof is not None or entry.phase is ActionPhase.APPLIED:
                is_proven = bool(proof)  # a further change needs a further check
        return is_proven and self.applied is not None and not self.doubtful

    @property
    def state(self) -> str:
        """Its newest phase in a word, or what later actions did."""
        if self.is_undone:
            return "taken back"
        if _find_proof(self.last):
            return "settled by word" if self.settled else "verified"
        return str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether it was approved or failed last, and never applied."""
        has_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return has_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        return self.last.phase is not ActionPhase.PLANNED

    def _count(self, name: str) -> int:
        return self.applied.count(name) if self.applied else 0

    def get(self, phase: str) -> ActionEntry | None:
        return next((entry for entry in reversed(self.phases) if entry.phase == phase), None)


def _find_proof(entry: ActionEntry) -> bool | None:
    """Return whether a check found the action's effect; None if the entry is no check."""
    if entry.phase is ActionPhase.VERIFIED:
        return True
    if entry.phase is not ActionPhase.FAILED:
        return None
    if "lost" in entry.result:  # only the check of a move counts this
        # Consumers may take objects before the check: it fails, but none is missing.
        return not any(map(entry.count, _UNPROVEN))
    # Without counts, a move was cut off; of other actions, the check failed.
    return None if entry.action in MOVES else False


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each plan, by first entry."""
    by_plan: dict[str, list[ActionEntry]] = {}
    for entry in entries:
        by_plan.setdefault(entry.plan, []).append(entry)
    undone: set[str] = set()
    settled: dict[str, int] = {}
    for phases in by_plan.values():
        applied = [entry for entry in phases if entry.phase is ActionPhase.APPLIED]
        original = phases[0].original
        if applied and phases[0].action == "undo":
            undone.add(original)
        elif applied and phases[0].action == "settle":
            settled[original] = settled.get(original, 0) + applied[-1].count("settled")
    return [
        ActionRecord(plan, tuple(phases), plan in undone, settled.get(plan, 0))
        for plan, phases in by_plan.items()
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
    """Return the verdict by the first rule that holds. ``docs/verdict.md`` explains the rules.

    Parameters
    ----------
    causes : those of this incident that keep the trouble going
    is_diagnosed : causes were read since the last change and the last symptom
    clears_by : when a firing alert should have cleared; None if unknown
    """
    current = read_now(entries, now)
    tried = list_remedies((e for e in entries if isinstance(e, ActionEntry)), quantities)
    remedies: dict[str, ActionRecord] = {}
    for action in tried:
        # The newest remedy of a step replaces its earlier ones, but for moves that were cut off.
        is_replaced = not (action.is_unfinished and action.first.action in MOVES)
        if not action.is_undone:
            remedies[action.first.step if is_replaced else action.plan] = action
    applied = [action for action in remedies.values() if action.applied]
    is_unfinished = any(action.is_unfinished for action in remedies.values())
    has_acted = bool(applied) or is_unfinished
    had_symptom = any(_list_breaches(entries, quantities, (Meaning.SYMPTOM,)))
    had_trouble = has_acted or had_symptom or bool(causes)

    def find(meaning: Meaning, *statuses: Status) -> tuple[Key, ...]:
        return tuple(
            key
            for key, measured in current.items()
            if quantities.meanings.get(key.quantity) is meaning and measured.status in statuses
        )

    in_trouble = Verdict.NOT_FIXED if has_acted else Verdict.INCIDENT
    symptoms = find(Meaning.SYMPTOM, Status.BREACH)
    if symptoms:  # rule 1
        return Ruling(in_trouble, "symptom" if is_diagnosed else "undiagnosed", symptoms)
    firing = find(Meaning.ALERT, Status.BREACH)
    missing = _list_missing(current, quantities)
    unrecovered = find(Meaning.RECOVERY, Status.BREACH, Status.UNKNOWN)
    if CauseStatus.SUPPORTED in causes.values():  # rule 2
        is_past_trouble = had_symptom or bool(applied)
        if is_past_trouble and not (missing or firing or unrecovered or is_unfinished):
            return Ruling(Verdict.MITIGATED, "mitigated")
        return Ruling(in_trouble, "cause", firing)
    is_cause_unknown = not is_diagnosed or CauseStatus.UNDECIDED in causes.values()
    is_unexplained = not had_trouble or (is_cause_unknown and not has_acted)
    if firing and (missing or unrecovered or is_unexplained):  # rule 3
        return Ruling(in_trouble, "alert", firing)
    if missing:  # rule 4
        rule = "unreadable" if is_diagnosed else "missing"
        if all(key not in current or current[key].is_stale for key in missing):
            rule = "stale"
        return Ruling(Verdict.UNKNOWN, rule, missing)
    if is_unfinished:  # rule 5
        return Ruling(Verdict.NOT_FIXED, "unfinished")
    if firing and clears_by is not None and now > clears_by:  # rule 6
        if all(current[key].at <= clears_by for key in firing):  # not read since
            return Ruling(Verdict.UNKNOWN, "stale", firing)
        return Ruling(in_trouble, "alert_late", firing)
    if not had_trouble:  # rule 7
        return Ruling(Verdict.HEALTHY, "calm")
    needs_recovery = Meaning.RECOVERY in quantities.meanings.values()
    has_recovered = not unrecovered and bool(find(Meaning.RECOVERY, Status.OK))
    if needs_recovery and not has_recovered:  # rule 8
        is_worse = find(Meaning.RECOVERY, Status.BREACH)
        verdict = Verdict.NOT_FIXED if is_worse else Verdict.UNKNOWN
        return Ruling(verdict, "recovery", unrecovered)
    if is_cause_unknown:  # rule 9
        return Ruling(Verdict.UNKNOWN, "cause_unknown", firing)
    if not all(action.is_proven for action in applied):  # rule 10
        return Ruling(Verdict.UNKNOWN, "unproven")
    if firing:  # rule 11
        verdict = Verdict.FIXED_ALERT_DECAYING if clears_by else Verdict.UNKNOWN
        return Ruling(verdict, "alert_clears", firing)
    return Ruling(Verdict.FIXED, "fixed")


def list_remedies(entries: Iterable[ActionEntry], quantities: Quantities) -> Iterator[ActionRecord]:
    """Yield the actions that were to end the trouble, if they were at least approved."""
    steps = quantities.remedies
    for action in group_actions(entries):
        is_remedy = steps is None or action.first.step in steps
        if is_remedy and action.last.phase not in (ActionPhase.PLANNED, ActionPhase.REFUSED):
            yield action


def _list_breaches(
    entries: Sequence[Entry], quantities: Quantities, meanings: Collection[Meaning]
) -> Iterator[Measurement]:
    """Yield the breaches of quantities with one of these meanings."""
    for entry in entries:
        if isinstance(entry, ActionEntry) or entry.status is not Status.BREACH:
            continue
        if quantities.meanings.get(entry.quantity) in meanings:
            yield entry


def _list_missing(current: Mapping[Key, Measurement], quantities: Quantities) -> tuple[Key, ...]:
    """Return the needed quantities that are unknown or unread."""
    unknown = [
        key
        for key, measured in current.items()
        if key.quantity in quantities.needed and measured.status is Status.UNKNOWN
    ]
    read = {key.quantity for key in current}
    unread = [Key(name) for name in sorted({*quantities.needed} - read)]
    return (*unknown, *unread)


class TroubleTimes(NamedTuple):
    """From when to when the trouble lasted. ``since`` is None if it never began.

    ``until`` is None while it lasts, or if unknown. ``seen_at``: a reading first saw a breach.
    """

    since: datetime | None
    until: datetime | None
    seen_at: datetime | None


def find_trouble_times(
    entries: Sequence[Entry], quantities: Quantities, *, had_cause: bool = False
) -> TroubleTimes:
    """Return the start of the first breach, and the end of the last one.

    A sign alone, such as an old error in a log, is no trouble. It is one if a cause was found that
    stops what the runbook watches.
    """
    seen = [breach.at for breach in _list_breaches(entries, quantities, TROUBLE)]
    beginning = (*TROUBLE, Meaning.SIGN) if seen or had_cause else ()
    first_breaches = _list_breaches(entries, quantities, beginning)
    lasting = (*TROUBLE, Meaning.RECOVERY)  # a sign's end isn't waited for
    ends = [
        span.end
        for span in list_spans(entries)
        if span.status is Status.BREACH and quantities.meanings.get(span.quantity) in lasting
    ]
    known = [end for end in ends if end is not None]
    has_ended = bool(known) and len(known) == len(ends)
    return TroubleTimes(
        since=min((breach.since or breach.at for breach in first_breaches), default=None),
        until=max(known) if has_ended else None,
        seen_at=min(seen, default=None),
    )
