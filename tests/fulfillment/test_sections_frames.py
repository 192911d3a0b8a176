"""What an engineer does next with a reading's rows, on the frames that the sections declare."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest

from fulfillment.clients.http_systems import Panel
from fulfillment.clients.services import LogLine
from fulfillment.investigation import Investigation
from fulfillment.sections import detection, immediate, root_cause
from runbook_lib.frames import find_dtype
from tests.support.world import NOW, ORDER, TICKET, World, make_case

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SECTIONS = (detection, immediate, root_cause)
TABLES = [
    (section, step) for section in SECTIONS for step in section.COLUMNS if step in section.STEPS
]
CELLS = [(detection, "frame-2-3"), (immediate, "frame-3-4"), (root_cause, "frame-5-1")]


def describe_carrier_failure(order_id: int) -> str:
    """Return the worker's log line, as the local stack's service writes it."""
    message = "carrier request failed: carrier_timeout: no answer within 5 s"
    return json.dumps({"level": "error", "msg": message, "order_id": order_id})


@pytest.fixture
def busy(world: World) -> World:
    """Return a world in which every table has rows."""
    world.put_lag(25)
    world.put_label(25, number=1)
    world.put_label(95, number=2, finished=False)
    world.fire()
    world.case = make_case(NOW)
    world.panel = Panel("Fulfillment backlog", ("sum(waiting)",), "http://grafana/d/x")
    world.series["sum(waiting)"] = [world.line([2.0])]
    world.logs = [
        LogLine(NOW - timedelta(minutes=1), describe_carrier_failure(ORDER)),
        LogLine(NOW - timedelta(minutes=1), "ERROR upload failed: storage_full"),
    ]
    return world


def run_cell(inv: Investigation, cell_id: str) -> pd.DataFrame:
    """Run a notebook's cell; return what its last line shows."""
    notebook = nbformat.read(NOTEBOOKS / f"{inv.section.NAME}.ipynb", as_version=4)
    (source,) = [cell.source for cell in notebook.cells if cell.id == cell_id]
    *lines, last = source.splitlines()
    names: dict[str, Any] = {"inv": inv}
    exec("\n".join(lines), names)  # noqa: S102 - a cell of the project's own notebooks
    shown = eval(last, names)  # noqa: S307
    assert isinstance(shown, pd.DataFrame)
    return shown


def read(inv: Investigation, *steps: str) -> None:
    for step in steps:
        inv.read_step(step)


@pytest.mark.parametrize(("section", "step"), TABLES)
def test_a_step_has_the_columns_and_kinds_of_values_that_are_declared(
    busy: World, section: Any, step: str
) -> None:
    declared = section.COLUMNS[step]
    inv = busy.open(section, ticket_id=TICKET)
    reading = inv.read_step(step)
    assert inv.frame(step).dtypes.astype(str).to_dict() == declared
    for row in reading.rows:
        assert list(row) == list(declared)
    for name, dtype in declared.items():
        values = [row[name] for row in reading.rows if row[name] is not None]
        assert not values or find_dtype(values) in (dtype, "Int64"), name


@pytest.mark.parametrize(("section", "cell"), CELLS)
def test_a_cell_shows_an_empty_table_where_nothing_was_read(
    world: World, section: Any, cell: str
) -> None:
    assert len(run_cell(world.open(section), cell)) == 0


@pytest.mark.parametrize(("section", "cell", "step"), [(*CELLS[0], "2.3"), (*CELLS[1], "3.4")])
def test_waiting_labels_are_counted_by_hour_and_order(
    busy: World, section: Any, cell: str, step: str
) -> None:
    inv = busy.open(section)
    read(inv, step)
    shown = run_cell(inv, cell)
    assert list(shown) == ["hour", "order", "labels", "longest_minutes"]
    assert set(shown["order"]) == {str(ORDER)}
    assert shown["labels"].sum() == 2
    assert shown["longest_minutes"].max() == 95.0
    assert str(shown["hour"].dtype) == "datetime64[ns, UTC]"


def test_carrier_failures_stand_beside_the_unfinished_labels_that_wait(busy: World) -> None:
    read(busy.open(detection), "2.3")
    read(busy.open(immediate), "3.5")
    shown = run_cell(busy.open(root_cause), "frame-5-1")
    assert list(shown["order"]) == [str(ORDER)]
    assert shown["waits_minutes"].iloc[0] == 95.0
    assert "carrier" in shown["template"].iloc[0]
