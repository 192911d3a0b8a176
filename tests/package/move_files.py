"""Move each file from ``from/`` to ``to/`` by the library, and print the proof as JSON.

Usage: move_files.py ENDPOINT BUCKET ACCESS_KEY SECRET_KEY
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

from chainlog import ChainedLog
from objectmove.book import Clock
from objectmove.bucket import S3Bucket
from objectmove.carry import Operator
from objectmove.planning import allow_all, make_plan
from objectmove.proof import verify_plan
from objectmove.run import Run

#: Nobody else moves these files.
NOBODY = SimpleNamespace(
    name="nobody",
    words="nobody else moves files",
    way_back="nothing",
    holds=False,
    is_paused=lambda: True,
    pause=lambda: None,
    check=lambda: None,
    resume=lambda: None,
)


def main(endpoint: str, name: str, access_key: str, secret_key: str) -> None:
    bucket = S3Bucket(endpoint=endpoint, bucket=name, access_key=access_key, secret_key=secret_key)
    now = bucket.read_clock()
    header = {
        "source": "from/",
        "to": "to/",
        "step": "move",
        "made_at": now,
        "made_by": "a person",
        "expires_at": now + timedelta(minutes=15),
        "limit_objects": 100,
        "others": NOBODY.words,
    }
    plan = make_plan(
        bucket,
        header=header,
        judge=allow_all,
        match="*",
        first=None,
        begun=(),
        memory_removed=False,
        clock=Clock(),
    )
    operator = Operator(
        name="a person",
        hold=NOBODY,
        log=lambda plan_id: ChainedLog(Path(f"{plan_id}.jsonl")),
        ask=lambda rows: [""] * len(rows),
        evidence=lambda rows: [""] * len(rows),
        clock=Clock(),
        notice=lambda _: None,
        progress=lambda _done, _all: None,
    )
    result = Run(bucket, plan, operator).carry_out("apply", plan.sha256)
    print(json.dumps({"moved": result.moved, **verify_plan(bucket, plan).counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
