"""Section 2: is there an incident? Alert, panel, backlog, ticket, probe. Only reads.

The section lists the bucket, too, so that wrong or missing metrics do not hide an incident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from runbook_lib.frames import FLAG, NUMBER, TEXT, TIME, Dtype
from runbook_lib.model import (
    ActionPhase,
    AlertState,
    Conclusion,
    Json,
    Measurement,
    Outcome,
    Plot,
    Role,
    Status,
)
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step
from runbook_lib.show.text import count_of

from ..analysis.causes import Cause
from ..clients.http_systems import Alert, Case
from ..clients.services import try_time
from ..investigation import Investigation
from ..quantities import Quantity, Uploads, measure, measure_lag
from ..unserved import Unserved, read_unserved
from ..waiting import WAITING_COLUMNS, Label, Waiting, list_prefixes, recall_waiting
from .recovery import (
    Lag,
    compare_backlog,
    is_low,
    judge_recovery,
    may_compare,
    read_lag,
    read_uploads,
    read_well_since,
)
from .signals import (
    ALERTS,
    DASHBOARD_UID,
    LAG,
    PANEL_TITLE,
    PROBE_MAX_AGE,
    draw_line,
    draw_listing,
    find_alert_states,
    is_drill,
    read_lines,
    read_panel,
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
    """Read alerts and raw lag samples from Prometheus.

    A breach: one of ``ALERTS`` fires without ``drill="true"``, or every raw sample of the lag was
    over the threshold for ``LAG_FOR_MINUTES``. Without a firing alert, the step is unknown if the
    lag has no fresh sample, or the exporter stopped refreshing. Where there is no exporter, a
    listing of the bucket says what the lag is.
    """
    limit = inv.settings.lag_threshold_minutes
    alerts = inv.clients.prometheus.list_alerts()
    lag = read_lag(inv)
    over_since = lag.find_over_since(limit)
    firing = [
        alert
        for alert in alerts
        if alert.name in ALERTS and alert.state == "firing" and not is_drill(alert.labels)
    ]
    starts = [alert.active_at for alert in firing if alert.active_at]
    outcome = Outcome(
        value=None if lag.value is None else round(lag.value, 2),
        since=min([*starts, over_since] if over_since else starts, default=None),
        plot=Plot(
            title="Lag of the oldest waiting object",
            unit="minutes",
            threshold=limit,
            lines=(draw_line("lag", lag.samples),),
            windows=tuple((start, None) for start in starts),
        ),
        rows=_list_alert_rows(alerts),
        observations={
            "lag_present": None if lag.is_listed else lag.value is not None,
            "exporter_refresh_age_s": lag.refresh_age_s,
        },
    )
    if lag.is_listed:
        outcome.longest_minutes = lag.value
        bucket = f"{inv.settings.fulfillment_bucket}/{inv.settings.pending_prefix}"
        outcome.source = f"listing of {bucket}; {inv.settings.prometheus_url}/api/v1/alerts"
    for_s = inv.settings.lag_for_minutes * 60
    judged = judge_alert(outcome, lag, firing=[a.name for a in firing], for_s=for_s, limit=limit)
    judged.measurements = _measure_signals(inv, judged, lag, find_alert_states(alerts))
    return judged


def judge_alert(
    outcome: Outcome, lag: Lag, *, firing: Sequence[str], for_s: float, limit: float
) -> Outcome:
    """Judge the lag and the alerts that fire. Pure."""
    words = lag.problem or f"the lag is {lag.value:.1f} min"
    over_since = lag.find_over_since(limit)
    if over_since is not None:
        words += f", over {limit:g} min since {over_since:%H:%M:%S} UTC"
    if lag.is_listed:
        words += ", by a listing"
    if firing:
        names = ", ".join(sorted(set(firing)))
        return outcome.breach(f"{names} {'fire' if ',' in names else 'fires'}; {words}")
    if lag.value is None:
        return outcome.unknown(words)
    words += "; no alert fires"
    if over_since is None or (lag.samples[-1].at - over_since).total_seconds() < for_s:
        return outcome.ok(words)
    return outcome.breach(words)


def _measure_signals(
    inv: Investigation, outcome: Outcome, lag: Lag, alerts: Mapping[str, AlertState]
) -> tuple[Measurement, ...]:
    """Return what 2.1 says of lag, alerts and uploads; and of the backlog, if all is well again."""
    is_over = None
    is_low_now = None
    low_since = None
    if lag.value is not None:
        is_over = lag.value > inv.settings.lag_threshold_minutes
        recovery = judge_recovery(inv, lag)
        is_low_now = is_low(recovery)
        low_since = recovery.since
    statuses = measure_lag(outcome.status, is_over=is_over, is_low=is_low_now)
    uploads = read_uploads(inv)
    well_since = None
    if is_low_now and set(alerts.values()) == {AlertState.RESOLVED} and uploads not in _PATIENCE:
        # Without trouble in the window, all is well since the first low sample.
        found, _ = attempt(lambda: read_well_since(inv, lag))
        well_since = found or low_since
    if well_since is not None:
        statuses[Quantity.BACKLOG] = Status.OK
    return measure(
        statuses, alerts=alerts, uploads=uploads, begun=outcome.since, well_since=well_since
    )


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
    source=f"$grafana_url: dashboard {DASHBOARD_UID}",
    unit="objects",
)
def _compare_panel(inv: Investigation) -> Outcome:
    """Send the panel's queries to Prometheus, and compare the answers with a listing.

    Left out without Grafana; unknown if the queries give no number.
    """
    show = read_panel(inv)
    waiting, error = attempt(lambda: recall_waiting(inv))
    rows: list[dict[str, Json]] = []
    for series in show.current:
        name = _say_labels(series.labels) or PANEL_TITLE
        rows.append({"series": name, "value": series.samples[-1].value})
    lines = show.lines
    listed = f"the bucket could not be listed: {error}"
    if waiting is not None:
        count = len(waiting.objects)
        lines += (draw_listing(inv.now(), count),)
        listed = f"the listing counts {count:,}"
    outcome = Outcome(
        source=show.panel.link,
        rows=rows[:_MAX_ROWS],
        facts={"queries": list(show.panel.expressions)},
        plot=Plot(title=f"Panel {PANEL_TITLE}, beside the listing", unit="objects", lines=lines),
    )
    if not rows:
        return outcome.unknown("Prometheus has no series for the panel")
    outcome.value = sum(row["value"] for row in rows)
    return outcome.ok(f"the panel shows {outcome.value:,.0f}, {listed}")


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
    waiting, outcome, reason = _read_backlog(inv, "objects")
    # The key of a label stands for an unknown order.
    late_orders = {label.order_id or label.info.key for label in waiting.overdue}
    unserved = _read_unserved(inv, waiting)
    affected = (*sorted(late_orders), *(unserved.orders if unserved else ()))
    if unserved or affected:
        outcome.order_ids = affected
    if unserved and unserved.orders:
        longest_minutes = max(waiting.longest_minutes, unserved.longest_minutes)
        outcome.longest_minutes = round(longest_minutes, 1)
        reason += f"; {count_of(len(unserved.orders), 'order')} without any label"
    if waiting.overdue:
        return outcome.breach(reason)
    if may_compare(inv):
        outcome.measurements = measure({}, backlog=compare_backlog(inv, waiting).backlog)
    return outcome.ok(reason)


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
    waiting, outcome, reason = _read_backlog(inv, "bytes")
    return outcome.breach(reason) if waiting.overdue else outcome.ok(reason)


_Unit = Literal["objects", "bytes"]


def _read_backlog(inv: Investigation, unit: _Unit) -> tuple[Waiting, Outcome, str]:
    """List what waits, and read the metric of this unit; also return both in words."""
    plot = _draw_backlog(inv, unit)  # before the listing: the reading's time is its end
    waiting = recall_waiting(inv)
    synthetic_since = [label.info.last_modified for label in waiting.synthetic]
    were_overdue = [r.observations.get("overdue_real") for r in inv.journal.readings]
    outcome = Outcome(
        value=_measure(waiting.real, unit),
        rows=waiting.rows(50),
        plot=plot,
        since=waiting.since,
        longest_minutes=round(waiting.longest_minutes, 1),
        first_seen={Cause.SYNTHETIC: min(synthetic_since)} if synthetic_since else {},
        observations={
            **waiting.observations,
            "real_were_overdue": bool(waiting.overdue) or any(were_overdue),
        },
    )
    metric = f"fulfillment_artifacts_backlog_{unit}"
    series, error = attempt(lambda: inv.clients.prometheus.query(metric))
    own = [g for g in series or () if g.labels.get("prefix") in list_prefixes(inv.settings)]
    counted = sum(gauge.samples[-1].value for gauge in own)
    words = f"the metric says {counted:,.0f}" if own else "the metric has no series"
    if series is None:
        words = f"the metric could not be read: {error}"
    return waiting, outcome, f"{waiting.describe()}; {words}"


def _read_unserved(inv: Investigation, waiting: Waiting) -> Unserved | None:
    """List the orders without any label, if 2.1 says that uploads fail or that no label gets in.

    None if nobody can know which orders have no label.
    """
    alert_reading = inv.latest().get("2.1")
    uploads = alert_reading.measured.get(Quantity.UPLOADS) if alert_reading else None
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


def _draw_backlog(inv: Investigation, unit: _Unit) -> Plot:
    """Return a plot of how much waited over the window, by prefix, with the last actions as marks.

    The plot has no lines when the metric cannot be read.
    """
    metric = f"fulfillment_artifacts_backlog_{unit}"
    lines, _ = attempt(lambda: read_lines(inv, metric, labels=("prefix", "origin")))
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
    event yet, the label's own wait counts as the event's age. Without a breach, a waiting label of
    an unknown order makes the reading unknown: the order may be one of the ticket's.
    """
    if not inv.settings.support_url:
        return Outcome().left_out("SUPPORT_URL is empty: there are no tickets here")
    if not inv.ticket_id:
        return Outcome().unknown("no ticket given; add --ticket <id> (in a notebook: ticket_id)")
    support = inv.clients.support
    stale_minutes = inv.settings.timeline_stale_minutes
    case = support.read_case(inv.ticket_id)
    event_times = [entry.at for entry in case.timeline if entry.type == "shipment" and entry.at]
    newest_at = max(event_times, default=None)
    age_minutes = (inv.now() - newest_at).total_seconds() / 60 if newest_at else None
    behind_minutes, _ = attempt(lambda: _read_behind_minutes(inv, case, newest_at))
    waiting = recall_waiting(inv)
    order_ids = {str(order_id) for order_id in case.order_ids}
    own_labels = [label for label in waiting.real if label.order_id in order_ids]
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
    )
    if not case.order_ids:
        return outcome.unknown("the ticket names no order")
    if age_minutes is None:
        if any(support.read_collection_failures().values()):
            return outcome.unknown("no shipment is shown, and support failed to collect them")
        words = "the timeline has no shipment event yet"
        # An event is missing for as long as the oldest label waits.
        age_minutes = own_labels[0].minutes if own_labels else 0.0
    else:
        words = f"the newest shipment event is {age_minutes:.0f} min old"
    if own_labels:
        words += f"; a label of the ticket waits for {own_labels[0].minutes:.0f} min"
        if age_minutes > stale_minutes:
            return outcome.breach(words)
    if (behind_minutes or 0) > stale_minutes:
        words += f"; a shipment changed {behind_minutes:.0f} min ago, and support does not show it"
        return outcome.breach(words)
    if not own_labels and any(not label.order_id for label in waiting.real):
        setting = inv.settings.order_id_from
        words += f"; ORDER_ID_FROM={setting} does not tell the order of a waiting label"
        return outcome.unknown(words)
    return outcome.ok(words)


def _read_behind_minutes(
    inv: Investigation, case: Case, newest_at: datetime | None
) -> float | None:
    """Return for how many minutes support has not shown the newest change of the shipments.

    0 when support shows that change; None when it shows no shipment. At most five shipments of the
    first five orders count.

    Parameters
    ----------
    newest_at : the newest shipment event that support shows
    """
    if newest_at is None:
        return None
    changed_at = newest_at
    for order_id in case.order_ids[:5]:
        for shipment in inv.clients.fulfillment.list_shipments(order_id=order_id, limit=5):
            changed_at = max(changed_at, try_time(shipment.get("updatedAt")) or newest_at)
    if changed_at - newest_at < timedelta(seconds=1):
        return 0.0
    return max(0.0, (inv.now() - changed_at).total_seconds() / 60)


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
    refreshes = [part for part in probe.steps if part.name == "timeline_refresh"]
    status = refreshes[0].status if refreshes else "missing"
    outcome = Outcome(
        value=status if refreshes else probe.status,
        rows=rows_of(probe.steps, "status", "message", step="name"),
    )
    if probe.ran_at is None or inv.now() - probe.ran_at > PROBE_MAX_AGE:
        return outcome.unknown("the probe has not run within the last 26 hours")
    errors = "; ".join(
        f"{part.name}: {part.message}" for part in probe.steps if part.status == "error"
    )
    if status == "error":
        return outcome.breach(f"the timeline refresh has status=error; {errors}")
    if status == "ok":
        return outcome.ok(f"the timeline refresh worked at {probe.ran_at:%H:%M:%S} UTC")
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
