"""What a notebook shows is text first, and safe HTML."""

from __future__ import annotations

import pytest

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
