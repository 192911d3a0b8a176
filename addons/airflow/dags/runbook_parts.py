"""What a release is made of: a question about a plan, its parts, and one proof.

Airflow asks the question and says who answered. Whether the answer is an approval, this file
decides when it comes, and ``runbook`` decides again for each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException
from runbook_command import ExitCode, list_approvers, read_setting, run_runbook
from runbook_failures import tell_receivers

__all__ = ["START", "ApproveHash", "NotApprovedError", "make_release_dag", "read_plan"]

START = datetime(2026, 1, 1, tzinfo=UTC)
#: A plan may be begun for 15 minutes.
_ANSWER_WITHIN = timedelta(minutes=15)
_RETRIES = 5
#: Airflow ends the task before it asks when a parameter has no default; so the empty one may pass.
_SHA256 = Param(
    "",
    type="string",
    pattern="^([0-9a-f]{64})?$",
    title="SHA-256 of the plan",
    description="sha256sum of the plan's file, or as `runbook plan` printed it",
)
_QUESTION = """
{% set plan = ti.xcom_pull(task_ids='plan') %}
| | |
|---|---|
| plan | `{{ plan.plan }}` |
| SHA-256 | `{{ plan.sha256 }}` |
| labels | {{ '{:,}'.format(plan.objects) }} in {{ plan.parts }} parts |
| bytes | {{ '{:,}'.format(plan.bytes) }} |
| may begin until | {{ plan.expires_at }} |

Look at it first: `runbook apply {{ plan.plan }}` shows it and changes nothing.
To approve, type the SHA-256.
"""


class NotApprovedError(AirflowFailException):
    """An answer is no approval. Nothing was moved.

    Attributes
    ----------
    code : ``asked_again``, ``nobody_answered``, ``not_assigned``, ``no_hash``, ``other_hash``,
        ``expired`` or ``rejected``
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}. Nothing was approved.")
        self.code = code


class ApproveHash(HITLOperator):
    """Ask for the plan's SHA-256, and judge the answer.

    Returns
    -------
    What is approved, one item per part: ``plan``, ``part``, ``sha256`` as it was typed, and
    ``operator``.
    """

    APPROVE = "Approve"
    REJECT = "Reject"

    def execute(self, context: Any) -> Any:
        """Ask, once in a run. Airflow would ask again with the text of the first time.

        Raises
        ------
        NotApprovedError
            When the task was cleared, or nobody may answer.
        """
        if context["ti"].try_number > 1:
            way_on = "Plan again, or finish what was begun by `runbook resume`"
            raise NotApprovedError("asked_again", f"this run already asked. {way_on}")
        if not self.assigned_users:
            raise NotApprovedError("not_assigned", "RUNBOOK_AIRFLOW_APPROVERS names nobody")
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Judge the answer.

        Raises
        ------
        NotApprovedError
            When it is no approval of this plan by someone who may approve.
        """
        try:
            answer = super().execute_complete(context, event)
        except HITLTimeoutError as error:
            raise NotApprovedError("nobody_answered", "the time for an answer is over") from error
        allowed = [user["id"] for user in self.assigned_users or ()]
        operator = _read_operator(answer, allowed)
        typed = _read_hash(answer)
        plan = read_plan(context["run_id"])
        if typed != plan["sha256"]:
            raise NotApprovedError("other_hash", f"{typed} is not the SHA-256 of {plan['plan']}")
        if datetime.now(UTC) > datetime.fromisoformat(plan["expires_at"]):
            raise NotApprovedError("expired", f"{plan['plan']} expired at {plan['expires_at']}")
        approved = {"plan": plan["plan"], "sha256": typed, "operator": operator}
        return [{**approved, "part": str(part)} for part in range(1, plan["parts"] + 1)]


def _read_operator(answer: Mapping[str, Any], allowed: Sequence[str]) -> str:
    """Return who answered, as the bucket's state, journal and report name them."""
    user = answer["responded_by_user"]
    if not user:
        raise NotApprovedError("nobody_answered", "this is a default, not an answer")
    if user["id"] not in allowed:
        raise NotApprovedError("not_assigned", f"{user['name']} may not approve")
    if answer["chosen_options"] != [ApproveHash.APPROVE]:
        raise NotApprovedError("rejected", f"{user['name']} rejected it")
    if user["id"] == user["name"]:
        return str(user["name"])
    return f"{user['name']} ({user['id']})"


def _read_hash(answer: Mapping[str, Any]) -> str:
    """Return the hash as it was typed; Airflow lets an answer without it pass."""
    typed = str((answer["params_input"] or {}).get("sha256") or "").strip()
    if not typed:
        raise NotApprovedError("no_hash", "no SHA-256 was typed")
    return typed


def read_plan(plan_id: str) -> dict[str, Any]:
    """Return what a person approves, read from the plan's file. Changes nothing.

    Raises
    ------
    AirflowFailException
        When this machine has no such plan, or it has no parts.
    """
    answer = run_runbook("apply", plan_id)
    if answer.code != ExitCode.REFUSED or not answer.document.get("parts"):
        raise answer.fail(is_final=True)
    names = ("plan", "sha256", "objects", "bytes", "expires_at", "parts")
    return {name: answer.document[name] for name in names}


def make_release_dag(
    dag_id: str,
    *,
    answer_within: timedelta = _ANSWER_WITHIN,
    defaults: str | None = None,
) -> DAG:
    """Return the DAG of a release.

    Parameters
    ----------
    answer_within : the approval fails after that
    defaults : what Airflow answers then by itself; it is no approval
    """

    @dag(
        dag_id=dag_id,
        schedule=None,
        start_date=START,
        catchup=False,
        default_args={"on_failure_callback": tell_receivers},
        tags=["runbook"],
    )
    def release() -> None:
        """Carry out one plan: the run's id is the plan's."""

        @task
        def plan(run_id: str | None = None) -> dict[str, Any]:
            """Read the plan that this run is about."""
            return read_plan(str(run_id))

        approve = ApproveHash(
            task_id="approve",
            subject="Release {{ run_id }}?",
            body=_QUESTION,
            options=[ApproveHash.APPROVE, ApproveHash.REJECT],
            params={"sha256": _SHA256},
            assigned_users=[{"id": user, "name": user} for user in list_approvers()],
            response_timeout=answer_within,
            defaults=defaults,
            retries=0,
        )

        @task(
            retries=_RETRIES,
            retry_delay=timedelta(seconds=float(read_setting("RETRY_S", "60"))),
            max_active_tis_per_dagrun=int(read_setting("PARTS_AT_ONCE", "4")),
            map_index_template="{{ task.op_kwargs['approved']['part'] }}",
        )
        def carry_out(approved: dict[str, str]) -> dict[str, Any]:
            """Apply a part, or go on with it: that is one command."""
            which = ("--part", approved["part"], "--approve", approved["sha256"])
            answer = run_runbook("apply", approved["plan"], *which, operator=approved["operator"])
            if answer.code != ExitCode.OK:
                raise answer.fail(is_final=not _may_try_again(answer.code, answer.ways_on))
            return {
                "part": approved["part"],
                "moved": answer.document["moved"],
                "seconds": answer.seconds,
                "peak_mib": answer.peak_mib,
            }

        @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
        def proof(run_id: str | None = None) -> dict[str, Any]:
            """Prove the whole plan."""
            answer = run_runbook("verify", str(run_id))
            if answer.code != ExitCode.OK:
                raise answer.fail(is_final=True)
            names = ("plan", "in_place", "gone_after_landed", "incident", "summary")
            return {name: answer.document[name] for name in names}

        proven = proof()
        plan() >> approve >> proven
        carry_out.expand(approved=approve.output) >> proven

    return release()


def _may_try_again(code: int, ways_on: Sequence[str]) -> bool:
    """Tell whether the same command makes progress: nothing that a person must decide is open."""
    if code == ExitCode.USAGE:
        return False
    decisions = [command for command in ways_on if " settle " in command]
    return not decisions
