"""Whether labels get in, whether the lag stays low, and since when all is well. Only reads.

Sections 2 and 6 read the same signals: what Prometheus scraped, and what waits in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Outcome, Role, Status
from runbook_lib.record.history import list_history
from runbook_lib.section import attempt

from ..analysis.recovery import compute_recovery, find_well_since
from ..analysis.samples import Sample, clean, find_end, list_growth
from ..investigation import Investigation
from ..outcome import Backlog, Uploads
from ..waiting import Waiting, say_waiting
from .signals import ALERTS, BACKLOG, LAG, REFRESH, read_samples

_FAILED_UPLOADS = 'fulfillment_artifacts_failed_total{stage="upload"}'
_ARRIVED = "fulfillment_artifacts_arrived_total"
_ORDERS = "fulfillment_orders_received_total"
#: How old an upload may be to say something about now.
_UPLOADS_S = 300.0
#: How long an order may have no label before it counts.
_PATIENCE = timedelta(seconds=60)
#: How old a counter's newest sample may be to say something about now.
_SCRAPED = timedelta(seconds=120)
#: Step of a range query over an hour.
_HOUR_STEP_S = 30.0


def read_uploads(inv: Investigation) -> Uploads:
    """Tell by the worker's counters whether labels get into the store.

    Failures count until more successes follow than chance explains. Without a counter that is
    scraped now, nobody asked.
    """
    failed, _ = attempt(lambda: _read_counters(inv, _FAILED_UPLOADS))
    arrived, _ = attempt(lambda: _read_counters(inv, _ARRIVED))
    orders, _ = attempt(lambda: _read_counters(inv, _ORDERS))
    if not arrived:
        return Uploads.UNASKED
    failures = _add_growth(failed or ())
    arrivals = _add_growth(arrived)
    if failures and find_end(_sum_up(failures), arrived) is None:
        return Uploads.FAILING
    last_arrival = max((grown.at for grown in arrivals), default=None)
    oldest_wish = inv.now() - _PATIENCE
    for order in _add_growth(orders or ()):
        is_waiting = last_arrival is None or order.at > last_arrival
        if is_waiting and order.at < oldest_wish:
            return Uploads.NONE
    return Uploads.SUCCEEDING if arrivals else Uploads.UNASKED


def find_last_upload(inv: Investigation) -> datetime | None:
    """Return when a label last got in; None unless uploads failed lately and succeed again."""
    if read_uploads(inv) is not Uploads.SUCCEEDING:
        return None
    failed, _ = attempt(lambda: _read_counters(inv, _FAILED_UPLOADS))
    if not _add_growth(failed or ()):
        return None
    arrived, _ = attempt(lambda: _read_counters(inv, _ARRIVED))
    arrivals = _add_growth(arrived or ())
    return max((grown.at for grown in arrivals), default=None)


def _read_counters(
    inv: Investigation, selector: str, window_s: float = _UPLOADS_S
) -> list[Sequence[Sample]]:
    """Return the samples of each counter of a selector that is still scraped."""
    oldest = inv.now() - _SCRAPED
    counters: list[Sequence[Sample]] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples = clean(series.samples)
        if samples and samples[-1].at >= oldest:
            counters.append(samples)
    return counters


def _add_growth(counters: Iterable[Sequence[Sample]]) -> list[Sample]:
    growth: list[Sample] = []
    for samples in counters:
        growth += list_growth(samples)
    return sorted(growth)


def _sum_up(growth: Sequence[Sample]) -> list[Sample]:
    """Return one counter: the sum of several."""
    start = growth[0].at - timedelta(seconds=1)
    total = 0.0
    samples = [Sample(start, total)]
    for grown in growth:
        total += grown.value
        samples.append(Sample(grown.at, total))
    return samples


def find_judged_from(inv: Investigation) -> datetime:
    """Return since when readings are judged: the last action, else the opening of the incident."""
    return inv.journal.last_applied_at or inv.incident.state.opened_at


def judge_lag(inv: Investigation, since: datetime) -> Outcome:
    """Judge the lag by the samples whose refresh is later than a time, as 6.5 does."""
    span = inv.now() - since
    window_s = max(60.0, span.total_seconds() + 60)
    return compute_recovery(
        read_samples(inv, LAG, window_s),
        read_samples(inv, REFRESH, window_s),
        since,
        inv.settings.recovered_minutes,
        inv.settings.recovered_scrapes,
    )


def read_well_since(inv: Investigation, *, lag: Sequence[Sample]) -> datetime | None:
    """Return the first sample of the lag after which lag, alerts and uploads all stayed well.

    A look that saw all well is as good as a sample.

    Parameters
    ----------
    lag : samples of the window

    Returns
    -------
    None when nothing in the window was wrong: then all has been well since the first sample.
    """
    window_s = inv.window.total_seconds()
    names = "|".join(ALERTS)
    fired = f'ALERTS{{alertname=~"{names}",alertstate="firing",drill!="true"}}'
    bad = [sample.at for sample in lag if sample.value >= inv.settings.recovered_minutes]
    for series in inv.clients.prometheus.query_samples(fired, window_s):
        bad += [sample.at for sample in series.samples if sample.value]
    failures = _add_growth(_read_counters(inv, _FAILED_UPLOADS, window_s))
    bad += [grown.at for grown in failures]
    well = [sample.at for sample in lag]
    well += [reading.observed_at for reading in inv.journal.readings if reading.well_since]
    well.append(inv.now())
    return find_well_since(well, bad)


class Comparison(NamedTuple):
    """What waits, compared with the hour before the incident, and in words."""

    backlog: Backlog
    words: str


def compare_backlog(inv: Investigation, waiting: Waiting) -> Comparison:
    """Compare how many labels wait, and how long, with the hour before the incident.

    Young labels are normal: they come and go. More than usual is a fifth, and five at least, over
    the most that waited in that hour.
    """
    if waiting.overdue:
        return Comparison(Backlog.OVERDUE, waiting.describe())
    count = len(waiting.real)
    limit = inv.settings.recovered_minutes
    usual = _read_usual(inv)
    if usual is None:
        words = f"how many waited before is not known; under {limit:g} min is usual"
        usual = _Usual(count, limit, words)
    margin = max(5.0, usual.objects / 5)
    allowed = usual.objects + margin
    if count > allowed:
        over = count - allowed
        words = f"{count} labels wait, {over:.0f} more than the {allowed:.0f} that are usual"
        return Comparison(Backlog.ABOVE, f"{words} ({usual.words}; {margin:.0f} more are allowed)")
    age_limit = max(usual.minutes, limit)
    if waiting.longest_minutes > age_limit:
        over_minutes = waiting.longest_minutes - age_limit
        words = f"the oldest label waits {waiting.longest_minutes:.1f} min"
        words += f", {over_minutes:.1f} min longer than is usual"
        return Comparison(Backlog.ABOVE, f"{words} ({usual.words})")
    labels = say_waiting(count, "label") if count else "nothing waits"
    return Comparison(Backlog.USUAL, f"{labels}, as usual ({usual.words})")


class _Usual(NamedTuple):
    """How many labels waited at most when all was well, how long, and where that is from."""

    objects: float
    minutes: float
    words: str


def _read_usual(inv: Investigation) -> _Usual | None:
    """Return what is usual: a drill's steady state, else the hour before the incident."""
    if inv.incident.state.drill_id:
        steady = _find_steady_state(inv)
        if steady is not None:
            return _Usual(steady, 0.0, f"{steady:.0f} in the drill's steady state")
    began = find_beginning(inv)
    calm = _read_calm(inv, began)
    counts = _read_hour_before(inv, began, calm.since)
    if not counts:
        return None
    most = max(counts)
    ages = [sample.value for sample in calm.lag]
    words = f"usually {median(counts):.0f} waited in the hour before, {most:.0f} at most"
    return _Usual(most, max(ages, default=0.0), words)


def _find_steady_state(inv: Investigation) -> float | None:
    """Return the backlog that was read last before the drill injected its fault."""
    injected = [entry for entry in inv.journal.entries if entry.data.get("event") == "inject"]
    if not injected:
        return None
    steady = None
    for reading in inv.journal.readings:
        if reading.role is Role.BACKLOG and reading.seq < injected[0].seq:
            steady = reading.value
    return float(steady) if isinstance(steady, int | float) else None


def find_beginning(inv: Investigation) -> datetime:
    """Return when the incident began.

    That is when its cause began. If that is not known, it is when its first label began to wait,
    before any label was late.
    """
    since = inv.journal.since() or find_judged_from(inv)
    causes = inv.policy.list_causes(inv.journal)
    first_signs = [cause.first_seen for cause in causes if cause.first_seen]
    if first_signs:
        return min(since, *first_signs)
    return since - timedelta(minutes=inv.settings.lag_threshold_minutes)


def find_end_before(inv: Investigation) -> datetime | None:
    """Return when the last incident or drill before this one was closed; None: there is none."""
    rows = list_history(inv.incident.folder.parent, inv.policy)
    ends = [row.closed_at for row in rows if row.closed_at and row.incident < inv.incident.id]
    return max(ends, default=None)


class _Calm(NamedTuple):
    """The lag of the hour before, since an earlier incident within it ended."""

    since: datetime
    lag: list[Sample]


def _read_calm(inv: Investigation, began: datetime) -> _Calm:
    start = began - timedelta(hours=1)
    lag, _ = attempt(lambda: _query_range(inv, LAG, start, began))
    limit = inv.settings.lag_threshold_minutes
    before = [sample for sample in lag or () if start <= sample.at <= began]
    late = [sample.at for sample in before if sample.value > limit]
    since = max(late, default=start)
    return _Calm(since, [sample for sample in before if sample.at > since])


def _read_hour_before(inv: Investigation, began: datetime, calm_since: datetime) -> list[float]:
    """Return how many objects waited in the hour before, by sample, while all was calm."""
    backlog = BACKLOG % inv.settings.pending_prefix
    start = began - timedelta(hours=1)
    # Between two points of the range a label may come and go: the highest of each step counts.
    highest = f"max_over_time(sum({backlog})[{_HOUR_STEP_S:.0f}s:5s])"
    waited, _ = attempt(lambda: _query_range(inv, highest, start, began))
    return [sample.value for sample in waited or () if calm_since < sample.at <= began]


def _query_range(inv: Investigation, promql: str, start: datetime, end: datetime) -> list[Sample]:
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_range(promql, start, end, _HOUR_STEP_S):
        samples += series.samples
    return clean(samples)


def is_low(recovery: Outcome) -> bool | None:
    """Tell whether the lag is low in enough samples; None: there are not enough yet."""
    if recovery.status is Status.UNKNOWN:
        return None
    return recovery.status is Status.OK
