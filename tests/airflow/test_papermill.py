"""The example of Airflow's papermill provider in a real Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.releases import Desk, open_desk
from tests.support.airflow_runs import start_run
from tests.support.real_airflow import Airflow

DAG_ID = "papermill_example"
EXAMPLE = Path(__file__).parents[2] / "addons" / "airflow" / f"{DAG_ID}.py"

pytestmark = [pytest.mark.timeout(1200)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, seed=1) as desk:
        desk.put_labels(3, seed=1)
        yield desk


def test_a_notebook_of_ours_runs_to_its_end_and_leaves_journal_and_report(
    running: Airflow, desk: Desk
) -> None:
    copy = running.dags / EXAMPLE.name
    copy.write_text(EXAMPLE.read_text("utf-8"), encoding="utf-8")
    run = start_run(running, DAG_ID)
    run.wait_for_end(deadline_s=600)
    copy.unlink()
    assert run.read_state() == "success", run.read_log("section_01")
    (incident,) = desk.home.glob("inc-*")
    assert (incident / "journal.jsonl").exists()
    assert (incident / "report.html").exists()
