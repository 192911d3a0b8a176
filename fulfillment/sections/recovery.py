"""Step 6.5: did lag and backlog come down, by samples that are newer than the action."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from statistics import median
from typing import Any, cast

from runbook_lib.fields import parse_duration
from runbook_lib.model import ClearTime, Outcome, Plot, Role, Status, format_time, parse_time
from runbook_lib.section import attempt, step

from ..analysis.clear_time import compute_clear_time
from ..analysis.samples import join
from ..analysis.verdict import compute_recovery
from ..clients.prometheus import AlertRule
from ..investigation import Investigation
from .backlog_listing import read_waiting
from .curves import draw
from .detection import ALERT, ALERTS, LAG, REFRESH, is_drill
from .root_cause.worker_metrics import BACKLOG

_INTERVAL = "fulfillment_exporter_refresh_interval_seconds"


@step(
    "6.5", "Lag under 5 in two samples after the action, backlog at its baseline",
    name="recovery", role=Role.RECOVERY, unit="min",
    source=f"$prometheus_url {LAG}; listing of $pending_prefix",
    threshold="not under $recovered_minutes min in $recovered_scrapes samples after the action, "
    "or backlog over its baseline",
)  # fmt: skip
def read_recovery(inv: Investigation) -> Outcome:
    """Watch the lag until enough samples after the action are low, or the time is over.

    A sample counts when the exporter's refresh behind it is later than the last action (or, with
    none, than the opening of the incident).
    """
    settings, prometheus = inv.settings, inv.clients.prometheus
    action_at = inv.journal.last_applied_at or parse_time(str(inv.incident.facts["opened_at"]))
    recovery = _watch(inv, action_at)
    waiting = read_waiting(inv)
    listed = len(waiting.real)
    baseline, baseline_text = _read_baseline(inv, action_at)
    drawn = join(prometheus.query_samples(LAG, inv.window.total_seconds()))
    seen = Outcome(
        value=recovery.value,
        threshold=f"not under {settings.recovered_minutes:g} min in "
        f"{settings.recovered_scrapes} samples after {format_time(action_at)}, "
        "or backlog over its baseline",
        plot=Plot(
            title="Lag of the oldest waiting object",
            unit="minutes",
            part="physics",
            threshold=settings.recovered_minutes,
            lines=(draw("lag", drawn),),
            marks=((action_at, "last action"),),
        ),
        clear=attempt(lambda: _predict(inv, recovery.since or action_at))[0],
    )
    said = f"{waiting.describe()}; {baseline_text}"
    is_over = listed > (baseline or 0) + max(5, (baseline or 0) / 5)
    if waiting.overdue:
        return seen.breach(f"{recovery.reason}; {said}")
    if recovery.status is Status.OK and is_over:
        return seen.unknown(f"{recovery.reason}; {listed} objects still wait; {said}")
    return seen.judge(recovery.status, f"{recovery.reason}; {said}")


def _watch(inv: Investigation, action_at: datetime) -> Outcome:
    prometheus, parameters = inv.clients.prometheus, cast(Any, inv.parameters)
    until = inv.now() + timedelta(seconds=parameters.wait_s)
    while True:
        window_s = max(60.0, (inv.now() - action_at).total_seconds() + 60)
        samples, refreshes = (
            join(prometheus.query_samples(metric, window_s)) for metric in (LAG, REFRESH)
        )
        limit, needed = inv.settings.recovered_minutes, inv.settings.recovered_scrapes
        recovery = compute_recovery(samples, refreshes, action_at, limit, needed)
        if recovery.status is Status.OK or inv.now() >= until:
            return recovery
        inv.sleep(1.0)


def _read_baseline(inv: Investigation, action_at: datetime) -> tuple[float | None, str]:
    """Return how many objects wait when all is well.

    In a drill the reading of its steady state; else the median of the hour before the incident
    began. That is when its cause began, or, where that is not known, its first label came to wait:
    before any label was late.
    """
    limit = timedelta(minutes=inv.settings.lag_threshold_minutes)
    if inv.incident.facts.get("drill_id"):
        injected = [e.seq for e in inv.journal.entries if e.data.get("event") == "inject"]
        steady = [
            reading.value
            for reading in inv.journal.readings
            if reading.role is Role.BACKLOG and reading.seq < min(injected, default=0)
        ]
        if steady and isinstance(value := steady[-1], int | float):
            return float(value), f"baseline {value:.0f} (steady state of the drill)"
    dated = [f.first_seen for f in inv.journal.causes() if f.first_seen]
    since = inv.journal.since() or action_at
    began = min([since, *(dated or [since - limit])])
    hour = (began - timedelta(hours=1), began)
    metric = f"sum({BACKLOG % inv.settings.pending_prefix})"
    query = inv.clients.prometheus.query_range
    found, _ = attempt(lambda: (query(metric, *hour, 30), query(LAG, *hour, 30)))
    waited, lag = map(join, found or ((), ()))
    late = [s.at for s in lag if s.at <= began and timedelta(minutes=s.value) > limit]
    # what follows an earlier incident within the hour counts, what holds it does not
    values = [s.value for s in waited if max(late, default=hour[0]) < s.at <= began]
    if not values:
        return None, "the baseline is unknown"
    return median(values), f"baseline {median(values):.0f} (median of the hour before)"


def _predict(inv: Investigation, fixed_at: datetime) -> ClearTime | None:
    """Predict when the firing alerts clear; None when an interval is not told."""
    prometheus = inv.clients.prometheus
    firing = {a.name for a in prometheus.list_alerts() if not is_drill(a.labels)}
    names = firing & set(ALERTS) or {ALERT}
    rules = [r for r in prometheus.list_rules() if r.name in names and not is_drill(r.labels)]
    refresh = prometheus.query(_INTERVAL)
    targets = [t for t in prometheus.list_targets() if t.job == "artifact-exporter"]
    if not rules or not refresh or not targets:
        return None
    return compute_clear_time(
        fixed_at=fixed_at,
        refresh_interval_s=refresh[0].samples[-1].value,
        scrape_interval_s=targets[0].scrape_interval_s,
        evaluation_interval_s=max(r.group_interval_s for r in rules),
        keep_firing_for_s=max(r.keep_firing_for_s + _find_memory_s(r) for r in rules),
        group_interval_s=inv.clients.alertmanager.read_group_timing()[1],
    )


def _find_memory_s(rule: AlertRule) -> float:
    """Return for how long a rule still sees what is over: the window of its ``increase``."""
    found = re.search(r"\bincrease\([^\[]*\[([0-9a-z]+)\]", rule.query)
    return parse_duration(found[1]) if found else 0.0
