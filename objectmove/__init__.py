"""A proven move over any S3 store: plan, move, proof, undo, settle. Knows nothing of labels."""

from .bucket import Bucket, S3Bucket, Seen, format_time, is_key_supported, parse_time
from .ledger import Logs
from .move import Hold, MoveResult, apply_plan, resume_plan
from .plan import MovePlan, PlanRow, Timing, load_plan
from .planning import Judge, Judgement, make_move_plan, make_settle_plan, make_undo_plan
from .proof import MoveProof, verify_plan
from .record import Record, list_records, read_recorded_plan
from .session import Clock, SystemClock

__all__ = [
    "Bucket",
    "Clock",
    "Hold",
    "Judge",
    "Judgement",
    "Logs",
    "MovePlan",
    "MoveProof",
    "MoveResult",
    "PlanRow",
    "Record",
    "S3Bucket",
    "Seen",
    "SystemClock",
    "Timing",
    "apply_plan",
    "format_time",
    "is_key_supported",
    "list_records",
    "load_plan",
    "make_move_plan",
    "make_settle_plan",
    "make_undo_plan",
    "parse_time",
    "read_recorded_plan",
    "resume_plan",
    "verify_plan",
]
