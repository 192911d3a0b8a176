"""Whether the lag came down after an action, and since when all is well. Pure.

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
        over = newest - limit
        text = f"the last sample is {newest:.1f} min, {over:.1f} over the limit of {limit:g}"
        return Outcome(value=newest).breach(text)
    outcome = Outcome(value=newest, since=low_run[-1].at)
    if len(low_run) < needed:
        return outcome.unknown(
            f"{len(low_run)} of {needed} samples in a row are under {limit:g} so far"
        )
    return outcome.ok(f"{len(low_run)} samples in a row are under {limit:g}")


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


def find_well_since(looks: Iterable[datetime], troubles: Iterable[datetime]) -> datetime | None:
    """Return the time of the first look after the last trouble.

    Parameters
    ----------
    looks : the times at which somebody looked, in any order
    troubles : the times at which something was wrong, in any order

    Returns
    -------
    None without trouble. If nobody looked after the last trouble, the time of that trouble.
    """
    last_trouble = max(troubles, default=None)
    if last_trouble is None:
        return None
    return min((at for at in looks if at > last_trouble), default=last_trouble)
