"""The weekly DAG of drills in a real Airflow: when it starts, and who hears that it failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.airflow.releases import open_desk, run_addons_alertmanager
from tests.support.airflow_runs import Run, unpause
from tests.support.real_airflow import Airflow, wait_for

DAG_ID = "runbook_drills"

pytestmark = [pytest.mark.timeout(900)]


def test_missed_weeks_start_one_run_whose_failure_reaches_the_receivers(
    running: Airflow, tmp_path: Path
) -> None:
    with open_desk(tmp_path, seed=1, consumers=0) as desk, run_addons_alertmanager(tmp_path) as url:
        # Without a right answer of the store, section 1 is not healthy: nothing may be injected.
        settings = desk.folder / ".env"
        wrong = settings.read_text("utf-8").replace("MINIO_ROOT_USER=", "MINIO_ROOT_USER=not-")
        settings.write_text(wrong, encoding="utf-8")
        unpause(running, DAG_ID)
        runs = f"{running.url}/api/v2/dags/{DAG_ID}/dagRuns"

        def list_runs() -> list[str]:
            answer = requests.get(runs, timeout=30)
            answer.raise_for_status()
            return [run["dag_run_id"] for run in answer.json()["dag_runs"]]

        wait_for(list_runs, what="the weekly run", deadline_s=240)
        run = Run(running, DAG_ID, list_runs()[0])
        assert run.wait_for_end() == "failed"
        assert run.read_task("section_01").state == "failed"
        assert run.read_task("drill").state == "upstream_failed"
        assert list_runs() == [run.run_id], "the weeks since the start date make no runs"
        alerts = wait_for(
            lambda: requests.get(f"{url}/api/v2/alerts", timeout=30).json(), what="the alert"
        )
    (alert,) = [one for one in alerts if one["labels"]["run"] == run.run_id]
    assert alert["labels"]["task"] == "section_01"
    receivers = {receiver["name"] for receiver in alert["receivers"]}
    assert receivers == {"slack-critical", "email-oncall", "teams-oncall"}
