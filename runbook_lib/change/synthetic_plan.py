"""Plans for synthetic objects: create or revert, one header and one trailer in a file."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from ..errors import (
    DriftError,
    NotApprovedError,
    PlanAlteredError,
    PlanExpiredError,
    RecordError,
    UsageError,
)
from ..model import Json, format_time, parse_time

__all__ = ["SyntheticPlan", "load_synthetic_plan", "make_synthetic_plan", "use_synthetic_plan"]

_SCHEMA = "runbook/synthetic-plan/1"
_LIFETIME = timedelta(minutes=15)
Action = Literal["create_synthetic", "revert_synthetic"]


@dataclass(frozen=True, slots=True)
class SyntheticPlan:
    """One creation or removal of synthetic objects; fulfils ``section.Plan``.

    Attributes
    ----------
    facts : what the action needs (prefix, count, drill …) and what was seen when planning
    """

    path: Path
    sha256: str
    step: str
    action: str
    target: str
    is_empty: bool
    facts: dict[str, Json]
    expires_at: datetime

    @property
    def id(self) -> str:
        """Name of the plan's file, without the ending."""
        return self.path.stem

    @property
    def reversible(self) -> bool:
        """Whether it can be taken back: a creation is, by a revert of its drill."""
        return False

    @property
    def applied_path(self) -> Path:
        """The file that says that it was applied."""
        return self.path.with_name(f"{self.id}.applied.json")

    @property
    def summary(self) -> dict[str, Json]:
        """The facts that an approver needs."""
        return {**self.facts, "expires_at": format_time(self.expires_at)}


def make_synthetic_plan(
    folder: Path,
    *,
    step: str,
    action: Action,
    target: str,
    facts: dict[str, Json],
    is_empty: bool = False,
    now: datetime,
) -> SyntheticPlan:
    """Write a plan into the incident's ``plans/``; changes nothing else."""
    header = {
        "schema": _SCHEMA,
        "step": step,
        "action": action,
        "target": target,
        "is_empty": is_empty,
        "facts": facts,
        "made_at": format_time(now),
        "expires_at": format_time(now + _LIFETIME),
    }
    path = folder / f"syn-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.jsonl"
    text = f"{json.dumps(header, sort_keys=True)}\n"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RecordError(f"the plan cannot be written to {path}: {error.strerror}") from error
    return _parse(path, text.encode())


def load_synthetic_plan(path: Path) -> SyntheticPlan | None:
    """Read a plan back; None when there is none, or it is not one of these.

    Raises
    ------
    PlanAlteredError
        When it is torn or was edited.
    """
    try:
        with path.open("rb") as file:
            head = file.readline(1_000_000)
            if f'"{_SCHEMA}"'.encode() not in head:
                return None
            return _parse(path, head + file.read(1_000_000))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error


def use_synthetic_plan(plan: SyntheticPlan, *, approved: str, now: datetime) -> None:
    """Check the approval, and note that the plan is used: it is carried out once.

    Raises
    ------
    NotApprovedError, PlanAlteredError, PlanExpiredError
        When the approval is of something else, the bytes are not those, or it is too old.
    DriftError
        When it was applied before.
    """
    if approved != plan.sha256:
        raise NotApprovedError(f"the approval is not of plan {plan.id}, {plan.sha256}")
    if hashlib.sha256(plan.path.read_bytes()).hexdigest() != plan.sha256:
        raise PlanAlteredError(f"{plan.path} was changed after it was planned; plan again")
    if now >= plan.expires_at:
        raise PlanExpiredError(f"plan {plan.id} expired; plan again")
    try:
        with plan.applied_path.open("x", encoding="utf-8") as file:
            json.dump({"at": format_time(now)}, file)
    except FileExistsError as error:
        raise DriftError(f"plan {plan.id} was applied before; plan again") from error


def _parse(path: Path, blob: bytes) -> SyntheticPlan:
    try:
        header = json.loads(blob)
        if header["action"] not in ("create_synthetic", "revert_synthetic"):
            raise UsageError(f"there is no action {header['action']!r}")
        return SyntheticPlan(
            path=path,
            sha256=hashlib.sha256(blob).hexdigest(),
            step=str(header["step"]),
            action=str(header["action"]),
            target=str(header["target"]),
            is_empty=bool(header["is_empty"]),
            facts=dict(header["facts"]),
            expires_at=parse_time(header["expires_at"]),
        )
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise PlanAlteredError(f"{path} is torn or was edited; plan again") from error
