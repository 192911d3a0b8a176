"""The lag, whether labels get into the store, and whether more wait than usual. Only reads."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, takewhile
from typing import NamedTuple

from runbook_lib.model import Measurement, Outcome, Status, format_time
from runbook_lib.section import attempt

from ..analysis.samples import Sample, clean, compute_interval_s, list_growth
from ..investigation import Investigation
from ..quantities import Quantity
from ..waiting import Waiting
from .signals import ALERTS, BACKLOG, LAG, REFRESH, UP, read_samples

_FAILED_UPLOADS = 'fulfillment_artifacts_failed_total{stage="upload"}'
_ARRIVED = "fulfillment_artifacts_arrived_total"
_ORDERS = "fulfillment_orders_received_total"
#: Older uploads say nothing about now.
_UPLOADS_WINDOW_S = 300.0
#: Uploads work again once this many labels have got in since the last failure. If every second
#: upload still failed, seven in a row would get in by chance in less than 1 % of the cases.
_PROVING_UPLOADS = 7
#: An order may be without a label for this long.
PATIENCE = timedelta(seconds=60)
#: A counter counts as scraped while its newest sample is no older than this.
_MAX_SAMPLE_AGE = timedelta(seconds=120)
#: An older lag says nothing about now, unless scrapes are rare.
_PATIENCE_S = 60.0
#: The metric must be at least this old when an incident begins to tell what is usual.
_LEAST_CALM = timedelta(minutes=5)
_HOUR = timedelta(hours=1)
#: The step of a range query over an hour.
_HOUR_STEP_S = 30.0


class Lag(NamedTuple):
    """The lag in minutes, oldest first, by Prometheus.

    A ``problem`` says why the newest sample says nothing about now. Without an exporter, the lag is
    not measured: the listing of the bucket decides.
    """

    samples: list[Sample]
    problem: str = ""
    is_measured: bool = True
    refresh_age_s: float | None = None

    @property
    def value(self) -> float | None:
        """The lag now, in minutes, if known."""
        return None if self.problem else self.samples[-1].value

    def find_over_since(self, limit: float) -> datetime | None:
        """Return since when the lag has been over a limit; None if it isn't, or isn't known."""
        since = None
        for sample in reversed([] if self.problem else self.samples):
            if sample.value <= limit:
                break
            since = sample.at
        return since


def read_lag(inv: Investigation) -> Lag:
    window = max(inv.window, timedelta(minutes=2 * inv.settings.lag_for_minutes))
    samples = read_samples(inv, LAG, window.total_seconds())
    if not samples:
        # An exporter that is down still has the series.
        is_measured = inv.clients.prometheus.query(UP) != []
        problem = "no exporter measures the lag here"
        if is_measured:
            problem = f"there is no series {LAG}: the exporter is down or cannot list the bucket"
        return Lag([], problem, is_measured)
    now = inv.now()
    refreshes = read_samples(inv, REFRESH, 300)
    # An exporter that doesn't say when it refreshed counts as fresh.
    refresh_age_s = now.timestamp() - refreshes[-1].value if refreshes else None
    # A failed scrape says nothing about the exporter, so up to three may be missing.
    patience_s = max(_PATIENCE_S, 4 * compute_interval_s(samples[-20:]))
    sample_age_s = (now - samples[-1].at).total_seconds()
    age_s = max(refresh_age_s or 0.0, sample_age_s)
    problem = ""
    if age_s > patience_s:
        problem = f"the newest lag is {age_s:.0f} s old"
    elif not inv.clients.prometheus.query(LAG):
        # A vanished series ends at once, but its old samples stay readable.
        problem = f"the series of the lag ended at {samples[-1].at:%H:%M:%S} UTC"
    return Lag(samples, problem, refresh_age_s=refresh_age_s)


def find_judged_from(inv: Investigation) -> datetime:
    """Return the time of the last applied action, else of the incident's opening."""
    return inv.journal.last_applied_at or inv.incident.state.opened_at


def judge_recovery(inv: Investigation, lag: Lag) -> Outcome:
    """Judge the lag as 6.5 does, by the samples after the last action."""
    if not lag.is_measured:
        return Outcome().left_out(lag.problem)
    if lag.problem:
        return Outcome().unknown(lag.problem)
    window_s = (inv.now() - lag.samples[0].at).total_seconds() + 1
    settings = inv.settings
    return compute_recovery(
        lag.samples,
        read_samples(inv, REFRESH, window_s),
        find_judged_from(inv),
        settings.recovered_minutes,
        settings.recovered_scrapes,
    )


def compute_recovery(
    lag: Iterable[Sample], refresh: Iterable[Sample], action_at: datetime, limit: float, needed: int
) -> Outcome:
    """Decide whether the lag came down after the action: are the newest ``needed`` samples low?

    A sample counts if the exporter refreshed after the action. With too few low samples, the
    outcome is ``unknown``. At each scrape, ``lag`` has the minutes, NaN if not measured, and
    ``refresh`` the exporter's last refresh, in seconds since the epoch.
    """
    refreshed_s = {sample.at: sample.value for sample in refresh}
    # A refresh precedes its scrape. If it seems to follow it, the exporter's clock is ahead.
    ahead_s = max((s - at.timestamp() for at, s in refreshed_s.items()), default=0.0)
    begin_s = action_at.timestamp() + max(ahead_s, 0.0)
    samples_after = [each for each in clean(lag) if refreshed_s.get(each.at, 0.0) > begin_s]
    if not samples_after:
        reason = f"the lag has not been measured since {format_time(action_at)}"
        return Outcome().unknown(reason)
    newest = samples_after[-1].value
    low_run = list(takewhile(lambda sample: sample.value < limit, reversed(samples_after)))
    if not low_run:
        return Outcome(value=newest).breach(f"the lag is {newest:.1f} min, not under {limit:g}")
    outcome = Outcome(value=newest, since=low_run[-1].at)
    reason = f"samples under {limit:g} min: {len(low_run)}, needed: {needed}"
    if len(low_run) < needed:
        return outcome.unknown(reason)
    return outcome.ok(reason)


def _measure_uploads(inv: Investigation) -> Measurement:
    """Measure by the worker's counters whether labels have got into the store in five minutes.

    It's a breach if an upload failed, and fewer than seven labels have got in since; or if an order
    came over a minute ago, and no label since. Left out if no label came, and no order has waited a
    minute for one; or if Prometheus doesn't scrape the counter of arrivals.
    """
    make = partial(Measurement, quantity=Quantity.UPLOADS)
    unasked = make(status=Status.LEFT_OUT)
    arrivals, _ = attempt(lambda: _read_growth(inv, _ARRIVED, _UPLOADS_WINDOW_S))
    if arrivals is None:
        return unasked
    failures, _ = attempt(lambda: _read_growth(inv, _FAILED_UPLOADS, _UPLOADS_WINDOW_S))
    orders, _ = attempt(lambda: _read_growth(inv, _ORDERS, _UPLOADS_WINDOW_S))
    if failures:
        got_in = sum(each.value for each in arrivals if each.at > failures[-1].at)
        if got_in < _PROVING_UPLOADS:
            return make(status=Status.BREACH, text="uploads fail")
    last_arrival = arrivals[-1].at if arrivals else None
    patience_start = inv.now() - PATIENCE
    for order in orders or ():
        has_no_label = last_arrival is None or order.at > last_arrival
        if has_no_label and order.at < patience_start:
            text = "no label arrives although orders want one"
            return make(status=Status.BREACH, text=text)
    return make(status=Status.OK) if arrivals else unasked


def find_well_since(
    inv: Investigation, lag: Lag, recovery: Outcome, alerts: Iterable[Measurement]
) -> tuple[Measurement, datetime | None]:
    """Measure whether labels get into the store; return since when all has been well, if it is."""
    uploads = _measure_uploads(inv)
    is_quiet = {alert.status for alert in alerts} == {Status.OK}
    is_low = recovery.status is Status.OK
    if not is_low or not is_quiet or uploads.status is Status.BREACH:
        return uploads, None
    well_since, _ = attempt(lambda: read_well_since(inv, lag))
    # Without trouble in the window, all has been well since the first low sample.
    return uploads, well_since or recovery.since


def _read_growth(inv: Investigation, selector: str, window_s: float) -> list[Sample] | None:
    """Return when the selected counters grew; None if none is scraped now."""
    oldest_allowed = inv.now() - _MAX_SAMPLE_AGE
    found = inv.clients.prometheus.query_samples(selector, window_s)
    counters = [clean(series.samples) for series in found]
    scraped = [samples for samples in counters if samples and samples[-1].at >= oldest_allowed]
    return list_growth(scraped) if scraped else None


def read_well_since(inv: Investigation, lag: Lag) -> datetime | None:
    """Return when the lag was first low after the window's last trouble; None without trouble.

    It's now if the lag hasn't been low since. Trouble is a high lag, a firing alert or a failed
    upload.
    """
    window_s = inv.window.total_seconds()
    limit = inv.settings.recovered_minutes
    troubles = [sample.at for sample in lag.samples if sample.value >= limit]
    names = "|".join(ALERTS)
    firing = f'ALERTS{{alertname=~"{names}",alertstate="firing",drill!="true"}}'
    for series in inv.clients.prometheus.query_samples(firing, window_s):
        # An alert ends with the evaluation after its last sample.
        until_next = timedelta(seconds=round(compute_interval_s(series.samples)))
        troubles += [sample.at + until_next for sample in series.samples if sample.value]
    troubles += [grown.at for grown in _read_growth(inv, _FAILED_UPLOADS, window_s) or ()]
    if not troubles:
        return None
    last_trouble = max(troubles)
    low = [sample.at for sample in lag.samples if sample.value < limit]
    return min((at for at in low if at >= last_trouble), default=inv.now())


def compare_backlog(inv: Investigation, waiting: Waiting) -> Status:
    """Compare the number of waiting labels with the hour before the incident.

    It's a breach if more than usual wait: if the count exceeds that hour's highest by more than
    five and by more than a fifth, or the longest wait is over RECOVERED_MINUTES. If that hour isn't
    known, only the longest wait is judged. An overdue label makes the comparison needless, so then
    it's unknown.
    """
    if waiting.overdue:
        return Status.UNKNOWN
    usual = _read_usual(inv)
    is_more = usual is not None and len(waiting.real) > usual + max(5.0, usual / 5)
    is_longer = waiting.longest_minutes > inv.settings.recovered_minutes
    return Status.BREACH if is_more or is_longer else Status.OK


def _read_usual(inv: Investigation) -> float | None:
    """Return the most labels that waited in the hour before the incident; None if unknown."""
    began = find_beginning(inv)
    # Labels may come and go between two points of the range, so read each step's highest count.
    backlog = BACKLOG % inv.settings.pending_prefix
    highest = f"max_over_time(sum({backlog})[{_HOUR_STEP_S:.0f}s:5s])"
    query = inv.clients.prometheus.query_range
    found, _ = attempt(lambda: query(highest, began - _HOUR, began, _HOUR_STEP_S))
    samples = clean(chain.from_iterable(series.samples for series in found or ()))
    waited = [sample for sample in samples if began - _HOUR <= sample.at <= began]
    if not waited or began - waited[0].at < _LEAST_CALM:
        return None
    return max(sample.value for sample in waited)


def find_beginning(inv: Investigation) -> datetime:
    """Return the incident's beginning: LAG_THRESHOLD_MINUTES before its first breach.

    A cause acts that long before the first label is late.
    """
    since = inv.since or find_judged_from(inv)
    return since - timedelta(minutes=inv.settings.lag_threshold_minutes)
