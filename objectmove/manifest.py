"""A plan that is cut by key range into shards, under one approval.

A manifest is a plan's file whose lines name other plans: their ranges of keys, counts and hashes.
The manifest's SHA-256 approves all of these plans. A shard is a plan like any other; its id is
``MANIFEST#k``. The undo of a manifest is a manifest of the undos of its shards, in reverse order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from math import ceil
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from chainlog import ChainedLog

from . import plan as plans
from . import record as records
from .bucket import S3Bucket, format_time
from .carry import Hold
from .errors import (
    ExpiredError,
    LimitError,
    MoveError,
    NotApprovedError,
    PlanError,
    StoppedError,
    StoreError,
)
from .ledger import Logs
from .plan import Excluded, FrozenModel, MovePlan, PlanFile, PlanHeader, PlanId, PlanRow
from .record import HoldNote, Record
from .session import Clock, Notice, Session, read_store_id

MAX_SHARDS = 256
#: The most objects of all shards together.
MAX_OBJECTS = 10_000_000
_FORMAT = "objectmove/plan/shards/1"


class Shard(FrozenModel):
    """One line of a manifest: a plan's id, range of keys and totals, and its file's SHA-256."""

    plan: PlanId
    first: str
    last: str
    objects: int
    bytes: int
    sha256: str


_SHARD = TypeAdapter(Shard)


@dataclass(frozen=True, slots=True)
class Manifest(PlanFile):
    """A plan that is carried out shard by shard; it has no rows of its own."""

    shards: tuple[Shard, ...] = field(repr=False)
    rows: tuple[PlanRow, ...] = ()

    def find_shard(self, plan: str) -> Shard | None:
        """Return the line that names a plan; None when there is none."""
        return next((shard for shard in self.shards if shard.plan == plan), None)


def parse_plan_file(content: bytes, *, path: Path) -> MovePlan | Manifest:
    """Hash the bytes of a plan, or of a manifest, and read them.

    Raises
    ------
    PlanError
        When a line is not exactly what this package writes, or lines contradict each other.
    """
    if _is_manifest(content):
        return parse_manifest(content, path=path)
    return plans.parse_plan(content, path=path)


def _is_manifest(content: bytes) -> bool:
    """Tell whether a file's first line says that the file is a manifest."""
    first_line, _, _ = content.partition(b"\n")
    return f'"{_FORMAT}"'.encode() in first_line


def parse_manifest(content: bytes, *, path: Path) -> Manifest:
    """Hash a manifest's bytes and read them.

    Raises
    ------
    PlanError
        When a line is not exactly what this module writes, the file was renamed, or the shards
        overlap or do not agree with the header.
    """
    header, shards = plans.parse_lines(content, _SHARD, name=path.name)
    _check_shards(path, header, shards)
    return Manifest(
        path=path,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        header=header,
        shards=shards,
    )


def _encode(header: PlanHeader, shards: Sequence[Shard]) -> bytes:
    """Return the bytes of a manifest's file."""
    lines = [shard.model_dump_json().encode() for shard in shards]
    return plans.encode(header, lines)


def _check_shards(path: Path, header: PlanHeader, shards: Sequence[Shard]) -> None:
    """Refuse a renamed file, and shards that do not agree with the header or overlap."""
    if path.stem != header.id:
        raise PlanError(f"{path.name} was renamed: it is {header.id}")
    if header.format != _FORMAT:
        raise PlanError(f"{path.name} names no shards: it is not a manifest")
    objects = sum(shard.objects for shard in shards)
    size_bytes = sum(shard.bytes for shard in shards)
    if (objects, size_bytes) != (header.objects, header.bytes):
        raise PlanError(f"{path.name}: its totals are not those of its shards")
    last_key = ""  # of the shard before
    for shard in sorted(shards, key=lambda shard: shard.first):
        if plans.find_manifest(shard.plan) != header.release:
            raise PlanError(f"{path.name}: {shard.plan} is not a shard of {header.release}")
        if not last_key < shard.first <= shard.last:
            raise PlanError(f"{path.name}: the range of {shard.plan} overlaps another one")
        last_key = shard.last


class Spool:
    """Keeps rows on the disk, not in RAM, from their listing until they are cut into shards.

    Parameters
    ----------
    file : an empty file
    most : how many rows may be added, but no more than ``MAX_OBJECTS``

    Attributes
    ----------
    count : how many rows there are
    oldest : since when the longest-waiting object waits; None without rows
    """

    def __init__(self, file: IO[bytes], *, most: int) -> None:
        self.count = 0
        self.oldest: datetime | None = None
        self._file = file
        self._most = min(most, MAX_OBJECTS)
        self._last_key = ""

    def add(self, rows: Sequence[PlanRow]) -> None:
        """Add rows, in the order of their keys.

        Raises
        ------
        LimitError
            When there are too many.
        PlanError
            When the keys do not ascend: shards cannot be ranges of keys then.
        """
        for row in rows:
            if row.key <= self._last_key:
                raise PlanError(
                    f"this store does not list keys in their order ({row.key!r} comes after "
                    f"{self._last_key!r}): plan without --shards"
                )
            self._last_key = row.key
            self.oldest = min(self.oldest or row.age_start, row.age_start)
            self._file.write(plans.encode_row(row) + b"\n")
        self.count += len(rows)
        if self.count > self._most:
            raise LimitError(f"more would move than these shards may hold: {self._most} objects")

    def cut(self, size: int) -> Iterator[list[PlanRow]]:
        """Yield the rows again, in lists of ``size`` rows; the last list may be shorter."""
        self._file.seek(0)
        while True:
            lines = list(islice(self._file, size))
            if not lines:
                return
            yield plans.parse_rows(lines)


def write_shards(
    folder: Path, header: PlanHeader, spool: Spool, *, number: int, excluded: Excluded
) -> Manifest:
    """Write a plan for each shard, and the manifest that names them.

    Parameters
    ----------
    header : of the whole plan; its id becomes the manifest's
    number : how many shards to make; there may be fewer when there are few rows

    Raises
    ------
    PlanError
        When a file cannot be written.
    """
    size = ceil(spool.count / number)
    shards = []
    for index, rows in enumerate(spool.cut(size), start=1):
        plan_id = f"{header.id}#{index}"
        changes = {
            "id": plan_id,
            "release": plan_id,
            "first": rows[0].key,
            "last": rows[-1].key,
        }
        shard_header = header.model_copy(update=changes)
        plan = plans.write_plan(folder, shard_header, rows, Excluded())
        shards.append(describe_shard(plan))
    return write_manifest(folder, header, shards, oldest=spool.oldest, excluded=excluded)


def describe_shard(plan: MovePlan) -> Shard:
    """Return the line by which a manifest names a plan."""
    header = plan.header
    return Shard(
        plan=plan.id,
        first=header.first,
        last=header.last,
        objects=header.objects,
        bytes=header.bytes,
        sha256=plan.sha256,
    )


def write_manifest(
    folder: Path,
    header: PlanHeader,
    shards: Sequence[Shard],
    *,
    oldest: datetime | None,
    excluded: Excluded,
) -> Manifest:
    """Write a manifest under ``folder`` and return it.

    Parameters
    ----------
    header : of the whole plan, without format and totals
    oldest : since when the longest-waiting object waits; None when nothing waits

    Raises
    ------
    PlanError
        When a file cannot be written.
    """
    totals = {
        "format": _FORMAT,
        "objects": sum(shard.objects for shard in shards),
        "bytes": sum(shard.bytes for shard in shards),
        "oldest": oldest,
        "selection": {**header.selection, "shards": str(len(shards))},
        **excluded.describe(),
    }
    header = header.model_copy(update=totals)
    manifest = parse_manifest(_encode(header, shards), path=folder / f"{header.id}.jsonl")
    plans.save_plan(manifest)
    return manifest


def read_manifest(plan: MovePlan) -> Manifest:
    """Return the manifest of a shard, from the same folder.

    Raises
    ------
    PlanError
        When the manifest is missing, or does not name the hash of the shard's file.
    """
    path = plan.path.with_name(f"{plan.header.manifest}.jsonl")
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}. This manifest approves {plan.id}"
        raise PlanError(text) from error
    manifest = parse_manifest(content, path=path)
    check_shard(manifest, plan)
    return manifest


def find_approval(plan: MovePlan | Manifest) -> str:
    """Return the hash that approves a plan: its own, or for a shard the hash of its manifest.

    Returns
    -------
    The hash. For a shard without its manifest an empty text: such a shard can be resumed, but not
    approved.

    Raises
    ------
    PlanError
        When the manifest does not name the hash of the shard's file.
    """
    if isinstance(plan, Manifest) or not plan.header.is_shard:
        return plan.sha256
    path = plan.path.with_name(f"{plan.header.manifest}.jsonl")
    return read_manifest(plan).sha256 if path.exists() else ""


def check_shard(manifest: Manifest, plan: MovePlan) -> None:
    """Refuse a plan if a manifest does not name its id, or names another hash."""
    shard = manifest.find_shard(plan.id)
    if shard is None or shard.sha256 != plan.sha256:
        raise PlanError(f"{plan.path.name} is not the shard that {manifest.id} names: plan again")


def read_shard(bucket: S3Bucket, manifest: Manifest, shard: Shard) -> MovePlan:
    """Return a shard's plan: from the manifest's folder, or from the bucket's record.

    Raises
    ------
    PlanError
        When the plan is in neither place, or does not have the hash that the manifest names.
    """
    path = manifest.path.with_name(f"{shard.plan}.jsonl")
    plan: MovePlan | None
    if path.exists():
        plan = plans.parse_plan(path.read_bytes(), path=path)
    else:
        plan = records.fetch_plan(bucket, shard.plan, find_folder=lambda: path.parent)
    if plan is None:
        raise PlanError(
            f"the plan {shard.plan} is not on this machine, and not to be had from the bucket: it "
            "has ended, was never begun, or the bucket cannot be read. Go on with it on the "
            "machine where it was planned."
        )
    check_shard(manifest, plan)
    return plan


def fetch_plan(
    bucket: S3Bucket, plan_id: str, *, find_folder: Callable[[], Path]
) -> MovePlan | Manifest | None:
    """Write into a folder of this machine a plan, or a manifest, that the bucket remembers.

    For a shard, also write its manifest, which approves the shard. Parameters, return value and
    errors are those of ``record.fetch_plan``.
    """
    find_once = cache(find_folder)  # a shard and its manifest go into the same folder
    plan = records.fetch_plan(bucket, plan_id, find_folder=find_once)
    if plan is not None and not plan.header.manifest:
        return plan
    # A manifest has no record of its own: ``plan`` is None when ``plan_id`` is a manifest's.
    manifest_id = plans.find_manifest(plan_id) or plan_id
    try:
        content = records.read_recorded_manifest(bucket, manifest_id)
    except StoreError:
        return plan
    if content is None or not _is_manifest(content):
        return plan
    manifest = parse_manifest(content, path=find_once() / f"{manifest_id}.jsonl")
    plans.save_plan(manifest)
    return manifest if plan_id == manifest_id else plan


def was_begun(bucket: S3Bucket, manifest: Manifest) -> bool:
    """Tell whether the bucket remembers that a manifest was approved and begun. Only reads.

    A manifest counts as begun as soon as the bucket holds its file.

    Raises
    ------
    NotApprovedError
        When another manifest was begun by that name.
    """
    recorded = records.read_recorded_manifest(bucket, manifest.id)
    if recorded not in (None, manifest.content):
        raise NotApprovedError(
            f"{manifest.id} is not the plan that was approved by that name: make a new plan"
        )
    return recorded is not None


def begin_shards(
    bucket: S3Bucket,
    manifest: Manifest,
    *,
    logs: Logs,
    operator: str,
    hold: Hold,
    clock: Clock,
    notice: Notice,
) -> None:
    """Put an approved manifest and all of its shards on record, unless they are on record.

    Each shard's record says that the others (everyone else who moves objects) are held for the
    shard, unless a person paused them before, or these settings hold nobody. So only the shard that
    ends last lets them go on. The shards' ledgers on this machine say the same, in case the
    bucket's memory is removed.

    Raises
    ------
    StoppedError
        When it is not certain that the others stand still, or that the bucket was written. Some
        shards may be on record by then.
    ExpiredError
        When the manifest is too old to begin.
    NotApprovedError
        When the bucket's memory was removed since the manifest was made.

    Notes
    -----
    Changes ``.runbook/``, and pauses the others. Afterwards each shard is resumed or stopped on its
    own.
    """
    header = manifest.header
    if not _list_unrecorded(bucket, manifest):
        return
    with Session(bucket, header, operator, clock, notice, hold_of=manifest.id) as session:
        # List again under the claim: another session may have put shards on record.
        unrecorded = _list_unrecorded(bucket, manifest)
        if not was_begun(bucket, manifest) and clock.now() > header.expires_at:
            until = format_time(header.expires_at)
            raise ExpiredError(f"{manifest.id} expired at {until}: plan again")
        if header.store_id != read_store_id(bucket):
            raise NotApprovedError(
                f"the bucket's memory (.runbook/) was removed since {manifest.id} was made: "
                "plan again"
            )
        if unrecorded:
            records.put_recorded_plan(session, manifest)
            plans_of_shards = (read_shard(bucket, manifest, shard) for shard in unrecorded)
            _put_on_record(session, manifest, plans_of_shards, logs=logs, hold=hold)


def note_hold(bucket: S3Bucket, plan_id: str, *, logs: Logs) -> None:
    """Write into this machine's ledger the hold of a shard that another machine put on record.

    Then this machine, too, can end the hold if the bucket's memory is removed.
    """
    log = logs(plan_id)
    if any(log.scan()):
        return
    record = records.read_record(bucket, plan_id)
    if record is None or record.hold is None:
        return
    with log.locked():
        _append_hold(log, record.hold)


def _put_on_record(
    session: Session,
    manifest: Manifest,
    shards: Iterator[MovePlan],
    *,
    logs: Logs,
    hold: Hold,
) -> None:
    """Put shards on record; pause everyone else as soon as the first shard is on record."""
    note: HoldNote | None = None
    is_first = True
    for plan in shards:
        log = logs(plan.id)
        with log.locked():
            if is_first:
                note = _make_note(session, hold)
            records.put_recorded_plan(session, plan)
            if note is not None:
                _append_hold(log, note)
            records.put_record(session, _describe_unbegun(session, plan, note))
            if is_first and note is not None and not hold.is_paused():
                # Pause now, not after all shards: if a person paused everyone else meanwhile,
                # that pause would look like ours.
                _pause(session, hold, note, manifest=manifest, log=log)
        is_first = False


def _append_hold(log: ChainedLog, note: HoldNote) -> None:
    """Write into a shard's ledger who is held for the shard."""
    log.append("hold", {"note": note.model_dump(mode="json")})


def pause(session: Session, hold: Hold, note: HoldNote, log: ChainedLog) -> None:
    """Make everyone else who moves objects stand still.

    A request to pause does not expire, so it may take effect late. If another session may have
    ended the hold before the pause, a line ``late_pause`` is written into the ledger: then a resume
    of the plan ends the pause.

    Raises
    ------
    MoversError
        When the others do not stand still.
    MoveError
        When the pause may have come late. The line ``late_pause`` is written then.
    """
    try:
        hold.pause()
    finally:
        try:
            session.check_claim()
        except MoveError:
            log.append("late_pause", {"note": note.model_dump(mode="json")})
            raise


def _pause(
    session: Session, hold: Hold, note: HoldNote, *, manifest: Manifest, log: ChainedLog
) -> None:
    """Make everyone else stand still; an error names the command that goes on."""
    try:
        pause(session, hold, note, log)
    except MoveError as error:
        text = f"{error}. Go on with: {manifest.header.resume_command}"
        raise StoppedError(text) from error


def _list_unrecorded(bucket: S3Bucket, manifest: Manifest) -> list[Shard]:
    """Return the shards that are not on record."""
    recorded = records.list_recorded_plans(bucket, f"{manifest.id}#")
    return [shard for shard in manifest.shards if shard.plan not in recorded]


def _make_note(session: Session, hold: Hold) -> HoldNote | None:
    """Return the note of the shards' hold; None when there is nobody to hold.

    Then a person paused everyone else, or these settings hold nobody.
    """
    is_held = any(record.hold for record in records.list_records(session.bucket))
    if hold.is_paused() and not is_held:
        return None
    return records.make_hold_note(session, words=hold.words, way_back=hold.way_back)


def _describe_unbegun(session: Session, plan: MovePlan, note: HoldNote | None) -> Record:
    """Return the record of a shard that is approved with its manifest, and not begun."""
    return Record(
        plan=plan.id,
        release=plan.id,
        parent="",
        action="move",
        begun_at=session.stamp,
        sha256=plan.sha256,
        by=session.claim.by,
        host=session.claim.host,
        ledger="",
        fence_at=datetime.min.replace(tzinfo=UTC),
        begun=0,
        hold=note,
    )
