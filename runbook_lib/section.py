"""What a section consists of. Its functions get ``inv``, the runbook's own ``Investigation``."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .approvals import Plan, PlanKind
from .errors import ClientError, UsageError, list_problems
from .frames import Dtype
from .model import Conclusion, Json, Outcome, Role
from .record.folds import Key, Meaning, Quantities

#: By default, a step with one of these roles shows a quantity of its own, with this meaning.
_MEANINGS: Mapping[Role | None, Meaning] = {
    Role.SYMPTOM: Meaning.SYMPTOM,
    Role.BACKLOG: Meaning.SYMPTOM,
    Role.SIGN: Meaning.SIGN,
    Role.CAUSE: Meaning.SIGN,
}

T = TypeVar("T")
#: Reads a step with the runbook's own ``Investigation``.
ReadStep = Callable[[Any], Outcome]
S = TypeVar("S", "Step", "ActionStep")
M = TypeVar("M", bound=BaseModel)


class SectionParameters(BaseModel):
    """Parameters of every section; a section's own class adds more.

    A field's docstring is its comment in the notebook, and the help of its option.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, use_attribute_docstrings=True
    )

    incident_id: str = ""
    """incident to work on; empty: the newest open one, or a new one"""
    ticket_id: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """support ticket of an affected customer; empty: the incident's, if it has one"""
    window_minutes: float = Field(60, ge=1, le=1440)
    """how far back to look in metrics and logs, in minutes"""


class ChangeParameters(SectionParameters):
    plan: str = ""
    """ids of plans to carry out, comma-separated"""
    approve: str = ""
    """SHA-256 of the approved plans, comma-separated"""


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result of ``read`` and "", or None and why it could not read."""
    try:
        return read(), ""
    except ClientError as error:
        return None, str(error)


def to_rows(columns: Sequence[str], values: Iterable[Sequence[Json]]) -> list[dict[str, Json]]:
    return [dict(zip(columns, row, strict=True)) for row in values]


def rows_of(things: Iterable[object], *columns: str, **renamed: str) -> list[dict[str, Json]]:
    """Return a row of attributes for each thing; those as ``column=attribute`` come first."""
    get_values = attrgetter(*renamed.values(), *columns)
    return to_rows([*renamed, *columns], map(get_values, things))


@dataclass(frozen=True, slots=True)
class Step:
    """A statement of the runbook that observes something.

    Attributes
    ----------
    source, threshold : what is read, and what is a breach; ``$name`` stands for a setting
    columns : dtypes of columns that a reading's frame always has
    needed : whether a verdict needs it
    shows : quantities; by default one with the step's id, for a role in ``_MEANINGS``
    """

    id: str
    title: str
    read: ReadStep
    _: KW_ONLY
    name: str
    source: str
    role: Role | None = None
    columns: Mapping[str, Dtype] = field(default_factory=dict)
    threshold: str = ""
    unit: str = ""
    needed: bool = False
    shows: tuple[Key, ...] = ()


def step(step_id: str, title: str, **fields: Any) -> Callable[[ReadStep], Step]:
    return lambda read: Step(step_id, title, read, **fields)


class ActionStep(NamedTuple):
    """A statement of the runbook that changes something; ``plan`` changes nothing users see."""

    id: str
    title: str
    plan: Callable[[Any], Plan]
    kinds: tuple[PlanKind, ...]


def by_id(*members: S) -> dict[str, S]:
    return {member.id: member for member in members}


class SectionModule(Protocol):
    """What a module in ``sections/`` holds.

    ``NAME`` is the notebook's, such as ``01_inbox``; then ids of its own steps begin with ``1.``.
    ``STEPS`` and ``ACTIONS``, by id, may be other sections', too.
    """

    NAME: str
    TITLE: str
    Parameters: type[SectionParameters]
    STEPS: Mapping[str, Step]
    ACTIONS: Mapping[str, ActionStep]
    conclude: Callable[[Any], Conclusion]


@dataclass(eq=False, repr=False)
class Sections(dict[str, SectionModule]):
    """The sections by name, in the order of the runbook.

    ``notebooks`` holds each ``<NAME>.ipynb``. ``runbook investigate`` carries out ``read_only``.
    """

    modules: InitVar[Iterable[SectionModule]]
    _: KW_ONLY
    notebooks: Path
    read_only: Sequence[str]
    investigation: type[Any]

    def __post_init__(self, modules: Iterable[SectionModule]) -> None:
        for module in modules:
            self[module.NAME] = module

    def list_quantities(self) -> Quantities:
        """Return what the steps show. Quantities that a step names itself have no meaning yet."""
        meanings: dict[str, Meaning] = {}
        needed: set[str] = set()
        shown: dict[str, tuple[Key, ...]] = {}
        for step, _ in self.list_steps().values():
            shown[step.id] = step.shows
            if not step.shows and step.role in _MEANINGS:
                shown[step.id] = (Key(step.id),)
                meanings[step.id] = _MEANINGS[step.role]
            if step.needed:
                needed.update(key.quantity for key in shown[step.id])
        return Quantities(meanings=meanings, needed=needed, shown=shown)

    def list_steps(self) -> dict[str, tuple[Step, SectionModule]]:
        """Return every step by its id, with the first section that reads it."""
        steps: dict[str, tuple[Step, SectionModule]] = {}
        for module in self.values():
            for declared in module.STEPS.values():
                steps.setdefault(declared.id, (declared, module))
        return steps

    def find(self, text: str) -> SectionModule:
        """Return a section by its number, or its name with or without the number."""
        wanted = text.lower()
        for name, module in self.items():
            number, _, words = name.partition("_")
            if wanted in (name, number, number.lstrip("0"), words):  # 06_copy, 06, 6 or copy
                return module
        names = ", ".join(self)
        raise UsageError(f"there is no section {text!r}; there are: {names}")


def check_parameters(section: SectionModule, given: Mapping[str, object]) -> SectionParameters:
    """Check parameters against the section's model; a UsageError lists those that exist."""
    fields = section.Parameters.model_fields
    unknown = ", ".join(name for name in given if name not in fields)
    if unknown:
        raise UsageError(
            f"{section.NAME} has no {unknown}. The parameters are: {', '.join(fields)}."
        )
    return check_fields(section.Parameters, given)


def check_fields(model: type[M], given: Mapping[str, object]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = [f"{name}: {words}" for name, words in list_problems(error).items()]
        raise UsageError("; ".join(problems)) from None


def read_parameters(section: SectionModule, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return a notebook's parameters from its ``globals()``; missing ones get their defaults.

    Raises UsageError for a wrong value, and for an unknown name in a parameters cell.
    """
    # IPython keeps the source of each executed cell in ``In``: twice, if the cell ran twice.
    newest_first = list(reversed(namespace.get("In", ())))
    parameters: dict[str, Any] = {}
    # The names that the section's own parameters cell assigns, and papermill's.
    for pattern in (r"(?m)^incident_id *=", "(?m)^# Parameters$"):
        cell = next((source for source in newest_first if re.search(pattern, source)), "")
        # Unknown ones are among them, so that `check_parameters` refuses them.
        assigned = re.findall(r"(?m)^(\w+) *=(?!=)", cell)
        parameters.update(dict.fromkeys(assigned))
    for name, info in section.Parameters.model_fields.items():
        parameters[name] = namespace.get(name, info.default)
    return check_parameters(section, parameters).model_dump()


def split_list(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    return list(filter(None, items))
