"""A look that Airflow carries out: it is handed over once, and its messages are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from alerting.airflow import AirflowClient, connect_airflow
from alerting.settings import ServeSettings
from runbook_lib.errors import AccessDeniedError, BadAnswerError, ClientError, NotFoundError
from tests.alerting.test_kills import check_once, find_told, list_reports
from tests.support.gateway import StoreServer
from tests.support.serving import (
    CASE,
    Receivers,
    Service,
    get_settings,
    make_alert,
    make_payload,
    make_service,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]
DAG = "/api/v2/dags/runbook_alert"
RUNS = f"{DAG}/dagRuns"
READY = {"dag_id": "runbook_alert", "is_paused": False}
ALERT = make_alert(1, support_case=CASE)
RUN_ID = "alert-0000000000000001-2026-11-24T03:00:00.123Z-look-1"


class FakeAirflow:
    """Answers as Airflow does; ``status`` is that of a trigger, ``runs`` what was triggered."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").replace("://", "://ann:pass%40word@")
        self.dag: dict[str, Any] = READY
        self.status = 200
        self.logins: list[Any] = []
        self.runs: list[Any] = []
        server.expect_request("/auth/token", "POST").respond_with_handler(self._log_in)
        server.expect_request(DAG, "GET").respond_with_handler(self._show)
        server.expect_request(RUNS, "POST").respond_with_handler(self._trigger)

    def _log_in(self, request: Request) -> Response:
        self.logins.append(request.json)
        return _answer({"access_token": "token-of-ann"}, 201)

    def _show(self, request: Request) -> Response:
        if request.headers.get("Authorization") != "Bearer token-of-ann":
            return _answer({"detail": "Not authenticated"}, 401)
        return _answer(self.dag, 200)

    def _trigger(self, request: Request) -> Response:
        self.runs.append(request.json)
        return _answer({"detail": "as the test wants"}, self.status)


def _answer(body: Any, status: int) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


@pytest.fixture
def airflow(httpserver: HTTPServer) -> FakeAirflow:
    return FakeAirflow(httpserver)


@pytest.fixture
def client(airflow: FakeAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AirflowClient:
    path = tmp_path / "airflow"
    path.write_text(f"{airflow.url}\n")
    monkeypatch.setenv("SERVE_AIRFLOW_URL_FILE", str(path))
    connected = connect_airflow(ServeSettings.load())
    assert connected is not None
    return connected


@pytest.fixture
def service(
    airflow: FakeAirflow, receivers: Receivers, juicefs: StoreServer, tmp_path: Path
) -> Iterator[Service]:
    """Return a service that hands over. It is not started."""
    path = tmp_path / "airflow"
    path.write_text(f"{airflow.url}\n")
    made = make_service(
        tmp_path, receivers, get_settings(juicefs), SERVE_AIRFLOW_URL_FILE=str(path)
    )
    yield made
    if made.process is not None:
        made.stop()


def test_without_the_setting_there_is_no_airflow() -> None:
    assert connect_airflow(ServeSettings.load()) is None


def test_a_run_is_triggered_with_the_alerts_after_a_login(
    client: AirflowClient, airflow: FakeAirflow
) -> None:
    client.start_run("alert-1", [ALERT])
    assert airflow.logins == [{"username": "ann", "password": "pass@word"}]
    (run,) = airflow.runs
    expected = {"dag_run_id": "alert-1", "logical_date": None, "conf": {"alerts": [ALERT]}}
    assert run == expected


def test_a_run_that_airflow_has_already_counts_as_handed_over(
    client: AirflowClient, airflow: FakeAirflow
) -> None:
    airflow.status = 409
    client.start_run("alert-1", [ALERT])
    assert len(airflow.runs) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadAnswerError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (422, BadAnswerError),
        (500, BadAnswerError),
    ],
)
def test_any_other_answer_is_a_failure(
    status: int, kind: type[ClientError], client: AirflowClient, airflow: FakeAirflow
) -> None:
    airflow.status = status
    with pytest.raises(kind) as failure:
        client.start_run("alert-1", [ALERT])
    assert "pass@word" not in str(failure.value)


@pytest.mark.parametrize("field", ["is_paused", "is_stale", "has_import_errors"])
def test_a_dag_that_starts_no_runs_gets_none(
    field: str, client: AirflowClient, airflow: FakeAirflow
) -> None:
    airflow.dag = {**READY, field: True}
    with pytest.raises(BadAnswerError):
        client.start_run("alert-1", [ALERT])
    assert airflow.runs == []


def is_reported(service: Service) -> bool:
    """Tell whether no alert waits any more."""
    return service.read_metric("alerts_waiting") == 0


@pytest.mark.parametrize("status", [200, 409])
def test_an_alert_is_handed_over_once_and_nothing_is_sent(
    status: int, service: Service, airflow: FakeAirflow, receivers: Receivers
) -> None:
    airflow.status = status
    service.start()
    for _ in range(2):
        service.post(make_payload(ALERT))
    wait_for(lambda: is_reported(service), service.log)
    (run,) = airflow.runs
    assert run["dag_run_id"] == RUN_ID
    (alert,) = run["conf"]["alerts"]
    assert alert["fingerprint"] == ALERT["fingerprint"]
    assert alert["labels"] == ALERT["labels"]
    wait_for(
        lambda: service.read_metric('looks_total{result="handed_over"}') == 1,
        f"the look ends\n{service.log}",
    )
    assert find_told(receivers) == set()
    assert receivers.mails == []


def test_an_alert_that_joins_is_handed_over_with_the_others(
    service: Service, airflow: FakeAirflow
) -> None:
    service.environment["SERVE_COOLDOWN_S"] = "300"
    service.start()
    service.post(make_payload(ALERT))
    wait_for(lambda: is_reported(service), service.log)
    service.post(make_payload(make_alert(2)))
    wait_for(lambda: len(airflow.runs) == 2, service.log)
    later = airflow.runs[1]
    assert later["dag_run_id"] == RUN_ID.replace("look-1", "addition-1.1")
    assert len(later["conf"]["alerts"]) == 2


def test_an_airflow_that_does_not_take_it_leaves_the_look_to_the_service(
    service: Service, airflow: FakeAirflow, receivers: Receivers
) -> None:
    airflow.status = 500
    service.start()
    service.post(make_payload(ALERT))
    service.wait_until_done()
    assert len(airflow.runs) == 3
    assert {run["dag_run_id"] for run in airflow.runs} == {RUN_ID}
    check_once(receivers)
    assert "pass@word" not in service.log


def answer(service: Service, *alerts: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Run ``runbook serve --alerts`` to its end; return its exit code and its document."""
    done = start_answer(service, *alerts)
    output, errors = done.communicate(timeout=200)
    assert output, errors
    document: dict[str, Any] = json.loads(output)
    return done.returncode, document


def start_answer(service: Service, *alerts: dict[str, Any]) -> subprocess.Popen[str]:
    path = service.folder / "alerts.json"
    path.write_text(json.dumps(alerts))
    return subprocess.Popen(
        [sys.executable, "-m", "runbook_lib", "serve", "--alerts", str(path), "--json"],
        cwd=service.folder,
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def list_states(document: dict[str, Any]) -> dict[str, str]:
    return {delivery["target"]: delivery["state"] for delivery in document["deliveries"]}


def test_alerts_of_a_file_are_answered_once_as_the_service_does(
    service: Service, receivers: Receivers, airflow: FakeAirflow
) -> None:
    code, document = answer(service, ALERT)
    assert code == 0, document
    assert list_states(document) == dict.fromkeys(("ticket", "slack", "teams", "mail"), "sent")
    assert document["incident"] in list_reports(service)
    code, again = answer(service, ALERT)
    assert (code, list_states(again)) == (0, list_states(document))
    check_once(receivers)
    assert airflow.runs == [], "who answers hands nothing over"


def test_alerts_that_are_resolved_already_are_answered(
    service: Service, receivers: Receivers
) -> None:
    code, _ = answer(service, make_alert(1, status="resolved", support_case=CASE))
    assert code == 0
    check_once(receivers)


def test_a_message_that_is_not_taken_goes_out_with_the_next_call(
    service: Service, receivers: Receivers
) -> None:
    receivers.modes["slack"] = "500"
    code, document = answer(service, ALERT)
    assert (code, document["is_done"]) == (3, False)
    assert list_states(document)["slack"] == "waiting"
    receivers.modes.clear()
    code, document = answer(service, ALERT)
    assert (code, document["is_done"]) == (0, True)
    check_once(receivers)


def test_killed_in_the_middle_the_next_call_goes_on(service: Service, receivers: Receivers) -> None:
    killed = start_answer(service, ALERT)
    wait_for(lambda: bool(receivers.list_texts("slack")), "the first message")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    code, document = answer(service, ALERT)
    assert code == 0, document
    check_once(receivers, repeats=1)
    assert len(find_told(receivers)) == 1


def test_interrupted_it_ends_at_once_and_the_next_call_goes_on(
    service: Service, receivers: Receivers
) -> None:
    receivers.modes["mail"] = "500"
    service.environment["SERVE_RETRY_MAX_S"] = "300"
    interrupted = start_answer(service, ALERT)
    wait_for(lambda: bool(receivers.list_texts("slack")), "the first message")
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    receivers.modes.clear()
    code, document = answer(service, ALERT)
    assert code == 0, document
    check_once(receivers, repeats=1)


@pytest.mark.parametrize("text", ["", "{}", "[]", '[{"status": "firing"}]', "missing"])
def test_a_file_without_alerts_is_wrong_usage(text: str, service: Service) -> None:
    path = service.folder / "alerts.json"
    if text != "missing":
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "runbook_lib", "serve", "--alerts", str(path), "--json"],
        cwd=service.folder,
        env=service.environment,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
