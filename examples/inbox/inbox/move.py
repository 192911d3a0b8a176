"""The proven move out of the inbox, to where the standby consumer takes files."""

from functools import partial

from objectmove.errors import MoversError
from runbook_lib.approvals import Plan
from runbook_lib.model import Outcome, Role
from runbook_lib.moving import MoveGate, WatchedWorker
from runbook_lib.section import step

from .look import Investigation, read_silence

_OTHERS = "your approval confirms that the consumer is stopped; its heartbeat is watched"


def _check_silent(inv: Investigation) -> None:
    """Refuse to move files while the consumer works."""
    silence = read_silence(inv)
    if silence is not None and silence <= inv.settings.inbox_silent_minutes:
        raise MoversError("the consumer works: stop it before you move its files")


class InboxGate(MoveGate):
    """Lets moves out of the inbox through the gate, while the consumer is silent."""

    noun = "file"

    def make_hold(self, inv: Investigation) -> WatchedWorker:
        """Return the check that the consumer is silent. It runs before and during a move."""
        return WatchedWorker(
            check=partial(_check_silent, inv),
            words=_OTHERS,
            way_back="start the consumer",
        )


GATE = InboxGate(step="1.3")


@step(
    "1.4",
    "No move is unfinished",
    name="unfinished moves",
    role=Role.UNFINISHED,
    source="$inbox_endpoint/$inbox_bucket/.runbook/state.json",
)
def read_unfinished(inv: Investigation) -> Outcome:
    """List moves that were cut off, and how to resume them. One is a breach."""
    return GATE.read_unfinished(inv)


def plan_move(inv: Investigation) -> Plan:
    """Plan the move of every file that waits."""
    header = {"source": inv.settings.inbox_prefix, "to": inv.settings.inbox_retry_prefix}
    return GATE.plan_move(inv, header=header)
