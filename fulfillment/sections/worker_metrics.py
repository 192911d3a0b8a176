"""What the worker counts and logs: failures, carrier requests, arrivals and moves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Json
from runbook_lib.record.folds import list_remedies
from runbook_lib.section import attempt

from ..analysis.causes import OFTEN, STANDSTILL
from ..analysis.samples import compute_interval_s, sum_growth
from ..clients.http_systems import Series
from ..clients.services import LogLine, read_log_command
from ..investigation import Investigation
from . import recovery
from .signals import read_samples

FAILED = "fulfillment_artifacts_failed_total"
CARRIER = "fulfillment_carrier_request_seconds_count"
_ARRIVED = "fulfillment_artifacts_arrived_total"
_MOVED = "fulfillment_artifacts_moved_total"
_LAST_RUN = "fulfillment_worker_last_run_timestamp_seconds"
#: Failures, carrier requests and moves are recent for this long, or 4 scrape intervals if longer.
_RECENT_S = 30.0
#: Compare arrivals with moves over this long.
_FLOW_WINDOW_S = 300.0
#: An error has ended once it hasn't been logged for this long.
SILENCE = timedelta(seconds=60)
#: For each reason, the pattern of a log line that says that a request failed for it.
_LOG_PATTERNS = {
    "storage_full": r"storage_?full|no space left|quota ?exceeded|insufficient storage",
    "bad_credentials": r"bad_credentials|SignatureDoesNotMatch|InvalidAccessKeyId",
    "access_denied": r"access_denied|AccessDenied|\bforbidden\b",
    "no_such_bucket": r"no_such_bucket|NoSuchBucket",
}


class WorkerMetrics(NamedTuple):
    """What the worker's counters say, at most back to our last remedy.

    In the last half minute: ``failures`` by reason, carrier ``requests`` by outcome, and moves as
    ``drained``. In the last five minutes: ``surplus``, which is arrivals minus moves, and
    ``has_failed``, which a remedy doesn't reset. ``run_gap_s`` is the usual gap between passes.
    """

    error: str = ""
    failures: Mapping[str, float] = {}
    requests: Mapping[str, float] = {}
    surplus: float | None = None
    drained: float | None = None
    has_failed: bool = False
    run_gap_s: float | None = None

    def count_failures(self, reason: str) -> float | None:
        """Return the failures for a reason; None if they couldn't be read."""
        return self.failures.get(reason, 0.0) if self.failures else None

    def compute_carrier_share(self, outcome: str) -> float | None:
        """Return an outcome's share of recent carrier requests; None if there are under two."""
        total = sum(self.requests.values())
        if total < 2:
            return None
        return round(self.requests.get(outcome, 0) / total, 3)


def read_worker_metrics(inv: Investigation) -> WorkerMetrics:
    """Read the worker's counters from Prometheus."""
    names = (FAILED, CARRIER, _ARRIVED, _MOVED)
    query = inv.clients.prometheus.query_samples
    found, error = attempt(lambda: {name: query(name, _FLOW_WINDOW_S) for name in names})
    counters: Mapping[str, Sequence[Series]] = found or {}
    failed = [series.samples for series in counters.get(FAILED, ()) if series.samples]
    # If scrapes are rare, half a minute may have no sample.
    interval_s = compute_interval_s(failed[0]) if failed else 0.0
    now = inv.now()
    recent_start = now - timedelta(seconds=max(_RECENT_S, 4 * interval_s))
    if max((samples[-1].at for samples in failed), default=recent_start) <= recent_start:
        # Without a recent sample, old counts say nothing about now.
        return WorkerMetrics(error or "Prometheus does not scrape the worker's counters")

    def grow(name: str, since: datetime, label: str = "") -> dict[str, float]:
        """Return the growth of a counter's series, summed by the value of a label."""
        growth: dict[str, float] = {}
        for series in counters[name]:
            group = series.labels.get(label, "other")
            growth[group] = growth.get(group, 0.0) + sum_growth([series.samples], since)
        return growth

    flow_start = now - timedelta(seconds=_FLOW_WINDOW_S)
    acted_at = find_last_remedy(inv) or flow_start
    arrived = grow(_ARRIVED, acted_at)
    moved = grow(_MOVED, acted_at)
    count_start = max(acted_at, recent_start)
    passes = sorted({each.value for each in read_samples(inv, _LAST_RUN, _FLOW_WINDOW_S)})
    gaps_s = [new - old for old, new in pairwise(passes)]
    return WorkerMetrics(
        failures=grow(FAILED, count_start, "reason"),
        requests=grow(CARRIER, count_start, "outcome"),
        surplus=sum(arrived.values()) - sum(moved.values()) if arrived and moved else None,
        drained=sum(grow(_MOVED, count_start).values()) if moved else None,
        # What failed before this incident held none of its labels back.
        has_failed=any(grow(FAILED, inv.incident.state.opened_at).values()),
        run_gap_s=median(gaps_s) if gaps_s else None,
    )


def find_last_remedy(inv: Investigation) -> datetime | None:
    """Return when 6.1 or 6.2 last changed something. Other steps move no labels."""
    remedies = list_remedies(inv.journal.actions, inv.policy.quantities)
    return max((remedy.applied.at for remedy in remedies if remedy.applied), default=None)


def find_log_start(inv: Investigation) -> datetime:
    """Return since when errors in the worker's log count.

    That is the incident's beginning, inside the window but at least five minutes ago; or our last
    remedy if that is later.
    """
    now = inv.now()
    start = now - inv.window
    if inv.since is not None:
        start = max(start, recovery.find_beginning(inv))
    start = min(start, now - timedelta(seconds=_FLOW_WINDOW_S))
    return max(start, find_last_remedy(inv) or start)


def read_worker_log(inv: Investigation, since: datetime) -> list[LogLine]:
    """Return the worker's newest log lines since a time, by WORKER_LOG_CMD if it's set."""
    if inv.settings.worker_log_cmd:
        return read_log_command(inv.settings, since=since)
    service = inv.settings.worker_service
    return inv.clients.services.read_logs(service, since=since)


def observe_reasons(
    inv: Investigation, metrics: WorkerMetrics, *reasons: str
) -> tuple[dict[str, Json], list[str]]:
    """Return the observations of some failure reasons, and which of them are problems, in words.

    ``failures_<reason>`` counts recent failures. ``logged_<reason>`` counts the log lines since
    ``find_log_start`` that name the reason, or is 0 if the newest is over a minute old. A line
    without a time may be old, and doesn't count. Both are None if they can't be read.
    """
    since = find_log_start(inv)
    lines, _ = attempt(lambda: read_worker_log(inv, since))
    recent = inv.now() - SILENCE
    observations: dict[str, Json] = {}
    problems: list[str] = []
    for reason in reasons:
        failures = metrics.count_failures(reason)
        found = [
            line.at for line in lines or () if re.search(_LOG_PATTERNS[reason], line.text, re.I)
        ]
        times = [at for at in found if at and at > since]
        logged = len(times) if max(times, default=since) >= recent else 0
        observations[f"failures_{reason}"] = failures
        observations[f"logged_{reason}"] = None if lines is None else logged
        if failures:
            problems.append(f"{failures:.0f} times {reason}")
        elif logged >= OFTEN:
            span = f"since {since:%H:%M:%S} UTC"
            problems.append(f"{logged} lines of the worker's log {span} say {reason}")
    return observations, problems


def is_catching_up(inv: Investigation, metrics: WorkerMetrics) -> bool:
    """Tell whether labels that were held back may be coming all at once now.

    They may for five minutes after a failure, and in an incident with a ``STANDSTILL`` cause.
    """
    causes = {cause.name for cause in inv.policy.list_causes(inv.journal)}
    return metrics.has_failed or bool(STANDSTILL & causes)


def count_flow(inv: Investigation) -> dict[str, Json]:
    """Return how many labels arrived and left in the window."""
    since = inv.now() - inv.window
    counts: dict[str, Json] = {}
    for what, counter in {"arrived_in_window": _ARRIVED, "left_in_window": _MOVED}.items():
        series = inv.clients.prometheus.query_samples(counter, inv.window.total_seconds())
        counts[what] = round(sum_growth([each.samples for each in series], since))
    return counts
