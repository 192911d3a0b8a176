"""Print the causes of this runbook as Markdown; ``--write`` puts them into docs/causes.md."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from fulfillment.analysis.causes import CAUSES, Clue, Option
from fulfillment.drills import list_scenarios

PAGE = Path(__file__).resolve().parents[1] / "docs" / "causes.md"
_HEAD = "| cause | supported when | labels by | afterwards |\n|---|---|---|---|\n"


def _say(clues: Iterable[Clue], word: str) -> str:
    return f" {word} ".join(clue.says for clue in clues)


def _describe(option: Option) -> str:
    """Return when an option holds, in words."""
    text = _say(option.clues, "and")
    if option.unless:
        text += f", unless {_say(option.unless, 'or')}"
    return text


def print_causes() -> None:
    """Write one row for each cause, and which causes no drill injects."""
    sys.stdout.write(_HEAD)
    for name, record in CAUSES.items():
        options = "<br>or ".join(_describe(option) for option in record.options)
        follow_ups = "; ".join(record.follow_ups) or "–"
        row = (f"`{name}`: {record.words}", options, record.strategy, follow_ups)
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    missing = [f"`{name}`" for name in CAUSES if name not in list_scenarios()]
    sys.stdout.write(f"\nNo drill yet: {', '.join(missing) or 'none'}.\n")


def write_page() -> None:
    """Put the table into the page, below its words."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        print_causes()
    words = PAGE.read_text("utf-8").partition("| cause |")[0]
    PAGE.write_text(words + printed.getvalue(), "utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write_page()
    else:
        print_causes()
