"""A plan: exactly which objects would move. The hash of its bytes is the approval.

The file is a header line with the totals, then one line per object, ordered by key. A line that
this module would write differently is refused, so that an approver sees all that the file holds.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from .bucket import Request, S3Bucket, Texts, Version, format_time, is_key_supported
from .errors import PlanError, StoreError

PLANS = ".runbook/plans/"
#: The largest object that passes through our memory, because the store cannot copy.
MAX_PUT_BYTES = 1_048_576
#: What an approver must know of a store that lacks an ability, as {ability: text}.
_UNGUARDED = {
    "conditional_delete": "this store deletes without a condition: a file that is rewritten within "
    "{seconds:g} s after our last check can be deleted",
    "conditional_copy": "this store copies without a condition: a file that somebody else writes "
    "to the destination within {seconds:g} s after our check can be overwritten",
    "copies": "this store does not copy: each file is read and put again, which drops its tags, "
    f"and files over {MAX_PUT_BYTES:,} bytes stay",
}
_NOT_PROMISED = (
    "not guarded against: a proxy that repeats requests; someone who moves files and is not "
    "paused; someone who removes .runbook/ meanwhile"
)

Timestamp = Annotated[datetime, PlainSerializer(format_time, return_type=str)]


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Abilities(FrozenModel):
    """Which requests and conditions the store honours, as the probe found out."""

    conditional_copy: bool  # a copy, or the put in its place, overwrites nothing
    conditional_put: bool  # a put overwrites nothing, or only the ETag that it names
    conditional_delete: bool  # a delete spares objects with other ETags
    conditional_bulk: bool = False  # a bulk delete does, too
    rename: bool = False  # the store can rename, with conditions
    hash_etags: bool = True  # the ETag of a plain put and of its copy is the MD5 of the content
    #: If it can't copy, we read each object, and put it at its destination. True is not written, so
    #: that plans from before this field keep their hashes.
    copies: bool = Field(True, exclude_if=bool)


class Timing(FrozenModel):
    """How long things may take, in seconds."""

    lease_s: float = 60  # from the last save until the lock lapses, by the store's clock
    effect_s: float = 10  # until an accepted request has taken effect
    spread_s: float = 5  # how far the clocks of the store's nodes may differ

    @property
    def expires_s(self) -> int:
        """How long a request's signature is valid, at most 20 s.

        The request's last effect comes a second or more before the lock can lapse.
        """
        left_s = self.lease_s - self.effect_s - self.spread_s - 1
        return min(20, int(left_s))

    @property
    def fence_s(self) -> float:
        """Seconds from a signature's date until its request can't take effect any more."""
        return self.expires_s + self.effect_s + self.spread_s


class PlanHeader(FrozenModel):
    """What the plan is about."""

    format: Literal["objectmove/plan/8"] = Field("objectmove/plan/8", alias="schema")
    id: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")
    step: str
    endpoint: str
    bucket: str
    source: str = Field(alias="from")
    to: str
    made_at: Timestamp
    made_by: str
    expires_at: Timestamp
    undo_s: float = 900  # how long after its first announcement the release can be undone
    limit_objects: int  # the most objects in the plan, or in each of its parts
    parts: int = 0  # for several machines; 0 for one
    abilities: Abilities
    timing: Timing
    others: str  # how everyone else is kept from moving objects, as a text
    selection: dict[str, str] = {}
    bucket_id: str
    parked: str = "parked/"
    objects: int = 0
    bytes: int = 0
    excluded: dict[str, int] = {}  # how many objects were left out, by reason

    @model_validator(mode="after")
    def _check_prefixes(self) -> Self:
        prefixes = (self.source, self.to, self.parked)
        for prefix in prefixes:
            inside = [each for each in prefixes if each.startswith(prefix)]
            if not prefix.endswith("/") or not is_key_supported(prefix[:-1]) or len(inside) > 1:
                raise PlanError(
                    f"{prefix!r} cannot be used: a prefix ends with '/', and no other one "
                    "may lie in it"
                )
        return self

    @property
    def window(self) -> str:
        """Which changes by others this store can't prevent in a move, and for how many seconds."""
        parts = [text for name, text in _UNGUARDED.items() if not getattr(self.abilities, name)]
        # A look may be 2 s old when a request that rests on it is sent.
        return "; ".join([*parts, _NOT_PROMISED]).format(seconds=2 + self.timing.fence_s)

    def get_to(self, key: str) -> str:
        return self.to + key.removeprefix(self.source)


@dataclass(frozen=True, slots=True)
class PlanRow(Version):
    """The version of an object that was planned, and where it would go."""

    last_modified: Timestamp
    to: str
    age_start: Timestamp  # since when the object waits, by the caller's rules
    facts: Texts = field(default_factory=dict)  # from the caller, for the approver
    sha256: str = ""  # of the content, or "" if the ETag is its MD5

    def to_json(self) -> dict[str, Any]:
        return dict(ROW.dump_python(self, mode="json"))


ROW = TypeAdapter(PlanRow)


class Rows(Sequence[PlanRow]):
    """The rows of a plan, parsed on demand: as bytes, a large plan needs little memory."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [ROW.validate_json(line) for line in self.lines[index]]
        return ROW.validate_json(self.lines[index])


@dataclass(frozen=True, repr=False)
class Plan:
    content: bytes
    sha256: str
    header: PlanHeader
    rows: Rows

    @property
    def id(self) -> str:
        return self.header.id

    @property
    def undo_id(self) -> str:
        return f"{self.id}-undo"

    def get_approval(self, verb: str) -> str:
        """Return the hash that approves ``apply`` or ``undo``; other verbs need none."""
        approvals = {"apply": self.sha256, "undo": self.digest("undo")}
        return approvals.get(verb, "")

    def digest(self, *words: str) -> str:
        """Return the hash of the plan's hash and these words: another approval of this plan."""
        return hashlib.sha256("\n".join([self.sha256, *words]).encode()).hexdigest()

    def make_put(self) -> Request:
        """Return the request that puts the plan into the bucket, unless it is there."""
        return Request(
            "put",
            PLANS + self.sha256,
            body=self.content,
            if_absent=self.header.abilities.conditional_put,
        )

    def get_range(self, part: int) -> tuple[int, int]:
        """Return a part's first row, and the first row after it; part 0 is the whole plan."""
        count = len(self.rows)
        if part == 0:
            return 0, count
        parts = self.header.parts
        return count * (part - 1) // parts, count * part // parts


def build_plan(header: PlanHeader, rows: Iterable[PlanRow]) -> Plan:
    """Return the plan of these rows; raise ValueError when a row can't be moved."""
    found = {}
    total_bytes = 0
    for row in rows:
        is_inside = row.key.startswith(header.source) and row.to == header.get_to(row.key)
        if not (is_inside and row.etag and is_key_supported(row.key)):
            raise ValueError(f"{row.key!r} cannot be moved")
        found[row.key] = ROW.dump_json(row)
        total_bytes += row.size_bytes
    lines = [found[key] for key in sorted(found)]
    header = header.model_copy(update={"objects": len(lines), "bytes": total_bytes})
    content = b"\n".join([header.model_dump_json(by_alias=True).encode(), *lines, b""])
    return Plan(content, hashlib.sha256(content).hexdigest(), header, Rows(lines))


def parse_plan(content: bytes, name: str) -> Plan:
    """Return the plan of these bytes; raise PlanError unless ``plan`` would write exactly them."""
    head, *lines = content.splitlines() or [b""]
    try:
        plan = build_plan(PlanHeader.model_validate_json(head), Rows(lines))
        if plan.content != content:
            raise ValueError("it is not as `plan` writes it")
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise PlanError(f"{name} is not a plan ({reason}). Make a new one.") from error
    return plan


def fetch_plan(bucket: S3Bucket, sha256: str) -> Plan:
    """Return a plan that the bucket keeps; raise StoreError when it doesn't have these bytes."""
    key = PLANS + sha256
    read = bucket.read_object(key)
    if read is None or hashlib.sha256(read[0]).hexdigest() != sha256:
        raise StoreError(f"the bucket does not have the plan {key} any more")
    return parse_plan(read[0], key)
