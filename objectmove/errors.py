"""The exception tree.

::

    MoveError
    ├── StoreError           the store could not be read or changed; says which request
    │   ├── AbsentError      the object, or the bucket, does not exist
    │   └── DeniedError      wrong credentials, or no right
    ├── PlanError            a plan that cannot be made, read or used: malformed, altered, not found
    ├── RefusedError         a safety rule refuses; nothing was changed
    │   ├── NotApprovedError the approval is missing or names something else, or the plan's state
    │   │   │                forbids the command
    │   │   └── NeedsApprovalError  names the command that approves what the plan does not hold
    │   ├── ExpiredError     the plan is too old, or the time for an undo is over
    │   ├── DriftError       planned objects changed since the plan was made
    │   ├── LimitError       more objects than a plan may hold
    │   ├── HeldError        another session works in the bucket
    │   ├── MoversError      someone else moves objects, or may be moving them
    │   └── NotReadyError    the store does not do what a move needs, or our rights do not suffice
    └── StoppedError         the session ended before its work was done; resume the plan

    KeyboardInterrupt
    └── InterruptedMoveError a person interrupted the session; says how far the plan came
"""

from __future__ import annotations


class MoveError(Exception):
    """Anything that this package raises on purpose. IPython shows the text without a traceback."""

    HEADING = "STOPPED."

    def _render_traceback_(self) -> list[str]:
        return ["", f"■ {self.HEADING}", "", str(self), ""]


class StoreError(MoveError):
    """A request failed.

    Attributes
    ----------
    code : the store's error code, or ``NotSent`` or ``NoAnswer``; empty when there is none
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AbsentError(StoreError):
    """The object does not exist, or the bucket."""


class DeniedError(StoreError):
    """Wrong credentials, or no right."""


class PlanError(MoveError):
    """A plan cannot be made, read or used; says what is wrong with it."""


class RefusedError(MoveError):
    """A safety rule refuses. Nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."


class NotApprovedError(RefusedError):
    """The approval is missing or names something else, or the plan's state forbids the command."""


class NeedsApprovalError(NotApprovedError):
    """Something that the plan does not hold needs an approval of its own.

    Attributes
    ----------
    reason : why another approval is needed
    command : gives that approval
    """

    def __init__(self, reason: str, *, command: str) -> None:
        super().__init__(f"{reason} Approve it with: {command}")
        self.reason = reason
        self.command = command


class ExpiredError(RefusedError):
    """The plan is too old, or the time in which a move can be taken back is over."""


class DriftError(RefusedError):
    """Planned objects changed or vanished since the plan was made."""


class LimitError(RefusedError):
    """More objects than one plan may hold."""


class HeldError(RefusedError):
    """Another session works in the bucket; the message says which."""


class MoversError(RefusedError):
    """Someone else moves objects, or may be moving them."""


class NotReadyError(RefusedError):
    """The store does not do what a move needs, or these credentials lack a right to do it."""


class StoppedError(MoveError):
    """The session ended before its work was done. The ledger says what it did."""


class InterruptedMoveError(KeyboardInterrupt):
    """A person interrupted a session. The ledger says what it did.

    Attributes
    ----------
    moved, total : how many objects are moved, of how many planned ones
    way_on : the command that goes on with the plan
    is_held : whether everyone else who moves objects is still held for the plan
    """

    def __init__(self, *, moved: int, total: int, way_on: str, is_held: bool) -> None:
        super().__init__(f"Interrupted after {moved:,} of {total:,} objects. Go on with: {way_on}")
        self.moved = moved
        self.total = total
        self.way_on = way_on
        self.is_held = is_held
