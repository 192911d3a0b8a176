"""An alert to its report: what ``runbook serve`` does, in a task. One run for each look.

``runbook serve`` with ``SERVE_AIRFLOW_URL_FILE`` starts the runs. It makes their ids from the
alert's key, so Airflow refuses a second one.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException
from runbook_command import ExitCode, read_setting, run_runbook
from runbook_failures import tell_receivers

#: With pauses that double up to ten minutes: longer than a delivery is tried (120 minutes).
_RETRIES = 20
_LONGEST_PAUSE = timedelta(minutes=10)
_ENDS_WITHIN = timedelta(minutes=30)


@dag(
    dag_id="runbook_alert",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"on_failure_callback": tell_receivers},
    tags=["runbook"],
)
def runbook_alert() -> None:
    """Investigate, then deliver to ticket, chat and mail, each once. Changes nothing."""

    @task(
        retries=_RETRIES,
        retry_delay=timedelta(seconds=float(read_setting("RETRY_S", "60"))),
        retry_exponential_backoff=True,
        max_retry_delay=_LONGEST_PAUSE,
        execution_timeout=_ENDS_WITHIN,
        max_active_tis_per_dag=1,
    )
    def answer(dag_run: Any = None) -> dict[str, Any]:
        """Return the incident, and what became of each message."""
        alerts = (dag_run.conf or {}).get("alerts")
        with tempfile.TemporaryDirectory(prefix="runbook-alert-") as folder:
            path = Path(folder) / "alerts.json"
            path.write_text(json.dumps(alerts), "utf-8")
            said = run_runbook("serve", "--alerts", str(path))
        if said.code == ExitCode.OK:
            return {name: said.document[name] for name in ("incident", "deliveries")}
        if said.document.get("is_done"):
            # Sent where it could be sent; who takes nothing for two hours gets nothing.
            raise AirflowFailException(json.dumps(said.document["deliveries"]))
        raise said.fail(is_final=False)

    answer()


runbook_alert()
