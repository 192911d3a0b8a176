"""Talk to the pipeline that releases labels: Airflow 3's REST API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from ..model import Json
from .fields import as_list, parse_when
from .http import HttpSystem

__all__ = ["Dag", "DagRun", "PipelineClient"]


@dataclass(frozen=True, slots=True)
class Dag:
    """The pipeline's DAG."""

    id: str
    is_paused: bool
    has_import_errors: bool
    next_run_at: datetime | None


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
    user, password : for basic authentication; none when the user is empty
    timeout_s : limit for each question
    """

    SYSTEM = "pipeline"
    HEALTH = "/api/v2/monitor/health"

    def __init__(
        self, url: str, *, dag_id: str, timeout_s: float, user: str = "", password: str = ""
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, auth=(user, password) if user else None)
        self.dag_id = dag_id
        self._path = f"/api/v2/dags/{quote(dag_id, safe='')}"

    def read_dag(self) -> Dag:
        """Return the DAG's state."""
        return self._dag(self.http.get_json(self._path))

    def list_runs(self, limit: int = 10) -> list[DagRun]:
        """Return the last runs, newest first."""
        path = f"{self._path}/dagRuns"
        answer = self.http.get_json(path, {"order_by": "-start_date", "limit": limit})
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
        return self._dag(self.http.patch_json(self._path, {"is_paused": paused}))

    def _dag(self, answer: Json) -> Dag:
        with self.http.parsing(self._path):
            if not isinstance(answer["is_paused"], bool):
                raise TypeError("is_paused is not true or false")
            return Dag(
                id=str(answer["dag_id"]),
                is_paused=answer["is_paused"],
                has_import_errors=bool(answer.get("has_import_errors", False)),
                next_run_at=parse_when(answer.get("next_dagrun_run_after")),
            )
