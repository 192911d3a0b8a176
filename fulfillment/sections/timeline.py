"""The timeline: alerts, turning points, restarts, errors, notifications, actions, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from runbook_lib.errors import ClientError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding
from runbook_lib.record.detection import TRIGGER

from ..analysis.log_groups import group_lines
from ..analysis.samples import Sample, clean, compute_interval_s
from ..investigation import Investigation
from .signals import LAG, is_drill, read_samples
from .worker_metrics import read_worker_log

_MAX_EVENTS = 200
_MAX_CHARS = 300
#: The source of every event from a sample: Prometheus' clock gives its time.
_CLOCK = "prometheus"
_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_LOG_LINES = 5000
#: How many kinds of errors to show: a broken service has hundreds.
_MAX_KINDS = 12
#: A ``Date`` header has whole seconds: a smaller difference proves nothing.
_LEAST_SKEW_S = 2.0


def find_turns(samples: Iterable[Sample], threshold: float, *, name: str, unit: str) -> list[Event]:
    """Find when a series rises over a threshold, when it is highest, and when it falls back.

    Parameters
    ----------
    threshold : in ``unit``
    name, unit : of the series, for the words of the events; their kind is ``name``
    """
    turns: list[Event] = []
    for is_over, group in groupby(clean(samples), lambda sample: sample.value > threshold):
        run = list(group)
        first = run[0]
        if is_over:
            highest = max(run, key=attrgetter("value"))
            rise = f"{name} is over {threshold:g} {unit}: {first.value:g}"
            peak = f"{name} reaches {highest.value:g} {unit}"
            turns.append(Event(first.at, name, rise, _CLOCK))
            turns.append(Event(highest.at, name, peak, _CLOCK, highest.value))
        elif turns:
            # Before its first rise, a series under the threshold is not back from anything.
            turns.append(Event(first.at, name, f"{name} is back to {first.value:g} {unit}", _CLOCK))
    return turns


def find_alert_changes(
    samples: Iterable[Sample], *, name: str, state: str, interval_s: float, now: datetime
) -> list[Event]:
    """Find when an alert's state begins and ends: with the first evaluation after its last sample.

    Parameters
    ----------
    samples : samples of the alert; Prometheus has them only while the alert lasts
    interval_s : the time between two evaluations; three without a sample mean that the alert ended
    now : when the samples were read. An alert whose newest sample is much older has ended
    """
    longest_gap = timedelta(seconds=3 * interval_s)
    until_next = timedelta(seconds=round(interval_s))  # two looks may measure it a bit differently
    spans: list[list[datetime]] = []
    for sample in clean(samples):
        if not sample.value:
            continue
        if not spans or sample.at - spans[-1][-1] > longest_gap:
            spans.append([])
        spans[-1].append(sample.at)
    changes: list[Event] = []
    for span in spans:
        ends = [(span[-1] + until_next, "ends", True)]
        if span is spans[-1] and now - span[-1] <= longest_gap:
            ends = []
        for at, word, is_end in [(span[0], "begins", False), *ends]:
            text = f"{name} {state} {word}"
            event = Event(at, "alert", text, _CLOCK, subject=name, state=state, is_end=is_end)
            changes.append(event)
    return changes


def merge_events(events: Iterable[Event], skews_s: Mapping[str, float]) -> list[Event]:
    """Return the newest 200 events in order on this machine's clock, each once and on one line.

    Parameters
    ----------
    skews_s : by source, how many seconds its clock is ahead of ours
    """
    merged = set()
    for event in events:
        skew_s = skews_s.get(event.source, 0.0)
        if abs(skew_s) <= _LEAST_SKEW_S:
            skew_s = 0.0
        text = " ".join(event.text.split())[:_MAX_CHARS]
        merged.add(replace(event, at=event.at - timedelta(seconds=skew_s), text=text))
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
        "lag": _read_turns,
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
    skews_s: dict[str, float] = {}
    for reading in readings:
        events += reading.events
        skews_s |= reading.observations.get("clock_skews_s", {})
    for finding in {f.name: f for f in (*findings, *inv.policy.list_causes(inv.journal))}.values():
        if finding.first_seen and finding.status is CauseStatus.SUPPORTED:
            events.append(Event(finding.first_seen, "cause", f"first sign of {finding.name}"))
    events += _list_actions(inv)
    return tuple(merge_events(events, skews_s))


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    """Yield when each Fulfillment alert became pending or firing, and when that ended."""
    found = inv.clients.prometheus.query_samples(_ALERT_STATES, inv.window.total_seconds())
    # All are evaluated alike; a state that lasted for one sample shows no interval.
    longest = max((series.samples for series in found), key=len, default=())
    for series in found:
        name = str(series.labels.get("alertname"))
        if is_drill(series.labels):
            name += " (drill)"
        yield from find_alert_changes(
            series.samples,
            name=name,
            state=str(series.labels.get("alertstate")),
            interval_s=compute_interval_s(longest),
            now=inv.now(),
        )


def _read_turns(inv: Investigation) -> Iterator[Event]:
    """Yield the turning points of the lag."""
    samples = read_samples(inv, LAG, inv.window.total_seconds())
    lag = [Sample(sample.at, round(sample.value, 1)) for sample in samples]
    yield from find_turns(lag, inv.settings.lag_threshold_minutes, name="lag", unit="min")


def _read_restarts(inv: Investigation) -> Iterator[Event]:
    """Yield when each service started or stopped; the same change at the same time is one event."""
    together: dict[tuple[datetime, str], list[str]] = {}
    for state in inv.clients.services.list_services():
        is_up = state.running or state.state.upper() == "STARTING"
        change = "started" if is_up else f"stopped ({state.state})"
        if state.since:
            together.setdefault((state.since, change), []).append(state.name)
    for (at, change), names in together.items():
        yield Event(at, "restart", f"{', '.join(names)} {change}")


def _read_errors(inv: Investigation) -> Iterator[Event]:
    """Yield the first line of each kind of error and of warning in the worker's log, at most 12."""
    lines = read_worker_log(inv, inv.now() - inv.window, max_lines=_MAX_LOG_LINES)
    kinds = [group for group in group_lines(lines) if group.level in ("error", "warning")]
    for group in kinds[:_MAX_KINDS]:
        if group.first:
            text = f"{group.count}× in all; the first: {group.example}"
            yield Event(group.first, group.level, text, "fulfillment", subject=group.example)


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
