"""Hand investigations over to Airflow: a run of the DAG ``runbook_alert`` looks and delivers.

The DAG's file is ``addons/airflow/dags/runbook_alert.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from fulfillment.clients.http_systems import PipelineClient
from runbook_lib.model import Json

from .settings import ServeSettings

_DAG_ID = "runbook_alert"
_CONFLICT = 409


class AirflowClient(PipelineClient):
    """Starts runs of the DAG ``runbook_alert``."""

    SYSTEM = "serve_airflow"

    def start_run(self, run_id: str, alerts: Sequence[Json]) -> None:
        """Start a run under an id, unless Airflow has a run of this id already (409).

        Parameters
        ----------
        run_id : the same at each attempt, so that no second run starts
        alerts : as Alertmanager writes them

        Raises
        ------
        ClientError
            When Airflow cannot be reached or refused the run, when its answer was lost, or when
            the DAG is paused, is stale or has import errors.

        Notes
        -----
        Changes Airflow: adds a run. Deleting the run undoes this, but not what the run sent.
        """
        dag = self.read_dag()
        if dag.is_paused or dag.is_stale or dag.has_import_errors:
            raise self.make_bad_answer(
                self._path, "starts no run: it is paused, or its file cannot be read"
            )
        body = {"dag_run_id": run_id, "logical_date": None, "conf": {"alerts": list(alerts)}}
        answer = self._send("POST", f"{self._path}/dagRuns", json=body)
        if answer.status != _CONFLICT:
            self._check_status(answer)


def connect_airflow(settings: ServeSettings) -> AirflowClient | None:
    """Return a client for the Airflow in the settings; None if none is set. Sends nothing."""
    url = settings.serve_airflow_url.get_secret_value()
    if not url:
        return None
    parts = urlsplit(url)
    return AirflowClient(
        url,
        dag_id=_DAG_ID,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        timeout_s=settings.http_timeout_s,
        ca_file=str(settings.ca_bundle or ""),
        proxy_url=settings.proxy_url,
    )
