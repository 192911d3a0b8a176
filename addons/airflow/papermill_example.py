"""An example, not installed: section 1 by Airflow's papermill provider.

docs/airflow.md says what it needs, and what it cannot do. Use ``runbook_drills`` instead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import dag
from runbook_command import read_setting


@dag(
    dag_id="papermill_example",
    schedule=None,
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    tags=["runbook", "example"],
)
def papermill_example() -> None:
    """Run notebook 01 and keep it with its outputs; Airflow sees nothing else of it."""
    notebooks = read_setting("NOTEBOOKS", "/opt/runbook/notebooks")
    folder = read_setting("FOLDER", "/srv/runbook")
    PapermillOperator(
        task_id="section_01",
        input_nb=f"{notebooks}/01_purpose.ipynb",
        output_nb=f"{folder}/01_purpose-{{{{ run_id | replace(':', '-') }}}}.ipynb",
        parameters={"window_minutes": 120},
        # Its kernelspec names the runbook's own Python, and the folder to run in.
        kernel_name="runbook",
        language_name="python",
        # Of the whole task; the provider passes no time-out for a cell on.
        execution_timeout=timedelta(minutes=10),
    )


papermill_example()
