"""Section 5 judges two cases of others. All of them: ``make diagnose-cases``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dataflow_stack.config import load_config
from fulfillment.investigation import Investigation
from fulfillment.settings import Settings
from runbook_lib.model import CauseStatus
from tests.diagnosis.foreign_cases import CASES, find_misses
from tests.diagnosis.foreign_play import PLAYS, Stage
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import run_stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

_DEADLINE_S = 60.0
_LOOKS = 5


def look(inv: Investigation) -> list[str]:
    """Return the causes that section 5 supports now."""
    return sorted(list_causes(ask_why(inv), CauseStatus.SUPPORTED))


def test_a_burst_is_no_cause_and_a_missing_key_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    burst = CASES["burst_that_drains"]
    keyless = CASES["missing_credentials"]
    with run_stack(tmp_path / "stack") as stack, ExitStack() as ends:
        for name, value in stack.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
        stage = Stage(load_config(stack.home).remembered(), ends)
        inv = open_diagnosis(Settings())

        PLAYS[burst.name](stage)
        looks = [look(inv) for _ in range(_LOOKS)]
        assert find_misses(burst, looks) == []

        PLAYS[keyless.name](stage)
        deadline = time.monotonic() + _DEADLINE_S
        looks = [look(inv)]
        while not keyless.is_named(looks[-1]) and time.monotonic() < deadline:
            looks.append(look(inv))
        assert find_misses(keyless, looks) == []
