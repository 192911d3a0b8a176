"""Whether the lag came down after an action, and since when all is well. Pure.

No sample is never a pass.
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
    lag : at each scrape; NaN means no sample
    refresh : at each scrape, the exporter's last refresh in seconds since the epoch; it
        belongs to the lag of the same scrape, or of the next ones until it is scraped again
    action_at : when the action ended
    limit : the lag must be under it
    needed : so many samples in a row, at least one

    Returns
    -------
    ``value`` is the last sample that rests on a refresh later than the action. ``since`` is the
    time of the first sample of the newest run under the limit.
    """
    after = _list_after(lag, clean(refresh), action_at)
    if not after:
        reason = f"no sample rests on a refresh later than {format_time(action_at)} yet"
        return Outcome().unknown(reason)
    last = after[-1].value
    run = list(takewhile(lambda sample: sample.value < limit, reversed(after)))
    if not run:
        over = last - limit
        text = f"the last sample is {last:.1f} min, {over:.1f} over the limit of {limit:g}"
        return Outcome(value=last).breach(text)
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
    # A refresh cannot be later than its scrape: if it is, the exporter's clock is ahead.
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


def find_well_since(well: Iterable[datetime], bad: Iterable[datetime]) -> datetime | None:
    """Return the time of the first look after the last trouble.

    Parameters
    ----------
    well, bad : times of looks, and times at which a signal was not well, in any order

    Returns
    -------
    Where no look is later, it is that last time itself; None when all was well throughout.
    """
    last_bad = max(bad, default=None)
    if last_bad is None:
        return None
    return min((at for at in well if at > last_bad), default=last_bad)
