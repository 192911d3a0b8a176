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
from runbook_lib.model import Conclusion, Json, Line, Outcome, Plot, Role, format_time
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, step
from runbook_lib.show.text import clip, count_of

from ..analysis.log_groups import LogGroup, group_lines
from ..analysis.samples import list_growth
from ..clients.http_systems import Notification, RoutedAlert, Series
from ..investigation import Investigation
from ..waiting import WAITING_COLUMNS, Label, Waiting, list_prefixes, recall_waiting
from . import detection
from .detection import LISTING
from .recovery import find_close_before, find_last_upload
from .signals import (
    ALERTS,
    BLIND_ALERT,
    PANEL_TITLE,
    PanelShow,
    draw_listing,
    is_drill,
    read_panel,
)
from .symptoms import conclude_symptoms

NAME = "03_immediate_actions"
TITLE = "Immediate actions"
Parameters = SectionParameters
#: Each channel, and the words by which Alertmanager's configuration names it.
CHANNELS = {"slack": ("slack",), "email": ("smtp", "email"), "teams": ("teams", "webhook")}
#: Counters of single attempts, which Alertmanager counts at once. It counts a failed notification
#: only when it has given up, minutes later.
_SENT = "alertmanager_notification_requests_total"
_FAILED = "alertmanager_notification_requests_failed_total"
_NO_SUCH_FIELD = re.compile(r"can't evaluate field (\w+) in type \*template\.Data")
#: The bounds of the groups of ages, in minutes.
_AGE_BOUNDS = (0, 1, 5, 10, 15, 30, 60, 120, 1440)
#: The longest time for which an error must be silent to be past.
_MAX_SILENCE = timedelta(minutes=1)
#: How often an error must be in the log before its usual interval is known.
_MIN_COUNT = 10
#: An error of a label that does not get into the store.
_UPLOAD_ERROR = re.compile(r"\bupload failed\b", re.IGNORECASE)
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
    mutes = [_find_mute(alert) for alert in followed]
    receivers = inv.clients.notifications
    # The clocks of Alertmanager and of the receivers may differ a little.
    since = start - timedelta(seconds=5)
    notifications, receivers_error = attempt(lambda: receivers.list_notifications(since=since))
    faults_by_channel = _find_faults(inv, start)
    rows = _list_deliveries(followed, notifications or (), faults_by_channel)
    faults = [f"{row['channel']}: {row['problem']}" for row in rows if row["problem"]]
    problems = [problem for problem in (*mutes, *faults) if problem]
    value = ", ".join(f"{row['channel']} {row['evidence']}" for row in rows)
    if not real:
        value += " (drill)"
    outcome = Outcome(value=value, rows=rows[:_MAX_ROWS], since=start)
    if problems:
        return outcome.breach("; ".join(dict.fromkeys(problems)))
    if not rows:
        return outcome.breach("no receiver for Slack, e-mail or Teams is on the alert's route")
    missing = sorted({str(row["channel"]) for row in rows if row["evidence"] == "none"})
    if not missing:
        return outcome.ok("every channel on the route received the alert")
    if not inv.settings.notifications_url:
        return outcome.left_out("NOTIFICATIONS_URL is empty; no failure is counted")
    why = "nothing arrived there yet, and no failure is counted"
    if receivers_error:
        why = f"what the receivers got cannot be read ({receivers_error})"
    return outcome.unknown(f"no evidence from {', '.join(missing)}: {why}")


def _judge_no_alert(inv: Investigation) -> Outcome:
    """Judge 3.1 when Alertmanager has none of our alerts: ok if none fires in Prometheus, either.

    If FulfillmentMetricsMissing fires, the reason says so, and that this step does not follow it.
    """
    names = " nor ".join(ALERTS)
    outcome = Outcome(value=f"neither {names} is active")
    is_blind = False
    for alert in inv.clients.prometheus.list_alerts():
        if alert.state != "firing" or is_drill(alert.labels):
            continue
        if alert.name in ALERTS:
            words = f"{alert.name} fires in Prometheus, but Alertmanager does not have it"
            return outcome.breach(words)
        if alert.name == BLIND_ALERT:
            is_blind = True
    reason = "neither fires in Prometheus: nothing to deliver"
    if is_blind:
        reason += f"; {BLIND_ALERT} fires, and this step does not follow it"
    return outcome.ok(reason)


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
        channels = expect_channels(alert.receivers)
        for channel, receiver in sorted(channels.items()):
            row: dict[str, Json] = {
                "alert": alert.labels["alertname"],
                "channel": channel,
                "receiver": receiver,
                "evidence": "none",
                "at": None,
                "problem": faults.get(channel, ""),
            }
            received = [n for n in notifications if _is_about(n, alert, channel)]
            if received:
                row["evidence"] = "received"
                row["at"] = received[0].received_at
                row["problem"] = ""
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
    mutes = {
        "silenced": alert.silenced_by,
        "inhibited": alert.inhibited_by,
        "muted": alert.muted_by,
    }
    for state, muted_by in mutes.items():
        if muted_by:
            return f"{alert.labels['alertname']} is {state} by {', '.join(muted_by)}"
    return ""


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
    template_fault = ""
    if any(failures.values()):
        template_fault = _find_template_fault(inv, start)
    faults = {}
    for channel, words in CHANNELS.items():
        failed = sum(n for name, n in failures.items() if channel in name.lower())
        own_placeholders = [name for name in placeholders if _contains_any(name, words)]
        if own_placeholders:
            faults[channel] = f"a placeholder is configured ({own_placeholders[0]})"
        elif failed:
            faults[channel] = f"Alertmanager counts {failed:.0f} failed attempts{template_fault}"
    return faults


def _contains_any(name: str, words: Iterable[str]) -> bool:
    return any(word in name.lower() for word in words)


def _find_template_fault(inv: Investigation, start: datetime) -> str:
    """Say which unknown field a template asks for, by Alertmanager's log since a time.

    The last such line counts. The text begins with a colon, to follow other words. It is empty
    when there is no such line.
    """
    services = inv.clients.services
    lines, _ = attempt(lambda: services.read_logs("alertmanager", since=start))
    fault = ""
    for line in lines or ():
        match = _NO_SUCH_FIELD.search(line.text)
        if match:
            fault = f": a template asks for .{match[1]}, which does not exist (addons/README.md)"
    return fault


def _read_failures(inv: Investigation, start: datetime) -> dict[str, float]:
    """Return how many attempts failed, by integration, such as ``slack``.

    Only attempts count that are newer than the alert's start and than the integration's last
    success. Prometheus knows the times of the attempts up to its last scrape; Alertmanager's own
    totals include later attempts, too. Totals have no times. So if Prometheus does not have the
    counter of failed attempts, the totals count only for an integration that never succeeded.
    """
    window_s = (inv.now() - start).total_seconds() + 60
    prometheus = inv.clients.prometheus
    sent, _ = attempt(lambda: prometheus.query_samples(_SENT, window_s))
    failed = None
    if sent is not None:
        failed, _ = attempt(lambda: prometheus.query_samples(_FAILED, window_s))
    failures: dict[str, float] = defaultdict(float)
    totals = inv.clients.alertmanager.read_notification_counts()
    if not failed:
        for count in totals:
            if count.failed >= count.sent:
                failures[count.integration] += count.failed
        return failures
    sent_by_name = _count_by_integration(sent or ())
    failed_by_name = _count_by_integration(failed)
    # Attempts in the totals that Prometheus has not scraped yet count as made now.
    now = inv.now()
    for count in totals:
        name = count.integration
        sent_by_name[name][now] += max(0.0, count.sent - _sum_newest(sent or (), name))
        failed_by_name[name][now] += max(0.0, count.failed - _sum_newest(failed, name))
    for name, failed_at_times in failed_by_name.items():
        sent_at_times = sent_by_name.get(name, {})
        # Some of the attempts at these times succeeded. Failures up to the last success do not
        # count.
        succeeded_at = [at for at, n in sent_at_times.items() if n > failed_at_times.get(at, 0)]
        since = max([start, *succeeded_at])
        failures[name] = sum(count for at, count in failed_at_times.items() if at > since)
    return failures


def _sum_newest(series: Iterable[Series], integration: str) -> float:
    """Return an integration's total of a counter at Prometheus' last scrape."""
    own = [s for s in series if s.labels.get("integration") == integration]
    return sum(s.samples[-1].value for s in own if s.samples)


def _count_by_integration(series: Iterable[Series]) -> dict[str, dict[datetime, float]]:
    """Return how much the counters of each integration grew, by integration and by time."""
    counts: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    for counter in series:
        integration = counter.labels.get("integration", "")
        for grown in list_growth(counter.samples):
            counts[integration][grown.at] += grown.value
    return counts


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
    """List what waits, with its ages, and what the panel shows.

    A breach: a real label waits over the threshold. A panel that cannot be read is no breach.
    """
    waiting = recall_waiting(inv)
    rows = _list_prefix_rows(waiting, list_prefixes(inv.settings))
    lines: tuple[Line, ...] = ()
    show, panel_error = attempt(lambda: read_panel(inv))
    if show is None:
        panel_words = f"the panel could not be read: {panel_error.partition('. ')[0]}"
    else:
        panel_words = f"the panel {PANEL_TITLE} has no series"
        if show.current:
            panel_words = show.words
        lines = (*show.lines, draw_listing(inv.now(), len(waiting.objects)))
        _add_panel(rows, show)
    title = f"Panel {PANEL_TITLE}, beside the listing"
    outcome = Outcome(
        value=round(waiting.longest_minutes, 1),
        rows=rows,
        plot=Plot(title=title, unit="objects", lines=lines, ages=_count_ages(waiting)),
        since=waiting.since,
    )
    reason = f"{waiting.describe()}; {panel_words}"
    if waiting.overdue:
        return outcome.breach(reason)
    return outcome.ok(reason)


def _add_panel(rows: list[dict[str, Json]], show: PanelShow) -> None:
    """Add to each row how many objects the panel shows for its prefix and origin."""
    shown: dict[tuple[str, str], float] = defaultdict(float)
    for series in show.current:
        group = (series.labels.get("prefix", ""), series.labels.get("origin", ""))
        shown[group] += series.samples[-1].value
    for row in rows:
        row["panel"] = shown.get((row["prefix"], row["origin"]))


def _count_ages(waiting: Waiting) -> tuple[tuple[float, float | None, int], ...]:
    """Count the real labels by age.

    Each item is the bounds of a group of ages, in minutes, and how many labels the group has. The
    last group has no upper bound: None.
    """
    counts: list[tuple[float, float | None, int]] = []
    for low, high in pairwise((*_AGE_BOUNDS, math.inf)):
        count = sum(low <= label.minutes < high for label in waiting.real)
        end = high if math.isfinite(high) else None
        counts.append((low, end, count))
    return tuple(counts)


def _list_prefix_rows(waiting: Waiting, prefixes: Sequence[str]) -> list[dict[str, Json]]:
    """Return a row for each prefix and origin. ``_add_panel`` fills in ``panel``."""
    groups: dict[tuple[str, str], list[Label]] = {}
    for label in waiting.objects:
        prefix = next(prefix for prefix in prefixes if label.info.key.startswith(prefix))
        group = groups.setdefault((prefix, label.origin), [])
        group.append(label)
    rows = []
    for (prefix, origin), labels in groups.items():
        row: dict[str, Json] = {
            "prefix": prefix,
            "origin": origin,
            "objects": len(labels),
            "panel": None,
            "bytes": sum(label.info.size_bytes for label in labels),
            "longest_minutes": round(labels[0].minutes, 1),  # the first one waits longest
        }
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
    reason = f"the {len(rows)} that wait longest, of {len(waiting.objects):,}"
    if not rows:
        reason = "nothing waits"
    return Outcome(value=len(rows), rows=rows).ok(reason)


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
    """Group the log's errors and warnings. A breach: a group of errors that is not past.

    A group is past when it ended before the worker last moved a label, and has been silent for ten
    of its usual intervals, a minute at most. A group of failed uploads is also past when the
    counters show a later upload.

    The log is read from the time that ``_find_log_start`` returns, so that errors of an earlier
    incident do not count.
    """
    service = inv.settings.worker_service
    start, span = _find_log_start(inv)
    lines = inv.clients.services.read_logs(service, since=start)
    moved_at, _ = attempt(lambda: inv.clients.fulfillment.read_worker().last_move_at)
    uploaded_at = find_last_upload(inv)
    # Groups come with errors first, and keep that order in both lists.
    present = []
    past = []
    for group in group_lines(lines):
        if group.level not in ("error", "warning"):
            continue
        later_upload_at = uploaded_at if _UPLOAD_ERROR.search(group.template) else None
        silence_start = inv.now() - _find_needed_silence(group)
        moves_again = _ended_before(group, moved_at) and _ended_before(group, silence_start)
        if moves_again or _ended_before(group, later_upload_at):
            past.append(group)
        else:
            present.append(group)
    errors = [group for group in present if group.level == "error"]
    past_errors = [group for group in past if group.level == "error"]
    total = sum(group.count for group in errors)
    rows = [_to_row(group, is_now=True) for group in present]
    rows += [_to_row(group, is_now=False) for group in past]
    outcome = Outcome(
        value=total if lines else None,
        source=f"log of {service} {span}",
        since=min((group.first for group in errors if group.first), default=None),
        rows=rows[:_MAX_GROUPS],
    )
    if not lines:
        return outcome.unknown(f"the log has no line {span}: that proves nothing")
    if errors:
        largest = max(errors, key=lambda group: group.count)
        last_times = [group.last for group in errors if group.last]
        words = f"{count_of(total, 'error')} {span}"
        if last_times:
            words += f", the last at {max(last_times):%H:%M:%S}"
        return outcome.breach(f"{words}; most often: {clip(largest.template, 160)}")
    if past_errors:
        last_at = max(group.last for group in past_errors if group.last)
        count = sum(group.count for group in past_errors)
        words = f"{count_of(count, 'error')}, the last at {format_time(last_at)}"
        return outcome.ok(f"past: {words}; since then labels moved or got in")
    words = f"no error in {count_of(len(lines), 'line')} {span}"
    first_at = min((line.at for line in lines if line.at), default=start)
    # A service that was started later has no older lines, and a long log is cut at its beginning.
    if first_at - start > timedelta(minutes=1):
        words += f"; the first line is of {format_time(first_at)}"
    return outcome.ok(words)


def _find_log_start(inv: Investigation) -> tuple[datetime, str]:
    """Return since when the log belongs to this incident, and say so in words.

    The log starts LAG_THRESHOLD_MINUTES before this incident began, since a cause acts before the
    first label is late. Without a breach, the log starts with the window. If the incident before
    this one was closed after that start, the log starts at that close or at the beginning of this
    one, whichever is earlier.
    """
    began = inv.journal.since()
    if began is None:
        minutes = inv.window.total_seconds() / 60
        start = inv.now() - inv.window
        words = f"in the last {minutes:.0f} min"
    else:
        limit = inv.settings.lag_threshold_minutes
        start = began - timedelta(minutes=limit)
        words = f"since {start:%H:%M:%S} UTC, {limit:g} min before this incident began"
    close = find_close_before(inv)
    if close is None or close.at <= start:
        return start, words
    if began and began <= close.at:
        return began, f"since {began:%H:%M:%S} UTC, when this incident began"
    return close.at, f"since {close.at:%H:%M:%S} UTC, when {close.incident} was closed"


def _find_needed_silence(group: LogGroup) -> timedelta:
    """Return for how long an error must be silent to be past.

    Ten of its usual intervals, a minute at most. An error that is too rare to have a usual interval
    must be silent for a minute.
    """
    if group.first is None or group.last is None or group.count < _MIN_COUNT:
        return _MAX_SILENCE
    interval = (group.last - group.first) / (group.count - 1)
    return min(_MAX_SILENCE, 10 * interval)


def _ended_before(group: LogGroup, time: datetime | None) -> bool:
    """Tell whether the last line of a group is older than a time; False if either is unknown."""
    return group.last is not None and time is not None and group.last < time


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
        "panel": NUMBER,
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
