"""Section 6: release, repair, clean up, and prove that it helped. Every change is planned first.

6.1 re-triggers the worker or releases by move, as section 5 advises. 6.1.1 takes a release by move
back. 6.1.2 records a person's word on labels that may or may not have shipped. 6.5 asks whether
lag and backlog came down, by samples that are newer than the action.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import Field

from objectmove.errors import RefusedError, StoreError
from runbook_lib import model
from runbook_lib.approvals import Plan, load_plan, make_empty_plan
from runbook_lib.errors import ClientError, SafetyError, UsageError
from runbook_lib.http import parse_duration
from runbook_lib.model import (
    ActionPhase,
    CauseStatus,
    Json,
    Role,
    Status,
    Verdict,
)
from runbook_lib.policy import IN_TROUBLE, find_clear_time
from runbook_lib.section import (
    ActionStep,
    attempt,
    by_id,
    get_parameters,
    get_step,
    split_list,
    step,
)
from runbook_lib.show.text import say_left_out

from ..analysis.causes import Advice
from ..analysis.forecasts import Stages, compute_clear_time
from ..analysis.samples import Sample
from ..change.release import GATE, MOVE, TO_SETTLE, ReleaseParameters, make_release_plan
from ..change.service_actions import SERVICE, plan_service
from ..change.synthetic import REMOVE, plan_revert
from ..clients.http_systems import AlertRule
from ..investigation import Investigation
from ..quantities import Backlog, Uploads, measure, measure_recovery
from ..waiting import read_waiting
from .purpose import read_unfinished
from .recovery import (
    Lag,
    compare_backlog,
    find_judged_from,
    is_low,
    judge_recovery,
    read_lag,
    read_uploads,
    read_well_since,
)
from .root_cause import STEPS as CAUSE_STEPS
from .root_cause import judge_causes, record_diagnosis
from .signals import ALERT, ALERTS, EXPORTER, LAG, draw_line, find_alert_states, is_drill
from .symptoms import judge_now, list_current
from .timeline import build_timeline

NAME = "06_remediation"
TITLE = "Remediation"
_Action = Literal["auto", "none", "start", "stop", "restart", "resume", "unpause"]


class Parameters(ReleaseParameters):
    """Parameters of section 6."""

    service_action: _Action = Field(
        "auto", description="6.2: auto takes the action that section 5 advises"
    )
    service: str = Field("", description="6.2: name of the service; empty: the worker's")
    drill_id: str = Field("", description="6.3: only this drill's objects; empty: every drill's")
    wait_s: float = Field(30, ge=0, le=900, description="6.5: longest wait for samples, in seconds")


#: How old a reading may be for a plan.
_MAX_AGE_S = 90.0
#: The time between two listings of 6.5, where no exporter measures the lag.
_LIST_EVERY_S = 5.0
#: The kinds of the plans of 6.1, 6.1.1 and 6.1.2.
_RELEASE_KINDS = (MOVE, SERVICE)


def _refresh_advice(inv: Investigation) -> Advice:
    """Read anew what is too old for a plan, and return section 5's advice.

    Unless a parameter names a plan that was made before, readings from before this run are too old.
    If the advice rests on a cause that no diagnosis named before, or if a cause of the newest
    diagnosis is not supported any more, the new diagnosis is written to the journal.
    """
    max_age_s = _MAX_AGE_S
    starts = [start.at for start in inv.journal.starts if start.section == NAME]
    if starts and not get_parameters(inv, Parameters).plan:
        since_start = inv.now() - starts[-1]
        max_age_s = min(max_age_s, since_start.total_seconds())
    for step_id in CAUSE_STEPS:
        inv.read_step(step_id, max_age_s=max_age_s)
    advice = judge_causes(inv).advice
    named = {finding.name for finding in inv.policy.list_causes(inv.journal)}
    newest = {f.name for f in inv.journal.findings() if f.status is CauseStatus.SUPPORTED}
    if not named.issuperset(advice.causes) or not newest.issubset(advice.causes):
        record_diagnosis(inv)
    return advice


def _plan_release(inv: Investigation) -> Plan:
    """Plan a release by move, or a re-trigger, as ``way`` says; ``auto``: as section 5 advises."""
    parameters = get_parameters(inv, Parameters)
    worker = inv.settings.worker_service
    prefix = parameters.prefix or inv.settings.pending_prefix
    if parameters.way == "auto":
        advice = _refresh_advice(inv)
        way = advice.strategy
        reason = advice.why
        needs_repair = advice.target == worker and advice.action != "none"
    else:
        way = parameters.way
        reason = f"chosen: way={way}"
        needs_repair = False
    if way == "release":
        orders = _get_orders(inv)
        return _plan_or_say(
            step="6.1",
            target=prefix,
            noun="a release",
            plan=lambda: make_release_plan(inv, reason=reason, only_orders=orders),
        )
    target = prefix if way == "none" else worker
    return _plan_service(inv, "6.1", way, target, reason, needs_repair=needs_repair)


def _get_orders(inv: Investigation) -> frozenset[str] | None:
    """Return the orders whose labels may move; None: all. A drill moves only its own orders."""
    named = frozenset(split_list(get_parameters(inv, Parameters).only_orders))
    if inv.incident.state.drill_id:
        own = frozenset(map(str, inv.incident.state.drill_orders))
        return own & named if named else own
    return named or None


def _load_release(inv: Investigation, step_id: str, plan_id: str) -> Plan:
    """Return the plan of a release by move that a parameter names.

    Raises
    ------
    UsageError
        When it is another plan.
    """
    plan = load_plan(inv.incident.find_plan(plan_id), _RELEASE_KINDS)
    if plan.kind is not MOVE:
        raise UsageError(f"{step_id}: {plan_id} is not the plan of a release by move")
    return plan


def _plan_undo(inv: Investigation) -> Plan:
    plan_id = get_parameters(inv, Parameters).undo
    if not plan_id:
        reason = "no release was named to take back"
        return make_empty_plan(step="6.1.1", target=inv.settings.ready_prefix, reason=reason)
    _load_release(inv, "6.1.1", plan_id)
    return GATE.plan_undo(inv)


def _plan_settling(inv: Investigation) -> Plan:
    parameters = get_parameters(inv, Parameters)
    reason = ""
    if not parameters.settle:
        reason = "no release was named to settle"
    elif not (parameters.taken or parameters.not_taken):
        reason = "set taken or not_taken to the files of which you know it"
    if reason:
        return make_empty_plan(step="6.1.2", target=inv.settings.ready_prefix, reason=reason)
    _load_release(inv, "6.1.2", parameters.settle)
    return GATE.plan_settling(inv)


def _plan_repair(inv: Investigation) -> Plan:
    parameters = get_parameters(inv, Parameters)
    if parameters.service_action == "auto":
        advice = _refresh_advice(inv)
        return _plan_service(inv, "6.2", advice.action, advice.target, advice.reason)
    action = parameters.service_action
    target = parameters.service or inv.settings.worker_service
    if action == "unpause":
        target = inv.settings.pipeline_dag_id
    return _plan_service(inv, "6.2", action, target, f"chosen: service_action={action}")


def _plan_refresh(inv: Investigation) -> Plan:
    ticket = inv.ticket_id
    if not ticket:
        return make_empty_plan(
            step="6.4",
            target="ticket",
            reason="no ticket given",
        )
    refreshed_at = _find_refresh(inv, ticket)
    if refreshed_at:
        at = model.format_time(refreshed_at)
        return make_empty_plan(
            step="6.4",
            target=ticket,
            reason=f"the timeline was refreshed at {at}, and nothing was changed since",
        )
    return _plan_service(inv, "6.4", "refresh", ticket, "so that support sees what changed")


def _find_refresh(inv: Investigation, ticket: str) -> datetime | None:
    """Return when the refresh of a ticket's timeline was verified, if that was the last change.

    None if something else was changed since, if the refresh was not verified, or if it was verified
    longer ago than TIMELINE_STALE_MINUTES.
    """
    last_change = inv.journal.last_applied
    if last_change is None or last_change.step != "6.4":
        return None
    oldest_allowed = inv.now() - timedelta(minutes=inv.settings.timeline_stale_minutes)
    for check in inv.journal.list_actions(ActionPhase.VERIFIED, after=last_change.seq):
        # An empty plan of 6.4 is checked, too, but its action is ``none``.
        if check.target == ticket and check.action == last_change.action:
            return check.at if check.at > oldest_allowed else None
    return None


def _plan_clean_up(inv: Investigation) -> Plan:
    return _plan_or_say(
        step="6.3",
        target="synthetic objects",
        noun="a clean-up",
        plan=lambda: plan_revert(inv, "6.3", drill_id=get_parameters(inv, Parameters).drill_id),
    )


def _plan_service(
    inv: Investigation,
    step_id: str,
    action: str,
    target: str,
    reason: str,
    *,
    needs_repair: bool = False,
) -> Plan:
    """Plan an action on a service. ``needs_repair``: 6.2 must bring the service back first."""
    if action == "none":
        return make_empty_plan(step=step_id, target=target, reason=reason)
    noun = f"{action} of {target}"
    if action == "retrigger":
        noun = "a re-trigger (way=release moves without the worker)"
    return _plan_or_say(
        step=step_id,
        target=target,
        noun=noun,
        plan=lambda: plan_service(
            inv,
            step=step_id,
            action=action,
            target=target,
            reason=reason,
            needs_repair=needs_repair,
        ),
    )


def _plan_or_say(
    *,
    step: str,
    target: str,
    noun: str,
    plan: Callable[[], Plan],
) -> Plan:
    """Make a plan. If that fails, return an empty plan that says why, so that other plans go on.

    Parameters
    ----------
    noun : what is planned, in words
    plan : makes the plan
    """
    try:
        return plan()
    except (StoreError, ClientError, SafetyError, RefusedError) as error:
        reason = f"nothing, because {noun} cannot be planned: {error}"
        return make_empty_plan(step=step, target=target, reason=reason)


def put_in_order(release: Plan, repair: Plan) -> tuple[Plan, Plan]:
    """Return the plans of 6.1 and 6.2 in the order in which they are carried out.

    A re-trigger needs the worker, so the repair comes first. A release by move comes before
    the repair.
    """
    if release.action == "retrigger":
        return repair, release
    return release, repair


ACTIONS = by_id(
    ActionStep("6.1", "Release what waits", _plan_release, _RELEASE_KINDS),
    ActionStep("6.1.1", "Take the release back", _plan_undo, _RELEASE_KINDS),
    ActionStep("6.1.2", "Settle what nobody can know", _plan_settling, _RELEASE_KINDS),
    ActionStep("6.2", "Bring back the service", _plan_repair, (SERVICE,)),
    ActionStep("6.3", "Clean up chaos objects", _plan_clean_up, (REMOVE,)),
    ActionStep("6.4", "Refresh the ticket's timeline", _plan_refresh, (SERVICE,)),
)


@step(
    "6.1",
    "What the planned release would change",
    name="what the plan would change",
    role=Role.EFFECT,
    unit="min of lag less",
    source="journal; listing of the bucket",
)
def read_plan_effect(inv: Investigation) -> model.Outcome:
    """Compute what the newest plan of 6.1 would change, from a listing. Only reads."""
    plan = _find_newest_plan(inv)
    if plan is None or plan.kind is not MOVE or plan.is_empty:
        return model.Outcome().ok("no release by move is planned: nothing to compare")
    effect = compare_plan(_list_real(inv, plan), plan)
    if not effect.moves:
        return model.Outcome().ok("nothing that was planned waits any more: nothing to compare")
    outcome = model.Outcome(
        value=effect.lag_decrease,
        rows=effect.rows,
        columns=list(effect.rows[0]),
        facts={"plan": plan.id},
    )
    left_out = say_left_out(plan.content.header.excluded)
    return outcome.ok("; ".join(text for text in (effect.words, left_out) if text))


def _find_newest_plan(inv: Investigation) -> Plan | None:
    """Return the newest plan of 6.1; None without one."""
    plans = inv.journal.list_actions(ActionPhase.PLANNED)
    ids = [action.plan for action in plans if action.step == "6.1"]
    return load_plan(inv.incident.find_plan(ids[-1]), _RELEASE_KINDS) if ids else None


@step(
    "6.1.2",
    "Labels that may or may not have shipped",
    name="labels to settle",
    role=Role.EFFECT,
    unit="labels",
    source="the bucket; $fulfillment_url (shipments)",
)
def read_to_settle(inv: Investigation) -> model.Outcome:
    """List the labels that a person must settle, with what is known of each order. Only reads."""
    plan_id = get_parameters(inv, Parameters).settle
    if not plan_id:
        return model.Outcome().ok("no release is named: set settle to its id")
    release = _load_release(inv, "6.1.2", plan_id)
    try:
        rows = GATE.list_to_settle(inv, release)
    except StoreError as error:
        return model.Outcome().unknown(f"could not be read: {error}")
    except RefusedError as error:
        # A release that was never begun has nothing to settle.
        return model.Outcome().ok(str(error))
    outcome = model.Outcome(value=len(rows), rows=rows, columns=TO_SETTLE)
    if not rows:
        return outcome.ok("nothing is open")
    return outcome.ok(f"{len(rows)} wait for your answer: taken, or not taken")


class PlanEffect(NamedTuple):
    """What a release would change.

    Attributes
    ----------
    rows : a table with the columns ``what``, ``now`` and ``after the plan``
    words : the numbers of objects in words
    waiting, moves : how many objects wait, and how many of them would move
    oldest_minutes : how long the oldest object waits now
    lag_decrease : by how many minutes the longest wait would shrink
    """

    rows: list[dict[str, Json]]
    words: str
    waiting: int
    moves: int
    oldest_minutes: float
    lag_decrease: float


#: The reasons for which a planner leaves out objects without looking at them.
_UNSEEN = frozenset({"no_match", "in_doubt"})


def describe_effect(inv: Investigation, plan: Plan) -> PlanEffect:
    """Say what a new plan would change, from the objects that the planner looked at.

    Objects that the planner did not look at wait, too: if there are any, the bucket is listed
    again. A plan that was cut into parts has too many objects to compare: only ``oldest_minutes``
    is known.
    """
    now = inv.now()
    oldest = plan.content.header.oldest
    if plan.content.header.parts and oldest is not None:
        return PlanEffect([], "", 0, 0, (now - oldest).total_seconds() / 60, 0.0)
    waits = {key: max(0.0, (now - at).total_seconds() / 60) for key, at in plan.observed}
    if not _UNSEEN.isdisjoint(plan.content.header.excluded):
        listed, _ = attempt(lambda: _list_real(inv, plan))
        waits = listed or waits
    return compare_plan(waits, plan)


def _list_real(inv: Investigation, plan: Plan) -> dict[str, float]:
    """Return for how many minutes each real object waits under the plan's source, by key."""
    waiting = read_waiting(inv, [plan.content.header.source])
    return {label.info.key: label.minutes for label in waiting.real}


def compare_plan(waits_minutes: Mapping[str, float], plan: Plan) -> PlanEffect:
    """Compare the backlog now and after the plan. Pure.

    Parameters
    ----------
    waits_minutes : for how many minutes each object waits, by key
    """
    planned = {row.key for row in plan.rows}
    staying = {key: minutes for key, minutes in waits_minutes.items() if key not in planned}
    longest = max(waits_minutes.values(), default=0.0)
    longest_staying = max(staying.values(), default=0.0)
    table = {
        "objects waiting": (len(waits_minutes), len(staying)),
        "oldest waits, minutes": (round(longest, 1), round(longest_staying, 1)),
    }
    return PlanEffect(
        rows=[{"what": what, "now": n, "after the plan": a} for what, (n, a) in table.items()],
        words=f"{len(waits_minutes):,} wait now, {len(staying):,} right after the plan",
        waiting=len(waits_minutes),
        moves=len(waits_minutes) - len(staying),
        oldest_minutes=longest,
        lag_decrease=round(longest - longest_staying, 1),
    )


@step(
    "6.5",
    "Lag under 5 in two samples after the action, backlog at its baseline",
    name="recovery",
    role=Role.RECOVERY,
    unit="min",
    source=f"$prometheus_url {LAG}; listing of $pending_prefix",
    threshold="the lag is not under $recovered_minutes min in $recovered_scrapes samples after the "
    "action, more waits than usual, or labels do not get in",
)
def read_recovery(inv: Investigation) -> model.Outcome:
    """Watch the lag until enough samples after the action are low, or the waiting time is over.

    A sample counts if the exporter refreshed it after the last action; without an action, after
    the opening of the incident. Where there is no exporter, a listing is a sample.
    """
    limit = inv.settings.recovered_minutes
    judged_from = find_judged_from(inv)
    lag, recovery = _watch_lag(inv)
    waiting = read_waiting(inv)
    comparison = compare_backlog(inv, waiting)
    uploads = read_uploads(inv)
    clear, _ = attempt(lambda: _predict_clear_time(inv, recovery.since or judged_from))
    applied_at = inv.journal.last_applied_at
    outcome = model.Outcome(
        value=recovery.value,
        plot=model.Plot(
            title="Lag, and the limit for recovery",
            unit="minutes",
            part="forecast",
            threshold=limit,
            lines=(draw_line("lag", lag.samples),),
            marks=((applied_at, "last action"),) if applied_at else (),
        ),
        clear=clear,
        # In the journal, this wait makes the reading a sample for ``judge_recovery``.
        longest_minutes=round(waiting.longest_minutes, 1) if lag.is_listed else None,
    )
    alerts, _ = attempt(inv.clients.prometheus.list_alerts)
    states = {} if alerts is None else find_alert_states(alerts)
    is_quiet = set(states.values()) == {model.AlertState.RESOLVED}
    is_well = comparison.backlog is Backlog.USUAL and recovery.status is Status.OK and is_quiet
    well_since = None
    if is_well and uploads not in (Uploads.FAILING, Uploads.NONE):
        found, _ = attempt(lambda: read_well_since(inv, lag))
        well_since = found or recovery.since
    outcome.measurements = measure(
        measure_recovery(is_low(recovery), comparison.backlog),
        uploads=uploads,
        backlog=comparison.backlog,
        well_since=well_since,
    )
    reason = f"{recovery.reason}; {comparison.words}"
    if uploads in (Uploads.FAILING, Uploads.NONE):
        return outcome.breach(f"no label gets into the store; {reason}")
    if comparison.backlog is not Backlog.USUAL:
        return outcome.breach(reason)
    return outcome.judge(recovery.status, reason)


def _watch_lag(inv: Investigation) -> tuple[Lag, model.Outcome]:
    """Judge the lag until it is low in enough samples, or the waiting time is over."""
    deadline = inv.now() + timedelta(seconds=_get_wait_s(inv))
    listings: list[Sample] = []
    while True:
        lag = read_lag(inv, lists_anew=True)
        if lag.is_listed:
            listings += lag.samples
            lag = lag._replace(samples=list(listings))
        recovery = judge_recovery(inv, lag)
        if recovery.status is Status.OK or inv.now() >= deadline:
            return lag, recovery
        inv.sleep(_LIST_EVERY_S if lag.is_listed else 1.0)


def _get_wait_s(inv: Investigation) -> float:
    """Return how long 6.5 waits for samples; 0 in a section without that parameter."""
    if isinstance(inv.parameters, Parameters):
        return inv.parameters.wait_s
    return 0.0


def _predict_clear_time(inv: Investigation, fixed_at: datetime) -> model.ClearTime | None:
    """Predict when the firing alerts clear; None when an interval is unknown.

    Parameters
    ----------
    fixed_at : when the lag got low; if it is not low yet, from when on samples count
    """
    prometheus = inv.clients.prometheus
    rules = _list_active_rules(inv)
    refresh = prometheus.query("fulfillment_exporter_refresh_interval_seconds")
    targets = [target for target in prometheus.list_targets() if target.job == EXPORTER]
    if not rules or not refresh or not targets:
        return None
    stages = Stages(
        refresh_s=refresh[0].samples[-1].value,
        scrape_s=targets[0].scrape_interval_s,
        evaluation_s=max(rule.group_interval_s for rule in rules),
        keep_firing_for_s=max(map(_find_keep_firing_s, rules)),
    )
    _, group_interval_s = inv.clients.alertmanager.read_group_timing()
    return compute_clear_time(fixed_at, stages, group_interval_s=group_interval_s)


def _list_active_rules(inv: Investigation) -> list[AlertRule]:
    """Return the rules of the alerts that fire or are pending; without any, FulfillmentDelay's."""
    prometheus = inv.clients.prometheus
    active = {alert.name for alert in prometheus.list_alerts() if not is_drill(alert.labels)}
    names = active.intersection(ALERTS) or {ALERT}
    rules = [rule for rule in prometheus.list_rules() if rule.name in names]
    return [rule for rule in rules if not is_drill(rule.labels)]


def _find_keep_firing_s(rule: AlertRule) -> float:
    """Return how long a rule's alert goes on firing after the symptom is gone, in seconds.

    That is ``keep_firing_for``, plus the window of a rule with ``increase``, which looks back.
    """
    keep_firing_s = rule.keep_firing_for_s
    window = re.search(r"\bincrease\([^\[]*\[([0-9a-z]+)\]", rule.query)
    if window:
        keep_firing_s += parse_duration(window[1])
    return keep_firing_s


STEPS = CAUSE_STEPS | by_id(read_unfinished, read_plan_effect, read_to_settle, read_recovery)


def conclude(inv: Investigation) -> model.Conclusion:
    """Say whether the incident is fixed, by the readings since the last action."""
    findings, advice = judge_causes(inv)
    verdict, summary = judge_now(inv, STEPS)
    recovery = list_current(inv, STEPS).get(get_step(read_recovery).id)
    if recovery is not None and recovery.status is not Status.OK:
        summary += f"; {recovery.step} {recovery.reason}"
    if advice.causes:
        summary += f"; {', '.join(advice.causes)}"
    clear = None
    if verdict is Verdict.FIXED_ALERT_DECAYING:
        clear = find_clear_time(inv.journal)
    return model.Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        clear=clear,
        advice=advice.words if verdict in IN_TROUBLE else (),
    )
