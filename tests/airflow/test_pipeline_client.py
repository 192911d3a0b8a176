"""PipelineClient reads a real Airflow right, whatever state the DAG is in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.errors import AccessDeniedError
from tests.support.real_airflow import DAG_ID, Airflow, wait_for

DAG = f"/api/v2/dags/{DAG_ID}"
RUNS = f"{DAG}/dagRuns"
NEWEST = {"order_by": "-start_date", "limit": "10"}
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


def test_the_airflow_is_the_pinned_one(airflow: Airflow) -> None:
    version = airflow.keep("version", "/api/v2/version")["version"]
    pins = (ROOT / "scripts/airflow/requirements.txt").read_text("utf-8").splitlines()
    assert f"apache-airflow=={version}" in pins
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert f"apache/airflow:${{AIRFLOW_VERSION:-{version}}}" in compose


def test_health_and_clock_are_read(airflow: Airflow) -> None:
    client = airflow.client()
    assert '"healthy"' in client.read_health()
    airflow.keep("health", client.HEALTH)
    assert abs(client.read_clock() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_healthy_dag_is_read_with_its_runs(airflow: Airflow) -> None:
    client = airflow.client()
    assert airflow.run_now() == "success"
    dag, runs = client.read_dag(), client.list_runs()
    assert (dag.id, dag.is_paused) == (DAG_ID, False)
    assert (dag.has_import_errors, dag.is_stale) == (False, False)
    ended = next(run for run in runs if run.ended_at)
    assert ended.state == "success"
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert ended.started_at < ended.ended_at
    airflow.keep("dag_healthy", DAG)
    airflow.keep("runs_success", RUNS, params=NEWEST)


def test_a_paused_dag_is_read_as_paused_until_it_is_not(airflow: Airflow) -> None:
    client = airflow.client()
    assert client.set_paused(True).is_paused
    assert client.read_dag().is_paused
    airflow.keep("dag_paused", DAG)
    assert not client.set_paused(False).is_paused
    assert not client.read_dag().is_paused
    airflow.keep("dag_unpause", DAG, method="PATCH", body={"is_paused": False})


def test_failing_runs_are_read_as_failed_until_one_succeeds(airflow: Airflow) -> None:
    client = airflow.client()
    airflow.close_gate()
    assert [airflow.run_now(), airflow.run_now()] == ["failed", "failed"]
    ended = [run.state for run in client.list_runs() if run.ended_at]
    assert ended[:2] == ["failed", "failed"]
    assert not client.read_dag().is_paused
    airflow.keep("runs_failed", RUNS, params=NEWEST)
    airflow.open_gate()
    assert airflow.run_now() == "success"
    assert next(run.state for run in client.list_runs() if run.ended_at) == "success"


def test_a_dag_that_cannot_be_imported_shows_it(airflow: Airflow) -> None:
    client = airflow.client()
    with airflow.dag_file.open("a", encoding="utf-8") as source:
        source.write("\nimport no_such_module\n")
    wait_for(lambda: client.read_dag().has_import_errors, what="the import error")
    assert not client.read_dag().is_paused
    airflow.keep("dag_import_errors", DAG)


def test_user_and_password_open_an_airflow_that_asks_for_them(airflow: Airflow) -> None:
    client = airflow.client(airflow.login_url, auth=f"Basic {airflow.user}:{airflow.password}")
    assert client.read_dag().id == DAG_ID
    assert client.set_paused(True).is_paused
    assert not client.set_paused(False).is_paused
    assert isinstance(client.list_runs(), list)
    airflow.keep(
        "token", "/auth/token", method="POST", url=airflow.login_url,
        body={"username": airflow.user, "password": airflow.password},
    )  # fmt: skip


def test_without_or_with_wrong_credentials_it_is_denied(airflow: Airflow) -> None:
    with pytest.raises(AccessDeniedError):
        airflow.client(airflow.login_url).read_dag()
    wrong = airflow.client(airflow.login_url, auth=f"Basic {airflow.user}:wrong")
    with pytest.raises(AccessDeniedError):
        wrong.read_dag()
    airflow.keep("denied", DAG, url=airflow.login_url)
    airflow.keep(
        "token_refused", "/auth/token", method="POST", url=airflow.login_url,
        body={"username": airflow.user, "password": "wrong"},
    )  # fmt: skip
