"""The weekly drill: the sections that only look, one task each, then a real fault and its score.

A section that is not healthy fails its task, and nothing is injected. After weeks of downtime
Airflow starts one run, not one for each week.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import chain, dag, task
from airflow.sdk.exceptions import AirflowFailException
from runbook_command import ExitCode, read_setting, run_runbook
from runbook_failures import tell_receivers

_SECTIONS = ("01", "02", "03", "05", "08")
#: Alone they do not read all that a verdict needs; section 1 does.
_NOT_ALONE = ("02", "03")
_ENDS_WITHIN = timedelta(hours=2)


@dag(
    dag_id="runbook_drills",
    schedule="0 9 * * 1",
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "on_failure_callback": tell_receivers,
        "execution_timeout": _ENDS_WITHIN,
        "retries": 0,
    },
    tags=["runbook"],
)
def runbook_drills() -> None:
    """Look, drill, score. Changes only what the drill reverts."""

    @task
    def look(section: str) -> str:
        """Run one section that changes nothing; return the path of its report."""
        answer = run_runbook("run", section)
        may_be_unknown = section in _NOT_ALONE and answer.code == ExitCode.UNKNOWN
        if answer.code != ExitCode.OK and not may_be_unknown:
            raise answer.fail(is_final=True)
        return str(answer.document["report"])

    @task
    def drill(ti: Any = None) -> dict[str, Any]:
        """Inject a fault, carry out the runbook, put everything back; return report and score."""
        scenario = read_setting("SCENARIO")
        words = (scenario,) if scenario else ()
        answer = run_runbook("drill", *words)
        names = ("scenario", "incident", "report", "phases", "objectives", "reverted", "exit_code")
        score = {name: answer.document.get(name) for name in names}
        if answer.code != ExitCode.OK:
            # What a failed task returns is dropped, and a failed drill's score matters most.
            ti.xcom_push(key="score", value=score)
            raise AirflowFailException(answer.describe())
        return score

    looks = [look.override(task_id=f"section_{section}")(section) for section in _SECTIONS]
    chain(*looks, drill())


runbook_drills()
