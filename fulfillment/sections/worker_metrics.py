"""What the worker counts and logs: failures, carrier, labels that come and leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import ActionPhase, Json, Line, Plot
from runbook_lib.section import attempt
from runbook_lib.show.text import format_duration

from ..analysis.causes import CAUSES, MAX_FAILED_SHARE, STANDSTILL
from ..analysis.samples import (
    Sample,
    compute_increase,
    compute_interval_s,
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
#: The steps whose actions make labels move again, or stop them.
_REMEDIES = ("6.1", "6.2")
#: Failures, carrier requests and moves count as recent for this long, or for four scrape intervals
#: if those are longer.
_RECENT_S = 30.0
#: This many requests tell whether the carrier answers, however short the time.
_ENOUGH_REQUESTS = 10
#: Over how long arrivals are compared with moves.
_FLOW_WINDOW_S = 300.0
#: The time between two readings of the service's own page.
_PAGE_WAIT_S = 4.0
#: Patterns of a log line that says that a request failed for a reason. Each begins with the reason
#: itself, as the service writes it.
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
    """What the worker's counters say.

    But for ``usual_requests``, numbers of a time span count only what came after our last action of
    6.1 or 6.2. If scrapes are rare, four scrape intervals stand in place of the half minute. On the
    service's own page, each time span is 4 s, ``began`` is empty, ``run_gap_s`` is None, and
    ``is_short`` is False.

    Attributes
    ----------
    source : where the counters were read
    recent_since, recent_until : from when to when the recent numbers were counted; None: nothing
        was read
    recent_failures : failures of each reason in the last half minute; 0 for a reason that ended;
        empty when no reason is counted
    recent_requests : requests to the carrier by outcome, in the last half minute
    usual_requests : the same, also those from before our last action; empty on the service's page
    surplus : arrivals minus moves, in the last five minutes; None when unknown
    drained : moves, in the last half minute; None when unknown. None, too, if nothing was moved
        while ``is_short`` is true
    began : when the failures of each cause last began, by cause
    ended : when each reason that ended was last counted, by reason: requests have succeeded since
    run_gap_s : the usual time between two passes of the worker; None when unknown
    is_short : whether our last action is less than half a minute old: what did not happen in so
        little time may still happen
    """

    source: str
    recent_since: datetime | None = None
    recent_until: datetime | None = None
    recent_failures: Mapping[str, float] = {}
    recent_requests: Mapping[str, float] = {}
    usual_requests: Mapping[str, float] = {}
    surplus: float | None = None
    drained: float | None = None
    began: Mapping[str, datetime] = {}
    ended: Mapping[str, datetime] = {}
    run_gap_s: float | None = None
    is_short: bool = False

    @property
    def recently(self) -> str:
        """When the recent numbers were counted, in words that follow a number."""
        if self.recent_since is None or self.recent_until is None:
            return "lately"
        # Not "since …": a reader would take that time for the start of the fault.
        span = format_duration(self.recent_until - self.recent_since)
        return f"in the {span} before {self.recent_until:%H:%M:%S} UTC"

    def compute_carrier_share(self, outcome: str) -> float | None:
        """Return the share of an outcome in the recent carrier requests.

        0 for an outcome that has ended (``ended``). None for fewer than two requests. If
        ``is_short`` is true and the requests are few, a share up to MAX_FAILED_SHARE does not show
        that the carrier answers. Then the answer is the share in the whole half minute, if it is
        up to MAX_FAILED_SHARE, too, and rests on enough requests; else None.
        """
        if f"carrier_{outcome}" in self.ended:
            return 0.0
        total = sum(self.recent_requests.values())
        if total < 2:
            return None
        share = self.recent_requests.get(outcome, 0) / total
        is_sample_small = self.is_short and total < _ENOUGH_REQUESTS
        if is_sample_small and share <= MAX_FAILED_SHARE:
            total = sum(self.usual_requests.values())
            if total < _ENOUGH_REQUESTS:
                return None
            share = self.usual_requests.get(outcome, 0) / total
            if share > MAX_FAILED_SHARE:
                return None
        return round(share, 3)


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
    Only reads. If Prometheus does not answer, or does not scrape the service, the service's own
    ``/metrics`` is read twice, 4 s apart.
    """
    metrics, _ = attempt(lambda: _from_prometheus(inv))
    return metrics or _from_service(inv)


def _from_prometheus(inv: Investigation) -> WorkerMetrics | None:
    """Measure by the counters in Prometheus; None when it does not scrape the service now."""
    prometheus = inv.clients.prometheus
    now = inv.now()
    window_s = max(_FLOW_WINDOW_S, inv.window.total_seconds())
    counters = _collect(lambda name: prometheus.query_samples(name, window_s))
    failed = [counter.samples for counter in counters.failed if counter.samples]
    if not failed:
        return None
    # With a long scrape interval, half a minute may have no sample.
    recent_s = max(_RECENT_S, 4 * compute_interval_s(failed[0][-20:]))
    newest_at = max(samples[-1].at for samples in failed)
    if (now - newest_at).total_seconds() > recent_s:
        return None  # the service is not scraped: its old counts say nothing about now
    # Without a remedy, any time before both windows will do.
    acted_at = _find_last_remedy_at(inv) or now - timedelta(days=1)
    recent_start = now - timedelta(seconds=recent_s)
    metrics = _measure(
        f"{prometheus.url} {_FAILED}",
        counters,
        recent_since=max(acted_at, recent_start),
        recent_until=now,
        flow_since=max(acted_at, now - timedelta(seconds=_FLOW_WINDOW_S)),
    )
    is_short = acted_at > recent_start
    requests = _group_by(counters.carrier, "outcome")
    return metrics._replace(
        is_short=is_short,
        usual_requests=_sum_each(requests, recent_start),
        # So soon after our action, that nothing was moved proves nothing yet.
        drained=None if is_short and not metrics.drained else metrics.drained,
        began=_find_beginnings(counters.failed),
        run_gap_s=_find_run_gap_s(inv),
    )


def _find_run_gap_s(inv: Investigation) -> float | None:
    """Return the usual time between two passes; None without two passes in five minutes."""
    samples = read_samples(inv, _LAST_RUN, _FLOW_WINDOW_S)
    times = sorted({sample.value for sample in samples})
    if len(times) < 2:
        return None
    return median(new - old for old, new in pairwise(times))


def _find_beginnings(failed: Iterable[Series]) -> dict[str, datetime]:
    """Return when the failures of each cause last began, by cause."""
    by_reason = _group_by(failed, "reason")
    beginnings = {}
    for cause, record in CAUSES.items():
        counters = by_reason.get(record.counted_as, [])
        began = find_beginning([counter.samples for counter in counters])
        if began:
            beginnings[cause] = began
    return beginnings


def _from_service(inv: Investigation) -> WorkerMetrics:
    """Measure by two readings of the service's own page, 4 s apart."""
    service = inv.clients.fulfillment
    began_at = inv.now()
    pages = [(began_at, service.read_metrics())]
    inv.sleep(_PAGE_WAIT_S)
    pages.append((inv.now(), service.read_metrics()))
    # The samples of each counter, by its name and labels.
    counters: dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]] = {}
    for at, page in pages:
        for line in page:
            labels = frozenset(line.labels.items())
            samples = counters.setdefault((line.name, labels), [])
            samples.append(Sample(at, line.value))

    def select(wanted: str) -> list[Series]:
        selected = []
        for (name, labels), samples in counters.items():
            if name == wanted:
                series = Series(dict(labels), tuple(samples))
                selected.append(series)
        return selected

    return _measure(
        f"{service.url}/metrics",
        _collect(select),
        recent_since=began_at,
        recent_until=inv.now(),
        flow_since=began_at,
    )


def _collect(read: Callable[[str], Sequence[Series]]) -> _Counters:
    """Return the worker's counters; ``read`` returns the series of a name."""
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
    recent_since: datetime,
    recent_until: datetime,
    flow_since: datetime,
) -> WorkerMetrics:
    """Compute by how much the counters grew.

    Parameters
    ----------
    recent_since, recent_until : from when to when failures, carrier requests and ``drained`` count
    flow_since : since when the arrivals and moves of ``surplus`` count
    """
    failures = _group_by(counters.failed, "reason")
    requests = _group_by(counters.carrier, "outcome")
    ended = _find_ended(counters, failures, requests.get("ok", []))
    surplus = None
    drained = None
    if counters.moved:
        drained = _sum_increase(counters.moved, recent_since)
    if counters.arrived and counters.moved:
        arrived = _sum_increase(counters.arrived, flow_since)
        surplus = arrived - _sum_increase(counters.moved, flow_since)
    return WorkerMetrics(
        source,
        recent_since=recent_since,
        recent_until=recent_until,
        recent_failures=_sum_each(failures, recent_since) | dict.fromkeys(ended, 0.0),
        recent_requests=_sum_each(requests, recent_since),
        surplus=surplus,
        drained=drained,
        ended=ended,
    )


def _find_ended(
    counters: _Counters,
    failures: Mapping[str, list[Series]],
    carrier_successes: Sequence[Series],
) -> dict[str, datetime]:
    """Return when each reason that ended was last counted, by reason.

    A reason ended if every stage that failed for it has succeeded since.

    Parameters
    ----------
    failures : the counters of failures, by reason; each counter is of one stage
    carrier_successes : the counters of the carrier requests that succeeded
    """
    successes = {
        "carrier": carrier_successes,
        "upload": counters.arrived,
        "release": counters.moved,
    }
    ended = {}
    for reason, series in failures.items():
        ends = []
        for counter in series:
            if list_growth(counter.samples):
                stage = counter.labels.get("stage", "")
                # A label that was moved is the success of any stage that is not listed above.
                of_stage = successes.get(stage, counters.moved)
                end = find_end(counter.samples, [success.samples for success in of_stage])
                ends.append(end)
        # An end of None means that the stage has not succeeded since: the reason has not ended.
        known_ends = [at for at in ends if at]
        if ends and len(known_ends) == len(ends):
            ended[reason] = max(known_ends)
    return ended


def _sum_increase(series: Iterable[Series], since: datetime) -> float:
    return sum(compute_increase(counter.samples, since) for counter in series)


def _sum_each(groups: Mapping[str, Iterable[Series]], since: datetime) -> dict[str, float]:
    return {name: _sum_increase(series, since) for name, series in groups.items()}


def _group_by(series: Iterable[Series], label: str) -> dict[str, list[Series]]:
    """Group series by the value of a label; a series without the label is under ``other``."""
    groups: dict[str, list[Series]] = {}
    for counter in series:
        name = counter.labels.get(label, "other")
        group = groups.setdefault(name, [])
        group.append(counter)
    return groups


def _find_last_remedy_at(inv: Investigation) -> datetime | None:
    """Return when 6.1 or 6.2 last changed something; None: never. Other steps move no labels."""
    applied = inv.journal.list_actions(ActionPhase.APPLIED)
    return max((action.at for action in applied if action.step.startswith(_REMEDIES)), default=None)


def observe_reasons(inv: Investigation, metrics: WorkerMetrics, *reasons: str) -> dict[str, Json]:
    """Return the observations of some failure reasons.

    ``failures_<reason>`` is how many were counted lately. ``logged_<reason>`` is whether the
    worker's log names the reason, in the last half minute, or since our last action if that was
    later. Both are None when they cannot be read. ``ended_<reason>`` is when a reason ended. Log
    lines from before that do not count. Nor do those from before the start of a worker that runs.
    """
    recent_since = inv.now() - timedelta(seconds=_RECENT_S)
    since = max(recent_since, _find_last_remedy_at(inv) or recent_since)
    service = inv.settings.worker_service
    lines, _ = attempt(lambda: inv.clients.services.read_logs(service, since=since))
    if lines and any(_is_logged(lines, reason, after=since) for reason in reasons):
        # What a process that is gone wrote says nothing of the worker now.
        since = max(since, _find_start(inv, service) or since)
    observations: dict[str, Json] = {}
    for reason in reasons:
        ended_at = metrics.ended.get(reason)
        count = None
        if metrics.recent_failures:
            count = metrics.recent_failures.get(reason, 0.0)
        is_logged = None
        if lines is not None:
            is_logged = _is_logged(lines, reason, after=max(since, ended_at or since))
        observations[f"failures_{reason}"] = count
        observations[f"logged_{reason}"] = is_logged
        if ended_at:
            observations[f"ended_{reason}"] = ended_at
    return observations


def _find_start(inv: Investigation, service: str) -> datetime | None:
    """Return when the oldest process of a service was started; None if none runs, or not known."""
    states, _ = attempt(inv.clients.services.list_services)
    running = [state.since for state in states or () if state.name == service and state.running]
    return min((at for at in running if at), default=None)


def _is_logged(lines: Iterable[LogLine], reason: str, *, after: datetime) -> bool:
    """Tell whether a line after a time says that a request failed for a reason.

    A line without a time counts.
    """
    for line in lines:
        is_new = line.at is None or line.at > after
        if is_new and re.search(_LOG_SIGNS[reason], line.text, re.I):
            return True
    return False


def is_catching_up(inv: Investigation, metrics: WorkerMetrics) -> bool:
    """Tell whether labels that were kept back may be coming all at once now.

    That may be so once this incident has had a cause of ``STANDSTILL``, and for five minutes after
    failures ended in this incident.
    """
    causes = inv.policy.list_causes(inv.journal)
    if any(cause.name in STANDSTILL for cause in causes):
        return True
    start = max(inv.incident.state.opened_at, inv.now() - timedelta(seconds=_FLOW_WINDOW_S))
    return any(ended_at > start for ended_at in metrics.ended.values())


def count_flow(inv: Investigation) -> dict[str, Json]:
    """Return how many labels arrived and left in the investigation's window."""
    since = inv.now() - inv.window
    counts: dict[str, Json] = {}
    for what, counter in {"arrived_in_window": _ARRIVED, "left_in_window": _MOVED}.items():
        series = inv.clients.prometheus.query_samples(counter, inv.window.total_seconds())
        counts[what] = round(_sum_increase(series, since))
    return counts


def draw_throughput(inv: Investigation) -> Plot:
    """Return a plot of arrival and drain over the window; without lines if Prometheus is down."""

    def read() -> tuple[Line, ...]:
        arrival = read_lines(inv, f"sum(rate({_ARRIVED}[1m])) * 60", name="arrival")
        drain = read_lines(inv, f"sum(rate({_MOVED}[1m])) * 60", name="drain")
        return arrival + drain

    lines, _ = attempt(read)
    return Plot(
        title="Labels that arrive, and that the worker moves (mean of a minute)",
        unit="per minute",
        part="forecast",
        lines=lines or (),
    )
