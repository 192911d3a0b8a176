"""Carry out, take back and prove a plan, or all shards of a manifest one after the other.

For a plan that is not a shard, each function does what its namesake in ``move``, ``planning``,
``proof`` or ``ledger`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from . import move, planning, proof
from . import record as records
from .bucket import S3Bucket
from .errors import NotApprovedError, RefusedError, StoppedError
from .ledger import Ledger, Logs
from .ledger import was_cut_off as was_plan_cut_off
from .manifest import (
    Manifest,
    begin_shards,
    describe_shard,
    note_hold,
    read_manifest,
    read_shard,
    was_begun,
    write_manifest,
)
from .plan import Excluded, MovePlan
from .proof import MoveProof
from .result import MoveResult, add_up, find_ways_on
from .session import Clock
from .settling import name_undo

__all__ = ["apply_plan", "make_undo_plan", "resume_plan", "verify_plan", "was_cut_off"]


def apply_plan(
    bucket: S3Bucket, plan: MovePlan | Manifest, /, *, approve: str, **how: Any
) -> MoveResult:
    """Carry out an approved plan, or an approved manifest shard by shard.

    Shards that were begun, here or elsewhere, are resumed. Parameters and errors are those of
    ``move.apply_plan``. A shard is approved by its manifest's SHA-256. Applying one shard
    puts all shards on record, and carries out this one.
    """
    if isinstance(plan, MovePlan) and not plan.header.is_shard:
        return move.apply_plan(bucket, plan, approve=approve, **how)
    manifest = plan if isinstance(plan, Manifest) else read_manifest(plan)
    if approve != manifest.sha256:
        raise NotApprovedError(
            f"the approval is not of {manifest.id}: its SHA-256 is {manifest.sha256}"
        )
    _note_beginning(manifest, how)
    if manifest.header.action == "undo":
        return _carry_out_all(bucket, manifest, _apply_undo, how)
    _begin_shards(bucket, manifest, how)
    if isinstance(plan, MovePlan):
        return _resume(bucket, plan, **how)
    return _carry_out_all(bucket, manifest, _resume, how)


def resume_plan(bucket: S3Bucket, plan: MovePlan | Manifest, /, **how: Any) -> MoveResult:
    """Go on with a plan that was begun, or with every shard of a manifest that was begun.

    Parameters and errors are those of ``move.resume_plan``.
    """
    if isinstance(plan, MovePlan):
        return _resume(bucket, plan, **how)
    # The bucket never knows the manifest of an undo: only a ledger on this machine says that such a
    # manifest was begun.
    if plan.header.action == "undo" and any(how["logs"](plan.id).scan()):
        return _carry_out_all(bucket, plan, _apply_undo, how)
    if plan.header.action == "undo" or not was_begun(bucket, plan):
        raise NotApprovedError(f"{plan.id} was never begun, and nothing was moved")
    _note_beginning(plan, how)
    if not how.get("stop_here"):
        _begin_shards(bucket, plan, how)
    return _carry_out_all(bucket, plan, _resume, how)


def _note_beginning(manifest: Manifest, how: Mapping[str, Any]) -> None:
    """Write into the manifest's ledger who carries the manifest out.

    What happens to rows is written into the shards' ledgers.
    """
    log = how["logs"](manifest.id)
    log.append("begins", {"by": how["operator"], "sha256": manifest.sha256})


def _begin_shards(bucket: S3Bucket, manifest: Manifest, how: Mapping[str, Any]) -> None:
    """Put the shards on record that are not on record yet; pause everyone else who moves objects.

    Parameters
    ----------
    how : fields of ``move.Run``, by name
    """
    begin_shards(
        bucket,
        manifest,
        logs=how["logs"],
        operator=how["operator"],
        hold=how["hold"],
        clock=how.get("clock") or Clock(),
        notice=how.get("notice") or _tell_nobody,
    )


def _resume(bucket: S3Bucket, plan: MovePlan, /, **how: Any) -> MoveResult:
    """Go on with a plan.

    If this machine has no ledger of a shard yet, write into a new one who is held for the shard.
    """
    if plan.header.is_shard:
        note_hold(bucket, plan.id, logs=how["logs"])
    return move.resume_plan(bucket, plan, **how)


def _tell_nobody(_why: str) -> None:
    """Ignore a notice."""


def _apply_undo(bucket: S3Bucket, undo: MovePlan, /, **how: Any) -> MoveResult:
    """Begin the undo of a shard, or go on with it."""
    logs: Logs = how["logs"]
    ledger = Ledger(logs(undo.id), undo)
    if ledger.is_begun:
        return move.resume_plan(bucket, undo, **how)
    return move.apply_plan(bucket, undo, approve=undo.sha256, **how)


def _carry_out_all(
    bucket: S3Bucket,
    manifest: Manifest,
    carry_out: Callable[..., MoveResult],
    how: Mapping[str, Any],
) -> MoveResult:
    """Carry out all shards in the order of the manifest, until one raises an error.

    Parameters
    ----------
    carry_out : carries out one shard
    how : fields of ``move.Run``, by name

    Raises
    ------
    StoppedError
        When a shard is refused after others were carried out.
    """
    results: list[MoveResult] = []
    ways_on: list[str] = []
    recorded = records.list_recorded_plans(bucket, f"{manifest.id}#")
    for shard in manifest.shards:
        if how.get("stop_here") and shard.plan not in recorded:
            continue  # this shard was never begun: there is nothing to stop
        plan = read_shard(bucket, manifest, shard)
        try:
            result = carry_out(bucket, plan, **how)
        except RefusedError as error:
            if not results:
                raise
            done = f"{len(results)} of {len(manifest.shards)} shards were carried out"
            way_on = manifest.header.resume_command
            raise StoppedError(f"{done}; {shard.plan}: {error}. Go on with: {way_on}") from error
        results.append(result)
        if not result.is_complete:
            ways_on += find_ways_on(plan, result.to_json())
    return add_up(manifest.id, results, list(dict.fromkeys(ways_on)))


def was_cut_off(plan: MovePlan | Manifest, *, logs: Logs) -> bool:
    """Tell whether a plan was begun on this machine, and needs a resume. Only reads.

    A manifest or a shard never needs a resume: another ``apply`` goes on with it.
    """
    if isinstance(plan, Manifest) or plan.header.is_shard:
        return False
    return was_plan_cut_off(plan, logs=logs)


def make_undo_plan(
    bucket: S3Bucket, plan: MovePlan | Manifest, *, logs: Logs, **how: Any
) -> MovePlan | Manifest:
    """Write the plan that takes a plan back, or a manifest of the undos of a manifest's shards.

    The undos come in the reverse order of the shards. A shard of which this machine's ledgers know
    no copy gets no undo. An undo without rows is not in the manifest.

    Parameters and errors are those of ``planning.make_undo_plan``.
    """
    if isinstance(plan, MovePlan):
        return planning.make_undo_plan(bucket, plan, logs=logs, **how)
    excluded = Excluded()
    undos = []
    for shard in reversed(plan.shards):
        shard_plan = read_shard(bucket, plan, shard)
        if not Ledger(logs(shard.plan), shard_plan).landings:
            excluded.add("not_moved_from_here", shard.plan)
            continue
        undo = planning.make_undo_plan(bucket, shard_plan, logs=logs, **how)
        undos.append(undo)
    if not undos:
        raise NotApprovedError(f"{plan.id} was never begun, or this folder knows of no copy of it")
    header = undos[0].header.model_copy(
        update={
            "id": _name_undo(plan, logs),
            "parent": plan.id,
            "release": plan.id,
            "first": "",
            "last": "",
            "expires_at": min(undo.expires_at for undo in undos),
        }
    )
    shards = [describe_shard(undo) for undo in undos if undo.rows]
    oldest_times = [undo.header.oldest for undo in undos if undo.header.oldest is not None]
    return write_manifest(
        plan.path.parent,
        header,
        shards,
        oldest=min(oldest_times, default=None),
        excluded=excluded,
    )


def _name_undo(manifest: Manifest, logs: Logs) -> str:
    """Return the id of a manifest's next undo: the first of which this machine has no ledger."""
    for number in count(1):
        undo_id = name_undo(manifest, number)
        if not any(logs(undo_id).scan()):
            break
    return undo_id


def verify_plan(
    bucket: S3Bucket, plan: MovePlan | Manifest, *, logs: Logs, **how: Any
) -> MoveProof:
    """Prove a plan, or all shards of a manifest; name the shards that are not proven. Only reads.

    Parameters and errors are those of ``proof.verify_plan``.
    """
    if isinstance(plan, MovePlan):
        return proof.verify_plan(bucket, plan, logs=logs, **how)
    proofs = []
    for shard in plan.shards:
        shard_plan = read_shard(bucket, plan, shard)
        proofs.append(proof.verify_plan(bucket, shard_plan, logs=logs, **how))
    return proof.add_up(plan.id, bucket.read_clock(), proofs)
