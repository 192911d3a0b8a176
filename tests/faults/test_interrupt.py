"""Ctrl-C while notebooks run: the cell ends first, one sentence, the report, exit 130."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from chainlog import Entry, read_entries
from tests.faults.commands import Lane, Operator, Outcome, Running
from tests.support.gateway import wait_until
from tests.support.lossy_proxy import Spoil

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def find_incident(operator: Operator) -> Path:
    (incident,) = operator.home.glob("inc-*")
    return incident


def read_journal(operator: Operator) -> list[Entry]:
    return list(read_entries(find_incident(operator) / "journal.jsonl"))


def begin(operator: Operator, *, labels: int, lane: Lane, seed: int) -> tuple[str, Running]:
    """Start the notebook of section 6 with an approved release; return its plan, too."""
    lane.shelf.put_labels(labels, random.Random(seed))
    planned = operator.run("run", "06", "-p", "way=release")
    assert planned.code == 5, planned
    (plan,) = (plan for plan in planned.document["plans"] if plan["step"] == "6.1")
    approval = ("-p", f"plan={plan['plan']}", "-p", f"approve={plan['sha256']}")
    return plan["plan"], operator.start("run", "06", *approval)


def expect_interrupted(operator: Operator, ended: Outcome, *, way_on: str) -> None:
    """Check that one sentence stands last on the terminal, in the journal and in the report."""
    assert ended.code == 130, ended
    assert "Traceback" not in ended.errors
    assert "Task exception" not in ended.errors
    assert "Exception ignored" not in ended.errors
    sentence = ended.errors.splitlines()[-1].removeprefix("runbook: ")
    assert sentence.startswith("Interrupted")
    assert sentence.endswith(way_on)
    entries = read_journal(operator)
    told = [entry.data["reason"] for entry in entries if entry.data.get("what") == "interrupted"]
    assert told == [sentence]
    runs = [entry.data["status"] for entry in entries if entry.kind == "notebook"]
    assert runs[-1] == "interrupted"
    incident = find_incident(operator)
    assert sentence in (incident / "report.html").read_text("utf-8")
    assert list(incident.glob("notebooks/*.ipynb"))


def test_an_interrupted_notebook_of_section_6_ends_with_the_command_that_goes_on(
    lane: Lane, seed: int
) -> None:
    ann = lane.hire("ann")
    plan_id, running = begin(ann, labels=400, lane=lane, seed=seed)
    wait_until(
        lambda: len(lane.shelf.list_keys("ready/")) > 20,
        what="the first copies",
        longest_pause_s=0.05,
    )
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
    expect_interrupted(ann, running.wait(), way_on=f"runbook resume {plan_id}")
    actions = [entry.data["action"] for entry in read_journal(ann) if entry.kind == "action"]
    assert actions[-1]["phase"] == "failed"
    assert plan_id in actions[-1]["reason"]

    ann.run("resume", plan_id)
    proof = ann.run("verify", plan_id)
    # what was under way may be in doubt, nothing else
    assert proof.document["lost"] == proof.document["duplicated"] == proof.document["waiting"] == 0


def test_a_look_that_is_terminated_changed_nothing_and_names_the_command(
    lane: Lane, seed: int
) -> None:
    lane.shelf.put_labels(3, random.Random(seed))
    ann = lane.hire("ann")
    running = ann.start("investigate")

    def is_reading() -> bool:
        journals = ann.home.glob("inc-*/journal.jsonl")
        return any('"reading"' in path.read_text("utf-8") for path in journals)

    wait_until(is_reading, what="the first reading", longest_pause_s=0.05)
    running.send(signal.SIGTERM)
    expect_interrupted(ann, running.wait(), way_on=": runbook investigate")
    assert not lane.shelf.list_keys(".runbook/")


@pytest.mark.long  # beside other tests, the first interrupt may come after the save
def test_a_second_interrupt_ends_a_cell_at_once(lane: Lane, seed: int) -> None:
    """The first one lets the cell give the lock back, of which nobody answers."""
    ann = lane.hire("ann", worker=True, HTTP_TIMEOUT_S="60", RELEASE_LEASE_S="120")
    started: list[Running] = []

    def interrupt() -> None:
        lane.proxy.spoils.append(Spoil(("record",), 1.0, ["hang"] * 100))
        started[0].send(signal.SIGINT)

    lane.worker.on_pause = interrupt
    plan_id, running = begin(ann, labels=3, lane=lane, seed=seed)
    started.append(running)
    wait_until(lambda: lane.proxy.seen["record", "hang"] > 0, what="a save without an answer")
    running.send(signal.SIGINT)
    # A cell that came to its end would say how far it got.
    way_on = f"Interrupted. Carry on with: runbook resume {plan_id}"
    expect_interrupted(ann, running.wait(), way_on=way_on)
