"""The helper holds no step, section, notebook or domain word of the runbook that it carries.

What is read are its texts: strings, docstrings, comments and pages. Names of variables are free.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import runbook_lib
from fulfillment.sections import SECTIONS

ROOT = Path(runbook_lib.__file__).parent
STEP_IDS = {step_id for module in SECTIONS.values() for step_id in (*module.STEPS, *module.ACTIONS)}
#: What a word may stand in, and why.
ALLOWED = (
    r"\borders :",  # a field of readings, and so of every journal that was written
    r"aria-label=",  # HTML's
    r"\bin (\w+ )?order\b|the order in which",  # a sequence
)
#: Words of every move, in the modules about moves: who moves objects in ordinary times, and what a
#: person orders to be done about a plan.
OF_MOVES = {
    "worker": ("moving.py", "move_cli.py", "run/move_commands.py"),
    "orders?": ("moving.py",),
}
_TEXTS = {"STRING", "FSTRING_MIDDLE", "COMMENT"}


def iter_texts() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.rglob("*.html")):
        yield path.name, _strip(path.read_text("utf-8"))
    for path in sorted(ROOT.rglob("*.py")):
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if tokenize.tok_name[token.type] in _TEXTS:
                    yield f"{path.relative_to(ROOT)}:{token.start[0]}", _strip(token.string)


def _strip(text: str) -> str:
    text = re.sub(r"\{[^{}]*\}", "{}", text)  # what stands in the braces of an f-string is code
    return re.sub("|".join(ALLOWED), "", text)


def find(pattern: str) -> list[str]:
    found = []
    for place, text in iter_texts():
        for line in text.splitlines():
            if re.search(pattern, line):
                found.append(f"{place}: {line.strip()}")  # noqa: PERF401 - two loops in one
    return found


IDS = "|".join(re.escape(step_id) for step_id in sorted(STEP_IDS))
WORDS = ("labels?", "orders?", "DAG", "MinIO", "worker", "carrier")
PATTERNS = {
    "a section": "|".join(SECTIONS),
    "a section's number": r"""["'`]0[1-8]["'`]|[Ss]ection [1-8]\b""",
    "a step": rf"""(["'`#]|[Ss]tep )({IDS})["'`,;:]""",
    **{word: rf"\b{word}\b" for word in WORDS},
}


@pytest.mark.parametrize("what", PATTERNS)
def test_the_helper_names_nothing_of_the_runbook(what: str) -> None:
    allowed = OF_MOVES.get(what, ())
    found = find(PATTERNS[what])
    assert [place for place in found if place.partition(":")[0] not in allowed] == []
