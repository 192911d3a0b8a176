"""PipelineClient on what a real Airflow answered, and the demo's pipeline beside it.

``sh scripts/airflow/test.sh --record`` wrote the answers.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pytest_httpserver import HTTPServer, RequestHandler

from fulfillment.clients.http_systems import PipelineClient
from runbook_lib.errors import AccessDeniedError
from tests.support.real_airflow import DAG_ID, RECORDED

pytestmark = pytest.mark.process

DAG = f"/api/v2/dags/{DAG_ID}"
SECRET = "s3cret-of-the-user"


def read_recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((RECORDED / f"{name}.json").read_text("utf-8")))


def answer_with(handler: RequestHandler, name: str) -> None:
    recorded = read_recorded(name)
    body = json.dumps(recorded["answer"], separators=(",", ":"))
    handler.respond_with_data(body, recorded["status"], content_type=recorded["content_type"])


def replay(server: HTTPServer, *names: str) -> None:
    for name in names:
        recorded = read_recorded(name)
        handler = server.expect_request(
            recorded["path"], method=recorded["method"], query_string=recorded["query"]
        )
        answer_with(handler, name)


def expect(server: HTTPServer, name: str, token: str = "") -> None:
    """Answer as Airflow did, once, in this order, and only to this token."""
    recorded = read_recorded(name)
    handler = server.expect_ordered_request(
        recorded["path"],
        method=recorded["method"],
        headers={"Authorization": f"Bearer {token}"} if token else None,
    )
    answer_with(handler, name)


def give_token(server: HTTPServer, token: str) -> None:
    recorded = read_recorded("token")
    server.expect_ordered_request(
        "/auth/token", method="POST", json={"username": "ops", "password": SECRET}
    ).respond_with_json({**recorded["answer"], "access_token": token}, recorded["status"])


def client_of(server: HTTPServer, dag_id: str = DAG_ID, **more: str) -> PipelineClient:
    return PipelineClient(server.url_for(""), dag_id=dag_id, timeout_s=5, **more)


def user_of(server: HTTPServer) -> PipelineClient:
    return client_of(server, auth=f"Basic ops:{SECRET}")


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("dag_healthy", set()),
        ("dag_paused", {"is_paused"}),
        ("dag_import_errors", {"has_import_errors", "is_stale"}),
        ("dag_stale", {"is_stale"}),
    ],
)
def test_every_state_of_a_real_dag_is_read(
    httpserver: HTTPServer, name: str, true: set[str]
) -> None:
    replay(httpserver, name)
    dag = client_of(httpserver).read_dag()
    flags = ("is_paused", "has_import_errors", "is_stale")
    assert {flag for flag in flags if getattr(dag, flag)} == true
    assert dag.id == DAG_ID


@pytest.mark.parametrize(
    ("name", "newest"), [("runs_success", ["success"]), ("runs_failed", ["failed", "failed"])]
)
def test_real_runs_are_read_newest_first(
    httpserver: HTTPServer, name: str, newest: list[str]
) -> None:
    replay(httpserver, name)
    runs = client_of(httpserver).list_runs()
    recorded = read_recorded(name)["answer"]["dag_runs"]
    assert [run.id for run in runs] == [run["dag_run_id"] for run in recorded]
    ended = [run for run in runs if run.ended_at]
    assert [run.state for run in ended][: len(newest)] == newest
    assert all(run.started_at and run.ended_at and run.started_at < run.ended_at for run in ended)


def test_an_airflow_that_asks_for_a_user_denies_who_has_none(httpserver: HTTPServer) -> None:
    replay(httpserver, "denied")
    with pytest.raises(AccessDeniedError, match="Not authenticated"):
        client_of(httpserver).read_dag()
    assert [request.path for request, _ in httpserver.log] == [DAG]


def test_each_question_has_a_token_of_its_own(httpserver: HTTPServer) -> None:
    answers = {"one": "dag_healthy", "two": "runs_success", "three": "dag_unpause"}
    for token, name in answers.items():
        give_token(httpserver, token)
        expect(httpserver, name, token)
    client = user_of(httpserver)
    assert not client.read_dag().is_paused
    assert client.list_runs()
    assert not client.set_paused(False).is_paused
    httpserver.check_assertions()
    assert httpserver.log[-1][0].get_json() == {"is_paused": False}


def test_a_wrong_password_is_denied_and_not_shown(httpserver: HTTPServer) -> None:
    replay(httpserver, "token_refused")
    with pytest.raises(AccessDeniedError) as denied:
        user_of(httpserver).read_dag()
    assert "Invalid credentials" in str(denied.value)
    assert SECRET not in str(denied.value)


def test_the_recorded_answers_hold_no_secret_and_no_path_of_a_machine() -> None:
    files = sorted(RECORDED.glob("*.json"))
    assert files
    for file in files:
        found = re.search(r"/(home|root|tmp|work|Users|var)/|eyJ|://", file.read_text("utf-8"))
        assert not found, f"{file.name}: {found}"
