"""Section 3: the first five minutes. Who got the alert, what waits, is the store well?

Only reads.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from runbook_lib.errors import AccessDeniedError, ClientError
from runbook_lib.frames import FLAG, NUMBER, TEXT, TIME, WHOLE, Dtype
from runbook_lib.model import Conclusion, Json, Line, Outcome, Plot, Role
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, step
from runbook_lib.show.text import clip, count_of

from ..analysis.log_groups import LogGroup, group_lines
from ..analysis.samples import Sample, list_growth
from ..clients.http_systems import Notification, RoutedAlert, Series
from ..investigation import Investigation
from ..waiting import WAITING_COLUMNS, Label, Waiting, list_prefixes, recall_waiting
from . import detection
from .detection import LISTING
from .recovery import find_beginning
from .signals import ALERTS, PANEL_TITLE, draw_listing, is_drill, read_panel
from .symptoms import conclude_symptoms
from .worker_metrics import read_worker_log

NAME = "03_immediate_actions"
TITLE = "Immediate actions"
Parameters = SectionParameters
#: Each channel, and the words by which Alertmanager's configuration names it.
CHANNELS = {"slack": ("slack",), "email": ("smtp", "email"), "teams": ("teams", "webhook")}
#: Counters of single attempts, which Alertmanager counts at once. It counts a failed notification
#: only when it has given up, minutes later.
_SENT = "alertmanager_notification_requests_total"
_FAILED = "alertmanager_notification_requests_failed_total"
#: The bounds of the groups of ages, in minutes.
_AGE_BOUNDS = (0, 1, 5, 10, 15, 30, 60, 120, 1440, math.inf)
#: How long an error must be silent to be past, if labels have moved since.
_SILENCE = timedelta(minutes=1)
_MAX_ROWS = 200
_MAX_GROUPS = 50


@step(
    "3.1",
    "The alert reached the right receivers",
    name="alert delivery",
    role=Role.DELIVERY,
    source="$alertmanager_url/api/v2/alerts; $notifications_url/notifications",
    threshold="the alert is kept back, or a channel on its route cannot receive it",
)
def _read_delivery(inv: Investigation) -> Outcome:
    """Follow each active alert to its receivers. Drills are followed only without a real alert.

    Ok: every channel on the route received the alert, or no alert fires. Each of these is a breach:

    - the alert is silenced, inhibited or muted;
    - the alert fires in Prometheus, but Alertmanager does not have it;
    - no channel is on the route;
    - a channel did not receive the alert, and has a placeholder in its configuration, or failed
      attempts since the alert started.

    Else the step is unknown, or left out without NOTIFICATIONS_URL.
    """
    active = inv.clients.alertmanager.list_alerts()
    alerts = [alert for alert in active if alert.labels.get("alertname") in ALERTS]
    real = [alert for alert in alerts if not is_drill(alert.labels)]
    followed = real or alerts
    if not followed:
        return _judge_no_alert(inv)
    start = min(alert.starts_at for alert in followed)
    receivers = inv.clients.notifications
    # The clocks of Alertmanager and of the receivers may differ a little.
    since = start - timedelta(seconds=5)
    notifications, error = attempt(lambda: receivers.list_notifications(since=since))
    rows = _list_deliveries(followed, notifications or (), _find_faults(inv, start))
    outcome = Outcome(
        value=", ".join(f"{row['channel']} {row['evidence']}" for row in rows),
        rows=rows[:_MAX_ROWS],
        since=start,
    )
    problems = [_find_mute(alert) for alert in followed]
    problems += [f"{row['channel']}: {row['problem']}" for row in rows if row["problem"]]
    problems = [problem for problem in dict.fromkeys(problems) if problem]
    if problems:
        return outcome.breach("; ".join(problems))
    if not rows:
        return outcome.breach("no receiver for Slack, e-mail or Teams is on the alert's route")
    missing = sorted({str(row["channel"]) for row in rows if row["evidence"] == "none"})
    if not missing:
        return outcome.ok("every channel on the route received the alert")
    if not inv.settings.notifications_url:
        return outcome.left_out("NOTIFICATIONS_URL is empty; no failure is counted")
    reason = f"no evidence from {', '.join(missing)}"
    return outcome.unknown(f"{reason}: {error}" if error else reason)


def _judge_no_alert(inv: Investigation) -> Outcome:
    """Judge 3.1 when Alertmanager has none of our alerts: ok if none fires in Prometheus."""
    firing = [
        alert.name
        for alert in inv.clients.prometheus.list_alerts()
        if alert.state == "firing" and alert.name in ALERTS and not is_drill(alert.labels)
    ]
    outcome = Outcome(value="no alert to deliver")
    if firing:
        return outcome.breach(f"{firing[0]} fires in Prometheus, but Alertmanager does not have it")
    return outcome.ok(f"neither {' nor '.join(ALERTS)} fires: nothing to deliver")


def _list_deliveries(
    alerts: Iterable[RoutedAlert],
    notifications: Sequence[Notification],
    faults: Mapping[str, str],
) -> list[dict[str, Json]]:
    """Return a row for each alert and each channel on its route.

    Parameters
    ----------
    faults : why channels get nothing, by channel; not shown for a channel that received the alert
    """
    rows = []
    for alert in alerts:
        for channel, receiver in sorted(expect_channels(alert.receivers).items()):
            received = [n for n in notifications if _is_about(n, alert, channel)]
            row: dict[str, Json] = {
                "alert": alert.labels["alertname"],
                "channel": channel,
                "receiver": receiver,
                "evidence": "received" if received else "none",
                "at": received[0].received_at if received else None,
                "problem": "" if received else faults.get(channel, ""),
            }
            rows.append(row)
    return rows


def expect_channels(receivers: Sequence[str]) -> dict[str, str]:
    """Return the channels that should get an alert, each with the name of its receiver.

    The name of a receiver contains the name of its channel. A receiver whose name begins with
    ``drill`` serves all three channels (addons/alertmanager).

    Parameters
    ----------
    receivers : the names of the receivers on the alert's route
    """
    expected = {}
    for channel in CHANNELS:
        serving = [r for r in receivers if channel in r.lower() or r.startswith("drill")]
        if serving:
            expected[channel] = serving[0]
    return expected


def _find_mute(alert: RoutedAlert) -> str:
    """Say what keeps an alert back; empty when nothing does."""
    muted_by = (*alert.silenced_by, *alert.inhibited_by, *alert.muted_by)
    if not muted_by:
        return ""
    return f"{alert.labels['alertname']} is silenced, inhibited or muted by {', '.join(muted_by)}"


def _is_about(notification: Notification, alert: RoutedAlert, channel: str) -> bool:
    """Tell whether a notification told a channel that the alert fires."""
    return (
        notification.channel == channel
        and notification.status == "firing"
        and notification.is_drill == is_drill(alert.labels)
        and alert.labels["alertname"] in notification.alertnames
    )


def _find_faults(inv: Investigation, start: datetime) -> dict[str, str]:
    """Return why channels get nothing: a mapping from channel to fault.

    A placeholder in a channel's configuration is named before failed attempts.

    Parameters
    ----------
    start : when the alert started; failures that are known to be older do not count
    """
    placeholders = inv.clients.alertmanager.read_placeholders()
    failures = _read_failures(inv, start)
    faults = {}
    for channel, words in CHANNELS.items():
        failed = sum(n for name, n in failures.items() if channel in name.lower())
        pattern = re.compile("|".join(words), re.I)
        own = [name for name in placeholders if pattern.search(name)]
        if own:
            faults[channel] = f"a placeholder is configured ({own[0]})"
        elif failed:
            faults[channel] = f"Alertmanager counts {failed:.0f} failed attempts"
    return faults


def _read_failures(inv: Investigation, start: datetime) -> dict[str, float]:
    """Return how many attempts failed, by integration, such as ``slack``.

    Only attempts count that are newer than the alert's start and than the integration's last
    success.
    """
    window_s = (inv.now() - start).total_seconds() + 60
    prometheus = inv.clients.prometheus
    sent, _ = attempt(lambda: prometheus.query_samples(_SENT, window_s))
    failed, _ = attempt(lambda: prometheus.query_samples(_FAILED, window_s))
    sent_growth = _group_growth(sent or ())
    failures = {}
    for name, failed_growth in _group_growth(failed or ()).items():
        failed_at = {grown.at for grown in failed_growth}
        succeeded_at = [grown.at for grown in sent_growth[name] if grown.at not in failed_at]
        since = max([start, *succeeded_at])
        failures[name] = sum(grown.value for grown in failed_growth if grown.at > since)
    return failures


def _group_growth(series: Iterable[Series]) -> dict[str, list[Sample]]:
    """Return when the counters of each integration grew, and by how much."""
    growth: dict[str, list[Sample]] = defaultdict(list)
    for counter in series:
        growth[counter.labels.get("integration", "")] += list_growth([counter.samples])
    return growth


@step(
    "3.2",
    "Objects per prefix, longest wait, ages",
    name="longest wait",
    role=Role.IMPACT,
    source=LISTING,
    threshold="over $lag_threshold_minutes min",
    unit="min",
)
def _read_longest_wait(inv: Investigation) -> Outcome:
    """List what waits, with its ages, beside what the panel shows.

    A breach: a real label waits over the threshold. A panel that cannot be read is no breach.
    """
    waiting = recall_waiting(inv)
    show, _ = attempt(lambda: read_panel(inv))
    lines: tuple[Line, ...] = ()
    if show is not None:
        lines = (*show.lines, draw_listing(inv.now(), len(waiting.objects)))
    outcome = Outcome(
        value=round(waiting.longest_minutes, 1),
        rows=_list_prefix_rows(waiting, list_prefixes(inv.settings)),
        plot=Plot(
            title=f"Panel {PANEL_TITLE}, beside the listing",
            unit="objects",
            lines=lines,
            ages=_count_ages(waiting),
        ),
        since=waiting.since,
    )
    if waiting.overdue:
        return outcome.breach(waiting.describe())
    return outcome.ok(waiting.describe())


def _count_ages(waiting: Waiting) -> tuple[tuple[float, float | None, int], ...]:
    """Count the real labels by age.

    Each item is the bounds of a group of ages, in minutes, and how many labels the group has. The
    last group has no upper bound: None.
    """
    counts: list[tuple[float, float | None, int]] = []
    for low, high in pairwise(_AGE_BOUNDS):
        count = sum(low <= label.minutes < high for label in waiting.real)
        counts.append((low, high if math.isfinite(high) else None, count))
    return tuple(counts)


def _list_prefix_rows(waiting: Waiting, prefixes: Sequence[str]) -> list[dict[str, Json]]:
    """Return a row for each prefix and origin."""
    groups: dict[tuple[str, str], list[Label]] = {}
    for label in waiting.objects:
        prefix = next(prefix for prefix in prefixes if label.info.key.startswith(prefix))
        group = groups.setdefault((prefix, label.origin), [])
        group.append(label)
    rows: list[dict[str, Json]] = []
    for (prefix, origin), labels in groups.items():
        size_bytes = sum(label.info.size_bytes for label in labels)
        row = {"prefix": prefix, "origin": origin, "objects": len(labels), "bytes": size_bytes}
        row["longest_minutes"] = round(labels[0].minutes, 1)  # the first one waits longest
        rows.append(row)
    return rows


@step(
    "3.3",
    "Health of the object store",
    name="store health",
    role=Role.SYMPTOM,
    needed=True,
    source="$minio_endpoint/minio/health/live, else a signed listing",
    threshold="the store is not live",
)
def read_store_health(inv: Investigation) -> Outcome:
    """Ask the store whether it is alive. A store that does not answer is a breach."""
    try:
        how, source = inv.clients.store.check_live()
    except AccessDeniedError:
        raise  # the store answered: wrong keys make the reading unknown, not a breach
    except ClientError as error:
        outcome = Outcome(value="down", observations={"store_live": False})
        return outcome.breach(f"restore the store first: {error}")
    outcome = Outcome(value="live", source=source, observations={"store_live": True})
    return outcome.ok(f"the store is live, by {how}")


@step(
    "3.4",
    "A sample of what waits",
    name="sample of waiting objects",
    role=Role.IMPACT,
    source=LISTING,
    unit="objects",
)
def _read_sample(inv: Investigation) -> Outcome:
    """List the ten objects that wait longest. This step has no breach."""
    waiting = recall_waiting(inv)
    rows = waiting.rows(10)
    outcome = Outcome(value=len(rows), rows=rows)
    return outcome.ok(f"{len(waiting.objects):,} waiting; shown: {len(rows)}")


@step(
    "3.5",
    "The worker's log",
    name="worker log",
    role=Role.LOG,
    source="log of $worker_service",
    threshold="the log has an error that is not past",
    unit="errors",
)
def _read_worker_log(inv: Investigation) -> Outcome:
    """Group the errors and warnings of the log since this incident began.

    A breach: a group of errors that is not past. A group is past when its last line is a minute
    old, and the worker has moved a label since.
    """
    start = inv.now() - inv.window
    if inv.since is not None:
        start = max(start, find_beginning(inv))
    lines = read_worker_log(inv, start)
    moved_at, _ = attempt(lambda: inv.clients.fulfillment.read_worker().last_move_at)
    past_before = min(moved_at, inv.now() - _SILENCE) if moved_at else start
    # Groups come with errors first, and keep that order in both lists.
    groups = [group for group in group_lines(lines) if group.level in ("error", "warning")]
    present = [g for g in groups if not (g.last and g.last < past_before)]
    past = [group for group in groups if group not in present]
    errors = [group for group in present if group.level == "error"]
    total = sum(group.count for group in errors)
    rows = [_to_row(group, is_now=True) for group in present]
    rows += [_to_row(group, is_now=False) for group in past]
    span = f"since {start:%H:%M:%S} UTC"
    outcome = Outcome(
        value=total if lines else None,
        source=f"log of {inv.settings.worker_service} {span}",
        since=min((group.first for group in errors if group.first), default=None),
        rows=rows[:_MAX_GROUPS],
    )
    if not lines:
        return outcome.unknown(f"the log has no line {span}: that proves nothing")
    if errors:
        largest = max(errors, key=lambda group: group.count)
        words = f"{count_of(total, 'error')} {span}"
        return outcome.breach(f"{words}; most often: {clip(largest.template, 160)}")
    return outcome.ok(f"no error {span} that is not past; lines read: {len(lines)}")


def _to_row(group: LogGroup, *, is_now: bool) -> dict[str, Json]:
    """Return a row of step 3.5; ``is_now`` is False for a group that is past."""
    return {
        "level": group.level,
        "count": group.count,
        "template": group.template[:300],
        "first": group.first,
        "last": group.last,
        "example": group.example,
        "now": is_now,
        "orders": list(group.orders),
    }


STEPS = by_id(_read_delivery, _read_longest_wait, read_store_health, _read_sample, _read_worker_log)
ACTIONS: dict[str, ActionStep] = {}
#: The columns of each step's rows, and their dtypes in a frame.
COLUMNS: Mapping[str, Mapping[str, Dtype]] = {
    "3.1": {
        "alert": TEXT,
        "channel": TEXT,
        "receiver": TEXT,
        "evidence": TEXT,
        "at": TIME,
        "problem": TEXT,
    },
    "3.2": {
        "prefix": TEXT,
        "origin": TEXT,
        "objects": WHOLE,
        "bytes": WHOLE,
        "longest_minutes": NUMBER,
    },
    "3.4": WAITING_COLUMNS,
    "3.5": {
        "level": TEXT,
        "count": WHOLE,
        "template": TEXT,
        "first": TIME,
        "last": TIME,
        "example": TEXT,
        "now": FLAG,
        "orders": "object",
    },
}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by current readings of sections 2 and 3."""
    return conclude_symptoms(inv, detection.STEPS | STEPS)
