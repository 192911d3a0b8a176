"""What a section is: its parameters, its steps, its actions, its conclusions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UsageError
from .model import ActionEntry, ActionPhase, Conclusion, Json, Reading

if TYPE_CHECKING:
    from .investigation import Investigation

__all__ = [
    "ActionStep",
    "Plan",
    "SectionModule",
    "SectionParameters",
    "Step",
    "check_parameters",
    "make_entry",
    "split_list",
]


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


class Plan(Protocol):
    """What every plan has, whatever it would change."""

    @property
    def id(self) -> str:
        """Name of the plan's file in ``plans/``, without the ending."""

    @property
    def step(self) -> str:
        """The runbook step, such as ``6.1``."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan file's bytes: what an approval names."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""

    @property
    def reversible(self) -> bool:
        """Whether ``undo`` takes it back."""

    @property
    def action(self) -> str:
        """The action's name, such as ``release`` or ``unpause``."""

    @property
    def target(self) -> str:
        """What it changes, in words."""

    @property
    def summary(self) -> dict[str, Json]:
        """The facts that an approver needs: counts, bytes, what is left out and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of the runbook that observes something.

    Attributes
    ----------
    id, title : as in the runbook
    read : makes the reading; may raise any ``ClientError``, which ``take`` turns into ``unknown``
    source : where it reads, for a reading that failed
    needed : whether a verdict needs it
    name : the reading's name when it failed
    """

    id: str
    title: str
    read: Callable[[Investigation], Reading]
    source: str
    needed: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class ActionStep:
    """One statement of the runbook that changes something.

    Attributes
    ----------
    plan : makes a plan, written under ``plans/``; changes nothing that users see
    load : reads a plan back by id, or returns None when the id is not one of this step's plans
    apply : carries out an approved plan and returns what happened
    verify : reads the world again and says whether the plan's effect is there
    """

    id: str
    title: str
    plan: Callable[[Investigation], Plan]
    load: Callable[[Investigation, str], Plan | None]
    apply: Callable[[Investigation, Any, str], ActionEntry]
    verify: Callable[[Investigation, Any], ActionEntry]


class SectionModule(Protocol):
    """What a module in ``sections/`` holds."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """The notebook's name without ending, such as ``02_signals_detection``."""

    @property
    def TITLE(self) -> str:  # noqa: N802
        """The section's title."""

    @property
    def Parameters(self) -> type[SectionParameters]:  # noqa: N802
        """The section's parameters."""

    @property
    def STEPS(self) -> Mapping[str, Step]:  # noqa: N802
        """Every step that the section reads, its own and those it shares, by id."""

    @property
    def ACTIONS(self) -> Mapping[str, ActionStep]:  # noqa: N802
        """Every step that changes something, by id."""

    def conclude(self, inv: Investigation) -> Conclusion:
        """Draw the section's findings and verdict from the journal."""


def check_parameters(section: SectionModule, given: Mapping[str, object]) -> SectionParameters:
    """Check parameters against the section's model, before a kernel starts.

    Raises
    ------
    UsageError
        An unknown name or a bad value; names the parameter and lists those that exist.
    """
    try:
        return section.Parameters.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        known = ", ".join(section.Parameters.model_fields)
        raise UsageError(f"{section.NAME}: {wrong}. Its parameters: {known}.") from None


def make_entry(
    plan: Plan,
    phase: ActionPhase,
    *,
    reason: str = "",
    undo: str = "",
    result: dict[str, Json] | None = None,
) -> ActionEntry:
    """Return the journal entry of one phase of a plan."""
    return ActionEntry(
        step=plan.step,
        action=plan.action,
        phase=phase,
        target=plan.target,
        reversible=plan.reversible,
        undo=undo or (f"runbook undo {plan.id}" if plan.reversible else ""),
        reason=reason,
        source=f"plans/{plan.id}.jsonl",
        result={"plan": plan.id, "sha256": plan.sha256, **(result or {})},
    )


def split_list(text: str) -> list[str]:
    """Split a comma-separated parameter into its non-empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
