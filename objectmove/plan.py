"""A plan: exactly which objects would move. Its bytes are hashed, and the hash is the approval.

The file is a header, with the totals, and one line per object. It is read once: the same bytes are
hashed, parsed into rows and checked. A line that is not written exactly as this module writes it is
refused, so that what an approver sees in the file is all that there is.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from .bucket import Seen, Version, format_time, is_key_supported
from .errors import PlanError
from .parking import get_parked_key

#: The most keys that a plan names for each reason why objects were left out.
_SAMPLE_KEYS = 10
#: For each ability, what an approver must know of a store that lacks it.
_UNGUARDED = {
    "fence": "this store accepts expired requests: a request of ours may take effect much later",
    "conditional_delete": "let nothing rewrite these files for {seconds:g} s after our last look: "
    "this store would delete the newer version",
    "conditional_copy": "let nobody else write these files to the destination for {seconds:g} s "
    "after our look: this store would overwrite them",
}
_NO_PARKING = (
    "nothing can be parked: these credentials may not write under {parked}, so an object in doubt "
    "keeps the worker paused until a person settles it"
)
_UNGUARDED_EVERYWHERE = (
    "on every store, a proxy that repeats requests can ship an object twice, and nobody sees a "
    "rewrite of metadata alone"
)

Timestamp = Annotated[datetime, PlainSerializer(format_time, return_type=str)]
PlanId = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._#-]{0,120}$")]


class FrozenModel(BaseModel):
    """A model that never changes, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Abilities(FrozenModel):
    """What the store guards against, as the probe found on scratch objects.

    Attributes
    ----------
    fence : expired requests of every kind change nothing, and valid requests work
    conditional_copy : a copy with ``If-None-Match: *`` overwrites nothing
    conditional_put : a put with ``If-None-Match: *`` overwrites nothing
    conditional_delete : a delete with ``If-Match`` deletes only an object with that ETag
    parking : objects may be put and removed under the parking prefix
    hash_etags : the ETag of a plain put and of its copy is the MD5 of the content
    marks_absence : a 404 of the store bears ``bucket.ABSENCE_MARK``
    versions : every version of an object is kept
    """

    fence: bool
    conditional_copy: bool
    conditional_put: bool
    conditional_delete: bool
    parking: bool = True
    hash_etags: bool = True
    marks_absence: bool = True
    versions: bool = False

    def is_weaker_than(self, planned: Abilities) -> bool:
        """Tell whether a guard that a plan relies on is gone."""
        return any(
            getattr(planned, name) and not getattr(self, name)
            for name in ("fence", "conditional_copy", "conditional_delete", "parking")
        )


class Timing(FrozenModel):
    """How long things may take, in seconds.

    Attributes
    ----------
    lease_s : from a claim's last renewal until the claim lapses, by the store's time
    effect_s : an accepted request takes effect within this
    spread_s : the store's nodes agree on the time within this
    """

    lease_s: float = Field(60, gt=0)
    effect_s: float = Field(10, ge=0)
    spread_s: float = Field(5, ge=0)

    @property
    def expires_s(self) -> int:
        """Seconds that a request's signature is valid, at most 20.

        When the claim lapses, no request can take effect any more, with a second or more to spare.
        """
        left_s = self.lease_s - self.effect_s - self.spread_s - 1
        return min(20, int(left_s))

    @property
    def fence_s(self) -> float:
        """Seconds after a signature's date until the signed request cannot take effect any more."""
        return self.expires_s + self.effect_s + self.spread_s


def describe_window(abilities: Abilities, timing: Timing, parked: str) -> str:
    """Say in words what the store's abilities leave unguarded, and for how many seconds.

    Parameters
    ----------
    parked : the prefix under which objects are parked
    """
    parts = [text for name, text in _UNGUARDED.items() if not getattr(abilities, name)]
    if not abilities.parking:
        parts.append(_NO_PARKING)
    parts.append(_UNGUARDED_EVERYWHERE)
    template = "; ".join(parts)
    seconds = 2 + timing.fence_s  # a look may be 2 s old when a request that rests on it is sent
    return template.format(seconds=seconds, parked=parked)


def find_manifest(plan: str) -> str:
    """Return the id of the manifest that a plan's id names; empty when it names none.

    Only the id of a shard, or of a plan about a shard, names a manifest.

    Parameters
    ----------
    plan : a plan's id
    """
    manifest, separator, _ = plan.partition("#")
    return manifest if separator else ""


def _is_empty(text: str) -> bool:
    return not text


def make_resume_command(plan: str, action: str) -> str:
    """Return the command that goes on with a plan."""
    flag = " --consumer-stands-still" if action == "undo" else ""
    return f"runbook resume {plan}{flag}"


class PlanHeader(FrozenModel):
    """What the plan is about.

    Attributes
    ----------
    step : id of the caller's step that the plan belongs to
    source, to : prefixes
    limit_objects : the most objects that the plan may hold; with shards, that each shard may hold
    others : how everyone else is kept from moving objects, in words
    window : what the store's abilities leave unguarded, in words, and for how many seconds
    selection : how the rows were chosen, in words
    parent : the plan that an undo, a settling or a reopening is about; empty for a release
    word : what a person says in a settling; empty in other plans
    release : the release with which the chain of parents begins; in a release, its own id
    store_id : the text of the bucket's id object; empty when the bucket had none yet
    parked : the prefix under which objects are parked
    first, last : the shard's first and last source key, in a shard and in plans about a shard; the
        files of other plans do not have these fields
    objects, bytes : totals of the rows
    oldest : since when the longest-waiting object waits; None in a plan without rows
    excluded : for each reason, how many objects were left out
    excluded_sample : for each reason, a few keys of these objects
    """

    format: Literal["objectmove/plan/5", "objectmove/plan/shards/1"] = Field(
        "objectmove/plan/5", alias="schema"
    )
    id: PlanId
    step: str
    action: Literal["move", "undo", "settle", "reopen"]
    endpoint: str
    bucket: str
    source: str = Field(alias="from")
    to: str
    made_at: Timestamp
    made_by: str
    expires_at: Timestamp
    limit_objects: int
    abilities: Abilities
    timing: Timing
    window: str
    others: str
    selection: dict[str, str] = {}
    parent: str = ""
    release: str = ""
    store_id: str = ""
    parked: str = "parked/"
    word: Literal["", "taken", "not_taken"] = ""
    first: str = Field("", exclude_if=_is_empty)
    last: str = Field("", exclude_if=_is_empty)
    objects: int = 0
    bytes: int = 0
    oldest: Timestamp | None = None
    excluded: dict[str, int] = {}
    excluded_sample: dict[str, tuple[str, ...]] = {}

    def get_parked_key(self, rest: str) -> str:
        """Return where an object is parked; ``rest`` is its key without the plan's prefix."""
        return get_parked_key(self.parked, self.release, rest)

    @property
    def manifest(self) -> str:
        """Id of the manifest, if the plan is a shard or about a shard; else empty."""
        return find_manifest(self.release)

    @property
    def is_shard(self) -> bool:
        """Whether the plan is itself a shard, which is approved with its manifest."""
        return bool(self.manifest) and self.action == "move"

    @property
    def copies_into_reach(self) -> bool:
        """Whether the plan copies to where the worker takes objects.

        An undo does, and a settling that brings parked objects back.
        """
        return self.action == "undo" or self.word == "not_taken"

    @property
    def reached_prefix(self) -> str:
        """The prefix from which the worker takes objects."""
        return self.to if self.action == "undo" else self.source

    @property
    def consumed_prefix(self) -> str:
        """The prefix from which consumers take objects."""
        return self.source if self.action == "undo" else self.to

    @property
    def release_step(self) -> str:
        """The step of the plan's release: a plan about ``6.1`` has a step such as ``6.1.2``."""
        return self.step if self.action == "move" else self.step.rpartition(".")[0]

    @property
    def resume_command(self) -> str:
        """The command that goes on with the plan after the plan was cut off."""
        return make_resume_command(self.id, self.action)


@dataclass(frozen=True, slots=True)
class PlanRow(Version):
    """One object that would move: the version that was planned.

    Attributes
    ----------
    to : the key that the object gets; empty in a row of a settling that moves nothing
    age_start : since when the object waits, by the caller's rules
    facts : what else the approved plan says of the object, by the caller's rules. A plan about
        another plan also names the row's number in that plan (``row``) and in the release
        (``release_row``)
    sha256 : of the content, if the ETag is not the content's MD5; else empty
    """

    last_modified: Timestamp
    to: str
    age_start: Timestamp
    facts: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    __pydantic_config__ = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the row's line in the file."""
        return dict(_ROW.dump_python(self, mode="json"))

    def with_version(self, seen: Seen) -> PlanRow:
        """Return the row with the version of its object that a look found."""
        return replace(
            self,
            etag=seen.etag,
            size_bytes=seen.size_bytes,
            last_modified=seen.last_modified,
        )


_ROW = TypeAdapter(PlanRow)
Line = TypeVar("Line")


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan's file as it was read: exactly the bytes that were hashed are carried out."""

    path: Path
    content: bytes = field(repr=False)
    sha256: str
    header: PlanHeader

    @property
    def made_at(self) -> datetime:
        """When the plan was made."""
        return self.header.made_at

    @property
    def expires_at(self) -> datetime:
        """The latest time at which the plan may begin."""
        return self.header.expires_at

    @property
    def target(self) -> str:
        """The store, the bucket, and both prefixes."""
        header = self.header
        return f"{header.endpoint}/{header.bucket}: {header.source} → {header.to}"

    @property
    def summary(self) -> dict[str, Any]:
        """What an approver needs to know beside the rows, as JSON."""
        header = self.header
        return {
            "objects": header.objects,
            "bytes": header.bytes,
            "oldest": format_time(header.oldest) if header.oldest else None,
            "excluded": dict(header.excluded),
            "excluded_sample": {why: list(keys) for why, keys in header.excluded_sample.items()},
            "expires_at": format_time(header.expires_at),
            **header.selection,
            **self._describe_word(),
            "who else moves": header.others,
            "window": header.window,
        }

    def _describe_word(self) -> dict[str, Any]:
        """Return what a settling says, and of which plan; empty for any other plan."""
        header = self.header
        if header.action != "settle":
            return {}
        return {"word": header.word, "about": header.parent}

    @property
    def step(self) -> str:
        """Id of the caller's step that the plan belongs to."""
        return self.header.step

    @property
    def action(self) -> str:
        """``move``, ``undo``, ``settle`` or ``reopen``."""
        return self.header.action

    @property
    def undo_command(self) -> str:
        """The command that takes the plan back; empty for an undo and a reopening."""
        return f"runbook undo {self.id}" if self.action in ("move", "settle") else ""

    @property
    def way_back(self) -> str:
        """The command that takes the plan back; for an undo and a reopening, words in its place."""
        if self.action == "reopen":
            return f"say again what became of each object: runbook settle {self.id}"
        return self.undo_command or "plan the release again"

    @property
    def id(self) -> str:
        """Name of the file without its ending."""
        return self.header.id


@dataclass(frozen=True, slots=True, weakref_slot=True)
class MovePlan(PlanFile):
    """A plan whose rows are objects."""

    rows: tuple[PlanRow, ...] = field(repr=False)

    @property
    def shards(self) -> tuple[Any, ...]:
        """Empty: only a manifest names other plans."""
        return ()

    @property
    def moves_objects(self) -> bool:
        """Whether anything may be moved or parked; not in a settling that is only a word."""
        return self.header.action != "settle" or any(row.to for row in self.rows)

    def list_ends(self) -> list[str]:
        """Return the keys of all rows that move something: source and destination of each."""
        keys = []
        for row in self.rows:
            if row.to:
                keys += [row.key, row.to]
        return keys


#: The plans in use, so that no plan is parsed twice. The keys are the SHA-256 of the plans' bytes.
_PARSED: WeakValueDictionary[str, MovePlan] = WeakValueDictionary()


class Excluded:
    """What a plan leaves out: for each reason, how many objects, and a few of their keys."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, key: str) -> None:
        """Count one key."""
        self.counts[reason] += 1
        if len(self.samples[reason]) < _SAMPLE_KEYS:
            self.samples[reason].append(key)

    def describe(self) -> dict[str, Any]:
        """Return the counts and samples as fields of a header."""
        samples = {reason: tuple(keys) for reason, keys in self.samples.items()}
        return {"excluded": dict(self.counts), "excluded_sample": samples}


def write_plan(
    folder: Path,
    header: PlanHeader,
    rows: Sequence[PlanRow],
    excluded: Excluded,
) -> MovePlan:
    """Write a plan under ``folder`` and return it.

    Parameters
    ----------
    excluded : what was left out

    Raises
    ------
    PlanError
        When the file cannot be written.
    """
    totals = {
        "objects": len(rows),
        "bytes": sum(row.size_bytes for row in rows),
        "oldest": min((row.age_start for row in rows), default=None),
        **excluded.describe(),
    }
    header = header.model_copy(update=totals)
    content = encode_rows(header, rows)
    del rows  # they are read again from ``content``: RAM cannot hold a large plan's rows twice
    plan = parse_plan(content, path=folder / f"{header.id}.jsonl")
    save_plan(plan)
    return plan


def save_plan(plan: PlanFile) -> None:
    """Write a plan's bytes to its path, so that a reader sees all of it or nothing."""
    temporary = plan.path.with_name(f".{plan.path.name}.{os.getpid()}.tmp")
    try:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(plan.content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(plan.path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PlanError(f"cannot write {plan.path}: {error.strerror}") from error


def parse_plan(content: bytes, *, path: Path) -> MovePlan:
    """Hash a plan's bytes and read them.

    Raises
    ------
    PlanError
        When the file was renamed, a line is not exactly what this module writes, or the rows do not
        agree with the header.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    parsed = _PARSED.get(sha256)
    if parsed is not None:
        _check_name(path, parsed.header)
        return replace(parsed, path=path)
    header, rows = parse_lines(content, _ROW, name=path.name)
    _check_name(path, header)
    _check_rows(path, header, rows)
    plan = MovePlan(path=path, content=content, sha256=sha256, header=header, rows=rows)
    _PARSED[sha256] = plan
    return plan


def parse_lines(
    content: bytes,
    adapter: TypeAdapter[Line],
    *,
    name: str,
) -> tuple[PlanHeader, tuple[Line, ...]]:
    """Read the header and the lines of a file that ``encode`` writes.

    The lines are read one by one, so that RAM holds no second copy of a large file.

    Parameters
    ----------
    adapter : reads and writes one line

    Raises
    ------
    PlanError
        When a line is not exactly what ``encode`` writes; the message names the file.
    """
    parsed: list[Line] = []
    file = BytesIO(content)
    try:
        head = file.readline()
        header = PlanHeader.model_validate_json(head)
        _check_written(head, encode(header, ()))
        for encoded in file:
            line = adapter.validate_json(encoded)
            _check_written(encoded, adapter.dump_json(line) + b"\n")
            parsed.append(line)
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise PlanError(f"{name} is not a plan ({reason}). Make a new one.") from error
    return header, tuple(parsed)


def _check_written(line: bytes, expected: bytes) -> None:
    """Refuse a line whose bytes are not those that this module writes for the same content."""
    if line != expected:
        raise ValueError("a line is not as `plan` writes it")


def _check_name(path: Path, header: PlanHeader) -> None:
    """Refuse a file that is not named by its plan's id."""
    if path.stem != header.id:
        raise PlanError(f"{path.name} was renamed: it is {header.id}")


def _check_rows(path: Path, header: PlanHeader, rows: Sequence[PlanRow]) -> None:
    """Refuse rows that do not agree with the header, or that cannot be moved."""
    if header.format != "objectmove/plan/5":  # the only other format is that of a manifest
        raise PlanError(f"{path.name} names shards: it is not a plan of objects")
    check_prefixes(header.source, header.to)
    keys = {row.key for row in rows}
    size_bytes = sum(row.size_bytes for row in rows)
    # If a key stood in two rows, there would be fewer keys than rows.
    has_right_count = len(rows) == len(keys) == header.objects
    if not has_right_count or size_bytes != header.bytes:
        raise PlanError(f"{path.name}: its totals are not those of its rows")
    for row in rows:
        if not _is_allowed(header, row):
            raise PlanError(f"{path.name}: {row.key!r} is outside of the plan's prefixes")
        if not row.etag or not is_key_supported(row.key) or row.size_bytes < 0:
            raise PlanError(f"{path.name}: {row.key!r} cannot be moved")
        if header.is_shard and not header.first <= row.key <= header.last:
            raise PlanError(f"{path.name}: {row.key!r} is outside of the shard's range")


def _is_allowed(header: PlanHeader, row: PlanRow) -> bool:
    """Tell whether a row's source and destination are allowed in this kind of plan."""
    if header.action == "settle":
        return _is_settling(header, row)
    if not row.key.startswith(header.source):
        return False
    rest = row.key.removeprefix(header.source)
    if row.to == header.to + rest:
        return True
    # An undo parks the copy of a row in conflict.
    return header.action == "undo" and row.to == header.get_parked_key(rest)


def _is_settling(header: PlanHeader, row: PlanRow) -> bool:
    """Tell whether a row of a settling does what the settling's word allows.

    The row parks a source, or brings a parked object back, or moves nothing.
    """
    source_key = row.facts.get("key", "")
    if not source_key.startswith(header.source):
        return False
    if not row.to:
        return row.key == source_key
    parked = header.get_parked_key(source_key.removeprefix(header.source))
    if header.word == "taken":
        return (row.key, row.to) == (source_key, parked)
    return (row.key, row.to) == (parked, source_key)


def check_prefixes(source: str, to: str) -> None:
    """Refuse two prefixes when one lies in the other, or when one is not a prefix.

    Raises
    ------
    PlanError
        Says what is wrong.
    """
    for prefix in (source, to):
        if not prefix.endswith("/") or not is_key_supported(prefix[:-1]):
            raise PlanError(f"{prefix!r} is not a prefix: a prefix is a key that ends with '/'")
    if source.startswith(to) or to.startswith(source):
        raise PlanError(f"{source!r} and {to!r} overlap: a move onto itself would delete objects")


def encode_rows(header: PlanHeader, rows: Sequence[PlanRow]) -> bytes:
    """Return a plan's file: the header, and one line per row."""
    return encode(header, map(encode_row, rows))


def encode_row(row: PlanRow) -> bytes:
    """Return a row's line."""
    return _ROW.dump_json(row)


def parse_rows(lines: Sequence[bytes]) -> list[PlanRow]:
    """Return the rows of lines that ``encode_row`` wrote."""
    return [_ROW.validate_json(line) for line in lines]


def encode(header: PlanHeader, lines: Iterable[bytes]) -> bytes:
    """Return the bytes of a file with a header and lines."""
    file = BytesIO()
    head = header.model_dump_json(by_alias=True)
    file.write(head.encode() + b"\n")
    for line in lines:
        file.write(line + b"\n")
    return file.getvalue()
