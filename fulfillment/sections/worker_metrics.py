"""What the worker counts and logs: failures, carrier, labels that come and leave."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Json, Line, Plot
from runbook_lib.section import attempt

from ..analysis import samples
from ..analysis.causes import CAUSES
from ..analysis.samples import Rate
from ..clients.http_systems import Sample, Series
from ..investigation import Investigation
from .detection import read_range

#: Real objects that wait, by Prometheus; the prefix is filled in.
BACKLOG = 'fulfillment_artifacts_backlog_objects{origin="real",prefix="%s"}'

_FAILED = "fulfillment_artifacts_failed_total"
_CARRIER = "fulfillment_carrier_request_seconds_count"
_ARRIVED = "fulfillment_artifacts_arrived_total"
_MOVED = "fulfillment_artifacts_moved_total"
_COUNTERS = (_FAILED, _CARRIER, _ARRIVED, _MOVED)
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
    """Growth of the worker's counters, newest first things first.

    Attributes
    ----------
    recent : failures by reason in the last half minute (or since our last action); empty when
        they could not be read
    carrier : carrier requests by outcome in the same time
    surplus, drained : arrivals less moves in five minutes; moves in the last half minute
    first : when the reasons that stand for causes were first counted in the window, by cause
    ended : when each reason was last counted that does not count any more: things succeed since
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
        """Return an outcome's share of the carrier's answers; None when it was not asked twice."""
        if f"carrier_{outcome}" in self.ended:
            return 0.0
        total = sum(self.carrier.values())
        return round(self.carrier.get(outcome, 0) / total, 3) if total >= 2 else None


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
    return attempt(lambda: _from_prometheus(inv))[0] or _from_service(inv)


def _from_prometheus(inv: Investigation) -> WorkerMetrics | None:
    prometheus, now = inv.clients.prometheus, inv.now()
    window_s = max(_FLOW_S, inv.window.total_seconds())
    counters = [prometheus.query_samples(name, window_s) for name in _COUNTERS]
    newest = [s.samples[-20:] for s in counters[0] if s.samples]
    recent_s = max(_RECENT_S, 4 * samples.compute_interval_s(newest[0])) if newest else _RECENT_S
    if not newest or (now - max(s[-1].at for s in newest)).total_seconds() > recent_s:
        return None  # the service is not scraped: its old counts say nothing of now
    floor = inv.journal.last_applied_at or now - timedelta(days=1)
    recent, flow = (max(floor, now - timedelta(seconds=s)) for s in (recent_s, _FLOW_S))
    found = _measure(f"{prometheus.url} {_FAILED}", counters, recent, flow)
    runs = sorted({s.value for s in samples.join(prometheus.query_samples(_LAST_RUN, _FLOW_S))})
    gap_s = median(b - a for a, b in pairwise(runs)) if len(runs) > 1 else None
    failed = _group_by(counters[0], "reason")
    began = {c: samples.find_beginning(failed.get(r.counted_as, ())) for c, r in CAUSES.items()}
    return found._replace(first={c: at for c, at in began.items() if at}, run_gap_s=gap_s)


def _from_service(inv: Investigation) -> WorkerMetrics:
    service, began_at = inv.clients.fulfillment, inv.now()
    pages = [(began_at, service.read_metrics())]
    inv.sleep(_BLIND_WAIT_S)
    pages.append((inv.now(), service.read_metrics()))
    pairs = defaultdict[tuple[str, frozenset[tuple[str, str]]], list[Sample]](list)
    for at, page in pages:
        for one in page:
            pairs[one.name, frozenset(one.labels.items())].append(Sample(at, one.value))
    counters = [
        [Series(dict(labels), tuple(pair)) for (of, labels), pair in pairs.items() if of == name]
        for name in _COUNTERS
    ]
    return _measure(f"{service.url}/metrics", counters, began_at, began_at)


def _measure(
    source: str, counters: Sequence[Sequence[Series]], recent: datetime, flow: datetime
) -> WorkerMetrics:
    """Measure the counters; a reason has ended when every stage that it broke succeeds since."""
    failed, carrier, arrived, moved = counters
    failures, answers = _group_by(failed, "reason"), _group_by(carrier, "outcome")
    succeeded = {"carrier": answers.get("ok", ()), "upload": arrived, "release": moved}
    ended: dict[str, datetime] = {}
    for reason, series in failures.items():
        bad = [one for one in series if samples.list_growth(one.samples)]
        good = [succeeded.get(one.labels.get("stage", ""), moved) for one in bad]
        ends = [samples.find_end(one.samples, of) for one, of in zip(bad, good, strict=True)]
        if ends and None not in ends:
            ended[reason] = max(at for at in ends if at)
    counted = {r: 0.0 if r in ended else _sum(of, recent) for r, of in failures.items()}
    asked = {outcome: _sum(of, recent) for outcome, of in answers.items()}
    surplus = _sum(arrived, flow) - _sum(moved, flow) if arrived and moved else None
    drained = _sum(moved, recent) if moved else None
    return WorkerMetrics(source, counted, asked, surplus, drained, ended=ended)


def _sum(series: Iterable[Series], since: datetime) -> float:
    return sum(samples.compute_increase(s.samples, since) for s in series)


def _group_by(series: Iterable[Series], label: str) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(one.labels.get(label, "other"), []).append(one)
    return found


def observe_reasons(inv: Investigation, metrics: WorkerMetrics, *reasons: str) -> dict[str, Json]:
    """Return what counters and the worker's log of the last half minute say of some reasons.

    ``failures_<reason>``, ``logged_<reason>`` (both None where they cannot be read), and
    ``ended_<reason>`` of those past. A line from before a reason's end says nothing.
    """
    since = inv.now() - timedelta(seconds=_RECENT_S)
    since = max(since, inv.journal.last_applied_at or since)
    service = inv.settings.worker_service
    lines, _ = attempt(lambda: inv.clients.services.read_logs(service, since=since))
    told: dict[str, Json] = {}
    for reason in reasons:
        ended = metrics.ended.get(reason)
        new = [line.text for line in lines or () if not line.at or line.at > (ended or since)]
        is_logged = any(re.search(_LOG_SIGNS[reason], text, re.I) for text in new)
        told[f"failures_{reason}"] = metrics.recent.get(reason, 0.0) if metrics.recent else None
        told[f"logged_{reason}"] = None if lines is None else is_logged
        if ended:
            told[f"ended_{reason}"] = ended
    return told


def read_rates(inv: Investigation, *, is_stopped: bool) -> tuple[Rate | None, Rate | None]:
    """Return the rates of arrival and drain; None for what has too few samples.

    Parameters
    ----------
    is_stopped : whether nothing can leave now: what left before it says nothing of what will

    Raises
    ------
    ClientError
        When Prometheus does not answer.
    """
    read = inv.clients.prometheus.query_samples
    counters = ([one.samples for one in read(name, _RATE_S)] for name in (_ARRIVED, _MOVED))
    arrival, drain = (samples.compute_rate(*counted) for counted in counters)
    return arrival, Rate(0.0, 0.0, 0.0) if drain and is_stopped else drain


def draw_throughput(inv: Investigation) -> Plot:
    """Draw arrival and drain per minute over the window; no lines without Prometheus."""

    def read(metric: str, name: str) -> tuple[Line, ...]:
        return read_range(inv, f"sum(rate({metric}[1m])) * 60", name=name)

    lines, _ = attempt(lambda: read(_ARRIVED, "arrival") + read(_MOVED, "drain"))
    title = "Labels arriving against labels leaving"
    return Plot(title=title, unit="per minute", part="forecast", lines=lines or ())
