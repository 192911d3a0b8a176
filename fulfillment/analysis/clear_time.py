"""When a firing alert will clear after the fix, and when the channels will say so.

The value travels: object store → exporter (its refresh interval) → Prometheus (the scrape
interval) → rule (the evaluation interval) → ``keep_firing_for`` → Alertmanager, which tells its
channels at the next ``group_interval``.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from runbook_lib.model import ClearTime

_MIN_MARGIN_S = 5.0


def compute_clear_time(
    *,
    fixed_at: datetime,
    refresh_interval_s: float,
    scrape_interval_s: float,
    evaluation_interval_s: float,
    keep_firing_for_s: float = 0.0,
    group_interval_s: float = 0.0,
) -> ClearTime | None:
    """Predict when an alert clears whose cause was gone at a time.

    Parameters
    ----------
    fixed_at : when the last old object left, or another symptom ended
    refresh_interval_s, scrape_interval_s, evaluation_interval_s, keep_firing_for_s : of the
        exporter, of its target, of the rule's group, of the rule
    group_interval_s : of the Alertmanager route

    Returns
    -------
    None when an interval is negative or no number. The margin, for what each stage itself takes,
    is one more scrape and evaluation, and at least five seconds.
    """
    parts = {
        "refresh_s": refresh_interval_s,
        "scrape_s": scrape_interval_s,
        "evaluation_s": evaluation_interval_s,
        "keep_firing_for_s": keep_firing_for_s,
    }
    margin_s = max(_MIN_MARGIN_S, scrape_interval_s + evaluation_interval_s)
    if not all(0 <= value < math.inf for value in (*parts.values(), group_interval_s)):
        return None
    latest = fixed_at + timedelta(seconds=sum(parts.values()))
    deadline = latest + timedelta(seconds=margin_s)
    return ClearTime(
        earliest=fixed_at + timedelta(seconds=keep_firing_for_s),
        latest=latest,
        deadline=deadline,
        channels_latest=deadline + timedelta(seconds=group_interval_s),
        parts={**parts, "margin_s": margin_s},
    )
