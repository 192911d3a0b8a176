"""When the backlog is empty, and when a firing alert will clear after the fix. Pure.

Counts are taken as Poisson: over a short window few labels say little, and the bounds say so. The
lag travels: object store → exporter (its refresh interval) → Prometheus (the scrape interval) →
rule (the evaluation interval) → ``keep_firing_for`` → Alertmanager, which tells its channels at the
next ``group_interval``.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from runbook_lib.model import ClearTime

from .samples import Rate


class Drain(NamedTuple):
    """Where the backlog goes.

    Attributes
    ----------
    outlook : ``never``: labels arrive as fast as they leave, or faster; where none waits now,
        surely faster
    minutes_to_empty : with bounds ``low_minutes`` and ``high_minutes``; all None unless draining,
        and ``high_minutes`` None when the queue may never be empty, within the bounds
    """

    outlook: Literal["empty", "draining", "never", "unknown"]
    reason: str
    minutes_to_empty: float | None = None
    low_minutes: float | None = None
    high_minutes: float | None = None


def compute_drain(objects: float | None, arrival: Rate | None, drain: Rate | None) -> Drain:
    """Compute when the backlog will be empty.

    Parameters
    ----------
    objects : how many wait now
    arrival, drain : how fast objects come and leave; None when it could not be read
    """
    if objects is None or not math.isfinite(objects):
        return Drain("unknown", "how many objects wait is not known")
    if objects <= 0 and (arrival is None or drain is None or arrival.low <= drain.high):
        return Drain("empty", "nothing waits")
    if arrival is None or drain is None:
        missing = "arrive" if arrival is None else "leave"
        return Drain("unknown", f"how fast objects {missing} is not known")
    net = drain.per_minute - arrival.per_minute
    rates = f"{arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
    if net <= 0:
        course = "so it stays as long as it is"
        if net:
            course = f"so it grows by {-net:.1f} a minute"
        return Drain("never", f"{rates}, {course}")
    # The bounds of two independent counts combine as the root of the sum of squares.
    slower = math.hypot(drain.per_minute - drain.low, arrival.high - arrival.per_minute)
    faster = math.hypot(drain.high - drain.per_minute, arrival.per_minute - arrival.low)
    high = objects / (net - slower) if net > slower else None
    reason = f"{net:.1f} more leave than arrive per minute"
    if not high:
        reason += "; so few were counted that it may never be empty"
    return Drain(
        "draining",
        reason,
        minutes_to_empty=objects / net,
        low_minutes=objects / (net + faster),
        high_minutes=high,
    )


_MIN_MARGIN_S = 5.0


class Stages(NamedTuple):
    """How long each stage may take on a sample's way to the alert.

    Attributes
    ----------
    refresh_s : of the exporter
    scrape_s : of its target
    evaluation_s : of the rule's group
    keep_firing_for_s : of the rule, with the window that it looks back
    """

    refresh_s: float
    scrape_s: float
    evaluation_s: float
    keep_firing_for_s: float = 0.0


def compute_clear_time(
    fixed_at: datetime, stages: Stages, *, group_interval_s: float = 0.0
) -> ClearTime | None:
    """Predict when an alert clears, given when its cause was gone.

    Parameters
    ----------
    fixed_at : when the last old object left, or another symptom ended
    group_interval_s : of the Alertmanager route

    Returns
    -------
    None when an interval is negative or not a number. The margin, for what each stage itself takes,
    is one more scrape and evaluation, and at least five seconds.
    """
    if not all(0 <= value < math.inf for value in (*stages, group_interval_s)):
        return None
    margin_s = max(_MIN_MARGIN_S, stages.scrape_s + stages.evaluation_s)
    latest = fixed_at + timedelta(seconds=sum(stages))
    deadline = latest + timedelta(seconds=margin_s)
    earliest = fixed_at + timedelta(seconds=stages.keep_firing_for_s)
    channels_latest = deadline + timedelta(seconds=group_interval_s)
    return ClearTime(
        earliest=earliest,
        latest=latest,
        deadline=deadline,
        channels_latest=channels_latest,
        parts={**stages._asdict(), "margin_s": margin_s},
    )
