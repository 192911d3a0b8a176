"""Section 6: release, repair, clean up, and prove that it helped. Every change is planned first.

6.1 re-triggers the worker or releases by move, as section 5 advises. 6.5 checks that lag and
backlog came down after the action. 6.1.1 and 6.1.2 are in ``way_back``.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from pydantic import Field

from objectmove.errors import RefusedError, StoreError
from runbook_lib import model
from runbook_lib.approvals import Plan, make_empty_plan
from runbook_lib.errors import ClientError, SafetyError
from runbook_lib.frames import NUMBER, TIME
from runbook_lib.model import CauseStatus, Status
from runbook_lib.policy import IN_TROUBLE
from runbook_lib.section import (
    ActionStep,
    attempt,
    by_id,
    rows_of,
    split_list,
    step,
)

from ..analysis.causes import Advice
from ..change.exercises import get_drill_id, list_drill_orders
from ..change.release import GATE, ReleaseParameters, make_release_plan
from ..change.service_actions import SERVICE, SERVICE_ACTIONS, plan_service
from ..change.synthetic import REMOVE, plan_revert
from ..investigation import Investigation
from ..quantities import DELAY_ALERT, Quantity, measure
from ..waiting import read_waiting
from .detection import LISTING
from .purpose import read_unfinished
from .root_cause import STEPS as CAUSE_STEPS
from .root_cause import judge_causes, record_diagnosis
from .signals import (
    ALERTS,
    LAG,
    compare_backlog,
    draw_line,
    find_judged_from,
    find_well_since,
    is_drill,
    judge_recovery,
    measure_alerts,
    read_lag,
)

NAME = "06_remediation"
TITLE = "Remediation"
_REPAIRS = [name for name, action in SERVICE_ACTIONS.items() if action.is_repair]


class Parameters(ReleaseParameters):
    """What a person may choose in section 6."""

    service_action: str = Field("auto", pattern=f"^({'|'.join(['auto', 'none', *_REPAIRS])})$")
    """6.2: auto takes the action that section 5 advises"""
    service: str = ""
    """6.2: the service to repair; leave it empty for the worker"""
    drill_id: str = ""
    """6.3: clean up only this drill's objects; leave it empty for every drill's"""
    wait_s: float = Field(30, ge=0, le=900)
    """6.5: longest wait for samples, in seconds"""


#: A plan reads again what is older than this.
_MAX_AGE_S = 90.0
#: The time between two listings of 6.5.
_APART_S = 5.0


def _refresh_advice(inv: Investigation) -> Advice:
    """Read section 5's steps again where too old for a plan, and return its advice.

    If other causes are supported than in the journal's diagnosis, journal the new diagnosis.
    """
    for step_id in CAUSE_STEPS:
        inv.read_step(step_id, max_age_s=_MAX_AGE_S)
    _, advice = judge_causes(inv)
    journaled = {
        f.name for f in inv.journal.diagnosis.findings if f.status is CauseStatus.SUPPORTED
    }
    if journaled != set(advice.causes):
        record_diagnosis(inv)
    return advice


def _plan_release(inv: Investigation) -> Plan:
    """Plan 6.1: a release by move, a re-trigger, or nothing. With ``auto``, section 5 decides."""
    parameters: Parameters = inv.parameters
    way: str = parameters.way
    reason = f"chosen: way={way}"
    if way == "auto":
        advice = _refresh_advice(inv)
        way = advice.strategy
        reason = advice.why
    if way == "release":
        return make_release_plan(inv, reason=reason, only_orders=_get_orders(inv))
    target = inv.settings.worker_service
    if way == "none":
        target = parameters.prefix or inv.settings.pending_prefix
    return plan_service(inv, step="6.1", action=way, target=target, reason=reason)


def _get_orders(inv: Investigation) -> frozenset[str] | None:
    """Return the orders whose labels may move, or None for all. A drill moves only its own."""
    named = frozenset(split_list(inv.parameters.only_orders))
    if get_drill_id(inv.incident):
        own = frozenset(map(str, list_drill_orders(inv.journal)))
        return own & named if named else own
    return named or None


def _plan_repair(inv: Investigation) -> Plan:
    """Plan 6.2: a service action, or none. With ``auto``, section 5 decides."""
    parameters: Parameters = inv.parameters
    action = parameters.service_action
    target = parameters.service or inv.settings.worker_service
    reason = f"chosen: service_action={action}"
    if action == "auto":
        advice = _refresh_advice(inv)
        action = advice.action
        target = advice.target
        reason = advice.reason
    elif action == "unpause":
        target = inv.settings.pipeline_dag_id
    return plan_service(inv, step="6.2", action=action, target=target, reason=reason)


def _plan_refresh(inv: Investigation) -> Plan:
    if not inv.ticket_id:
        return make_empty_plan(step="6.4", target="ticket", reason="no ticket given")
    reason = "so that support sees what changed"
    return plan_service(inv, step="6.4", action="refresh", target=inv.ticket_id, reason=reason)


def _plan_clean_up(inv: Investigation) -> Plan:
    return plan_revert(inv, "6.3", drill_id=inv.parameters.drill_id)


def _try_plan(
    step_id: str,
    target: str,
    plan: Callable[[Investigation], Plan],
    inv: Investigation,
) -> Plan:
    """Make a plan; if that fails, an empty one that says why, so that other steps can plan."""
    try:
        return plan(inv)
    except (StoreError, ClientError, SafetyError, RefusedError) as error:
        reason = f"{target} cannot be planned: {error}"
        return make_empty_plan(step=step_id, target=target, reason=reason)


def put_in_order(release: Plan, repair: Plan) -> tuple[Plan, Plan]:
    """Return the plans in order. A re-trigger comes last, because it needs the repaired worker."""
    if release.action == "retrigger":
        return repair, release
    return release, repair


ACTIONS = GATE.make_actions(
    "Release the waiting labels", partial(_try_plan, "6.1", "the release", _plan_release), SERVICE
) | by_id(
    ActionStep(
        "6.2",
        "Repair the service",
        partial(_try_plan, "6.2", "the repair", _plan_repair),
        (SERVICE,),
    ),
    ActionStep(
        "6.3",
        "Clean up chaos objects",
        partial(_try_plan, "6.3", "the clean-up", _plan_clean_up),
        (REMOVE,),
    ),
    ActionStep(
        "6.4",
        "Refresh the ticket's timeline",
        partial(_try_plan, "6.4", "the refresh", _plan_refresh),
        (SERVICE,),
    ),
)


@step(
    "6.5",
    "Lag under 5 min in two samples after the action, backlog at its baseline",
    name="recovery",
    unit="min",
    source=f"{LAG}; {LISTING}",
    columns={"at": TIME, "lag_minutes": NUMBER},
    threshold="the lag is not under $recovered_minutes min in $recovered_scrapes samples after the "
    "action, more waits than usual, or no label arrives",
)
def read_recovery(inv: Investigation) -> model.Outcome:
    """Watch lag and backlog until they are low enough, or ``wait_s`` is over.

    A sample of the lag counts if the exporter refreshed after the last action; if there was none,
    after the incident's opening. Without an exporter, the backlog alone decides.
    """
    judged_from = find_judged_from(inv)
    # Sections without this parameter don't wait.
    wait_s = inv.parameters.wait_s if isinstance(inv.parameters, Parameters) else 0.0
    deadline = inv.now() + timedelta(seconds=wait_s)
    while True:
        lag = read_lag(inv)
        recovery = judge_recovery(inv, lag)
        waiting = read_waiting(inv)
        backlog = compare_backlog(inv, waiting)
        # It's unknown with an overdue label, which is more than usual, too.
        is_usual = backlog is Status.OK
        is_well = is_usual and recovery.status in (Status.OK, Status.LEFT_OUT)
        if is_well or inv.now() >= deadline:
            break
        inv.sleep(_APART_S)
    clears_by, _ = attempt(lambda: _predict_clear_time(inv, recovery.since or judged_from))
    alerts, _ = attempt(inv.clients.prometheus.list_alerts)
    applied_at = inv.journal.last_applied_at
    outcome = model.Outcome(
        value=recovery.value,
        link=inv.link_to("query", LAG),
        rows=rows_of(reversed(lag.samples), "at", lag_minutes="value"),
        plot=model.Plot(
            title="Lag, and the limit for recovery",
            unit="minutes",
            threshold=inv.settings.recovered_minutes,
            lines=(draw_line("lag", lag.samples),),
            annotations=((applied_at, "last action"),) if applied_at else (),
        ),
        clears_by=clears_by,
    )
    measured_alerts = [] if alerts is None else measure_alerts(alerts)
    uploads, well_since = find_well_since(inv, lag, recovery, measured_alerts)
    statuses = {
        Quantity.LOW_LAG: recovery.status,
        Quantity.BACKLOG: Status.BREACH if waiting.overdue else Status.OK,
        Quantity.USUAL_BACKLOG: backlog,
    }
    if recovery.status is Status.OK:
        statuses[Quantity.LAG] = Status.OK
    outcome.measurements = measure(
        statuses, *measured_alerts, uploads, well_since=well_since if is_usual else None
    )
    reason = f"{recovery.reason}; {waiting.describe()}"
    if not is_usual:
        return outcome.breach(f"{reason}: more than usual")
    if uploads.status is Status.BREACH:
        return outcome.breach(f"no label gets into the store; {reason}")
    return outcome.judge(Status.OK if is_well else recovery.status, reason)


def _predict_clear_time(inv: Investigation, fixed_at: datetime) -> datetime | None:
    """Predict by when the active alerts clear; None without a rule.

    ``fixed_at`` is when the lag got low, else the time of the last action.
    """
    prometheus = inv.clients.prometheus
    # Without an active alert, FulfillmentDelay's rule counts.
    active = {alert.name for alert in prometheus.list_alerts() if not is_drill(alert.labels)}
    names = active.intersection(ALERTS) or {DELAY_ALERT}
    delays_s = [
        rule.clear_s
        for rule in prometheus.list_rules()
        if rule.name in names and not is_drill(rule.labels)
    ]
    if not delays_s:
        return None
    return fixed_at + timedelta(seconds=max(delays_s))


STEPS = CAUSE_STEPS | by_id(read_unfinished, read_recovery)


def conclude(inv: Investigation) -> model.Conclusion:
    """Say whether the incident is fixed, by the readings since the last action."""
    findings, advice = judge_causes(inv)
    verdict, summary = inv.judge_now(STEPS)
    return model.Conclusion(
        verdict=verdict,
        summary="; ".join([summary, *advice.causes]),
        findings=findings,
        advice=advice.words if verdict in IN_TROUBLE else (),
    )
