"""A bucket in memory, a clock that only waits when told to, and a plan over some labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chainlog import ChainedLog
from objectmove.bucket import Request, Seen
from objectmove.manifest import Manifest, read_shard
from objectmove.move import MoveResult
from objectmove.plan import MovePlan, Timing
from objectmove.planning import Judgement, make_move_plan
from objectmove.proof import MoveProof
from objectmove.shards import apply_plan, make_undo_plan, resume_plan, verify_plan
from tests.support.memory_bucket import MemoryBucket
from tests.support.memory_store import MemoryStore

__all__ = ["FakeHold", "Place", "TickingClock"]

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


class TickingClock:
    """Sleeping passes the store's time too."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self.bucket, self.seconds = bucket, 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        self.bucket.pass_time(seconds)


class FakeHold:
    """A worker that is paused, or not."""

    words = "the worker is paused meanwhile"
    way_back = "Start the worker."
    holds = True

    def __init__(self) -> None:
        self.paused, self.calls = False, list[str]()
        self.fail_on: dict[str, Exception] = {}

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail_on:
            raise self.fail_on[name]

    def is_paused(self) -> bool:
        return self.paused

    def pause(self) -> None:
        self.paused = True
        self._call("pause")

    def check(self) -> None:
        self._call("check")

    def resume(self) -> None:
        self._call("resume")
        self.paused = False


class Place:
    """Some labels under ``pending/``, and all that a move of them needs."""

    def __init__(self, folder: Path, *, count: int = 3, is_strict: bool = True) -> None:
        self.folder = folder
        self.bucket = MemoryBucket(MemoryStore(), is_strict=is_strict)
        self.clock = TickingClock(self.bucket)
        self.hold = FakeHold()
        self.notices: list[str] = []
        for number in range(count):
            self.write(f"pending/{number}.pdf", f"label {number}".encode())

    def write(self, key: str, content: bytes = b"x", **metadata: str) -> None:
        """Put an object as somebody else would."""
        headers = {f"x-amz-meta-{name}": text for name, text in metadata.items()}
        self.bucket.apply(Request("put", key, body=content, headers=headers))

    def take(self, key: str) -> None:
        """Take an object away as a consumer would."""
        self.bucket.apply(Request("delete", key))

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys under a prefix, our own left out."""
        return [s.key for s in self.bucket.list_objects(prefix) if prefix or s.key[0] != "."]

    def logs(self, plan: str) -> ChainedLog:
        """Open a ledger."""
        return ChainedLog(self.folder / "ledger" / f"{plan}.jsonl", lock_timeout_s=0.1)

    def kinds(self, plan: str) -> list[str]:
        """Return the kinds of a ledger's lines."""
        return [entry.kind for entry in self.logs(plan).read()]

    def plan(self, judge: Any = None, **how: Any) -> MovePlan:
        """Plan to move ``pending/`` to ``ready/``."""
        header = {
            "source": how.pop("source", "pending/"),
            "to": how.pop("to", "ready/"),
            "step": "6.1",
            "made_by": "ops@box",
            "others": self.hold.words,
            "made_at": self.clock.now(),
            "expires_at": self.clock.now() + timedelta(seconds=900),
            "timing": how.pop("timing", Timing(lease_s=60)),
            "limit_objects": how.pop("limit_objects", 100),
            "selection": {},
        }
        return make_move_plan(
            self.bucket,
            header=header,
            folder=self.folder / "plans",
            judge=judge or judge_all,
            **how,
        )

    def cut(self, number: int, **how: Any) -> tuple[Manifest, list[MovePlan]]:
        """Plan to move ``pending/`` to ``ready/`` in so many shards."""
        manifest: Any = self.plan(shards=number, **how)
        return manifest, [read_shard(self.bucket, manifest, line) for line in manifest.shards]

    def how(self) -> dict[str, Any]:
        """Return what a run needs beside the plan."""
        return {
            "logs": self.logs,
            "operator": "ops@box",
            "hold": self.hold,
            "clock": self.clock,
            "notice": self.notices.append,
            "age_key": "pending-since",
        }

    def apply(self, plan: MovePlan, **how: Any) -> MoveResult:
        """Carry a plan out."""
        return apply_plan(self.bucket, plan, **{"approve": plan.sha256, **self.how(), **how})

    def resume(self, plan: MovePlan, **how: Any) -> MoveResult:
        """Go on with a plan."""
        return resume_plan(self.bucket, plan, **{**self.how(), **how})

    def undo_plan(self, plan: MovePlan, window_s: float = 900) -> MovePlan:
        """Plan to take it back."""
        return make_undo_plan(
            self.bucket,
            plan,
            logs=self.logs,
            made_by="ops@box",
            others="the consumer stands still",
            window_s=window_s,
            now=self.clock.now(),
        )

    def verify(self, plan: MovePlan) -> MoveProof:
        """Prove it."""
        return verify_plan(self.bucket, plan, logs=self.logs, clock=self.clock)


def judge_all(objects: Sequence[Seen]) -> list[Judgement]:
    """Let everything move."""
    return [Judgement("", seen.last_modified, {"order_id": "1"}) for seen in objects]
