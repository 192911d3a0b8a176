"""Series over simulated time and the alerts that must come of them, scaled to a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from addons.profiles import Profile

DELAY = {"alertname": "FulfillmentDelay", "severity": "high", "service": "fulfillment-service"}
DRILL = {**DELAY, "drill": "true"}
MISSING = {
    "alertname": "FulfillmentMetricsMissing",
    "severity": "high",
    "service": "artifact-exporter",
}
UPLOAD = {**DELAY, "alertname": "FulfillmentUploadFailing"}

REAL = 'fulfillment_lag_minutes{origin="real"}'
SYNTHETIC = 'fulfillment_lag_minutes{origin="synthetic"}'
UP = 'up{job="other"}'
REFRESHED = "fulfillment_exporter_last_refresh_timestamp_seconds"
INTERVAL = "fulfillment_exporter_refresh_interval_seconds"
FAILED = 'fulfillment_artifacts_failed_total{stage="%s",reason="storage_full"}'
REFUSED = 'runbook_serve_requests_refused_total{reason="full"}'
WAIT = "runbook_serve_oldest_wait_seconds"
DELIVERED = 'runbook_serve_deliveries_total{target="slack",result="%s"}'
_SERVE = {"severity": "high", "service": "runbook"}
REFUSING = {"alertname": "RunbookAlertsRefused", "reason": "full", **_SERVE}
AGEING = {"alertname": "RunbookQueueAgeing", **_SERVE}
UNDELIVERED = {"alertname": "RunbookDeliveryFailed", "target": "slack", **_SERVE}
# Ten minutes and one second.
OVER = "10.016667"


@dataclass
class RuleCase:
    """One simulated course, a sample a second, and what must be seen in it.

    ``expected``: by second, the alerts with their state, all others absent.
    """

    series: Mapping[str, str]
    last_s: int
    expected: dict[int, list[dict[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A Prometheus has other targets than the exporter.
        self.series = {UP: f"1x{self.last_s}", **self.series}


def _firing(labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, "alertstate": "firing"}


def _pending(labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, "alertstate": "pending"}


def _seen(last_s: int, *, real: str = "", synthetic: str = "") -> dict[str, str]:
    """Give the series of an exporter that refreshes every second."""
    return {
        REAL: real or f"0x{last_s}",
        SYNTHETIC: synthetic or f"0x{last_s}",
        REFRESHED: f"0+1x{last_s}",
        INTERVAL: f"1x{last_s}",
    }


def _a_second_over_ten_minutes_fires_after_for_and_not_before(p: Profile) -> RuleCase:
    start, end = 10, 10 + 2 * p.lag_for_s
    return RuleCase(
        _seen(end, real=f"0x{start - 1} {OVER}x{end}"),
        end,
        {
            start - 1: [],
            start: [_pending(DELAY)],
            start + p.lag_for_s - 1: [_pending(DELAY)],
            start + p.lag_for_s: [_firing(DELAY)],
        },
    )


def _a_blind_exporter_does_not_look_like_a_recovery(p: Profile) -> RuleCase:
    blind = p.lag_for_s + 5
    missing = blind + p.metrics_missing_for_s
    back = missing + p.keep_firing_for_s + 60
    clear = back + p.keep_firing_for_s
    end = clear + 10
    gap = f"stale _x{back - blind - 1}"
    return RuleCase(
        {
            REAL: f"25x{blind - 1} {gap} 0x{end}",
            SYNTHETIC: f"0x{blind - 1} {gap} 0x{end}",
            REFRESHED: f"0+1x{blind - 1} {gap} {back}+1x{end}",
            INTERVAL: f"1x{end}",
        },
        end,
        {
            missing - 1: [_firing(DELAY), _pending(MISSING)],
            missing: [_firing(DELAY), _firing(MISSING)],
            back - 1: [_firing(DELAY), _firing(MISSING)],
            clear: [],
        },
    )


def _a_refresh_that_hangs_fires_metrics_missing(p: Profile) -> RuleCase:
    stale = p.refresh_stale_s + 1
    end = stale + p.metrics_missing_for_s
    series = {**_seen(end, real=f"3x{end}"), REFRESHED: f"0x{end}"}
    return RuleCase(
        series,
        end,
        {stale - 1: [], end - 1: [_pending(MISSING)], end: [_firing(MISSING)]},
    )


def _a_real_backlog_during_a_drill_fires_as_ever(p: Profile) -> RuleCase:
    real = p.lag_for_s + 5
    end = real + p.lag_for_s + p.keep_firing_for_s
    return RuleCase(
        _seen(end, real=f"1x{real - 1} {OVER}x{end}", synthetic=f"40x{end}"),
        end,
        {
            real - 1: [_firing(DRILL)],
            real: [_firing(DRILL), _pending(DELAY)],
            end: [_firing(DELAY)],
        },
    )


def _uploads_that_keep_failing_fire(p: Profile) -> RuleCase:
    start = 20
    first = start + 1
    end = first + p.upload_failing_for_s
    return RuleCase(
        {**_seen(end), FAILED % "upload": f"0x{start} 1+1x{end}"},
        end,
        {start: [], first: [_pending(UPLOAD)], end - 1: [_pending(UPLOAD)], end: [_firing(UPLOAD)]},
    )


def _refusals_that_go_on_fire(p: Profile) -> RuleCase:
    fires_s = p.serve_refused_for_s + 2
    series = {**_seen(fires_s), REFUSED: f"0+1x{fires_s}"}
    return RuleCase(series, fires_s, {fires_s: [_firing(REFUSING)]})


def _an_alert_that_waits_too_long_fires(p: Profile) -> RuleCase:
    fires_s = p.serve_wait_s + p.serve_ageing_for_s + 2
    series = {**_seen(fires_s), WAIT: f"0+1x{fires_s}"}
    return RuleCase(series, fires_s, {p.serve_wait_s: [], fires_s: [_firing(AGEING)]})


def _a_report_that_was_not_delivered_fires(p: Profile) -> RuleCase:
    series = {**_seen(4), DELIVERED % "failed": "0 0 1 1 1", DELIVERED % "sent": "0+1x4"}
    return RuleCase(series, 4, {1: [], 4: [_firing(UNDELIVERED)]})


_CASES: tuple[Callable[[Profile], RuleCase], ...] = (
    _a_second_over_ten_minutes_fires_after_for_and_not_before,
    _a_blind_exporter_does_not_look_like_a_recovery,
    _a_refresh_that_hangs_fires_metrics_missing,
    _a_real_backlog_during_a_drill_fires_as_ever,
    _uploads_that_keep_failing_fire,
    _refusals_that_go_on_fire,
    _an_alert_that_waits_too_long_fires,
    _a_report_that_was_not_delivered_fires,
)
CASES = {case.__name__.lstrip("_"): case for case in _CASES}


def promtool_document(case: RuleCase, rule_file: str) -> dict[str, object]:
    """Write a case as a file for ``promtool test rules``.

    The alerts are read from the series ``ALERTS``, which also has those that are pending.
    """
    tests = [
        {"expr": "ALERTS", "eval_time": f"{second}s", "exp_samples": _samples(alerts)}
        for second, alerts in case.expected.items()
    ]
    return {
        "rule_files": [rule_file],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [
                    {"series": name, "values": values} for name, values in case.series.items()
                ],
                "promql_expr_test": tests,
            }
        ],
    }


def _samples(alerts: list[dict[str, str]]) -> list[dict[str, object]]:
    return [
        {"labels": "ALERTS{" + ",".join(f'{k}="{v}"' for k, v in alert.items()) + "}", "value": 1}
        for alert in alerts
    ]
