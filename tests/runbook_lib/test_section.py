"""What a step is written with: its record, and ok, breach or unknown as soon as it knows."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import runbook_lib
from fulfillment.investigation import Investigation
from fulfillment.sections import detection
from runbook_lib.errors import ClientTimeoutError, UsageError
from runbook_lib.model import Outcome, Role, Status
from runbook_lib.section import (
    SectionModule,
    Step,
    attempt,
    by_id,
    read_parameters,
    step,
)
from tests.support.world import World


def open_on(world: World, read: Step) -> Investigation:
    inv = world.open(detection)
    inv.section = cast(SectionModule, SimpleNamespace(NAME="x", STEPS=by_id(read), ACTIONS={}))
    return inv


def test_a_step_names_settings_and_its_reading_has_their_values(tmp_path: Path) -> None:
    @step(
        "2.9", "A step", name="something", role=Role.SYMPTOM, unit="min",
        source='$prometheus_url up{job="x"}; $DATAFLOW_HOME',
        threshold="over $lag_threshold_minutes min",
    )  # fmt: skip
    def read(_inv: Investigation) -> Outcome:
        return Outcome(value=12.5).breach("it is")

    reading = open_on(World(tmp_path), read).read_step("2.9")

    assert reading.source == 'http://127.0.0.1:9090 up{job="x"}; $DATAFLOW_HOME'
    assert reading.threshold == "over 10 min"
    assert (reading.name, reading.role, reading.unit) == ("something", Role.SYMPTOM, "min")
    assert (reading.status, reading.value, reading.reason) == (Status.BREACH, 12.5, "it is")


def test_what_differs_from_reading_to_reading_is_said_by_the_reading(tmp_path: Path) -> None:
    seen = Outcome(value=2, source="here", threshold="over 1")

    @step("2.9", "A step", name="n", role=Role.SYMPTOM, source="$prometheus_url")
    def read(_inv: Investigation) -> Outcome:
        return seen.ok("fine")

    reading = open_on(World(tmp_path), read).read_step("2.9")
    assert (reading.source, reading.threshold, reading.value) == ("here", "over 1", 2)


def test_a_step_that_cannot_read_is_unknown_and_says_where_it_looked(tmp_path: Path) -> None:
    @step("2.9", "A step", name="n", role=Role.SYMPTOM, source="$grafana_url")
    def read(_inv: Investigation) -> Outcome:
        raise ClientTimeoutError("slow", system="grafana")

    reading = open_on(World(tmp_path), read).read_step("2.9")
    assert reading.status is Status.UNKNOWN
    assert reading.source == "http://127.0.0.1:3000"
    assert "slow" in reading.reason


def test_an_unknown_step_is_a_usage_error_that_names_those_that_exist(tmp_path: Path) -> None:
    made = step("2.9", "A step", name="n", role=Role.SYMPTOM, source="x")(
        lambda _: Outcome().ok("")
    )
    with pytest.raises(UsageError, match=r"'3\.1'.*2\.9"):
        open_on(World(tmp_path), made).read_step("3.1")


def test_a_part_that_fails_alone_is_none_with_its_reason() -> None:
    def fail() -> int:
        raise ClientTimeoutError("no answer", system="support")

    assert attempt(lambda: 3) == (3, "")
    found, error = attempt(fail)
    assert found is None
    assert "no answer" in error


def test_code_outside_the_sections_names_roles_and_no_step() -> None:
    root = Path(runbook_lib.__file__).parent
    found = {
        f"{path.relative_to(root)}: {told}"
        for path in (*root.rglob("*.py"), *root.rglob("*.html"))
        if path.relative_to(root).parts[0] != "sections"
        # the release's commands and its plan are about one action of one step
        and path.relative_to(root).as_posix() not in ("run/release.py", "change/release.py")
        for told in re.findall(r"""["'#-][1-8]\.[1-9](?=["'])""", path.read_text("utf-8"))
    }
    assert found == set()


class TestParametersOfANotebook:
    def test_its_values_are_checked_and_defaults_fill_in(self) -> None:
        found = read_parameters(detection, {"window_minutes": 30, "count": 5})
        assert found == {"incident_id": "", "ticket_id": "", "window_minutes": 30}

    @pytest.mark.parametrize(
        "cell",
        ['incident_id = ""\nwindw_minutes = 90', "# Parameters\nwindw_minutes = 90"],
    )
    def test_a_mistyped_name_is_refused_by_hand_and_by_papermill(self, cell: str) -> None:
        names = {"In": ["", "x = 1", cell, "read_parameters(detection, globals())"]}
        with pytest.raises(UsageError, match=r"windw_minutes.*\bwindow_minutes"):
            read_parameters(detection, names)

    def test_a_corrected_cell_and_names_of_ones_own_are_no_parameters(self) -> None:
        wrong, right = 'incident_id = ""\nwindw_minutes = 90', 'incident_id = ""'
        names = {"In": ["", wrong, right, "count = 5"], "windw_minutes": 90, "count": 5}
        assert read_parameters(detection, names)["window_minutes"] == 60

    @pytest.mark.parametrize("value", [0, "soon"])
    def test_a_wrong_value_is_refused(self, value: object) -> None:
        with pytest.raises(UsageError, match="window_minutes"):
            read_parameters(detection, {"window_minutes": value})
