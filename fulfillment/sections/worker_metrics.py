"""What the worker counts and logs: failures, carrier, labels that come and leave."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import ActionPhase, Json
from runbook_lib.section import attempt

from ..analysis.causes import CAUSES, STANDSTILL
from ..analysis.samples import (
    Sample,
    compute_interval_s,
    find_beginning,
    list_growth,
    sum_growth,
)
from ..clients.http_systems import Series
from ..clients.services import LogLine, read_log_command
from ..investigation import Investigation
from .signals import read_samples

_FAILED = "fulfillment_artifacts_failed_total"
_CARRIER = "fulfillment_carrier_request_seconds_count"
_ARRIVED = "fulfillment_artifacts_arrived_total"
_MOVED = "fulfillment_artifacts_moved_total"
_LAST_RUN = "fulfillment_worker_last_run_timestamp_seconds"
#: The steps whose actions make labels move again, or stop them.
_REMEDIES = ("6.1", "6.2")
#: Failures, carrier requests and moves count as recent for this long, or for four scrape intervals
#: if those are longer.
_RECENT_S = 30.0
#: Over how long arrivals are compared with moves, and errors of a log are counted.
_FLOW_WINDOW_S = 300.0
#: An error that has not been logged for this long has ended.
_SILENT = timedelta(seconds=60)
#: The time between two readings of the service's own page.
_PAGE_WAIT_S = 4.0
#: Patterns of a log line that says that a request failed for a reason. Each begins with the reason
#: itself, as the service writes it.
_LOG_SIGNS = {
    "carrier_timeout": r"carrier_timeout|carrier\b.*\b(?:timed? ?out|no answer within)",
    "carrier_error": r"carrier_error|carrier\b.*\b(?:5\d\d|server error|refused)",
    "storage_full": r"storage_?full|QuotaExceeded|no space left|quota exceeded|\b507\b",
    "bad_credentials": r"bad_credentials|SignatureDoesNotMatch|InvalidAccessKeyId",
    "access_denied": r"access_denied|AccessDenied|\bforbidden\b",
    "store_unreachable": r"store_unreachable",
    "no_such_bucket": r"no_such_bucket|NoSuchBucket",
}

_Counters = Mapping[str, Sequence[Series]]


class WorkerMetrics(NamedTuple):
    """What the worker's counters say; numbers of a time span count from our last remedy on.

    Attributes
    ----------
    source : where the counters were read
    recent_failures : failures of each reason in the last half minute; empty when no reason is
        counted
    recent_requests : requests to the carrier by outcome, in the last half minute
    surplus : arrivals minus moves, in the last five minutes; None when unknown
    drained : moves, in the last half minute; None when unknown
    has_failed : whether anything failed in the last five minutes of this incident
    began : when the failures of each cause last began, by cause
    run_gap_s : the usual time between two passes of the worker; None when unknown
    """

    source: str
    recent_failures: Mapping[str, float] = {}
    recent_requests: Mapping[str, float] = {}
    surplus: float | None = None
    drained: float | None = None
    has_failed: bool = False
    began: Mapping[str, datetime] = {}
    run_gap_s: float | None = None

    def compute_carrier_share(self, outcome: str) -> float | None:
        """Return an outcome's share in the recent carrier requests; None for fewer than two."""
        total = sum(self.recent_requests.values())
        if total < 2:
            return None
        return round(self.recent_requests.get(outcome, 0) / total, 3)


def read_worker_metrics(inv: Investigation) -> WorkerMetrics:
    """Read the worker's counters. Only reads.

    If Prometheus does not answer, or does not scrape the service, the service's own ``/metrics`` is
    read twice, 4 s apart.

    Raises
    ------
    ClientError
        When neither Prometheus nor the service's own page can be read.
    """
    prometheus = inv.clients.prometheus
    window_s = max(_FLOW_WINDOW_S, inv.window.total_seconds())
    names = (_FAILED, _CARRIER, _ARRIVED, _MOVED)
    found, _ = attempt(lambda: {name: prometheus.query_samples(name, window_s) for name in names})
    counters: _Counters = found or {}
    failed = [series.samples for series in counters.get(_FAILED, ()) if series.samples]
    # With a long scrape interval, half a minute may have no sample.
    interval_s = compute_interval_s(failed[0][-20:]) if failed else 0.0
    recent_s = max(_RECENT_S, 4 * interval_s)
    newest_at = max((samples[-1].at for samples in failed), default=None)
    source = f"{prometheus.url} {_FAILED}"
    gap_s = None
    if newest_at is None or (inv.now() - newest_at).total_seconds() > recent_s:
        # The service is not scraped: old counts say nothing about now.
        source = f"{inv.clients.fulfillment.url}/metrics"
        counters = _read_pages(inv)
    else:
        gap_s = _find_run_gap_s(inv)
    return _measure(inv, source, counters, recent_s)._replace(run_gap_s=gap_s)


def _find_run_gap_s(inv: Investigation) -> float | None:
    """Return the usual time between two passes; None without two passes in five minutes."""
    samples = read_samples(inv, _LAST_RUN, _FLOW_WINDOW_S)
    times = sorted({sample.value for sample in samples})
    if len(times) < 2:
        return None
    return median(new - old for old, new in pairwise(times))


def _read_pages(inv: Investigation) -> _Counters:
    """Return the worker's counters by two readings of the service's own page, 4 s apart."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]] = {}
    for wait_s in (0.0, _PAGE_WAIT_S):
        if wait_s:
            inv.sleep(wait_s)
        for line in inv.clients.fulfillment.read_metrics():
            counter = samples.setdefault((line.name, frozenset(line.labels.items())), [])
            counter.append(Sample(inv.now(), line.value))
    counters: dict[str, list[Series]] = {}
    for (name, labels), values in samples.items():
        series = counters.setdefault(name, [])
        series.append(Series(dict(labels), tuple(values)))
    return counters


def _measure(
    inv: Investigation, source: str, counters: _Counters, recent_s: float
) -> WorkerMetrics:
    """Compute by how much the counters grew."""
    now = inv.now()
    acted_at = find_last_remedy(inv) or now - timedelta(days=1)
    recent = max(acted_at, now - timedelta(seconds=recent_s))
    of_incident = max(inv.incident.state.opened_at, now - timedelta(seconds=_FLOW_WINDOW_S))
    flow = max(acted_at, now - timedelta(seconds=_FLOW_WINDOW_S))
    failures = _group_by(counters.get(_FAILED, ()), "reason")
    requests = _group_by(counters.get(_CARRIER, ()), "outcome")
    arrived = [series.samples for series in counters.get(_ARRIVED, ())]
    moved = [series.samples for series in counters.get(_MOVED, ())]
    surplus = None
    if arrived and moved:
        surplus = sum_growth(arrived, flow) - sum_growth(moved, flow)
    beginnings = {
        str(cause): find_beginning(list_growth(failures.get(record.counted_as, [])))
        for cause, record in CAUSES.items()
    }
    return WorkerMetrics(
        source,
        recent_failures={name: sum_growth(samples, recent) for name, samples in failures.items()},
        recent_requests={name: sum_growth(samples, recent) for name, samples in requests.items()},
        surplus=surplus,
        drained=sum_growth(moved, recent) if moved else None,
        has_failed=any(sum_growth(samples, of_incident) for samples in failures.values()),
        began={cause: began for cause, began in beginnings.items() if began},
    )


def _group_by(series: Iterable[Series], label: str) -> dict[str, list[Sequence[Sample]]]:
    """Group counters by the value of a label; a series without the label is under ``other``."""
    groups: dict[str, list[Sequence[Sample]]] = {}
    for counter in series:
        group = groups.setdefault(counter.labels.get(label, "other"), [])
        group.append(counter.samples)
    return groups


def find_last_remedy(inv: Investigation) -> datetime | None:
    """Return when 6.1 or 6.2 last changed something; None: never. Other steps move no labels."""
    applied = inv.journal.list_actions(ActionPhase.APPLIED)
    return max((action.at for action in applied if action.step.startswith(_REMEDIES)), default=None)


def read_worker_log(
    inv: Investigation, since: datetime, *, max_lines: int = 20_000
) -> list[LogLine]:
    """Return the worker's newest log lines since a time, by WORKER_LOG_CMD where it is set."""
    if inv.settings.worker_log_cmd:
        return read_log_command(inv.settings, since=since, max_lines=max_lines)
    service = inv.settings.worker_service
    return inv.clients.services.read_logs(service, since=since, max_lines=max_lines)


def observe_reasons(inv: Investigation, metrics: WorkerMetrics, *reasons: str) -> dict[str, Json]:
    """Return the observations of some failure reasons.

    ``failures_<reason>`` is how many were counted lately. ``logged_<reason>`` is how many lines of
    the worker's log named the reason in the last five minutes, from our last remedy on; 0 if none
    did in the last minute. Both are None when they cannot be read. Lines from before the start of a
    worker that runs do not count.
    """
    since = inv.now() - timedelta(seconds=_FLOW_WINDOW_S)
    since = max(since, find_last_remedy(inv) or since)
    lines, _ = attempt(lambda: read_worker_log(inv, since))
    if lines and any(_count_logged(inv, lines, reason, since) for reason in reasons):
        # What a process that is gone wrote says nothing of the worker now.
        since = max(since, _find_start(inv) or since)
    observations: dict[str, Json] = {}
    for reason in reasons:
        observations[f"failures_{reason}"] = None
        if metrics.recent_failures:
            observations[f"failures_{reason}"] = metrics.recent_failures.get(reason, 0.0)
        observations[f"logged_{reason}"] = None
        if lines is not None:
            observations[f"logged_{reason}"] = _count_logged(inv, lines, reason, since)
    return observations


def _find_start(inv: Investigation) -> datetime | None:
    """Return when the worker's oldest process was started; None if none runs, or not known."""
    states, _ = attempt(inv.clients.services.list_services)
    service = inv.settings.worker_service
    running = [state.since for state in states or () if state.name == service and state.running]
    return min((at for at in running if at), default=None)


def _count_logged(
    inv: Investigation, lines: Iterable[LogLine], reason: str, after: datetime
) -> int:
    """Count the lines after a time that name a reason; 0 if the newest is over a minute old.

    A line without a time counts.
    """
    times = [line.at for line in lines if re.search(_LOG_SIGNS[reason], line.text, re.I)]
    counted = [at for at in times if at is None or at > after]
    known = [at for at in counted if at is not None]
    if known and inv.now() - max(known) > _SILENT:
        return 0
    return len(counted)


def is_catching_up(inv: Investigation, metrics: WorkerMetrics) -> bool:
    """Tell whether labels that were kept back may be coming all at once now.

    That may be so once this incident has had a cause of ``STANDSTILL``, and for five minutes after
    failures.
    """
    causes = inv.policy.list_causes(inv.journal)
    return metrics.has_failed or any(cause.name in STANDSTILL for cause in causes)


def count_flow(inv: Investigation) -> dict[str, Json]:
    """Return how many labels arrived and left in the investigation's window."""
    since = inv.now() - inv.window
    counts: dict[str, Json] = {}
    for what, counter in {"arrived_in_window": _ARRIVED, "left_in_window": _MOVED}.items():
        series = inv.clients.prometheus.query_samples(counter, inv.window.total_seconds())
        counts[what] = round(sum_growth([each.samples for each in series], since))
    return counts
