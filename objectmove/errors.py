"""The exception tree.

::

    MoveError
    ├── StoreError
    ├── PlanError
    ├── RefusedError
    │   ├── NotApprovedError
    │   ├── NotNowError
    │   ├── DriftError
    │   ├── LimitError
    │   ├── BusyError
    │   └── MoversError
    └── StoppedError

    KeyboardInterrupt
    └── InterruptedMoveError
"""

from dataclasses import KW_ONLY, InitVar, dataclass


@dataclass(eq=False, repr=False)
class MoveError(Exception):
    """The base of this package's errors. IPython shows the text without a traceback.

    ``way_on`` is the next command, without the program's name. ``code`` is the store's, or else
    ``HTTP`` and the status, ``NotSent`` or ``NoAnswer``. ``needed`` is the hash that would approve.
    """

    HEADING = "STOPPED."
    EXIT_CODE = 1

    text: InitVar[str]
    _: KW_ONLY
    way_on: str = ""
    code: str = ""
    needed: str = ""

    def _render_traceback_(self) -> list[str]:
        return ["", f"■ {self.HEADING}", "", str(self), ""]


class StoreError(MoveError):
    """A request failed; ``code`` says how."""

    EXIT_CODE = 4


class PlanError(MoveError):
    """A plan cannot be made, found, read or used."""

    EXIT_CODE = 2


class RefusedError(MoveError):
    """A safety rule refuses, or the store can't do it. Nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."
    EXIT_CODE = 5


class NotApprovedError(RefusedError):
    """The approval is missing or wrong; ``needed`` is the right one."""


class NotNowError(RefusedError):
    """The time, or the state in the bucket, forbids the command for now."""


class DriftError(RefusedError):
    """Planned objects changed or vanished since the plan was made."""


class LimitError(RefusedError):
    """More objects than one plan may hold."""


class BusyError(RefusedError):
    """Another run works in the bucket; the message says which."""


class MoversError(RefusedError):
    """Someone else moves objects, or may be moving them."""


class StoppedError(MoveError):
    """The run ended before its work was done: resume the plan."""

    EXIT_CODE = 3


@dataclass(eq=False)
class InterruptedMoveError(KeyboardInterrupt):
    """A person interrupted a run after ``moved`` objects."""

    moved: int
    way_on: str

    def __str__(self) -> str:
        return f"interrupted after {self.moved} objects"
