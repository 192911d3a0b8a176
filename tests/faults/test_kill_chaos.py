"""kill -9 in the middle of creating or removing synthetic objects: revert removes them all."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from runbook_lib.change.synthetic import MARKER_KEY
from tests.faults.bucket import count_independently
from tests.faults.conftest import RUNS
from tests.faults.jobs import Job, connect, run_job
from tests.support.gateway import StoreServer
from tests.support.releases import put_label

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 15 * RUNS)]


def test_killed_while_creating_or_reverting_revert_leaves_only_what_is_real(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    rng, store = random.Random(seed), connect(server.endpoint)
    store.put_object(MARKER_KEY, b'{"environment": "local"}')
    for run in range(max(2, RUNS // 3)):
        root = f"chaos-{rng.getrandbits(40):010x}/"
        # A real object with a look-alike name stays, whoever is killed when.
        real = put_label(store, "chaos-d1-7-0123456789ab.pdf", rng.randbytes(30), prefix=root)
        common = server.endpoint, str(tmp_path), root
        if run % 2:
            assert run_job(Job("create", *common))["created"] == 40
        action = "revert" if run % 2 else "create"
        died = run_job(Job(action, *common, die_at="object", die_count=rng.randrange(1, 40)))
        assert died == {"exit": -signal.SIGKILL}
        if action == "create":
            assert count_independently(server.endpoint, root).keys() > {real.key}
        run_job(Job("revert", *common))
        assert count_independently(server.endpoint, root) == {
            real.key: (real.etag, real.size_bytes)
        }, f"seed {seed}"
