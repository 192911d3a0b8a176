"""Whether labels get into the store, whether the lag is low, and since when all is well.

Several sections share these functions. They judge by what Prometheus scraped, and by what waits in
the bucket. Only reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Outcome, Role, Status
from runbook_lib.record.history import list_history
from runbook_lib.section import attempt
from runbook_lib.show.text import format_duration

from ..analysis.recovery import compute_recovery, find_well_since
from ..analysis.samples import Sample, clean, compute_interval_s, find_end, list_growth
from ..investigation import Investigation
from ..outcome import Backlog, Uploads
from ..waiting import Waiting, say_waiting
from .signals import ALERTS, BACKLOG, BLIND_ALERT, EXPORTER, LAG, REFRESH, read_samples

_FAILED_UPLOADS = 'fulfillment_artifacts_failed_total{stage="upload"}'
_ARRIVED = "fulfillment_artifacts_arrived_total"
_ORDERS = "fulfillment_orders_received_total"
#: Uploads longer ago than this say nothing about now.
_UPLOADS_WINDOW_S = 300.0
#: How long an order may have no label before ``read_uploads`` says that no label gets in.
_PATIENCE = timedelta(seconds=60)
#: How old the newest sample of a counter may be, if the counter is still scraped.
_MAX_SAMPLE_AGE = timedelta(seconds=120)
#: If earlier trouble leaves less calm than this before an incident, what is usual is not known.
_LEAST_CALM = timedelta(minutes=5)
_HOUR = timedelta(hours=1)
#: Step of a range query over an hour.
_HOUR_STEP_S = 30.0


def read_uploads(inv: Investigation) -> Uploads:
    """Tell by the worker's counters whether labels get into the store.

    Only the last five minutes count. ``FAILING``: an upload failed, and so few have succeeded since
    that this may be chance (see ``find_end``). ``NONE``: an order came over a minute ago, and no
    label has arrived since. ``UNASKED``: Prometheus does not scrape the counter of arrivals now; or
    no label arrived, and no order came over a minute ago.
    """
    failed, _ = attempt(lambda: _read_counters(inv, _FAILED_UPLOADS))
    arrived, _ = attempt(lambda: _read_counters(inv, _ARRIVED))
    orders, _ = attempt(lambda: _read_counters(inv, _ORDERS))
    if not arrived:
        return Uploads.UNASKED
    failures = _merge_growth(failed or ())
    arrivals = _merge_growth(arrived)
    if failures and find_end(_make_counter(failures), arrived) is None:
        return Uploads.FAILING
    last_arrival = max((grown.at for grown in arrivals), default=None)
    patience_start = inv.now() - _PATIENCE
    for order in _merge_growth(orders or ()):
        has_no_label = last_arrival is None or order.at > last_arrival
        if has_no_label and order.at < patience_start:
            return Uploads.NONE
    return Uploads.SUCCEEDING if arrivals else Uploads.UNASKED


def find_last_upload(inv: Investigation) -> datetime | None:
    """Return when a label last got in; None unless uploads failed lately, but succeed again now."""
    if read_uploads(inv) is not Uploads.SUCCEEDING:
        return None
    failed, _ = attempt(lambda: _read_counters(inv, _FAILED_UPLOADS))
    if not _merge_growth(failed or ()):
        return None
    arrived, _ = attempt(lambda: _read_counters(inv, _ARRIVED))
    arrivals = _merge_growth(arrived or ())
    return max((grown.at for grown in arrivals), default=None)


def _read_counters(
    inv: Investigation, selector: str, window_s: float = _UPLOADS_WINDOW_S
) -> list[Sequence[Sample]]:
    """Return the samples of a selector's counters, without those that are not scraped any more."""
    oldest_allowed = inv.now() - _MAX_SAMPLE_AGE
    counters: list[Sequence[Sample]] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples = clean(series.samples)
        if samples and samples[-1].at >= oldest_allowed:
            counters.append(samples)
    return counters


def _merge_growth(counters: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Return when any of some counters grew, and by how much, oldest first."""
    growth: list[Sample] = []
    for samples in counters:
        growth += list_growth(samples)
    return sorted(growth)


def _make_counter(growth: Sequence[Sample]) -> list[Sample]:
    """Return the samples of one counter that starts at 0 and has this growth, for ``find_end``."""
    start = growth[0].at - timedelta(seconds=1)
    total = 0.0
    samples = [Sample(start, total)]
    for grown in growth:
        total += grown.value
        samples.append(Sample(grown.at, total))
    return samples


def find_judged_from(inv: Investigation) -> datetime:
    """Return from when on samples count: the last applied action, else the incident's opening."""
    return inv.journal.last_applied_at or inv.incident.state.opened_at


def judge_lag(inv: Investigation, since: datetime) -> Outcome:
    """Judge the lag as 6.5 does, by the samples whose refresh is later than ``since``."""
    span = inv.now() - since
    window_s = max(60.0, span.total_seconds() + 60)
    return compute_recovery(
        read_samples(inv, LAG, window_s),
        read_samples(inv, REFRESH, window_s),
        since,
        inv.settings.recovered_minutes,
        inv.settings.recovered_scrapes,
    )


def has_exporter(inv: Investigation) -> bool:
    """Tell whether something measures the lag here, now or before; True if that is not known.

    An exporter that is down is still a target of Prometheus, or left samples in the window, or an
    alert rule for it is loaded.
    """
    prometheus = inv.clients.prometheus
    targets, _ = attempt(prometheus.list_targets)
    rules, _ = attempt(prometheus.list_rules)
    if targets is None or rules is None:
        return True
    is_scraped = any(target.job == EXPORTER for target in targets)
    is_expected = any(rule.name == BLIND_ALERT for rule in rules)
    if is_scraped or is_expected:
        return True
    samples, _ = attempt(lambda: read_samples(inv, LAG, inv.window.total_seconds()))
    return samples is None or bool(samples)


def judge_listings(inv: Investigation, new: Sequence[Sample], since: datetime) -> Outcome:
    """Judge the lag by listings of the bucket, where no exporter measures it.

    Each listing counts as a sample that was refreshed at the time of the listing. The journal has
    the earlier listings.

    Parameters
    ----------
    new : how long the oldest label waited, by listings that the journal does not have yet
    since : only later listings count
    """
    earlier = [
        Sample(reading.observed_at, reading.longest_minutes)
        for reading in inv.journal.readings
        if reading.longest_minutes is not None
    ]
    listings = [*earlier, *new]
    refreshes = [Sample(listing.at, listing.at.timestamp()) for listing in listings]
    settings = inv.settings
    recovery = compute_recovery(
        listings, refreshes, since, settings.recovered_minutes, settings.recovered_scrapes
    )
    recovery.reason += ", by listing the bucket: no exporter measures the lag here"
    return recovery


def read_well_since(inv: Investigation, *, lag: Sequence[Sample]) -> datetime | None:
    """Return since when lag, alerts, uploads and the number of labels have all been well.

    That is the time of the first look after the last trouble. A look is a sample of the lag, a
    reading in the journal that found all well, or this reading now.

    Parameters
    ----------
    lag : samples of the window

    Returns
    -------
    None when nothing in the window was wrong.
    """
    window_s = inv.window.total_seconds()
    names = "|".join(ALERTS)
    firing = f'ALERTS{{alertname=~"{names}",alertstate="firing",drill!="true"}}'
    troubles = list_high(lag, inv.settings.recovered_minutes)
    now = inv.now()
    alert_ends: list[datetime] = []
    for series in inv.clients.prometheus.query_samples(firing, window_s):
        fired = [sample.at for sample in series.samples if sample.value]
        troubles += fired
        # An alert ends with the evaluation after its last sample.
        until_next = timedelta(seconds=round(compute_interval_s(series.samples)))
        alert_ends += [min(at + until_next, now) for at in fired[-1:]]
    failures = _merge_growth(_read_counters(inv, _FAILED_UPLOADS, window_s))
    troubles += [grown.at for grown in failures]
    usual = _read_usual(inv) if may_compare(inv) else None
    well_looks = [reading.observed_at for reading in inv.journal.readings if reading.well_since]
    if usual is not None:
        last_trouble = max(troubles, default=now)
        # Once a look after that trouble saw that all is well, a later peak is traffic. Without such
        # a look, or without any other trouble, every peak counts.
        until = min((at for at in well_looks if at > last_trouble), default=now)
        backlog = read_samples(inv, BACKLOG % inv.settings.pending_prefix, window_s)
        troubles += [s.at for s in backlog if s.value > usual.allowed and s.at <= until]
    looks = [*(sample.at for sample in lag), *well_looks, now]
    since = find_well_since(looks, troubles)
    if since is None or since in well_looks:
        return since
    return max([since, *alert_ends])


def list_high(lag: Sequence[Sample], limit: float) -> list[datetime]:
    """Return when the lag was not under a limit, without single samples between two under it.

    A late order's label, which leaves within seconds, makes such a sample. With a gap beside it, a
    sample counts: nobody knows how long the lag was high.
    """
    longest_gap = timedelta(seconds=3 * compute_interval_s(lag))
    lows = [sample.at for sample in lag if sample.value < limit]
    times = []
    for index, sample in enumerate(lag):
        neighbours = [lag[near].at for near in (index - 1, index + 1) if 0 <= near < len(lag)]
        is_between_lows = len(neighbours) == 2 and set(neighbours) <= set(lows)
        is_passing = is_between_lows and neighbours[1] - neighbours[0] <= longest_gap
        if sample.value >= limit and not is_passing:
            times.append(sample.at)
    return times


class Comparison(NamedTuple):
    """The backlog compared with the calm before the incident; ``words`` says the same in words."""

    backlog: Backlog
    words: str


def may_compare(inv: Investigation) -> bool:
    """Tell whether trouble was seen: without trouble there is no calm before it to compare."""
    return inv.journal.since() is not None


def compare_backlog(inv: Investigation, waiting: Waiting) -> Comparison:
    """Compare how many labels wait, and how long, with the calm before the incident.

    Some labels always wait for a short time. The count is above the usual if it exceeds the most
    that waited in that calm by more than five and by more than a fifth. In a drill, the steady
    state takes the place of the calm, if it is known.
    """
    if waiting.overdue:
        return Comparison(Backlog.OVERDUE, waiting.describe())
    count = len(waiting.real)
    limit = inv.settings.recovered_minutes
    usual = _read_usual(inv)
    is_known = usual is not None
    if usual is None:
        # Without that calm the count is taken as usual, and only the longest wait decides.
        words = "the calm before was too short to compare, so only the longest wait is judged: "
        words += f"under {limit:g} min is usual"
        usual = _Usual(count, limit, words)
    allowed = usual.allowed
    margin = allowed - usual.objects
    if count > allowed:
        excess = count - allowed
        words = f"no label is late, but {count} wait: {excess:.0f} over the usual limit of "
        words += f"{allowed:.0f}"
        return Comparison(Backlog.ABOVE, f"{words} ({usual.words}; {margin:.0f} more are allowed)")
    limit_minutes = max(usual.minutes, limit)
    if waiting.longest_minutes > limit_minutes:
        over_minutes = waiting.longest_minutes - limit_minutes
        words = f"the oldest label waits {waiting.longest_minutes:.1f} min"
        words += f", {over_minutes:.1f} min longer than is usual"
        return Comparison(Backlog.ABOVE, f"{words} ({usual.words})")
    labels = say_waiting(count, "label") if count else "nothing waits"
    if count and is_known:
        # More than usual may wait: the margin keeps chance out of the verdict.
        words = f"{labels}, and {allowed:.0f} are allowed"
        return Comparison(Backlog.USUAL, f"{words} ({usual.words}; {margin:.0f} more are allowed)")
    if not is_known:
        return Comparison(Backlog.USUAL, f"{labels}; {usual.words}")
    return Comparison(Backlog.USUAL, f"{labels}, as usual ({usual.words})")


class _Usual(NamedTuple):
    """How many labels waited at most when all was well, and for how long at most.

    ``words`` says from which time these numbers are.
    """

    objects: float
    minutes: float
    words: str

    @property
    def allowed(self) -> float:
        """How many labels may wait: five more than is usual, or a fifth more if that is more."""
        return self.objects + max(5.0, self.objects / 5)


def _read_usual(inv: Investigation) -> _Usual | None:
    """Return what is usual: a drill's steady state, else the calm before the incident.

    None when neither is known, such as when the calm is too short.
    """
    if inv.incident.state.drill_id:
        steady = _find_steady_state(inv)
        if steady is not None:
            return steady
    began = find_beginning(inv)
    calm = _read_calm(inv, began)
    samples = _read_calm_counts(inv, began, calm.since)
    if not samples:
        return None
    # The first sample is the highest count of the 30 s before it. Nobody counted earlier.
    first_step_at = samples[0].at - timedelta(seconds=_HOUR_STEP_S)
    length = began - max(calm.since, first_step_at)
    if length < _LEAST_CALM:
        return None
    counts = [sample.value for sample in samples]
    most = max(counts)
    waits_minutes = [sample.value for sample in calm.lag]
    span = "hour" if length >= _HOUR else format_duration(length)
    words = f"usually {median(counts):.0f} waited in the {span} before the incident, "
    words += f"{most:.0f} at most"
    return _Usual(most, max(waits_minutes, default=0.0), words)


def _find_steady_state(inv: Investigation) -> _Usual | None:
    """Return how many objects waited before the drill injected its fault, by the last reading.

    None when no fault was injected, or the last reading before it has no number.
    """
    injections = [entry for entry in inv.journal.entries if entry.data.get("event") == "inject"]
    if not injections:
        return None
    steady = None
    for reading in inv.journal.readings:
        if reading.role is Role.BACKLOG and reading.seq < injections[0].seq:
            steady = reading
    if steady is None or not isinstance(steady.value, int | float):
        return None
    words = f"{steady.value:.0f} in the drill's steady state of {steady.observed_at:%H:%M:%SZ}"
    # No longest wait is known of the steady state: with 0, RECOVERED_MINUTES is the limit.
    return _Usual(steady.value, 0.0, words)


def find_beginning(inv: Investigation) -> datetime:
    """Return when the incident began.

    That is the first sign of its causes, or the first breach if it came earlier. Without a sign, it
    is when the first late label began to wait: LAG_THRESHOLD_MINUTES before the first breach. In a
    journal without a breach, the time of ``find_judged_from`` stands for the first breach.
    """
    since = inv.journal.since() or find_judged_from(inv)
    causes = inv.policy.list_causes(inv.journal)
    first_signs = [cause.first_seen for cause in causes if cause.first_seen]
    if first_signs:
        return min(since, *first_signs)
    return since - timedelta(minutes=inv.settings.lag_threshold_minutes)


class Close(NamedTuple):
    """When an incident or a drill was closed."""

    at: datetime
    incident: str


def find_close_before(inv: Investigation) -> Close | None:
    """Return the last close of an earlier incident or drill; None without an earlier one."""
    # The id of an incident begins with its time, so an earlier incident has a smaller id.
    rows = list_history(inv.incident.folder.parent, inv.policy)
    earlier = [row for row in rows if row.incident < inv.incident.id]
    closes = [Close(row.closed_at, row.incident) for row in earlier if row.closed_at]
    return max(closes, default=None)


class _Calm(NamedTuple):
    """The calm right before an incident, an hour at most.

    Attributes
    ----------
    since : when the calm began
    lag : the samples of the lag since then, in minutes
    """

    since: datetime
    lag: list[Sample]


def _read_calm(inv: Investigation, began: datetime) -> _Calm:
    """Return the calm right before the incident began, an hour at most.

    The calm starts after the last sample of the lag over the threshold, and after the close of the
    last earlier incident or drill: what waited during that one is not usual.
    """
    start = began - _HOUR
    lag, _ = attempt(lambda: _query_range(inv, LAG, start, began))
    limit = inv.settings.lag_threshold_minutes
    hour_before = [sample for sample in lag or () if start <= sample.at <= began]
    late_at = [sample.at for sample in hour_before if sample.value > limit]
    close = find_close_before(inv)
    since = max(start, close.at if close else start, *late_at)
    return _Calm(since, [sample for sample in hour_before if sample.at > since])


def _read_calm_counts(inv: Investigation, began: datetime, calm_since: datetime) -> list[Sample]:
    """Return how many objects waited at each sample of the calm before the incident."""
    backlog = BACKLOG % inv.settings.pending_prefix
    start = began - _HOUR
    # Labels may come and go between two points of the range, so each step's highest count is read.
    highest = f"max_over_time(sum({backlog})[{_HOUR_STEP_S:.0f}s:5s])"
    waited, _ = attempt(lambda: _query_range(inv, highest, start, began))
    return [sample for sample in waited or () if calm_since < sample.at <= began]


def _query_range(inv: Investigation, promql: str, start: datetime, end: datetime) -> list[Sample]:
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_range(promql, start, end, _HOUR_STEP_S):
        samples += series.samples
    return clean(samples)


def is_low(recovery: Outcome) -> bool | None:
    """Tell whether the lag is low in enough samples; None: there are not enough samples yet."""
    if recovery.status is Status.UNKNOWN:
        return None
    return recovery.status is Status.OK
