"""What happened, on one clock: alerts, turning points, restarts, errors, notices, our actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter

from runbook_lib.errors import ClientError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Reading

from ..analysis.causes import Cause
from ..analysis.log_groups import group_lines
from ..analysis.samples import clean, compute_interval_s, join
from ..clients.http_systems import Sample, Series
from ..investigation import Investigation
from .detection import LAG
from .worker_metrics import BACKLOG

_MAX_EVENTS = 200
_MAX_CHARS = 300
_CLOCK = "prometheus"  # of every sample


def find_turns(samples: Iterable[Sample], threshold: float, *, name: str, unit: str) -> list[Event]:
    """Find where a series rises over a threshold, where it is highest, where it falls again."""
    told: list[tuple[datetime, str]] = []
    for is_over, in_a_row in groupby(clean(samples), lambda sample: sample.value > threshold):
        run = list(in_a_row)
        (at, value), (peak_at, peak) = run[0], max(run, key=itemgetter(1))
        if is_over:
            told.append((at, f"is over {threshold:g} {unit}: {value:g}"))
            told.append((peak_at, f"is highest: {peak:g} {unit}"))
        elif told:
            told.append((at, f"is back to {value:g} {unit}"))
    return [Event(at, name, f"{name} {text}", _CLOCK) for at, text in told]


def find_alert_changes(samples: Iterable[Sample], *, name: str, gap_s: float) -> list[Event]:
    """Find when an alert, which is sampled while it lasts, begins and ends.

    Parameters
    ----------
    samples : one for each time at which it was seen; zero means that it was seen not to be
    gap_s : a longer time without a sample means that it ended; twice the sampling step is right

    Notes
    -----
    The newest run has no end: whether it goes on is for the present to say.
    """
    points = clean(samples)
    told = [(at, "begins") for at, value in points[:1] if value]
    for (at, value), (next_at, next_value) in pairwise(points):
        is_apart = (next_at - at).total_seconds() > gap_s
        told += [(at, "ends")] if value and (is_apart or not next_value) else []
        told += [(next_at, "begins")] if next_value and (is_apart or not value) else []
    return [Event(at, "alert", f"{name} {what}", _CLOCK) for at, what in told]


def merge_events(told: Iterable[Event], skews_s: Mapping[str, float]) -> list[Event]:
    """Put events in order on this machine's clock, each on one line, the newest 200 of them.

    Parameters
    ----------
    skews_s : by source, how many seconds its clock is ahead of ours
    """
    ours = set[tuple[datetime, str, str, str]]()
    for e in told:
        at = e.at - timedelta(seconds=skews_s.get(e.source, 0))
        ours.add((at, e.kind, " ".join(e.text.split())[:_MAX_CHARS], e.source))
    return [Event(*one) for one in sorted(ours)[-_MAX_EVENTS:]]


_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_LOG_LINES = 5000
_MAX_OTHER_LINES = 1000
#: Kinds of errors of one service: a broken one has hundreds.
_MAX_KINDS = 12
#: Whose clock a service's log has, where the name does not begin with it.
_SYSTEMS = {"minio": "store", "synthetic-probe": "probe", "notification-sink": "notifications"}
#: A ``Date`` header tells whole seconds: a smaller difference proves nothing.
_LEAST_SKEW_S = 2.0


def read_events(inv: Investigation) -> list[Event]:
    """Read what happened in the window, each system by its own clock, and say what is missing."""
    readers: dict[str, Callable[[Investigation], Iterable[Event]]] = {
        "alerts": _read_alerts,
        "lag and backlog": _read_turns,
        "restarts": _read_restarts,
        "logs": _read_errors,
        "notifications": _read_notices,
    }
    events, now = list[Event](), inv.now()
    for name, read in readers.items():
        try:
            events += read(inv)
        except ClientError as error:
            events.append(Event(now, "unknown", f"{name} could not be read: {error}"))
    return merge_events((e for e in events if e.at >= now - inv.window), {})


def build_timeline(inv: Investigation, findings: Iterable[Finding]) -> tuple[Event, ...]:
    """Put the events of the newest readings and our actions on this machine's clock.

    Oldest first; from the journal alone.
    """
    readings = inv.latest().values()
    read = [event for r in readings for event in r.events]
    told = [*read, *_find_signs(inv, findings), *_read_actions(inv), *_find_settings(inv, readings)]
    return tuple(merge_events(told, _read_skews(readings)))


def _query(inv: Investigation, selector: str) -> list[Series]:
    return inv.clients.prometheus.query_samples(selector, inv.window.total_seconds())


def _read_alerts(inv: Investigation) -> Iterable[Event]:
    for series in _query(inv, _ALERT_STATES):
        name = f"{series.labels.get('alertname')} {series.labels.get('alertstate')}"
        name += " (drill)" if series.labels.get("drill") == "true" else ""
        gap_s = 3 * compute_interval_s(series.samples)
        yield from find_alert_changes(series.samples, name=name, gap_s=gap_s)


def _read_turns(inv: Investigation) -> Iterable[Event]:
    lag = [s._replace(value=round(s.value, 1)) for s in join(_query(inv, LAG))]
    yield from find_turns(lag, inv.settings.lag_threshold_minutes, name="lag", unit="min")
    backlog = join(_query(inv, BACKLOG % inv.settings.pending_prefix))
    usual = sorted(value for _, value in backlog)[len(backlog) // 2] if backlog else 0.0
    yield from find_turns(backlog, 2 * usual + 20, name="backlog", unit="objects")


def _read_restarts(inv: Investigation) -> Iterable[Event]:
    """Return since when each service is as it is; those that start together are one event."""
    together: dict[tuple[datetime, str], list[str]] = {}
    for state in inv.clients.services.list_services():
        if state.since is not None:
            is_up = state.running or state.state.upper() == "STARTING"
            what = "started" if is_up else f"stopped ({state.state})"
            together.setdefault((state.since, what), []).append(state.name)
    for (at, what), names in together.items():
        yield Event(at, "restart", f"{', '.join(names)} {what}")


def _read_errors(inv: Investigation) -> Iterable[Event]:
    """Return the first of each kind of error and of warning in every service's log.

    The worker's log is read in full length, the others' newest lines.
    """
    since, own = inv.now() - inv.window, inv.settings.worker_service
    for name in dict.fromkeys([own, *(s.name for s in inv.clients.services.list_services())]):
        limit = _MAX_LOG_LINES if name == own else _MAX_OTHER_LINES
        try:
            lines = inv.clients.services.read_logs(name, since=since, max_lines=limit)
        except ClientError:
            if name == own:
                raise
            continue  # one that never wrote a line has no log
        groups, system = group_lines(lines), _SYSTEMS.get(name, name.partition("-")[0])
        kinds = [(g.first, g) for g in groups if g.first and g.level in ("error", "warning")]
        for at, kind in kinds[:_MAX_KINDS]:
            text = f"{kind.count}× from here: {kind.example}"
            yield Event(at, kind.level, text if name == own else f"{name}: {text}", system)


def _read_notices(inv: Investigation) -> Iterable[Event]:
    client, since = inv.clients.notifications, inv.now() - inv.window
    for n in client.list_notifications(since=since) if client.url else ():
        names = ", ".join(n.alertnames) + (" (drill)" if n.is_drill else "")
        text = f"{n.channel} receives {names}: {n.status}"
        yield Event(n.received_at, "notice", text, "notifications")


def _read_actions(inv: Investigation) -> Iterable[Event]:
    for action in inv.journal.list_actions(ActionPhase.APPLIED):
        yield Event(action.at, "action", f"{action.step} {action.action} on {action.target}")
    for entry in inv.journal.entries:
        if entry.kind == "drill" and entry.data.get("event") in ("inject", "reverted"):
            yield Event(entry.at, "drill", str(entry.data["event"]))


def _find_signs(inv: Investigation, findings: Iterable[Finding]) -> list[Event]:
    """Return the first sign of each cause that is supported, or was before."""
    first: dict[str, datetime] = {}
    for f in (*findings, *(f for c in inv.journal.conclusions for f in c.findings)):
        if f.status is CauseStatus.SUPPORTED and f.first_seen:
            first[f.name] = min(f.first_seen, first.get(f.name, f.first_seen))
    return [Event(at, "cause", f"first sign of {name}") for name, at in first.items()]


def _find_settings(inv: Investigation, readings: Iterable[Reading]) -> Iterable[Event]:
    """Say since when the worker has wrong settings: since it started."""
    wrong = [place for r in readings if (place := r.observations.get("worker_place"))]
    since = [at for r in readings if (at := r.first_seen.get(Cause.BAD_PREFIX))]
    if wrong and since:
        text = f"{inv.settings.worker_service} runs since then, and {wrong[0]}"
        yield Event(since[0], "configuration", text)


def _read_skews(readings: Iterable[Reading]) -> dict[str, float]:
    skews = {n: s for r in readings for n, s in r.observations.get("clock_skews_s", {}).items()}
    return {name: skew for name, skew in skews.items() if abs(skew) > _LEAST_SKEW_S}
