"""Runs of the DAGs in ``addons/airflow``, as people see them: over Airflow's REST API."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.real_airflow import Airflow, wait_for

ENDED = ("success", "failed", "upstream_failed", "skipped")
APPROVERS = tuple(os.environ.get("AIRFLOW_TEST_APPROVERS", "").split(","))
STRANGER = os.environ.get("AIRFLOW_TEST_STRANGER", "")
SCHEDULER_LOG = Path(os.environ.get("AIRFLOW_TEST_SCHEDULER_LOG", "scheduler.log"))
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Task:
    name: str
    index: int
    state: str
    tries: int


@dataclass(frozen=True)
class Run:
    airflow: Airflow
    dag_id: str
    run_id: str

    @property
    def _path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self.airflow.url}{path}", timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def read_state(self) -> str:
        url = f"{self.airflow.url}{self._path}"
        answer = requests.get(url, timeout=_TIMEOUT_S)
        return str(answer.json()["state"]) if answer.ok else ""

    def list_tasks(self, name: str = "") -> list[Task]:
        tasks = []
        for found in self._get(f"{self._path}/taskInstances?limit=300")["task_instances"]:
            state = str(found["state"] or "")
            task = Task(found["task_id"], found["map_index"], state, found["try_number"])
            if name in ("", task.name):
                tasks.append(task)
        return tasks

    def read_task(self, name: str, index: int = -1) -> Task:
        found = [task for task in self.list_tasks(name) if task.index == index]
        return found[0] if found else Task(name, index, "", 0)

    def read_result(self, name: str, index: int = -1) -> Any:
        path = f"{self._path}/taskInstances/{name}/xcomEntries/return_value"
        value = self._get(f"{path}?map_index={index}&deserialize=false")["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value

    def read_log(self, name: str, *, index: int = -1, attempt: int = 1) -> str:
        path = f"{self._path}/taskInstances/{name}/logs/{attempt}"
        return json.dumps(self._get(f"{path}?map_index={index}&full_content=true"))

    def wait_for_task(
        self, name: str, *states: str, index: int = -1, tries: int = 1, deadline_s: float = 240
    ) -> Task:
        def read() -> Task | None:
            task = self.read_task(name, index)
            if task.tries < tries:
                return None
            if task.state in ENDED and task.state not in states:
                raise AssertionError(f"{task}: {self.read_log(name, index=index, attempt=tries)}")
            return task if task.state in states else None

        what = f"{name}[{index}] is {' or '.join(states)}"
        try:
            found = wait_for(read, what=what, deadline_s=deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.list_tasks()}") from None
        assert found is not None
        return found

    def wait_for_question(self) -> None:
        """Wait until the release asks, and the scheduler knows that it does.

        An answer before that fails the task: the scheduler takes the end of the question for an
        early end of what comes after it.
        """
        self.wait_for_task("approve", "awaiting_input")
        wanted = f"task_id='approve', run_id='{self.run_id}'"

        def is_known() -> bool:
            lines = SCHEDULER_LOG.read_text("utf-8", "replace").splitlines()
            return any(wanted in line and "Received executor event" in line for line in lines)

        wait_for(is_known, what="the scheduler's look at the question")

    def wait_for_end(self, *, deadline_s: float = 300) -> str:
        def read_end() -> str:
            state = self.read_state()
            return state if state in ("success", "failed") else ""

        return wait_for(read_end, what=f"the end of {self.run_id}", deadline_s=deadline_s)

    def answer(
        self, user: str, sha256: str | None, *, option: str = "Approve"
    ) -> requests.Response:
        """Answer the question as a user who logs in; without a hash the parameters are empty."""
        airflow = self.airflow
        login = {"username": user, "password": airflow.password}
        token = requests.post(f"{airflow.login_url}/auth/token", json=login, timeout=_TIMEOUT_S)
        token.raise_for_status()
        typed = {} if sha256 is None else {"sha256": sha256}
        return requests.patch(
            f"{airflow.login_url}{self._path}/taskInstances/approve/-1/hitlDetails",
            json={"chosen_options": [option], "params_input": typed},
            headers={"Authorization": f"Bearer {token.json()['access_token']}"},
            timeout=_TIMEOUT_S,
        )

    def clear(self, name: str, index: int | None = None) -> None:
        cleared = [name] if index is None else [[name, index]]
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": cleared,
            "include_downstream": True,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        url = f"{self.airflow.url}/api/v2/dags/{self.dag_id}/clearTaskInstances"
        answer = requests.post(url, json=body, timeout=_TIMEOUT_S)
        assert answer.ok, answer.text


def start_run(
    airflow: Airflow, dag_id: str, run_id: str = "", *, conf: dict[str, Any] | None = None
) -> Run:
    unpause(airflow, dag_id)
    url = f"{airflow.url}/api/v2/dags/{dag_id}"
    body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
    if run_id:
        body["dag_run_id"] = run_id
    answer = requests.post(f"{url}/dagRuns", json=body, timeout=_TIMEOUT_S)
    answer.raise_for_status()
    return Run(airflow, dag_id, answer.json()["dag_run_id"])


def unpause(airflow: Airflow, dag_id: str) -> None:
    """Let a DAG run, once Airflow has read its file."""
    url = f"{airflow.url}/api/v2/dags/{dag_id}"
    wait_for(
        lambda: requests.patch(url, json={"is_paused": False}, timeout=_TIMEOUT_S).ok,
        what=f"the DAG {dag_id}",
    )


def find_process(words: tuple[str, ...]) -> int | None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        wanted = list(words)
        if any(line[n : n + len(wanted)] == wanted for n in range(len(line))):
            return int(folder.name)
    return None


def list_worker(pid: int, scheduler: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    worker = pid
    while parents[worker] != scheduler:
        worker = parents[worker]
    return [worker, *_list_below(worker, parents)]


def _list_below(pid: int, parents: dict[int, int]) -> list[int]:
    below = []
    for child, parent in parents.items():
        if parent == pid:
            below += [child, *_list_below(child, parents)]
    return below
