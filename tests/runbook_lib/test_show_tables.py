"""What a notebook shows is text first, and safe HTML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from markupsafe import Markup

from runbook_lib.model import Finding, Reading, Status
from runbook_lib.show.display import Card, describe
from runbook_lib.show.plots import Picture, plot_reading
from runbook_lib.show.tables import Table, pill, say_value, tabulate_facts, tabulate_findings
from runbook_lib.show.text import (
    clip,
    format_bytes,
    format_duration,
    format_value,
    safe,
    visible,
)

AT = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


def reading(**changes: Any) -> Reading:
    values: dict[str, Any] = {
        "step": "2.1",
        "name": "lag",
        "value": 27.4,
        "unit": "min",
        "status": "breach",
        "observed_at": AT,
        "source": "promql",
        "reason": "it fires",
    }
    return Reading(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a‹U+202E›b"),
        ("a\u2066b\u2069", "a‹U+2066›b‹U+2069›"),
        ("pen\u200bding", "pen‹U+200B›ding"),
        ("a\x00b\x1b[31m", "a‹U+0000›b‹U+001B›[31m"),
        ("a\ud800b", "a‹U+D800›b"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("\U000e0041", "‹U+E0041›"),
        ("đơn hàng 📦 ạ", "đơn hàng 📦 ạ"),
    ],
)
def test_invisible_characters_are_shown_and_letters_are_left_alone(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_stacked_marks_are_cut() -> None:
    assert len(visible("Z" + "\u0301" * 500)) < 10


def test_safe_escapes_clips_and_leaves_markup() -> None:
    assert safe('<b a="1">') == "&lt;b a=&#34;1&#34;&gt;"
    assert safe(Markup("<b>")) == "<b>"
    assert clip("x" * 30, 10) == "x" * 10 + "… (+20 characters)"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "–"),
        (True, "", "yes"),
        (1234567, "objects", "1,234,567 objects"),
        (1, "objects", "1 object"),
        (1.0, "s", "1 s"),
        (1, "min of lag less", "1 min of lag less"),
        (0, "releases", "0 releases"),
        (27.4, "min", "27.4 min"),
        (2.0, "", "2"),
        (4_812_800, "bytes", "4.6 MiB"),
        ("paused", "", "paused"),
        (float("nan"), "", "nan"),
    ],
)
def test_values_are_written_for_people(value: Any, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_sizes_and_durations() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
    ]
    spans = [
        timedelta(seconds=59),
        timedelta(minutes=35),
        timedelta(hours=3, minutes=4),
        timedelta(days=3),
    ]
    assert list(map(format_duration, spans)) == ["59 s", "35 min", "3 h 04 min", "72 h 00 min"]


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_word_and_icon_and_colour(status: Status) -> None:
    html = pill(str(status))

    assert str(status).replace("_", " ") in html
    assert any(icon in html for icon in "✓✖?–")
    assert "background-color:#" in html


def test_findings_come_most_supported_first() -> None:
    names = {"refuted": "surge", "undecided": "bad_prefix", "supported": "store_down"}
    found = [Finding(name=n, status=s) for s, n in names.items()]  # type: ignore[arg-type]

    causes = [row["name"] for row in tabulate_findings(found).rows]
    assert causes == ["store_down", "bad_prefix"]


def test_a_table_has_caption_scope_and_escaped_cells() -> None:
    table = Table("<b>", [{"name": "<script>", "a_b": 1, "status": "ok"}])
    html = Card("a card", tables=(table,)).to_html()

    assert "<caption" in html
    assert html.count('scope="col"') == 3
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert "✓ ok" in html


def test_a_card_shows_value_reason_source_and_rows() -> None:
    card = describe(reading(rows=[{"key": "pending/1.pdf"}] * 30, facts={"seq": 3})).to_html()

    for text in ("27.4 min", "it fires", "promql", "pending/1.pdf", "30 rows"):
        assert text in card
    assert card.count("<td") + card.count('scope="row"') == 10 + 2
    assert describe(reading()).to_text().startswith("✖ breach · 2.1 lag: 27.4 min")


def test_facts_are_plain_and_sizes_are_for_people() -> None:
    facts = {"free_bytes": 2048, "excluded": {"synthetic": 2, "none": None}, "keys": ["a", "b"]}

    assert tabulate_facts(facts, "details").rows == [
        {"name": "free bytes", "value": "2.0 KiB"},
        {"name": "excluded", "value": "synthetic 2, none –"},
        {"name": "keys", "value": "a, b"},
    ]
    nested = {"detect_s": 5.0, "notify_s": {"slack": 5.2, "teams": None}}
    assert say_value(nested) == "detect s 5, notify s slack 5.2, teams –"


def draw(plot: dict[str, Any], **how: Any) -> Picture | None:
    return plot_reading(reading(plot=plot), **how)


def make_plot(*values: float | str, **more: Any) -> dict[str, Any]:
    points = [[AT + timedelta(seconds=30 * i), value] for i, value in enumerate(values)]
    lines = [{"name": "pending", "points": points}]
    return {"title": "Lag \ud800 $b$", "unit": "min", "lines": lines, **more}


def test_the_text_says_what_the_picture_shows() -> None:
    marks = [[AT, "action"]]
    plot = make_plot(0, "NaN", 19.5, threshold=10, marks=marks)
    picture = draw(plot)
    assert picture is not None
    assert b"<svg" in picture.svg
    words = ("Lag", "03:14:00 to 03:15:00", "from 0 to 19.5", "threshold is 10 min",
             "action at 03:14:00")  # fmt: skip
    for word in words:
        assert word in picture.alt
    assert "alt=" in picture._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("plot", [{}, make_plot("NaN"), make_plot(1)])
def test_what_has_no_samples_has_no_picture(plot: dict[str, Any]) -> None:
    assert draw(plot) is None
