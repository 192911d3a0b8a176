"""Section 2: is there an incident? Alert, panel, backlog, ticket, probe. Only reads.

It lists the bucket, too, so that wrong or missing metrics don't hide an incident.
"""

import re
from datetime import timedelta
from itertools import islice

from runbook_lib.frames import TIME
from runbook_lib.language import gettext
from runbook_lib.model import (
    ActionPhase,
    Conclusion,
    Line,
    Outcome,
    Plot,
    Role,
    Status,
    count_of,
)
from runbook_lib.record.folds import Key
from runbook_lib.section import (
    ActionStep,
    SectionParameters,
    attempt,
    by_id,
    rows_of,
    step,
    to_rows,
)

from ..clients.http_systems import Shipment
from ..investigation import Investigation
from ..quantities import DELAY_ALERT, Quantity, measure
from ..waiting import (
    WAITING_COLUMNS,
    WANTING,
    Waiting,
    list_prefixes,
    read_order_id,
    recall_waiting,
)
from .signals import (
    ALERTS,
    DASHBOARD_UID,
    LAG,
    PANEL_TITLE,
    PATIENCE,
    Lag,
    compare_backlog,
    draw_line,
    find_well_since,
    is_drill,
    judge_recovery,
    measure_alerts,
    read_lag,
    read_lines,
)

NAME = "02_signals_detection"
TITLE = "Signals and detection"
Parameters = SectionParameters

#: The source of a step that lists the bucket.
LISTING = "s3://$fulfillment_bucket/$pending_prefix, s3://$fulfillment_bucket/$chaos_prefix"
_ANY_ALERT = " or ".join(ALERTS)
#: The probe runs every night, so an older run says nothing about today.
_PROBE_MAX_AGE = timedelta(hours=26)
_MAX_SHIPMENTS = 1000
_MAX_READY = 20_000
#: Statuses of a shipment that may still need its first label, in DataFlow and in the demo stack. A
#: ``shipped`` parcel left with one.
_NEEDS_LABEL = {*WANTING, "handed_over"} - {"shipped"}


@step(
    "2.1",
    "Alert FulfillmentDelay, or lag over the threshold",
    name="lag",
    role=Role.SYMPTOM,
    source=f"{LAG}; $prometheus_url/api/v1/alerts",
    columns={"active_at": TIME},
    unit="min",
    needed=True,
    shows=(Key(Quantity.LAG), Key(Quantity.ALERT, DELAY_ALERT)),
    threshold=f"over $lag_threshold_minutes min for $lag_for_minutes min, or {_ANY_ALERT} fires",
)
def read_alert(inv: Investigation) -> Outcome:
    """Read alerts and raw lag samples from Prometheus.

    It's a breach if one of ``ALERTS`` fires without ``drill="true"``, or the lag has been over the
    threshold for ``LAG_FOR_MINUTES`` without a break. Else the step is left out if there's no
    exporter, or unknown if the lag has no fresh sample, or the exporter stopped refreshing.
    """
    limit = inv.settings.lag_threshold_minutes
    alerts = inv.clients.prometheus.list_alerts()
    lag = read_lag(inv)
    firing = [
        alert
        for alert in alerts
        if alert.name in ALERTS and alert.state == "firing" and not is_drill(alert.labels)
    ]
    starts = [alert.active_at for alert in firing if alert.active_at]
    over_since = lag.find_over_since(limit)
    outcome = Outcome(
        value=None if lag.value is None else round(lag.value, 2),
        link=inv.link_to("query", LAG),
        since=min(filter(None, [*starts, over_since]), default=None),
        plot=Plot(
            title="Lag of the oldest waiting file",
            unit="minutes",
            threshold=limit,
            lines=(draw_line("lag", lag.samples),),
            annotations=tuple((start, "an alert fired") for start in starts),
        ),
        rows=[
            {
                "alert": alert.name,
                "state": alert.state,
                "active_at": alert.active_at,
                "severity": alert.labels.get("severity"),
                "drill": is_drill(alert.labels),
            }
            for alert in alerts
            if alert.name.startswith("Fulfillment")
        ],
        observations={
            "lag_present": lag.value is not None if lag.is_measured else None,
            "exporter_refresh_age_s": lag.refresh_age_s,
        },
    )
    judged = _judge_alert(inv, outcome, lag, {alert.name for alert in firing})
    recovery = judge_recovery(inv, lag)
    statuses = {Quantity.LAG: judged.status, Quantity.LOW_LAG: recovery.status}
    if not lag.is_measured:
        statuses[Quantity.LAG] = Status.LEFT_OUT
    elif firing and lag.value is not None and lag.value <= limit:
        statuses[Quantity.LAG] = Status.OK  # the alert alone is a breach
    measured_alerts = measure_alerts(alerts)
    uploads, well_since = find_well_since(inv, lag, recovery, measured_alerts)
    if well_since is not None:
        statuses[Quantity.BACKLOG] = Status.OK
    judged.measurements = measure(
        statuses, *measured_alerts, uploads, begun=judged.since, well_since=well_since
    )
    return judged


def _judge_alert(inv: Investigation, outcome: Outcome, lag: Lag, firing: set[str]) -> Outcome:
    limit = inv.settings.lag_threshold_minutes
    for_s = inv.settings.lag_for_minutes * 60
    words = lag.problem or f"the lag is {lag.value:.1f} min"
    over_since = lag.find_over_since(limit)
    if over_since is not None:
        words += f", over {limit:g} min since {over_since:%H:%M:%S} UTC"
    if firing:
        return outcome.breach(f"firing: {', '.join(sorted(firing))}; {words}")
    if not lag.is_measured:
        return outcome.left_out(f"{words}; no alert fires")
    if lag.value is None:
        return outcome.unknown(words)
    words += "; no alert fires"
    if over_since is None or (lag.samples[-1].at - over_since).total_seconds() < for_s:
        return outcome.ok(words)
    return outcome.breach(words)


@step(
    "2.2",
    "Grafana panel Fulfillment backlog",
    name=f"panel {PANEL_TITLE}",
    role=Role.SYMPTOM,
    source=f"$grafana_url/d/{DASHBOARD_UID}; $prometheus_url/api/v1/query",
    shows=(Key(Quantity.PANEL),),
    unit="objects",
)
def _read_panel(inv: Investigation) -> Outcome:
    """Send the panel's queries to Prometheus; unknown if they return nothing."""
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    lines: list[Line] = []
    for query in panel.expressions:
        lines += read_lines(inv, query, PANEL_TITLE)
    current = [(line.name, line.points[-1][1]) for line in lines if line.points]
    outcome = Outcome(
        source="; ".join([panel.link, *panel.expressions]),
        rows=to_rows(("series", "value"), current),
        plot=Plot(title=f"Panel {PANEL_TITLE}", unit="objects", lines=tuple(lines)),
    )
    if not current:
        return outcome.unknown("Prometheus has no series for the panel")
    outcome.value = sum(value for _, value in current)
    return outcome.ok(f"the panel shows {outcome.value:,.0f}")


@step(
    "2.3",
    "Backlog objects, metric against listing",
    name="backlog objects",
    role=Role.BACKLOG,
    source=f"{LISTING}; fulfillment_artifacts_backlog_objects",
    columns=WAITING_COLUMNS,
    unit="objects",
    threshold="a real object waits over $lag_threshold_minutes min",
    needed=True,
    shows=(Key(Quantity.BACKLOG),),
)
def read_backlog_objects(inv: Investigation) -> Outcome:
    """Count what waits. A real object over the lag threshold is a breach."""
    # Read the plot before the listing, because the reading's time should be the listing's.
    plot, counted = _read_metric(inv, "objects")
    waiting = recall_waiting(inv)
    were_overdue = [r.observations.get("overdue_real") for r in inv.journal.readings]
    unserved = _find_unserved(inv, waiting)
    without_label = sorted(unserved or ())
    # A label's key stands for its order if that is unknown.
    late_orders = {label.order_id or label.info.key for label in waiting.overdue}
    order_ids = (*sorted(late_orders), *without_label)
    waits_minutes = [waiting.longest_minutes, *(unserved or {}).values()]
    outcome = Outcome(
        value=len(waiting.real),
        link=inv.link_to("panel", DASHBOARD_UID),
        rows=waiting.rows(),
        plot=plot,
        order_ids=None if unserved is None and not order_ids else order_ids,
        longest_minutes=round(max(waits_minutes), 1),
        affected_files=len(waiting.overdue),
        observations={
            **waiting.observations,
            "real_were_overdue": bool(waiting.overdue) or any(were_overdue),
        },
    )
    if waiting.overdue:
        # A late order's file is old when it's written. So its wait tells when the trouble began
        # only where no metric does.
        alert_reading = inv.latest().get(read_alert.id)
        has_metric = alert_reading and alert_reading.observations.get("lag_present")
        late_since = None if has_metric else waiting.late_since
        outcome.measurements = measure({Quantity.BACKLOG: Status.BREACH}, begun=late_since)
    elif inv.since is not None:  # without trouble, there is no "before" to compare with
        outcome.measurements = measure({Quantity.USUAL_BACKLOG: compare_backlog(inv, waiting)})
    if without_label:
        counted += f"; {count_of(len(without_label), 'order')} {gettext('without any label')}"
    return waiting.judge(outcome, counted)


@step(
    "2.4",
    "Backlog bytes, metric against listing",
    name="backlog bytes",
    role=Role.SIGN,
    source=f"{LISTING}; fulfillment_artifacts_backlog_bytes",
    columns=WAITING_COLUMNS,
    unit="bytes",
    threshold="a real object waits over $lag_threshold_minutes min",
)
def _read_bytes(inv: Investigation) -> Outcome:
    """Sum the bytes that wait. A real object over the lag threshold is a breach."""
    _, counted = _read_metric(inv, "bytes")
    waiting = recall_waiting(inv)
    size_bytes = sum(label.info.size_bytes for label in waiting.real)
    return waiting.judge(Outcome(value=size_bytes, rows=waiting.rows()), counted)


def _read_metric(inv: Investigation, unit: str) -> tuple[Plot, str]:
    """Plot the metric of what waits; return the plot, and the value now in words."""
    prefixes = list_prefixes(inv.settings)
    metric = f"fulfillment_artifacts_backlog_{unit}"
    lines, error = attempt(lambda: read_lines(inv, metric))
    own = [line for line in lines or () if line.name.split(" ", maxsplit=1)[0] in prefixes]
    counted = sum(line.points[-1][1] for line in own if line.points)
    applied = inv.journal.list_actions(ActionPhase.APPLIED)
    plot = Plot(
        title="What waits, by prefix and origin",
        unit=unit,
        lines=tuple(own),
        annotations=tuple((entry.at, f"{entry.step} {entry.action}") for entry in applied[-5:]),
    )
    words = gettext("no metric to compare with")
    if not error:
        words = f"{gettext('the metric says')} {counted:,.0f}"
    return plot, words


def _find_unserved(inv: Investigation, waiting: Waiting) -> dict[str, float] | None:
    """Return ``read_unserved``, or {} unless 2.1 found that no label gets in."""
    alert_reading = inv.latest().get("2.1")
    measured = alert_reading.measurements if alert_reading else ()
    uploads = [each.status for each in measured if each.quantity == Quantity.UPLOADS]
    if Status.BREACH not in uploads:
        return {}
    unserved, _ = attempt(lambda: read_unserved(inv, waiting))
    return unserved


def read_unserved(inv: Investigation, waiting: Waiting) -> dict[str, float] | None:
    """Return the window's orders that need a label and have none, as {order: minutes waited}.

    fulfillment-service's newest 1,000 shipments say which orders need one. An order has one if a
    label of it waits or is ready, or a task of its shipment names one. Returns None if a label in
    the bucket doesn't show its order, or more than 20,000 labels are ready. Raises a
    ``ClientError`` if the service or the store can't be read.
    """
    served = {label.order_id for label in waiting.real}
    listing = inv.clients.store.list_objects(inv.settings.ready_prefix)
    ready = list(islice(listing, _MAX_READY + 1))
    for info in ready:
        served.update(_list_orders_in_key(info.key, inv.settings.order_id_from))
    if "" in served or len(ready) > _MAX_READY:  # an unknown order may be any of them
        return None
    now = inv.now()
    unserved: dict[str, float] = {}
    for shipment in inv.clients.fulfillment.list_shipments(limit=_MAX_SHIPMENTS):
        made_at = shipment.created_at
        order_id = shipment.order_id
        if made_at is None or order_id in served or _needs_no_label(shipment):
            continue
        if now - inv.window <= made_at <= now - PATIENCE:
            minutes = (now - made_at).total_seconds() / 60
            unserved[order_id] = max(minutes, unserved.get(order_id, 0.0))
    return unserved


def _list_orders_in_key(key: str, order_id_from: str) -> list[str]:
    """Return the order that a key names; else the numbers in its file name, else ``[""]``.

    A packing slip's name may hold several orders.
    """
    order_id = read_order_id(key, {}, order_id_from)
    numbers = re.findall(r"\d+", key.rpartition("/")[2])
    return [order_id] if order_id else numbers or [""]


def _needs_no_label(shipment: Shipment) -> bool:
    """Tell whether a shipment has a label, by its tasks, or no longer needs one."""
    has_label = any(task.get("key") for task in shipment.tasks)
    return has_label or shipment.status.strip().lower() not in _NEEDS_LABEL


@step(
    "2.5",
    "Support timeline of a ticket",
    name="ticket timeline",
    role=Role.SYMPTOM,
    shows=(Key(Quantity.TIMELINE),),
    unit="min",
    source="$support_url/support/cases/{ticketId}?includeTimeline=true",
    columns={"at": TIME},
    threshold="the newest shipment event is over $timeline_stale_minutes min old while a label "
    "waits",
)
def read_ticket(inv: Investigation) -> Outcome:
    """Compare the ticket's newest shipment event with the waiting labels of its orders.

    It's a breach if a label of the ticket waits, and the newest event is over
    TIMELINE_STALE_MINUTES old; without an event, the label's own wait counts. If no label is known
    to be the ticket's, but one of an unknown order waits, the reading is unknown.
    """
    if not inv.settings.support_url:
        return Outcome().left_out("SUPPORT_URL is empty: there are no tickets here")
    if not inv.ticket_id:
        return Outcome().unknown("no ticket given; add --ticket <id> (in a notebook: ticket_id)")
    case = inv.clients.support.read_case(inv.ticket_id)
    waiting = recall_waiting(inv)
    order_ids = {str(order_id) for order_id in case.order_ids}
    own_labels = [label for label in waiting.real if label.order_id in order_ids]
    event_times = [entry.at for entry in case.timeline if entry.type == "shipment" and entry.at]
    stale_minutes = own_labels[0].minutes if own_labels else 0.0
    words = "the timeline has no shipment event yet"
    outcome = Outcome(
        source=f"{inv.clients.support.url}/support/cases/{inv.ticket_id}?includeTimeline=true",
        rows=rows_of(case.timeline, "at", "type", "source", "status", order="order_id"),
        ticket=inv.ticket_id,
        link=inv.link_to("ticket", inv.ticket_id),
    )
    if event_times:
        stale_minutes = (inv.now() - max(event_times)).total_seconds() / 60
        outcome.value = round(stale_minutes, 1)
        words = f"the newest shipment event is {stale_minutes:.0f} min old"
    if not order_ids:
        return outcome.unknown("the ticket names no order")
    if own_labels:
        words += f"; a label of the ticket waits for {own_labels[0].minutes:.0f} min"
        if stale_minutes > inv.settings.timeline_stale_minutes:
            return outcome.breach(words)
    elif any(not label.order_id for label in waiting.real):
        setting = inv.settings.order_id_from
        words += f"; ORDER_ID_FROM={setting} does not tell the order of a waiting label"
        return outcome.unknown(words)
    return outcome.ok(words)


@step(
    "2.6",
    "Synthetic probe, timeline refresh",
    name="probe, timeline refresh",
    role=Role.SYMPTOM,
    source="$probe_url/status",
    shows=(Key(Quantity.PROBE),),
    threshold="the timeline refresh has status=error",
)
def read_probe(inv: Investigation) -> Outcome:
    """Read how the probe's last run ended, and judge its timeline refresh."""
    probe = inv.clients.probe.read_status()
    statuses = {each.name: each.status for each in probe.steps}
    status = statuses.get("timeline_refresh", "missing")
    outcome = Outcome(value=status, rows=rows_of(probe.steps, "status", "message", step="name"))
    if probe.ran_at is None or inv.now() - probe.ran_at > _PROBE_MAX_AGE:
        return outcome.unknown("the probe has not run within the last 26 hours")
    errors = [f"{each.name}: {each.message}" for each in probe.steps if each.status == "error"]
    words = "; ".join([f"the timeline refresh has status={status}", *errors])
    statuses_judged = {"ok": Status.OK, "error": Status.BREACH}
    return outcome.judge(statuses_judged.get(status, Status.UNKNOWN), words)


STEPS = by_id(read_alert, _read_panel, read_backlog_objects, _read_bytes, read_ticket, read_probe)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by this section's readings."""
    return inv.conclude_symptoms(STEPS)
