"""What the folds read of a journal: readings of quantities, and changes by plans.

Each entry is frozen. ``folds`` computes everything else from the list of entries. No code reads a
text: a message is the id of a template with its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..model import ActionPhase, Json, Status, Timestamp


class Part(StrEnum):
    """What a quantity means for the verdict."""

    SYMPTOM = "symptom"
    ALERT = "alert"
    CAUSE = "cause"
    RECOVERY = "recovery"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Quantities:
    """The quantities that a runbook measures.

    Attributes
    ----------
    parts : the part of each quantity, by name
    needed : the quantities without which no verdict says that all is well
    remedies : the steps whose actions are meant to end the trouble
    """

    parts: Mapping[str, Part]
    needed: frozenset[str]
    remedies: frozenset[str] = frozenset()

    def get_part(self, quantity: str) -> Part:
        """Return a quantity's part; ``NONE`` for one that the runbook does not know (any more)."""
        return self.parts.get(quantity, Part.NONE)


class _Frozen(BaseModel):
    # Fields that another version wrote are ignored.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class Message(_Frozen):
    """A text to show: the id of a template, and the values that fill it.

    With the id ``quote``, the value ``text`` is what a person or a system said.
    """

    id: str = ""
    values: dict[str, Json] = {}


class Reading(_Frozen):
    """What one judge said of one quantity.

    Attributes
    ----------
    at : when it was read
    subject : tells two of a quantity apart, such as an alert's name
    since : when this status began, if the source says so
    evidence : the file beside the journal that holds the frame
    """

    kind: Literal["reading"] = "reading"
    at: Timestamp
    step: str
    quantity: str
    subject: str = ""
    status: Status
    value: Json = None
    unit: str = ""
    since: Timestamp | None = None
    message: Message = Message()
    source: str = ""
    evidence: str = ""


class Change(_Frozen):
    """A phase of one plan.

    Attributes
    ----------
    about : the plan that this one takes back or settles
    verb, target : what is done, and to what
    by : who approved it, or did it
    counts : how many objects, by outcome
    """

    kind: Literal["change"] = "change"
    at: Timestamp
    step: str = ""
    plan: str
    sha256: str = ""
    about: str = ""
    verb: str
    target: str = ""
    phase: ActionPhase
    by: str = ""
    counts: dict[str, int] = {}
    message: Message = Message()


Entry = Reading | Change
