"""Pages of words that a person reads, kept as plain text beside the tests.

A test asserts codes, fields and names. What a person reads stands in ``tests/AREA/golden/``:
``WRITE_GOLDEN=1 pytest FILE`` writes its pages anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parents[1]


def expect_golden(name: str, text: str, *, hide: Mapping[str, str] | None = None) -> None:
    """Compare what a person would read with its golden page, or write the page anew.

    ``hide`` has what differs from run to run, and the word that stands for it.
    """
    for place, word in (hide or {}).items():
        text = text.replace(place, word)
    area, file = name.split("/")
    page = TESTS / area / "golden" / file
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    if os.environ.get("WRITE_GOLDEN"):
        page.parent.mkdir(exist_ok=True)
        page.write_text("\n".join(lines) + "\n", "utf-8")
    assert lines == page.read_text("utf-8").splitlines(), name
