"""The pipeline in Airflow 3's REST shape: one scheduled DAG, kept in SQLite."""

from __future__ import annotations

import json
import logging
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel, ConfigDict, Field

from .clock import Clock, format_z
from .database import Database
from .plumbing import Loop, ServiceSettings, build_app, configure_logging, serve

__all__ = ["Pipeline", "PipelineSettings", "build", "main"]

log = logging.getLogger("pipeline_api")

_KEPT_RUNS = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS dags (
    dag_id TEXT PRIMARY KEY, is_paused INTEGER NOT NULL, failing INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dag_runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, dag_id TEXT NOT NULL, run_id TEXT NOT NULL,
    state TEXT NOT NULL, start_date TEXT NOT NULL, end_date TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS event_logs (
    event_log_id INTEGER PRIMARY KEY AUTOINCREMENT, "when" TEXT NOT NULL, dag_id TEXT NOT NULL,
    event TEXT NOT NULL, owner TEXT NOT NULL, extra TEXT NOT NULL);
"""


class PipelineSettings(ServiceSettings):
    """Which DAG there is, how often it runs, and where its state is kept."""

    database: Path
    dag_id: str = Field("fulfillment_release", validation_alias="PIPELINE_DAG_ID")
    run_interval_s: float = Field(3.0, gt=0)


#: Who asks, by basic authentication. The name is written down; nothing checks the password.
_User = Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]


class _Patch(BaseModel):
    model_config = ConfigDict(extra="ignore")

    is_paused: bool


class _Behaviour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    failing: bool


class Pipeline:
    """The DAG's state and runs; a scheduler that records a run while it is not paused."""

    def __init__(self, settings: PipelineSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._db = Database(settings.database, _SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO dags VALUES (?, 0, 0)", (settings.dag_id,))

    @property
    def is_paused(self) -> bool:
        """Whether the DAG is paused."""
        return bool(self._dag()["is_paused"])

    @property
    def failing(self) -> bool:
        """Whether its runs fail."""
        return bool(self._dag()["failing"])

    def set_paused(self, paused: bool, *, by: str = "anonymous") -> None:
        """Pause or unpause the DAG; the event log keeps who did it."""
        extra = json.dumps({"is_paused": paused, "method": "PATCH"})
        with self._db.transaction():
            self._db.execute("UPDATE dags SET is_paused = ?", (paused,))
            self._db.execute(
                'INSERT INTO event_logs ("when", dag_id, event, owner, extra)'
                " VALUES (?, ?, 'patch_dag', ?, ?)",
                (format_z(self._clock.now()), self._settings.dag_id, by, extra),
            )
        log.warning("dag %s", "paused" if paused else "unpaused")

    def set_failing(self, failing: bool) -> None:
        """Let the runs from now on fail, or succeed again; unless paused, one runs at once."""
        self._db.execute("UPDATE dags SET failing = ?", (failing,))
        self.run_if_due()

    def run_if_due(self) -> float:
        """Record one scheduled run unless paused; return the seconds to the next."""
        if not self.is_paused:
            now = format_z(self._clock.now())
            state = "failed" if self.failing else "success"
            if state == "failed":
                log.error("dag run failed: task release_gate exited with code 1")
            with self._db.transaction():
                self._db.execute(
                    "INSERT INTO dag_runs (dag_id, run_id, state, start_date, end_date)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (self._settings.dag_id, f"scheduled__{now}", state, now, now),
                )
                self._db.execute(
                    "DELETE FROM dag_runs WHERE number <= (SELECT max(number) FROM dag_runs) - ?",
                    (_KEPT_RUNS,),
                )
        return self._settings.run_interval_s

    def dag(self) -> dict[str, Any]:
        """Return the DAG as Airflow 3 does."""
        due = None
        if not self.is_paused:
            due = format_z(self._clock.now() + timedelta(seconds=self._settings.run_interval_s))
        return {
            "dag_id": self._settings.dag_id,
            "dag_display_name": self._settings.dag_id,
            "description": "Releases finished labels and packing slips to ready/",
            "is_paused": self.is_paused,
            "is_active": True,
            "is_stale": False,
            "has_import_errors": False,
            "next_dagrun_logical_date": due,
            "next_dagrun_run_after": due,
            "owners": ["fulfillment"],
            "tags": [],
        }

    def runs(self, *, limit: int, newest_first: bool) -> dict[str, Any]:
        """Return the runs as Airflow 3 does."""
        rows = self._db.query(
            "SELECT * FROM dag_runs ORDER BY number * ? LIMIT ?", (-1 if newest_first else 1, limit)
        )
        total = self._db.query("SELECT count(*) AS n FROM dag_runs")[0]["n"]
        return {"dag_runs": [_run(row) for row in rows], "total_entries": total}

    def event_logs(self, *, event: str | None, limit: int, newest_first: bool) -> dict[str, Any]:
        """Return who changed the DAG, as Airflow 3 does."""
        rows = self._db.query(
            "SELECT * FROM event_logs WHERE (?1 IS NULL OR event = ?1)"
            " ORDER BY event_log_id * ?2 LIMIT ?3",
            (event, -1 if newest_first else 1, limit),
        )
        total = self._db.query("SELECT count(*) AS n FROM event_logs")[0]["n"]
        return {"event_logs": [dict(row) for row in rows], "total_entries": total}

    def _dag(self) -> sqlite3.Row:
        return self._db.query("SELECT * FROM dags WHERE dag_id = ?", (self._settings.dag_id,))[0]


def _run(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "dag_run_id": row["run_id"],
        "dag_id": row["dag_id"],
        "logical_date": row["start_date"],
        "queued_at": row["start_date"],
        "run_after": row["start_date"],
        "start_date": row["start_date"],
        "end_date": row["end_date"],
        "run_type": "scheduled",
        "triggered_by": "timetable",
        "state": row["state"],
        "conf": {},
        "note": None,
    }


def build(settings: PipelineSettings) -> FastAPI:
    """Build the pipeline's API."""
    clock, registry = settings.clock, CollectorRegistry()
    pipeline = Pipeline(settings, clock)
    runs_total = Counter("pipeline_dag_runs_total", "DAG runs", ["state"], registry=registry)
    Gauge("pipeline_dag_paused", "1 while the DAG is paused", registry=registry).set_function(
        lambda: float(pipeline.is_paused)
    )

    def schedule() -> float:
        if not pipeline.is_paused:
            runs_total.labels("failed" if pipeline.failing else "success").inc()
        return pipeline.run_if_due()

    app = build_app(
        "pipeline-api", clock=clock, registry=registry, loops=[Loop("scheduler", schedule)]
    )

    def check(dag_id: str) -> None:
        if dag_id != settings.dag_id:
            raise HTTPException(404, f"The Dag with ID: `{dag_id}` was not found")

    @app.get("/api/v2/monitor/health")
    def health() -> dict[str, Any]:
        beat = format_z(clock.now())
        return {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": beat},
        }

    @app.get("/api/v2/dags/{dag_id}")
    def read_dag(dag_id: str) -> dict[str, Any]:
        check(dag_id)
        return pipeline.dag()

    @app.patch("/api/v2/dags/{dag_id}")
    def patch_dag(dag_id: str, patch: _Patch, user: _User) -> dict[str, Any]:
        check(dag_id)
        by = user.username if user else "anonymous"
        pipeline.set_paused(patch.is_paused, by=by)
        return pipeline.dag()

    @app.get("/api/v2/dags/{dag_id}/dagRuns")
    def read_runs(
        dag_id: str, order_by: str = "run_after", limit: int = Query(50, ge=1, le=500)
    ) -> dict[str, Any]:
        check(dag_id)
        return pipeline.runs(limit=limit, newest_first=order_by.startswith("-"))

    @app.get("/api/v2/eventLogs")
    def read_event_logs(
        event: str | None = None,
        order_by: str = "event_log_id",
        limit: int = Query(50, ge=1, le=500),
    ) -> dict[str, Any]:
        newest_first = order_by.startswith("-")
        return pipeline.event_logs(event=event, limit=limit, newest_first=newest_first)

    @app.get("/admin/behaviour")
    def read_behaviour() -> _Behaviour:
        return _Behaviour(failing=pipeline.failing)

    @app.put("/admin/behaviour")
    def set_behaviour(wanted: _Behaviour) -> _Behaviour:
        pipeline.set_failing(wanted.failing)
        return wanted

    return app


def main() -> None:
    """Serve the pipeline."""
    settings = PipelineSettings()
    configure_logging(settings.clock)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
