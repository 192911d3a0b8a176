"""What follows from a journal and the time: verdict, next step, causes, impact.

A runbook gives its quantities, causes and words to ``Policy``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from .language import gettext, ngettext
from .model import (
    ActionPhase,
    CauseStatus,
    Finding,
    Json,
    Measurement,
    Status,
    Verdict,
    count_of,
    format_time,
)
from .record import folds
from .record.folds import ActionRecord, Entry, Key, Quantities, group_actions
from .record.incident import ENDED_WELL
from .record.view import JournalView

#: With these verdicts, something is wrong.
IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)


class NextStep(NamedTuple):
    """The section to run next, and why; ``typed`` replaces the command that runs the section."""

    section: str
    reason: str
    typed: str = ""

    @property
    def command(self) -> str:
        if not self.section:
            return ""
        return f"runbook {self.typed or f'run {self.section[:2]}'}"


_NOWHERE = NextStep("", "")
#: For each severity from 1 on: at least how many requests were held back, or how many minutes.
_SEVERITIES = ((500, 240), (20, 60), (1, 10))


class Judgement(NamedTuple):
    """How an incident stands; for the times see ``folds.TroubleTimes``.

    Without any reading of a symptom, ``verdict`` is None. ``advice`` is empty if out of date.
    """

    verdict: Verdict | None
    reason: str
    next: NextStep
    since: datetime | None
    until: datetime | None
    seen_at: datetime | None
    advice: tuple[str, ...] = ()


class KnownCauses(NamedTuple):
    """The causes that keep the trouble going, with their status now.

    ``is_diagnosed``: they were read since the last change and the last symptom.
    """

    causes: Mapping[str, CauseStatus]
    is_diagnosed: bool


class Impact(NamedTuple):
    """How much an incident held back.

    ``requests`` says for each id when it was first and last seen late. ``affected`` counts them, or
    is None if no reading did. ``files`` is the most that waited at once.
    """

    requests: Mapping[str, tuple[datetime, datetime]]
    affected: int | None
    files: int
    longest_minutes: float | None
    noun: str = "request"

    def __str__(self) -> str:
        words = gettext("not counted" if self.affected is None else "affected")
        count = f"{count_of(self.affected, self.noun)} {words}"
        if self.longest_minutes is None:
            return count
        return f"{count}; {gettext('longest wait')} {self.longest_minutes:.1f} {gettext('min')}"


class Score(NamedTuple):
    """An exercise's score: phases of ``HistoryRow``, objectives of ``name target actual met``."""

    is_good: bool
    phases: Mapping[str, float | None]
    objectives: Sequence[Mapping[str, Json]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy:
    """What a runbook says of its incidents.

    Attributes
    ----------
    rules : for each rule of ``folds.judge``, the reason for the verdict, and what to do next
    actions : what each action did, in the past tense; may use ``{objects}`` and ``{target}``
    noun, request : what an action changes, and what a customer waits for
    marks : the runbook's own marks that the timeline shows
    """

    quantities: Quantities
    rules: Mapping[str, tuple[str, NextStep]] = field(default_factory=dict)
    judge_causes: Callable[[JournalView, Sequence[Entry], datetime], KnownCauses] = lambda *_: (
        KnownCauses({}, is_diagnosed=True)
    )
    actions: Mapping[str, str] = field(default_factory=dict)
    read_score: Callable[[JournalView], Score | None] = lambda _: None
    exercise_word: str = "Exercise"
    marks: Collection[str] = ()
    noun: str = "object"
    request: str = "request"
    first_step: NextStep = _NOWHERE

    def measure(
        self, step: str, status: Status, given: Sequence[Measurement]
    ) -> tuple[Measurement, ...]:
        """Return the measurements of a step's reading, one or more for each quantity it shows.

        A quantity that none of the ``given`` ones measures gets the reading's own ``status``.
        """
        measured = {measurement.quantity for measurement in given}
        rest = [
            Measurement(quantity=key.quantity, subject=key.subject, status=status)
            for key in self.quantities.shown.get(step, ())
            if key.quantity not in measured
        ]
        return (*rest, *given)

    def list_entries(self, journal: JournalView) -> list[Entry]:
        """Return a journal's measurements and actions, in its order."""
        entries: list[Entry] = [*journal.actions]
        for reading in journal.readings:
            for measured in self.measure(reading.step, reading.status, reading.measurements):
                origin = {
                    "seq": reading.seq,
                    "at": reading.observed_at,
                    "step": reading.step,
                    "text": measured.text or reading.reason,
                }
                entries.append(measured.model_copy(update=origin))
        return sorted(entries, key=attrgetter("seq"))

    def judge(
        self,
        journal: JournalView,
        *,
        now: datetime | None = None,
        steps: Collection[str] | None = None,
    ) -> Judgement:
        """Judge the journal by ``folds.judge``, and put that into words.

        A closed incident keeps the verdict that it was closed with.

        Parameters
        ----------
        now : readings age by this time, by default that of the newest reading or action
        steps : need only what these steps show; by default, need all
        """
        entries = self.list_entries(journal)
        close = journal.find_mark("closed")
        quantities = self.quantities
        had_cause = any(conclusion.verdict in IN_TROUBLE for conclusion in journal.conclusions)
        times = folds.find_trouble_times(entries, quantities, had_cause=had_cause)
        read = quantities.list_shown(reading.step for reading in journal.readings)
        is_read = any(quantities.meanings.get(name) in folds.TROUBLE for name in read)
        if close is None and not is_read:
            reason = gettext("no symptom was read yet")
            return Judgement(None, reason, self.first_step, times.since, None, times.seen_at)
        if now is None:
            made_at = [entry.at for entry in (*journal.readings, *journal.actions)]
            now = max(made_at, default=journal.entries[-1].at)
        if steps is not None:
            shown = quantities.list_shown(steps)
            quantities = replace(quantities, needed=shown.intersection(quantities.needed))
        causes, is_diagnosed = self.judge_causes(journal, entries, now)
        known = [reading.clears_by for reading in journal.list_current().values()]
        clears_by = next(filter(None, reversed(known)), None)
        ruling = folds.judge(
            entries,
            now=now,
            quantities=quantities,
            causes=causes,
            is_diagnosed=is_diagnosed,
            clears_by=clears_by,
        )
        reason, next_step = self.rules.get(ruling.rule, ("", _NOWHERE))
        details = _list_details(ruling, folds.read_now(entries, now))
        if ruling.rule == "alert_clears" and clears_by is not None:
            details = [f"{gettext('it clears by')} {format_time(clears_by)}"]
        has_ended = ruling.verdict in (Verdict.FIXED, Verdict.MITIGATED)
        return Judgement(
            verdict=Verdict(close.facts["verdict"]) if close else ruling.verdict,
            reason=": ".join(filter(None, [gettext(reason), "; ".join(details)])),
            next=next_step,
            since=times.since,
            until=times.until if has_ended else None,
            seen_at=times.seen_at,
            advice=journal.diagnosis.advice if is_diagnosed else (),
        )

    def is_quiet(self, journal: JournalView) -> bool:
        """Tell whether no trouble was seen, and no plan got further than a refusal."""
        judgement = self.judge(journal)
        if judgement.since or judgement.verdict in IN_TROUBLE:
            return False
        actions = group_actions(journal.actions)
        return all(action.last.phase is ActionPhase.REFUSED for action in actions)

    def list_causes(self, journal: JournalView) -> list[Finding]:
        """Return every cause that was supported in this incident, even if it's gone now.

        Leave out errors: causes that a later conclusion refuted in favour of another one before
        anything was changed. Once a cause is known, a conclusion that all is well adds none.
        """
        applied = journal.list_actions(ActionPhase.APPLIED)
        causes: dict[str, Finding] = {}
        for conclusion in journal.conclusions:
            if causes and conclusion.verdict in ENDED_WELL:
                continue
            supported = [f for f in conclusion.findings if f.status is CauseStatus.SUPPORTED]
            is_before_change = not applied or conclusion.seq <= applied[0].seq
            if supported and is_before_change:
                for finding in conclusion.findings:
                    if finding.status is CauseStatus.REFUTED:
                        causes.pop(finding.name, None)
            for finding in supported:
                dated = finding.model_copy(update={"named_at": conclusion.at})
                causes.setdefault(finding.name, dated)
        return list(causes.values())

    def compute_impact(self, journal: JournalView) -> Impact:
        """Return which requests were held back, and how long they waited.

        A reading counts if it could tell which requests waited (``order_ids``).
        """
        counted = [reading for reading in journal.readings if reading.order_ids is not None]
        requests: dict[str, tuple[datetime, datetime]] = {}
        for reading in counted:
            seen_at = reading.observed_at
            for request_id in reading.order_ids or ():
                first, _ = requests.get(request_id, (seen_at, seen_at))
                requests[request_id] = (first, seen_at)
        waits = [reading.longest_minutes for reading in counted if reading.order_ids]
        # No request, although there was trouble, means that nobody could count them.
        had_trouble = self.judge(journal).seen_at is not None
        is_unknown = not requests and (had_trouble or not counted)
        return Impact(
            requests=requests,
            affected=None if is_unknown else len(requests),
            files=max((reading.affected_files for reading in counted), default=0),
            longest_minutes=max(filter(None, waits), default=None),
            noun=self.request,
        )

    def compute_severity(self, impact: Impact) -> int:
        """Return the severity, from 1 (worst) to 4, by how many requests waited and how long.

        An unknown number counts as a few.
        """
        if impact.affected is None:
            return len(_SEVERITIES)
        for severity, (count, minutes) in enumerate(_SEVERITIES, start=1):
            if impact.affected >= count or (impact.longest_minutes or 0) >= minutes:
                return severity
        return len(_SEVERITIES) + 1

    def make_title(self, impact: Impact, causes: Sequence[Finding], *, is_over: bool) -> str:
        """Return how many requests were held back, and why, in one sentence."""
        count = count_of(impact.affected, self.request)
        if impact.affected is None:
            count = f"{gettext('An unknown number of')} {count}"
        # Zero and an unknown number take the plural.
        number = impact.affected or 2
        verb = ngettext("is held back", "are held back", number)
        if is_over:
            verb = ngettext("was held back", "were held back", number)
        title = f"{count} {verb}"
        if causes:
            return f"{title}{gettext(' by ')}{say_causes(causes)}"
        return f"{title}; {gettext('the cause is not known')}" if impact.affected else title

    def describe_action(self, action: ActionRecord) -> str:
        """Say what was done, in the past tense; or name the action, if it was only tried."""
        name = action.first.action
        target = action.first.target
        if action.applied is None or name not in self.actions:
            return f"{gettext(name.replace('_', ' '))}: {target}"
        objects = count_of(action.changed, self.noun)
        if action.stayed:
            objects = f"{objects} ({action.stayed:,} {gettext('stayed')})"
        # The target may contain braces, so don't use str.format, and fill it in last.
        done = gettext(self.actions[name])
        return done.replace("{objects}", objects).replace("{target}", target)


def _list_details(ruling: folds.Ruling, current: Mapping[Key, Measurement]) -> list[str]:
    """Say what was read of the quantities that a verdict rests on, each text once."""
    texts = []
    for key in ruling.keys:
        measured = current.get(key)
        if measured is None:
            texts.append(gettext("the %(quantity)s was not read", quantity=key.quantity))
        elif measured.is_stale:
            texts.append(f"{measured.step} was read at {measured.at:%H:%M:%SZ}, which is too old")
        else:
            texts.append(measured.text or f"{key.quantity}: {measured.value}")
    return list(dict.fromkeys(texts))


def say_causes(findings: Sequence[Finding]) -> str:
    words = [gettext(finding.words or finding.name) for finding in findings]
    return gettext(" and ").join(words)
