"""The proven move out of the inbox, to where the standby consumer takes files."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from objectmove.bucket import Seen
from objectmove.errors import MoversError, RefusedError
from objectmove.move import apply_plan, resume_plan
from objectmove.plan import Timing, parse_plan
from objectmove.planning import Judgement, make_move_plan
from objectmove.proof import verify_plan
from objectmove.session import Clock
from runbook_lib.approvals import Plan
from runbook_lib.moves import MoveGate, Mover, WatchedOthers

from .look import Investigation, read_silence

_OTHERS = "the approval is your word that the consumer is stopped; its heartbeat is watched"


def _check_silent(inv: Investigation) -> None:
    """Refuse to move files under a consumer that works."""
    silence = read_silence(inv)
    if silence is not None and silence <= inv.settings.inbox_silent_minutes:
        raise MoversError("the consumer works: stop it before you move its files")


def _watch_consumer(inv: Investigation) -> WatchedOthers:
    check = partial(_check_silent, inv)
    return WatchedOthers(check=check, words=_OTHERS, way_back="start the consumer")


def _judge(files: Sequence[Seen]) -> list[Judgement]:
    """Every file may move."""
    return [Judgement(exclude="", age_start=seen.last_modified) for seen in files]


GATE = MoveGate(
    Mover(
        schema="objectmove/plan/",
        parse=parse_plan,
        apply=apply_plan,
        resume=resume_plan,
        verify=verify_plan,
        clock=Clock,
        refusals=(RefusedError,),
    ),
    step="1.3",
    hold=_watch_consumer,
    way_back="move the files back with an S3 client, while no consumer works",
)


def plan_move(inv: Investigation) -> Plan:
    """Plan the move of every file that waits."""
    now = inv.now()
    header = {
        "source": inv.settings.inbox_prefix,
        "to": inv.settings.inbox_retry_prefix,
        "step": "1.3",
        "made_by": inv.operator,
        "made_at": now,
        "expires_at": now + timedelta(minutes=15),
        "timing": Timing(),
        "limit_objects": 1000,
        "selection": {},
        "others": _OTHERS,
    }
    folder = inv.incident.folder / "plans"
    return GATE.admit(make_move_plan(inv.clients, header=header, folder=folder, judge=_judge))
