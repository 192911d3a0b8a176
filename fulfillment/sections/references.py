"""Section 8: every reference of the runbook, checked."""

from functools import partial

from runbook_lib.model import Conclusion, Outcome, Status, Verdict
from runbook_lib.section import (
    ActionStep,
    SectionParameters,
    Step,
    by_id,
)
from runbook_lib.settings import find_checkout

from ..investigation import Investigation

NAME = "08_references"
TITLE = "References"
Parameters = SectionParameters


def _make_file_step(
    step_id: str, title: str, path: str, wanted: str = "", *, is_ours: bool = False
) -> Step:
    """Return a step that checks that a file of DataFlow exists, and contains a text.

    If DATAFLOW_HOME is empty, it checks our own file if the file ``is_ours``, too.
    """
    return Step(
        step_id,
        title,
        partial(_check_file, path=path, wanted=wanted, is_ours=is_ours),
        name=path,
        source=f"$DATAFLOW_HOME/{path}",
        threshold="the file, or a wanted text in it, is missing",
    )


def _check_file(inv: Investigation, *, path: str, wanted: str, is_ours: bool) -> Outcome:
    """Check that a file exists and contains a text, in any case."""
    home = inv.settings.dataflow_home
    if home is None and is_ours:
        home = find_checkout()
    if home is None:
        return Outcome().left_out("DATAFLOW_HOME is empty: there is no checkout of DataFlow")
    file = home / path
    if not file.is_file():
        return Outcome().breach("the file does not exist")
    if wanted.lower() not in file.read_text("utf-8", "replace").lower():
        return Outcome().breach(f"the file does not mention {wanted.strip()!r}")
    return Outcome(value="found").ok("the file exists")


STEPS = by_id(
    _make_file_step(
        "8.1", "Chaos script", "scripts/chaos/simulate_fulfillment_delay.py", is_ours=True
    ),
    _make_file_step("8.2", "Make target", "Makefile", "\nchaos-fulfillment-delay:", is_ours=True),
    _make_file_step("8.3", "Monitoring and drills", "docs/monitoring/README.md"),
    _make_file_step(
        "8.4",
        "Incident runbook",
        "docs/monitoring/incident-runbook.md",
        "Fulfillment artifacts backlog",
    ),
    _make_file_step("8.5", "Plan", "docs/design/implementation/wave-4-ops-hardening.md"),
)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say how many references are right, and which not.

    The verdict is the incident's; before trouble, ``healthy`` if any is right, else ``unknown``.
    """
    readings = [reading for step_id, reading in inv.latest().items() if step_id in STEPS]
    right = [reading for reading in readings if reading.status is Status.OK]
    wrong = [
        f"{reading.step} {reading.status.replace('_', ' ')}"
        for reading in readings
        if reading not in right
    ]
    summary = "; ".join([f"{len(right)} of {len(STEPS)} references are right", *wrong])
    verdict = Verdict.HEALTHY if right else Verdict.UNKNOWN
    return inv.conclude_without_symptoms(verdict, summary)
