"""A damaged journal or ``incident.json``: every command goes on, in a new incident."""

from __future__ import annotations

import json

import pytest

from tests.faults.commands import Lane
from tests.faults.test_blackbox import begin, prepare
from tests.support.incidents import damage_journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def test_a_damaged_journal_stops_no_command_and_stays_as_it_is(lane: Lane, seed: int) -> None:
    ann, plan, _ = prepare(lane, seed, labels=5)
    old = ann.home / plan.document["incident"]
    facts = json.loads((old / "incident.json").read_text("utf-8"))
    (old / "incident.json").write_text(json.dumps({**facts, "opened_by": "hand"}), "utf-8")
    damage_journal(old, line=2)
    before = (old / "journal.jsonl").read_bytes()

    looked = ann.run("investigate")
    assert looked.code in (0, 3, 4), looked
    new = looked.document["incident"]
    assert new != old.name
    damage = "line 2 was altered after it was written"
    for named in (old.name, damage, new):
        assert named in looked.errors

    again = ann.run("plan")
    assert (again.code, again.document["objects"]) == (0, 5), again
    assert old.name not in again.errors
    assert ann.run("check").code in (0, 4)
    named = ann.run("investigate", "--incident", old.name)
    assert (named.code, old.name in named.errors) == (2, True), named

    applied = ann.run(*begin(plan))
    assert (applied.code, applied.document["moved"]) == (0, 5), applied
    assert ann.run("verify", plan.document["plan"]).code == 0
    assert (old / "journal.jsonl").read_bytes() == before

    listed = {row["incident"]: row for row in ann.run("incidents").document["incidents"]}
    assert listed[old.name]["damage"] == damage
    assert not listed[old.name]["is_open"]
    assert ann.run("history").code == 0


def test_a_damaged_state_of_the_incident_stops_no_command_on_its_plans(
    lane: Lane, seed: int
) -> None:
    ann, plan, _ = prepare(lane, seed, labels=5)
    old = ann.home / plan.document["incident"]
    (old / "incident.json").write_bytes(b'{"schema": "runb')

    applied = ann.run(*begin(plan))
    assert (applied.code, applied.document["moved"]) == (0, 5), applied
    new = applied.document["incident"]
    assert new != old.name
    proof = ann.run("verify", plan.document["plan"])
    assert (proof.code, proof.document["incident"]) == (0, new), proof
    undo = ann.run("undo", plan.document["plan"])
    assert undo.code == 5, undo
    assert (old / "incident.json").read_bytes() == b'{"schema": "runb'
