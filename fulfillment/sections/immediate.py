"""Section 3: the first five minutes. Who knows, how much waits, is the store well. Only reads."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from runbook_lib.errors import AccessDeniedError, ClientError
from runbook_lib.model import Outcome, Plot, Role, Status, format_time
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, step, to_rows
from runbook_lib.show.text import count_of

from ..analysis.labels import Label
from ..analysis.log_groups import group_lines
from ..analysis.samples import list_growth
from ..change.synthetic import list_prefixes
from ..clients.http_systems import Notification, RoutedAlert, Series
from ..investigation import Investigation
from . import detection
from .detection import ALERT, ALERTS, LISTING, is_drill, read_waiting

NAME = "03_immediate_actions"
TITLE = "Immediate actions"
Parameters = SectionParameters
#: Each with what names it in Alertmanager's configuration.
CHANNELS = {"slack": ("slack",), "email": ("smtp", "email"), "teams": ("teams", "webhook")}
_SENT = "alertmanager_notifications_total"  # each attempt, the failed ones too
_FAILED = "alertmanager_notifications_failed_total"
_NO_SUCH_FIELD = re.compile(r"can't evaluate field (\w+) in type \*template\.Data")
_EDGES = (0, 1, 5, 10, 15, 30, 60, 120, 1440)
#: An error that was not repeated for so long, while labels moved, is past.
_QUIET = timedelta(minutes=1)


@step(
    "3.1", "The alert reached the right receivers", name="alert delivery", role=Role.DELIVERY,
    source="$alertmanager_url/api/v2/alerts; $notifications_url/notifications",
    threshold="a channel on the alert's route has not received it",
)  # fmt: skip
def _read_delivery(inv: Investigation) -> Outcome:
    """Follow each active alert to its receivers.

    Delivered only on a receiver's evidence; a breach when it is silenced, inhibited, held back,
    sent to a placeholder, or Alertmanager counts failures since it started; else unknown.
    """
    held = inv.clients.alertmanager.list_alerts()
    alerts = [a for a in held if a.labels.get("alertname") in ALERTS]
    real = [a for a in alerts if not is_drill(a.labels)]
    followed = real or alerts
    if not followed:  # right only if Prometheus fires none either
        seen, fires = Outcome(value="no alert is active"), inv.clients.prometheus.list_alerts()
        if any(a.name == ALERT and a.state == "firing" and not is_drill(a.labels) for a in fires):
            return seen.breach(f"{ALERT} fires in Prometheus, but Alertmanager does not have it")
        return seen.ok("Prometheus fires none either: nothing to deliver")
    start = min(a.starts_at for a in followed)
    problems = [p for a in followed if (p := _find_mute(a))]
    sink, early = inv.clients.notifications, start - timedelta(seconds=5)
    heard, no_evidence = attempt(lambda: sink.list_notifications(since=early))
    faults, values = _find_faults(inv, start), []
    for alert in followed:
        for channel, receiver in sorted(expect_channels(alert.receivers).items()):
            got = next((n for n in heard or () if _is_about(n, alert, channel)), None)
            problem = "" if got else faults.get(channel, "")
            problems += [f"{channel}: {problem}"] if problem else []
            evidence, at = ("received", got.received_at) if got else ("none", None)
            values.append((alert.labels["alertname"], channel, receiver, evidence, at, problem))
    rows = to_rows(("alert", "channel", "receiver", "evidence", "at", "problem"), values)
    told = ", ".join(f"{r['channel']} {r['evidence']}" for r in rows)
    seen = Outcome(value=told + ("" if real else " (drill)"), rows=rows[:200], since=start)
    if problems:
        return seen.breach("; ".join(dict.fromkeys(problems)))
    if not rows:
        return seen.breach("no receiver for Slack, e-mail or Teams is on its route")
    if missing := sorted({str(r["channel"]) for r in rows if r["evidence"] == "none"}):
        why = "nothing arrived there yet, and no failure is counted"
        if not inv.settings.notifications_url:
            return seen.left_out("NOTIFICATIONS_URL is empty; no failure is counted")
        if no_evidence:
            why = f"what the receivers got cannot be read ({no_evidence})"
        return seen.unknown(f"no evidence from {', '.join(missing)}: {why}")
    return seen.ok("every channel on the route received it")


def expect_channels(receivers: Sequence[str]) -> dict[str, str]:
    """Return the channels that receivers stand for, with the receiver: by their names.

    A receiver ``drill`` serves all three (addons/alertmanager).
    """
    found = {c: [r for r in receivers if c in r.lower() or r.startswith("drill")] for c in CHANNELS}
    return {channel: named[0] for channel, named in found.items() if named}


def _find_mute(alert: RoutedAlert) -> str:
    by = {"silenced": alert.silenced_by, "inhibited": alert.inhibited_by, "muted": alert.muted_by}
    said = (f"is {what} by {', '.join(who)}" for what, who in by.items() if who)
    return next((f"{alert.labels['alertname']} {words}" for words in said), "")


def _is_about(heard: Notification, alert: RoutedAlert, channel: str) -> bool:
    is_same = heard.channel == channel and heard.is_drill == is_drill(alert.labels)
    return is_same and alert.labels["alertname"] in heard.alertnames and heard.status == "firing"


def _find_faults(inv: Investigation, start: datetime) -> dict[str, str]:
    """Say of channels why they get nothing; a template's fault is told by the log alone."""
    placeholders = inv.clients.alertmanager.read_placeholders()
    failures, faults, template = _read_failures(inv, start), dict[str, str](), ""
    if any(failures.values()):
        lines, _ = attempt(lambda: inv.clients.services.read_logs("alertmanager", since=start))
        fields = [m[1] for line in lines or () if (m := _NO_SUCH_FIELD.search(line.text))]
        if fields:
            template = f": a template asks for .{fields[-1]}, which there is not (addons/README.md)"
    for channel, signs in CHANNELS.items():
        if failed := sum(n for name, n in failures.items() if channel in name.lower()):
            faults[channel] = f"Alertmanager counts {failed:.0f} failed notifications{template}"
        if held := [p for p in placeholders if any(sign in p.lower() for sign in signs)]:
            faults[channel] = f"a placeholder is configured ({held[0]})"
    return faults


def _read_failures(inv: Investigation, start: datetime) -> dict[str, float]:
    """Return failed notifications per integration: after the alert began and the last good one.

    From Prometheus, which knows the times. Alertmanager's own totals do not, so they count only
    where not one notification was delivered.
    """
    window_s = (inv.now() - start).total_seconds() + 60
    read = inv.clients.prometheus.query_samples
    found, _ = attempt(lambda: (read(_SENT, window_s), read(_FAILED, window_s)))
    failures = defaultdict[str, float](float)
    if not found or not found[1]:
        for one in inv.clients.alertmanager.read_notification_counts():
            failures[one.integration] += one.failed if one.failed >= one.sent else 0
        return failures
    sent, failed = map(_count_by_integration, found)
    for name, lost in failed.items():
        delivered = [at for at, count in sent[name].items() if count > lost[at]]
        failures[name] = sum(n for at, n in lost.items() if at > max([start, *delivered]))
    return failures


def _count_by_integration(series: Iterable[Series]) -> dict[str, dict[datetime, float]]:
    """Return how many each integration counted, by when."""
    counts: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    for one in series:
        for grown in list_growth(one.samples):
            counts[one.labels.get("integration", "")][grown.at] += grown.value
    return counts


@step(
    "3.2", "Objects per prefix, longest wait, ages", name="longest wait", role=Role.IMPACT,
    source=LISTING, threshold="over $lag_threshold_minutes min", unit="min",
)  # fmt: skip
def _read_spread(inv: Investigation) -> Outcome:
    waiting = read_waiting(inv)
    ages = [o.minutes for o in waiting.real]
    spans = zip(_EDGES, (*_EDGES[1:], None), strict=True)
    counts = ((low, high, sum(low <= a < (high or math.inf) for a in ages)) for low, high in spans)
    groups: dict[tuple[str, str], list[Label]] = {}
    for label in waiting.objects:
        prefix = next(p for p in list_prefixes(inv.settings) if label.info.key.startswith(p))
        groups.setdefault((prefix, label.origin), []).append(label)
    told = (
        (*of, len(items), sum(o.info.size_bytes for o in items), round(items[0].minutes, 1))
        for of, items in groups.items()
    )
    rows = to_rows(("prefix", "origin", "objects", "bytes", "longest_minutes"), told)
    longest, plot = round(waiting.longest_minutes, 1), Plot(ages=tuple(counts))
    seen = Outcome(value=longest, rows=rows, plot=plot, since=waiting.since)
    return seen.judge(Status.BREACH if waiting.overdue else Status.OK, waiting.describe())


@step(
    "3.3", "Health of the object store", name="store health", role=Role.SYMPTOM, needed=True,
    source="$minio_endpoint/minio/health/live, else a signed listing",
    threshold="anything but live",
)  # fmt: skip
def read_store_health(inv: Investigation) -> Outcome:
    """Ask the store whether it is alive; a store that does not answer is a breach."""
    try:
        how, source = inv.clients.store.check_live()
    except AccessDeniedError:
        raise
    except ClientError as error:
        why = f"restore the store first: {error}"
        return Outcome(value="down", observations={"store_live": False}).breach(why)
    return Outcome(value="live", source=source, observations={"store_live": True}).ok(f"by {how}")


@step(
    "3.4", "A sample of what waits", name="sample of waiting objects", role=Role.IMPACT,
    source=LISTING, unit="objects",
)  # fmt: skip
def _read_sample(inv: Investigation) -> Outcome:
    waiting = read_waiting(inv)
    rows = waiting.rows(10)
    reason = f"the {len(rows)} that wait longest of {len(waiting.objects)}"
    return Outcome(value=len(rows), rows=rows).ok(reason)


@step(
    "3.5", "The worker's log", name="worker log", role=Role.LOG, source="log of $worker_service",
    threshold="any error of upload, callback, carrier or release", unit="errors",
)  # fmt: skip
def _read_worker_log(inv: Investigation) -> Outcome:
    """Group the log's errors; what was not said since the worker moved labels again is past."""
    service, minutes = inv.settings.worker_service, inv.window.total_seconds() / 60
    lines = inv.clients.services.read_logs(service, since=inv.now() - inv.window)
    moved_at, _ = attempt(lambda: inv.clients.fulfillment.read_worker().last_move_at)
    quiet_since = min(moved_at, inv.now() - _QUIET) if moved_at else None
    groups = group_lines(lines)
    telling = [g for g in groups if g.level in ("error", "warning")]
    past = [g for g in telling if g.last and quiet_since and g.last < quiet_since]
    errors = [g for g in telling if g.level == "error" and g not in past]
    ended = [g for g in past if g.level == "error"]
    total = sum(g.count for g in errors)
    told = (
        (g.level, g.count, g.template[:300], g.first, g.last, g.example, g not in past)
        for g in sorted(telling, key=lambda g: (g in past, g.level != "error"))[:50]
    )
    rows = to_rows(("level", "count", "template", "first", "last", "example", "now"), told)
    since = min((g.first for g in errors if g.first), default=None)
    source = f"log of {service}, last {minutes:.0f} min"
    seen = Outcome(value=total if lines else None, source=source, since=since, rows=rows)
    if not lines:
        return seen.unknown("the log has no line in the window: that proves nothing")
    if errors:
        worst = max(errors, key=lambda g: g.count)
        return seen.breach(f"{total} errors; most often: {worst.template[:160]}")
    if ended:
        last = format_time(max(g.last for g in ended if g.last))
        count = count_of(sum(g.count for g in ended), "error")
        return seen.ok(f"past: {count}, the last at {last}; the worker moved labels since")
    return seen.ok(f"no error in {count_of(len(lines), 'line')}")


STEPS = by_id(_read_delivery, _read_spread, read_store_health, _read_sample, _read_worker_log)
ACTIONS: dict[str, ActionStep] = {}
#: Whether the store, or what section 2 read lately, proves an incident.
conclude = partial(detection.conclude_symptoms, steps=detection.STEPS | STEPS)
