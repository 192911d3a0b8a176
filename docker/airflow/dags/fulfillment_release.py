"""The DAG that lets finished labels be released, for the profile ``airflow``."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import Variable, dag, task


@dag(
    dag_id="fulfillment_release",
    schedule="* * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["fulfillment"],
)
def fulfillment_release() -> None:
    """Open the gate once a minute; while the DAG is paused or fails, the worker moves nothing.

    ``airflow variables set fulfillment_release_gate closed`` lets the runs fail,
    ``airflow variables delete fulfillment_release_gate`` lets them succeed again.
    """

    @task
    def release_gate() -> str:
        gate = str(Variable.get("fulfillment_release_gate", default="open"))
        if gate != "open":
            raise ValueError(f"the variable fulfillment_release_gate is {gate!r}, not 'open'")
        return gate

    release_gate()


fulfillment_release()
