"""Section 6's way back: undo a release by move, and settle labels that may have shipped.

You rarely need its notebook. The commands are ``undo`` and ``settle``.
"""

from objectmove.errors import RefusedError, StoreError
from runbook_lib.approvals import load_plan
from runbook_lib.frames import TEXT
from runbook_lib.model import Conclusion, Outcome
from runbook_lib.section import by_id, step

from ..change.release import GATE, MOVE, TO_SETTLE
from ..investigation import Investigation
from . import remediation
from .detection import read_backlog_objects
from .purpose import read_unfinished

NAME = "06b_way_back"
TITLE = "The way back"


class Parameters(remediation.Parameters):
    """What a person may choose on the way back."""

    release: str = ""
    """id of the release to undo or to settle"""


@step(
    "6.1.2",
    "Labels that may or may not have shipped",
    name="labels to settle",
    unit="labels",
    source="s3://$fulfillment_bucket; $fulfillment_url/fulfillment/shipments",
    columns=dict.fromkeys(TO_SETTLE, TEXT),
)
def read_to_settle(inv: Investigation) -> Outcome:
    """List the labels that a person must settle, with what is known of their orders."""
    plan_id = inv.parameters.release
    if not plan_id:
        return Outcome().ok("no release is named: set release, and run the cells from there again")
    try:
        rows = GATE.list_to_settle(inv, load_plan(inv.incident.find_plan(plan_id), (MOVE,)))
    except StoreError as error:
        return Outcome().unknown(f"could not be read: {error}")
    except RefusedError as error:
        # A release that hasn't begun has nothing to settle.
        return Outcome().ok(str(error))
    outcome = Outcome(value=len(rows), rows=rows)
    if not rows:
        return outcome.ok("nothing is open")
    return outcome.ok(f"{len(rows)} wait for your answer: taken, or not taken")


STEPS = by_id(read_unfinished, read_backlog_objects, read_to_settle)
ACTIONS = {step_id: remediation.ACTIONS[step_id] for step_id in ("6.1.1", "6.1.2")}


def conclude(inv: Investigation) -> Conclusion:
    """Say how the incident stands, by the readings since the last action."""
    return inv.conclude_symptoms(STEPS)
