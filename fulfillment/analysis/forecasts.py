"""When the backlog is empty, and when a firing alert will clear after the fix. Pure.

Counts are treated as Poisson counts. So a few labels in a short window give wide bounds. A change
of the lag takes time to reach people: object store → exporter (its refresh interval) → Prometheus
(the scrape interval) → rule (the evaluation interval) → ``keep_firing_for`` → Alertmanager, which
tells its channels at the next ``group_interval``.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from runbook_lib.model import ClearTime

from .samples import Rate


class BacklogForecast(NamedTuple):
    """What becomes of the backlog at the present rates.

    Attributes
    ----------
    outlook : ``empty``: none waits now, and the rates do not show that labels arrive faster than
        they leave. ``draining``: labels leave faster than they arrive. ``never``: labels arrive as
        fast as they leave, or faster. ``unknown``: a number is missing
    reason : the outlook in words
    minutes_to_empty : in how many minutes none waits any more; its 95 % bounds are ``low_minutes``
        and ``high_minutes``. All three are None unless draining. While draining, ``high_minutes``
        is None when the bounds of the rates allow that the queue never gets empty
    """

    outlook: Literal["empty", "draining", "never", "unknown"]
    reason: str
    minutes_to_empty: float | None = None
    low_minutes: float | None = None
    high_minutes: float | None = None


def forecast_backlog(
    objects: float | None, arrival: Rate | None, drain: Rate | None
) -> BacklogForecast:
    """Compute when the backlog will be empty.

    Parameters
    ----------
    objects : how many wait now; None when it could not be read
    arrival, drain : how fast objects come and leave; None when it could not be read
    """
    if objects is None or not math.isfinite(objects):
        return BacklogForecast("unknown", "how many objects wait is not known")
    may_stay_empty = arrival is None or drain is None or arrival.low <= drain.high
    # These words are used only if at least one of the two rates is None.
    missing = "arrive" if arrival is None else "leave"
    unknown = f"at what steady rate objects {missing} is not known"
    if objects <= 0 and may_stay_empty:
        reason = "nothing waits"
        if arrival is None or drain is None:
            reason += f"; {unknown}"
        elif arrival.per_minute > drain.per_minute:
            reason += f"; {arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
            reason += ", and so few were counted that the difference may be chance"
        return BacklogForecast("empty", reason)
    if arrival is None or drain is None:
        return BacklogForecast("unknown", unknown)
    net = drain.per_minute - arrival.per_minute
    rates = f"{arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
    if net <= 0:
        course = "so the queue stays as long as it is"
        if net:
            course = f"so the queue grows by {-net:.1f} a minute"
        return BacklogForecast("never", f"{rates}, {course}")
    # The bounds of two independent counts combine as the root of the sum of squares.
    slower_by = math.hypot(drain.per_minute - drain.low, arrival.high - arrival.per_minute)
    faster_by = math.hypot(drain.high - drain.per_minute, arrival.per_minute - arrival.low)
    high_minutes = objects / (net - slower_by) if net > slower_by else None
    reason = f"{net:.1f} more leave than arrive per minute"
    if high_minutes is None:
        reason += "; so few were counted that the queue may never be empty"
    return BacklogForecast(
        "draining",
        reason,
        minutes_to_empty=objects / net,
        low_minutes=objects / (net + faster_by),
        high_minutes=high_minutes,
    )


#: The least margin of a deadline. The stages need some time for their work, beside their intervals.
_MIN_MARGIN_S = 5.0


class Stages(NamedTuple):
    """How long each stage may delay a change of the lag on its way to the alert, in seconds.

    Attributes
    ----------
    refresh_s : the exporter's refresh interval
    scrape_s : Prometheus' scrape interval for the exporter
    evaluation_s : the evaluation interval of the rule's group
    keep_firing_for_s : the rule's ``keep_firing_for`` plus the window that the rule looks back
    """

    refresh_s: float
    scrape_s: float
    evaluation_s: float
    keep_firing_for_s: float = 0.0


def compute_clear_time(
    fixed_at: datetime, stages: Stages, *, group_interval_s: float = 0.0
) -> ClearTime | None:
    """Predict when an alert clears, and when the channels hear of it.

    Parameters
    ----------
    fixed_at : when the last old object left, or another symptom ended
    group_interval_s : ``group_interval`` of the Alertmanager route, in seconds

    Returns
    -------
    None when an interval is negative or not finite. ``deadline`` is ``latest`` plus a margin for
    the work of the stages: one more scrape interval and evaluation interval, and at least five
    seconds.
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
