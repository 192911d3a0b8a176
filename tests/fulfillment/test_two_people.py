"""Two people work on one incident folder: both see everything, neither overwrites."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import ExitCode
from tests.faults.commands import Outcome, open_lane
from tests.support.gateway import run_juicefs

LABELS = 40


@pytest.mark.process
@pytest.mark.timeout(120)
def test_two_terminals_on_one_plan_each_print_their_own_rows_and_exit_code(
    tmp_path: Path,
) -> None:
    with (
        run_juicefs(tmp_path / "store") as server,
        open_lane(server, tmp_path / "lane", seed=7, consumers=0) as lane,
    ):
        lane.shelf.put_labels(LABELS, random.Random(7))
        ann = lane.hire("ann")
        bob = replace(ann, name="bob")
        plan = ann.run("plan").document
        approval = f"plan={plan['plan']}", f"approve={plan['sha256']}"
        words = "run", "06", "-p", approval[0], "-p", approval[1], "-p", "wait_s=0"
        terminals = [operator.start(*words) for operator in (ann, bob)]
        outcomes = [terminal.wait() for terminal in terminals]

        rows = [list_release_rows(outcome) for outcome in outcomes]
        assert [len(own) for own in rows] == [1, 1], rows
        # The one that is second is refused while the other works, or finds that all is done.
        codes = [outcome.code for outcome in outcomes]
        statuses = [own[0]["status"] for own in rows]
        assert "verified" in statuses, outcomes
        for status, code in zip(statuses, codes, strict=True):
            if status == "refused":
                assert code == ExitCode.REFUSED
            else:
                assert status == "verified"
                assert code in (ExitCode.OK, ExitCode.UNKNOWN)
        notebooks = [outcome.document["notebooks"][0]["notebook"] for outcome in outcomes]
        assert len(set(notebooks)) == len(notebooks)
        assert [outcome.document["exit_code"] for outcome in outcomes] == codes
        assert len(lane.shelf.list_keys("ready/")) == LABELS


def list_release_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows of 6.1 that a terminal printed."""
    return [row for row in outcome.document["plans"] if row["step"] == "6.1"]
