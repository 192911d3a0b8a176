"""A damaged journal: every command goes on, in a new incident."""

from __future__ import annotations

import pytest

from tests.faults.commands import Lane
from tests.faults.test_blackbox import begin, prepare
from tests.support.incidents import damage_journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def test_a_damaged_journal_stops_no_command_and_stays_as_it_is(lane: Lane, seed: int) -> None:
    ann, plan, _ = prepare(lane, seed, labels=5)
    old = ann.home / plan.document["incident"]
    damage_journal(old, line=2)
    before = (old / "journal.jsonl").read_bytes()

    looked = ann.run("investigate")
    assert looked.code in (0, 3, 4), looked
    new = looked.document["incident"]
    assert new != old.name
    for named in (old.name, "line 2:"):
        assert named in looked.errors

    again = ann.run("plan")
    assert (again.code, again.document["objects"]) == (0, 5), again
    assert ann.run("check").code in (0, 4)
    named = ann.run("investigate", "--incident", old.name)
    assert (named.code, old.name in named.errors) == (1, True), named

    applied = ann.run(*begin(plan))
    assert (applied.code, applied.document["moved"]) == (0, 5), applied
    assert ann.run("verify", plan.document["plan"]).code == 0
    assert (old / "journal.jsonl").read_bytes() == before

    listed = {row["incident"]: row for row in ann.run("incidents").document["incidents"]}
    assert "line 2:" in listed[old.name]["damage"]
    assert not listed[old.name]["is_open"]
    assert ann.run("history").code == 0
