"""Hands looks over to Airflow: a run of its DAG ``runbook_alert`` looks and delivers.

The DAG stands in ``addons/airflow``.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from requests import Request

from fulfillment.clients.http_systems import PipelineClient
from runbook_lib.model import Json

from .settings import ServeSettings

_DAG_ID = "runbook_alert"
_CONFLICT = 409


class AirflowClient(PipelineClient):
    """Starts runs of one DAG."""

    SYSTEM = "serve_airflow"

    def start_run(self, run_id: str, alerts: Sequence[Json]) -> None:
        """Start the run of an id, once: 409 means that Airflow has it already.

        Parameters
        ----------
        alerts : as Alertmanager writes them

        Raises
        ------
        ClientError
            When Airflow did not take the run, nobody knows whether it did, or the DAG starts no
            runs.

        Notes
        -----
        Changes Airflow: it has the run then. Deleting the run undoes it, but not what it sent.
        """
        dag = self.read_dag()
        if dag.is_paused or dag.is_stale or dag.has_import_errors:
            raise self.bad(self._path, "starts no run: it is paused, or its file cannot be read")
        body = {"dag_run_id": run_id, "logical_date": None, "conf": {"alerts": list(alerts)}}
        request = Request("POST", f"{self.url}{self._path}/dagRuns", json=body)
        answer = self._send(request)
        if answer.status != _CONFLICT:
            self._check_status(request, answer)


def connect_airflow(settings: ServeSettings) -> AirflowClient | None:
    """Return the client of the Airflow that the settings name; None without one. Sends nothing."""
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
