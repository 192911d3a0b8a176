"""What the journal says about now, in the form that the verdict table takes. Pure.

Readings that are over ten minutes old, or from before the last action, are shown, but do not count
as what is so now. They count only for what the incident saw before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, TypeVar

from runbook_lib.model import (
    SYMPTOMS,
    ActionPhase,
    AlertState,
    CauseStatus,
    ClearTime,
    Finding,
    Json,
    Reading,
    Role,
    Status,
    Verdict,
    parse_time,
)
from runbook_lib.record.actions import ActionRecord, group_actions
from runbook_lib.record.view import JournalView
from runbook_lib.show.text import format_duration

from .analysis.causes import CAUSES, Observation, diagnose
from .outcome import Actions, Backlog, Before, Causes, Clear, Needed, Situation, Uploads

DELAY_ALERT = "FulfillmentDelay"
UPLOAD_ALERT = "FulfillmentUploadFailing"
#: The roles of the needed readings.
NEEDED_ROLES = (Role.ALERT, Role.BACKLOG, Role.SYMPTOM)
#: Actions that have a log and a proof of each object, and that can be resumed.
MOVES = ("release", "undo", "settle")
#: The steps whose actions are the remedy: labels are moved, or a service is brought back.
_REMEDIES = ("6.1", "6.2")
#: Counts of a proof. If one is not 0, the move is not proven, whatever a person's word settled.
_FAILED = ("lost", "duplicated", "foreign_changed")
#: Whether an answer says that all is well: a status of the alert's step, or an answer on uploads.
_IS_WELL: Mapping[str, bool] = {
    Status.OK: True,
    Status.BREACH: False,
    Uploads.SUCCEEDING: True,
    Uploads.FAILING: False,
}
#: Verdicts that say that something is wrong: a symptom, a cause, or an action that was cut off.
IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)

E = TypeVar("E", bound=StrEnum)


class Missing(NamedTuple):
    """A needed reading that says nothing of now.

    Attributes
    ----------
    kind : ``UNKNOWN`` or ``STALE``
    role : the role of the reading's step
    words : which reading it is, and why it says nothing of now
    was_tried : whether somebody just tried to read it, and it stayed unknown
    """

    kind: Needed
    role: Role
    words: str
    was_tried: bool = False


class Assessment(NamedTuple):
    """The situation, and what it rests on.

    Attributes
    ----------
    situation : one value for each thing that a verdict depends on
    breaches : the current breaches of symptoms, without those that a low lag or a later look of 6.5
        takes back
    missing : the needed readings that are unknown or out of date
    findings : every cause, judged by the current readings
    clear : when a firing alert clears, by the newest reading since the last action
    above : in words, how many more labels wait than usual; empty: no more do, or not known
    alerts_at : when the alerts were last read; None: never
    causes_at : when the oldest current reading of a cause was; None: there is none
    """

    situation: Situation
    breaches: tuple[Reading, ...]
    missing: tuple[Missing, ...]
    findings: tuple[Finding, ...]
    clear: ClearTime | None
    above: str
    alerts_at: datetime | None
    causes_at: datetime | None


def read_situation(
    journal: JournalView,
    *,
    now: datetime,
    causes_before: Collection[str],
    roles: Collection[Role] = NEEDED_ROLES,
) -> Assessment:
    """Return what the journal says of the state at a time.

    Parameters
    ----------
    now : the time by which readings are current, or too old
    causes_before : the causes that this incident's diagnoses named
    roles : the roles whose needed readings must be there
    """
    clear = find_clear_time(journal)
    current = _drop_outlived(journal.list_current(now), clear, now)
    symptoms = [reading for reading in current.values() if reading.role in SYMPTOMS]
    low_lag_seq = _find_low_lag(current.values())
    usual_backlog_seq = _find_usual_backlog(current.values())
    breaches = [
        reading
        for reading in symptoms
        if reading.status is Status.BREACH
        and not is_alert_alone(reading, low_lag_seq)
        and not _is_backlog_usual_again(reading, usual_backlog_seq)
    ]
    missing = _list_missing(journal, current, roles, now)
    observations = collect_observations(current.values())
    alerts = _read_alerts(current.values(), is_asked=Role.ALERT in roles)
    situation = Situation(
        needed=_judge_needed(breaches, missing),
        delay=alerts[DELAY_ALERT],
        upload=alerts[UPLOAD_ALERT],
        uploads=_read_uploads(current.values()),
        backlog=_read_backlog(current.values()),
        causes=_judge_causes(journal, current.values(), causes_before),
        actions=judge_actions(group_actions(journal.actions), journal.ways_on),
        before=_read_before(journal),
        clear=_judge_clear(clear, now),
    )
    return Assessment(
        situation=situation,
        breaches=tuple(breaches),
        missing=tuple(missing),
        findings=diagnose(observations),
        clear=clear,
        above=_say_above(current.values()),
        alerts_at=max((r.observed_at for r in current.values() if r.alerts), default=None),
        causes_at=min(
            (r.observed_at for r in current.values() if r.role is Role.CAUSE), default=None
        ),
    )


def _drop_outlived(
    current: Mapping[str, Reading], clear: ClearTime | None, now: datetime
) -> Mapping[str, Reading]:
    """Leave out a reading that saw an alert fire, once the alert's time to clear is over.

    Whether the alert has cleared is not known then. A reading of after that time stays: the alert
    should have cleared by then.
    """
    if clear is None or now <= clear.deadline:
        return current
    return {
        step: reading
        for step, reading in current.items()
        if AlertState.FIRING not in reading.alerts.values() or reading.observed_at > clear.deadline
    }


def _parse_enum(enum: type[E], word: Json, default: E) -> E:
    """Return the value of an enum that a word names; the default if the word names none."""
    for value in enum:
        if value == word:
            return value
    return default


def is_alert_alone(reading: Reading, low_lag_seq: int) -> bool:
    """Tell whether a breach of the alert's step does not count, since the lag itself is low.

    That is so if an alert fires, and the reading says that the lag is not over the threshold. It is
    also so if a later entry of the journal says that the lag is low. The states of the alerts count
    apart from the breach.

    Parameters
    ----------
    low_lag_seq : the number of the journal's entry that says that the lag is low; 0: none does
    """
    if reading.role is not Role.ALERT:
        return False
    fires = AlertState.FIRING in reading.alerts.values()
    fires_at_low_lag = fires and reading.observations.get("lag_is_over") is False
    return fires_at_low_lag or low_lag_seq > reading.seq


def _find_low_lag(readings: Iterable[Reading]) -> int:
    """Return the number of the entry in which 6.5 said that the lag is low; 0: there is none.

    ``readings`` are the current ones.
    """
    for reading in readings:
        is_low = reading.observations.get("lag_is_low") is True
        if reading.role is Role.RECOVERY and is_low:
            return reading.seq
    return 0


def _find_usual_backlog(readings: Iterable[Reading]) -> int:
    """Return the number of the entry in which 6.5 listed no more than is usual; 0: there is none.

    ``readings`` are the current ones.
    """
    for reading in readings:
        is_usual = reading.observations.get("waiting") == Backlog.USUAL
        if reading.role is Role.RECOVERY and is_usual:
            return reading.seq
    return 0


def _is_backlog_usual_again(reading: Reading, usual_backlog_seq: int) -> bool:
    """Tell whether a breach is of the backlog, and 6.5 found the backlog as usual after it."""
    return reading.role is Role.BACKLOG and usual_backlog_seq > reading.seq


def _list_missing(
    journal: JournalView,
    current: Mapping[str, Reading],
    roles: Collection[Role],
    now: datetime,
) -> list[Missing]:
    """Say why needed readings say nothing about now: not read, unknown, or too old.

    The readings of a role that is not among ``roles`` may be absent or too old. They are listed
    only if they are unknown.
    """
    missing: list[Missing] = []
    for role in NEEDED_ROLES:
        of_role = [r for r in journal.latest().values() if r.role is role and r.is_needed]
        if not of_role:
            if role in roles:
                missing.append(Missing(Needed.UNKNOWN, role, f"the {role} was not read"))
            continue
        for reading in of_role:
            if reading.step in current:
                if reading.status is Status.UNKNOWN:
                    words = f"{reading.step} {reading.reason}"
                    missing.append(Missing(Needed.UNKNOWN, role, words, was_tried=True))
            elif role in roles:
                words = say_age(reading, now)
                if journal.last_applied is not None and reading.seq < journal.last_applied.seq:
                    words += ", before the last change"
                missing.append(Missing(Needed.STALE, role, words))
    return missing


def say_age(reading: Reading, now: datetime) -> str:
    """Say how old a reading is, and from when."""
    age = format_duration(now - reading.observed_at)
    return f"{reading.step} was read {age} ago, at {reading.observed_at:%H:%M:%SZ}"


def _judge_needed(breaches: Sequence[Reading], missing: Sequence[Missing]) -> Needed:
    """Return the worst that needed readings say: breach, then unknown, then stale."""
    if breaches:
        return Needed.BREACH
    kinds = {reading.kind for reading in missing}
    for kind in (Needed.UNKNOWN, Needed.STALE):
        if kind in kinds:
            return kind
    return Needed.OK


def _read_alerts(readings: Iterable[Reading], *, is_asked: bool) -> dict[str, AlertState]:
    """Return the state of each alert, by the newest current reading of the alerts.

    An alert that the reading does not name is unknown when the alerts could not be read. It counts
    as resolved when other alerts could be read, or the settings leave the alerts out. Without any
    reading, an alert counts as resolved only if nobody needs to ask (``is_asked`` is False).
    """
    states = {}
    is_known = not is_asked
    for reading in sorted(readings, key=_get_seq):
        # 7.1 reads the alerts once more.
        is_last_look = reading.role is Role.CLEARED and bool(reading.alerts)
        if reading.role is Role.ALERT or is_last_look:
            states = reading.alerts
            is_known = bool(states) or reading.status is Status.LEFT_OUT
    unnamed = AlertState.RESOLVED if is_known else AlertState.UNKNOWN
    return {name: states.get(name, unnamed) for name in (DELAY_ALERT, UPLOAD_ALERT)}


def _read_uploads(readings: Iterable[Reading]) -> Uploads:
    """Return whether labels get in, by the newest of 2.1 and 6.5."""
    relevant = [reading for reading in readings if "uploads" in reading.observations]
    if not relevant:
        return Uploads.UNASKED
    newest = max(relevant, key=_get_seq)
    return _parse_enum(Uploads, newest.observations["uploads"], Uploads.UNASKED)


def _get_seq(reading: Reading) -> int:
    """Return a reading's number in the journal, by which readings are sorted."""
    return reading.seq


def _read_backlog(readings: Iterable[Reading]) -> Backlog:
    """Compare the lag and what waits with the usual, each by its newest reading.

    2.1 and 6.5 say whether the lag is low. 2.3 and 6.5 say whether more labels wait than usual.
    """
    relevant = [r for r in readings if r.role in (Role.ALERT, Role.BACKLOG, Role.RECOVERY)]
    relevant.sort(key=_get_seq)
    is_low: Json = None
    waiting: Json = None
    for reading in relevant:
        if reading.role is Role.ALERT and reading.status is Status.LEFT_OUT:
            is_low = True  # without the metric the listing alone decides
        is_low = reading.observations.get("lag_is_low", is_low)
        waiting = reading.observations.get("waiting", waiting)
    if waiting == Backlog.OVERDUE:
        return Backlog.OVERDUE
    if waiting == Backlog.ABOVE or is_low is False:
        return Backlog.ABOVE
    if waiting == Backlog.USUAL and is_low is True:
        return Backlog.USUAL
    return Backlog.UNPROVEN


def _say_above(readings: Iterable[Reading]) -> str:
    """Say how many more labels wait than usual, by the newest reading that compares them.

    Empty when that reading does not say ``above``, or no reading compares.
    """
    relevant = [reading for reading in readings if reading.observations.get("waiting") is not None]
    newest = max(relevant, key=_get_seq, default=None)
    if newest is None or newest.observations["waiting"] != Backlog.ABOVE:
        return ""
    return newest.reason


def collect_observations(readings: Iterable[Reading]) -> dict[str, Observation]:
    """Return the named observations of readings, each with its journal entry.

    If two steps observed the same, the later reading counts. A known value is never replaced by an
    unknown one.
    """
    observations: dict[str, Observation] = {}
    for reading in sorted(readings, key=attrgetter("observed_at")):
        evidence = f"#{reading.seq}" if reading.seq else reading.step
        for name, value in reading.observations.items():
            if value is not None or name not in observations:
                observations[name] = Observation(value, evidence)
    return observations


def _judge_causes(
    journal: JournalView,
    readings: Collection[Reading],
    causes_before: Collection[str],
) -> Causes:
    """Judge whether a cause that stops labels is there now.

    An undecided cause counts only if it was supported before. If causes stay undecided, a worker
    that moved something since the last action shows that they are gone.

    A supported cause may be gone by now if it was read before the alert's step became ok, or before
    uploads succeeded again. Then it counts as not read.
    """
    observations = collect_observations(readings)
    statuses = []
    for finding in diagnose(observations):
        is_supported = finding.status is CauseStatus.SUPPORTED
        stops_labels = CAUSES[finding.name].stops_labels
        if stops_labels and (is_supported or finding.name in causes_before):
            statuses.append(finding.status)
    if CauseStatus.SUPPORTED in statuses:
        alerts = [(r.seq, str(r.status)) for r in journal.readings if r.role is Role.ALERT]
        uploads = [(r.seq, str(r.observations.get("uploads"))) for r in journal.readings]
        turned_well_seq = max(_find_turned_well(alerts), _find_turned_well(uploads))
        is_older = any(r.role is Role.CAUSE and r.seq < turned_well_seq for r in readings)
        return Causes.UNREAD if is_older else Causes.SUPPORTED
    if not any(reading.role is Role.CAUSE for reading in readings):
        return Causes.UNREAD
    if CauseStatus.UNDECIDED in statuses and not _has_moved(journal, observations):
        return Causes.UNDECIDED
    return Causes.GONE


def _find_turned_well(answers: Iterable[tuple[int, str]]) -> int:
    """Return the number of the entry at which trouble last ended; 0: it never did, or is back.

    Parameters
    ----------
    answers : an entry's number and its answer, in sequence. Those that are not in ``_IS_WELL`` are
        passed over
    """
    turned_well_seq = 0
    is_bad = False
    for seq, answer in answers:
        is_well = _IS_WELL.get(answer)
        if is_well is False:
            is_bad = True
            turned_well_seq = 0
        elif is_well and is_bad:
            is_bad = False
            turned_well_seq = seq
    return turned_well_seq


def _has_moved(journal: JournalView, observations: Mapping[str, Observation]) -> bool:
    """Tell whether the worker moved something since the last action."""
    acted_at = journal.last_applied_at
    last_move = observations.get("worker_last_move")
    if acted_at is None or last_move is None or last_move.value is None:
        return False
    return parse_time(str(last_move.value)) > acted_at


def judge_actions(actions: Sequence[ActionRecord], unfinished: Collection[str] = ()) -> Actions:
    """Return how the remedies of an incident ended.

    The newest remedy of each step counts, and each unfinished move that ``unfinished`` names. A
    remedy that was taken back does not count.

    Parameters
    ----------
    actions : the incident's actions, oldest first
    unfinished : resume commands of unfinished moves, as last read from the bucket. If such a move
        still has labels to move, the result is ``UNFINISHED``, even if a newer one ended well
    """
    newest: dict[str, ActionRecord] = {}
    for action in actions:
        step = action.first.step
        if not step.startswith(_REMEDIES) or action.is_taken_back:
            continue
        if _has_more_to_move(action) and _is_named(action.plan, unfinished):
            return Actions.UNFINISHED
        if action.was_tried:
            newest[step] = action
    if any(_has_more_to_move(action) for action in newest.values()):
        return Actions.UNFINISHED
    applied = [action for action in newest.values() if action.applied]
    if not applied:
        return Actions.NONE
    if all(is_proven(action, actions) for action in applied):
        return Actions.PROVEN
    return Actions.UNPROVEN


def _is_named(plan: str, commands: Collection[str]) -> bool:
    """Tell whether one of the commands names the plan."""
    return any(plan in command.split() for command in commands)


def _has_more_to_move(action: ActionRecord) -> bool:
    """Tell whether somebody must go on with a move: it left labels, or it was cut off."""
    return is_unfinished(action) or _is_cut_off(action)


def _is_cut_off(action: ActionRecord) -> bool:
    """Tell whether an approved move began, and nothing says that it ended."""
    is_move = action.first.action in MOVES
    return is_move and action.is_cut_off and action.get(ActionPhase.APPROVED) is not None


def is_unfinished(action: ActionRecord) -> bool:
    """Tell whether a move left labels that its plan still has to move."""
    return bool(action.result(ActionPhase.APPLIED).get("waiting"))


def count_unsettled(action: ActionRecord, actions: Sequence[ActionRecord]) -> int:
    """Count the labels that a move left in doubt, and that no person has settled since."""
    if action.applied is None:
        return 0
    count = len(action.applied.result.get("unproven", []))
    settle_prefix = f"{action.plan}-settle"  # the ids of its settle plans begin with this
    for other in actions:
        if other.applied is None or other.is_taken_back:
            continue
        if other.plan.startswith(settle_prefix) and other.applied.seq > action.applied.seq:
            count -= other.applied.result.get("settled", 0)
    return max(count, 0)


def is_proven(action: ActionRecord, actions: Sequence[ActionRecord]) -> bool:
    """Tell whether a check after an action found its effect.

    A move can be proven although others took or changed some of its labels first, or a person
    settled some: a proof counts settled labels apart from the unproven ones.
    """
    if action.first.action not in MOVES:
        return action.is_verified
    if count_unsettled(action, actions):
        return False
    proof = action.last.result
    if "lost" not in proof:  # the action's newest entry is no proof
        return action.is_verified
    if any(proof.get(name) for name in _FAILED):
        return False
    return not proof.get("unproven")


def _read_before(journal: JournalView) -> Before:
    """Return the worst that this incident saw so far: a breach, else a cause, else nothing."""
    if journal.breaches(SYMPTOMS):
        return Before.TROUBLE
    # Trouble without a symptom: a cause was supported, or an action was cut off.
    for conclusion in journal.conclusions:
        if conclusion.verdict in IN_TROUBLE:
            return Before.CAUSE
    return Before.CALM


def find_end(journal: JournalView) -> datetime | None:
    """Return since when all has been well; None when that is not known.

    The samples of the metrics say it. If a reading in that second or later still found trouble, the
    end is not before the next reading of that kind (see ``_is_alike``) that found none. As long as
    there is no such reading, the samples' time stands.
    """
    end = journal.well_since()
    if end is None:
        return None
    ends = [end]
    for reading in journal.readings:
        is_late = reading.observed_at >= end.replace(microsecond=0)
        if is_late and _finds_trouble(reading):
            later = [r for r in journal.readings if r.seq > reading.seq and _is_alike(r, reading)]
            well_at = [r.observed_at for r in later if not _finds_trouble(r)]
            ends += well_at[:1]
    return max(ends)


def _finds_trouble(reading: Reading) -> bool:
    """Tell whether a reading found a symptom, or that more than usual waited."""
    if reading.observations.get("waiting") in (Backlog.ABOVE, Backlog.OVERDUE):
        return True
    return reading.status is Status.BREACH and reading.role in (*NEEDED_ROLES, Role.RECOVERY)


def _is_alike(reading: Reading, other: Reading) -> bool:
    """Tell whether two readings are of one step, or both compare what waits with what is usual."""
    both_compare = "waiting" in reading.observations and "waiting" in other.observations
    return both_compare or reading.step == other.step


def find_clear_time(journal: JournalView) -> ClearTime | None:
    """Return when the alert clears, by the newest reading since the last action that says so."""
    acted = journal.last_applied
    for reading in reversed(journal.readings):
        if acted is not None and reading.seq < acted.seq:
            return None
        if reading.clear is not None:
            return reading.clear
    return None


def _judge_clear(clear: ClearTime | None, now: datetime) -> Clear:
    """Tell whether the time by which the alert must clear is still ahead."""
    if clear is None:
        return Clear.UNKNOWN
    return Clear.AHEAD if now <= clear.deadline else Clear.PAST
