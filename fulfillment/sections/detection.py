"""Section 2: is there an incident? Alert, panel, backlog, ticket, probe. Only reads.

What waits is listed by ourselves: no metric is believed there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Literal

from runbook_lib import model, section
from runbook_lib.model import Conclusion, Episode, Json, Line, Outcome, Plot, Reading, Role
from runbook_lib.section import Step, attempt, by_id, get_step, rows_of, step, to_rows
from runbook_lib.show.text import count_of

from ..analysis.causes import Cause
from ..analysis.labels import Label, read_label
from ..analysis.samples import clean, compute_interval_s, join
from ..analysis.verdict import MAX_AGE, VerdictResult, compute_symptom_verdict
from ..change.synthetic import iter_with_metadata, list_prefixes
from ..clients.http_systems import Alert, Case, Sample, Series
from ..clients.services import try_time
from ..investigation import Investigation

_MAX_POINTS = 200


def draw(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 points, the newest among them; none between two as high."""
    every = max(1, math.ceil(len(samples) / _MAX_POINTS))
    points = [(s.at, round(s.value, 4)) for s in clean(samples[::-every])]
    values = [value for _, value in points]
    beside = zip([None, *values], values, [*values[1:], None], strict=False)
    kept = (p for p, three in zip(points, beside, strict=True) if len({*three}) > 1)
    return Line(name=name, points=tuple(kept))


def read_range(
    inv: Investigation, promql: str, *, labels: Sequence[str] = (), name: str = ""
) -> tuple[Line, ...]:
    """Return an expression's series over the window for a plot, named by some labels."""
    now, step_s = inv.now(), max(1.0, inv.window.total_seconds() / _MAX_POINTS)
    found = inv.clients.prometheus.query_range(promql, now - inv.window, now, step_s)

    def say(series: Series) -> str:
        return " ".join(series.labels.get(label, "") for label in labels).strip()

    return tuple(draw(say(series) or name or promql, series.samples) for series in found[:20])


#: Where a listing looks, as the source of a step.
LISTING = "listing of $fulfillment_bucket/{$pending_prefix,$chaos_prefix} at $minio_endpoint"

#: The columns of what waits.
_WAITING = ("key", "waits_minutes", "size_bytes", "origin", "finished", "order", "last_modified")
_SETTLE_S = 4
_JUST_WRITTEN = timedelta(seconds=10)


class Waiting:
    """Everything that waits, what waits longest first.

    Attributes
    ----------
    real, synthetic : the objects of each origin
    overdue, overdue_synthetic : the real ones that wait longer than LAG_THRESHOLD_MINUTES, and how
        many synthetic ones do
    since : since when the oldest of these waits
    longest_minutes : how long the oldest real one waits; 0 when none does
    """

    def __init__(self, objects: Iterable[Label], limit_minutes: float) -> None:
        self.objects = sorted(objects, key=lambda o: o.start.at)
        self.limit_minutes = limit_minutes
        self.real = [o for o in self.objects if o.origin == "real"]
        self.synthetic = [o for o in self.objects if o.origin == "synthetic"]
        self.overdue = [o for o in self.real if o.minutes > limit_minutes]
        self.overdue_synthetic = sum(o.minutes > limit_minutes for o in self.synthetic)
        self.since = self.overdue[0].start.at if self.overdue else None
        self.longest_minutes = self.real[0].minutes if self.real else 0.0

    @property
    def observations(self) -> dict[str, Json]:
        """The counts by their names for the hypotheses."""
        told = [o.is_complete for o in self.real]
        future = [o for o in self.objects if o.start.ignored_reason == "in_the_future"]
        return {
            "waiting_real": len(self.real),
            "waiting_finished": None if None in told else told.count(True),
            "waiting_incomplete": None if None in told else told.count(False),
            "overdue_real": len(self.overdue),
            "overdue_synthetic": self.overdue_synthetic,
            "future_pending_since": len(future),
        }

    def describe(self) -> str:
        """Say in words what waits and for how long."""
        waits, late = say_waiting(len(self.real), "real object"), len(self.overdue)
        text = f"{waits}, {late} of them over {self.limit_minutes:g} min"
        text += f" (longest {self.longest_minutes:.1f} min)" if self.real else ""
        if self.synthetic:
            text += f"; {len(self.synthetic)} synthetic ones wait too, "
            text += f"{self.overdue_synthetic} over the threshold (a drill)"
        return text

    def rows(self, limit: int) -> list[dict[str, Json]]:
        """Return a table of the objects that wait longest."""
        told = []
        for o in self.objects[:limit]:
            label = round(o.minutes, 1), o.info.size_bytes, o.origin, o.is_complete, o.order_id
            told.append((o.info.key, *label, o.info.last_modified))
        return to_rows(_WAITING, told)


def say_waiting(number: int, noun: str) -> str:
    """Say that so many wait, such as ``1 object waits``."""
    return f"{count_of(number, noun)} wait{'s' * (number == 1)}"


def read_waiting(inv: Investigation, prefixes: Iterable[str] = ()) -> Waiting:
    """List what waits under some prefixes (default: where objects wait), with its metadata.

    A late hand-over is old when it arrives and leaves within seconds: an object over the lag
    threshold that was written less than 10 s ago counts only if it is still there 4 s later.

    Raises
    ------
    ClientError
        When the store cannot be listed.

    Notes
    -----
    Only reads.
    """
    store, now, limit = inv.clients.store, inv.now(), inv.settings.lag_threshold_minutes
    where = prefixes or list_prefixes(inv.settings)
    listed = (info for prefix in where for info in iter_with_metadata(store, prefix))
    objects = [read_label(info, inv.settings, now) for info in listed]
    overdue, gone = Waiting(objects, limit).overdue, set[str]()
    doubtful = {o.info.key for o in overdue if now - o.info.last_modified < _JUST_WRITTEN}
    for _ in range(_SETTLE_S):
        if left := sorted(doubtful - gone):
            inv.sleep(1.0)
            gone |= {key for key, seen in store.look(left).items() if seen is None}
    return Waiting((o for o in objects if o.info.key not in gone), limit)


NAME = "02_signals_detection"
TITLE = "Signals and detection"
Parameters = section.SectionParameters

ALERT = "FulfillmentDelay"
BLIND_ALERT = "FulfillmentMetricsMissing"
ALERTS = (ALERT, "FulfillmentUploadFailing")
LAG = 'fulfillment_lag_minutes{origin="real"}'
REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
DASHBOARD_UID = "dataflow-overview"
PANEL_TITLE = "Fulfillment backlog"
#: The probe runs every night: an older run says nothing of today.
PROBE_MAX_AGE = timedelta(hours=26)


def is_drill(labels: Mapping[str, str]) -> bool:
    """Tell whether an alert rests on synthetic objects alone."""
    return labels.get("drill") == "true"


@step(
    "2.1", "Alert FulfillmentDelay, or lag over the threshold", name="lag", role=Role.ALERT,
    source=f"$prometheus_url {LAG}; /api/v1/alerts", unit="min", needed=True,
    threshold=f"over $lag_threshold_minutes min for $lag_for_minutes min, or {ALERT} fires",
)  # fmt: skip
def read_alert(inv: Investigation) -> Outcome:
    """Read alerts, rule and raw lag samples from Prometheus.

    A breach: a firing alert without ``drill="true"``, or every raw sample of the lag over the
    threshold for the rule's own ``for`` (``LAG_FOR_MINUTES`` where the rule is not loaded).
    Unknown: no fresh sample of the lag, or an exporter that stopped refreshing.
    """
    prometheus, limit = inv.clients.prometheus, inv.settings.lag_threshold_minutes
    alerts, rules = prometheus.list_alerts(), prometheus.list_rules()
    loaded = [r.for_s for r in rules if r.name == ALERT and not is_drill(r.labels)]
    for_s = loaded[0] if loaded else inv.settings.lag_for_minutes * 60
    samples, fresh, refresh_age_s = _read_lag(inv, for_s)
    lag = fresh[-1].value if fresh else None
    over = list(takewhile(lambda sample: sample.value > limit, reversed(fresh)))
    own = [a for a in alerts if a.name in ALERTS and not is_drill(a.labels)]
    firing = [a for a in own if a.state == "firing"]
    drills = [a for a in alerts if a.name in ALERTS and is_drill(a.labels) and a.state == "firing"]
    remark = f"; only synthetic objects: {_names(drills)} (drill)" if drills else ""
    active = [a.active_at for a in firing if a.active_at]
    since = min([*(sample.at for sample in over[-1:]), *active], default=None)
    title, windows = "Lag of the oldest waiting object", tuple((at, None) for at in active)
    line = draw("lag", samples)
    columns = ("alert", "state", "active_at", "severity", "drill", "value")
    shown = [a for a in alerts if a.name.startswith("Fulfillment")][:200]
    seen = Outcome(
        value=lag if lag is None else round(lag, 2),
        since=since,
        threshold=f"over {limit:g} min for {for_s:g} s, or {ALERT} fires",
        plot=Plot(title=title, unit="minutes", threshold=limit, lines=(line,), windows=windows),
        rows=to_rows(columns, map(_to_cells, shown)),
        observations={
            "alert_state": "firing" if firing else "pending" if own else "inactive",
            "drill_alert_firing": bool(drills),
            "lag_present": lag is not None,
            "exporter_refresh_age_s": refresh_age_s,
        },
    )
    if firing:
        began = f"{since:%H:%M:%S} UTC" if since else "an unknown time"
        seen.episode = _find_episode(inv, firing, fresh)
        return seen.breach(f"{_names(firing)} fires; over the threshold since {began}")
    if lag is None:
        blind = [a for a in alerts if a.name == BLIND_ALERT and a.state == "firing"]
        known = f"; {BLIND_ALERT} fires" if blind else ""
        return seen.unknown(f"{_why_blind(samples, refresh_age_s)}{known}{remark}")
    if drills:
        seen.value = f"{lag:.1f} (drill alert only)"
    if lag <= limit:
        return seen.ok(f"below the threshold and no alert fires{remark}")
    over_s = (over[0].at - over[-1].at).total_seconds()
    said = f"over {limit:g} min for {over_s:.0f} s"
    if over_s < for_s:
        return seen.ok(f"{said}, not yet {for_s:.0f} s{remark}")
    return seen.breach(f"{said} (limit {for_s:.0f} s), but no alert fires{remark}")


def _read_lag(inv: Investigation, for_s: float) -> tuple[list[Sample], list[Sample], float | None]:
    """Return the lag's samples, those of them that tell of now, and the last refresh's age."""
    prometheus, now = inv.clients.prometheus, inv.now()
    samples = join(prometheus.query_samples(LAG, max(for_s * 2, inv.window.total_seconds())))
    refreshes = join(prometheus.query_samples(REFRESH, 300))
    patience_s = max(30.0, 4 * compute_interval_s(samples[-20:]))
    age_s = (now - samples[-1].at).total_seconds() if samples else math.inf
    refresh_age_s = now.timestamp() - refreshes[-1].value if refreshes else None
    # A series that vanished is stale at once in Prometheus, but its old samples stay readable.
    is_present = bool(prometheus.query(LAG))
    is_fresh = age_s <= patience_s and (refresh_age_s or 0) <= max(60.0, patience_s)
    return samples, samples if is_present and is_fresh else [], refresh_age_s


def _find_episode(inv: Investigation, firing: list[Alert], fresh: list[Sample]) -> Episode | None:
    """Return the alert, and since when the lag was over the limit without LAG_FOR_MINUTES of calm.

    Parameters
    ----------
    fresh : samples of the lag, none of them when they say nothing of now
    """
    limit, calm = inv.settings.lag_threshold_minutes, inv.read_calm(inv.settings)
    known = [(a.active_at, a) for a in firing if a.active_at]
    if not known:
        return None
    start, alert = min(known, key=lambda item: item[0])
    calm_until = None
    for sample in reversed(fresh):
        if sample.value > limit:
            start, calm_until = min(start, sample.at), None
        elif sample.at < start:
            calm_until = calm_until or sample.at
            if calm_until - sample.at >= calm:
                break
    labels = ", ".join(f"{k}={v}" for k, v in sorted(alert.labels.items()) if k != "alertname")
    return Episode(key=f"{alert.name}{{{labels}}}", start=start)


def _why_blind(samples: Sequence[Sample], refresh_age_s: float | None) -> str:
    if not samples:
        return f"there is no series {LAG}: the exporter is down or cannot list the bucket"
    last = f"the last value was {samples[-1].value:.1f} min at {samples[-1].at:%H:%M:%S} UTC"
    if refresh_age_s and refresh_age_s > 60:
        return f"the exporter last refreshed {refresh_age_s:.0f} s ago; {last}"
    return f"the series of the lag ended; {last}"


def _names(alerts: Sequence[Alert]) -> str:
    return ", ".join(sorted({a.name for a in alerts}))


def _to_cells(alert: Alert) -> tuple[Json, ...]:
    severity, is_of_drill = alert.labels.get("severity"), is_drill(alert.labels)
    value = round(alert.value, 2) if math.isfinite(alert.value) else None
    return alert.name, alert.state, alert.active_at, severity, is_of_drill, value


def _say_labels(series: Series) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(series.labels.items()))


@step(
    "2.2", "Grafana panel Fulfillment backlog", name=f"panel {PANEL_TITLE}", role=Role.SYMPTOM,
    source=f"$grafana_url: dashboard {DASHBOARD_UID}", unit="objects",
)  # fmt: skip
def _read_panel(inv: Investigation) -> Outcome:
    """Ask Prometheus the panel's own query; unknown without Grafana or without a number."""
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    source = f"{panel.link}: {'; '.join(panel.expressions)}"
    ask = inv.clients.prometheus.query
    found = [(_say_labels(s) or e, s.samples[-1].value) for e in panel.expressions for s in ask(e)]
    rows = to_rows(("series", "value"), (one for one in found if math.isfinite(one[1])))
    if not rows:
        return Outcome(source=source).unknown("the panel's queries give no number")
    reason = "what the panel shows now: compare with 2.3"
    return Outcome(value=sum(r["value"] for r in rows), source=source, rows=rows[:200]).ok(reason)


def _read_backlog(inv: Investigation, unit: Literal["objects", "bytes"]) -> Outcome:
    """Count or sum what waits; a real object over the lag threshold is a breach by itself."""

    def measure(objects: Sequence[Label]) -> int:
        return sum(o.info.size_bytes for o in objects) if unit == "bytes" else len(objects)

    waiting = read_waiting(inv)
    metric_words, lines = _compare_metric(inv, unit, measure(waiting.objects))
    applied = inv.journal.list_actions(model.ActionPhase.APPLIED)[-5:]
    marks = tuple((done.at, f"{done.step} {done.action}") for done in applied)
    title = f"{unit.capitalize()} waiting, by prefix"
    part = "forecast" if unit == "bytes" else "signals"
    made = [o.info.last_modified for o in waiting.synthetic]
    seen = Outcome(
        value=measure(waiting.real),
        rows=waiting.rows(50),
        plot=Plot(title=title, unit=unit, part=part, lines=lines, marks=marks),
        since=waiting.since,
        orders=len({o.order_id or o.info.key for o in waiting.overdue}),
        first_seen={Cause.SYNTHETIC: min(made)} if made else {},
        observations=waiting.observations,
    )
    judge = seen.breach if waiting.overdue else seen.ok
    return judge(f"{waiting.describe()}; {metric_words}")


def _compare_metric(inv: Investigation, unit: str, listed: int) -> tuple[str, tuple[Line, ...]]:
    """Say what the metric tells of the same prefixes; its absence proves nothing here."""
    metric, prefixes = f"fulfillment_artifacts_backlog_{unit}", list_prefixes(inv.settings)
    query, labels = inv.clients.prometheus.query, ("prefix", "origin")
    told, error = attempt(lambda: (query(metric), read_range(inv, metric, labels=labels)))
    if told is None:
        return f"the metric could not be read: {error.partition('. ')[0]}", ()
    series, drawn = told
    found = [s.samples[-1].value for s in series if s.labels.get("prefix") in prefixes]
    lines = tuple(line for line in drawn if line.name.split(" ", maxsplit=1)[0] in prefixes)
    if not found:
        return "the metric has no series", lines
    # The exporter looks every few seconds and labels come and go: only a gross difference counts.
    slack = 20 if unit == "objects" else 20 * 256 * 1024
    is_far = abs(sum(found) - listed) > max(slack, 0.5 * max(sum(found), listed))
    differ = "; the two differ: one of them is stale" if is_far else ""
    return f"the metric says {sum(found):.0f}{differ}", lines


read_backlog_objects = step(
    "2.3", "Backlog objects, metric against listing", name="backlog objects", role=Role.BACKLOG,
    source=f"{LISTING}; $prometheus_url fulfillment_artifacts_backlog_objects", unit="objects",
    threshold="a real object waits over $lag_threshold_minutes min", needed=True,
)(partial(_read_backlog, unit="objects"))  # fmt: skip
_read_bytes = step(
    "2.4", "Backlog bytes, metric against listing", name="backlog bytes", role=Role.IMPACT,
    source=f"{LISTING}; $prometheus_url fulfillment_artifacts_backlog_bytes", unit="bytes",
    threshold="a real object waits over $lag_threshold_minutes min",
)(partial(_read_backlog, unit="bytes"))  # fmt: skip


@step(
    "2.5", "Support timeline of a ticket", name="ticket timeline", role=Role.TICKET, unit="min",
    source="$support_url/support/cases/{ticketId}?includeTimeline=true",
    threshold="newest fulfilment event older than $timeline_stale_minutes min while an artefact "
    "waits",
)  # fmt: skip
def read_ticket(inv: Investigation) -> Outcome:
    """Read the ticket's newest fulfilment event and what of its orders waits.

    A waiting label whose order cannot be told may be one of theirs: unknown.
    """
    if not inv.ticket_id:
        way_on = "set ticket_id to a ticket of an affected order"
        return Outcome().unknown(f"no ticket is named: {way_on}")
    support, stale = inv.clients.support, inv.settings.timeline_stale_minutes
    case = support.read_case(inv.ticket_id)
    newest = max((e.at for e in case.timeline if e.type == "shipment" and e.at), default=None)
    age = (inv.now() - newest).total_seconds() / 60 if newest else None
    waiting = read_waiting(inv)
    mine = [o for o in waiting.real if o.order_id in map(str, case.order_ids)]
    untold = sum(not o.order_id for o in waiting.real)
    behind = _compute_behind(inv, case, newest) if newest else None
    seen = Outcome(
        value=age if age is None else round(age, 1),
        source=f"{support.url}/support/cases/{inv.ticket_id}?includeTimeline=true",
        rows=rows_of(case.timeline[-50:], "at", "type", "source", "status", order="order_id"),
        ticket=inv.ticket_id,
        facts={"waiting": [o.info.key for o in mine[:20]]},
        observations={"timeline_behind_minutes": behind},
    )
    waits = f"an artefact of it waits for {mine[0].minutes:.0f} min" if mine else ""
    if not case.order_ids:
        return seen.unknown("the ticket names no order")
    if age is None:
        failures = support.read_collection_failures()
        if failed := ", ".join(f"{s} {n:.0f}" for s, n in sorted(failures.items()) if n > 0):
            return seen.unknown(f"no shipment is shown, and collecting failed ({failed})")
        text, age = "the timeline has no fulfilment event yet", mine[0].minutes if mine else 0.0
    else:
        text = f"the newest fulfilment event is {age:.0f} min old"
    if waits and age > stale:
        return seen.breach(f"{text}, and {waits}")
    if (behind or 0) > stale:
        return seen.breach(f"a shipment changed {behind:.0f} min ago, and support does not show it")
    if untold and not waits:
        untold_by = f"cannot be told by ORDER_ID_FROM={inv.settings.order_id_from}"
        return seen.unknown(f"{text}; the orders of {untold} waiting labels {untold_by}")
    return seen.ok(f"{text}; {waits or 'none of its artefacts waits'}")


def _compute_behind(inv: Investigation, case: Case, newest: datetime) -> float | None:
    """Return for how long support has not shown the shipments' newest change, in minutes."""
    read = inv.clients.fulfillment.list_shipments
    found, _ = attempt(lambda: [s for o in case.order_ids[:5] for s in read(order_id=o, limit=5)])
    if found is None:
        return None
    changed = max(filter(None, (try_time(s.get("updatedAt")) for s in found)), default=newest)
    is_shown = changed - newest < timedelta(seconds=1)
    return 0.0 if is_shown else max(0.0, (inv.now() - changed).total_seconds() / 60)


@step(
    "2.6", "Synthetic probe, timeline refresh", name="probe, timeline refresh", role=Role.SYMPTOM,
    source="$probe_url/status", threshold="the timeline refresh has status=error",
)  # fmt: skip
def read_probe(inv: Investigation) -> Outcome:
    """Read how the nightly walk through support ended."""
    probe = inv.clients.probe.read_status()
    refresh = next((s for s in probe.steps if s.name == "timeline_refresh"), None)
    rows = rows_of(probe.steps, "status", "message", step="name")
    seen = Outcome(value=refresh.status if refresh else probe.status, rows=rows)
    if probe.ran_at is None or inv.now() - probe.ran_at > PROBE_MAX_AGE:
        return seen.unknown("the probe has not run within the last 26 hours")
    if refresh and refresh.status in ("ok", "error"):
        seen.observations = {"probe_refresh_failed": refresh.status == "error"}
        if refresh.status == "error":
            return seen.breach(f"the timeline refresh failed: {refresh.message}")
        age_s = (inv.now() - probe.ran_at).total_seconds()
        return seen.ok(f"the timeline refresh worked {age_s:.0f} s ago")
    seen.observations = {"probe_failed_before": probe.status == "error"}
    errors = "; ".join(s.message for s in probe.steps if s.status == "error")
    return seen.unknown(f"the probe did not get to the timeline refresh: {errors or probe.status}")


STEPS = by_id(read_alert, _read_panel, read_backlog_objects, _read_bytes, read_ticket, read_probe)
ACTIONS: dict[str, section.ActionStep] = {}


def list_current(inv: Investigation, steps: Iterable[str]) -> dict[str, Reading]:
    """Return the newest reading of some steps, where it is not too old to say something of now.

    What was read before the last action says nothing of what came of it.
    """
    acted, since = inv.journal.last_applied, inv.now() - MAX_AGE
    latest = {s: r for s, r in inv.latest().items() if s in steps and r.observed_at >= since}
    return {s: r for s, r in latest.items() if not acted or r.seq > acted.seq}


def judge_symptoms(inv: Investigation, steps: Mapping[str, Step]) -> VerdictResult:
    """Say whether there is an incident, by what was read of some steps lately.

    Those of them that this section reads itself, and that a verdict needs, must have been read.
    """
    readings, acted = list_current(inv, steps), inv.journal.last_applied
    fix = inv.journal.conclusion("06_remediation", after=acted.seq) if acted else None
    lag, limit = readings.get(get_step(read_alert).id), inv.settings.lag_threshold_minutes
    is_low = lag and isinstance(lag.value, int | float) and lag.value <= limit
    own = inv.section.STEPS.keys() & steps.keys() or steps.keys()
    needed = [s for s in steps if s in own and steps[s].needed]
    clear = fix.clear if fix and is_low else None
    return compute_symptom_verdict(readings, needed=needed, now=inv.now(), clear=clear)


def conclude_symptoms(inv: Investigation, steps: Mapping[str, Step], said: str = "") -> Conclusion:
    """Draw a section's verdict from symptoms in the journal; ``said`` is what else it found."""
    verdict, reason = judge_symptoms(inv, steps)
    return Conclusion(verdict=verdict, summary=f"{reason}; {said}" if said else reason)


#: Whether there is an incident, from this section's readings in the journal.
conclude = partial(conclude_symptoms, steps=STEPS)
