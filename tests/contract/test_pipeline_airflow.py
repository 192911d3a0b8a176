"""PipelineClient on what a real Airflow answered, and the demo's pipeline beside it.

``sh scripts/airflow/test.sh --record`` wrote the answers.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import TypeAdapter
from pytest_httpserver import HTTPServer, RequestHandler

from dataflow_stack.services.pipeline_api import PipelineSettings, build
from fulfillment.clients.http_systems import Dag, DagRun, PipelineClient
from runbook_lib.errors import AccessDeniedError, NotFoundError
from runbook_lib.http import HttpClient
from tests.support.real_airflow import DAG_ID, RECORDED
from tests.support.stack import wait_until

pytestmark = pytest.mark.process

DAG = f"/api/v2/dags/{DAG_ID}"
RUNS = f"{DAG}/dagRuns"
SECRET = "s3cret-of-the-user"


def read_recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((RECORDED / f"{name}.json").read_text("utf-8")))


def answer_with(handler: RequestHandler, name: str) -> None:
    recorded = read_recorded(name)
    body = json.dumps(recorded["answer"], separators=(",", ":"))
    handler.respond_with_data(body, recorded["status"], content_type=recorded["content_type"])


def replay(server: HTTPServer, *names: str) -> None:
    """Answer as Airflow did, whenever the same is asked."""
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


def test_a_dag_that_airflow_does_not_know_is_not_found(httpserver: HTTPServer) -> None:
    replay(httpserver, "dag_unknown")
    with pytest.raises(NotFoundError, match="no_such_dag` was not found"):
        client_of(httpserver, "no_such_dag").read_dag()


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


def test_a_user_without_the_right_is_denied(httpserver: HTTPServer) -> None:
    give_token(httpserver, "one")
    handler = httpserver.expect_ordered_request(DAG, method="PATCH")
    handler.respond_with_json({"detail": "Forbidden"}, 403)
    with pytest.raises(AccessDeniedError):
        user_of(httpserver).set_paused(False)
    httpserver.check_assertions()


def test_a_wrong_password_is_denied_and_not_shown(httpserver: HTTPServer) -> None:
    replay(httpserver, "token_refused")
    with pytest.raises(AccessDeniedError) as denied:
        user_of(httpserver).read_dag()
    assert "Invalid credentials" in str(denied.value)
    assert SECRET not in str(denied.value)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """Serve the demo's pipeline; the value is its address."""
    app = build(PipelineSettings(database=tmp_path / "pipeline.sqlite"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the demo's pipeline serves")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def fields_of(shape: type) -> set[str]:
    """Return the names of the fields that the client reads of an answer."""
    return set(TypeAdapter(shape).json_schema(by_alias=True)["properties"])


def test_the_demo_has_every_field_that_the_client_reads_from_a_real_airflow(demo: str) -> None:
    assert {"is_paused", "is_stale"} <= fields_of(Dag)
    assert {"state", "start_date"} <= fields_of(DagRun)
    http = HttpClient(demo, timeout_s=5)
    wait_until(lambda: bool(http.get(RUNS, dict)["dag_runs"]), what="the demo's first run")
    real = [read_recorded(name)["answer"] for name in ("dag_healthy", "runs_failed")]
    shown = [http.get(path, dict) for path in (DAG, RUNS)]
    for shape, ours, theirs in (
        (Dag, shown[0], real[0]),
        (DagRun, shown[1]["dag_runs"][0], real[1]["dag_runs"][0]),
    ):
        for field in fields_of(shape):
            assert field in theirs, f"Airflow's {shape.__name__} has no {field}"
            assert field in ours, f"the demo's {shape.__name__} has no {field}"
            assert type(ours[field]) is type(theirs[field]), field


def test_the_recorded_answers_hold_no_secret_and_no_path_of_a_machine() -> None:
    files = sorted(RECORDED.glob("*.json"))
    assert files
    for file in files:
        found = re.search(r"/(home|root|tmp|work|Users|var)/|eyJ|://", file.read_text("utf-8"))
        assert not found, f"{file.name}: {found}"
