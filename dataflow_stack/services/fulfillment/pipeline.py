"""Asks the pipeline whether releases run."""

from __future__ import annotations

import requests

from ...web import ask
from .config import FulfillmentSettings

__all__ = ["PipelineGate"]


class PipelineGate:
    """The release DAG as the worker sees it: it moves nothing without the DAG's consent."""

    def __init__(self, settings: FulfillmentSettings) -> None:
        self._dag = f"{settings.pipeline_url}/api/v2/dags/{settings.pipeline_dag_id}"
        self._timeout_s = settings.pipeline_timeout_s
        self._dag_id = settings.pipeline_dag_id

    def read_objection(self) -> str:
        """Return why nothing may be released now; empty when releases run."""
        try:
            if self._get(self._dag)["is_paused"]:
                return f"DAG {self._dag_id} is paused"
            runs = self._get(f"{self._dag}/dagRuns?order_by=-start_date&limit=1")["dag_runs"]
        except (requests.RequestException, KeyError, ValueError) as error:
            return f"pipeline does not answer: {error}"
        if runs and runs[0]["state"] == "failed":
            return f"the last run of DAG {self._dag_id} failed"
        return ""

    def _get(self, url: str) -> dict[str, list[dict[str, str]]]:
        answer = ask("GET", url, timeout_s=self._timeout_s)
        answer.raise_for_status()
        body: dict[str, list[dict[str, str]]] = answer.json()
        return body
