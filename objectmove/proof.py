"""Prove a move by looking anew: where is each planned object, and what else did we touch?"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from .bucket import S3Bucket, Seen, find_all
from .ledger import Ledger, Logs, read_record
from .move import place_of
from .plan import MovePlan
from .session import Clock, Notice
from .table import Proof, State, decide

_NAMED = 100
_FINE = (Proof.IN_PLACE, Proof.GONE_AFTER_LANDED)


class MoveProof(NamedTuple):
    """What an independent look found.

    Attributes
    ----------
    counts : objects by outcome: those of ``table.Proof``, ``lost`` (a newer version that went in
        the declared window) and ``foreign_changed`` (planned content, written meanwhile, at a key
        that no row names)
    keys : some of the keys of each outcome but ``in_place``
    approved_by : who approved
    """

    plan: str
    at: datetime
    counts: dict[str, int]
    keys: dict[str, tuple[str, ...]]
    approved_by: str

    @property
    def is_complete(self) -> bool:
        """Whether every planned object is in place, or was taken after our copy was confirmed."""
        return not any(count for name, count in self.counts.items() if name not in _FINE)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        names = {name: list(keys) for name, keys in self.keys.items()}
        return {"plan": self.plan, **self.counts, "keys": names, "approved_by": self.approved_by}


def verify_plan(
    bucket: S3Bucket, plan: MovePlan, *, logs: Logs, clock: Clock, notice: Notice = lambda _: None
) -> MoveProof:
    """Look at every planned key and destination, and compare with the ledger. Only reads.

    Parameters
    ----------
    notice : told why and how long it waits: until no request of ours can take effect any more

    Raises
    ------
    StoreError
        When the bucket cannot be read: nothing is proven then.
    """
    record = read_record(bucket, plan.id)
    ledger = Ledger(logs(plan.id), plan, record)
    in_doubt = ledger.rows(State.DOUBTFUL, State.LANDED)
    while in_doubt and (now := bucket.read_clock()) < ledger.fence_at:
        left = (ledger.fence_at - now).total_seconds()
        notice(f"{len(in_doubt)} objects may still change: {left:.0f} s more")
        clock.sleep(min(left + 0.2, 5.0))
    at = bucket.read_clock()
    header, rows = plan.header, [row for row in plan.rows if row.to]
    sources = find_all(bucket, header.source, [row.key for row in rows])
    names, contents = {row.to for row in rows}, {(row.etag, row.size_bytes) for row in rows}
    written: dict[str, Seen | None] = dict.fromkeys(names)
    for seen in bucket.list_objects(header.to):
        if seen.key in names or (seen.etag, seen.size_bytes) in contents:
            written[seen.key] = seen
    found = {str(name): list[str]() for name in (*Proof, "foreign_changed")} | {"lost": ledger.lost}
    for place, row in enumerate(plan.rows):
        etag = ledger.landings[place].etag if place in ledger.landings else ""
        source = place_of(sources, row, at_source=True)
        to = place_of(written, row, at_source=False, etag=etag)
        rule = decide(state=ledger.states[place], source=source, destination=to)
        found[rule.proof].append(row.key)
    times = [landing.at for landing in ledger.landings.values() if landing.at]
    for key in sorted(written.keys() - names) if times else ():
        foreign = written[key]
        if foreign and min(times) <= foreign.last_modified <= max(times):
            found["foreign_changed"].append(key)
    counts = {name: len(some) for name, some in found.items()}
    named = {n: tuple(some[:_NAMED]) for n, some in found.items() if some and n != Proof.IN_PLACE}
    return MoveProof(plan.id, at, counts, named, ledger.approved_by)
