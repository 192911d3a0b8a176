"""An example, not installed: section 1 by Airflow's papermill provider, in Airflow's environment.

docs/airflow.md says what it cannot do. Use ``runbook_drills`` instead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import dag


@dag(
    dag_id="papermill_example",
    schedule=None,
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    tags=["runbook", "example"],
)
def papermill_example() -> None:
    """Run notebook 01 and keep it with its outputs; Airflow sees nothing else of it."""
    PapermillOperator(
        task_id="section_01",
        input_nb="/opt/runbook/notebooks/01_purpose.ipynb",
        output_nb="/srv/runbook/01_purpose-{{ run_id | replace(':', '-') }}.ipynb",
        parameters={"incident_id": "new"},
        kernel_name="python3",
        language_name="python",
        # Of the whole task; the provider passes no time-out for a cell on.
        execution_timeout=timedelta(minutes=10),
    )


papermill_example()
