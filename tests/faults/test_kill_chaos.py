"""kill -9 in the middle of creating or removing synthetic objects: revert removes them all."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from fulfillment.change.environment_guard import MARKER_KEY
from fulfillment.change.synthetic import Backlog, create_backlog, revert_backlog
from fulfillment.clients.object_store import ObjectStore, connect_bucket
from fulfillment.settings import Settings
from tests.faults.conftest import RUNS
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 15 * RUNS)]

_CONTEXT = multiprocessing.get_context("forkserver")


def make_settings(endpoint: str) -> Settings:
    return Settings(
        minio_endpoint=endpoint,
        minio_root_user=ACCESS_KEY,
        minio_root_password=SecretStr(SECRET_KEY),
        runbook_environment="local",
    )


def connect(endpoint: str) -> ObjectStore:
    return ObjectStore(connect_bucket(make_settings(endpoint), for_changes=True))


def work(action: str, endpoint: str, prefix: str, die_after: int) -> None:
    """Create or revert; die after so many objects, when that is not 0."""
    store, done = connect(endpoint), 0
    name = "put_object" if action == "create" else "delete_object"
    real = getattr(store, name)

    def count(*given: Any, **more: Any) -> None:
        nonlocal done
        real(*given, **more)
        done += 1
        if done == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(store, name, count)
    if action == "create":
        backlog = Backlog(prefix=prefix, drill_id="d1", count=40, object_size_kb=1)
        create_backlog(store, backlog, settings=make_settings(endpoint), now=datetime.now(UTC))
    else:
        revert_backlog(store, prefix)


def run(action: str, endpoint: str, prefix: str, die_after: int = 0) -> int | None:
    """Do it in a process of its own; return its exit code."""
    process = _CONTEXT.Process(target=work, args=(action, endpoint, prefix, die_after))
    process.start()
    process.join(timeout=120)
    return process.exitcode


def test_killed_while_creating_or_reverting_revert_leaves_only_what_is_real(
    server: StoreServer, seed: int
) -> None:
    rng, store = random.Random(seed), connect(server.endpoint)
    store.put_object(MARKER_KEY, b'{"environment": "local"}')
    for turn in range(max(2, RUNS // 3)):
        root = f"chaos-{rng.getrandbits(40):010x}/"
        # A real object with a look-alike name stays, whoever is killed when.
        real = f"{root}chaos-d1-7-0123456789ab.pdf"
        store.put_object(real, rng.randbytes(30))
        if turn % 2:
            assert run("create", server.endpoint, root) == 0
        action = "revert" if turn % 2 else "create"
        assert run(action, server.endpoint, root, rng.randrange(1, 40)) == -signal.SIGKILL
        if action == "create":
            assert len(list(store.list_objects(root))) > 1
        assert run("revert", server.endpoint, root) == 0
        assert [info.key for info in store.list_objects(root)] == [real], f"seed {seed}"
