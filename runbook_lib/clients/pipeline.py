"""Talk to the pipeline that releases labels: Airflow 3's REST API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from ..errors import AccessDeniedError, NotFoundError
from ..model import Json
from .fields import as_list, parse_when
from .http import HttpClient, HttpSystem

__all__ = ["Dag", "DagRun", "PipelineClient"]


@dataclass(frozen=True, slots=True)
class Dag:
    """The pipeline's DAG. A stale one has no file that can be read: no run is scheduled."""

    id: str
    is_paused: bool
    has_import_errors: bool
    next_run_at: datetime | None
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run. ``state`` is queued, running, success or failed."""

    id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None


class PipelineClient(HttpSystem):
    """Read and pause one DAG.

    Parameters
    ----------
    url : the API server's address
    dag_id : the DAG
    user, password : to get a token for; none is asked for when the user is empty
    timeout_s : limit for each question

    Notes
    -----
    Airflow 3 takes tokens, not passwords. One that it no longer accepts is replaced once. A server
    that hands out none gets user and password by basic authentication.
    """

    SYSTEM = "pipeline"
    HEALTH = "/api/v2/monitor/health"

    def __init__(
        self, url: str, *, dag_id: str, timeout_s: float, user: str = "", password: str = ""
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, auth=(user, password) if user else None)
        self.dag_id = dag_id
        self._path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        self._basic, self._timeout_s = self.http, timeout_s
        self._login = {"username": user, "password": password} if user else None

    def read_dag(self) -> Dag:
        """Return the DAG's state."""
        return self._dag(self._ask(lambda http: http.get_json(self._path)))

    def list_runs(self, limit: int = 10) -> list[DagRun]:
        """Return the last runs, newest first."""
        path = f"{self._path}/dagRuns"
        query = {"order_by": "-start_date", "limit": limit}
        answer = self._ask(lambda http: http.get_json(path, query))
        with self.http.parsing(path):
            return [
                DagRun(
                    id=str(run["dag_run_id"]),
                    state=str(run["state"]),
                    started_at=parse_when(run.get("start_date")),
                    ended_at=parse_when(run.get("end_date")),
                )
                for run in as_list(answer["dag_runs"])
            ]

    def set_paused(self, paused: bool) -> Dag:
        """Pause or unpause the DAG. Changes the pipeline; the opposite undoes it."""
        change = {"is_paused": paused}
        return self._dag(self._ask(lambda http: http.patch_json(self._path, change)))

    def _ask(self, question: Callable[[HttpClient], Json]) -> Json:
        if self._login and self.http is self._basic:
            self._log_in()
        elif self._login:
            with suppress(AccessDeniedError):  # The token may have run out: a new one tells.
                return question(self.http)
            self._log_in()
        return question(self.http)

    def _log_in(self) -> None:
        path = "/auth/token"
        try:
            answer = self._basic.post_json(path, self._login)
        except NotFoundError:
            self._login = None
            return
        with self._basic.parsing(path):
            sign = {"Authorization": f"Bearer {answer['access_token']}"}
        self.http = HttpClient(
            self.url, system=self.SYSTEM, timeout_s=self._timeout_s, headers=sign
        )

    def _dag(self, answer: Json) -> Dag:
        with self.http.parsing(self._path):
            if not isinstance(answer["is_paused"], bool):
                raise TypeError("is_paused is not true or false")
            return Dag(
                id=str(answer["dag_id"]),
                is_paused=answer["is_paused"],
                has_import_errors=bool(answer.get("has_import_errors", False)),
                next_run_at=parse_when(answer.get("next_dagrun_run_after")),
                is_stale=bool(answer.get("is_stale", False)),
            )
