"""Section 1: its move, its conclusion, and the words of its report."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from objectmove.bucket import Seen
from objectmove.planning import Judgement
from runbook_lib.approvals import Plan
from runbook_lib.model import (
    CauseStatus,
    Conclusion,
    Finding,
    Outcome,
    Role,
    Status,
    Verdict,
)
from runbook_lib.moving import MoveGate, MoveParameters, WatchedWorker
from runbook_lib.policy import Policy
from runbook_lib.run.move_commands import MoveCommands
from runbook_lib.section import Sections, by_id, step

from .look import (
    Investigation,
    find_reason_to_stay,
    read_left_over,
    read_processed,
    read_room,
    read_time_until_full,
)


class LandingGate(MoveGate):
    """Lets moves out of the landing zone through the gate."""

    noun = "file"

    def make_hold(self, inv: Investigation) -> WatchedWorker:  # noqa: ARG002
        """Return what an approval confirms. Nothing can be watched: processed files wait for us."""
        return WatchedWorker(
            check=lambda: None,
            words="your approval confirms that nothing else moves or deletes processed files",
            way_back="start again what moves or deletes processed files",
        )


GATE = LandingGate(step="1.4")


@step(
    "1.5",
    "No move is unfinished",
    name="unfinished moves",
    role=Role.UNFINISHED,
    source="$landing_endpoint/$landing_bucket/.runbook/state.json",
)
def read_unfinished(inv: Investigation) -> Outcome:
    """List moves that were cut off, and how to resume them. One is a breach."""
    return GATE.read_unfinished(inv)


def plan_move(inv: Investigation) -> Plan:
    """Plan to move the files that are processed and old enough."""
    processed = read_processed(inv)

    def judge(files: Sequence[Seen]) -> list[Judgement]:
        return [
            Judgement(find_reason_to_stay(inv, file, processed), file.last_modified)
            for file in files
        ]

    header = {"source": inv.settings.landing_prefix, "to": inv.settings.landing_cold_prefix}
    return GATE.plan_move(inv, header=header, judge=judge)


NAME = "01_landing"
TITLE = "The landing zone"
STEPS = by_id(read_room, read_time_until_full, read_left_over, read_unfinished)
ACTIONS = GATE.make_actions("Move processed files away", plan_move)


class Parameters(MoveParameters):
    """Parameters of the notebook."""

    move: bool = Field(False, description="whether to plan the move of 1.4")


def conclude(inv: Investigation) -> Conclusion:
    """Say what is wrong, why, and what to do."""
    room = inv.latest()["1.1"]
    time_left = inv.latest()["1.2"]
    left_over = inv.latest()["1.3"]
    statuses = {Status.BREACH: CauseStatus.SUPPORTED, Status.OK: CauseStatus.REFUTED}
    not_cleaned = Finding(
        name="not_cleaned",
        words="processed files that nobody takes out of the landing zone",
        status=statuses.get(left_over.status, CauseStatus.UNDECIDED),
        evidence=("1.3",),
        reason=left_over.reason,
    )
    advice = []
    if left_over.status is Status.BREACH:
        advice.append("Move processed files away: runbook plan")
    elif Status.BREACH in (room.status, time_left.status):
        advice.append("Nothing may leave yet: raise the quota, or slow the producers down.")
    return Conclusion(
        verdict=inv.policy.judge(inv.journal).verdict or Verdict.UNKNOWN,
        summary=f"{room.reason}; {time_left.reason}",
        findings=(not_cleaned,),
        advice=tuple(advice),
    )


SECTIONS = Sections(
    [sys.modules[__name__]],
    notebooks=Path(__file__).with_name("notebooks"),
    read_only=(NAME,),
    investigation=Investigation,
)
POLICY = Policy(
    quantities=SECTIONS.list_quantities(),
    noun="file",
    request="file",
    actions={"move": "moved {objects} out of the landing zone", "undo": "moved {objects} back"},
)


class Commands(MoveCommands):
    """The commands of the move."""

    sections = SECTIONS
    section = NAME
    gate = GATE
