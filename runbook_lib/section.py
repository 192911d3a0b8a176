"""What a section is: its parameters, its steps, its actions, its conclusions.

The ``inv`` that steps and actions are given is the runbook's own ``Investigation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .approvals import Plan, PlanKind
from .errors import ClientError, UsageError, list_wrong
from .model import SYMPTOMS, Conclusion, Json, Outcome, Reading, Role, Status

T = TypeVar("T")
S = TypeVar("S", "Step", "ActionStep")


class SectionParameters(BaseModel):
    """Parameters that every section has; a section's own class adds to them.

    The field descriptions are the help texts of the form and of the docs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    incident_id: str = Field(
        "",
        pattern=r"^(inc-\d{8}T\d{6}Z-[0-9a-f]{4})?$",
        description="incident to work on; empty: the newest open one, or a new one",
    )
    ticket_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="support ticket of an affected order; empty: the incident's, if it has one",
    )
    window_minutes: float = Field(
        60, ge=1, le=1440, description="how far back to look in metrics and logs, in minutes"
    )


class ChangeParameters(SectionParameters):
    """Parameters of a section that changes something."""

    plan: str = Field("", description="ids of plans to carry out, comma-separated")
    approve: str = Field("", description="SHA-256 of the approved plans, comma-separated")


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """Return what a part of a step read and "", or None and why it could not be read.

    Naming a client may fail like asking it: services that are "none", a store without keys.
    """
    try:
        return read(), ""
    except ClientError as error:
        return None, str(error)


def to_rows(columns: Sequence[str], values: Iterable[Sequence[Json]]) -> list[dict[str, Json]]:
    """Return the rows of a table, each value under its column."""
    return [dict(zip(columns, row, strict=True)) for row in values]


def rows_of(things: Iterable[object], *columns: str, **renamed: str) -> list[dict[str, Json]]:
    """Return a table of attributes of things: first those under another name, then the others."""
    picked = {**renamed, **{name: name for name in columns}}
    return [{name: getattr(one, of) for name, of in picked.items()} for one in things]


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of the runbook that observes something: a decorator of what reads it.

    Attributes
    ----------
    id, title : as in the runbook
    name, unit : of its readings
    source, threshold : where it looks and what is a breach; ``$name`` stands for a setting
    needed : whether a verdict needs it
    read : looks, and judges; a ``ClientError`` that it raises becomes ``unknown``
    """

    id: str
    title: str
    _: KW_ONLY
    name: str
    role: Role
    source: str
    threshold: str = ""
    unit: str = ""
    needed: bool = False
    read: Callable[[Any], Outcome] = lambda _: Outcome()

    def __call__(self, read: Callable[[Any], Outcome]) -> Step:
        """Return the step that this function reads."""
        return replace(self, read=read)


step = Step  # what sections call it above a function


def find_unknown(steps: Iterable[str], readings: Mapping[str, Reading]) -> tuple[str, ...]:
    """Return the steps that have no reading, or one that is ``unknown``."""
    return tuple(s for s in steps if s not in readings or readings[s].status is Status.UNKNOWN)


class ActionStep(NamedTuple):
    """One statement of the runbook that changes something.

    Attributes
    ----------
    plan : makes a plan, written under ``plans/``; changes nothing that users see
    kinds : of the plans that it makes
    """

    id: str
    title: str
    plan: Callable[[Any], Plan]
    kinds: tuple[PlanKind, ...]


def by_id(*made: S) -> dict[str, S]:
    """Return steps, or actions, by their ids and in their order."""
    return {one.id: one for one in made}


class SectionModule(Protocol):
    """What a module in ``sections/`` holds.

    Attributes
    ----------
    NAME : the notebook's name without ending, such as ``02_signals_detection``
    STEPS : every step that the section reads, its own and those it shares, by id
    ACTIONS : every step that changes something, by id
    conclude : draws the section's findings and verdict from the journal of an investigation,
        which adds the section's name and what could not be read
    """

    NAME: str
    TITLE: str
    Parameters: type[SectionParameters]
    STEPS: Mapping[str, Step]
    ACTIONS: Mapping[str, ActionStep]
    conclude: Callable[[Any], Conclusion]


@dataclass(eq=False, repr=False)
class Sections(dict[str, SectionModule]):
    """A runbook's sections by name, in its order.

    Parameters
    ----------
    modules : one for each notebook
    notebooks : the folder that holds them, as ``<NAME>.ipynb``
    read_only : names of those that ``runbook investigate`` carries out
    investigation : the runbook's own ``Investigation``, where it has one
    """

    modules: InitVar[Iterable[SectionModule]]
    _: KW_ONLY
    notebooks: Path
    read_only: Sequence[str]
    investigation: Any = None

    def __post_init__(self, modules: Iterable[SectionModule]) -> None:
        self.update((module.NAME, module) for module in modules)

    def list_needed(self) -> dict[str, SectionModule]:
        """Return the steps of symptoms that a verdict needs, each with a section that has it."""
        every = ((step, module) for module in self.values() for step in module.STEPS.values())
        return {step.id: module for step, module in every if step.needed and step.role in SYMPTOMS}

    def having(self, role: Role) -> set[str]:
        """Return the names of the sections that have a step of a role."""
        return {n for n, m in self.items() if role in {s.role for s in m.STEPS.values()}}

    def find(self, text: str) -> SectionModule:
        """Return a section by number or name (``06``, ``6``, ``06_remediation``, ``remediation``).

        Raises
        ------
        UsageError
            When there is none; lists those that exist.
        """
        wanted = text.strip().lower().removesuffix(".ipynb")
        for name, module in self.items():
            own = getattr(module, "__name__", "").rpartition(".")[2]
            if wanted in (name, name[:2], name[1:2], name[3:], own):
                return module
        raise UsageError(f"there is no section {text!r}; there are: {', '.join(self)}")


def check_parameters(section: SectionModule, given: Mapping[str, object]) -> SectionParameters:
    """Check parameters against the section's model, before a kernel starts.

    Raises
    ------
    UsageError
        An unknown name or a bad value; names the parameter and lists those that exist.
    """
    fields = section.Parameters.model_fields
    try:
        return section.Parameters.model_validate(given)
    except ValidationError as error:
        wrong = list_wrong(error)
        for name in given.keys() - fields.keys():
            meant = get_close_matches(name, fields, n=1)
            near = f"; did you mean {meant[0]}?" if meant else ""
            wrong[name] = f"there is no such parameter{near}"
        told = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        text = f"{section.NAME}: {told}. Correct it where the parameters are set, and run again. "
        raise UsageError(f"{text}They are: {', '.join(fields)}.") from None


def split_list(text: str) -> list[str]:
    """Split a comma-separated parameter into its non-empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
