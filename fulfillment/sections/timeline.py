"""What happened, on one clock: alerts, turning points, restarts, errors, notices, our actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby, pairwise

from runbook_lib.errors import ClientError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Reading

from ..analysis.causes import Cause
from ..analysis.log_groups import group_lines
from ..analysis.samples import Sample, clean, compute_interval_s
from ..investigation import Investigation
from .signals import BACKLOG, LAG, is_drill, read_samples

_MAX_EVENTS = 200
_MAX_CHARS = 300
_CLOCK = "prometheus"  # of every sample
_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_LOG_LINES = 5000
_MAX_OTHER_LINES = 1000
#: Kinds of errors of one service: a broken one has hundreds.
_MAX_KINDS = 12
#: Whose clock a service's log has, where the name does not begin with it.
_SYSTEMS = {"minio": "store", "synthetic-probe": "probe", "notification-sink": "notifications"}
#: A ``Date`` header tells whole seconds: a smaller difference proves nothing.
_LEAST_SKEW_S = 2.0


def find_turns(samples: Iterable[Sample], threshold: float, *, name: str, unit: str) -> list[Event]:
    """Find where a series rises over a threshold, where it is highest, where it falls again."""
    turns: list[Event] = []

    def add(at: datetime, text: str) -> None:
        turns.append(Event(at, name, f"{name} {text}", _CLOCK))

    for is_over, group in groupby(clean(samples), lambda sample: sample.value > threshold):
        run = list(group)
        first = run[0]
        if is_over:
            highest = max(run, key=lambda sample: sample.value)
            add(first.at, f"is over {threshold:g} {unit}: {first.value:g}")
            add(highest.at, f"is highest: {highest.value:g} {unit}")
        elif turns:
            add(first.at, f"is back to {first.value:g} {unit}")
    return turns


def find_alert_changes(samples: Iterable[Sample], *, name: str, gap_s: float) -> list[Event]:
    """Find when an alert, which is sampled while it lasts, begins and ends.

    Parameters
    ----------
    samples : one for each time at which it was seen; zero means that it was seen not to be
    gap_s : a longer time without a sample means that it ended; twice the sampling step is right

    Notes
    -----
    The newest run has no end: the samples do not show whether it goes on.
    """
    points = clean(samples)
    changes: list[Event] = []

    def add(at: datetime, what: str) -> None:
        changes.append(Event(at, "alert", f"{name} {what}", _CLOCK))

    if points and points[0].value:
        add(points[0].at, "begins")
    for old, new in pairwise(points):
        is_apart = (new.at - old.at).total_seconds() > gap_s
        if old.value and (is_apart or not new.value):
            add(old.at, "ends")
        if new.value and (is_apart or not old.value):
            add(new.at, "begins")
    return changes


def merge_events(events: Iterable[Event], skews_s: Mapping[str, float]) -> list[Event]:
    """Put events in order on this machine's clock, each on one line, the newest 200 of them.

    Parameters
    ----------
    skews_s : by source, how many seconds its clock is ahead of ours
    """
    merged = set()
    for event in events:
        at = event.at - timedelta(seconds=skews_s.get(event.source, 0))
        text = " ".join(event.text.split())[:_MAX_CHARS]
        merged.add(Event(at, event.kind, text, event.source))
    ordered = sorted(merged, key=lambda event: (event.at, event.kind, event.text, event.source))
    return ordered[-_MAX_EVENTS:]


def read_events(inv: Investigation) -> list[Event]:
    """Read what happened in the window, each system by its own clock, and say what is missing."""
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
            events.append(Event(now, "unknown", f"{name} could not be read: {error}"))
    return merge_events([event for event in events if event.at >= now - inv.window], {})


def build_timeline(inv: Investigation, findings: Iterable[Finding]) -> tuple[Event, ...]:
    """Put the events of the newest readings and our actions on this machine's clock.

    Oldest first; from the journal alone.
    """
    readings = list(inv.latest().values())
    events: list[Event] = []
    for reading in readings:
        events += reading.events
    events += _find_signs(inv, findings)
    events += _list_actions(inv)
    events += _find_settings(inv, readings)
    return tuple(merge_events(events, _find_skews(readings)))


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    window_s = inv.window.total_seconds()
    for series in inv.clients.prometheus.query_samples(_ALERT_STATES, window_s):
        name = f"{series.labels.get('alertname')} {series.labels.get('alertstate')}"
        if is_drill(series.labels):
            name += " (drill)"
        gap_s = 3 * compute_interval_s(series.samples)
        yield from find_alert_changes(series.samples, name=name, gap_s=gap_s)


def _read_turns(inv: Investigation) -> Iterator[Event]:
    window_s = inv.window.total_seconds()
    lag = [Sample(sample.at, round(sample.value, 1)) for sample in read_samples(inv, LAG, window_s)]
    yield from find_turns(lag, inv.settings.lag_threshold_minutes, name="lag", unit="min")
    backlog = read_samples(inv, BACKLOG % inv.settings.pending_prefix, window_s)
    values = sorted(sample.value for sample in backlog)
    usual = values[len(values) // 2] if values else 0.0
    yield from find_turns(backlog, 2 * usual + 20, name="backlog", unit="objects")


def _read_restarts(inv: Investigation) -> Iterator[Event]:
    """Yield since when each service is as it is; those that start together are one event."""
    together: dict[tuple[datetime, str], list[str]] = {}
    for state in inv.clients.services.list_services():
        if state.since is not None:
            is_up = state.running or state.state.upper() == "STARTING"
            what = "started" if is_up else f"stopped ({state.state})"
            together.setdefault((state.since, what), []).append(state.name)
    for (at, what), names in together.items():
        yield Event(at, "restart", f"{', '.join(names)} {what}")


def _read_errors(inv: Investigation) -> Iterator[Event]:
    """Yield the first of each kind of error and of warning in every service's log.

    The worker's log is read in full length, the others' newest lines.
    """
    worker = inv.settings.worker_service
    services = [state.name for state in inv.clients.services.list_services()]
    yield from _read_errors_of(inv, worker, _MAX_LOG_LINES)
    for service in services:
        if service != worker:
            try:
                yield from _read_errors_of(inv, service, _MAX_OTHER_LINES)
            except ClientError:
                continue  # one that never wrote a line has no log


def _read_errors_of(inv: Investigation, service: str, max_lines: int) -> list[Event]:
    since = inv.now() - inv.window
    lines = inv.clients.services.read_logs(service, since=since, max_lines=max_lines)
    clock = _SYSTEMS.get(service, service.partition("-")[0])
    is_worker = service == inv.settings.worker_service
    events = []
    for group in group_lines(lines):
        if group.first and group.level in ("error", "warning"):
            text = f"{group.count}× from here: {group.example}"
            own_text = text if is_worker else f"{service}: {text}"
            events.append(Event(group.first, group.level, own_text, clock))
    return events[:_MAX_KINDS]


def _read_notices(inv: Investigation) -> Iterator[Event]:
    client = inv.clients.notifications
    if not client.url:
        return
    for notice in client.list_notifications(since=inv.now() - inv.window):
        names = ", ".join(notice.alertnames)
        if notice.is_drill:
            names += " (drill)"
        text = f"{notice.channel} receives {names}: {notice.status}"
        yield Event(notice.received_at, "notice", text, "notifications")


def _list_actions(inv: Investigation) -> Iterator[Event]:
    for action in inv.journal.list_actions(ActionPhase.APPLIED):
        yield Event(action.at, "action", f"{action.step} {action.action} on {action.target}")
    for entry in inv.journal.entries:
        if entry.kind == "drill" and entry.data.get("event") in ("inject", "reverted"):
            yield Event(entry.at, "drill", str(entry.data["event"]))


def _find_signs(inv: Investigation, findings: Iterable[Finding]) -> list[Event]:
    """Return the first sign of each cause that is supported, or was before."""
    every = list(findings)
    for conclusion in inv.journal.conclusions:
        every += conclusion.findings
    first: dict[str, datetime] = {}
    for finding in every:
        at = finding.first_seen
        if at and finding.status is CauseStatus.SUPPORTED:
            first[finding.name] = min(at, first.get(finding.name, at))
    return [Event(at, "cause", f"first sign of {name}") for name, at in first.items()]


def _find_settings(inv: Investigation, readings: Iterable[Reading]) -> list[Event]:
    """Say since when the worker has wrong settings: since it started."""
    place = ""
    since = None
    for reading in readings:
        place = place or reading.observations.get("worker_place") or ""
        since = since or reading.first_seen.get(Cause.BAD_PREFIX)
    if not place or not since:
        return []
    text = f"{inv.settings.worker_service} runs since then, and {place}"
    return [Event(since, "configuration", text)]


def _find_skews(readings: Iterable[Reading]) -> dict[str, float]:
    """Return by how many seconds each system's clock is ahead, where that is proven."""
    skews: dict[str, float] = {}
    for reading in readings:
        skews |= reading.observations.get("clock_skews_s", {})
    return {name: skew for name, skew in skews.items() if abs(skew) > _LEAST_SKEW_S}
