"""``runbook run``: chosen notebooks, headless."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import UsageError
from ..exit_codes import ExitCode, compute_exit_code
from ..model import Json, Verdict
from ..record.incident import Incident
from ..record.log import utc_now
from ..section import check_parameters
from ..sections import find_section
from ..settings import Settings
from .documents import RunDocument
from .finish import write_outputs
from .investigate import get_incident, run_sections, to_result
from .notebooks import NotebookRun, RunStatus

__all__ = ["run_chosen"]


def run_chosen(
    settings: Settings,
    names: Sequence[str],
    *,
    incident_id: str = "",
    parameters: Mapping[str, str],
    progress: Callable[[str], None] = lambda _: None,
) -> RunDocument:
    """Run the notebooks of the named sections and write the report.

    Parameters
    ----------
    names : such as ``06`` or ``remediation``
    parameters : each section gets those that it knows; one that none knows is an error

    Raises
    ------
    UsageError
        Before a kernel starts, when a section or parameter is unknown or a value is wrong.
    """
    sections = [find_section(name) for name in names]
    for name in parameters:
        if not any(name in section.Parameters.model_fields for section in sections):
            known = {n for section in sections for n in section.Parameters.model_fields}
            raise UsageError(
                f"none of these sections has a parameter {name!r}; they have "
                f"{', '.join(sorted(known))}"
            )
    for section in sections:
        fields = section.Parameters.model_fields
        check_parameters(section, {k: v for k, v in parameters.items() if k in fields})
    incident, _ = get_incident(settings, incident_id or parameters.get("incident_id", ""))
    first = incident.journal.view().last_seq
    runs = run_sections(
        incident, [s.NAME for s in sections], parameters=parameters, progress=progress
    )
    report = write_outputs(incident)
    verdict = _verdict(runs)
    return RunDocument(
        schema_name="runbook/run/1",
        at=utc_now(),
        incident=incident.id,
        verdict=verdict,
        exit_code=_exit_code(runs, verdict),
        notebooks=tuple(map(to_result, runs)),
        plans=tuple(_plans(incident, first)),
        report=str(report),
    )


def _verdict(runs: Sequence[NotebookRun]) -> Verdict | None:
    verdicts = {run.name: run.conclusion.verdict for run in runs if run.conclusion}
    if "06_remediation" in verdicts:
        return verdicts["06_remediation"]
    order = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED, Verdict.UNKNOWN)
    worst = next((v for v in order if v in verdicts.values()), None)
    return worst or next(iter(verdicts.values()), None)


def _exit_code(runs: Sequence[NotebookRun], verdict: Verdict | None) -> ExitCode:
    statuses = {run.status for run in runs}
    if RunStatus.FAILED in statuses:
        is_usage = any(isinstance(run.error, UsageError) for run in runs)
        return ExitCode.USAGE if is_usage else ExitCode.RUN_FAILED
    if statuses & {RunStatus.REFUSED, RunStatus.STOPPED_AT_PLAN}:
        return ExitCode.REFUSED
    return ExitCode.OK if verdict is None else compute_exit_code(verdict)


def _plans(incident: Incident, first: int) -> list[dict[str, Json]]:
    return [
        {
            "step": action.step,
            "plan": plan,
            "sha256": action.result["sha256"],
            "action": action.action,
            "target": action.target,
        }
        for plan, action in incident.journal.view().list_plans(after=first).items()
    ]
