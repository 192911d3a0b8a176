"""Ctrl-C in the middle of a release: it ends at once, says what to do, and can go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Lane, open_lane
from tests.faults.test_blackbox import begin, prepare
from tests.support.gateway import StoreServer, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    with open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as opened:
        yield opened


def copies(lane: Lane) -> int:
    return len(lane.shelf.list_keys("ready/"))


def test_interrupted_it_ends_sends_nothing_more_and_goes_on(lane: Lane, seed: int) -> None:
    ann, plan, _ = prepare(lane, seed, labels=400)
    running = ann.start(*begin(plan))
    wait_until(lambda: copies(lane) > 20, what="the first copies")
    running.send(signal.SIGINT)
    began = time.monotonic()
    ended = running.wait()
    assert ended.code == 130, ended
    assert time.monotonic() - began < 10
    assert "runbook resume" in ended.errors
    before = copies(lane)
    resumed = ann.run("resume", plan.document["plan"])
    assert copies(lane) >= before
    proof = ann.run("verify", plan.document["plan"])
    # what was under way may be in doubt, nothing else
    assert proof.document["lost"] == proof.document["duplicated"] == proof.document["waiting"] == 0
    assert resumed.document["moved"] + len(resumed.document["unproven"]) == 400
