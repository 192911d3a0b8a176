"""Step 6.5: did lag and backlog come down, by samples that are newer than the action."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from statistics import median

from ..analysis.clear_time import compute_clear_time
from ..analysis.verdict import Recovery, compute_recovery
from ..clients.fields import parse_duration
from ..clients.prometheus import AlertRule
from ..errors import ClientError
from ..investigation import Investigation
from ..model import ClearTime, Line, Plot, Reading, Status, format_time, parse_time
from .alerting import ALERT, ALERTS, LAG, is_drill
from .backlog import say_waiting
from .samples import one_series, to_points
from .waiting import read_waiting

__all__ = ["read_recovery"]

_REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
_INTERVAL = "fulfillment_exporter_refresh_interval_seconds"
_BACKLOG = 'sum(fulfillment_artifacts_backlog_objects{origin="real",prefix="%s"})'

sleep = time.sleep


def read_recovery(inv: Investigation) -> Reading:
    """Watch the lag until enough samples after the action are low, or the time is over.

    A sample counts when the exporter's refresh behind it is later than the last action (or, with
    none, than the opening of the incident).
    """
    settings = inv.settings
    action_at = inv.journal.last_applied_at or parse_time(str(inv.incident.facts["opened_at"]))
    recovery = _watch(inv, action_at)
    waiting = read_waiting(inv)
    listed = len(waiting.of("real"))
    baseline, baseline_text = _read_baseline(inv, action_at)
    overdue = waiting.overdue("real", settings.lag_threshold_minutes)
    status, reason = recovery.status, recovery.reason
    if overdue:
        status = Status.BREACH
    elif status is Status.OK and baseline is not None and listed > baseline + max(5, baseline / 5):
        status = Status.UNKNOWN
        reason += f"; {listed} objects still wait, the baseline is {baseline:.0f}"
    clear = _predict(inv, recovery.first_good_at or action_at)
    return inv.make_reading(
        "6.5",
        "recovery",
        status,
        value=recovery.last_value,
        unit="min",
        threshold=f"not under {settings.recovered_minutes:g} min in {settings.recovered_scrapes} "
        f"samples after {format_time(action_at)}, or backlog over its baseline",
        source=f"{inv.clients.prometheus.url} {LAG}; listing of {settings.pending_prefix}",
        reason=f"{reason}; {say_waiting(waiting, settings.lag_threshold_minutes)}; {baseline_text}",
        plot=Plot(
            kind="lag",
            threshold=settings.recovered_minutes,
            lines=(Line(name="lag", points=_read_points(inv)),),
            marks=((action_at, "last action"),),
        ),
        clear=clear,
    )


def _watch(inv: Investigation, action_at: datetime) -> Recovery:
    wait_s = float(getattr(inv.parameters, "wait_s", 0))
    until = inv.now() + timedelta(seconds=wait_s)
    recovery = _compute(inv, action_at)
    while recovery.status is not Status.OK and inv.now() < until:
        sleep(1.0)
        recovery = _compute(inv, action_at)
    return recovery


def _compute(inv: Investigation, action_at: datetime) -> Recovery:
    prometheus = inv.clients.prometheus
    window_s = max(60.0, (inv.now() - action_at).total_seconds() + 60)
    samples = one_series(prometheus.query_samples(LAG, window_s))
    refreshes = one_series(prometheus.query_samples(_REFRESH, window_s))
    return compute_recovery(
        [(s.at, s.value) for s in samples],
        [(s.at, s.value) for s in refreshes],
        action_at,
        inv.settings.recovered_minutes,
        inv.settings.recovered_scrapes,
    )


def _read_points(inv: Investigation) -> tuple[tuple[datetime, float], ...]:
    found = inv.clients.prometheus.query_samples(LAG, inv.window.total_seconds())
    return to_points(one_series(found))


def _read_baseline(inv: Investigation, action_at: datetime) -> tuple[float | None, str]:
    """Return how many objects wait when all is well.

    In a drill the reading of its steady state, else the median of the hour before the trouble.
    """
    if inv.incident.facts.get("drill_id"):
        for _, reading in inv.journal.readings:
            if reading.step == "2.3" and isinstance(value := reading.value, int | float):
                return float(value), f"baseline {value:.0f} (steady state of the drill)"
    began = inv.journal.since() or action_at
    try:
        found = inv.clients.prometheus.query_range(
            _BACKLOG % inv.settings.pending_prefix, began - timedelta(hours=1), began, 30
        )
    except ClientError:
        found = []
    values = [s.value for s in one_series(found)]
    if not values:
        return None, "the baseline is unknown"
    return median(values), f"baseline {median(values):.0f} (median of the hour before)"


def _predict(inv: Investigation, fixed_at: datetime) -> ClearTime | None:
    """Predict when the firing alerts clear; None when an interval cannot be read."""
    prometheus = inv.clients.prometheus
    try:
        firing = {a.name for a in prometheus.list_alerts() if not is_drill(a.labels)}
        names = firing & set(ALERTS) or {ALERT}
        rules = [r for r in prometheus.list_rules() if r.name in names and not is_drill(r.labels)]
        refresh = prometheus.query(_INTERVAL)[0].samples[-1].value
        target = next(t for t in prometheus.list_targets() if t.job == "artifact-exporter")
        _, group_interval_s, _ = inv.clients.alertmanager.read_group_timing()
        return compute_clear_time(
            fixed_at=fixed_at,
            refresh_interval_s=refresh,
            scrape_interval_s=target.scrape_interval_s,
            evaluation_interval_s=max(r.group_interval_s for r in rules),
            keep_firing_for_s=max(r.keep_firing_for_s + _find_memory_s(r) for r in rules),
            group_interval_s=group_interval_s,
        )
    except (ClientError, StopIteration, IndexError, ValueError):
        return None


def _find_memory_s(rule: AlertRule) -> float:
    """Return for how long a rule still sees what is over: the window of its ``increase``."""
    found = re.search(r"\bincrease\([^\[]*\[([0-9a-z]+)\]", rule.query)
    return parse_duration(found[1]) if found else 0.0
