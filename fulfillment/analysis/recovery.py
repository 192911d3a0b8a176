"""Whether the lag came down after an action. Pure.

Without a sample, nothing is judged to be well.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile

from runbook_lib.model import Outcome, format_time

from .samples import Sample, clean


def compute_recovery(
    lag: Iterable[Sample], refresh: Iterable[Sample], action_at: datetime, limit: float, needed: int
) -> Outcome:
    """Decide step 6.5 from the raw scrapes: did the lag come down after the action?

    A sample counts if it rests on a refresh later than the action. The newest ones, as many as are
    needed, must be under the limit; while there are too few of them, the outcome is ``unknown``.

    Parameters
    ----------
    lag : the lag in minutes at each scrape; NaN means no sample
    refresh : at each scrape, the exporter's last refresh in seconds since the epoch
    """
    refreshed_s = {sample.at: sample.value for sample in refresh}
    # A refresh comes before its scrape. If one seems to come later, the exporter's clock is ahead.
    ahead_s = max((s - at.timestamp() for at, s in refreshed_s.items()), default=0.0)
    begin_s = action_at.timestamp() + max(ahead_s, 0.0)
    samples_after = [each for each in clean(lag) if refreshed_s.get(each.at, 0.0) > begin_s]
    if not samples_after:
        reason = f"the lag has not been measured since {format_time(action_at)}"
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
