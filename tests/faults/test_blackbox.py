"""The ``runbook`` command on real stores, from outside: faults, kills, pauses, and who counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Lane, Operator, Outcome, Round, open_lane, run_many
from tests.faults.conftest import RUNS
from tests.faults.printed import put_and_plan
from tests.support.audit import Label
from tests.support.gateway import StoreServer
from tests.support.lossy_proxy import FATES, Spoil, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 60 * RUNS)]

LABELS = 30


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One bucket, in which consumers poll."""
    with open_lane(server, tmp_path / "lane", seed=seed) as opened:
        yield opened


def end_well(round_: Round, operator: Operator, plan: Outcome, put: list[Label]) -> None:
    round_.end(operator, plan)
    totals = round_.judge(put)
    print(totals, *round_.said)
    assert totals.is_clean, round_.said


def test_answers_about_labels_are_spoiled(lane: Lane, seed: int) -> None:
    rng = random.Random(seed)
    put, ann, plan = put_and_plan(lane, seed, LABELS)

    def spoil() -> None:  # once the first object is on its way: what happens to it ends the run
        copies = Spoil(("copy",), 0.5, rng.sample(FATES, len(FATES)))
        lane.proxy.spoils = [copies, Spoil(("delete", "bulk"), 1.0, rng.sample(FATES, 3))]

    lane.proxy.traps.append(Trap(("copy",), 1, "after", spoil))
    ann.run("apply", plan.document["plan"], *plan.approval)
    end_well(Round(lane, rng), ann, plan, put)
    print({key: times for key, times in lane.proxy.seen.items() if key[1] != "passed"})


def test_many_rounds_of_kills_and_stops(server: StoreServer, tmp_path: Path, seed: int) -> None:
    kills, stops, lanes = 2 * RUNS, RUNS // 2, 4
    if RUNS < 100:
        kills, stops, lanes = max(2, RUNS // 2), max(1, RUNS // 6), 2
    totals = run_many(server, tmp_path, seed=seed, kills=kills, stops=stops, lanes=lanes)
    print(f"{server.kind}: {totals}, seed {seed}")
    assert totals.is_clean
