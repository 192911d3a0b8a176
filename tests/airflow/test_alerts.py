"""An alert that ``runbook serve`` hands over is answered by a run of a real Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from alerting.airflow import AirflowClient
from tests.airflow.releases import Desk, open_desk
from tests.alerting.test_kills import check_once, find_told
from tests.support.airflow_runs import Run, unpause
from tests.support.real_airflow import Airflow
from tests.support.serving import (
    CASE,
    Receivers,
    make_alert,
    make_payload,
    make_service,
    run_receivers,
    wait_for,
)

DAG_ID = "runbook_alert"
RUN_ID = "alert-0000000000000001-2026-11-24T03:00:00.123Z-look-1"
ALERT = make_alert(1, support_case=CASE)
_ENDS_S = 600

pytestmark = [pytest.mark.timeout(1200)]


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with run_receivers() as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path, receivers: Receivers) -> Iterator[Desk]:
    """Open a desk whose ``.env`` names the receivers."""
    with open_desk(tmp_path, seed=1, consumers=0) as desk:
        (tmp_path / "files").mkdir()
        service = make_service(tmp_path / "files", receivers, {})
        names = ("SUPPORT_URL", "SERVE_")
        given = {k: v for k, v in service.environment.items() if k.startswith(names)}
        with (desk.folder / ".env").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in given.items())
        yield desk


def test_an_alert_is_answered_by_one_run_with_the_same_deliveries(
    running: Airflow, desk: Desk, receivers: Receivers, tmp_path: Path
) -> None:
    unpause(running, DAG_ID)
    folder = tmp_path / "serve"
    folder.mkdir()
    login = f"{running.user}:{running.password}@"
    address = folder / "airflow"
    address.write_text(f"http://{login}{urlsplit(running.login_url).netloc}\n")
    service = make_service(
        folder,
        receivers,
        {"RUNBOOK_HOME": str(desk.home)},
        SERVE_AIRFLOW_URL_FILE=str(address),
        HTTP_TIMEOUT_S="20",
    )
    service.start()
    try:
        for _ in range(2):
            service.post(make_payload(ALERT))
        wait_for(lambda: service.read_metric("alerts_waiting") == 0, service.log, _ENDS_S)
        assert service.read_metric('looks_total{result="handed_over"}') == 1, service.log
    finally:
        service.stop()
    run = Run(running, DAG_ID, RUN_ID)
    assert run.wait_for_end(deadline_s=_ENDS_S) == "success", run.read_log("answer")
    result = run.read_result("answer")
    assert {delivery["state"] for delivery in result["deliveries"]} == {"sent"}
    check_once(receivers)
    assert find_told(receivers) == {result["incident"]}
    assert (desk.home / result["incident"] / "report.html").exists()
    client = AirflowClient(
        running.login_url,
        dag_id=DAG_ID,
        user=running.user,
        password=running.password,
        timeout_s=20,
    )
    client.start_run(RUN_ID, [ALERT])  # a real 409
