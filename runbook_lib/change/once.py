"""What plans that are carried out once have in common: their file, approval, and mark of use.

A plan is ``plans/<id>.jsonl``. ``plans/<id>.applied.json`` says that it was applied; a plan that
has one is never applied again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..errors import (
    DriftError,
    NotApprovedError,
    PlanAlteredError,
    PlanExpiredError,
    RecordError,
)
from ..model import Json, format_time
from ..redact import Redactor

__all__ = ["check_use", "mark_applied", "read_plan_file", "write_plan_file"]

_MAX_BYTES = 1_000_000


class OncePlan(Protocol):
    """What of a plan is looked at here."""

    @property
    def id(self) -> str:
        """Name of the plan's file, without the ending."""

    @property
    def path(self) -> Path:
        """The plan's file."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes when it was read."""

    @property
    def expires_at(self) -> datetime:
        """When it is too old."""

    @property
    def applied_path(self) -> Path:
        """The file that says that it was applied."""


def write_plan_file(
    folder: Path, kind: str, lines: Iterable[Mapping[str, Json]], *, now: datetime
) -> tuple[Path, bytes]:
    """Write a plan of a new id that begins with ``kind``; return its path and its bytes.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    path = folder / f"{kind}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.jsonl"
    blob = "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines).encode()
    try:
        with path.open("xb") as file:
            file.write(blob)
    except OSError as error:
        raise RecordError(f"the plan cannot be written to {path}: {error.strerror}") from error
    return path, blob


def read_plan_file(path: Path, schema: str) -> bytes | None:
    """Return a plan's bytes; None when there is none, or it is of another schema.

    Raises
    ------
    RecordError
        When it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.readline(_MAX_BYTES)
            return head + file.read(_MAX_BYTES) if f'"{schema}"'.encode() in head else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error


def check_use(plan: OncePlan, *, approved: str, now: datetime) -> None:
    """Refuse a plan that is not the approved one, was altered, is too old, or used. Only reads.

    Raises
    ------
    NotApprovedError, PlanAlteredError, PlanExpiredError, DriftError
        Which of them it is.
    """
    if approved != plan.sha256:
        raise NotApprovedError(f"the approval is not of plan {plan.id}, {plan.sha256}")
    try:
        actual = hashlib.sha256(plan.path.read_bytes()).hexdigest()
    except OSError as error:
        raise PlanAlteredError(f"{plan.path} cannot be read: {error.strerror}") from error
    if actual != plan.sha256:
        raise PlanAlteredError(f"{plan.path} was changed after it was planned; plan again")
    if now >= plan.expires_at:
        raise PlanExpiredError(
            f"plan {plan.id} expired at {format_time(plan.expires_at)}; plan again"
        )
    if plan.applied_path.exists():
        raise _applied_before(plan)


def mark_applied(plan: OncePlan, told: Mapping[str, Json]) -> None:
    """Note that a plan is used, before the change: a crash in between leads to no second one.

    Raises
    ------
    DriftError
        When it was applied before.
    RecordError
        When it cannot be noted.
    """
    try:
        with plan.applied_path.open("x", encoding="utf-8") as file:
            json.dump(Redactor().json(dict(told)), file, sort_keys=True)
    except FileExistsError as error:
        raise _applied_before(plan) from error
    except OSError as error:
        raise RecordError(f"{plan.applied_path} cannot be written: {error.strerror}") from error


def _applied_before(plan: OncePlan) -> DriftError:
    return DriftError(f"plan {plan.id} was applied before; look again, plan again")
