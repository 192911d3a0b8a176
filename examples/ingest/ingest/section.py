"""Section 1: its move, its conclusion, and the words of its report."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import Field

from objectmove.bucket import Seen
from objectmove.errors import MoversError
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
    get_batch_name,
    list_half_moved,
    read_half_moved,
    read_heartbeat,
    read_silence,
)


def _check_stopped(inv: Investigation) -> None:
    """Refuse to move files while the job runs, because it may move the same ones."""
    silence = read_silence(inv)
    if silence is not None and silence <= inv.settings.ingest_silent_minutes:
        raise MoversError("the ingestion job runs: stop it before you finish its batches")


class IngestGate(MoveGate):
    """Lets the rest of a batch through the gate, while the job is stopped."""

    noun = "file"

    def make_hold(self, inv: Investigation) -> WatchedWorker:
        """Return the check that the job is stopped. It runs before and during a move."""
        return WatchedWorker(
            check=partial(_check_stopped, inv),
            words="your approval confirms that the job is stopped; its heartbeat is watched",
            way_back="start the job",
        )


GATE = IngestGate(step="1.3")


@step(
    "1.4",
    "No move is unfinished",
    name="unfinished moves",
    role=Role.UNFINISHED,
    source="$ingest_endpoint/$ingest_bucket/.runbook/state.json",
)
def read_unfinished(inv: Investigation) -> Outcome:
    """List moves that were cut off, and how to resume them. One is a breach."""
    return GATE.read_unfinished(inv)


def plan_move(inv: Investigation) -> Plan:
    """Plan to move what is left of half moved batches, without those that aren't complete."""
    settings = inv.settings
    is_complete = {batch.name: batch.is_complete for batch in list_half_moved(inv)}

    def judge(files: Sequence[Seen]) -> list[Judgement]:
        judgements = []
        for file in files:
            name = get_batch_name(file.key, settings.ingest_landing_prefix)
            reason = ""
            if name not in is_complete:
                reason = "not_half_moved"
            elif not is_complete[name]:
                reason = "not_complete"
            judgements.append(Judgement(reason, file.last_modified, {"batch": name}))
        return judgements

    header = {"source": settings.ingest_landing_prefix, "to": settings.ingest_archive_prefix}
    return GATE.plan_move(inv, header=header, judge=judge)


NAME = "01_ingest"
TITLE = "Half moved batches"
STEPS = by_id(read_half_moved, read_heartbeat, read_unfinished)
ACTIONS = GATE.make_actions("Finish the batches", plan_move)


class Parameters(MoveParameters):
    """Parameters of the notebook."""

    move: bool = Field(False, description="whether to plan the move of 1.3")


def conclude(inv: Investigation) -> Conclusion:
    """Say what is wrong, why, and what to do."""
    stuck = inv.latest()["1.1"]
    heartbeat = inv.latest()["1.2"]
    statuses = {Status.BREACH: CauseStatus.SUPPORTED, Status.OK: CauseStatus.REFUTED}
    stopped = Finding(
        name="job_stopped",
        words="an ingestion job that stopped halfway",
        status=statuses.get(heartbeat.status, CauseStatus.UNDECIDED),
        evidence=("1.2",),
        reason=heartbeat.reason,
    )
    advice = []
    if stuck.status is Status.BREACH:
        advice.append("Finish the batches that are complete: runbook plan")
    if heartbeat.status is Status.BREACH:
        advice.append("Start the job. Then investigate again.")
    return Conclusion(
        verdict=inv.policy.judge(inv.journal).verdict or Verdict.UNKNOWN,
        summary=f"{stuck.reason}; {heartbeat.reason}",
        findings=(stopped,),
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
    request="batch",
    actions={"move": "moved {objects} to the archive", "undo": "moved {objects} back"},
)


class Commands(MoveCommands):
    """The commands of the move."""

    sections = SECTIONS
    section = NAME
    gate = GATE
