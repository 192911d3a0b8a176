"""Section 6: release, repair, clean up, and prove that it helped. Every change is planned first.

6.1 has two ways out: re-trigger the worker when it can run, else release by move. 6.1.1 takes a
release by move back; 6.1.2 writes down a person's word on what nobody can know. 6.5 asks whether
lag and backlog came down, by samples that are newer than the action.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from objectmove.errors import RefusedError, StoreError
from runbook_lib import model
from runbook_lib.approvals import Plan, load_plan
from runbook_lib.errors import ClientError, SafetyError, UsageError
from runbook_lib.http import parse_duration
from runbook_lib.model import ActionPhase, CauseStatus, Finding, Json, Role, Status, Verdict
from runbook_lib.section import ActionStep, ChangeParameters, attempt, by_id, split_list, step

from ..analysis.causes import CAUSES, STANDSTILL, Advice
from ..analysis.forecasts import Drain, Stages, compute_clear_time, compute_drain
from ..analysis.samples import Rate, join
from ..analysis.verdict import compute_recovery, compute_verdict, judge_alert
from ..change.release import (
    MOVE,
    TO_SETTLE,
    list_to_settle,
    make_release_plan,
    plan_settling,
    plan_undo,
)
from ..change.service_actions import SERVICE, plan_nothing, plan_service
from ..change.synthetic import SYNTHETIC, list_own_orders, plan_revert
from ..investigation import Investigation
from . import detection, purpose, root_cause
from .detection import LAG, REFRESH, is_drill, read_waiting, say_waiting
from .immediate import read_store_health
from .timeline import build_timeline
from .worker_metrics import BACKLOG, read_rates

_MAX_AGE_S = 90.0
_Compared = tuple[list[dict[str, Json]], str, float]
_AGAIN = "a re-trigger (way=release moves by hand)"


def _refresh_advice(inv: Investigation) -> Advice:
    """Return what section 5 advises; readings that are too old are read anew."""
    for step_id in root_cause.STEPS:
        inv.read_step(step_id, max_age_s=_MAX_AGE_S)
    return root_cause.judge_causes(inv)[1]


def _plan_release(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    worker, prefix = inv.settings.worker_service, p.prefix or inv.settings.pending_prefix
    way, reason, is_away = p.way, f"chosen: way={p.way}", False
    if way == "auto":
        advice = _refresh_advice(inv)
        way, reason = advice.strategy, advice.why
        is_away = advice.target == worker and advice.action != "none"
    if way == "release":
        plan = partial(make_release_plan, inv, reason=reason, only_orders=_get_orders(inv))
        return _plan_or_say(inv, "6.1", prefix, "a release", plan)
    target = prefix if way == "none" else worker
    return _plan_service(inv, "6.1", way, target, reason, is_away=is_away)


def _get_orders(inv: Investigation) -> frozenset[str] | None:
    """Return the orders that may move: in a drill only its own, whatever the parameter says."""
    named = frozenset(split_list(cast(Any, inv.parameters).only_orders))
    if inv.incident.facts.get("drill_id"):
        return list_own_orders(inv) & named if named else list_own_orders(inv)
    return named or None


def _load_about(inv: Investigation, step_id: str, named: str, actions: Sequence[str]) -> Plan:
    """Return the plan that a parameter names, of one of some kinds.

    Raises
    ------
    UsageError
        When it is of another kind.
    """
    plan = load_plan(inv.incident.find_plan(named), _RELEASE)
    action = plan.content.move.header.action if plan.kind is MOVE else plan.action
    if action not in actions:
        raise UsageError(f"{step_id}: {named} is a plan of the kind {action!r}, not of a release")
    return plan


def _plan_undo(inv: Investigation) -> Plan:
    named = cast(Any, inv.parameters).undo
    if not named:
        reason = "no release was named to take back"
        return plan_nothing(inv, step="6.1.1", target=inv.settings.ready_prefix, reason=reason)
    return plan_undo(inv, _load_about(inv, "6.1.1", named, ("move", "settle")))


def _plan_settling(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    if not p.settle or not p.settle_word:
        reason = "no release was named to settle"
        if p.settle:
            reason = "settle_word says what became of them: taken, or not_taken"
        return plan_nothing(inv, step="6.1.2", target=inv.settings.ready_prefix, reason=reason)
    release = _load_about(inv, "6.1.2", p.settle, _SETTLED)
    return plan_settling(inv, release, word=p.settle_word, keys=read_keys(p.settle_keys))


def read_keys(text: str) -> list[str]:
    """Return the keys that a parameter names: a JSON list, or words with commas between.

    Raises
    ------
    UsageError
        When it is a list of something else.
    """
    if not text.lstrip().startswith("["):
        return split_list(text)
    try:
        keys = json.loads(text)
    except ValueError as error:
        raise UsageError(f"settle_keys is no JSON list: {error}") from error
    if not all(isinstance(key, str) for key in keys):
        raise UsageError("settle_keys is a list of keys, each in quotes")
    return list(keys)


def _plan_repair(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    action, reason = p.service_action, f"chosen: service_action={p.service_action}"
    own = inv.settings.pipeline_dag_id if action == "unpause" else inv.settings.worker_service
    target = p.service or own
    if action == "auto":
        advice = _refresh_advice(inv)
        action, target, reason = advice.action, advice.target, advice.reason
    return _plan_service(inv, "6.2", action, target, reason)


def _plan_refresh(inv: Investigation) -> Plan:
    ticket, last = inv.ticket_id, inv.journal.last_applied
    if not ticket:
        return plan_nothing(inv, step="6.4", target="ticket", reason="no ticket is named")
    checked = inv.journal.list_actions(ActionPhase.VERIFIED, after=last.seq if last else 0)
    at = next((c.at for c in checked if last and (last.step, c.target) == ("6.4", ticket)), None)
    if at and inv.now() - at < timedelta(minutes=inv.settings.timeline_stale_minutes):
        reason = f"it was refreshed at {model.format_time(at)}, and nothing was changed since"
        return plan_nothing(inv, step="6.4", target=ticket, reason=reason)
    return _plan_service(inv, "6.4", "refresh", ticket, "so that support sees the release")


def _plan_clean_up(inv: Investigation) -> Plan:
    plan = partial(plan_revert, inv, "6.3")
    return _plan_or_say(inv, "6.3", "synthetic objects", "a clean-up", plan)


def _plan_service(
    inv: Investigation, step: str, action: str, target: str, reason: str, *, is_away: bool = False
) -> Plan:
    about = partial(plan_service, inv, step=step, action=action, target=target)
    what = _AGAIN if action == "retrigger" else f"{action} of {target}"
    return _plan_or_say(inv, step, target, what, partial(about, reason=reason, is_away=is_away))


def _plan_or_say(
    inv: Investigation, step: str, target: str, what: str, plan: Callable[[], Plan]
) -> Plan:
    """Plan; where the world refuses, plan nothing and say why: the rest is planned still."""
    try:
        return plan()
    except (StoreError, ClientError, SafetyError, RefusedError) as error:
        reason = f"nothing, because {what} cannot be planned: {error}"
        return plan_nothing(inv, step=step, target=target, reason=reason)


def put_in_order(release: Plan, repair: Plan) -> tuple[Plan, Plan]:
    """Return the plans of 6.1 and 6.2 as the advice orders them: a re-trigger needs the worker."""
    return (repair, release) if release.action == "retrigger" else (release, repair)


_RELEASE = (MOVE, SERVICE)
_SETTLED = ("move", "reopen", "undo")
ACTIONS = by_id(
    ActionStep("6.1", "Release what waits", _plan_release, _RELEASE),
    ActionStep("6.1.1", "Take the release back", _plan_undo, _RELEASE),
    ActionStep("6.1.2", "Settle what nobody can know", _plan_settling, _RELEASE),
    ActionStep("6.2", "Bring back the service", _plan_repair, (SERVICE,)),
    ActionStep("6.3", "Clean up chaos objects", _plan_clean_up, (SYNTHETIC, SERVICE)),
    ActionStep("6.4", "Refresh the ticket's timeline", _plan_refresh, (SERVICE,)),
)


@step(
    "6.1", "What the planned release would change", name="what the plan would change",
    role=Role.EFFECT, unit="min of lag less",
    source="journal; listing of the bucket; $prometheus_url (counters)",
)  # fmt: skip
def read_plan_effect(inv: Investigation) -> model.Outcome:
    """Compute what the newest plan of 6.1 would change, from a listing and the counters.

    Notes
    -----
    Only reads. What cannot be read is ``unknown`` in its row; without a listing the whole is.
    """
    ids = [plan_id for plan_id, made in inv.journal.list_plans().items() if made.step == "6.1"]
    plan = load_plan(inv.incident.find_plan(ids[-1]), _RELEASE) if ids else None
    if plan is None or plan.kind is not MOVE or plan.is_empty:
        return model.Outcome().ok("no release by move is planned: nothing to compare")
    rows, words, gain = _compare(inv, _list_real(inv, plan), plan)
    seen = model.Outcome(value=gain, rows=rows, columns=list(rows[0]), facts={"plan": plan.id})
    return seen.ok(words)


@step(
    "6.1.2", "Labels of which nobody can know whether they were shipped",
    name="labels to settle", role=Role.EFFECT, unit="labels",
    source="the release's ledger; the bucket; $fulfillment_url (shipments)",
)  # fmt: skip
def read_to_settle(inv: Investigation) -> model.Outcome:
    """List what a person must settle, with what is known of each order. Only reads."""
    named = cast(Any, inv.parameters).settle
    if not named:
        return model.Outcome().ok("no release is named: set settle to its id")
    release = _load_about(inv, "6.1.2", named, _SETTLED)
    try:
        rows = list_to_settle(inv, release)
    except StoreError as error:
        return model.Outcome().unknown(f"could not be read: {error}")
    except RefusedError as error:
        return model.Outcome().ok(str(error))
    seen = model.Outcome(value=len(rows), rows=rows, columns=TO_SETTLE)
    if not rows:
        return seen.ok("nothing is open")
    return seen.ok(f"{len(rows)} labels wait for your word: taken, or not taken")


def describe_effect(inv: Investigation, plan: Plan) -> _Compared:
    """Say the same of a plan that was just made, from what it looked at.

    Only what it left out by its name is listed anew: that waits, too.

    Returns
    -------
    Rows of ``what``, ``now`` and ``after the plan``; the same in words; and for how many minutes
    the oldest waits now.
    """
    now = inv.now()
    waits = {key: max(0.0, (now - at).total_seconds() / 60) for key, at in plan.content.observed}
    if plan.content.move.header.excluded.get("no_match"):
        waits = attempt(lambda: _list_real(inv, plan))[0] or waits
    return *_compare(inv, waits, plan)[:2], max(waits.values(), default=0.0)


def _list_real(inv: Investigation, plan: Plan) -> dict[str, float]:
    """List the real objects that wait where a plan takes from, and for how many minutes."""
    waiting = read_waiting(inv, [plan.content.move.header.source])
    return {o.info.key: o.minutes for o in waiting.real}


def _compare(inv: Investigation, waits: dict[str, float], plan: Plan) -> _Compared:
    """Return the backlog now and after the plan as rows and in words, and the lag taken off."""
    planned = {row.key for row in plan.rows}
    stays = {key: minutes for key, minutes in waits.items() if key not in planned}
    is_stopped = not STANDSTILL.isdisjoint(root_cause.judge_causes(inv)[1].causes)
    rates, error = attempt(lambda: read_rates(inv, is_stopped=is_stopped))
    arrival, drain = rates or (None, None)
    now, after = (compute_drain(len(one), arrival, drain) for one in (waits, stays))
    oldest, oldest_left = (round(max(o.values(), default=0.0), 1) for o in (waits, stays))
    compared: dict[str, tuple[Json, Json]] = {
        "objects waiting": (len(waits), len(stays)),
        "oldest waits, minutes": (oldest, oldest_left),
        "arrive per minute": (_say_rate(arrival), _say_rate(arrival)),
        "leave per minute": (_say_rate(drain), _say_rate(drain)),
        "empty in": (_say_time_to_empty(now), _say_time_to_empty(after)),
    }
    rows = [{"what": w, "now": old, "after the plan": new} for w, (old, new) in compared.items()]
    missing = f"; the rates could not be read: {error}" if error else ""
    words = f"{say_waiting(len(waits), 'object')} now, {len(stays)} after it"
    words += f"; {after.outlook}: {after.reason}{missing}"
    return rows, words, round(oldest - oldest_left, 1)


def _say_rate(rate: Rate | None) -> str:
    return "unknown" if rate is None else f"{rate.per_minute:.1f} ({rate.low:.1f}–{rate.high:.1f})"


def _say_time_to_empty(drain: Drain) -> str:
    """Say when the backlog is empty at the present rates, with the bounds."""
    if drain.minutes_to_empty is None:
        return drain.outlook
    high = "never" if drain.high_minutes is None else f"{drain.high_minutes:.1f}"
    return f"{drain.minutes_to_empty:.1f} min ({drain.low_minutes:.1f}–{high})"


@step(
    "6.5", "Lag under 5 in two samples after the action, backlog at its baseline",
    name="recovery", role=Role.RECOVERY, unit="min",
    source=f"$prometheus_url {LAG}; listing of $pending_prefix",
    threshold="not under $recovered_minutes min in $recovered_scrapes samples after the action, "
    "or backlog over its baseline",
)  # fmt: skip
def read_recovery(inv: Investigation) -> model.Outcome:
    """Watch the lag until enough samples after the action are low, or the time is over.

    A sample counts when the exporter's refresh behind it is later than the last action (or, with
    none, than the opening of the incident).
    """
    limit, needed = inv.settings.recovered_minutes, inv.settings.recovered_scrapes
    opened_at = model.parse_time(str(inv.incident.facts["opened_at"]))
    action_at = inv.journal.last_applied_at or opened_at
    recovery = _watch(inv, action_at, limit, needed)
    waiting = read_waiting(inv)
    baseline, baseline_text = _read_baseline(inv, action_at)
    lag = join(inv.clients.prometheus.query_samples(LAG, inv.window.total_seconds()))
    lines, marks = (detection.draw("lag", lag),), ((action_at, "last action"),)
    title = "Lag of the oldest waiting object"
    seen = model.Outcome(
        value=recovery.value,
        threshold=f"not under {limit:g} min in {needed} samples after "
        f"{model.format_time(action_at)}, or backlog over its baseline",
        plot=model.Plot(
            title=title, unit="minutes", part="forecast", threshold=limit, lines=lines, marks=marks
        ),
        clear=attempt(lambda: _predict(inv, recovery.since or action_at))[0],
    )
    said = f"{waiting.describe()}; {baseline_text}"
    is_over = len(waiting.real) > baseline + max(5, baseline / 5)
    if waiting.overdue:
        return seen.breach(f"{recovery.reason}; {said}")
    if recovery.status is Status.OK and is_over:
        return seen.unknown(f"{recovery.reason}; {len(waiting.real)} objects still wait; {said}")
    return seen.judge(recovery.status, f"{recovery.reason}; {said}")


def _watch(inv: Investigation, action_at: datetime, limit: float, needed: int) -> model.Outcome:
    prometheus, parameters = inv.clients.prometheus, cast(Any, inv.parameters)
    until = inv.now() + timedelta(seconds=parameters.wait_s)
    while True:
        window_s = max(60.0, (inv.now() - action_at).total_seconds() + 60)
        lag, refresh = (join(prometheus.query_samples(s, window_s)) for s in (LAG, REFRESH))
        recovery = compute_recovery(lag, refresh, action_at, limit, needed)
        if recovery.status is Status.OK or inv.now() >= until:
            return recovery
        inv.sleep(1.0)


def _read_baseline(inv: Investigation, action_at: datetime) -> tuple[float, str]:
    """Return how many objects wait when all is well; none where it is not known.

    In a drill the reading of its steady state; else the median of the hour before the incident
    began. That is when its cause began, or, where that is not known, its first label came to wait:
    before any label was late.
    """
    limit = timedelta(minutes=inv.settings.lag_threshold_minutes)
    if inv.incident.facts.get("drill_id"):
        first = next((e.seq for e in inv.journal.entries if e.data.get("event") == "inject"), 0)
        steady = [r.value for r in inv.journal.readings if r.role is Role.BACKLOG and r.seq < first]
        if steady and isinstance(value := steady[-1], int | float):
            return float(value), f"baseline {value:.0f} (steady state of the drill)"
    dated = [f.first_seen for f in inv.policy.list_causes(inv.journal) if f.first_seen]
    since = inv.journal.since() or action_at
    began = min([since, *(dated or [since - limit])])
    hour = (began - timedelta(hours=1), began)
    metric = f"sum({BACKLOG % inv.settings.pending_prefix})"
    query = inv.clients.prometheus.query_range
    found, _ = attempt(lambda: (query(metric, *hour, 30), query(LAG, *hour, 30)))
    waited, lag = map(join, found or ((), ()))
    late = [s.at for s in lag if s.at <= began and timedelta(minutes=s.value) > limit]
    # what follows an earlier incident within the hour counts, what holds it does not
    values = [s.value for s in waited if max(late, default=hour[0]) < s.at <= began]
    if not values:
        return 0.0, "the baseline is unknown"
    return median(values), f"baseline {median(values):.0f} (median of the hour before)"


def _predict(inv: Investigation, fixed_at: datetime) -> model.ClearTime | None:
    """Predict when the firing alerts clear; None when an interval is not told."""
    prometheus = inv.clients.prometheus
    firing = {a.name for a in prometheus.list_alerts() if not is_drill(a.labels)}
    names = firing & set(detection.ALERTS) or {detection.ALERT}
    rules = [r for r in prometheus.list_rules() if r.name in names and not is_drill(r.labels)]
    refresh = prometheus.query("fulfillment_exporter_refresh_interval_seconds")
    targets = [t for t in prometheus.list_targets() if t.job == "artifact-exporter"]
    if not rules or not refresh or not targets:
        return None
    refresh_s, scrape_s = refresh[0].samples[-1].value, targets[0].scrape_interval_s
    evaluation_s = max(r.group_interval_s for r in rules)
    keep_firing_for_s = max(r.keep_firing_for_s + _find_memory_s(r.query) for r in rules)
    stages = Stages(refresh_s, scrape_s, evaluation_s, keep_firing_for_s)
    group_interval_s = inv.clients.alertmanager.read_group_timing()[1]
    return compute_clear_time(fixed_at, stages, group_interval_s=group_interval_s)


def _find_memory_s(promql: str) -> float:
    """Return for how long a rule still sees what is over: the window of its ``increase``."""
    found = re.search(r"\bincrease\([^\[]*\[([0-9a-z]+)\]", promql)
    return parse_duration(found[1]) if found else 0.0


NAME = "06_remediation"
TITLE = "Remediation"
_Word = Literal["", "taken", "not_taken"]
_Action = Literal["auto", "none", "start", "stop", "restart", "resume", "unpause"]
_PlanId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,150}$")]


class Parameters(ChangeParameters):
    """Parameters of section 6."""

    way: Literal["auto", "release", "retrigger", "none"] = Field(
        "auto", description="6.1: auto re-triggers the worker when it can run, else moves"
    )
    prefix: str = Field("", description="6.1: release from; empty: PENDING_PREFIX")
    to: str = Field("", description="6.1: release to; empty: READY_PREFIX")
    match: str = Field("", description="6.1: shell pattern of names; empty: RELEASE_MATCH")
    older_than_minutes: float = Field(0, ge=0, description="6.1: leave out what waits less, min")
    limit: int = Field(0, ge=0, le=100_000, description="6.1: release at most so many; 0: all")
    only_orders: str = Field("", description="6.1: only these orders, comma-separated")
    strict: bool = Field(False, description="6.1: refuse when any planned label changed")
    memory_removed: bool = Field(
        False, description="6.1: plan also labels of which the bucket forgot what became"
    )
    stop_here: bool = Field(False, description="resume: copy nothing more, finish what landed")
    consumer_stands_still: bool = Field(
        False, description="your word that nobody takes from ready/ until this is done"
    )
    worker_goes_on: bool = Field(
        False, description="resume: let the worker go on although labels may ship twice"
    )
    same_store: bool = Field(
        False, description="your word that the plan's endpoint is this store by another name"
    )
    undo: _PlanId = Field("", description="6.1.1: id of the release to take back; empty: none")
    settle: _PlanId = Field("", description="6.1.2: id of the release to settle; empty: none")
    settle_word: _Word = Field("", description="6.1.2: what became of them: taken, or not_taken")
    settle_keys: str = Field("", description="6.1.2: only these keys: a,b or a JSON list")
    service_action: _Action = Field("auto", description="6.2: auto takes what section 5 found")
    service: str = Field("", description="6.2: name of the service; empty: the worker's")
    drill_id: str = Field("", description="6.3: only this drill's objects; empty: every drill's")
    wait_s: float = Field(30, ge=0, le=900, description="6.5: wait for samples at most, in seconds")


#: What says, beside the alert, that the symptom is gone.
_PROOF = by_id(read_recovery, detection.read_backlog_objects, read_store_health)
STEPS = root_cause.STEPS | by_id(
    purpose.read_unfinished, read_plan_effect, read_to_settle, read_recovery
)


def conclude(inv: Investigation) -> model.Conclusion:
    """Say whether it is fixed: by readings that are newer than the last action."""
    action = inv.journal.last_applied
    readings = detection.list_current(inv, STEPS)
    findings, advice = root_cause.judge_causes(inv)
    clear = next((r.clear for r in readings.values() if r.clear), None)
    if action is None:
        verdict, said = detection.judge_symptoms(inv, STEPS)
        supported = [f for f in findings if f.status is CauseStatus.SUPPORTED]
        summary = f"nothing was changed; {said}" + "".join(f"; {f.name}" for f in supported)
    else:
        seen = {n: o.value for n, o in root_cause.collect_observations(readings).items()}
        moved_at = seen.get("worker_last_move")
        told = {s: readings[s].status if s in readings else Status.UNKNOWN for s in _PROOF}
        verdict, summary = compute_verdict(
            {s: status for s, status in told.items() if status is not Status.LEFT_OUT},
            _pick_causes(inv, findings),
            alert=judge_alert(seen.get("alert_state"), clear, inv.now()),
            worker_moving=moved_at and model.parse_time(moved_at) > action.at,
        )
    return model.Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        clear=clear if verdict is Verdict.FIXED_ALERT_DECAYING else None,
        advice=advice.words if verdict in root_cause.IN_TROUBLE else (),
    )


def _pick_causes(inv: Investigation, findings: Iterable[Finding]) -> dict[str, CauseStatus]:
    """Return the causes to judge by: those that are supported now, or were before.

    A cause that nobody ever supported says nothing by being undecided, and one that stops
    no label counts only if it was the incident's. Without any, what was refuted says that no
    cause is left.
    """
    before = {finding.name for finding in inv.policy.list_causes(inv.journal)}
    now = {f.name: f.status for f in findings}
    stops = {c for c, s in now.items() if s is CauseStatus.SUPPORTED and CAUSES[c].stops_labels}
    picked = {c: s for c, s in now.items() if c in before | stops}
    gone = (CauseStatus.REFUTED, CauseStatus.PAST)
    return picked or {c: s for c, s in now.items() if s in gone}
