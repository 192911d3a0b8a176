"""What the worker counts and logs: failures, carrier, labels that come and leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Json, Line, Plot
from runbook_lib.section import attempt

from ..analysis.causes import CAUSES, STANDSTILL
from ..analysis.samples import (
    Rate,
    Sample,
    compute_increase,
    compute_interval_s,
    compute_rate,
    find_beginning,
    find_end,
    list_growth,
)
from ..clients.http_systems import Series
from ..clients.services import LogLine
from ..investigation import Investigation
from .signals import read_lines, read_samples

_FAILED = "fulfillment_artifacts_failed_total"
_CARRIER = "fulfillment_carrier_request_seconds_count"
_ARRIVED = "fulfillment_artifacts_arrived_total"
_MOVED = "fulfillment_artifacts_moved_total"
_LAST_RUN = "fulfillment_worker_last_run_timestamp_seconds"
_RATE_S = 120
_RECENT_S = 30.0
_FLOW_S = 300.0
_BLIND_WAIT_S = 4.0
#: What a log line says when a request failed for a reason; the service's own words come first.
_LOG_SIGNS = {
    "carrier_timeout": r"carrier_timeout|carrier\b.*\b(?:timed? ?out|no answer within)",
    "carrier_error": r"carrier_error|carrier\b.*\b(?:5\d\d|server error|refused)",
    "storage_full": r"storage_full|XMinioStorageFull|QuotaExceeded|no space left|quota exceeded",
    "bad_credentials": r"bad_credentials|SignatureDoesNotMatch|InvalidAccessKeyId",
    "access_denied": r"access_denied|AccessDenied|\bforbidden\b",
    "store_unreachable": r"store_unreachable",
    "no_such_bucket": r"no_such_bucket|NoSuchBucket",
}


class WorkerMetrics(NamedTuple):
    """Growth of the worker's counters.

    Attributes
    ----------
    recent : failures by reason in the last half minute (or since our last action); empty when
        they could not be read
    carrier : carrier requests by outcome in the same time
    surplus, drained : arrivals less moves in five minutes; moves in the last half minute
    first : when the reasons that stand for causes were first counted in the window, by cause
    ended : when each reason that is over was last counted: things have succeeded since
    run_gap_s : the usual time between two passes of the worker
    """

    source: str
    recent: Mapping[str, float] = {}
    carrier: Mapping[str, float] = {}
    surplus: float | None = None
    drained: float | None = None
    first: Mapping[str, datetime] = {}
    ended: Mapping[str, datetime] = {}
    run_gap_s: float | None = None

    def share(self, outcome: str) -> float | None:
        """Return an outcome's share of the carrier's answers; None for fewer than two answers."""
        if f"carrier_{outcome}" in self.ended:
            return 0.0
        total = sum(self.carrier.values())
        if total < 2:
            return None
        count = self.carrier.get(outcome, 0)
        return round(count / total, 3)


class _Counters(NamedTuple):
    """The series of the worker's counters."""

    failed: Sequence[Series]
    carrier: Sequence[Series]
    arrived: Sequence[Series]
    moved: Sequence[Series]


def read_worker_metrics(inv: Investigation) -> WorkerMetrics:
    """Read the worker's counters.

    Raises
    ------
    ClientError
        When neither Prometheus nor the service's own page can be read.

    Notes
    -----
    Only reads. Without Prometheus the service's own ``/metrics`` is read twice, 4 s apart.
    """
    metrics, _ = attempt(lambda: _from_prometheus(inv))
    return metrics or _from_service(inv)


def _from_prometheus(inv: Investigation) -> WorkerMetrics | None:
    """Measure by Prometheus; None when it does not scrape the service now."""
    prometheus = inv.clients.prometheus
    now = inv.now()
    window_s = max(_FLOW_S, inv.window.total_seconds())
    counters = _collect(lambda name: prometheus.query_samples(name, window_s))
    failed = [counter.samples for counter in counters.failed if counter.samples]
    if not failed:
        return None
    recent_s = max(_RECENT_S, 4 * compute_interval_s(failed[0][-20:]))
    newest_at = max(samples[-1].at for samples in failed)
    if (now - newest_at).total_seconds() > recent_s:
        return None  # the service is not scraped: its old counts say nothing about now
    acted_at = inv.journal.last_applied_at or now - timedelta(days=1)
    metrics = _measure(
        f"{prometheus.url} {_FAILED}",
        counters,
        recent=max(acted_at, now - timedelta(seconds=recent_s)),
        flow=max(acted_at, now - timedelta(seconds=_FLOW_S)),
    )
    return metrics._replace(
        first=_find_beginnings(counters.failed),
        run_gap_s=_find_run_gap_s(inv),
    )


def _find_run_gap_s(inv: Investigation) -> float | None:
    """Return the usual time between two passes of the worker; None before the second one."""
    samples = read_samples(inv, _LAST_RUN, _FLOW_S)
    times = sorted({sample.value for sample in samples})
    if len(times) < 2:
        return None
    return median(new - old for old, new in pairwise(times))


def _find_beginnings(failed: Iterable[Series]) -> dict[str, datetime]:
    """Return for each cause when the reason that stands for it was first counted."""
    by_reason = _group_by(failed, "reason")
    beginnings = {}
    for cause, record in CAUSES.items():
        counters = by_reason.get(record.counted_as, [])
        began = find_beginning([counter.samples for counter in counters])
        if began:
            beginnings[cause] = began
    return beginnings


def _from_service(inv: Investigation) -> WorkerMetrics:
    """Measure by two readings of the service's own page."""
    service = inv.clients.fulfillment
    began_at = inv.now()
    pages = [(began_at, service.read_metrics())]
    inv.sleep(_BLIND_WAIT_S)
    pages.append((inv.now(), service.read_metrics()))
    # By name and labels; a dict keeps the order of the page.
    pairs: dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]] = {}
    for at, page in pages:
        for line in page:
            labels = frozenset(line.labels.items())
            samples = pairs.setdefault((line.name, labels), [])
            samples.append(Sample(at, line.value))

    def collect(wanted: str) -> list[Series]:
        collected = []
        for (name, labels), samples in pairs.items():
            if name == wanted:
                series = Series(dict(labels), tuple(samples))
                collected.append(series)
        return collected

    return _measure(
        f"{service.url}/metrics",
        _collect(collect),
        recent=began_at,
        flow=began_at,
    )


def _collect(read: Callable[[str], Sequence[Series]]) -> _Counters:
    return _Counters(
        failed=read(_FAILED),
        carrier=read(_CARRIER),
        arrived=read(_ARRIVED),
        moved=read(_MOVED),
    )


def _measure(
    source: str,
    counters: _Counters,
    *,
    recent: datetime,
    flow: datetime,
) -> WorkerMetrics:
    """Measure the counters.

    Parameters
    ----------
    recent, flow : since when failures, and since when arrivals and moves, are counted
    """
    failures = _group_by(counters.failed, "reason")
    answers = _group_by(counters.carrier, "outcome")
    ended = _find_ended(counters, failures, answers.get("ok", []))
    surplus = None
    drained = None
    if counters.moved:
        drained = _sum(counters.moved, recent)
    if counters.arrived and counters.moved:
        surplus = _sum(counters.arrived, flow) - _sum(counters.moved, flow)
    return WorkerMetrics(
        source,
        recent=_sum_each(failures, recent) | dict.fromkeys(ended, 0.0),
        carrier=_sum_each(answers, recent),
        surplus=surplus,
        drained=drained,
        ended=ended,
    )


def _find_ended(
    counters: _Counters,
    failures: Mapping[str, list[Series]],
    carried: Sequence[Series],
) -> dict[str, datetime]:
    """Return when each reason ended: every stage that it broke has succeeded since.

    Parameters
    ----------
    carried : the carrier's good answers
    """
    succeeded = {"carrier": carried, "upload": counters.arrived, "release": counters.moved}
    ended = {}
    for reason, series in failures.items():
        ends = []
        for counter in series:
            if list_growth(counter.samples):
                stage = counter.labels.get("stage", "")
                good = succeeded.get(stage, counters.moved)
                end = find_end(counter.samples, [other.samples for other in good])
                ends.append(end)
        known = [at for at in ends if at]
        if ends and len(known) == len(ends):
            ended[reason] = max(known)
    return ended


def _sum(series: Iterable[Series], since: datetime) -> float:
    return sum(compute_increase(counter.samples, since) for counter in series)


def _sum_each(groups: Mapping[str, Iterable[Series]], since: datetime) -> dict[str, float]:
    return {name: _sum(series, since) for name, series in groups.items()}


def _group_by(series: Iterable[Series], label: str) -> dict[str, list[Series]]:
    groups: dict[str, list[Series]] = {}
    for counter in series:
        name = counter.labels.get(label, "other")
        group = groups.setdefault(name, [])
        group.append(counter)
    return groups


def observe_reasons(inv: Investigation, metrics: WorkerMetrics, *reasons: str) -> dict[str, Json]:
    """Return what the counters, and the log of the last half minute, say of some reasons.

    ``failures_<reason>``, ``logged_<reason>`` (both None where they cannot be read), and
    ``ended_<reason>`` of those past. A line from before a reason's end says nothing.
    """
    since = inv.now() - timedelta(seconds=_RECENT_S)
    since = max(since, inv.journal.last_applied_at or since)
    service = inv.settings.worker_service
    lines, _ = attempt(lambda: inv.clients.services.read_logs(service, since=since))
    observations: dict[str, Json] = {}
    for reason in reasons:
        ended = metrics.ended.get(reason)
        counted = None
        if metrics.recent:
            counted = metrics.recent.get(reason, 0.0)
        is_logged = None
        if lines is not None:
            is_logged = _is_logged(lines, reason, after=ended or since)
        observations[f"failures_{reason}"] = counted
        observations[f"logged_{reason}"] = is_logged
        if ended:
            observations[f"ended_{reason}"] = ended
    return observations


def _is_logged(lines: Iterable[LogLine], reason: str, *, after: datetime) -> bool:
    """Tell whether a line says that a request failed for a reason. A line may have no time."""
    for line in lines:
        is_new = line.at is None or line.at > after
        if is_new and re.search(_LOG_SIGNS[reason], line.text, re.I):
            return True
    return False


def is_catching_up(inv: Investigation, metrics: WorkerMetrics) -> bool:
    """Tell whether something in this incident kept labels back: afterwards they come all at once.

    That is a standstill, or failures that ended lately.
    """
    causes = inv.policy.list_causes(inv.journal)
    if any(cause.name in STANDSTILL for cause in causes):
        return True
    start = max(inv.incident.state.opened_at, inv.now() - timedelta(seconds=_FLOW_S))
    return any(ended > start for ended in metrics.ended.values())


class Rates(NamedTuple):
    """How fast labels come and leave; None for what has too few samples."""

    arrival: Rate | None = None
    drain: Rate | None = None


def read_rates(inv: Investigation, *, is_stopped: bool) -> Rates:
    """Return the rates of arrival and drain.

    Parameters
    ----------
    is_stopped : whether nothing can leave now: then past drains say nothing about the future

    Raises
    ------
    ClientError
        When Prometheus does not answer.
    """
    arrival = _read_rate(inv, _ARRIVED)
    drain = _read_rate(inv, _MOVED)
    if drain and is_stopped:
        drain = Rate(0.0, 0.0, 0.0)
    return Rates(arrival, drain)


def _read_rate(inv: Investigation, counter: str) -> Rate | None:
    series = inv.clients.prometheus.query_samples(counter, _RATE_S)
    return compute_rate(*(counter.samples for counter in series))


def draw_throughput(inv: Investigation) -> Plot:
    """Draw arrival and drain per minute over the window; no lines without Prometheus."""

    def read() -> tuple[Line, ...]:
        arrival = read_lines(inv, f"sum(rate({_ARRIVED}[1m])) * 60", name="arrival")
        drain = read_lines(inv, f"sum(rate({_MOVED}[1m])) * 60", name="drain")
        return arrival + drain

    lines, _ = attempt(read)
    return Plot(
        title="Labels arriving against labels leaving",
        unit="per minute",
        part="forecast",
        lines=lines or (),
    )
