"""Section 1: its steps, its action, its conclusion, and the words of its report."""

import sys
from pathlib import Path

from pydantic import Field

from runbook_lib.model import CauseStatus, Conclusion, Finding, Status, Verdict
from runbook_lib.moving import MoveParameters
from runbook_lib.policy import Policy
from runbook_lib.run.move_commands import MoveCommands
from runbook_lib.section import Sections, by_id

from .look import Investigation, read_heartbeat, read_waiting
from .move import GATE, plan_move, read_unfinished

NAME = "01_inbox"
TITLE = "The inbox"
STEPS = by_id(read_waiting, read_heartbeat, read_unfinished)
ACTIONS = GATE.make_actions("Give the files to the standby", plan_move)


class Parameters(MoveParameters):
    """Parameters of the notebook."""

    move: bool = Field(False, description="whether to plan the move of 1.3")


def conclude(inv: Investigation) -> Conclusion:
    """Say what is wrong, why, and what to do."""
    waiting = inv.latest()["1.1"]
    heartbeat = inv.latest()["1.2"]
    statuses = {Status.BREACH: CauseStatus.SUPPORTED, Status.OK: CauseStatus.REFUTED}
    silent = Finding(
        name="consumer_silent",
        words="a consumer that has stopped",
        status=statuses.get(heartbeat.status, CauseStatus.UNDECIDED),
        evidence=("1.2",),
        reason=heartbeat.reason,
    )
    advice = []
    if waiting.status is Status.BREACH:
        advice.append("Give the files to the standby consumer: runbook plan")
    if heartbeat.status is Status.BREACH:
        advice.append("Start the consumer. Then investigate again.")
    return Conclusion(
        verdict=inv.policy.judge(inv.journal).verdict or Verdict.UNKNOWN,
        summary=f"{waiting.reason}; {heartbeat.reason}",
        findings=(silent,),
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
    actions={"move": "moved {objects} to the standby consumer", "undo": "moved {objects} back"},
)


class Commands(MoveCommands):
    """The commands of the move."""

    sections = SECTIONS
    section = NAME
    gate = GATE
