"""Ctrl-C in the middle of a release or of a look: it ends at once, and says what to do next."""

from __future__ import annotations

import os
import random
import signal

import pytest

from chainlog import read_entries
from tests.faults.commands import Lane
from tests.support.gateway import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def copies(lane: Lane) -> int:
    return len(lane.shelf.list_keys("ready/"))


def test_an_interrupted_notebook_of_section_6_ends_with_the_command_that_goes_on(
    lane: Lane, seed: int
) -> None:
    lane.shelf.put_labels(400, random.Random(seed))
    ann = lane.hire("ann")
    planned = ann.run("run", "06", "-p", "way=release")
    assert planned.code == 5, planned
    (plan,) = (plan for plan in planned.document["plans"] if plan["step"] == "6.1")
    approval = ("-p", f"plan={plan['plan']}", "-p", f"approve={plan['sha256']}")
    running = ann.start("run", "06", *approval)
    wait_until(lambda: copies(lane) > 20, what="the first copies", longest_pause_s=0.05)
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
    ended = running.wait()

    assert ended.code == 130, ended
    assert "Traceback" not in ended.errors
    assert "Task exception" not in ended.errors
    sentence = ended.errors.splitlines()[-1].removeprefix("runbook: ")
    assert sentence.startswith("Interrupted")
    assert sentence.endswith(f"runbook resume {plan['plan']}")
    folder = ann.home / planned.document["incident"]
    entries = list(read_entries(folder / "journal.jsonl"))
    told = [entry.data["reason"] for entry in entries if entry.data.get("what") == "interrupted"]
    assert told == [sentence]
    assert sentence in (folder / "report.html").read_text("utf-8")

    ann.run("resume", plan["plan"])
    proof = ann.run("verify", plan["plan"])
    # what was under way may be in doubt, nothing else
    assert proof.document["lost"] == proof.document["duplicated"] == proof.document["waiting"] == 0
