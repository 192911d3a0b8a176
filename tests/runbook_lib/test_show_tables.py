"""What a notebook shows is text first, and safe HTML."""

from __future__ import annotations

import pytest

from runbook_lib.show.display import Card
from runbook_lib.show.tables import Table
from runbook_lib.show.text import (
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a‹U+202E›b"),
        ("a\x00b\x1b[31m", "a‹U+0000›b‹U+001B›[31m"),
        ("đơn hàng 📦 ạ", "đơn hàng 📦 ạ"),
    ],
)
def test_invisible_characters_are_shown_and_letters_are_left_alone(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_table_has_caption_scope_and_escaped_cells() -> None:
    table = Table("<b>", [{"name": "<script>", "a_b": 1, "status": "ok"}])
    html = Card("a card", tables=(table,)).to_html()

    assert "<caption" in html
    assert html.count('scope="col"') == 3
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert "✓ ok" in html
