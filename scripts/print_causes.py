"""Print the causes that this runbook knows as a Markdown table, for docs/causes.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from fulfillment.analysis.causes import CAUSES, Option, Sign


def _say(signs: Iterable[Sign], word: str) -> str:
    return f" {word} ".join(sign.says for sign in signs)


def _describe(option: Option) -> str:
    """Return when an option holds, in words."""
    text = _say(option.signs, "and")
    if option.unless:
        text += f", unless {_say(option.unless, 'or')}"
    return text


def print_causes() -> None:
    """Write one row for each cause."""
    sys.stdout.write("| cause | supported when | labels by | afterwards |\n|---|---|---|---|\n")
    for name, record in CAUSES.items():
        options = "<br>or ".join(_describe(option) for option in record.options)
        follow_ups = "; ".join(record.follow_ups) or "–"
        row = (f"`{name}`: {record.words}", options, record.strategy, follow_ups)
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    print_causes()
