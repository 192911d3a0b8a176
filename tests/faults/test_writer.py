"""Someone rewrites, deletes and adds objects while a release runs."""

from __future__ import annotations

import io
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from runbook_lib.change.mover import apply_plan
from runbook_lib.errors import DriftError
from runbook_lib.redact import Redactor
from tests.faults.bucket import make_scene
from tests.faults.conftest import RUNS
from tests.faults.jobs import connect
from tests.support.gateway import ACCESS_KEY, BUCKET, SECRET_KEY, StoreServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 15 * RUNS)]


@dataclass
class Writer:
    """What a busy system does to the source meanwhile, with a client of its own.

    Attributes
    ----------
    newest : ETag of the last version it wrote of each key
    touched : keys that it deleted, or whose write failed: nothing is known of them
    """

    endpoint: str
    keys: list[str]
    rng: random.Random
    newest: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Act until it is stopped."""
        client = Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
        while not self.stop.is_set():
            key = self.rng.choice(self.keys)
            act = self.rng.choices(["rewrite", "delete", "add"], [6, 1, 2])[0]
            if act == "add":
                key = f"{key.rpartition('/')[0]}/{self.rng.getrandbits(40):010x}.pdf"
            content = self.rng.randbytes(40)
            self.touched.add(key)
            self.newest.pop(key, None)
            try:
                if act == "delete":
                    client.remove_object(BUCKET, key)
                    continue
                etag = client.put_object(BUCKET, key, io.BytesIO(content), len(content)).etag
            except (MinioException, HTTPError):
                continue
            self.touched.discard(key)
            self.newest[key] = str(etag).strip('"')


def test_a_busy_writer_loses_nothing_outside_the_declared_window(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    lost_total = told_total = rewritten = 0
    for run in range(max(2, RUNS // 6)):
        folder = tmp_path / str(run)
        scene = make_scene(server.endpoint, folder, seed=rng.getrandbits(32), objects=80)
        store = connect(server.endpoint)
        rows = {row.key: row for row in scene.plan.iter_rows()}
        writer = Writer(server.endpoint, list(rows), random.Random(rng.getrandbits(32)))
        thread = threading.Thread(target=writer.run)

        def begin(boundary: str, thread: threading.Thread = thread) -> None:
            if boundary == "approved":
                thread.start()

        try:
            result = apply_plan(
                store,
                scene.plan,
                ledger_path=folder / "ledger" / f"{scene.plan.id}.jsonl",
                approve_sha256=scene.plan.sha256,
                approved_by="test",
                redactor=Redactor([SECRET_KEY]),
                checkpoint=begin,
                batch_size=10,
            )
        except DriftError as error:
            pytest.fail(f"drift before anyone wrote: {error}")
        finally:
            writer.stop.set()
            thread.join(timeout=30)
        counted = scene.count()
        rewritten += len(writer.newest)
        lost = {key for key, etag in writer.newest.items() if counted.get(key, ("", 0))[0] != etag}
        lost_total, told_total = lost_total + len(lost), told_total + len(result.lost_in_window)
        assert lost <= set(result.lost_in_window), f"run {run}, seed {seed}: {lost}"
        for key, row in rows.items():
            if key not in writer.newest and key not in writer.touched:
                assert (key in counted) != (row.to in counted), key
                assert counted.get(row.to, counted.get(key)) == scene.before[key]
        foreign = {key: value for key, value in scene.before.items() if key not in rows}
        assert {key: counted.get(key) for key in foreign} == foreign
    print(
        f"{server.kind}: {rewritten} rewritten, {lost_total} newer versions deleted, "
        f"{told_total} told, seed {seed}"
    )
    if scene.plan.header.abilities.conditional_delete:
        assert lost_total == 0


def test_a_rewrite_in_the_very_window_is_spared_or_told(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed, objects=20)
    store, writing = connect(server.endpoint), connect(server.endpoint)
    keys = [row.key for row in scene.plan.iter_rows()][:2]
    newest: dict[str, str] = {}

    def rewrite(boundary: str) -> None:
        if boundary == "looked" and not newest:
            for key in keys:
                newest[key] = writing.put_object(key, b"newer").etag

    result = apply_plan(
        store,
        scene.plan,
        ledger_path=tmp_path / "ledger" / f"{scene.plan.id}.jsonl",
        approve_sha256=scene.plan.sha256,
        approved_by="test",
        redactor=Redactor([SECRET_KEY]),
        checkpoint=rewrite,
        batch_size=10,
    )
    counted = scene.count()
    there = {key: counted[key][0] for key in keys if key in counted}
    if scene.plan.header.abilities.conditional_delete:
        assert there == newest
        assert sorted(trouble.key for trouble in result.conflicts) == sorted(keys)
        assert not any(key.replace("/pending/", "/ready/") in counted for key in keys)
    else:
        assert there == {}
        assert sorted(result.lost_in_window) == sorted(keys)
        assert "ignores conditional deletes" in scene.plan.header.window
    assert not result.is_clean


def test_a_guarded_delete_never_takes_what_is_written_at_the_same_moment(
    server: StoreServer, seed: int
) -> None:
    store, writing, rng = connect(server.endpoint), connect(server.endpoint), random.Random(seed)
    lost = refused = 0
    with ThreadPoolExecutor(1) as pool:
        for race in range(20 * RUNS):
            key = f"race-{seed}/{race}.pdf"
            old = writing.put_object(key, b"old %d" % race)
            begun = pool.submit(writing.put_object, key, b"new %d" % race)
            time.sleep(rng.random() * 0.002)  # the moment of the race
            refused += len(store.delete_objects([old], guarded=True))
            begun.exception()
            lost += not list(store.list_objects(key))
    print(f"{server.kind}: {20 * RUNS} races, {refused} refused, {lost} newer versions deleted")
    if store.probe_abilities(f"race-{seed}/probe/").conditional_delete:
        assert refused > 0
        assert lost == 0
