"""The functions of this package that a gate for changes calls, in one module.

Hand this module to a gate, such as ``runbook_lib.moves.MoveGate``. The gate's protocol ``Mover``
names these functions.
"""

from __future__ import annotations

from .errors import NeedsApprovalError, RefusedError
from .manifest import Manifest, fetch_plan, find_approval, parse_plan_file
from .memory import list_unfinished, read_begun
from .plan import MovePlan
from .planning import make_move_plan
from .result import find_ways_on
from .session import Clock
from .settling import find_holder, list_open_rows, make_settle_plan
from .shards import apply_plan, make_undo_plan, resume_plan, verify_plan, was_cut_off

__all__ = [
    "NEEDS_APPROVAL",
    "REFUSALS",
    "SCHEMA",
    "AnyPlan",
    "apply_plan",
    "fetch_plan",
    "find_approval",
    "find_holder",
    "find_ways_on",
    "list_open_rows",
    "list_unfinished",
    "make_clock",
    "make_move_plan",
    "make_settle_plan",
    "make_undo_plan",
    "parse_plan",
    "read_begun",
    "resume_plan",
    "verify_plan",
    "was_cut_off",
]

#: The first line of each plan names a schema that begins with this; ``parse_plan`` checks which.
SCHEMA = "objectmove/plan/"

#: Errors after which nothing was changed.
REFUSALS = (RefusedError,)

#: The one of ``REFUSALS`` that asks for an approval of something that the plan does not hold.
NEEDS_APPROVAL = NeedsApprovalError

#: A plan of objects, or a manifest, which names many plans.
AnyPlan = MovePlan | Manifest

#: The protocol ``Mover`` has its own names for these two functions.
make_clock = Clock
parse_plan = parse_plan_file
