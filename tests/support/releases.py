"""Build buckets of labels, and plans over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbook_lib.change.mover import MoveResult, apply_plan, resume_plan
from runbook_lib.change.plan import make_release_plan
from runbook_lib.change.plan_file import ReleasePlan
from runbook_lib.change.proof import Proof, verify_release
from runbook_lib.change.undo import undo_plan
from runbook_lib.clients.object_store import ObjectStore
from runbook_lib.model import ObjectInfo, format_time
from runbook_lib.redact import Redactor

__all__ = [
    "NOW",
    "Release",
    "get_contents",
    "list_ages",
    "put_label",
    "put_labels",
]

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def put_label(
    store: ObjectStore, name: str, content: bytes = b"", *, prefix: str = "pending/", **changes: Any
) -> ObjectInfo:
    """Write one finished label; a metadata name given as None is left out."""
    order = changes.pop("order_id", str(sum(name.encode()) % 997))
    metadata = {
        "order-id": order,
        "tracking-number": f"TRK{order}",
        "artifact-kind": "slip" if name.endswith("-slip.pdf") else "label",
        "pending-since": format_time(NOW - timedelta(minutes=20)),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    return store.put_object(
        f"{prefix}{name}",
        content or f"%PDF label {name}".encode(),
        content_type="application/pdf",
        metadata={key: value for key, value in metadata.items() if value is not None},
    )


def put_labels(store: ObjectStore, count: int, *, first: int = 1000) -> list[str]:
    """Write labels, every second with its slip; returns their names."""
    names: list[str] = []
    for number in range(first, first + count):
        stem = f"{number}-{hashlib.sha256(str(number).encode()).hexdigest()[:12]}"
        names.append(f"{stem}.pdf" if number % 2 else f"{stem}-slip.pdf")
        put_label(store, names[-1], order_id=str(number))
    return names


def get_contents(store: ObjectStore, prefix: str = "") -> dict[str, tuple[str, int]]:
    """Return ETag and size of each object but the runbook's own."""
    return {
        info.key: (info.etag, info.size_bytes)
        for info in store.list_objects(prefix)
        if not info.key.startswith(".runbook/")
    }


def list_ages(store: ObjectStore, keys: Iterable[str]) -> dict[str, str | None]:
    """Return ``pending-since`` of each key."""
    return {key: (store.read_info(key).metadata or {}).get("pending-since") for key in keys}


class Release:
    """One plan with its ledger and evidence, in a folder."""

    def __init__(
        self, store: ObjectStore, folder: Path, *, now: Callable[[], datetime] = lambda: NOW
    ) -> None:
        self.store, self.folder, self.now = store, folder, now
        self.redactor = Redactor()
        self.plan: ReleasePlan | None = None

    def make(self, **options: Any) -> ReleasePlan:
        """Make the plan."""
        options = {"prefix": "pending/", "to": "ready/", "made_by": "test", **options}
        self.plan = make_release_plan(
            self.store, folder=self.folder / "plans", now=self.now, **options
        )
        return self.plan

    @property
    def made(self) -> ReleasePlan:
        """The plan that was made."""
        assert self.plan is not None
        return self.plan

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is."""
        return self.folder / "ledger" / f"{self.made.id}.jsonl"

    def apply(self, **options: Any) -> MoveResult:
        """Apply it, approved."""
        options = {
            "approve_sha256": self.made.sha256,
            "approved_by": "test",
            "ledger_path": self.ledger_path,
            "redactor": self.redactor,
            "now": self.now,
            **options,
        }
        return apply_plan(options.pop("store", self.store), self.made, **options)

    def resume(self, **options: Any) -> MoveResult:
        """Go on with it."""
        return resume_plan(
            self.store,
            self.made,
            ledger_path=self.ledger_path,
            resumed_by="test",
            redactor=self.redactor,
            now=self.now,
            **options,
        )

    def undo(self, **options: Any) -> MoveResult:
        """Take it back."""
        return undo_plan(
            self.store,
            self.made,
            ledger_path=self.ledger_path,
            undone_by="test",
            redactor=self.redactor,
            **{"now": self.now, **options},
        )

    def verify(self) -> Proof:
        """Prove it."""
        evidence = self.folder / "evidence"
        evidence.mkdir(parents=True, exist_ok=True)
        return verify_release(
            self.store,
            self.made,
            ledger_path=self.ledger_path,
            evidence=evidence / "proof.json",
            now=self.now,
        )
