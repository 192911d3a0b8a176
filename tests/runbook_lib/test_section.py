"""What a step is written with: its record, and ok, breach or unknown as soon as it knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fulfillment.investigation import Investigation
from fulfillment.sections import detection
from runbook_lib.errors import ClientTimeoutError, UsageError
from runbook_lib.model import Outcome, Role, Status
from runbook_lib.section import (
    SectionModule,
    Step,
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


def test_a_step_that_cannot_read_is_unknown_and_says_where_it_looked(tmp_path: Path) -> None:
    @step("2.9", "A step", name="n", role=Role.SYMPTOM, source="$grafana_url")
    def read(_inv: Investigation) -> Outcome:
        raise ClientTimeoutError("slow", system="grafana")

    reading = open_on(World(tmp_path), read).read_step("2.9")
    assert reading.status is Status.UNKNOWN
    assert reading.source == "http://127.0.0.1:3000"
    assert "slow" in reading.reason


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

    @pytest.mark.parametrize("value", [0, "soon"])
    def test_a_wrong_value_is_refused(self, value: object) -> None:
        with pytest.raises(UsageError, match="window_minutes"):
            read_parameters(detection, {"window_minutes": value})
