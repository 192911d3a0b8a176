"""The exception tree.

::

    MoveError
    ├── StoreError           the store could not be read or changed; says which request
    │   ├── AbsentError      the object does not exist
    │   └── DeniedError      wrong credentials, or no right
    ├── PlanError            a plan that cannot be made, read or used: malformed, altered, not found
    ├── RefusedError         a safety rule refuses; nothing was changed
    │   ├── NotApprovedError the approval is missing, or of something else
    │   │   └── NeedsApprovalError  names the command that approves what the plan does not hold
    │   ├── ExpiredError     the plan or the time for an undo is over
    │   ├── DriftError       a planned object changed before the beginning
    │   ├── LimitError       more than a plan may hold
    │   ├── HeldError        another session works in the bucket
    │   ├── MoversError      nobody can say that no one else moves
    │   └── NotReadyError    the store does not do what a move needs
    └── StoppedError         the session ended before its work; resume it

    KeyboardInterrupt
    └── InterruptedMoveError a person interrupted the session; says how far it came
"""

from __future__ import annotations


class MoveError(Exception):
    """Anything that this package raises on purpose; IPython shows its text, no traceback."""

    HEADING = "STOPPED."

    def _render_traceback_(self) -> list[str]:
        return ["", f"■ {self.HEADING}", "", str(self), ""]


class StoreError(MoveError):
    """A request failed. ``code`` is the store's word for it, or ours; empty when it has none."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AbsentError(StoreError):
    """The object does not exist."""


class DeniedError(StoreError):
    """Wrong credentials, or no right."""


class PlanError(MoveError):
    """A plan cannot be made, read or used; says what is wrong with it."""


class RefusedError(MoveError):
    """A safety rule refuses. Nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."


class NotApprovedError(RefusedError):
    """The approval is missing, or names something else."""


class NeedsApprovalError(NotApprovedError):
    """Something that the plan does not hold needs an approval of its own.

    Attributes
    ----------
    command : gives that approval
    """

    def __init__(self, reason: str, *, command: str) -> None:
        super().__init__(f"{reason} Approve it with: {command}")
        self.reason = reason
        self.command = command


class ExpiredError(RefusedError):
    """The plan is too old, or the time in which a move can be taken back is over."""


class DriftError(RefusedError):
    """A planned object changed or vanished before the beginning."""


class LimitError(RefusedError):
    """More objects than one plan may hold."""


class HeldError(RefusedError):
    """Another session works in the bucket; names it."""


class MoversError(RefusedError):
    """Someone else moves, or nothing shows that nobody does."""


class NotReadyError(RefusedError):
    """The store does not do what a move needs."""


class StoppedError(MoveError):
    """The session ended before its work was done. What it did stands in its ledger."""


class InterruptedMoveError(KeyboardInterrupt):
    """A person interrupted a session. What it did stands in its ledger.

    Attributes
    ----------
    moved, total : objects that are moved, of all planned ones
    way_on : the command that goes on
    is_held : whether others are still held for the plan
    """

    def __init__(self, *, moved: int, total: int, way_on: str, is_held: bool) -> None:
        super().__init__(f"Interrupted after {moved:,} of {total:,} objects. Go on with: {way_on}")
        self.moved = moved
        self.total = total
        self.way_on = way_on
        self.is_held = is_held
