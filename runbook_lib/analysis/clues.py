"""What a hypothesis is made of: observations, and clues that test them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..model import Cause, Json

__all__ = [
    "Clue",
    "Hypothesis",
    "Observation",
    "failing",
    "is_false",
    "is_nothing",
    "is_over",
    "is_some",
    "is_true",
    "is_under",
]


@dataclass(frozen=True, slots=True)
class Observation:
    """One observed fact; ``evidence`` refers to the journal. ``value`` None is unknown."""

    value: Json
    evidence: str


@dataclass(frozen=True, slots=True)
class Clue:
    """What one observation says about a cause.

    Attributes
    ----------
    name : of the observation
    holds : tests its value
    weight : above 0 supports, below 0 refutes
    says : the clue in words, when it holds
    decides : whether the hypothesis stays undecided while the observation is unknown
    """

    name: str
    holds: Callable[[Json], bool]
    weight: float
    says: str
    decides: bool = True


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One cause; ``hidden_by`` names the causes that make its observations meaningless."""

    cause: Cause
    clues: tuple[Clue, ...]
    next_step: str
    hidden_by: tuple[Cause, ...] = ()


def is_true(value: Json) -> bool:
    """Tell whether it was seen to be so."""
    return value is True


def is_false(value: Json) -> bool:
    """Tell whether it was seen not to be so."""
    return value is False


def is_some(value: Json) -> bool:
    """Tell whether there is any."""
    return bool(value)


def is_nothing(value: Json) -> bool:
    """Tell whether there is none."""
    return not value


def is_over(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number over a limit."""
    return lambda value: isinstance(value, int | float) and value > limit


def is_under(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number under a limit."""
    return lambda value: isinstance(value, int | float) and value < limit


def failing(reason: str, what: str) -> tuple[Clue, Clue]:
    """Return the clues of a failure reason: counted lately, and told by the log lately."""
    return (
        Clue(f"failures_{reason}", is_over(0), 0.7, f"{what}: failures counted just now"),
        Clue(f"logged_{reason}", is_true, 0.3, f"{what}: the worker's log says so", decides=False),
    )
