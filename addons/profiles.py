"""The profiles of the rendered configurations: same rules and routes, other times."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The times of one profile, in seconds.

    Attributes
    ----------
    scrape_interval_s, evaluation_interval_s
        Of Prometheus.
    lag_for_s
        How long the lag must stay over the threshold before `FulfillmentDelay` fires.
    keep_firing_for_s
        How long it goes on firing after that, so that a lag at the threshold does not flap.
    metrics_missing_for_s
        How long the exporter must be blind before `FulfillmentMetricsMissing` fires.
    refresh_stale_s
        A last refresh older than this, and than four of the exporter's own intervals, is stale.
    last_known_s
        How long the last lag seen speaks for a blind exporter.
    upload_window_s, upload_failing_for_s
        Uploads must fail in every window for so long; a single failure must not page, hence
        the window is no longer than the ``for``.
    serve_window_s, serve_refused_for_s
        `runbook serve` refuses in every window for so long.
    serve_wait_s, serve_ageing_for_s
        An alert may wait so long for its report, and a rule waits so long before it says so.
    serve_failed_window_s
        How long a failed delivery is told.
    group_wait_s, group_interval_s, repeat_interval_s
        Of Alertmanager.
    """

    scrape_interval_s: int
    evaluation_interval_s: int
    lag_for_s: int
    keep_firing_for_s: int
    metrics_missing_for_s: int
    refresh_stale_s: int
    last_known_s: int
    upload_window_s: int
    upload_failing_for_s: int
    serve_window_s: int
    serve_refused_for_s: int
    serve_wait_s: int
    serve_ageing_for_s: int
    serve_failed_window_s: int
    group_wait_s: int
    group_interval_s: int
    repeat_interval_s: int


PROFILES = {
    # DataFlow's own intervals, and the runbook's "over 10 minutes for 5 minutes".
    "production": Profile(
        scrape_interval_s=15,
        evaluation_interval_s=15,
        lag_for_s=300,
        keep_firing_for_s=120,
        metrics_missing_for_s=300,
        refresh_stale_s=120,
        last_known_s=3600,
        upload_window_s=300,
        upload_failing_for_s=300,
        serve_window_s=300,
        serve_refused_for_s=300,
        serve_wait_s=600,
        serve_ageing_for_s=300,
        serve_failed_window_s=3600,
        group_wait_s=30,
        group_interval_s=300,
        repeat_interval_s=10800,
    ),
    # Between the two: to see how the alert behaves when nothing is hurried, without waiting long.
    "rehearsal": Profile(
        scrape_interval_s=5,
        evaluation_interval_s=5,
        lag_for_s=20,
        keep_firing_for_s=10,
        metrics_missing_for_s=30,
        refresh_stale_s=30,
        last_known_s=3600,
        upload_window_s=30,
        upload_failing_for_s=30,
        serve_window_s=30,
        serve_refused_for_s=30,
        serve_wait_s=180,
        serve_ageing_for_s=30,
        serve_failed_window_s=600,
        group_wait_s=1,
        group_interval_s=10,
        repeat_interval_s=10800,
    ),
    # Seconds instead of minutes, so that a drill on a laptop takes no longer than it must.
    "demo": Profile(
        scrape_interval_s=1,
        evaluation_interval_s=1,
        lag_for_s=5,
        keep_firing_for_s=2,
        metrics_missing_for_s=5,
        refresh_stale_s=10,
        last_known_s=3600,
        upload_window_s=10,
        upload_failing_for_s=10,
        serve_window_s=10,
        serve_refused_for_s=10,
        serve_wait_s=120,
        serve_ageing_for_s=10,
        serve_failed_window_s=300,
        group_wait_s=0,
        group_interval_s=1,
        repeat_interval_s=10800,
    ),
}
