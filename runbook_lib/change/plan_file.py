"""The plan's file: a header, one row per object, a trailer. Its SHA-256 is what is approved."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import PlanAlteredError, RecordError, UsageError
from ..model import Json, ObjectInfo, StoreAbilities, Timestamp, format_time, parse_time

__all__ = ["PlanHeader", "PlanRow", "PlanTrailer", "PlanWriter", "ReleasePlan", "load_plan"]

_SCHEMA = "runbook/release-plan/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PlanHeader(_Part):
    """What the plan is about.

    ``window`` says in words what the store's abilities leave unguarded; ``only_orders`` are the
    orders that a drill injected; ``undo_of`` is the plan that this one takes back.
    """

    format: str = Field(_SCHEMA, alias="schema")
    id: str
    step: str
    action: Literal["release", "undo"]
    endpoint: str
    bucket: str
    source: str = Field(alias="from")
    to: str
    match: str
    older_than_s: float | None = None
    made_at: Timestamp
    made_by: str
    expires_at: Timestamp
    limit_objects: int
    limit_bytes: int
    abilities: StoreAbilities
    window: str
    others: str
    free_bytes: int | None = None
    only_orders: tuple[str, ...] | None = None
    undo_of: str = ""


class PlanTrailer(_Part):
    """Totals, and what was left out and why, with a few keys for each reason."""

    objects: int
    bytes: int
    oldest: Timestamp | None = None
    excluded: dict[str, int] = {}
    excluded_sample: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One object that would move.

    Attributes
    ----------
    key, etag, size_bytes, last_modified : the version that was planned
    to : the key that it gets
    age_start, age_source : since when it waits, and what says so
    order_id : from its metadata
    is_there : the destination holds the same object already (an earlier move was cut off)
    """

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    to: str
    age_start: datetime
    age_source: str
    order_id: str
    is_there: bool = False

    @property
    def info(self) -> ObjectInfo:
        """The planned version."""
        return ObjectInfo(self.key, self.etag, self.size_bytes, self.last_modified)

    def to_json(self) -> dict[str, Json]:
        """Return the row as the file has it."""
        row: dict[str, Json] = {
            "key": self.key,
            "etag": self.etag,
            "size_bytes": self.size_bytes,
            "last_modified": format_time(self.last_modified),
            "to": self.to,
            "age_start": format_time(self.age_start),
            "age_source": self.age_source,
            "order_id": self.order_id,
        }
        return {**row, "is_there": True} if self.is_there else row

    @classmethod
    def from_json(cls, row: Mapping[str, Json]) -> Self:
        """Return the row that a line of the file holds."""
        return cls(
            key=row["key"],
            etag=row["etag"],
            size_bytes=int(row["size_bytes"]),
            last_modified=parse_time(row["last_modified"]),
            to=row["to"],
            age_start=parse_time(row["age_start"]),
            age_source=row["age_source"],
            order_id=row["order_id"],
            is_there=bool(row.get("is_there", False)),
        )


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """A plan on disk: fulfils ``section.Plan``; its rows are read from the file when asked for."""

    path: Path
    sha256: str
    header: PlanHeader
    trailer: PlanTrailer

    @property
    def id(self) -> str:
        """Name of the file without the ending."""
        return self.header.id

    @property
    def step(self) -> str:
        """The runbook step."""
        return self.header.step

    @property
    def action(self) -> str:
        """``release`` or ``undo``."""
        return self.header.action

    @property
    def is_empty(self) -> bool:
        """Whether no object would move."""
        return self.trailer.objects == 0

    @property
    def reversible(self) -> bool:
        """Whether ``undo`` takes it back."""
        return self.header.action == "release"

    @property
    def target(self) -> str:
        """From where to where."""
        head = self.header
        return f"{head.endpoint}/{head.bucket}: {head.source} → {head.to}"

    @property
    def summary(self) -> dict[str, Json]:
        """What an approver needs to know."""
        head, tail = self.header, self.trailer
        return {
            "objects": tail.objects,
            "bytes": tail.bytes,
            "oldest": format_time(tail.oldest) if tail.oldest else None,
            "excluded": dict(tail.excluded),
            "excluded_sample": {why: list(keys) for why, keys in tail.excluded_sample.items()},
            "expires_at": format_time(head.expires_at),
            "match": head.match,
            "window": head.window,
            "others": head.others,
            "free_bytes": head.free_bytes,
            **({} if self.reversible else {"way_back": "plan the release again"}),
        }

    def iter_rows(self) -> Iterator[PlanRow]:
        """Yield the rows in the order of their keys."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                record = json.loads(line)
                if "key" in record:
                    yield PlanRow.from_json(record)


class PlanWriter:
    """Write a plan row by row; the file appears under its name when it is complete."""

    def __init__(self, folder: Path, header: PlanHeader) -> None:
        self.header = header
        self.objects, self.size_bytes = 0, 0
        self._oldest: datetime | None = None
        self._path = folder / f"{header.id}.jsonl"
        self._temporary = folder / f".{header.id}.{os.getpid()}.tmp"
        self._hash = hashlib.sha256()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror}") from error
        self._write(header.model_dump(mode="json", by_alias=True))

    def add(self, row: PlanRow) -> None:
        """Write one row."""
        self._write(row.to_json())
        self.objects += 1
        self.size_bytes += row.size_bytes
        self._oldest = min(self._oldest or row.age_start, row.age_start)

    def finish(
        self, excluded: Mapping[str, int], sample: Mapping[str, tuple[str, ...]]
    ) -> ReleasePlan:
        """Write the trailer and give the file its name."""
        trailer = PlanTrailer(
            objects=self.objects,
            bytes=self.size_bytes,
            oldest=self._oldest,
            excluded=dict(excluded),
            excluded_sample=dict(sample),
        )
        self._write({"trailer": trailer.model_dump(mode="json")})
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror}") from error
        return ReleasePlan(self._path, self._hash.hexdigest(), self.header, trailer)

    def discard(self) -> None:
        """Leave no file behind, unless it is finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, record: dict[str, Json]) -> None:
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
        content = line.encode("utf-8", "surrogatepass")
        self._hash.update(content)
        try:
            self._file.write(content)
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror}") from error


def load_plan(path: Path) -> ReleasePlan:
    """Read a plan's header and trailer, check every row's form, and hash the file.

    Raises
    ------
    UsageError
        When there is no such file, or it is not a release plan.
    PlanAlteredError
        When rows are malformed, or the totals are not those of the rows.
    """
    digest, objects, size_bytes, last = hashlib.sha256(), 0, 0, b""
    try:
        with path.open("rb") as file:
            first = next(file, b"")
            digest.update(first)
            header = PlanHeader.model_validate_json(first)
            for line in file:
                digest.update(line)
                if line.startswith(b'{"key":'):
                    objects, last = objects + 1, line
                    size_bytes += PlanRow.from_json(json.loads(line)).size_bytes
                else:
                    last = line
            trailer = PlanTrailer.model_validate(json.loads(last)["trailer"])
    except FileNotFoundError as error:
        raise UsageError(f"no plan {path.stem} in {path.parent}") from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"{path.name} is not a release plan") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PlanAlteredError(f"{path.name} is damaged: {error!r}. Plan again.") from error
    if header.format != _SCHEMA or header.id != path.stem:
        raise UsageError(f"{path.name} is not a release plan, or has another plan's name")
    if (objects, size_bytes) != (trailer.objects, trailer.bytes):
        raise PlanAlteredError(
            f"{path.name} says {trailer.objects} objects of {trailer.bytes} bytes and holds "
            f"{objects} of {size_bytes}. Plan again."
        )
    return ReleasePlan(path, digest.hexdigest(), header, trailer)
