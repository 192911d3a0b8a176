"""The timeline: alerts, turning points, restarts, errors, notifications, actions, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from statistics import median_high

from runbook_lib.errors import ClientError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Reading
from runbook_lib.record.detection import TRIGGER

from ..analysis.causes import Cause
from ..analysis.log_groups import group_lines
from ..analysis.samples import Sample, clean, compute_interval_s
from ..investigation import Investigation
from .signals import BACKLOG, LAG, is_drill, read_samples

_MAX_EVENTS = 200
_MAX_CHARS = 300
#: The source of every event from a sample: Prometheus' clock gives its time.
_CLOCK = "prometheus"
_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_LOG_LINES = 5000
_MAX_OTHER_LINES = 1000
#: How many kinds of errors to show of one service: a broken service has hundreds.
_MAX_KINDS = 12
#: The system whose clock a service's log has. For other services, the first word of
#: the name is the system.
_SYSTEMS = {"minio": "store", "synthetic-probe": "probe", "notification-sink": "notifications"}
#: A ``Date`` header has whole seconds: a smaller difference proves nothing.
_LEAST_SKEW_S = 2.0


def find_turns(
    samples: Iterable[Sample],
    threshold: float,
    *,
    name: str,
    unit: str,
) -> list[Event]:
    """Find when a series rises over a threshold, when it is highest, and when it falls back.

    Parameters
    ----------
    threshold : in ``unit``
    name, unit : of the series, for the words of the events; their kind is ``name``
    """
    turns: list[Event] = []

    def add(at: datetime, text: str, value: float | None = None) -> None:
        turns.append(Event(at, name, f"{name} {text}", _CLOCK, value))

    def is_over_threshold(sample: Sample) -> bool:
        return sample.value > threshold

    for is_over, group in groupby(clean(samples), is_over_threshold):
        run = list(group)
        first = run[0]
        if is_over:
            highest = max(run, key=_get_value)
            add(first.at, f"is over {threshold:g} {unit}: {first.value:g}")
            add(highest.at, f"reaches {highest.value:g} {unit}", highest.value)
        elif turns:
            # Before its first rise, a series under the threshold is not back from anything.
            add(first.at, f"is back to {first.value:g} {unit}")
    return turns


def find_late_peaks(lag: Iterable[Sample], backlog: Iterable[Sample], limit: float) -> list[Event]:
    """Find how many objects waited at most, each time that the lag was over its limit.

    Such a peak counts as a look at what an incident affected, however small it is.
    """
    # The samples of one scrape have one time.
    late_at = {sample.at for sample in lag if sample.value > limit}
    counts = [count if count.at in late_at else Sample(count.at, 0.0) for count in backlog]
    turns = find_turns(counts, 0, name="backlog", unit="objects")
    # Of the events, only a peak has a value.
    return [turn for turn in turns if turn.value]


def _get_value(sample: Sample) -> float:
    return sample.value


def find_alert_changes(
    samples: Iterable[Sample], *, name: str, state: str, interval_s: float, now: datetime
) -> list[Event]:
    """Find when an alert's state begins and ends: with the first evaluation after its last sample.

    Parameters
    ----------
    samples : samples of the alert; Prometheus has them only while the alert lasts. Zero means that
        the alert was not there
    interval_s : the time between two evaluations; three without a sample mean that the alert ended
    now : when the samples were read. An alert whose newest sample is much older has ended
    """
    points = clean(samples)
    gap_s = 3 * interval_s
    until_next = timedelta(seconds=round(interval_s))  # two looks may measure it a bit differently
    changes: list[Event] = []

    def add(at: datetime, *, is_end: bool = False) -> None:
        """Note that the state begins or ends."""
        text = f"{name} {state} {'ends' if is_end else 'begins'}"
        event = Event(at, "alert", text, _CLOCK, subject=name, state=state, is_end=is_end)
        changes.append(event)

    if points and points[0].value:
        add(points[0].at)
    for old, new in pairwise(points):
        pause_s = (new.at - old.at).total_seconds()
        goes_on = old.value and new.value and pause_s <= gap_s
        if goes_on:
            continue
        if old.value:
            add(old.at + until_next, is_end=True)
        if new.value:
            add(new.at)
    if points and points[-1].value:
        silent_s = (now - points[-1].at).total_seconds()
        if silent_s > gap_s:
            add(points[-1].at + until_next, is_end=True)
    return changes


def merge_events(events: Iterable[Event], skews_s: Mapping[str, float]) -> list[Event]:
    """Return the newest 200 events in order on this machine's clock, each once and on one line.

    Parameters
    ----------
    skews_s : by source, how many seconds its clock is ahead of ours
    """
    merged = set()
    for event in events:
        skew_s = skews_s.get(event.source, 0)
        at = event.at - timedelta(seconds=skew_s)
        line = " ".join(event.text.split())
        text = line[:_MAX_CHARS]
        merged.add(replace(event, at=at, text=text))
    ordered = sorted(merged, key=_sort_key)
    return ordered[-_MAX_EVENTS:]


def _sort_key(event: Event) -> tuple[datetime, bool, str, str, str]:
    """Sort by time; of the same time, what began the trouble comes first."""
    return event.at, event.kind != TRIGGER, event.kind, event.text, event.source


def read_events(inv: Investigation) -> list[Event]:
    """Read what happened in the window, each system by its own clock.

    An event of the kind ``unknown`` says what could not be read.
    """
    readers: dict[str, Callable[[Investigation], Iterable[Event]]] = {
        "alerts": _read_alerts,
        "lag and backlog": _read_turns,
        "restarts": _read_restarts,
        "logs": _read_errors,
        "notifications": _read_notices,
    }
    events: list[Event] = []
    now = inv.now()
    for name, read in readers.items():
        try:
            events += read(inv)
        except ClientError as error:
            text = f"{name} could not be read: {error}"
            events.append(Event(now, "unknown", text))
    start = now - inv.window
    in_window = [event for event in events if event.at >= start]
    # The clocks are corrected later: another step reads their skew.
    return merge_events(in_window, {})


def build_timeline(inv: Investigation, findings: Iterable[Finding]) -> tuple[Event, ...]:
    """Return the events of the newest readings and our actions, on this machine's clock.

    The oldest event comes first. Only the journal is read.

    Parameters
    ----------
    findings : of the diagnosis that is being concluded; the first sign of a cause is an event
    """
    readings = list(inv.latest().values())
    events: list[Event] = []
    for reading in readings:
        events += reading.events
    events += _find_signs(inv, findings)
    events += _list_actions(inv)
    events += _find_settings(inv, readings)
    skews_s = _find_skews(readings)
    return tuple(merge_events(events, skews_s))


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    """Yield when each Fulfillment alert became pending or firing, and when that ended."""
    window_s = inv.window.total_seconds()
    states = inv.clients.prometheus.query_samples(_ALERT_STATES, window_s)
    # A state that lasted for one sample shows no interval: the others do.
    intervals_s = [compute_interval_s(s.samples) for s in states if len(s.samples) > 1]
    usual_s = max(intervals_s, default=compute_interval_s(()))
    for series in states:
        labels = series.labels
        name = str(labels.get("alertname"))
        if is_drill(labels):
            name += " (drill)"
        interval_s = compute_interval_s(series.samples) if len(series.samples) > 1 else usual_s
        yield from find_alert_changes(
            series.samples,
            name=name,
            state=str(labels.get("alertstate")),
            interval_s=interval_s,
            now=inv.now(),
        )


def _read_turns(inv: Investigation) -> Iterator[Event]:
    """Yield the turning points of the lag and of the backlog, and the peaks of late times."""
    window_s = inv.window.total_seconds()
    lag = []
    for sample in read_samples(inv, LAG, window_s):
        minutes = round(sample.value, 1)
        lag.append(Sample(sample.at, minutes))
    limit = inv.settings.lag_threshold_minutes
    yield from find_turns(lag, limit, name="lag", unit="min")
    selector = BACKLOG % inv.settings.pending_prefix
    backlog = read_samples(inv, selector, window_s)
    usual = 0.0
    if backlog:
        usual = median_high(sample.value for sample in backlog)
    # Twice the median is high; the 20 keep a rise by a few objects out of the timeline.
    high = 2 * usual + 20
    yield from find_turns(backlog, high, name="backlog", unit="objects")
    yield from find_late_peaks(lag, backlog, limit)


def _read_restarts(inv: Investigation) -> Iterator[Event]:
    """Yield when each service started or stopped; the same change at the same time is one event."""
    together: dict[tuple[datetime, str], list[str]] = {}
    for state in inv.clients.services.list_services():
        if state.since is None:
            continue
        if state.running or state.state.upper() == "STARTING":
            change = "started"
        else:
            change = f"stopped ({state.state})"
        names = together.setdefault((state.since, change), [])
        names.append(state.name)
    for (at, change), names in together.items():
        text = f"{', '.join(names)} {change}"
        yield Event(at, "restart", text)


def _read_errors(inv: Investigation) -> Iterator[Event]:
    """Yield the first entry of each kind of error and of warning in every service's log.

    Of each service, at most 12 kinds. Reads the newest 5,000 lines of the worker, and the newest
    1,000 of every other service.
    """
    worker = inv.settings.worker_service
    states = inv.clients.services.list_services()
    # The worker's log must be readable: its ``ClientError`` is not caught.
    yield from _read_errors_of(inv, worker, _MAX_LOG_LINES)
    for state in states:
        if state.name == worker:
            continue
        try:
            yield from _read_errors_of(inv, state.name, _MAX_OTHER_LINES)
        except ClientError:
            continue  # such as a service that never wrote a line: it has no log


def _read_errors_of(inv: Investigation, service: str, max_lines: int) -> list[Event]:
    """Return an event for each kind of error or warning in a log's newest lines, at most 12."""
    since = inv.now() - inv.window
    lines = inv.clients.services.read_logs(service, since=since, max_lines=max_lines)
    first_word = service.partition("-")[0]
    clock = _SYSTEMS.get(service, first_word)
    # An error without the name of a service is the worker's.
    prefix = f"{service}: "
    if service == inv.settings.worker_service:
        prefix = ""
    events = []
    for group in group_lines(lines):
        if group.first and group.level in ("error", "warning"):
            text = f"{prefix}{group.count}× in all; the first: {group.example}"
            event = Event(group.first, group.level, text, clock, subject=group.example)
            events.append(event)
    return events[:_MAX_KINDS]


def _read_notices(inv: Investigation) -> Iterator[Event]:
    """Yield each notification about alerts that a channel received."""
    client = inv.clients.notifications
    if not client.url:
        return
    since = inv.now() - inv.window
    for notice in client.list_notifications(since=since):
        if not notice.alertnames:
            continue  # a delivered report is not an alert
        names = ", ".join(notice.alertnames)
        if notice.is_drill:
            names += " (drill)"
        yield Event(
            notice.received_at,
            "notice",
            f"{notice.channel} receives {names}: {notice.status}",
            "notifications",
            subject=names,
            state=notice.status,
            channel=notice.channel,
        )


def _list_actions(inv: Investigation) -> Iterator[Event]:
    """Yield an event for each applied action, and for a drill's fault: injected, and taken back."""
    for action in inv.journal.list_actions(ActionPhase.APPLIED):
        text = f"{action.step} {action.action} on {action.target}"
        yield Event(action.at, "action", text)
    for entry in inv.journal.entries:
        event = entry.data.get("event")
        if entry.kind == "drill" and event in ("inject", "reverted"):
            yield Event(entry.at, "drill", str(event))


def _find_signs(inv: Investigation, findings: Iterable[Finding]) -> list[Event]:
    """Return an event for the first sign of each cause that is supported now, or was earlier."""
    all_findings = list(findings)
    for conclusion in inv.journal.conclusions:
        all_findings += conclusion.findings
    first_signs: dict[str, datetime] = {}
    for finding in all_findings:
        at = finding.first_seen
        if at and finding.status is CauseStatus.SUPPORTED:
            earliest = first_signs.get(finding.name, at)
            first_signs[finding.name] = min(at, earliest)
    events = []
    for name, at in first_signs.items():
        events.append(Event(at, "cause", f"first sign of {name}"))
    return events


def _find_settings(inv: Investigation, readings: Iterable[Reading]) -> list[Event]:
    """Return an event for the start of a worker with wrong settings; else nothing.

    A worker has its settings from its start.
    """
    wrong_place = ""
    since = None
    for reading in readings:
        wrong_place = wrong_place or reading.observations.get("worker_place") or ""
        since = since or reading.first_seen.get(Cause.BAD_PREFIX)
    if not wrong_place or not since:
        return []
    text = f"{inv.settings.worker_service} has run since then, and {wrong_place}"
    return [Event(since, "configuration", text)]


def _find_skews(readings: Iterable[Reading]) -> dict[str, float]:
    """Return by how many seconds each system's clock is ahead, without skews of 2 s or less."""
    skews: dict[str, float] = {}
    for reading in readings:
        skews |= reading.observations.get("clock_skews_s", {})
    return {name: skew_s for name, skew_s in skews.items() if abs(skew_s) > _LEAST_SKEW_S}
