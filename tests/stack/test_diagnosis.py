"""Section 5 names real faults, and nothing else. All of them: ``make diagnose-matrix``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders
from fulfillment.investigation import Investigation
from fulfillment.settings import Settings
from runbook_lib.model import CauseStatus, Conclusion, Finding, Verdict
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import RunningStack, stack

__all__ = ["stack"]

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


@pytest.fixture
def diagnosis(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Investigation:
    for name, value in stack.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path))
    return open_diagnosis(Settings())


@contextmanager
def injected(stack: RunningStack, name: str) -> Iterator[None]:
    """Inject a fault and late orders, and take it back whatever happens."""
    config = load_config(stack.home).remembered()
    FAULTS[name].on(config)
    try:
        inject_orders(stack.env["FULFILLMENT_URL"], 4)
        yield
    finally:
        FAULTS[name].off(config)


#: So many answers in a row, of about a second each, are longer than a scrape.
_CALM = 3


def ask_until(
    inv: Investigation, causes: set[str], *, remedy: str = "", deadline_s: float = 120
) -> Conclusion:
    """Ask until exactly these causes are supported; no other may be on the way there.

    A release is the remedy once labels wait, which may be after the cause is known.

    Without causes: until it says healthy, or fixed after an earlier trouble. What an earlier fault
    left in the last half minute of the counters, and an alert that fades, come first.
    """
    deadline = time.monotonic() + deadline_s
    calm = 0
    while True:
        answer = ask_why(inv)
        found = list_causes(answer, CauseStatus.SUPPORTED)
        assert found <= causes or not causes, answer.summary
        calm = calm + 1 if answer.verdict in (Verdict.HEALTHY, Verdict.FIXED) else 0
        is_healthy = calm >= _CALM  # the last scrape may miss what failed a second ago
        if found == causes and (
            supported(answer).next_step.startswith(remedy) if causes else is_healthy
        ):
            return answer
        assert time.monotonic() < deadline, answer.summary


def supported(answer: Conclusion) -> Finding:
    (finding,) = (f for f in answer.findings if f.status is CauseStatus.SUPPORTED)
    return finding


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("worker_stuck", "6.1 release by move"),
        pytest.param("carrier_timeout", "call the carrier", marks=pytest.mark.long),
        ("bad_prefix", "6.1 release by move"),
    ],
)
def test_a_real_fault_is_named_and_nothing_else(
    name: str, remedy: str, stack: RunningStack, diagnosis: Investigation
) -> None:
    ask_until(diagnosis, set())
    with injected(stack, name):
        answer = ask_until(diagnosis, {name}, remedy=remedy)
        again = ask_why(diagnosis)
    finding = supported(answer)
    assert (answer.verdict, finding.name) == (Verdict.INCIDENT, name)
    assert finding.next_step.startswith(remedy)
    entries = {f"#{e.seq}": e for e in diagnosis.incident.journal.view().entries}
    assert finding.evidence
    assert {entries[reference].kind for reference in finding.evidence} == {"reading"}
    assert list_causes(again, CauseStatus.SUPPORTED) == {name}, again.summary
    ask_until(diagnosis, set())
