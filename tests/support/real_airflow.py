"""A running Airflow as tests see it: ask it, change it, keep what it answers.

``scripts/airflow/test.sh`` starts it and says in the environment where it is.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests

from fulfillment.clients.http_systems import PipelineClient
from tests.support.gateway import wait_until

DAG_ID = "fulfillment_release"
RECORDED = Path(__file__).parents[1] / "contract" / "recorded" / "airflow"

wait_for = partial(wait_until, deadline_s=120.0)
_DAGS_IN_THE_IMAGE = "/opt/airflow/dags"
# Signed with a key of the run's own; of no use to the client.
_UNRECORDED = {"access_token", "file_token"}


def list_fields(answer: Any, path: str = "") -> set[str]:
    if isinstance(answer, dict):
        return {path}.union(*(list_fields(value, f"{path}.{key}") for key, value in answer.items()))
    if isinstance(answer, list):
        return {path}.union(*(list_fields(value, f"{path}[]") for value in answer))
    return {path}


@dataclass(frozen=True)
class Airflow:
    """A running Airflow; ``url`` asks for nothing, ``login_url`` for user and password."""

    url: str
    login_url: str
    user: str
    password: str
    dags: Path
    is_recording: bool

    @staticmethod
    def from_environment() -> Airflow:
        env = os.environ
        return Airflow(
            url=env["AIRFLOW_TEST_URL"],
            login_url=env["AIRFLOW_TEST_LOGIN_URL"],
            user=env["AIRFLOW_TEST_USER"],
            password=env["AIRFLOW_TEST_PASSWORD"],
            dags=Path(env["AIRFLOW_TEST_DAGS"]),
            is_recording=env.get("AIRFLOW_TEST_RECORD") == "1",
        )

    def client(self, url: str = "", dag_id: str = DAG_ID, **more: str) -> PipelineClient:
        return PipelineClient(url or self.url, dag_id=dag_id, timeout_s=20, **more)

    @property
    def dag_file(self) -> Path:
        return self.dags / f"{DAG_ID}.py"

    def close_gate(self) -> None:
        body = {"key": "fulfillment_release_gate", "value": "closed"}
        requests.post(f"{self.url}/api/v2/variables", json=body, timeout=20).raise_for_status()

    def open_gate(self) -> None:
        url = f"{self.url}/api/v2/variables/fulfillment_release_gate"
        answer = requests.delete(url, timeout=20)
        assert answer.status_code in (204, 404), answer.text

    def run_now(self) -> str:
        path = f"/api/v2/dags/{DAG_ID}/dagRuns"
        client = self.client()
        run = f"{path}/{client.post(path, dict, {'logical_date': None})['dag_run_id']}"
        return wait_for(
            lambda: (
                state if (state := client.get(run, dict)["state"]) in ("success", "failed") else ""
            ),
            what="the end of the run",
        )

    def keep(
        self,
        name: str,
        path: str,
        *,
        method: str = "GET",
        url: str = "",
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        token: str = "",
    ) -> Any:
        """Ask what the client asks; record the answer, or check that the record still holds."""
        answer = requests.request(
            method,
            f"{url or self.url}{path}",
            params=params,
            json=body,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=20,
        )
        found = {
            "method": method,
            "path": path,
            "query": params or {},
            "status": answer.status_code,
            "content_type": answer.headers["Content-Type"],
            "answer": self._scrub(answer.json()),
        }
        file = RECORDED / f"{name}.json"
        if self.is_recording:
            RECORDED.mkdir(parents=True, exist_ok=True)
            text = json.dumps(found, indent=2, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")
        else:
            recorded = json.loads(file.read_text("utf-8"))
            assert list_fields(found) == list_fields(recorded), f"{file.name} is out of date"
            assert found["status"] == recorded["status"], f"{file.name} is out of date"
        return answer.json()

    def _scrub(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: "not recorded" if key in _UNRECORDED else self._scrub(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._scrub(inner) for inner in value]
        if isinstance(value, str):
            return value.replace(str(self.dags), _DAGS_IN_THE_IMAGE)
        return value
