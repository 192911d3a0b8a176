"""Step 6.1, before the gate: the backlog as it is, and as the planned release would leave it."""

from __future__ import annotations

from runbook_lib.approvals import Plan, load_plan
from runbook_lib.model import Json, Outcome, Role
from runbook_lib.section import attempt, step

from ..analysis.causes import STANDSTILL
from ..analysis.drain_forecast import Drain, compute_drain
from ..analysis.samples import Rate
from ..change.release import MOVE
from ..change.service_actions import SERVICE
from ..investigation import Investigation
from .backlog_listing import read_waiting, say_waiting
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
    made = inv.journal.list_plans().items()
    ids = [plan_id for plan_id, action in made if action.step == read_plan_effect.id]
    plan = load_plan(inv.incident.find_plan(ids[-1]), (MOVE, SERVICE)) if ids else None
    if plan is None or plan.kind is not MOVE or plan.is_empty:
        return Outcome().ok("no release by move is planned: nothing to compare")
    rows, words, gain = _compare(inv, _list_real(inv, plan), plan)
    return Outcome(value=gain, rows=rows, columns=list(rows[0]), facts={"plan": plan.id}).ok(words)


def describe_effect(inv: Investigation, plan: Plan) -> tuple[list[dict[str, Json]], str, float]:
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


def _compare(
    inv: Investigation, waits: dict[str, float], plan: Plan
) -> tuple[list[dict[str, Json]], str, float]:
    """Return the backlog now and after the plan as rows and in words, and the lag taken off."""
    planned = {row.key for row in plan.rows}
    stays = {key: minutes for key, minutes in waits.items() if key not in planned}
    is_stopped = not STANDSTILL.isdisjoint(judge_causes(inv)[1].causes)
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
