"""Step 2.1: the alert, or the lag over its threshold for long enough."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..clients.prometheus import Alert, AlertRule, Sample
from ..investigation import Investigation
from ..model import Json, Line, Plot, Reading, Status, format_time
from .samples import one_series, scrape_interval_s, to_points

__all__ = ["ALERT", "ALERTS", "BLIND_ALERT", "LAG", "is_drill", "read_alert"]

ALERT = "FulfillmentDelay"
BLIND_ALERT = "FulfillmentMetricsMissing"
ALERTS = (ALERT, "FulfillmentUploadFailing")
LAG = 'fulfillment_lag_minutes{origin="real"}'
_REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"


@dataclass(frozen=True, slots=True)
class _Lag:
    """The samples of the lag, and how the newest stands."""

    samples: list[Sample]
    is_fresh: bool
    refresh_age_s: float | None
    over_since: datetime | None

    @property
    def value(self) -> float | None:
        return self.samples[-1].value if self.samples and self.is_fresh else None


def is_drill(labels: dict[str, str]) -> bool:
    """Tell whether an alert rests on synthetic objects alone."""
    return labels.get("drill") == "true"


def read_alert(inv: Investigation) -> Reading:
    """Read alerts, rule and raw lag samples from Prometheus.

    A breach: a firing alert without ``drill="true"``, or every raw sample of the lag over the
    threshold for the rule's own ``for`` (``LAG_FOR_MINUTES`` where the rule is not loaded).
    Unknown: no fresh sample of the lag, or an exporter that stopped refreshing.
    """
    prometheus, limit = inv.clients.prometheus, inv.settings.lag_threshold_minutes
    alerts = prometheus.list_alerts()
    rule = next((r for r in prometheus.list_rules() if _is_ours(r)), None)
    for_s = rule.for_s if rule else inv.settings.lag_for_minutes * 60
    lag = _read_lag(inv, max(for_s * 2, inv.window.total_seconds()))
    over_s = (lag.samples[-1].at - lag.over_since).total_seconds() if lag.over_since else 0.0
    firing = [a for a in alerts if a.state == "firing" and a.name in ALERTS]
    real = [a for a in firing if not is_drill(a.labels)]
    drills = [a for a in firing if is_drill(a.labels)]
    blind = [a for a in alerts if a.name == BLIND_ALERT and a.state == "firing"]
    remark = f"; only synthetic objects: {_names(drills)} (drill)" if drills and not real else ""
    since = _earliest([a.active_at for a in real] + [lag.over_since])
    if real:
        status, reason = Status.BREACH, f"{_names(real)} fires since {_clock(since)}"
    elif lag.value is not None and lag.value > limit and over_s >= for_s:
        status = Status.BREACH
        reason = f"over {limit:g} min for {over_s:.0f} s (limit {for_s:.0f} s), but no alert fires"
    elif lag.value is None:
        status, reason = Status.UNKNOWN, _why_blind(lag, blind)
    elif lag.value > limit:
        status, reason = Status.OK, f"over {limit:g} min for {over_s:.0f} s, not yet {for_s:.0f} s"
    else:
        status, reason = Status.OK, "below the threshold and no alert fires"
    return inv.make_reading(
        "2.1",
        "lag",
        status,
        value=_name_value(lag, drills, real),
        unit="min",
        threshold=f"over {limit:g} min for {for_s:g} s, or {ALERT} fires",
        source=f"{prometheus.url} {LAG}; /api/v1/alerts",
        reason=reason + remark,
        rows=[_to_row(a) for a in alerts if a.name.startswith("Fulfillment")][:200],
        observations={
            "alert_state": _worst_state(alerts),
            "alert_firing": any(a.name == ALERT for a in real),
            "upload_alert_firing": any(a.name != ALERT for a in real),
            "drill_alert_firing": bool(drills),
            "lag_present": lag.value is not None,
            "exporter_refresh_age_s": lag.refresh_age_s,
        },
        plot=Plot(
            kind="lag",
            threshold=limit,
            lines=(Line(name="lag", points=to_points(lag.samples)),),
            windows=tuple((a.active_at, None) for a in real if a.active_at),
        ),
        since=since if status is Status.BREACH else None,
    )


def _is_ours(rule: AlertRule) -> bool:
    return rule.name == ALERT and not is_drill(rule.labels)


def _read_lag(inv: Investigation, window_s: float) -> _Lag:
    prometheus, now = inv.clients.prometheus, inv.now()
    samples = one_series(prometheus.query_samples(LAG, window_s))
    refreshes = one_series(prometheus.query_samples(_REFRESH, 300))
    patience_s = max(30.0, 4 * scrape_interval_s(samples[-20:]))
    age_s = (now - samples[-1].at).total_seconds() if samples else None
    refresh_age_s = now.timestamp() - refreshes[-1].value if refreshes else None
    # A series that vanished is stale at once in Prometheus, but its old samples stay readable.
    is_fresh = (
        bool(prometheus.query(LAG))
        and age_s is not None
        and age_s <= patience_s
        and (refresh_age_s is None or refresh_age_s <= max(60.0, patience_s))
    )
    over_since = None
    for sample in reversed(samples if is_fresh else []):
        if sample.value <= inv.settings.lag_threshold_minutes:
            break
        over_since = sample.at
    return _Lag(samples, is_fresh, refresh_age_s, over_since)


def _why_blind(lag: _Lag, blind: list[Alert]) -> str:
    fires = f"; {BLIND_ALERT} fires" if blind else ""
    if not lag.samples:
        return f"there is no series {LAG}: the exporter is down or cannot list the bucket{fires}"
    last = f"the last value was {lag.samples[-1].value:.1f} min at {_clock(lag.samples[-1].at)}"
    if lag.refresh_age_s is not None and lag.refresh_age_s > 60:
        return f"the exporter last refreshed {lag.refresh_age_s:.0f} s ago; {last}{fires}"
    return f"the series of the lag ended; {last}{fires}"


def _name_value(lag: _Lag, drills: list[Alert], real: list[Alert]) -> float | str | None:
    if drills and not real and lag.value is not None:
        return f"{lag.value:.1f} (drill alert only)"
    return round(lag.value, 2) if lag.value is not None else None


def _worst_state(alerts: list[Alert]) -> str:
    states = {a.state for a in alerts if a.name in ALERTS and not is_drill(a.labels)}
    return next((s for s in ("firing", "pending") if s in states), "inactive")


def _names(alerts: list[Alert]) -> str:
    return ", ".join(sorted({a.name for a in alerts}))


def _earliest(times: list[datetime | None]) -> datetime | None:
    return min((t for t in times if t is not None), default=None)


def _clock(at: datetime | None) -> str:
    return f"{at:%H:%M:%S} UTC" if at else "an unknown time"


def _to_row(alert: Alert) -> dict[str, Json]:
    return {
        "alert": alert.name,
        "state": alert.state,
        "active_at": format_time(alert.active_at) if alert.active_at else None,
        "severity": alert.labels.get("severity", ""),
        "drill": is_drill(alert.labels),
        "value": round(alert.value, 2) if alert.value == alert.value else None,
    }
