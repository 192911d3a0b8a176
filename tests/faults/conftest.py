"""Two real stores for the fault tests, and a seed that is printed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Lane, open_lane
from tests.support.gateway import StoreServer, run_juicefs, run_seaweedfs

RUNS = int(os.environ.get("RUNBOOK_FAULT_RUNS", "5"))

_WAY_BACK = ("test_way_back", "test_settling", "test_pauses", "test_memory", "test_router")
#: Of the tests of the way back, those that `make test` runs; `make test-faults` runs all.
_QUICK = (
    "test_a_killed_undo_ends_by_the_printed_commands[juicefs-kinds1-20-after]",
    "test_an_undo_with_a_lost_answer_ends_by_the_printed_commands[seaweedfs-kinds2-reset_after]",
    "test_a_killed_settling_ends_by_the_printed_commands[juicefs-6---not-taken]",
    "test_a_label_that_is_put_again_while_its_copy_is_in_doubt_ships_as_it_should[seaweedfs-same]",
    "test_a_kill_on_a_store_that_renames_asks_about_no_label_that_is_there[seaweedfs]",
    "test_the_printed_command_ends_a_pause_that_is_left[juicefs-ann-9]",
    "test_rows_of_a_removed_memory_are_planned_with_that_word_only[juicefs]",
    "test_a_key_that_may_not_delete_is_refused_before_the_first_copy[seaweedfs]",
    "test_a_routers_404_is_not_an_absent_source[juicefs]",
    "test_a_routers_404_is_not_a_free_destination[seaweedfs]",
    "test_a_bucket_that_demands_conditions_is_used[seaweedfs-copies]",
)
#: Of the other tests, those that only `make test-faults` runs: another store or kind has them too.
_LEFT = (
    "test_many_rounds_of_kills_and_stops[seaweedfs]",
    "test_undo_with_the_consumer_stopped_is_exact[seaweedfs-kinds0]",
    "test_the_store_stands_still[seaweedfs-3-5]",
    "test_answers_about_labels_are_spoiled[seaweedfs]",
    "test_reads_and_answers_about_our_own_objects_are_spoiled[juicefs]",
    "test_a_person_settles_what_nobody_can_know[juicefs]",
    "test_undo_with_the_consumer_stopped_is_exact[juicefs-kinds0]",
    "test_undo_with_the_consumer_stopped_is_exact[seaweedfs-kinds1]",
    "test_an_interrupted_notebook_of_section_6_ends_with_the_command_that_goes_on[juicefs-group]",
    "test_an_interrupted_notebook_of_section_6_ends_with_the_command_that_goes_on[juicefs-process]",
    "test_an_interrupted_notebook_of_section_6_ends_with_the_command_that_goes_on[seaweedfs-process]",
    "test_each_label_ships_once_under_consumers_that_never_pause[seaweedfs]",
    "test_what_another_plan_left_in_doubt_is_not_copied_again[juicefs]",
    "test_undo_under_live_consumers_loses_nothing[seaweedfs]",
    "test_a_full_disk_under_the_ledger[juicefs]",
    "test_interrupted_it_ends_sends_nothing_more_and_goes_on[juicefs]",
    "test_parts_on_two_machines_one_of_them_killed[seaweedfs]",
    "test_a_damaged_journal_stops_no_command_and_stays_as_it_is[seaweedfs]",
    "test_a_damaged_state_of_the_incident_stops_no_command_on_its_plans[juicefs]",
    "test_killed_while_creating_or_reverting_revert_leaves_only_what_is_real[seaweedfs]",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave most tests of the way back to `make test-faults`: together they take half an hour."""
    if RUNS >= 100 or any("::" in argument for argument in config.args):
        return
    chosen = []
    left = []
    for item in items:
        is_of_way_back = item.path.stem in _WAY_BACK
        is_left = item.name in _LEFT or (is_of_way_back and item.name not in _QUICK)
        (left if is_left else chosen).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = chosen


@pytest.fixture(scope="session", params=["juicefs", "seaweedfs"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    run = run_juicefs if request.param == "juicefs" else run_seaweedfs
    with run(tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def seed(tmp_path: Path) -> int:
    """A fresh seed; a failing test shows it."""
    chosen = random.SystemRandom().getrandbits(32)
    print(f"seed {chosen}")
    return chosen


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One bucket, in which consumers take only when they are told to."""
    with open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as opened:
        yield opened
