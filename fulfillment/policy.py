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
    Role,
    Status,
    Verdict,
    format_time,
    parse_time,
)
from runbook_lib.policy import Impact, Judgement, NextStep, Policy, clip_target
from runbook_lib.record import entries, folds
from runbook_lib.record.actions import ActionRecord, group_actions
from runbook_lib.record.entries import Entry
from runbook_lib.record.view import JournalView, to_number
from runbook_lib.show.text import count_of

from .analysis.causes import CAUSES, Cause, Observation, collect_observations, diagnose
from .convert import convert
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

    impact_heading = "Orders held back"
    healthy_words = "no label waits too long"
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
        closing_verdict = journal.closing_verdict()
        is_symptom_read = any(reading.role in SYMPTOMS for reading in journal.readings)
        if closing_verdict is None and not is_symptom_read:
            return None
        at = now or journal.last_look_at or journal.entries[-1].at
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
        has_ended = judged.verdict in (Verdict.FIXED, Verdict.MITIGATED)
        until = folds.find_ends(converted, QUANTITIES).until if has_ended else None
        return Judgement(
            verdict=closing_verdict or judged.verdict,
            reason=_explain(judged, converted, at, clear),
            next=_choose_next(judged, looked, folds.read_now(converted, at)),
            since=journal.since(),
            until=until,
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
        statuses = {finding.name: finding.status for finding in diagnose(observations)}
        causes = {
            name: status
            for name, status in statuses.items()
            if CAUSES[name].stops_labels and (status is CauseStatus.SUPPORTED or name in known)
        }
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
        is_blind = statuses[Cause.METRICS_BLIND] is CauseStatus.SUPPORTED
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
        """Return how many orders were late or had no label, and what else is known of them.

        The orders of all looks are counted, each once. None are known where only the metric saw
        that something was late.
        """
        orders: set[str] = set()
        for reading in journal.readings:
            orders.update(reading.order_ids)
        counts = [reading.orders for reading in journal.readings if reading.orders is not None]
        waits = [r.longest_minutes for r in journal.readings if r.orders and r.longest_minutes]
        waits += _list_late_lags(journal)
        details = []
        released = _count_released(journal)
        if released:
            details.append(f"{count_of(released, 'file')} released")
        if waits:
            details.append(f"longest wait {max(waits):.1f} min")
        tickets = journal.tickets()
        if tickets:
            details.append(count_of(len(tickets), "ticket"))
        affected = max([len(orders), *counts])
        is_uncounted = not affected and (waits or not counts)
        return Impact(None if is_uncounted else affected, tuple(details))

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

    def list_unfinished(self, action: ActionRecord) -> list[str]:
        """Say what is left to do: labels to settle, or a move to resume."""
        unfinished = []
        if action.doubtful:
            labels = count_of(action.doubtful, "label")
            command = f"runbook settle {action.plan} --taken|--not-taken [KEY…]"
            unfinished.append(f"nobody can know whether {labels} shipped. {command}")
        if action.left and not action.is_taken_back:
            unfinished.append(f"{action.plan} is not finished: runbook resume {action.plan}")
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


def _list_late_lags(journal: JournalView) -> list[float]:
    """Return the peaks of the lag that the timeline's events name since the trouble began."""
    since = journal.since()
    events: list[Event] = []
    for reading in journal.readings:
        events += reading.events
    return [e.value for e in events if since and e.kind == "lag" and e.value and e.at >= since]


def _count_released(journal: JournalView) -> int:
    """Return how many files were released, less those that were taken back."""
    released: dict[str, int] = {}
    for action in group_actions(journal.actions):
        count = _count_changed(action) or 0
        if action.verb == "release":
            released[action.plan] = count
        elif action.verb == "undo" and action.about in released:
            released[action.about] = max(0, released[action.about] - count)
    return sum(released.values())


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
