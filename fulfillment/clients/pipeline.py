"""Talk to the pipeline that releases labels: Airflow 3's REST API."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, StrictBool

from runbook_lib.errors import AccessDeniedError, NotFoundError
from runbook_lib.fields import When
from runbook_lib.http import HttpClient
from runbook_lib.model import Json


@dataclass(frozen=True, slots=True)
class Dag:
    """The pipeline's DAG. A stale one has no file that can be read: no run is scheduled."""

    id: Annotated[str, Field(validation_alias="dag_id")]
    is_paused: StrictBool
    has_import_errors: StrictBool = False
    next_run_at: Annotated[When, Field(validation_alias="next_dagrun_run_after")] = None
    is_stale: StrictBool = False


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run. ``state`` is queued, running, success or failed."""

    id: Annotated[str, Field(validation_alias="dag_run_id")]
    state: str
    started_at: Annotated[When, Field(validation_alias="start_date")] = None
    ended_at: Annotated[When, Field(validation_alias="end_date")] = None


class PipelineClient(HttpClient):
    """Read and pause one DAG.

    Parameters
    ----------
    url : the API server's address
    dag_id : the DAG
    user, password : to get a token for; none is asked for when the user is empty, or a token given

    Notes
    -----
    Airflow 3 takes tokens, not passwords. One that it no longer accepts is replaced once. A server
    that hands out none gets user and password by basic authentication.
    """

    SYSTEM = "pipeline"
    HEALTH = "/api/v2/monitor/health"

    def __init__(
        self, url: str, *, dag_id: str, user: str = "", password: str = "", **options: Any
    ) -> None:
        super().__init__(url, user=user, password=password, **options)
        self.dag_id = dag_id
        self._path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        wants_login = user and not options.get("token")
        self._login = {"username": user, "password": password} if wants_login else None
        self._has_token = False

    def check_reachable(self) -> str:
        """Return which DAG it shows."""
        return f"DAG {self.read_dag().id}"

    def read_dag(self) -> Dag:
        """Return the DAG's state."""
        return self.get(self._path, Dag)

    def list_runs(self, limit: int = 10) -> list[DagRun]:
        """Return the last runs, newest first."""
        query = {"order_by": "-start_date", "limit": limit}
        return self.get(f"{self._path}/dagRuns", list[DagRun], query, "dag_runs")

    def set_paused(self, paused: bool) -> Dag:
        """Pause or unpause the DAG. Changes the pipeline; the opposite undoes it."""
        return self.patch(self._path, Dag, {"is_paused": paused})

    def _ask_json(self, method: str, path: str, **options: Any) -> Json:
        if self._login and self._has_token:
            with suppress(AccessDeniedError):  # The token may have run out: a new one tells.
                return super()._ask_json(method, path, **options)
        if self._login:
            self._log_in(self._login)
        return super()._ask_json(method, path, **options)

    def _log_in(self, login: dict[str, str]) -> None:
        path = "/auth/token"
        try:
            answer = super()._ask_json("POST", path, json=login)
        except NotFoundError:
            self._login = None
            return
        token = self.read_as(path, answer, str, "access_token")
        self._headers["Authorization"] = f"Bearer {token}"
        self._has_token = True
