"""The timeline: alerts, turning points, restarts, errors, notifications, actions, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter

from runbook_lib.errors import ClientError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Reading
from runbook_lib.record.detection import TRIGGER
from runbook_lib.section import attempt

from ..analysis.log_groups import group_lines
from ..analysis.samples import Sample, clean, compute_interval_s
from ..clients.services import LogLine
from ..investigation import Investigation
from .signals import LAG, is_drill, read_samples
from .worker_metrics import read_worker_log

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
    times = [sample.at for sample in clean(samples) if sample.value]
    longest_gap = timedelta(seconds=3 * interval_s)
    until_next = timedelta(seconds=round(interval_s))  # two looks may measure it a bit differently
    changes: list[Event] = []

    def add(at: datetime, word: str) -> None:
        is_end = word == "ends"
        text = f"{name} {state} {word}"
        event = Event(at, "alert", text, _CLOCK, subject=name, state=state, is_end=is_end)
        changes.append(event)

    last = None
    for at in [*times, None]:
        until = at or now
        if last is not None and until - last > longest_gap:
            add(last + until_next, "ends")
            last = None
        if at is not None and last is None:
            add(at, "begins")
        last = at
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
    for reading in readings:
        events += reading.events
    events += _find_signs(inv, findings)
    events += _list_actions(inv)
    skews_s = _find_skews(readings)
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
    since = inv.now() - inv.window
    # The worker's log must be readable: its ``ClientError`` is not caught.
    lines = read_worker_log(inv, since, max_lines=_MAX_LOG_LINES)
    yield from _list_errors(worker, lines, prefix="")
    states, _ = attempt(inv.clients.services.list_services)
    for name in [state.name for state in states or () if state.name != worker]:
        # A service that never wrote a line has no log.
        lines_of, _ = attempt(
            partial(inv.clients.services.read_logs, name, since=since, max_lines=_MAX_OTHER_LINES)
        )
        yield from _list_errors(name, lines_of or (), prefix=f"{name}: ")


def _list_errors(service: str, lines: Iterable[LogLine], *, prefix: str) -> list[Event]:
    """Return an event for each kind of error or warning in some lines, at most 12."""
    clock = _SYSTEMS.get(service, service.partition("-")[0])
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
    first_signs: dict[str, datetime] = {}
    for finding in (*findings, *inv.policy.list_causes(inv.journal)):
        at = finding.first_seen
        if at and finding.status is CauseStatus.SUPPORTED:
            first_signs[finding.name] = min(at, first_signs.get(finding.name, at))
    return [Event(at, "cause", f"first sign of {name}") for name, at in first_signs.items()]


def _find_skews(readings: Iterable[Reading]) -> dict[str, float]:
    """Return by how many seconds each system's clock is ahead, without skews of 2 s or less."""
    skews: dict[str, float] = {}
    for reading in readings:
        skews |= reading.observations.get("clock_skews_s", {})
    return {name: skew_s for name, skew_s in skews.items() if abs(skew_s) > _LEAST_SKEW_S}
