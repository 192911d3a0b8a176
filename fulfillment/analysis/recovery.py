"""Whether the lag came down after an action. Pure.

Without a sample, nothing is judged to be well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile

from runbook_lib.model import Outcome, format_time

from .samples import Sample, clean


def compute_recovery(
    lag: Iterable[Sample], refresh: Iterable[Sample], action_at: datetime, limit: float, needed: int
) -> Outcome:
    """Decide step 6.5 from the raw scrapes: did the lag come down after the action?

    Parameters
    ----------
    lag : the lag in minutes at each scrape; NaN means no sample
    refresh : at each scrape, the exporter's last refresh in seconds since the epoch. A
        value belongs to the lag of the same scrape, and of later scrapes up to the next value
    action_at : when the action ended
    limit : in minutes; the lag must be under it
    needed : how many samples in a row must be under the limit; at least one

    Returns
    -------
    A breach when the newest sample is not under the limit; ``unknown`` when there are too few
    samples. ``value`` is the newest sample that rests on a refresh later than the action.
    ``since`` is the time from which all samples are under the limit.
    """
    samples_after = _list_after(lag, clean(refresh), action_at)
    if not samples_after:
        reason = f"the lag was not measured after {format_time(action_at)} yet"
        return Outcome().unknown(reason)
    newest = samples_after[-1].value
    low_run = list(takewhile(lambda sample: sample.value < limit, reversed(samples_after)))
    if not low_run:
        return Outcome(value=newest).breach(f"the lag is {newest:.1f} min, not under {limit:g}")
    outcome = Outcome(value=newest, since=low_run[-1].at)
    reason = f"samples under {limit:g} min: {len(low_run)}, needed: {needed}"
    if len(low_run) < needed:
        return outcome.unknown(reason)
    return outcome.ok(reason)


def _list_after(
    lag: Iterable[Sample], refreshes: Sequence[Sample], action_at: datetime
) -> list[Sample]:
    """Return the samples of the lag that rest on a refresh later than the action."""
    # A refresh comes before its scrape. If it seems to come later, the exporter's clock is ahead by
    # the difference.
    leads_s = [refresh.value - refresh.at.timestamp() for refresh in refreshes]
    clock_lead_s = max(0.0, max(leads_s, default=0.0))
    samples_after = []
    for sample in clean(lag):
        index = bisect_right(refreshes, sample.at, key=lambda refresh: refresh.at) - 1
        if index < 0:
            continue
        refreshed_at = refreshes[index].value - clock_lead_s
        if refreshed_at > action_at.timestamp():
            samples_after.append(sample)
    return samples_after
