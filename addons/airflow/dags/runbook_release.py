"""A release by parts: ``plan → approve → carry_out → proof``, one run for each plan.

The run's id is the plan's id, so a plan has one run, and Airflow refuses a second. The DAG
``runbook_plan`` makes a plan and triggers its run; ``runbook plan --parts N`` and
``airflow dags trigger runbook_release --run-id PLAN`` do the same.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from runbook_command import ExitCode, run_runbook
from runbook_failures import tell_receivers
from runbook_parts import START, make_release_dag


@dag(
    dag_id="runbook_plan",
    schedule=None,
    start_date=START,
    catchup=False,
    params={"parts": Param(4, type="integer", minimum=1, maximum=256)},
    default_args={"on_failure_callback": tell_receivers},
    tags=["runbook"],
)
def runbook_plan() -> None:
    """Plan a release of what waits, cut into parts, and ask for its approval. Moves nothing."""

    @task
    def plan(params: dict[str, Any] | None = None) -> str:
        """Return the plan's id."""
        parts = (params or {})["parts"]
        answer = run_runbook("plan", "--parts", str(parts))
        if answer.code != ExitCode.OK:
            raise answer.fail(is_final=True)
        if not answer.document["apply"]:
            raise AirflowSkipException(answer.describe())
        return str(answer.document["plan"])

    TriggerDagRunOperator(
        task_id="release",
        trigger_dag_id="runbook_release",
        trigger_run_id=plan(),
    )


runbook_release = make_release_dag("runbook_release")
runbook_plan()
