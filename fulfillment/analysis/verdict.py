"""Is there an incident, and after the actions: is it fixed? Pure; no sample is never a pass."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from runbook_lib.model import (
    SYMPTOMS,
    CauseStatus,
    ClearTime,
    Outcome,
    Reading,
    Role,
    Status,
    Verdict,
    format_time,
)
from runbook_lib.section import find_unknown

from .samples import Sample, clean

#: A reading that is older says nothing of now.
MAX_AGE = timedelta(minutes=10)


class VerdictResult(NamedTuple):
    """The verdict and, in words, why."""

    verdict: Verdict
    reason: str


def compute_recovery(
    lag: Iterable[Sample], refresh: Iterable[Sample], action_at: datetime, limit: float, needed: int
) -> Outcome:
    """Decide step 6.5 from the raw scrapes: did the lag come down after the action?

    Parameters
    ----------
    lag : at each scrape; NaN is no sample
    refresh : at each scrape, the exporter's last refresh in seconds since the epoch; it
        belongs to the lag of the same scrape, or of the next ones until it is scraped again
    action_at : when the action ended
    limit : the lag must be under it
    needed : so many samples in a row, at least one

    Returns
    -------
    ``value`` is the last of the samples that rest on a refresh later than the action; ``since`` is
    when the first of those in a row, up to the newest, was under the threshold.
    """
    after = _list_after(lag, clean(refresh), action_at)
    if not after:
        reason = f"no sample rests on a refresh later than {format_time(action_at)} yet"
        return Outcome().unknown(reason)
    last = after[-1].value
    run = list(takewhile(lambda sample: sample.value < limit, reversed(after)))
    if not run:
        return Outcome(value=last).breach(f"the last sample is {last:g}, not under {limit:g}")
    outcome = Outcome(value=last, since=run[-1].at)
    if len(run) < needed:
        return outcome.unknown(
            f"{len(run)} of {needed} samples in a row are under {limit:g} so far"
        )
    return outcome.ok(f"{len(run)} samples in a row are under {limit:g}")


def _list_after(
    lag: Iterable[Sample], refreshes: Sequence[Sample], action_at: datetime
) -> list[Sample]:
    """Return the samples of the lag that rest on a refresh later than the action."""
    # A refresh cannot be later than its scrape: what exceeds it is the exporter's clock ahead.
    aheads = [refresh.value - refresh.at.timestamp() for refresh in refreshes]
    ahead_s = max(0.0, max(aheads, default=0.0))
    after = []
    for sample in clean(lag):
        index = bisect_right(refreshes, sample.at, key=lambda refresh: refresh.at) - 1
        if index < 0:
            continue
        refreshed_at = refreshes[index].value - ahead_s
        if refreshed_at > action_at.timestamp():
            after.append(sample)
    return after


def compute_symptom_verdict(
    readings: Mapping[str, Reading],
    *,
    needed: Iterable[str],
    now: datetime,
    clear: ClearTime | None,
) -> VerdictResult:
    """Say whether there is an incident.

    Parameters
    ----------
    readings : by step, those of now; older ones than ``MAX_AGE`` are not
    needed : the steps without which nothing is proven
    clear : of a fix that was proven while the alert still fired, if the lag is below its threshold

    Returns
    -------
    ``incident``: one breach is enough, whatever else is unknown; but an alert that fires on after
    a proven fix is ``fixed_alert_decaying``, and past its deadline ``not_fixed``. Else ``unknown``,
    naming each needed step that could not be read, or was not lately; else ``healthy``.
    """
    symptoms = {step: r for step, r in readings.items() if r.role in SYMPTOMS}
    breaches = [reading for reading in symptoms.values() if reading.status is Status.BREACH]
    if clear and [reading.role for reading in breaches] == [Role.ALERT]:
        return judge_alert("firing", clear, now)
    if breaches:
        summary = "; ".join(r.reason or f"{r.name}: {r.value}" for r in breaches)
        return VerdictResult(Verdict.INCIDENT, f"{summary}{_say_as_of(breaches)}")
    good = {step: reading for step, reading in symptoms.items() if reading.status is Status.OK}
    as_of = _say_as_of(good.values())
    unread = find_unknown(needed, readings)
    if unread:
        missing = ", ".join(_say_unread(step, readings) for step in unread)
        return VerdictResult(Verdict.UNKNOWN, f"cannot tell: {missing}{as_of}")
    return VerdictResult(Verdict.HEALTHY, f"no sign of stuck labels in {', '.join(good)}{as_of}")


def _say_as_of(readings: Iterable[Reading]) -> str:
    """Say of when the oldest of some readings is; empty when there is none."""
    oldest = min((reading.observed_at for reading in readings), default=None)
    if oldest is None:
        return ""
    return f" (as of {oldest:%H:%M:%S} UTC)"


def _say_unread(step: str, readings: Mapping[str, Reading]) -> str:
    if step in readings:
        return f"{step} could not be read"
    return f"{step} was not read lately"


def compute_verdict(
    symptoms: Mapping[str, Status],
    causes: Mapping[str, CauseStatus],
    *,
    alert: VerdictResult,
    worker_moving: bool | None,
) -> VerdictResult:
    """Give the verdict after an action.

    Parameters
    ----------
    symptoms : status of each reading of lag, backlog and store, by step, without the alert; all
        are needed
    causes : status of each hypothesis, read anew after the action
    alert : the verdict by the alert alone, as ``judge_alert`` gives it
    worker_moving : whether the worker moved something after the action, which says that the
        cause is gone where no hypothesis can

    Returns
    -------
    ``not_fixed`` when a symptom is there, or the alert fires past its deadline · ``unknown`` when
    a symptom, the alert or every cause could not be read · ``mitigated`` when a cause is still
    supported · ``fixed_alert_decaying`` while the alert fires within its deadline · ``fixed``.
    """
    breached = [step for step, status in symptoms.items() if status is Status.BREACH]
    if breached:
        return VerdictResult(Verdict.NOT_FIXED, f"still there: {', '.join(breached)}")
    unread = [step for step, status in symptoms.items() if status is not Status.OK]
    if unread or not symptoms:
        missing = ", ".join(unread) or "no symptom was read"
        return VerdictResult(Verdict.UNKNOWN, f"nothing is proven: {missing}")
    if alert.verdict is Verdict.NOT_FIXED:
        return alert
    supported = [cause for cause, s in causes.items() if s is CauseStatus.SUPPORTED]
    if supported:
        reason = f"the symptom is gone, the cause is not: {', '.join(supported)}"
        return VerdictResult(Verdict.MITIGATED, reason)
    undecided = [cause for cause, s in causes.items() if s is CauseStatus.UNDECIDED]
    if (undecided or not causes) and not worker_moving:
        doubt = "no cause was looked at"
        if undecided:
            doubt = f"undecided: {', '.join(undecided)}"
        reason = f"the symptom is gone; whether the cause is, is not known ({doubt})"
        return VerdictResult(Verdict.UNKNOWN, reason)
    return alert


def judge_alert(alert_state: str | None, clear: ClearTime | None, now: datetime) -> VerdictResult:
    """Give the verdict where symptom and cause are gone, by the alert alone.

    Parameters
    ----------
    alert_state : ``firing``, ``pending`` or ``inactive``; None when it could not be read
    clear : when the alert will clear; None when it could not be predicted
    """
    gone = "symptom and cause are gone"
    still = f"the alert is still {alert_state}"
    if alert_state is None:
        return VerdictResult(Verdict.UNKNOWN, f"{gone}; the alert could not be read")
    if alert_state not in ("firing", "pending"):
        return VerdictResult(Verdict.FIXED, "symptom, cause and alert are gone")
    if clear is None:
        return VerdictResult(Verdict.UNKNOWN, f"{gone}; when the alert clears is not known")
    latest = format_time(clear.latest)
    channels = format_time(clear.channels_latest)
    if now > clear.deadline:
        return VerdictResult(Verdict.NOT_FIXED, f"{still}; it should have cleared by {latest}")
    reason = f"{still} and clears by {latest}; the channels say so by {channels}"
    return VerdictResult(Verdict.FIXED_ALERT_DECAYING, reason)
