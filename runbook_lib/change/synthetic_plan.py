"""Plans for synthetic objects: create or revert, one header and one trailer in a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from ..errors import PlanAlteredError, UsageError
from ..model import Json, format_time, parse_time
from .once import check_use, mark_applied, read_plan_file, write_plan_file

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
    return _parse(*write_plan_file(folder, "syn", [header], now=now))


def load_synthetic_plan(path: Path) -> SyntheticPlan | None:
    """Read a plan back; None when there is none, or it is not one of these.

    Raises
    ------
    PlanAlteredError
        When it is torn or was edited.
    """
    blob = read_plan_file(path, _SCHEMA)
    return None if blob is None else _parse(path, blob)


def use_synthetic_plan(plan: SyntheticPlan, *, approved: str, now: datetime) -> None:
    """Check the approval, and note that the plan is used: it is carried out once.

    Raises
    ------
    NotApprovedError, PlanAlteredError, PlanExpiredError
        When the approval is of something else, the bytes are not those, or it is too old.
    DriftError
        When it was applied before.
    """
    check_use(plan, approved=approved, now=now)
    mark_applied(plan, {"at": format_time(now)})


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
