"""Section 3: the first five minutes. Who got the alert, what waits, is the store up?"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from runbook_lib.errors import AccessDeniedError, ClientError
from runbook_lib.frames import TEXT, TIME, WHOLE
from runbook_lib.model import Conclusion, Json, Outcome, Role, Status, count_of
from runbook_lib.record.folds import Key
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step
from runbook_lib.show.text import clip

from ..analysis.log_groups import group_lines
from ..analysis.samples import sum_growth
from ..clients.http_systems import Notification, RoutedAlert
from ..investigation import Investigation
from ..quantities import Quantity
from ..waiting import WAITING_COLUMNS, recall_waiting
from . import detection
from .detection import LISTING
from .signals import (
    ALERTS,
    SILENCE,
    find_log_start,
    is_drill,
    measure_alerts,
    read_worker_log,
)

NAME = "03_immediate_actions"
TITLE = "Immediate actions"
Parameters = SectionParameters
#: Each channel, and a pattern for its names in Alertmanager's configuration.
CHANNELS = {"slack": "slack", "email": "smtp|email", "teams": "teams|webhook"}
#: Counts single attempts. The metric of failed notifications waits until Alertmanager gives up.
_FAILED = "alertmanager_notification_requests_failed_total"


@step(
    "3.1",
    "The alert reached the right receivers",
    name="alert delivery",
    role=Role.SIGN,
    source="$alertmanager_url/api/v2/alerts; $notifications_url/notifications",
    columns={"channel": TEXT, "evidence": TEXT, "at": TIME},
    threshold="the alert is muted, or a channel on its route cannot receive it",
)
def _read_delivery(inv: Investigation) -> Outcome:
    """Find the receivers of each active alert. Drill alerts count if no real alert is active.

    A channel without the alert is a breach if a fault explains it, such as a placeholder in its
    configuration; else the step is unknown.
    """
    active = inv.clients.alertmanager.list_alerts()
    alerts = [alert for alert in active if alert.labels.get("alertname") in ALERTS]
    followed = [alert for alert in alerts if not is_drill(alert.labels)] or alerts
    if not followed:
        return _judge_no_alert(inv)
    start = min(alert.starts_at for alert in followed)
    receivers = inv.clients.notifications
    # The clocks of Alertmanager and of the receivers may differ a little.
    since = start - timedelta(seconds=5)
    notices, error = attempt(lambda: receivers.list_notifications(since=since))
    faults = _find_faults(inv, start)
    rows: list[dict[str, Json]] = []
    problems: list[str] = []
    for alert in followed:
        if alert.muted_by:
            mutes = ", ".join(alert.muted_by)
            problems.append(f"{alert.labels['alertname']} is muted by {mutes}")
        rows += _list_deliveries(alert, notices or ())
    missing = sorted({row["channel"] for row in rows if row["evidence"] == "none"})
    problems += [f"{channel}: {faults[channel]}" for channel in missing if channel in faults]
    outcome = Outcome(
        value=", ".join(f"{row['channel']} {row['evidence']}" for row in rows), rows=rows
    )
    if not rows:
        problems.append("no receiver for Slack, e-mail or Teams is on the alert's route")
    if problems:
        return outcome.breach("; ".join(problems))
    if not missing:
        return outcome.ok("every channel on the route received the alert")
    if not receivers.url:
        return outcome.left_out("NOTIFICATIONS_URL is empty; no failure is counted")
    reason = f"no evidence from {', '.join(missing)}"
    return outcome.unknown(f"{reason}: {error}" if error else reason)


def _judge_no_alert(inv: Investigation) -> Outcome:
    """Judge 3.1 if Alertmanager has none of our alerts: ok unless one fires in Prometheus."""
    measured = measure_alerts(inv.clients.prometheus.list_alerts())
    firing = [alert.subject for alert in measured if alert.status is Status.BREACH]
    outcome = Outcome(value="no alert to deliver")
    if firing:
        return outcome.breach(f"{firing[0]} fires in Prometheus, but Alertmanager does not have it")
    return outcome.ok("no alert fires: nothing to deliver")


def _list_deliveries(alert: RoutedAlert, notices: Sequence[Notification]) -> list[dict[str, Json]]:
    """Return a row for each channel on an alert's route.

    A receiver's name contains its channel's. One that begins with ``drill`` serves all three
    (addons/alertmanager).
    """
    name = alert.labels["alertname"]
    own = [
        notice
        for notice in notices
        if notice.status == "firing"
        and notice.is_drill == is_drill(alert.labels)
        and name in notice.alertnames
    ]
    rows: list[dict[str, Json]] = []
    for channel in CHANNELS:
        serving = [r for r in alert.receivers if channel in r.lower() or r.startswith("drill")]
        received = [notice.received_at for notice in own if notice.channel == channel]
        if serving:
            rows.append(
                {
                    "alert": name,
                    "channel": channel,
                    "receiver": serving[0],
                    "evidence": "received" if received else "none",
                    "at": min(received, default=None),
                }
            )
    return rows


def _find_faults(inv: Investigation, start: datetime) -> dict[str, str]:
    """Return {channel: why it gets nothing}: a placeholder, or failed attempts since ``start``."""
    placeholders = inv.clients.alertmanager.read_placeholders()
    window_s = (inv.now() - start).total_seconds() + 60
    failed, _ = attempt(lambda: inv.clients.prometheus.query_samples(_FAILED, window_s))
    faults = {}
    for channel, pattern in CHANNELS.items():
        own = [name for name in placeholders if re.search(pattern, name, re.I)]
        counters = [
            series.samples
            for series in failed or ()
            if channel in series.labels.get("integration", "").lower()
        ]
        count = sum_growth(counters, start)
        if own:
            faults[channel] = f"a placeholder is configured ({own[0]})"
        elif count:
            faults[channel] = f"{count:.0f} attempts of Alertmanager failed"
    return faults


@step(
    "3.2",
    "Objects per prefix, longest wait, ages",
    name="longest wait",
    role=Role.SIGN,
    source=LISTING,
    columns=WAITING_COLUMNS,
    threshold="over $lag_threshold_minutes min",
    unit="min",
)
def _read_longest_wait(inv: Investigation) -> Outcome:
    """List what waits. A real label that waits over the threshold is a breach."""
    waiting = recall_waiting(inv)
    outcome = Outcome(value=round(waiting.longest_minutes, 1), rows=waiting.rows())
    return waiting.judge(outcome)


@step(
    "3.3",
    "Health of the object store",
    name="store health",
    role=Role.SYMPTOM,
    needed=True,
    shows=(Key(Quantity.STORE),),
    source="$minio_endpoint/minio/health/live, else a signed listing",
    threshold="the store is not live",
)
def read_store_health(inv: Investigation) -> Outcome:
    """Ask the store whether it's live. No answer is a breach."""
    try:
        source = inv.clients.store.check_live()
    except AccessDeniedError:
        raise  # the store did answer, so wrong keys make the reading unknown, not a breach
    except ClientError as error:
        outcome = Outcome(value="down", observations={"store_live": False})
        return outcome.breach(f"restore the store first: {error}")
    outcome = Outcome(value="live", source=source, observations={"store_live": True})
    return outcome.ok("the store is live")


@step(
    "3.4",
    "A sample of the waiting files",
    name="sample of waiting objects",
    role=Role.SIGN,
    source=LISTING,
    columns=WAITING_COLUMNS,
    unit="objects",
)
def _read_sample(inv: Investigation) -> Outcome:
    """List what waits, the longest wait first. Never a breach."""
    rows = recall_waiting(inv).rows()
    return Outcome(value=len(rows), rows=rows).ok("the longest wait comes first")


@step(
    "3.5",
    "The worker's log",
    name="worker log",
    role=Role.SIGN,
    source="log of $worker_service",
    columns={"level": TEXT, "count": WHOLE, "template": TEXT, "first": TIME, "last": TIME},
    threshold="the log has an error that still matters",
    unit="errors",
)
def _read_worker_log(inv: Investigation) -> Outcome:
    """Group the errors and warnings of the log since ``find_log_start``.

    A group of errors is a breach until its last line is over a minute old and the worker has moved
    a label since.
    """
    start = find_log_start(inv)
    lines = read_worker_log(inv, start)
    moved_at, _ = attempt(lambda: inv.clients.fulfillment.read_worker().last_move_at)
    past_before = min(moved_at, inv.now() - SILENCE) if moved_at else start
    groups = [group for group in group_lines(lines) if group.level in ("error", "warning")]
    errors = [
        group
        for group in groups
        if group.level == "error" and (group.last is None or group.last >= past_before)
    ]
    count = sum(group.count for group in errors)
    span = f"since {start:%H:%M:%S} UTC"
    log = inv.settings.worker_log_cmd or f"log of {inv.settings.worker_service}"
    outcome = Outcome(
        value=count if lines else None,
        source=f"{log} {span}",
        rows=rows_of(groups, "level", "count", "template", "first", "last", "example"),
    )
    if not lines:
        return outcome.unknown(f"the log has no line {span}: that proves nothing")
    if errors:
        largest = max(errors, key=lambda group: group.count)
        return outcome.breach(
            f"{count_of(count, 'error')} {span}; most often: {clip(largest.template, 160)}"
        )
    return outcome.ok(f"no error {span} that still matters; lines read: {len(lines)}")


STEPS = by_id(_read_delivery, _read_longest_wait, read_store_health, _read_sample, _read_worker_log)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by the current readings of sections 2 and 3."""
    return inv.conclude_symptoms(detection.STEPS | STEPS)
