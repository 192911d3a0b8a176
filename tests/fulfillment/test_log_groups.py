"""Log lines that differ in numbers and names are one group; hostile lines are data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fulfillment.analysis.log_groups import LogGroup, group_lines

T0 = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


def group(*texts: str) -> list[LogGroup]:
    return group_lines((T0 + timedelta(seconds=i), text) for i, text in enumerate(texts))


def count_entries(groups: list[LogGroup]) -> int:
    return sum(one.count for one in groups)


def test_lines_that_differ_in_numbers_ids_and_quotes_are_one_group() -> None:
    groups = group(
        'ERROR put of "pending/1-aa.pdf" failed after 3 tries, request 7f3a9b2c1d',
        'ERROR put of "pending/2-bb.pdf" failed after 12 tries, request 00ff00ff00ff',
    )
    (only,) = groups
    assert only.template == "ERROR put of <text> failed after <n> tries, request <n>"
    assert (only.count, only.first, only.last) == (2, T0, T0 + timedelta(seconds=1))
    assert only.example.endswith("request 7f3a9b2c1d")
    assert only.level == "error"


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("id 4be0643f-1d98-573b-97cd-ca98a65347dd gone", "id <n> gone"),
        ("don't touch worker's file", "don't touch worker's file"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, template: str) -> None:
    assert group(text)[0].template == template


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '{"msg": ' + "[" * 100_000,
    ],
)
def test_a_hostile_line_is_data(text: str) -> None:
    groups = group("INFO before", text, "INFO after")
    assert count_entries(groups) == 3
    assert all(len(g.template) <= 2000 and len(g.example) <= 600 for g in groups)


def test_control_and_bidi_characters_do_not_reach_the_reader() -> None:
    (only,) = group("a\x1b[31m\u202eb\x00c")
    assert only.example == "a\ufffd[31m\ufffdb\ufffdc"
