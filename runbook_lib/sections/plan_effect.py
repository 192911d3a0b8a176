"""Step 6.1, before the gate: the backlog as it is, and as the planned release would leave it."""

from __future__ import annotations

from ..analysis.backlog import Backlog, Rate, compute_backlog, compute_plan_effect
from ..change.plan_file import ReleasePlan
from ..errors import ClientError
from ..investigation import Investigation
from ..model import ActionPhase, Json, Reading, Status
from .flow import read_rates
from .release import load_release
from .waiting import read_waiting

__all__ = ["read_plan_effect"]

_STEP = "6.1"


def read_plan_effect(inv: Investigation) -> Reading:
    """Compute what the newest plan of 6.1 would change, from a listing and the counters.

    Notes
    -----
    Only reads. What cannot be read is ``unknown`` in its row; without a listing the whole is.
    """
    plan = _find_plan(inv)
    if not isinstance(plan, ReleasePlan) or plan.is_empty:
        return inv.make_reading(
            _STEP,
            "what the plan would change",
            Status.OK,
            source="journal",
            reason="no release by move is planned: nothing to compare",
        )
    waiting = read_waiting(inv, [plan.header.source])
    real, planned = waiting.of("real"), {row.key for row in plan.iter_rows()}
    stay = [o for o in real if o.info.key not in planned]
    rates, missing = _read_rates(inv)
    backlog = compute_backlog(
        objects=len(real),
        oldest_minutes=waiting.lag_minutes("real"),
        arrival=rates["arrival"],
        drain=rates["drain"],
    )
    effect = compute_plan_effect(
        backlog,
        planned_objects=len(real) - len(stay),
        oldest_left_minutes=max((waiting.minutes(o) for o in stay), default=None),
    )
    before, after = effect.before, effect.after
    return inv.make_reading(
        _STEP,
        "what the plan would change",
        Status.OK,
        value=effect.oldest_gain_minutes and round(effect.oldest_gain_minutes, 1),
        unit="min of lag less",
        source=f"listing of {plan.header.source}; {inv.clients.prometheus.url} (counters)",
        reason=f"{len(real)} objects wait now, {len(stay)} after it; {after.outlook}: "
        f"{after.reason}{missing}",
        detail={
            "rows": [
                _row("objects waiting", before.objects, after.objects),
                _row("oldest waits, minutes", before.oldest_minutes, after.oldest_minutes),
                _row("arrive per minute", _say_rate(before.arrival), _say_rate(after.arrival)),
                _row("leave per minute", _say_rate(before.drain), _say_rate(after.drain)),
                _row("empty in", _say_time_to_empty(before), _say_time_to_empty(after)),
            ],
            "plan": plan.id,
            "columns": ["what", "now", "after the plan"],
            "shown": True,
        },
    )


def _find_plan(inv: Investigation) -> object:
    for entry in reversed(inv.incident.journal.read()):
        if entry.kind == "action":
            action = entry.data["action"]
            if action["step"] == _STEP and action["phase"] == ActionPhase.PLANNED:
                return load_release(inv, str(action["result"]["plan"]))
    return None


def _read_rates(inv: Investigation) -> tuple[dict[str, Rate | None], str]:
    try:
        return read_rates(inv), ""
    except ClientError as error:
        return {"arrival": None, "drain": None}, f"; the rates could not be read: {error}"


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
