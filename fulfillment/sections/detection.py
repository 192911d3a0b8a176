"""Section 2: is there an incident? Alert, panel, backlog, ticket, probe. Only reads.

The section lists the bucket, too, so that wrong or missing metrics do not hide an incident.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Literal, NamedTuple

from runbook_lib.errors import NotConfiguredError
from runbook_lib.frames import FLAG, NUMBER, TEXT, TIME, Dtype
from runbook_lib.model import (
    ActionPhase,
    AlertState,
    Conclusion,
    Episode,
    Json,
    Outcome,
    Plot,
    Role,
)
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step
from runbook_lib.show.text import count_of, format_bytes

from ..analysis.causes import Cause
from ..analysis.samples import Sample, compute_interval_s
from ..clients.http_systems import Alert, AlertRule, Case
from ..clients.services import try_time
from ..investigation import Investigation
from ..outcome import Uploads
from ..unserved import Unserved, read_unserved
from ..waiting import (
    WAITING_COLUMNS,
    Label,
    Waiting,
    list_prefixes,
    recall_waiting,
    say_age_source,
)
from .recovery import (
    compare_backlog,
    find_judged_from,
    has_exporter,
    is_low,
    judge_lag,
    judge_listings,
    may_compare,
    read_uploads,
    read_well_since,
)
from .signals import (
    ALERT,
    ALERTS,
    BLIND_ALERT,
    DASHBOARD_UID,
    LAG,
    PANEL_TITLE,
    PROBE_MAX_AGE,
    REFRESH,
    draw_line,
    draw_listing,
    draw_samples,
    find_alert_states,
    is_drill,
    read_panel,
    read_samples,
)
from .symptoms import conclude_symptoms

NAME = "02_signals_detection"
TITLE = "Signals and detection"
Parameters = SectionParameters

#: The prefixes that a listing reads, in the words of a step's source.
LISTING = "listing of $fulfillment_bucket/{$pending_prefix,$chaos_prefix} at $minio_endpoint"
_ANY_ALERT = " or ".join(ALERTS)
#: How long an order may have no label before it counts as unserved, for each answer of 2.1 on
#: uploads. For other answers no order counts.
_PATIENCE: Mapping[str, timedelta] = {
    Uploads.FAILING: timedelta(seconds=5),
    Uploads.NONE: timedelta(seconds=60),
}
#: An exporter that refreshed longer ago than this is late. Where scrapes are rare, ``_read_lag``
#: allows more.
_LATE_REFRESH_S = 60.0
_MAX_ROWS = 200


@step(
    "2.1",
    "Alert FulfillmentDelay, or lag over the threshold",
    name="lag",
    role=Role.ALERT,
    source=f"$prometheus_url {LAG}; /api/v1/alerts",
    unit="min",
    needed=True,
    threshold=f"over $lag_threshold_minutes min for $lag_for_minutes min, or {_ANY_ALERT} fires",
)
def read_alert(inv: Investigation) -> Outcome:
    """Read alerts, rule and raw lag samples from Prometheus.

    A breach: one of ``ALERTS`` fires without ``drill="true"``, or every raw sample of the lag was
    over the threshold for the rule's own ``for`` (``LAG_FOR_MINUTES`` where the rule is not
    loaded). Without a firing alert, the step is unknown if the lag has no fresh sample, or the
    exporter stopped refreshing. Where there is no exporter, a listing of the bucket says what the
    lag is.
    """
    limit = inv.settings.lag_threshold_minutes
    alerts = inv.clients.prometheus.list_alerts()
    for_s = _find_for_s(inv, inv.clients.prometheus.list_rules())
    lag = _read_lag(inv, for_s)
    over_since = lag.find_over_since(limit)
    real, firing, firing_drills = _sort_alerts(alerts)
    alert_starts = [alert.active_at for alert in firing if alert.active_at]
    beginnings = list(alert_starts)
    if over_since is not None:
        beginnings.append(over_since)
    since = min(beginnings, default=None)
    outcome = Outcome(
        value=None if lag.value is None else round(lag.value, 2),
        since=since,
        threshold=f"over {limit:g} min for {for_s:g} s, or {_ANY_ALERT} fires",
        plot=Plot(
            title="Lag of the oldest waiting object",
            unit="minutes",
            threshold=limit,
            lines=(draw_line("lag", lag.samples),),
            windows=tuple((start, None) for start in alert_starts),
        ),
        rows=_list_alert_rows(alerts),
        observations={
            "alert_state": _find_worst_state(real),
            "drill_alert_firing": bool(firing_drills),
            "lag_present": None if lag.is_listed else lag.value is not None,
            "exporter_refresh_age_s": lag.refresh_age_s,
        },
        alerts=find_alert_states(alerts),
    )
    _add_recovery(inv, outcome, lag)
    remark = ""
    if lag.is_listed:
        outcome.longest_minutes = lag.value
        bucket = f"{inv.settings.fulfillment_bucket}/{inv.settings.pending_prefix}"
        outcome.source = f"listing of {bucket}; {inv.settings.prometheus_url}/api/v1/alerts"
        remark = "; by listing the bucket: no exporter measures the lag here"
    if firing:
        outcome.episode = _find_episode(inv, firing, lag.fresh)
        return outcome.breach(f"{_say_firing(firing, alert_starts, over_since, lag.value)}{remark}")
    alert_words = "no alert fires"
    if firing_drills:
        alert_words = f"only {_join_names(firing_drills)} (drill) fires, for synthetic objects"
    if lag.value is None:
        blind_fires = any(a.name == BLIND_ALERT and a.state == "firing" for a in alerts)
        blind_remark = f"; {BLIND_ALERT} fires" if blind_fires else ""
        drill_remark = f"; {alert_words}" if firing_drills else ""
        return outcome.unknown(f"{_explain_blind(lag)}{blind_remark}{drill_remark}{remark}")
    if firing_drills:
        outcome.value = f"{lag.value:.1f} (drill alert only)"
    if over_since is None:
        return outcome.ok(f"below the threshold, and {alert_words}{remark}")
    over_s = (lag.fresh[-1].at - over_since).total_seconds()
    text = f"over {limit:g} min for {over_s:.0f} s"
    if over_s < for_s:
        return outcome.ok(f"{text}, not yet {for_s:.0f} s{remark}")
    return outcome.breach(f"{text} (limit {for_s:.0f} s), but {alert_words}{remark}")


class _SortedAlerts(NamedTuple):
    """The alerts of this runbook.

    Attributes
    ----------
    real : those that are not about a drill; pending or firing
    firing : those of ``real`` that fire
    firing_drills : those that are about a drill, and fire
    """

    real: list[Alert]
    firing: list[Alert]
    firing_drills: list[Alert]


def _sort_alerts(alerts: Iterable[Alert]) -> _SortedAlerts:
    """Keep the alerts of this runbook, and tell those about a drill from the others."""
    real = []
    firing_drills = []
    for alert in alerts:
        if alert.name not in ALERTS:
            continue
        if not is_drill(alert.labels):
            real.append(alert)
        elif alert.state == "firing":
            firing_drills.append(alert)
    firing = [alert for alert in real if alert.state == "firing"]
    return _SortedAlerts(real, firing, firing_drills)


def _say_firing(
    firing: Sequence[Alert],
    starts: Sequence[datetime],
    over_since: datetime | None,
    lag_minutes: float | None,
) -> str:
    """Say which alerts fire, and since when their condition has been true.

    Parameters
    ----------
    starts : since when the condition of each alert has been true; the alert fires some time later
    over_since : since when the lag has been over the threshold; None when the lag is under it, or
        not known
    """
    names = _join_names(firing)
    words = f"{names} fire" if "," in names else f"{names} fires"
    if over_since is not None:
        # An alert on something else does not say since when the lag is over its threshold.
        own_starts = [alert.active_at for alert in firing if alert.name == ALERT]
        since = min([over_since, *filter(None, own_starts)])
        return f"{words}; the lag has been over the threshold since {since:%H:%M:%S} UTC"
    if starts:
        words += f"; the condition has held since {min(starts):%H:%M:%S} UTC"
    if lag_minutes is None:
        return f"{words}; the lag is not known"
    return f"{words}; the lag itself is {lag_minutes:.1f} min, under the threshold"


def _find_for_s(inv: Investigation, rules: Sequence[AlertRule]) -> float:
    """Return the ``for`` of the lag's rule in seconds; LAG_FOR_MINUTES if that rule is absent."""
    for rule in rules:
        if rule.name == ALERT and not is_drill(rule.labels):
            return rule.for_s
    return inv.settings.lag_for_minutes * 60


def _find_worst_state(alerts: Sequence[Alert]) -> str:
    """Return ``firing`` if an alert fires, else ``pending``. Without alerts it is ``inactive``."""
    if any(alert.state == "firing" for alert in alerts):
        return "firing"
    return "pending" if alerts else "inactive"


def _add_recovery(inv: Investigation, outcome: Outcome, lag: _Lag) -> None:
    """Add to the outcome of 2.1 what a verdict needs: is the lag low, do labels get into the store?

    If all is well again, also add since when.
    """
    limit = inv.settings.lag_threshold_minutes
    is_low_now = None
    low_since = None
    if lag.value is not None:
        judged_from = find_judged_from(inv)
        if lag.is_listed:
            recovery = judge_listings(inv, lag.fresh, judged_from)
        else:
            recovery = judge_lag(inv, judged_from)
        is_low_now = is_low(recovery)
        low_since = recovery.since
        outcome.observations["lag_is_over"] = lag.value > limit
    outcome.observations["lag_is_low"] = is_low_now
    uploads = read_uploads(inv)
    outcome.observations["uploads"] = uploads
    is_quiet = set(outcome.alerts.values()) == {AlertState.RESOLVED}
    labels_get_in = uploads not in (Uploads.FAILING, Uploads.NONE)
    if is_low_now and is_quiet and labels_get_in:
        well_since, _ = attempt(lambda: read_well_since(inv, lag=lag.fresh))
        # Without trouble in the window, all is well since the first low sample.
        outcome.well_since = well_since or low_since


class _Lag(NamedTuple):
    """The lag by Prometheus, or by a listing of the bucket where there is no exporter.

    Attributes
    ----------
    samples : of the window, oldest first
    fresh : the same samples if the newest one says something about now; else empty
    refresh_age_s : the age of the exporter's last refresh; None when unknown
    is_listed : there is no exporter, and the sample is from a listing of the bucket
    list_error : why the listing of the bucket failed; empty when it succeeded, or was not needed
    """

    samples: list[Sample]
    fresh: list[Sample]
    refresh_age_s: float | None
    is_listed: bool = False
    list_error: str = ""

    @property
    def value(self) -> float | None:
        """The lag now, in minutes; None when it is not known."""
        return self.fresh[-1].value if self.fresh else None

    def find_over_since(self, limit: float) -> datetime | None:
        """Return since when the lag is over a limit in minutes; None if it is not, or not known."""
        over = list(takewhile(lambda sample: sample.value > limit, reversed(self.fresh)))
        if not over:
            return None
        oldest = over[-1]
        if not self.is_listed:
            return oldest.at
        # A listing has no earlier samples, but the wait tells when it reached the limit.
        return oldest.at - timedelta(minutes=oldest.value - limit)


def _read_lag(inv: Investigation, for_s: float) -> _Lag:
    """Read the lag from Prometheus, or list the bucket where there is no exporter.

    Parameters
    ----------
    for_s : the alert rule's ``for``; the window is twice as long at least
    """
    now = inv.now()
    window_s = max(for_s * 2, inv.window.total_seconds())
    samples = read_samples(inv, LAG, window_s)
    refreshes = read_samples(inv, REFRESH, 300)
    interval_s = compute_interval_s(samples[-20:])
    # A failed scrape says nothing about the exporter, so three may be missing.
    patience_s = max(30.0, 4 * interval_s)
    age_s = math.inf
    if samples:
        age = now - samples[-1].at
        age_s = age.total_seconds()
    refresh_age_s = None
    if refreshes:
        refresh_age_s = now.timestamp() - refreshes[-1].value
    # A series that vanished is stale at once in Prometheus, but its old samples stay readable.
    is_present = bool(inv.clients.prometheus.query(LAG))
    # An exporter that does not tell when it refreshed counts as refreshed.
    is_refreshed = (refresh_age_s or 0) <= max(_LATE_REFRESH_S, patience_s)
    is_fresh = is_present and is_refreshed and age_s <= patience_s
    if not samples and not has_exporter(inv):
        # There is nothing that could measure the lag: list the bucket instead.
        return _list_lag(inv)
    return _Lag(samples, samples if is_fresh else [], refresh_age_s)


def _list_lag(inv: Investigation) -> _Lag:
    """Return how long the oldest label waits, by a listing of the bucket."""
    waiting, error = attempt(lambda: recall_waiting(inv))
    if waiting is None:
        return _Lag([], [], None, list_error=error)
    listed = [Sample(inv.now(), waiting.longest_minutes)]
    return _Lag(listed, listed, None, is_listed=True)


def _find_episode(inv: Investigation, firing: list[Alert], fresh: list[Sample]) -> Episode | None:
    """Return the episode of the firing alert whose condition has been true longest.

    The episode begins when that condition became true. If the lag was over the threshold before,
    and no calm of LAG_FOR_MINUTES lies between, the episode begins then. None when Prometheus does
    not say since when an alert is active.

    Parameters
    ----------
    fresh : samples of the lag, oldest first; empty when they are too old
    """
    limit = inv.settings.lag_threshold_minutes
    least_calm = inv.read_calm(inv.settings)
    dated = [(alert.active_at, alert) for alert in firing if alert.active_at]
    if not dated:
        return None
    start, alert = min(dated, key=lambda pair: pair[0])
    # Go back from the newest sample. Two samples in a row over the threshold move the start back; a
    # single one does not. The search ends at a calm of LAG_FOR_MINUTES before the start.
    calm_until = None
    for newer, sample in pairwise(reversed(fresh)):
        if min(newer.value, sample.value) > limit:
            start = min(start, sample.at)
            calm_until = None
        elif sample.at < start:
            calm_until = calm_until or sample.at
            if calm_until - sample.at >= least_calm:
                break
    labels = {name: text for name, text in alert.labels.items() if name != "alertname"}
    return Episode(key=f"{alert.name}{{{_say_labels(labels, ', ')}}}", start=start)


def _explain_blind(lag: _Lag) -> str:
    """Say why the lag is not known now."""
    if lag.list_error:
        return f"no exporter measures the lag here, and the bucket was not listed: {lag.list_error}"
    if not lag.samples:
        return f"there is no series {LAG}: the exporter is down or cannot list the bucket"
    newest = lag.samples[-1]
    last_value = f"the last value was {newest.value:.1f} min at {newest.at:%H:%M:%S} UTC"
    if lag.refresh_age_s and lag.refresh_age_s > _LATE_REFRESH_S:
        return f"the exporter last refreshed {lag.refresh_age_s:.0f} s ago; {last_value}"
    return f"the series of the lag ended; {last_value}"


def _join_names(alerts: Sequence[Alert]) -> str:
    return ", ".join(sorted({alert.name for alert in alerts}))


def _list_alert_rows(alerts: Sequence[Alert]) -> list[dict[str, Json]]:
    shown = [alert for alert in alerts if alert.name.startswith("Fulfillment")]
    return [
        {
            "alert": alert.name,
            "state": alert.state,
            "active_at": alert.active_at,
            "severity": alert.labels.get("severity"),
            "drill": is_drill(alert.labels),
            "value": round(alert.value, 2) if math.isfinite(alert.value) else None,
        }
        for alert in shown[:_MAX_ROWS]
    ]


def _say_labels(labels: Mapping[str, str], separator: str = " ") -> str:
    return separator.join(f"{name}={text}" for name, text in sorted(labels.items()))


@step(
    "2.2",
    "Grafana panel Fulfillment backlog",
    name=f"panel {PANEL_TITLE}",
    role=Role.SYMPTOM,
    source=f"$grafana_url: dashboard {DASHBOARD_UID}, else the same dashboard as code",
    unit="objects",
)
def _compare_panel(inv: Investigation) -> Outcome:
    """Send the panel's queries to Prometheus, and compare the answers with a listing.

    Without Grafana the queries are those of the dashboard as code. If the queries give no number,
    the step is left out without Grafana, and unknown with it. It is also unknown if Grafana is
    configured, but does not show the panel.
    """
    show = read_panel(inv)
    listed, list_error = attempt(lambda: _count_listed(inv))
    rows: list[dict[str, Json]] = []
    for series in show.current:
        name = _say_labels(series.labels) or PANEL_TITLE
        rows.append({"series": name, "value": series.samples[-1].value})
    lines = show.lines
    if listed is not None:
        lines += (draw_listing(inv.now(), listed),)
    outcome = Outcome(
        source=show.source,
        rows=rows[:_MAX_ROWS],
        facts={"queries": list(show.queries)},
        plot=Plot(
            title=f"Panel {PANEL_TITLE}, beside the listing",
            unit="objects",
            lines=lines,
        ),
    )
    no_number = "the panel's queries give no number: Prometheus has no series for them"
    has_no_grafana = isinstance(show.problem, NotConfiguredError)
    if has_no_grafana and not rows:
        return outcome.left_out(f"{show.problem}; {no_number}")
    if not rows:
        return outcome.unknown(no_number)
    outcome.value = show.total
    listing_words = f"the bucket could not be listed: {list_error}"
    if listed is not None:
        listing_words = f"the listing counts {listed:,}"
    reason = f"{show.words}, {listing_words}"
    if show.problem and not has_no_grafana:
        return outcome.unknown(f"Grafana does not show the panel: {show.problem}; {reason}")
    return outcome.ok(reason)


def _count_listed(inv: Investigation) -> int:
    """Count all objects under the prefixes where labels wait: young or late, real or synthetic."""
    count = 0
    for prefix in list_prefixes(inv.settings):
        for _ in inv.clients.store.list_objects(prefix):
            count += 1
    return count


@step(
    "2.3",
    "Backlog objects, metric against listing",
    name="backlog objects",
    role=Role.BACKLOG,
    source=f"{LISTING}; $prometheus_url fulfillment_artifacts_backlog_objects",
    unit="objects",
    threshold="a real object waits over $lag_threshold_minutes min",
    needed=True,
)
def read_backlog_objects(inv: Investigation) -> Outcome:
    """Count what waits. A single real object over the lag threshold is a breach."""
    return _read_backlog(inv, "objects")


@step(
    "2.4",
    "Backlog bytes, metric against listing",
    name="backlog bytes",
    role=Role.IMPACT,
    source=f"{LISTING}; $prometheus_url fulfillment_artifacts_backlog_bytes",
    unit="bytes",
    threshold="a real object waits over $lag_threshold_minutes min",
)
def _read_bytes(inv: Investigation) -> Outcome:
    """Sum up the bytes that wait. A single real object over the lag threshold is a breach."""
    return _read_backlog(inv, "bytes")


_Unit = Literal["objects", "bytes"]


def _read_backlog(inv: Investigation, unit: _Unit) -> Outcome:
    """List what waits, and compare the listing with the metric of this unit."""
    plot = _draw_backlog(inv, unit)  # before the listing: the reading's time is its end
    waiting = recall_waiting(inv)
    listed = _measure(waiting.objects, unit)
    metric_words = _compare_metric(inv, unit, listed)
    synthetic_since = [label.info.last_modified for label in waiting.synthetic]
    outcome = Outcome(
        value=_measure(waiting.real, unit),
        rows=waiting.rows(50),
        plot=plot,
        since=waiting.since,
        longest_minutes=round(waiting.longest_minutes, 1),
        first_seen={Cause.SYNTHETIC: min(synthetic_since)} if synthetic_since else {},
        observations=waiting.observations,
    )
    outcome.observations["real_were_overdue"] = bool(waiting.overdue) or any(
        reading.observations.get("overdue_real") for reading in inv.journal.readings
    )
    reason = f"{waiting.describe()}; {metric_words}"
    if unit == "objects":
        unserved = _read_unserved(inv, waiting)
        outcome.order_ids = (*_list_orders(waiting), *(unserved.orders if unserved else ()))
        if unserved or outcome.order_ids:
            outcome.orders = len(outcome.order_ids)
        if unserved and unserved.orders:
            longest_minutes = max(waiting.longest_minutes, unserved.longest_minutes)
            outcome.longest_minutes = round(longest_minutes, 1)
            reason += f"; {count_of(len(unserved.orders), 'order')} without any label"
            reason += f" (longest {unserved.longest_minutes:.1f} min)"
    if waiting.overdue:
        return outcome.breach(reason)
    if unit == "objects" and may_compare(inv):
        comparison = compare_backlog(inv, waiting)
        outcome.observations = {**outcome.observations, "waiting": comparison.backlog}
        reason = f"{reason}; {comparison.words}"
    return outcome.ok(reason)


def _read_unserved(inv: Investigation, waiting: Waiting) -> Unserved | None:
    """List the orders without any label, if 2.1 says that uploads fail or that no label gets in.

    None if nobody can know which orders have no label.
    """
    alert_reading = inv.latest().get("2.1")
    uploads = alert_reading.observations.get("uploads") if alert_reading else None
    patience = _PATIENCE.get(str(uploads))
    if patience is None:
        return Unserved((), 0.0)
    if not inv.settings.fulfillment_url:
        return None
    unserved, _ = attempt(lambda: read_unserved(inv, waiting, patience=patience))
    return unserved


def _measure(labels: Sequence[Label], unit: _Unit) -> int:
    if unit == "objects":
        return len(labels)
    return sum(label.info.size_bytes for label in labels)


def _list_orders(waiting: Waiting) -> tuple[str, ...]:
    """Return the orders that wait too long; the key of a label stands for an unknown order."""
    return tuple({label.order_id or label.info.key: None for label in waiting.overdue})


def _compare_metric(inv: Investigation, unit: _Unit, listed: int) -> str:
    """Say what the metric counts under the same prefixes, when, and whether the listing differs.

    Parameters
    ----------
    listed : how many objects or bytes the listing counts
    """
    metric = f"fulfillment_artifacts_backlog_{unit}"
    series, error = attempt(lambda: inv.clients.prometheus.query(metric))
    if series is None:
        return f"the metric could not be read: {error.partition('. ')[0]}"
    prefixes = list_prefixes(inv.settings)
    own = [gauge for gauge in series if gauge.labels.get("prefix") in prefixes]
    if not own:
        return "the metric has no series"
    # The exporter looks every few seconds, and labels come and go. So a difference counts only if
    # it is over 20 objects, at 256 KiB each, and over half of the larger number.
    counted = sum(gauge.samples[-1].value for gauge in own)
    synthetic = sum(g.samples[-1].value for g in own if g.labels.get("origin") == "synthetic")
    tolerance = 20.0
    if unit == "bytes":
        tolerance = 20.0 * 256 * 1024
    tolerance = max(tolerance, 0.5 * max(counted, listed))
    refreshes, _ = attempt(lambda: read_samples(inv, REFRESH, 300))
    words = "the metric"
    if refreshes:
        counted_at = datetime.fromtimestamp(refreshes[-1].value, UTC)
        words += f" of {counted_at:%H:%M:%SZ}"
    words += f" says {_show(counted, unit)}"
    if synthetic:
        words += f" (synthetic: {_show(synthetic, unit)})"
    if abs(counted - listed) > tolerance:
        words += "; metric and listing differ"
    return words


def _show(amount: float, unit: _Unit) -> str:
    """Write a number of objects or of bytes for people."""
    if unit == "bytes":
        return format_bytes(amount)
    return f"{amount:,.0f}"


def _draw_backlog(inv: Investigation, unit: _Unit) -> Plot:
    """Return a plot of how much waited over the window, by prefix, with the last actions as marks.

    A reading from after an action shows how the backlog shrank. The plot has no lines when the
    metric cannot be read.
    """
    metric = f"fulfillment_artifacts_backlog_{unit}"
    lines, _ = attempt(lambda: draw_samples(inv, metric, labels=("prefix", "origin")))
    prefixes = list_prefixes(inv.settings)
    own = [line for line in lines or () if line.name.split(" ", maxsplit=1)[0] in prefixes]
    applied = inv.journal.list_actions(ActionPhase.APPLIED)
    return Plot(
        title=f"{unit.capitalize()} waiting, by prefix",
        unit=unit,
        part="forecast" if unit == "bytes" else "signals",
        lines=tuple(own),
        marks=tuple((entry.at, f"{entry.step} {entry.action}") for entry in applied[-5:]),
    )


@step(
    "2.5",
    "Support timeline of a ticket",
    name="ticket timeline",
    role=Role.TICKET,
    unit="min",
    source="$support_url/support/cases/{ticketId}?includeTimeline=true",
    threshold="the newest shipment event is over $timeline_stale_minutes min old while a label "
    "waits",
)
def read_ticket(inv: Investigation) -> Outcome:
    """Compare the ticket's newest shipment event with the waiting labels of the ticket's orders.

    A breach: a label of the ticket waits, and the newest event is over TIMELINE_STALE_MINUTES old;
    or a shipment changed longer ago than that, and support does not show the change. If there is no
    event yet, the label's own wait counts as the event's age. Without a breach, and without a
    waiting label of the ticket, a waiting label of an unknown order makes the reading unknown: the
    order may be one of the ticket's.
    """
    if not inv.settings.support_url:
        return Outcome().left_out("SUPPORT_URL is empty: there are no tickets here")
    if not inv.ticket_id:
        text = "no ticket given; add --ticket <id> (in a notebook: ticket_id)"
        return Outcome().unknown(text)
    support = inv.clients.support
    stale_minutes = inv.settings.timeline_stale_minutes
    case = support.read_case(inv.ticket_id)
    event_times = [entry.at for entry in case.timeline if entry.type == "shipment" and entry.at]
    newest_at = max(event_times, default=None)
    age_minutes = (inv.now() - newest_at).total_seconds() / 60 if newest_at else None
    waiting = recall_waiting(inv)
    order_ids = {str(order_id) for order_id in case.order_ids}
    own_labels = [label for label in waiting.real if label.order_id in order_ids]
    without_order_count = sum(not label.order_id for label in waiting.real)
    behind_minutes = _compute_behind_minutes(inv, case, newest_at) if newest_at else None
    rows = rows_of(case.timeline[-50:], "at", "type", "source", "status", order="order_id")
    for row in rows:
        if row["order"] is not None:
            row["order"] = str(row["order"])  # the name of an order, not a count
    outcome = Outcome(
        value=None if age_minutes is None else round(age_minutes, 1),
        source=f"{support.url}/support/cases/{inv.ticket_id}?includeTimeline=true",
        rows=rows,
        ticket=inv.ticket_id,
        facts={"waiting": [label.info.key for label in own_labels[:20]]},
        observations={"timeline_behind_minutes": behind_minutes},
    )
    if not case.order_ids:
        return outcome.unknown("the ticket names no order")
    if age_minutes is None:
        failures = support.read_collection_failures()
        failed = ", ".join(f"{name} {n:.0f}" for name, n in sorted(failures.items()) if n > 0)
        if failed:
            return outcome.unknown(
                f"no shipment is shown, and support failed to collect them ({failed})"
            )
        text = "the timeline has no shipment event yet"
        # An event is missing for as long as the oldest label waits.
        age_minutes = own_labels[0].minutes if own_labels else 0.0
    else:
        text = f"the newest shipment event is {age_minutes:.0f} min old"
    wait_words = ""
    if own_labels:
        wait_words = f"a label of the ticket has waited for {own_labels[0].minutes:.0f} min"
        wait_words += say_age_source(own_labels[0])
    if wait_words and age_minutes > stale_minutes:
        return outcome.breach(f"{text}, and {wait_words}")
    if behind_minutes is not None and behind_minutes > stale_minutes:
        return outcome.breach(
            f"a shipment changed {behind_minutes:.0f} min ago, and support does not show it"
        )
    if without_order_count and not wait_words:
        return outcome.unknown(
            f"{text}; ORDER_ID_FROM={inv.settings.order_id_from} does not tell the order "
            f"of {count_of(without_order_count, 'waiting label')}"
        )
    return outcome.ok(f"{text}; {wait_words or 'no label of the ticket waits'}")


def _compute_behind_minutes(inv: Investigation, case: Case, newest_at: datetime) -> float | None:
    """Return for how many minutes support has not shown the shipments' newest change.

    0 when support shows that change; None when the shipments cannot be read.

    Parameters
    ----------
    newest_at : the newest shipment event that support shows
    """
    changes, _ = attempt(lambda: _list_changes(inv, case))
    if changes is None:
        return None
    changed_at = max(changes, default=newest_at)
    if changed_at - newest_at < timedelta(seconds=1):
        return 0.0
    return max(0.0, (inv.now() - changed_at).total_seconds() / 60)


def _list_changes(inv: Investigation, case: Case) -> list[datetime]:
    """Return when the shipments of a ticket's first five orders last changed.

    At most five shipments of each order count.
    """
    changes = []
    client = inv.clients.fulfillment
    for order_id in case.order_ids[:5]:
        for shipment in client.list_shipments(order_id=order_id, limit=5):
            at = try_time(shipment.get("updatedAt"))
            if at:
                changes.append(at)
    return changes


@step(
    "2.6",
    "Synthetic probe, timeline refresh",
    name="probe, timeline refresh",
    role=Role.SYMPTOM,
    source="$probe_url/status",
    threshold="the timeline refresh has status=error",
)
def read_probe(inv: Investigation) -> Outcome:
    """Read how the probe's last run ended, and its timeline refresh above all."""
    probe = inv.clients.probe.read_status()
    refresh = None
    for part in probe.steps:
        if part.name == "timeline_refresh":
            refresh = part
            break
    outcome = Outcome(
        value=refresh.status if refresh else probe.status,
        rows=rows_of(probe.steps, "status", "message", step="name"),
    )
    if probe.ran_at is None or inv.now() - probe.ran_at > PROBE_MAX_AGE:
        return outcome.unknown("the probe has not run within the last 26 hours")
    if refresh and refresh.status == "error":
        outcome.observations = {"probe_refresh_failed": True}
        others = [part for part in probe.steps if part.status == "error" and part is not refresh]
        other_errors = "".join(f"; {part.name}: {part.message}" for part in others)
        words = f"the timeline refresh has status=error: {refresh.message}{other_errors}"
        return outcome.breach(words)
    if refresh and refresh.status == "ok":
        outcome.observations = {"probe_refresh_failed": False}
        age_s = (inv.now() - probe.ran_at).total_seconds()
        return outcome.ok(f"the timeline refresh worked {age_s:.0f} s ago")
    outcome.observations = {"probe_failed_before": probe.status == "error"}
    errors = "; ".join(part.message for part in probe.steps if part.status == "error")
    return outcome.unknown(
        f"the probe did not get to the timeline refresh: {errors or probe.status}"
    )


STEPS = by_id(
    read_alert, _compare_panel, read_backlog_objects, _read_bytes, read_ticket, read_probe
)
ACTIONS: dict[str, ActionStep] = {}
#: The columns of each step's rows, and their dtypes in a frame.
COLUMNS: Mapping[str, Mapping[str, Dtype]] = {
    "2.1": {
        "alert": TEXT,
        "state": TEXT,
        "active_at": TIME,
        "severity": TEXT,
        "drill": FLAG,
        "value": NUMBER,
    },
    "2.2": {"series": TEXT, "value": NUMBER},
    "2.3": WAITING_COLUMNS,
    "2.4": WAITING_COLUMNS,
    "2.5": {
        "order": TEXT,
        "at": TIME,
        "type": TEXT,
        "source": TEXT,
        "status": TEXT,
    },
    "2.6": {"step": TEXT, "status": TEXT, "message": TEXT},
}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by this section's readings in the journal."""
    return conclude_symptoms(inv, STEPS)
