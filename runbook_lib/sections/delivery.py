"""Step 3.1: whether the alert reached the right receivers, by the receivers' own evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from ..clients.alertmanager import RoutedAlert
from ..clients.notifications import Notification
from ..errors import ClientError
from ..investigation import Investigation
from ..model import Json, Reading, Status, format_time
from .alerting import ALERT, ALERTS, is_drill
from .samples import compute_increase

__all__ = ["CHANNELS", "expect_channels", "read_delivery"]

CHANNELS = ("slack", "email", "teams")
_FAILED = "alertmanager_notifications_failed_total"
_NAMES = ("alert", "channel", "receiver", "evidence", "at", "problem")


def read_delivery(inv: Investigation) -> Reading:
    """Follow each active alert to its receivers.

    Delivered only on a receiver's evidence; a breach when it is silenced, inhibited, held back,
    sent to a placeholder, or Alertmanager counts failures since it started; else unknown.
    """
    manager = inv.clients.alertmanager
    alerts = [a for a in manager.list_alerts() if a.labels.get("alertname") in ALERTS]
    real = [a for a in alerts if not is_drill(a.labels)]
    followed = real or alerts
    if not followed:
        return _read_silence(inv)
    start = min(a.starts_at for a in followed)
    problems = [p for a in followed if (p := _find_mute(a))]
    arrived, no_evidence = _read_arrivals(inv, start)
    failures = _read_failures(inv, start)
    placeholders = manager.read_placeholders()
    rows: list[dict[str, Json]] = []
    for alert in followed:
        for channel, receiver in sorted(expect_channels(alert.receivers).items()):
            got = _find_arrival(arrived, alert, channel)
            problem = "" if got else _find_problem(channel, placeholders, failures)
            values = (
                alert.labels["alertname"],
                channel,
                receiver,
                "received" if got else "none",
                format_time(got.received_at) if got else None,
                problem,
            )
            rows.append(dict(zip(_NAMES, values, strict=True)))
            problems += [f"{channel}: {problem}"] if problem else []
    missing = sorted({str(r["channel"]) for r in rows if r["evidence"] == "none"})
    if problems:
        status, reason = Status.BREACH, "; ".join(dict.fromkeys(problems))
    elif not rows:
        status, reason = Status.BREACH, "no receiver for Slack, e-mail or Teams is on its route"
    elif missing:
        why = no_evidence or "nothing arrived there yet, and no failure is counted"
        status, reason = Status.UNKNOWN, f"no evidence from {', '.join(missing)}: {why}"
    else:
        status, reason = Status.OK, "every channel on the route received it"
    return inv.make_reading(
        "3.1",
        "alert delivery",
        status,
        value=", ".join(f"{r['channel']} {r['evidence']}" for r in rows)
        + ("" if real else " (drill)"),
        threshold="a channel on the alert's route has not received it",
        source=f"{manager.url}/api/v2/alerts; {inv.clients.notifications.url or 'no sink'}",
        reason=reason,
        rows=rows[:200],
        since=start,
    )


def expect_channels(receivers: Iterable[str]) -> dict[str, str]:
    """Return the channels that receivers stand for, with the receiver: by their names.

    A receiver ``drill`` serves all three (addons/alertmanager).
    """
    found: dict[str, str] = {}
    for receiver in receivers:
        for channel in CHANNELS:
            if channel in receiver.lower() or receiver.startswith("drill"):
                found.setdefault(channel, receiver)
    return found


def _read_silence(inv: Investigation) -> Reading:
    """Judge when Alertmanager holds no alert: right only if Prometheus fires none either."""
    try:
        firing = [
            a
            for a in inv.clients.prometheus.list_alerts()
            if a.name == ALERT and a.state == "firing" and not is_drill(a.labels)
        ]
    except ClientError as error:
        status, reason = Status.UNKNOWN, f"whether it should hold one is unknown: {error}"
    else:
        status, reason = Status.OK, "Prometheus fires none either: nothing to deliver"
        if firing:
            status = Status.BREACH
            reason = f"{ALERT} fires in Prometheus, but Alertmanager does not have it"
    return inv.make_reading(
        "3.1",
        "alert delivery",
        status,
        value="no alert is active",
        threshold="a channel on the alert's route has not received it",
        source=f"{inv.clients.alertmanager.url}/api/v2/alerts",
        reason=reason,
    )


def _find_mute(alert: RoutedAlert) -> str:
    name = alert.labels["alertname"]
    if alert.silenced_by:
        return f"{name} is silenced by {', '.join(alert.silenced_by)}"
    if alert.inhibited_by:
        return f"{name} is inhibited by {', '.join(alert.inhibited_by)}"
    return f"{name} is held back ({', '.join(alert.muted_by)})" if alert.muted_by else ""


def _read_arrivals(inv: Investigation, start: datetime) -> tuple[list[Notification], str]:
    try:
        since = start - timedelta(seconds=5)
        return inv.clients.notifications.list_notifications(since=since), ""
    except ClientError as error:
        return [], f"what the receivers got cannot be read ({error})"


def _find_arrival(
    arrived: Sequence[Notification], alert: RoutedAlert, channel: str
) -> Notification | None:
    return next(
        (
            n
            for n in arrived
            if n.channel == channel
            and n.status == "firing"
            and alert.labels["alertname"] in n.alertnames
            and n.is_drill == is_drill(alert.labels)
        ),
        None,
    )


def _read_failures(inv: Investigation, start: datetime) -> dict[str, float]:
    """Return failed notifications per integration since the alert started.

    From Prometheus, which knows the time; else Alertmanager's own totals.
    """
    window_s = (inv.now() - start).total_seconds() + 60
    try:
        found = inv.clients.prometheus.query_samples(_FAILED, window_s)
    except ClientError:
        found = []
    failures: dict[str, float] = {}
    for series in found:
        name = series.labels.get("integration", "")
        failures[name] = failures.get(name, 0) + compute_increase(series.samples, start)
    if not found:
        for count in inv.clients.alertmanager.read_notification_counts():
            failures[count.integration] = failures.get(count.integration, 0) + count.failed
    return failures


def _find_problem(channel: str, placeholders: Sequence[str], failures: dict[str, float]) -> str:
    sign = {"slack": ("slack",), "email": ("smtp", "email"), "teams": ("teams", "webhook")}[channel]
    if held := next((p for p in placeholders if any(s in p.lower() for s in sign)), None):
        return f"a placeholder is configured ({held})"
    failed = sum(n for name, n in failures.items() if channel in name.lower())
    return f"Alertmanager counts {failed:.0f} failed notifications" if failed else ""
