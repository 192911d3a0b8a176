"""When a firing alert will clear after the fix. Pure.

A change of the lag takes time to reach people: object store → exporter (its refresh interval) →
Prometheus (the scrape interval) → rule (the evaluation interval) → ``keep_firing_for`` →
Alertmanager, which tells its channels at the next ``group_interval``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from runbook_lib.model import ClearTime

#: The least margin of a deadline. The stages need some time for their work, beside their intervals.
_MIN_MARGIN_S = 5.0


def compute_clear_time(
    fixed_at: datetime, stages: Mapping[str, float], *, group_interval_s: float = 0.0
) -> ClearTime | None:
    """Predict when an alert clears, and when the channels hear of it.

    Parameters
    ----------
    fixed_at : when the last old object left, or another symptom ended
    stages : how long each stage may delay a change of the lag, in seconds: ``refresh_s`` of the
        exporter, ``scrape_s``, ``evaluation_s`` of the rule's group, and ``keep_firing_for_s``,
        with the window that the rule looks back
    group_interval_s : ``group_interval`` of the Alertmanager route, in seconds

    Returns
    -------
    None when an interval is negative or not finite. ``deadline`` is ``latest`` plus a margin for
    the work of the stages: one more scrape interval and evaluation interval, and at least five
    seconds.
    """
    if not all(0 <= value < math.inf for value in (*stages.values(), group_interval_s)):
        return None
    margin_s = max(_MIN_MARGIN_S, stages["scrape_s"] + stages["evaluation_s"])
    latest = fixed_at + timedelta(seconds=sum(stages.values()))
    deadline = latest + timedelta(seconds=margin_s)
    earliest = fixed_at + timedelta(seconds=stages["keep_firing_for_s"])
    channels_latest = deadline + timedelta(seconds=group_interval_s)
    return ClearTime(
        earliest=earliest,
        latest=latest,
        deadline=deadline,
        channels_latest=channels_latest,
        parts={**stages, "margin_s": margin_s},
    )
