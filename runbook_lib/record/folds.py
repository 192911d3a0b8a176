"""What follows from a journal's entries and the time. Pure; each function returns a value.

``read_now`` says what is so, ``list_spans`` what was so from when to when. Verdict, since, until,
timeline and report are computed from these, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Status, Verdict
from .entries import Change, Entry, Message, Part, Quantities, Reading

#: An older reading says nothing of the present.
FRESH = timedelta(minutes=10)
_BAD = (Status.BREACH, Status.UNKNOWN)
#: A breach of these parts begins the trouble.
_TROUBLE = (Part.SYMPTOM, Part.ALERT, Part.CAUSE)


class Key(NamedTuple):
    """What is measured, and of whom."""

    quantity: str
    subject: str


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


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """What became of one plan; see ``Change``.

    Attributes
    ----------
    approver : who approved it first, else who did it; empty: not known
    applied_at : when it last changed something; None: it never did
    is_tried : whether it was approved, and not refused
    is_proven : whether a check after the last change found the effect, and none failed since
    is_taken_back : whether a later plan took it back
    left : how many objects it still has to move
    settled : of how many objects a person has said what became of them
    doubtful : how many objects it left of which nobody can know, and no person has said since
    """

    plan: str
    step: str
    verb: str
    target: str
    about: str
    approver: str
    phase: ActionPhase
    is_tried: bool
    is_proven: bool
    is_taken_back: bool
    applied_at: datetime | None
    left: int
    settled: int
    doubtful: int

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody must go on with it: it left objects, or was cut off."""
        begun = (ActionPhase.APPROVED, ActionPhase.INTERRUPTED)
        is_cut_off = self.applied_at is None and self.phase in begun
        return not self.is_taken_back and (self.left > 0 or is_cut_off)


def read_now(entries: Sequence[Entry], now: datetime) -> dict[Key, Reading]:
    """Return the newest reading of each quantity and subject.

    A reading that is too old, or from before the last change, is ``unknown``: it cannot show what
    is so now.
    """
    newest: dict[Key, Reading] = {}
    stale: set[Key] = set()
    for entry in entries:
        if isinstance(entry, Reading):
            key = Key(entry.quantity, entry.subject)
            newest[key] = entry
            stale.discard(key)
        elif isinstance(entry, Change) and entry.phase is ActionPhase.APPLIED:
            stale.update(newest)
    for key, reading in newest.items():
        is_left_out = reading.status is Status.LEFT_OUT
        if not is_left_out and (key in stale or reading.at < now - FRESH):
            age = Message(id="stale", values={"read_at": reading.at})
            update = {"status": Status.UNKNOWN, "value": None, "message": age}
            newest[key] = reading.model_copy(update=update)
    return newest


def list_spans(entries: Sequence[Entry]) -> list[Span]:
    """Return each status of each quantity and subject, from when to when, by their starts.

    A span starts when its first reading says that the status began, else when that was read. An
    unknown reading ends no span: what was so before may still be so.
    """
    spans: dict[Key, list[Span]] = {}
    for entry in entries:
        if not isinstance(entry, Reading) or entry.status in (Status.UNKNOWN, Status.LEFT_OUT):
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


def list_plans(entries: Sequence[Entry]) -> list[PlanOutcome]:
    """Return one row for each plan that was made, in their order."""
    phases: dict[str, list[Change]] = {}
    for entry in entries:
        if isinstance(entry, Change):
            phases.setdefault(entry.plan, []).append(entry)
    undone = {
        changes[0].about
        for changes in phases.values()
        if changes[0].verb == "undo" and _find_last(changes, ActionPhase.APPLIED) >= 0
    }
    return [_sum_up(changes, phases, undone) for changes in phases.values()]


def _find_last(changes: Sequence[Change], *phases: ActionPhase) -> int:
    """Return the index of the newest change in one of these phases; -1: there is none."""
    found = [number for number, change in enumerate(changes) if change.phase in phases]
    return found[-1] if found else -1


def _sum_up(
    changes: Sequence[Change], phases: Mapping[str, Sequence[Change]], undone: set[str]
) -> PlanOutcome:
    first = changes[0]
    applied = _find_last(changes, ActionPhase.APPLIED)
    verified = _find_last(changes, ActionPhase.VERIFIED)
    failed = _find_last(changes, ActionPhase.FAILED)
    counts = changes[applied].counts if applied >= 0 else {}
    settled = 0
    for others in phases.values():
        last = _find_last(others, ActionPhase.APPLIED)
        if others[0].about == first.plan and others[0].verb == "settle" and last >= 0:
            settled += others[last].counts.get("settled", 0)
    doubtful = max(0, counts.get("unproven", 0) - settled)
    approvers = [change.by for change in changes if change.phase is ActionPhase.APPROVED]
    return PlanOutcome(
        plan=first.plan,
        step=first.step,
        verb=first.verb,
        target=first.target,
        about=first.about,
        approver=next(filter(None, [*approvers, *(change.by for change in changes)]), ""),
        phase=changes[-1].phase,
        is_tried=_find_last(changes, ActionPhase.APPROVED)
        > _find_last(changes, ActionPhase.REFUSED),
        is_proven=0 <= applied < verified and failed < verified and not doubtful,
        is_taken_back=first.plan in undone,
        applied_at=changes[applied].at if applied >= 0 else None,
        left=counts.get("waiting", 0),
        settled=settled,
        doubtful=doubtful,
    )


class Judgement(NamedTuple):
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
) -> Judgement:
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
    newest = {
        plan.step: plan
        for plan in list_plans(entries)
        if plan.step in quantities.remedies
        and not plan.is_taken_back
        and (plan.is_tried or plan.applied_at)
    }
    applied = [plan for plan in newest.values() if plan.applied_at is not None]
    is_unfinished = any(plan.is_unfinished for plan in newest.values())
    has_acted = bool(applied) or is_unfinished
    was_bad = has_acted or bool(causes) or _has_breached(entries, quantities)

    def find(part: Part, *statuses: Status) -> tuple[Key, ...]:
        """Return what of a part has one of these statuses now."""
        return tuple(
            key
            for key, reading in current.items()
            if quantities.get_part(key.quantity) is part and reading.status in statuses
        )

    trouble = Verdict.NOT_FIXED if has_acted else Verdict.INCIDENT
    breaches = find(Part.SYMPTOM, Status.BREACH)
    if breaches:
        return Judgement(trouble, "symptom", breaches)
    firing = find(Part.ALERT, Status.BREACH)
    missing = _list_missing(current, quantities)
    recovery = find(Part.RECOVERY, *_BAD)
    if CauseStatus.SUPPORTED in causes.values():
        is_over = _has_breached(entries, quantities) or bool(applied)
        if is_over and not (missing or firing or recovery or is_unfinished):
            return Judgement(Verdict.MITIGATED, "cause")
        return Judgement(trouble, "cause", firing)
    is_cause_unknown = not is_diagnosed or CauseStatus.UNDECIDED in causes.values()
    is_unexplained = is_cause_unknown and not has_acted
    if firing and (missing or recovery or is_unexplained or not was_bad):
        return Judgement(trouble, "alert", firing)
    if missing:
        return Judgement(Verdict.UNKNOWN, "missing", missing)
    if is_unfinished:
        return Judgement(Verdict.NOT_FIXED, "unfinished")
    if firing and clears_by is not None and now > clears_by:
        if all(current[key].at <= clears_by for key in firing):
            return Judgement(Verdict.UNKNOWN, "missing", firing)
        return Judgement(trouble, "alert_late", firing)
    if not was_bad:
        return Judgement(Verdict.HEALTHY, "calm")
    is_measured = Part.RECOVERY not in quantities.parts.values() or find(Part.RECOVERY, Status.OK)
    if recovery or not is_measured:
        is_breach = bool(find(Part.RECOVERY, Status.BREACH))
        verdict = Verdict.NOT_FIXED if is_breach else Verdict.UNKNOWN
        return Judgement(verdict, "recovery", recovery)
    if is_cause_unknown:
        return Judgement(Verdict.UNKNOWN, "cause_unknown", firing)
    if not all(plan.is_proven for plan in applied):
        return Judgement(Verdict.UNKNOWN, "unproven")
    if firing:
        verdict = Verdict.FIXED_ALERT_DECAYING if clears_by else Verdict.UNKNOWN
        return Judgement(verdict, "alert_clears", firing)
    return Judgement(Verdict.FIXED, "fixed")


def _has_breached(entries: Sequence[Entry], quantities: Quantities) -> bool:
    """Tell whether a symptom ever was a breach."""
    return any(
        isinstance(entry, Reading)
        and entry.status is Status.BREACH
        and quantities.get_part(entry.quantity) is Part.SYMPTOM
        for entry in entries
    )


def _list_missing(current: Mapping[Key, Reading], quantities: Quantities) -> tuple[Key, ...]:
    """Return what a verdict needs, and is unknown or was not read."""
    unknown = [
        key
        for key, reading in current.items()
        if key.quantity in quantities.needed and reading.status is Status.UNKNOWN
    ]
    read = {key.quantity for key in current}
    unread = [Key(name, "") for name in sorted(quantities.needed - read)]
    return (*unknown, *unread)


class Ends(NamedTuple):
    """From when to when the trouble lasted; None: it never began, it lasts, or nobody knows."""

    since: datetime | None
    until: datetime | None


def find_ends(entries: Sequence[Entry], quantities: Quantities) -> Ends:
    """Return the start of the first breaching span, and the end of the last one."""
    spans = [span for span in list_spans(entries) if span.status is Status.BREACH]
    starts = [s.start for s in spans if quantities.get_part(s.quantity) in _TROUBLE]
    if not starts:
        return Ends(None, None)
    ends = [s.end for s in spans if quantities.get_part(s.quantity) is not Part.NONE]
    known = [end for end in ends if end is not None]
    until = max(known) if len(known) == len(ends) else None
    return Ends(min(starts), until)
