"""A reading's rows as a typed frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest

from runbook_lib.frames import FLAG, NUMBER, TEXT, TIME, WHOLE, to_frame

AT = datetime(2026, 11, 24, 3, 14, 15, tzinfo=UTC)
COLUMNS = {"key": TEXT, "waits_minutes": NUMBER, "size": WHOLE, "done": FLAG, "at": TIME}


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_each_kind_of_value_has_its_dtype() -> None:
    rows = [
        {"key": "a", "waits_minutes": 1.5, "size": 10, "done": True, "at": AT},
        {"key": "b", "waits_minutes": 2, "size": 0, "done": False, "at": AT + timedelta(hours=1)},
    ]
    frame = to_frame(rows, {"at": TIME})
    assert dtypes(frame) == COLUMNS
    assert list(frame.index) == [0, 1]
    assert frame["at"][1] == pd.Timestamp("2026-11-24T04:14:15Z")
    assert frame["waits_minutes"].sum() == 3.5
    assert frame["size"].sum() == 10
    assert frame["done"].sum() == 1


def test_a_missing_value_keeps_the_dtype_of_its_column() -> None:
    full = {"key": "a", "waits_minutes": 1.5, "size": 10, "done": True, "at": AT}
    frame = to_frame([full, dict.fromkeys(full), {}], {"at": TIME})
    assert dtypes(frame) == COLUMNS
    assert frame.iloc[1:].isna().all(axis=None)
    assert frame.iloc[0].notna().all()


def test_columns_come_in_the_order_declared_then_found() -> None:
    assert list(to_frame([{"found": 1, "declared": 3}], {"declared": WHOLE})) == [
        "declared",
        "found",
    ]


def test_an_empty_frame_keeps_its_columns_and_their_dtypes() -> None:
    frame = to_frame([], COLUMNS)
    assert dtypes(frame) == COLUMNS
    assert len(frame) == 0
    assert list(frame.groupby(["key", frame["at"].dt.floor("h")])["size"].sum()) == []
    assert to_frame([]).shape == (0, 0)


def test_times_of_every_zone_are_utc() -> None:
    local = AT.astimezone(timezone(timedelta(hours=7)))
    assert to_frame([{"at": local}], {"at": TIME})["at"][0] == pd.Timestamp(AT)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([None], "object"),
        (["a", "2026-11-24T03:14:15.000Z"], TEXT),
        ([True, 1], "object"),
        ([1, "2"], "object"),
        ([["a"], []], "object"),
    ],
)
def test_a_dtype_follows_from_the_values(values: list[Any], dtype: str) -> None:
    frame = to_frame([{"found": value} for value in values])
    assert dtypes(frame) == {"found": dtype}


def test_a_value_that_does_not_fit_its_declared_column_is_missing() -> None:
    rows = [
        {"at": "yesterday", "waits_minutes": "NaN", "size": "many"},
        {"at": "never", "waits_minutes": "Infinity", "size": 3},
    ]
    frame = to_frame(rows, {"at": TIME, "waits_minutes": NUMBER, "size": WHOLE})
    assert frame["at"].isna().all()
    assert list(frame["waits_minutes"].isna()) == [True, False]
    assert list(frame["size"].isna()) == [True, False]
