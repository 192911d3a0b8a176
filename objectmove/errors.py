"""The exception tree.

::

    MoveError
    ├── StoreError           the store could not be read or changed; says which request
    ├── PlanError            a plan that cannot be made, read or used: malformed, altered, not found
    ├── RefusedError         a safety rule refuses, or the store can't do it; nothing was changed
    │   ├── NotApprovedError the approval is missing or names something else
    │   ├── NotNowError      the time, or what the bucket knows of a plan, forbids the command
    │   ├── DriftError       planned objects changed since the plan was made
    │   ├── LimitError       more objects than a plan may hold
    │   ├── HeldError        another run works in the bucket
    │   └── MoversError      someone else moves objects, or may be moving them
    └── StoppedError         the run ended before its work was done; resume the plan

    KeyboardInterrupt
    └── InterruptedMoveError a person interrupted the run; says how far the plan came

``way_on`` of an error is the command that leads on, without the program's name, such as
``resume rel-1``; empty when there is none.
"""

from __future__ import annotations

from dataclasses import dataclass


class MoveError(Exception):
    """Anything that this package raises on purpose. IPython shows the text without a traceback.

    Attributes
    ----------
    way_on : see above
    code : of a failed request: the store's error code, ``HTTP`` and the status if the answer has
        none, ``NotSent``, or ``NoAnswer``; empty when it is about no single answer
    needed : of a missing approval: the hash that would approve it
    EXIT_CODE : what the command ``objectmove`` returns to the shell
    """

    HEADING = "STOPPED."
    EXIT_CODE = 1

    def __init__(self, text: str, *, way_on: str = "", code: str = "", needed: str = "") -> None:
        super().__init__(text)
        self.way_on = way_on
        self.code = code
        self.needed = needed

    def _render_traceback_(self) -> list[str]:
        return ["", f"■ {self.HEADING}", "", str(self), ""]


class StoreError(MoveError):
    """A request failed; ``code`` says how."""

    EXIT_CODE = 4


class PlanError(MoveError):
    """A plan cannot be made, read or used; says what is wrong with it."""

    EXIT_CODE = 2


class RefusedError(MoveError):
    """A safety rule refuses, or the store can't do it. Nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."
    EXIT_CODE = 5


class NotApprovedError(RefusedError):
    """The approval is missing or names something else; ``needed`` would approve it."""


class NotNowError(RefusedError):
    """The time, or what the bucket knows or does not know of a plan, forbids the command."""


class DriftError(RefusedError):
    """Planned objects changed or vanished since the plan was made."""


class LimitError(RefusedError):
    """More objects than one plan may hold."""


class HeldError(RefusedError):
    """Another run works in the bucket; the message says which."""


class MoversError(RefusedError):
    """Someone else moves objects, or may be moving them."""


class StoppedError(MoveError):
    """The run ended before its work was done."""

    EXIT_CODE = 3


@dataclass(eq=False)
class InterruptedMoveError(KeyboardInterrupt):
    """A person interrupted a run.

    Attributes
    ----------
    moved : how many objects of the plan are moved
    is_held : whether the worker is still held
    """

    moved: int
    way_on: str
    is_held: bool

    def __str__(self) -> str:
        return f"interrupted after {self.moved} objects"
