"""What a notebook shows is text first, and safe HTML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from markupsafe import Markup

from runbook_lib.model import Reading
from runbook_lib.show.display import Card
from runbook_lib.show.plots import Picture, plot_reading
from runbook_lib.show.tables import Table
from runbook_lib.show.text import (
    clip,
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
        ("a\x00b\x1b[31m", "a‹U+0000›b‹U+001B›[31m"),
        ("a\ud800b", "a‹U+D800›b"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("đơn hàng 📦 ạ", "đơn hàng 📦 ạ"),
    ],
)
def test_invisible_characters_are_shown_and_letters_are_left_alone(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_safe_escapes_clips_and_leaves_markup() -> None:
    assert safe('<b a="1">') == "&lt;b a=&#34;1&#34;&gt;"
    assert safe(Markup("<b>")) == "<b>"
    assert clip("x" * 30, 10) == "x" * 10 + "… (+20 characters)"


def test_a_table_has_caption_scope_and_escaped_cells() -> None:
    table = Table("<b>", [{"name": "<script>", "a_b": 1, "status": "ok"}])
    html = Card("a card", tables=(table,)).to_html()

    assert "<caption" in html
    assert html.count('scope="col"') == 3
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert "✓ ok" in html


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
