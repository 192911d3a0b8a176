"""What several sections read: alerts, lag, uploads, backlog, the worker's metrics."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, pairwise, takewhile, zip_longest
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Event, Json, Line, Measurement, Outcome, Status, format_time
from runbook_lib.record.folds import list_remedies
from runbook_lib.section import attempt

from ..analysis.causes import OFTEN, STANDSTILL
from ..analysis.samples import Sample, clean, compute_interval_s, list_growth, sum_growth
from ..clients.http_systems import Alert, Series
from ..clients.services import LogLine, read_log_command
from ..investigation import Investigation
from ..quantities import DELAY_ALERT, UPLOAD_ALERT, Quantity
from ..waiting import Waiting

BLIND_ALERT = "FulfillmentMetricsMissing"
#: Whether Prometheus can scrape the exporter; no series if the exporter is no target.
UP = 'up{job="artifact-exporter"}'
#: The alerts of this runbook.
ALERTS = (DELAY_ALERT, UPLOAD_ALERT)
LAG = 'fulfillment_lag_minutes{origin="real"}'
REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
#: How many real objects wait under a prefix: ``BACKLOG % prefix``.
BACKLOG = 'fulfillment_artifacts_backlog_objects{origin="real",prefix="%s"}'
DASHBOARD_UID = "dataflow-overview"
PANEL_TITLE = "Fulfillment backlog"

_ALERT_STATUSES = {"firing": Status.BREACH, "resolved": Status.OK}
_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_POINTS = 200
_MAX_LINES = 20
_FAILED_UPLOADS = 'fulfillment_artifacts_failed_total{stage="upload"}'
_ARRIVED = "fulfillment_artifacts_arrived_total"
_ORDERS = "fulfillment_orders_received_total"
#: Uploads work again once this many labels have got in since the last failure. If every second
#: upload still failed, seven in a row would get in by chance in less than 1 % of the cases.
_PROVING_UPLOADS = 7
#: An order may be without a label for this long.
PATIENCE = timedelta(seconds=60)
#: A counter counts as scraped while its newest sample is no older than this.
_MAX_SAMPLE_AGE = timedelta(seconds=120)
#: A lag older than this says nothing about now, unless scrapes are rare.
_PATIENCE_S = 60.0
#: To tell what is usual, a metric must begin at least this long before the incident.
_LEAST_CALM = timedelta(minutes=5)
_HOUR = timedelta(hours=1)
#: The step of a range query over an hour.
_HOUR_STEP_S = 30.0
FAILED = "fulfillment_artifacts_failed_total"
CARRIER = "fulfillment_carrier_request_seconds_count"
_MOVED = "fulfillment_artifacts_moved_total"
_LAST_RUN = "fulfillment_worker_last_run_timestamp_seconds"
#: Failures, carrier requests and moves are recent for this long, or 4 scrape intervals if longer.
_RECENT_S = 30.0
#: Compare arrivals with moves over this long. Older uploads say nothing about now.
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


def is_drill(labels: Mapping[str, str]) -> bool:
    """Tell by its labels whether an alert or rule is about synthetic objects only."""
    return labels.get("drill") == "true"


def measure_alerts(alerts: Iterable[Alert]) -> list[Measurement]:
    """Measure each of ``ALERTS``: breach if it fires, unknown if pending, ok if not listed.

    Alerts about synthetic objects don't count. Of several alerts with one name, a firing one wins.
    """
    states = dict.fromkeys(ALERTS, "resolved")
    for alert in alerts:
        is_ours = alert.name in states and not is_drill(alert.labels)
        if is_ours and states[alert.name] != "firing":
            states[alert.name] = alert.state
    return [
        Measurement(
            quantity=Quantity.ALERT,
            subject=name,
            status=_ALERT_STATUSES.get(state, Status.UNKNOWN),
            text=f"{name}: {state}",
        )
        for name, state in states.items()
    ]


def read_samples(inv: Investigation, selector: str, window_s: float) -> list[Sample]:
    """Return the finite raw samples of all selected series as one list, oldest first."""
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples += series.samples
    return clean(samples)


def draw_line(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 evenly chosen points, including the newest."""
    points = [(sample.at, round(sample.value, 4)) for sample in clean(samples)]
    stride = math.ceil(len(points) / _MAX_POINTS) or 1
    return Line(name=name, points=tuple(points[::-stride][::-1]))


def read_lines(inv: Investigation, promql: str, name: str = "") -> tuple[Line, ...]:
    """Return an expression's values over the window as at most 20 lines of a plot.

    A line is named by its series' labels ``prefix`` and ``origin``; without both, ``name``.
    """
    lines = []
    for series in inv.query_window(promql)[:_MAX_LINES]:
        words = f"{series.labels.get('prefix', '')} {series.labels.get('origin', '')}".strip()
        lines.append(draw_line(words or name, series.samples))
    return tuple(lines)


def read_events(inv: Investigation) -> list[Event]:
    """Return the window's events of alerts and channels, by each system's own clock."""
    alerts, _ = attempt(lambda: list(_read_alerts(inv)))
    notices, _ = attempt(lambda: list(_read_notices(inv)))
    start = inv.now() - inv.window
    return [event for event in (*(alerts or ()), *(notices or ())) if event.at >= start]


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    """Yield when each Fulfillment alert became pending or firing, and when that ended.

    Prometheus has samples of an alert only while the alert lasts. If none follows a sample within
    three evaluation intervals, the alert ended one interval after that sample.
    """
    now = inv.now()
    found = inv.clients.prometheus.query_samples(_ALERT_STATES, inv.window.total_seconds())
    # All rules share an interval, which the longest series shows best.
    interval_s = compute_interval_s(max((series.samples for series in found), key=len, default=()))
    longest_gap = timedelta(seconds=3 * interval_s)
    # Rounded, because two readings may measure the interval a bit differently.
    until_next = timedelta(seconds=round(interval_s))
    for series in found:
        name = _name_alerts(series.labels["alertname"], is_drill=is_drill(series.labels))
        state = series.labels["alertstate"]
        make = partial(
            Event,
            kind="alert",
            source="prometheus",
            subject=name,
            state=state,
            link=inv.link_to("query", _ALERT_STATES),
        )
        times = [sample.at for sample in clean(series.samples) if sample.value]
        has_ended = True
        for at, following in zip_longest(times, times[1:]):
            if has_ended:
                yield make(at, text=f"{name} {state} begins")
            has_ended = (following or now) - at > longest_gap
            if has_ended:
                yield make(at + until_next, text=f"{name} {state} ends", is_end=True)


def _read_notices(inv: Investigation) -> Iterator[Event]:
    """Yield each notification about alerts that a channel received."""
    since = inv.now() - inv.window
    for notice in inv.clients.notifications.list_notifications(since=since):
        if not notice.alertnames:
            continue  # a delivered report is not an alert
        names = _name_alerts(", ".join(notice.alertnames), is_drill=notice.is_drill)
        yield Event(
            notice.received_at,
            "notice",
            f"{notice.channel} receives {names}: {notice.status}",
            "notifications",
            subject=names,
            state=notice.status,
            channel=notice.channel,
        )


def _name_alerts(alerts: str, *, is_drill: bool) -> str:
    return f"{alerts} (drill)" if is_drill else alerts


class Lag(NamedTuple):
    """Prometheus's samples of the lag in minutes, oldest first.

    ``problem`` says why the newest sample tells nothing about now. Without an exporter,
    ``is_measured`` is False, and the listing of the bucket decides.
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
    """Read the lag over the window, at least over twice LAG_FOR_MINUTES."""
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
    """Return since when samples may prove recovery: the last action, else the opening."""
    return inv.journal.last_applied_at or inv.incident.state.opened_at


def judge_recovery(inv: Investigation, lag: Lag) -> Outcome:
    """Judge by samples after the last action whether the lag is low, as 6.5 does."""
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
    """Judge whether the lag came down after the action: are the newest ``needed`` samples low?

    A sample is low under ``limit`` minutes, and counts if the exporter refreshed after the action.
    If the newest is high, it's a breach; with too few low ones, unknown. At each scrape, ``lag``
    has the minutes (NaN if not measured), ``refresh`` the last refresh, in seconds since 1970.
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
    """Measure by the worker's counters whether labels got into the store in the last five minutes.

    It's a breach if an upload failed, and fewer than seven labels have got in since; or if an order
    came over a minute ago, and no label since. It's left out if no label came, and no order has
    waited a minute for one; or if Prometheus doesn't scrape the counter of arrivals.
    """
    make = partial(Measurement, quantity=Quantity.UPLOADS)
    left_out = make(status=Status.LEFT_OUT)
    arrivals, _ = attempt(lambda: _read_growth(inv, _ARRIVED, _FLOW_WINDOW_S))
    if arrivals is None:
        return left_out
    failures, _ = attempt(lambda: _read_growth(inv, _FAILED_UPLOADS, _FLOW_WINDOW_S))
    orders, _ = attempt(lambda: _read_growth(inv, _ORDERS, _FLOW_WINDOW_S))
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
    return make(status=Status.OK) if arrivals else left_out


def find_well_since(
    inv: Investigation, lag: Lag, recovery: Outcome, alerts: Iterable[Measurement]
) -> tuple[Measurement, datetime | None]:
    """Return a measurement of the uploads, and since when all is well, or None if it isn't.

    All is well if ``recovery`` is ok, every alert in ``alerts`` is, and no upload fails.
    """
    uploads = _measure_uploads(inv)
    is_quiet = {alert.status for alert in alerts} == {Status.OK}
    is_low = recovery.status is Status.OK
    if not is_low or not is_quiet or uploads.status is Status.BREACH:
        return uploads, None
    well_since, _ = attempt(lambda: read_well_since(inv, lag))
    # Without trouble in the window, all has been well since the first low sample.
    return uploads, well_since or recovery.since


def _read_growth(inv: Investigation, selector: str, window_s: float) -> list[Sample] | None:
    """Return each increase of the selected counters; None if none is scraped now."""
    oldest_allowed = inv.now() - _MAX_SAMPLE_AGE
    found = inv.clients.prometheus.query_samples(selector, window_s)
    counters = [clean(series.samples) for series in found]
    scraped = [samples for samples in counters if samples and samples[-1].at >= oldest_allowed]
    return list_growth(scraped) if scraped else None


def read_well_since(inv: Investigation, lag: Lag) -> datetime | None:
    """Return when the lag was first low after the window's last trouble; None without trouble.

    Return the present time if the lag hasn't been low since that trouble. Trouble is a high lag, a
    firing alert or a failed upload.
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
    known, only the longest wait is judged. With an overdue label it's unknown: that is a breach of
    ``Quantity.BACKLOG`` already.
    """
    if waiting.overdue:
        return Status.UNKNOWN
    usual = _read_usual(inv)
    is_more = usual is not None and len(waiting.real) > usual + max(5.0, usual / 5)
    is_longer = waiting.longest_minutes > inv.settings.recovered_minutes
    return Status.BREACH if is_more or is_longer else Status.OK


def _read_usual(inv: Investigation) -> float | None:
    """Return the highest backlog of the hour before the incident; None if unknown."""
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
    """Return LAG_THRESHOLD_MINUTES before the first breach, or before ``find_judged_from``.

    A cause acts that long before the first label is late.
    """
    since = inv.since or find_judged_from(inv)
    return since - timedelta(minutes=inv.settings.lag_threshold_minutes)


class WorkerMetrics(NamedTuple):
    """How the worker's counters grew. What was before our last remedy doesn't count.

    In the last half minute: ``failures`` by reason, carrier ``requests`` by outcome, and moves as
    ``drained``. In the last five minutes: ``surplus``, which is arrivals minus moves; and whether
    anything ``has_failed``, even before a remedy. ``run_gap_s`` is the median time between passes.
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
    """Return when 6.1 or 6.2 last changed something, if ever. Other steps move no labels."""
    remedies = list_remedies(inv.journal.actions, inv.policy.quantities)
    return max((remedy.applied.at for remedy in remedies if remedy.applied), default=None)


def find_log_start(inv: Investigation) -> datetime:
    """Return since when errors in the worker's log count.

    That is the incident's beginning, or the window's start if that is later, but at least five
    minutes ago. If our last action is later still, errors count from there.
    """
    now = inv.now()
    start = now - inv.window
    if inv.since is not None:
        start = max(start, find_beginning(inv))
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
    ``find_log_start`` that name the reason, or is 0 if the newest such line is over a minute old. A
    line without a time may be old, and doesn't count. What can't be read is None.
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

    They may be for five minutes after a failure, and in an incident with a ``STANDSTILL`` cause.
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
