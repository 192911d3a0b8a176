"""Prove a release by looking anew: where is each planned object, and what else did we touch?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from ..clients.object_store import ObjectStore, is_same_version
from ..model import Json, ObjectInfo, format_time
from ..record.incident import write_json
from ..record.log import utc_now
from .ledger import LOST, LedgerState, read_ledger
from .lookup import Walk
from .plan_file import PlanRow, ReleasePlan

__all__ = ["Proof", "verify_release"]

_CHUNK = 1000
_NAMED = 100
_FINE = ("in_place", "gone_after_done", "changed_by_others", "not_moved")
_BAD = ("lost", "duplicated", "foreign_changed")


@dataclass(frozen=True, slots=True)
class Proof:
    """What an independent look found, in numbers and names.

    Attributes
    ----------
    counts : objects by outcome: ``in_place``, ``gone_after_done`` (proven in place, then taken by
        a consumer), ``changed_by_others``, ``not_moved`` (still the planned version at the
        source), ``lost`` (nowhere, and never proven in place), ``duplicated`` (at both), and
        ``foreign_changed`` (planned content at a key that no plan row names)
    keys : some of the keys of each outcome but ``in_place``
    evidence : the file that says the same
    """

    plan: str
    at: datetime
    counts: dict[str, int]
    keys: dict[str, tuple[str, ...]]
    evidence: Path

    @property
    def is_proven(self) -> bool:
        """Whether nothing is lost, doubled or foreign."""
        return not any(self.counts[name] for name in _BAD)

    @property
    def is_complete(self) -> bool:
        """Whether nothing planned still waits at the source."""
        return self.is_proven and not self.counts["not_moved"]

    def to_json(self) -> dict[str, Json]:
        """Return it as ``--json`` shows it."""
        names = {name: list(keys) for name, keys in self.keys.items()}
        return {"plan": self.plan, **self.counts, "keys": names}


def verify_release(
    store: ObjectStore,
    plan: ReleasePlan,
    *,
    ledger_path: Path,
    evidence: Path,
    now: Callable[[], datetime] = utc_now,
) -> Proof:
    """Look at every planned key and destination, and compare with the ledger.

    Parameters
    ----------
    evidence : where the proof is written, as JSON

    Notes
    -----
    Changes the evidence file only.
    """
    state, at = read_ledger(ledger_path), now()
    counts = dict.fromkeys((*_FINE, *_BAD), 0)
    keys: dict[str, tuple[str, ...]] = {}

    def count(outcome: str, key: str) -> None:
        counts[outcome] += 1
        if outcome != "in_place" and len(keys.get(outcome, ())) < _NAMED:
            keys[outcome] = (*keys.get(outcome, ()), key)

    rows, names, contents = enumerate(plan.iter_rows()), set(), set()
    here, there = Walk(store, plan.header.source), Walk(store, plan.header.to)
    while chunk := list(islice(rows, _CHUNK)):
        sources = here.look_up([row.key for _, row in chunk])
        copies = there.look_up([row.to for _, row in chunk])
        for place, row in chunk:
            names.add(row.to)
            contents.add((row.etag, row.size_bytes))
            outcome = _judge(place, row, sources.get(row.key), copies.get(row.to), state)
            count(outcome, row.key)
    for info in _written_meanwhile(store, plan, state):
        if info.key not in names and (info.etag, info.size_bytes) in contents:
            count("foreign_changed", info.key)
    proof = Proof(plan.id, at, counts, keys, evidence)
    ledger: dict[str, Json] = {
        "approved_by": state.approved_by,
        "moved": state.moved,
        "already": state.already,
        "done": state.done is not None,
        "lost_in_window": state.lost_in_window,
    }
    write_json(
        evidence,
        {
            "schema": "runbook/proof/1",
            "at": format_time(at),
            "sha256": plan.sha256,
            "how": "a fresh listing of both prefixes, compared with plan and ledger",
            "ledger": ledger,
            **proof.to_json(),
        },
    )
    return proof


def _judge(
    place: int,
    row: PlanRow,
    source: ObjectInfo | None,
    copy: ObjectInfo | None,
    state: LedgerState,
) -> str:
    landed_at = state.landed.get(place)
    is_copy = copy is not None and (copy.etag, copy.size_bytes) == (row.etag, row.size_bytes)
    if source is not None:
        if not is_same_version(row.info, source):
            return "changed_by_others"
        return "duplicated" if is_copy else "not_moved"
    if copy is not None and is_copy:
        ours = ObjectInfo(row.to, row.etag, row.size_bytes, landed_at or copy.last_modified)
        return "in_place" if is_same_version(ours, copy) else "changed_by_others"
    if landed_at is not None:
        return "gone_after_done" if copy is None else "changed_by_others"
    conflict = state.conflicts.get(place)
    may_be_ours = conflict is None or conflict.reason.startswith(LOST)
    return "lost" if place in state.begun and may_be_ours else "changed_by_others"


def _written_meanwhile(
    store: ObjectStore, plan: ReleasePlan, state: LedgerState
) -> list[ObjectInfo]:
    """Return what was written under the destination while the ledger was open."""
    if state.begun_at is None or state.last_at is None:
        return []
    first = state.begun_at.replace(microsecond=0)
    listing = store.list_objects(plan.header.to)
    return [info for info in listing if first <= info.last_modified <= state.last_at]
