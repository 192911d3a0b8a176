"""What this runbook decides about its incidents: verdict, next step, causes, impact and words.

Pure: the journal and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from runbook_lib.model import (
    SYMPTOMS,
    ActionPhase,
    CauseStatus,
    ClearTime,
    Event,
    Finding,
    Reading,
    Role,
    Status,
    Verdict,
    format_time,
    parse_time,
)
from runbook_lib.policy import Impact, Judgement, NextStep, Policy, clip_target
from runbook_lib.record import entries, folds
from runbook_lib.record.actions import ActionRecord
from runbook_lib.record.entries import Entry
from runbook_lib.record.view import JournalView, get_number, to_number
from runbook_lib.show.text import count_of

from .analysis.causes import CAUSES, Cause, Observation, collect_observations, diagnose
from .convert import convert, convert_action
from .outcome import Backlog, Uploads
from .quantities import QUANTITIES, Quantity

#: The number of the section that diagnoses.
_DIAGNOSIS = "05"

#: For each rule of ``folds.judge``: the section to go to, and why.
_NEXT = {
    "symptom": NextStep("06_remediation", "Plan what helps."),
    "cause": NextStep("06_remediation", "Plan what helps."),
    "unfinished": NextStep("06_remediation", "An action was cut off. Finish it first."),
    "alert": NextStep("05_root_cause", "Find out why."),
    "alert_late": NextStep("05_root_cause", "Find out why."),
    "cause_unknown": NextStep("05_root_cause", "Find out why."),
    "unproven": NextStep("06_remediation", "What was done is not proven. Verify it."),
    "recovery": NextStep("06_remediation", "Measure again: it needs a minute or two."),
    "alert_clears": NextStep("07_postmortem", "It is fixed; the alert is still clearing."),
    "fixed": NextStep("07_postmortem", "It is fixed. Write down what was learned."),
    "calm": NextStep(
        "08_references", "Nothing waits too long. Check the references if you have time."
    ),
}
_DIAGNOSE = _NEXT["alert"]
#: These four say what to do about a reading that a verdict lacks.
_LOOK = NextStep(
    "03_immediate_actions", "Whether the store is well is not known now. Look at store and worker."
)
_READ_AGAIN = NextStep("02_signals_detection", "The signals are old, or were not read. Read them.")
_BLIND = NextStep(
    "06_remediation",
    "The metrics are blind, so nothing can be proven by them. 6.2 says what brings them back.",
)
_UNREADABLE = NextStep(
    "02_signals_detection",
    "Mend what cannot be read, and read it again. If you cannot mend it, `runbook close` ends "
    "the incident with this verdict.",
)
#: For each rule, why the verdict is what it is.
_REASONS = {
    "symptom": "there is trouble",
    "cause": "a cause is there that stops labels",
    "unfinished": "an action was cut off",
    "alert": "an alert fires",
    "alert_late": "the alert should have cleared by now",
    "missing": "what a verdict needs was not read",
    "cause_unknown": "the symptom is gone; whether the cause is gone is not known",
    "unproven": "all is well, but what was done is not proven",
    "recovery": "recovery is not measured yet",
    "alert_clears": "symptom and cause are gone, and the alert is clearing",
    "fixed": "symptom, cause and alert are gone",
    "calm": "no label waits too long",
}
#: The quantities that a verdict needs, by the role of the step that reads them.
_NEEDED = {
    Role.ALERT: (Quantity.LAG, Quantity.ALERT),
    Role.BACKLOG: (Quantity.BACKLOG,),
    Role.SYMPTOM: (Quantity.STORE,),
}

#: Verdicts that say that something is wrong.
IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)

#: What was done, in the past tense, by the action's name.
_ACTIONS = {
    "release": "released {objects} by move",
    "park": "parked {objects} that nobody wants",
    "undo": "took {objects} back",
    "settle": "settled {objects} by a person's word",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {objects} for an exercise",
    "revert_synthetic": "removed {objects} of an exercise",
}
#: Actions whose check compares every object.
_PROVEN_ACTIONS = ("release", "park", "undo", "settle")
#: Fields of an action's result that say how many objects it changed.
_COUNTS = ("moved", "created", "removed")


class FulfillmentPolicy(Policy):
    """The policy of the fulfilment backlog runbook."""

    impact_heading = "Labels and orders"
    first_step = NextStep("02_signals_detection", "Is there an incident? Read the signals.")

    def judge(
        self,
        journal: JournalView,
        *,
        now: datetime | None = None,
        roles: Collection[Role] | None = None,
    ) -> Judgement | None:
        """Return what ``folds.judge`` says of the journal, with words for it.

        None while no symptom was read, unless the incident is closed. A closed incident keeps the
        verdict that it was closed with.

        Parameters
        ----------
        now : the time by which readings are current, or too old; default: when the newest look was
        roles : only needed readings of these roles must be there; None: of all roles
        """
        at = now or journal.last_look_at or journal.last_at
        closing_verdict = journal.closing_verdict()
        is_symptom_read = any(reading.role in SYMPTOMS for reading in journal.readings)
        if at is None or (closing_verdict is None and not is_symptom_read):
            return None
        converted = convert(journal)
        quantities = QUANTITIES
        if roles is not None:
            needed = frozenset(name for role in roles for name in _NEEDED.get(role, ()))
            quantities = replace(QUANTITIES, needed=needed)
        looked = self._judge_causes(journal, converted, at)
        clear = find_clear_time(journal)
        judged = folds.judge(
            converted,
            now=at,
            quantities=quantities,
            causes=looked.causes,
            is_diagnosed=looked.is_diagnosed,
            clears_by=clear.deadline if clear is not None else None,
        )
        step = _choose_next(judged, looked, folds.read_now(converted, at))
        as_of = journal.readings[-1].at if journal.readings else at
        has_ended = judged.verdict in (Verdict.FIXED, Verdict.MITIGATED)
        until = folds.find_ends(converted, QUANTITIES).until if has_ended else None
        reason = _explain(judged, converted, at, clear)
        applied = journal.list_actions(ActionPhase.APPLIED)
        if until is not None and applied and all(action.at > until for action in applied):
            reason += "; what was done came after the trouble had ended"
        return Judgement(
            verdict=closing_verdict or judged.verdict,
            reason=reason,
            next=NextStep(step.section, f"{step.reason} (as of {as_of:%H:%M:%S} UTC)"),
            since=journal.since(),
            until=until,
            may_close=judged.verdict is Verdict.FIXED,
        )

    def _judge_causes(
        self, journal: JournalView, converted: Sequence[Entry], now: datetime
    ) -> _Looked:
        """Judge the causes that stop labels by what was read since the last change.

        A cause that was read before the last symptom ended may be gone by now.
        """
        current = journal.list_current(now).values()
        observations = collect_observations(current)
        known = {finding.name for finding in self.list_causes(journal)}
        causes: dict[str, CauseStatus] = {}
        findings = diagnose(observations)
        for finding in findings:
            is_supported = finding.status is CauseStatus.SUPPORTED
            if CAUSES[finding.name].stops_labels and (is_supported or finding.name in known):
                causes[finding.name] = finding.status
        looks = [reading.observed_at for reading in current if reading.role is Role.CAUSE]
        symptom_ends = [
            span.end
            for span in folds.list_spans(converted)
            if span.quantity in (Quantity.LAG, Quantity.UPLOADS)
            and span.status is Status.BREACH
            and span.end is not None
        ]
        is_diagnosed = bool(looks)
        if CauseStatus.SUPPORTED in causes.values() and symptom_ends:
            is_diagnosed = min(looks, default=now) >= max(symptom_ends)
        if not is_diagnosed:
            causes = dict.fromkeys(causes, CauseStatus.UNDECIDED)
        if _has_moved(journal, observations):
            causes = {
                name: CauseStatus.REFUTED if status is CauseStatus.UNDECIDED else status
                for name, status in causes.items()
            }
        is_blind = any(
            finding.name == Cause.METRICS_BLIND and finding.status is CauseStatus.SUPPORTED
            for finding in findings
        )
        return _Looked(causes, is_diagnosed, is_blind)

    def list_causes(self, journal: JournalView) -> list[Finding]:
        """Return every cause that a diagnosis of this incident supported, also if it is gone now.

        While no cause is known, any section's conclusion during the trouble counts as a diagnosis.
        If a later diagnosis refuted a cause in favour of another before anything was changed, the
        refuted cause was an error: it is left out.
        """
        applied = journal.list_actions(ActionPhase.APPLIED)
        causes: dict[str, Finding] = {}
        for conclusion in journal.conclusions:
            is_diagnosis = conclusion.section.startswith(_DIAGNOSIS)
            counts_as_diagnosis = conclusion.verdict in IN_TROUBLE and not causes
            if not (is_diagnosis or counts_as_diagnosis):
                continue
            supported = [f for f in conclusion.findings if f.status is CauseStatus.SUPPORTED]
            is_before_change = not applied or conclusion.seq <= applied[0].seq
            if supported and is_before_change:
                for finding in conclusion.findings:
                    if finding.status is CauseStatus.REFUTED:
                        causes.pop(finding.name, None)
            for finding in supported:
                causes.setdefault(finding.name, finding)
        return list(causes.values())

    def list_advice(self, journal: JournalView, *, now: datetime) -> tuple[str, ...]:
        """Return what helps, by the newest diagnosis; empty when somebody must diagnose anew."""
        if not self._judge_causes(journal, convert(journal), now).is_diagnosed:
            return ()
        return super().list_advice(journal, now=now)

    def compute_impact(self, journal: JournalView) -> Impact:
        """Return how many labels and orders the incident was about, the longest wait, and tickets.

        An order without any label counts as one label that is missing.
        """
        counts = count_affected(journal)
        details = []
        if counts.released:
            details.append(f"{counts.released:,} released by move")
        if counts.waiting:
            details.append(f"{counts.waiting:,} waiting at {counts.counted_at:%H:%M:%SZ}")
        if counts.late_orders:
            details.append(f"{count_of(counts.late_orders, 'late order')} at one look")
        if counts.unserved:
            orders = count_of(counts.unserved, "order")
            details.append(f"{orders} without any label at one look, each counted as one label")
        if counts.longest_minutes:
            text = f"longest wait seen {counts.longest_minutes:.1f} min"
            if any(r.observations.get("listed_longest_is_backdated") for r in journal.readings):
                text += ", by a pending-since from before the label was written"
            details.append(text)
        tickets = journal.tickets()
        if tickets:
            details.append(count_of(len(tickets), "ticket"))
        return Impact(counts.affected, tuple(details))

    def make_headline(self, verdict: Verdict, causes: Sequence[Finding]) -> str:
        """Return what stands beside the verdict in the report's title."""
        if verdict is Verdict.HEALTHY:
            return "no label waits too long"
        return super().make_headline(verdict, causes)

    def describe_action(self, action: ActionRecord) -> str:
        """Return what was done, in the past tense; if it was only tried, the action's name."""
        pattern = _ACTIONS.get(action.first.action)
        if pattern is None or action.applied is None:
            return super().describe_action(action)
        noun = "label"
        if "synthetic" in action.first.action:
            noun = "synthetic object"
        number = _count_changed(action)
        objects = f"{noun}s" if number is None else count_of(number, noun)
        # The target's text may hold braces: so no str.format, and the target is filled in last.
        text = pattern.replace("{objects}", objects)
        return text.replace("{target}", clip_target(action.first.target))

    def describe_proof(self, action: ActionRecord) -> str:
        """Return what the check after an action found, in a few words."""
        is_proven = action.is_verified and action.first.action in _PROVEN_ACTIONS
        if is_proven and not action.is_taken_back:
            return "proven"
        if action.state == "settled by word":
            return "proven, but for what a person settled"
        return super().describe_proof(action)

    def list_unfinished(self, action: ActionRecord, actions: Sequence[ActionRecord]) -> list[str]:
        """Say what is left to do: labels to settle, or a move to resume."""
        changes = [convert_action(entry) for each in actions for entry in each.phases]
        unfinished = []
        for plan in folds.list_plans(changes):
            if plan.plan != action.plan:
                continue
            if plan.doubtful:
                labels = count_of(plan.doubtful, "label")
                command = f"runbook settle {plan.plan} --taken|--not-taken [KEY…]"
                unfinished.append(f"nobody can know whether {labels} shipped. {command}")
            if plan.left and not plan.is_taken_back:
                unfinished.append(f"{plan.plan} is not finished: runbook resume {plan.plan}")
        return unfinished


POLICY = FulfillmentPolicy()


def _has_moved(journal: JournalView, observations: Mapping[str, Observation]) -> bool:
    """Tell whether the worker moved something since the last action."""
    acted_at = journal.last_applied_at
    last_move = observations.get("worker_last_move")
    if acted_at is None or last_move is None or last_move.value is None:
        return False
    return parse_time(str(last_move.value)) > acted_at


def find_clear_time(journal: JournalView) -> ClearTime | None:
    """Return when the alert clears, by the newest reading since the last action that says so."""
    acted = journal.last_applied
    for reading in reversed(journal.readings):
        if acted is not None and reading.seq < acted.seq:
            return None
        if reading.clear is not None:
            return reading.clear
    return None


class _Looked(NamedTuple):
    """What is known of the causes that stop labels.

    Attributes
    ----------
    causes : those that this incident found, with their status now
    is_diagnosed : whether somebody looked for causes since the last change and the last symptom
    is_blind : whether the metrics are blind
    """

    causes: dict[str, CauseStatus]
    is_diagnosed: bool
    is_blind: bool


def _choose_next(
    judged: folds.Judgement, looked: _Looked, current: Mapping[folds.Key, entries.Reading]
) -> NextStep:
    """Return where to go from here."""
    if judged.rule == "missing":
        if any(key.quantity == Quantity.STORE for key in judged.keys):
            return _LOOK
        if not any(key in current and current[key].message.id != "stale" for key in judged.keys):
            return _READ_AGAIN
        if looked.is_blind:
            return _BLIND
        return _UNREADABLE if looked.is_diagnosed else _DIAGNOSE
    if judged.rule == "symptom" and not looked.is_diagnosed:
        return _DIAGNOSE
    return _NEXT[judged.rule]


def _explain(
    judged: folds.Judgement, read: Sequence[Entry], now: datetime, clear: ClearTime | None
) -> str:
    """Say why the verdict is what it is, and by which readings."""
    reason = _REASONS[judged.rule]
    if judged.verdict is Verdict.MITIGATED:
        return "the symptom is gone, and the cause is still there"
    if judged.rule == "recovery" and judged.verdict is Verdict.NOT_FIXED:
        reason = "more labels wait than in the hour before"
    current = folds.read_now(read, now)
    texts: dict[str, None] = {}
    for key in judged.keys:
        reading = current.get(key)
        if reading is None:
            texts[f"the {key.quantity} was not read"] = None
        elif reading.message.id == "stale":
            texts[f"{reading.step} was read at {reading.at:%H:%M:%SZ}, which is too old"] = None
        elif judged.rule == "alert_clears" and clear is not None:
            deadline = format_time(clear.deadline)
            words = f"it still fired at {reading.at:%H:%M:%SZ}; by its rule it clears by {deadline}"
            channels = format_time(clear.channels_latest)
            texts[f"{words}, and the channels say so by {channels}"] = None
        else:
            text = str(reading.message.values["text"])
            texts[text or f"{key.quantity}: {reading.value}"] = None
    details = "; ".join(texts)
    if judged.rule == "symptom" and judged.verdict is Verdict.INCIDENT:
        return details
    return f"{reason}: {details}" if details else reason


class Affected(NamedTuple):
    """How many labels and orders an incident was about; None where no reading counted.

    Attributes
    ----------
    labels : the highest count at one look, and at least the labels released. A look at which a
        label is late, or more wait than usual, counts the labels that wait and those released
        before. A look that could not compare, and came after the first sign of the cause, counts
        the larger of both numbers. Other looks do not count. If the lag was too long, the highest
        backlog of the timeline counts, too
    waiting : labels at the last listing of section 2
    released : labels moved by releases, less those that were taken back. ``labels`` may be higher,
        since a label that was taken back counts there
    late_orders : the highest count at one look, of orders that waited too long
    unserved : the highest count at one look, of orders without any label
    longest_minutes : the longest that a label, or an order without one, was seen to wait
    affected : the highest count at one look, of ``labels`` plus orders that have none. ``labels``
        and ``unserved`` are not added up, since such an order gets its label later
    counted_at : when ``waiting`` was counted
    """

    labels: int | None
    waiting: int | None
    released: int
    late_orders: int | None
    unserved: int | None = None
    longest_minutes: float | None = None
    affected: int | None = None
    counted_at: datetime | None = None


def count_affected(journal: JournalView) -> Affected:
    """Return how many labels and orders an incident was about, by listings and releases.

    Section 2 counts what waits. A listing of another section counts, too, as a look at labels.
    """
    began = _find_stop(journal)
    backlog = [r for r in journal.readings if r.role is Role.BACKLOG]
    listings = [r for r in journal.readings if "listed" in r.observations]
    counted = [r for r in backlog if isinstance(r.value, int | float)]
    looks = [r for r in (*backlog, *listings) if _shows_stop(r, began)]
    late_orders = [r.orders for r in backlog if r.orders is not None]
    unserved = [r.unserved for r in backlog if r.unserved is not None]
    waits = _list_highest(journal, "lag")
    # If the lag was never too long, a high backlog was only much traffic.
    highest = _list_highest(journal, "backlog") if waits else []
    listed_waits = [to_number(r.observations.get("listed_longest_minutes")) for r in looks]
    waits += [minutes for minutes in listed_waits if minutes is not None]
    for reading in backlog:
        if reading.longest_minutes and (reading.unserved or _shows_stop(reading, began)):
            waits.append(reading.longest_minutes)
    history = _list_released(journal)
    released = history[-1].released if history else 0
    labels = None
    if counted or listings or history:
        at_once = [_count_at_once(r, _find_released(history, r.seq)) for r in looks]
        labels = int(max([0, *at_once, *highest, *(point.released for point in history)]))
    # An order without any label counts as one label that is missing.
    affected = labels
    for reading in backlog:
        if reading.unserved:
            with_label = _find_released(history, reading.seq)
            # In usual traffic, the labels that wait do not count.
            if _shows_stop(reading, began):
                with_label = _count_at_once(reading, with_label)
            affected = max(affected or 0, with_label + reading.unserved)
    if not labels and not unserved and _had_no_uploads(journal):
        # Orders without a label were not counted, so 0 would be wrong.
        labels = None
        affected = None
    return Affected(
        labels=labels,
        waiting=int(get_number(counted[-1])) if counted else None,
        counted_at=_find_listed_at(counted[-1]) if counted else None,
        released=released,
        late_orders=max(late_orders, default=None),
        unserved=max(unserved, default=None),
        longest_minutes=max(waits, default=None),
        affected=affected,
    )


def _find_listed_at(reading: Reading) -> datetime:
    """Return when a reading listed what waits: it may have watched late labels for seconds."""
    listed_at = reading.observations.get("listed_at")
    return parse_time(str(listed_at)) if listed_at else reading.observed_at


def _find_stop(journal: JournalView) -> datetime | None:
    """Return when the first sign was seen of a cause that stops labels; None without one."""
    stopping = {name for name, record in CAUSES.items() if record.stops_labels}
    causes = [cause for cause in POLICY.list_causes(journal) if cause.name in stopping]
    return min((cause.first_seen for cause in causes if cause.first_seen), default=None)


def _list_highest(journal: JournalView, kind: str) -> list[float]:
    """Return the lags or backlogs that the timeline's events name since the trouble began."""
    since = journal.since()
    events: list[Event] = []
    for reading in journal.readings:
        events += reading.events
    return [e.value for e in events if since and e.kind == kind and e.value and e.at >= since]


def _count_at_once(reading: Reading, released: int) -> int:
    """Return how many labels an incident was about, as one look or listing saw it.

    ``released`` were moved before that look.
    """
    waiting = int(to_number(reading.observations.get("listed", reading.value)) or 0)
    if _shows_stop(reading, None):
        return waiting + released
    # The look could not compare. What waits may be usual traffic, so it is not added.
    return max(waiting, released)


def _shows_late(reading: Reading) -> bool:
    """Tell whether a look or a listing saw a label that waits too long."""
    return bool(reading.observations.get("listed_late", reading.status is Status.BREACH))


def _shows_stop(reading: Reading, began: datetime | None) -> bool:
    """Tell whether a look or a listing saw labels wait for another reason than the usual traffic.

    It did if a label is late, or more labels wait than usual. A look of 2.3 that could not compare
    counts as such a look if it came after the first sign of the cause, ``began``.
    """
    comparison = reading.observations.get("waiting")
    if _shows_late(reading) or comparison == Backlog.ABOVE:
        return True
    could_not_compare = reading.role is Role.BACKLOG and comparison is None
    return could_not_compare and began is not None and reading.observed_at >= began


def _had_no_uploads(journal: JournalView) -> bool:
    """Tell whether any reading of the incident says that uploads failed, or that none came."""
    uploads = [reading.observations.get("uploads") for reading in journal.readings]
    return Uploads.FAILING in uploads or Uploads.NONE in uploads


class _ReleasedSoFar(NamedTuple):
    """How many labels were released, less those taken back, up to an entry of the journal."""

    seq: int
    released: int


def _list_released(journal: JournalView) -> list[_ReleasedSoFar]:
    """Count the labels that were released, after each action whose result counts them.

    Several runs of one plan count once, with the highest count: a later run of a release does not
    count what was taken back meanwhile.
    """
    kinds: dict[str, str] = {}
    counts: dict[str, int] = {}
    history = []
    for action in journal.actions:
        plan = str(action.result.get("plan"))
        is_of_parking = kinds.get(action.about) == "park"
        kinds.setdefault(plan, "park" if is_of_parking else action.action)
        count = action.result.get("moved")
        if not isinstance(count, int):
            continue
        counts[plan] = max(count, counts.get(plan, 0))
        if kinds[plan] == "undo":
            # A release that was cut off has no count: it moved what its undos took back.
            undone_plan = plan.rpartition("-undo")[0]
            undos = [other for other in counts if other.startswith(f"{undone_plan}-undo")]
            if undone_plan in kinds:
                by_undos = sum(counts[undo] for undo in undos)
                counts[undone_plan] = max(by_undos, counts.get(undone_plan, 0))
        released = _sum_of(counts, kinds, "release") - _sum_of(counts, kinds, "undo")
        history.append(_ReleasedSoFar(action.seq, released))
    return history


def _find_released(history: Sequence[_ReleasedSoFar], seq: int) -> int:
    """Return how many labels had been released before an entry of the journal; 0: none."""
    earlier = [point.released for point in history if point.seq < seq]
    return earlier[-1] if earlier else 0


def _sum_of(counts: Mapping[str, int], kinds: Mapping[str, str], kind: str) -> int:
    """Add up the counts of the plans of one kind."""
    return sum(count for plan, count in counts.items() if kinds[plan] == kind)


def _count_changed(action: ActionRecord) -> int | None:
    """Return how many objects an action changed; None when its result does not say.

    Of several runs the highest count holds: a later run leaves out what was taken back meanwhile.
    """
    applied = [entry.result for entry in action.phases if entry.phase is ActionPhase.APPLIED]
    names = ("settled",) if action.first.action == "settle" else _COUNTS
    for name in names:
        numbers = [to_number(result.get(name)) for result in applied]
        counts = [int(number) for number in numbers if number is not None]
        if counts:
            return max(counts)
    return None
