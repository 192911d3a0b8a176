"""Step 6.1, before the gate: the backlog as it is, and as the planned release would leave it."""

from __future__ import annotations

from runbook_lib.approvals import Plan, load_plan
from runbook_lib.model import Json, Role
from runbook_lib.section import Outcome, attempt, ok, step
from runbook_lib.show.text import count_of

from ..analysis.causes import STANDSTILL
from ..analysis.drain_forecast import Backlog, Rate, compute_backlog, compute_plan_effect
from ..change.release import MOVE
from ..change.service_actions import SERVICE
from ..investigation import Investigation
from .backlog_listing import read_waiting
from .root_cause import judge_causes
from .root_cause.worker_metrics import read_rates


@step(
    "6.1", "What the planned release would change", name="what the plan would change",
    role=Role.EFFECT, unit="min of lag less",
    source="journal; listing of the bucket; $prometheus_url (counters)",
)  # fmt: skip
def read_plan_effect(inv: Investigation) -> Outcome:
    """Compute what the newest plan of 6.1 would change, from a listing and the counters.

    Notes
    -----
    Only reads. What cannot be read is ``unknown`` in its row; without a listing the whole is.
    """
    plan = _find_plan(inv)
    if plan is None or plan.kind is not MOVE or plan.is_empty:
        return ok("no release by move is planned: nothing to compare")
    rows, words, gain = _compare(inv, _list_real(inv, plan), plan)
    return ok(
        words,
        value=gain and round(gain, 1),
        rows=rows,
        columns=("what", "now", "after the plan"),
        facts={"plan": plan.id},
    )


def describe_effect(inv: Investigation, plan: Plan) -> tuple[list[dict[str, Json]], str, float]:
    """Say the same of a plan that was just made, from what it looked at.

    Only what it left out by its name is listed anew: that waits, too.

    Returns
    -------
    Rows of ``what``, ``now`` and ``after the plan``; the same in words; and for how many minutes
    the oldest waits now.
    """
    now = inv.now()
    real = [(key, max(0.0, (now - at).total_seconds() / 60)) for key, at in plan.content.observed]
    if plan.content.move.header.excluded.get("no_match"):
        real = attempt(lambda: _list_real(inv, plan))[0] or real
    return *_compare(inv, real, plan)[:2], max((minutes for _, minutes in real), default=0.0)


def _list_real(inv: Investigation, plan: Plan) -> list[tuple[str, float]]:
    """List the real objects that wait where a plan takes from, and for how many minutes."""
    waiting = read_waiting(inv, [plan.content.move.header.source])
    return [(o.info.key, waiting.minutes(o)) for o in waiting.of("real")]


def _compare(
    inv: Investigation, real: list[tuple[str, float]], plan: Plan
) -> tuple[list[dict[str, Json]], str, float | None]:
    """Return the backlog now and after the plan as rows and in words, and the lag taken off."""
    planned = {row.key for row in plan.rows}
    stay = [minutes for key, minutes in real if key not in planned]
    is_stopped = not STANDSTILL.isdisjoint(judge_causes(inv)[1].causes)
    rates, error = attempt(lambda: read_rates(inv, is_stopped=is_stopped))
    before = compute_backlog(
        objects=len(real),
        oldest_minutes=max((minutes for _, minutes in real), default=0.0),
        arrival=rates["arrival"] if rates else None,
        drain=rates["drain"] if rates else None,
    )
    after, gain = compute_plan_effect(
        before, planned_objects=len(real) - len(stay), oldest_left_minutes=max(stay, default=None)
    )
    rows = [
        _row("objects waiting", before.objects, after.objects),
        _row("oldest waits, minutes", before.oldest_minutes, after.oldest_minutes),
        _row("arrive per minute", _say_rate(before.arrival), _say_rate(after.arrival)),
        _row("leave per minute", _say_rate(before.drain), _say_rate(after.drain)),
        _row("empty in", _say_time_to_empty(before), _say_time_to_empty(after)),
    ]
    missing = f"; the rates could not be read: {error}" if error else ""
    wait = f"{count_of(len(real), 'object')} wait{'s' * (len(real) == 1)}"
    words = f"{wait} now, {len(stay)} after it; {after.outlook}: "
    return rows, f"{words}{after.reason}{missing}", gain


def _find_plan(inv: Investigation) -> Plan | None:
    plans = [
        p for p, action in inv.journal.list_plans().items() if action.step == read_plan_effect.id
    ]
    if not plans:
        return None
    return load_plan(inv.incident.find_plan(plans[-1]), (MOVE, SERVICE))


def _row(name: str, before: Json, after: Json) -> dict[str, Json]:
    return {"what": name, "now": _say(before), "after the plan": _say(after)}


def _say(value: Json) -> Json:
    if value is None:
        return "unknown"
    return round(value, 1) if isinstance(value, float) else value


def _say_rate(rate: Rate | None) -> str:
    return "unknown" if rate is None else f"{rate.per_minute:.1f} ({rate.low:.1f}–{rate.high:.1f})"


def _say_time_to_empty(backlog: Backlog) -> str:
    """Say when the backlog is empty at the present rates, with the bounds."""
    if backlog.outlook != "draining" or backlog.minutes_to_empty is None:
        return {"empty": "empty", "never": "never"}.get(backlog.outlook, "unknown")
    high = "never" if backlog.high_minutes is None else f"{backlog.high_minutes:.1f}"
    return f"{backlog.minutes_to_empty:.1f} min ({backlog.low_minutes:.1f}–{high})"
