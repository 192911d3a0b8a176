"""Print what is wrong with the catalogs of translations, and fail if anything is.

A message that the code asks for by its text needs a translation, and so do the records of the
runbook: its rules, actions, causes and steps. A translation needs a message that is in the code,
and has the values of that message.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.pofile import read_po
from jinja2 import Environment, nodes

from fulfillment.analysis.causes import CAUSES
from fulfillment.change.service_actions import SERVICE_ACTIONS
from fulfillment.policy import POLICY
from fulfillment.sections import SECTIONS
from runbook_lib.run.documents import Document
from runbook_lib.show.text import VERDICT_WORDS

ROOT = Path(__file__).parents[1]
_PACKAGES = (ROOT / "runbook_lib", ROOT / "fulfillment")
#: How a message names a value.
_VALUE = re.compile(r"%\(\w+\)s|\{\w+\}")


def read_catalogs() -> dict[str, str]:
    """Return the translation of each message, and of its plural."""
    entries: dict[str, str] = {}
    for package in _PACKAGES:
        for entry in read_po((package / "locale" / "vi.po").read_text("utf-8").splitlines()):
            told = entry.string if isinstance(entry.string, str) else entry.string[0]
            asked = [entry.id] if isinstance(entry.id, str) else entry.id
            entries.update({text: told for text in asked if text})
    return entries


def _list_code() -> Iterator[ast.AST]:
    for package in _PACKAGES:
        for path in package.rglob("*.py"):
            yield from ast.walk(ast.parse(path.read_text("utf-8")))


def _list_templates() -> Iterator[nodes.Template]:
    for path in (ROOT / "runbook_lib" / "templates").glob("*.*"):
        yield Environment(autoescape=True).parse(path.read_text("utf-8"))


def list_asked() -> set[str]:
    """Return the messages that code and templates ask for by their text, and the runbook's own."""
    asked: list[object] = []
    for node in _list_code():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("gettext", "ngettext"):
            asked += [text.value for text in node.args if isinstance(text, ast.Constant)]
    for template in _list_templates():
        for call in template.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "_":
                asked += [text.value for text in call.args if isinstance(text, nodes.Const)]
    for why, step in POLICY.rules.values():
        asked += [why, step.reason]
    asked += POLICY.actions.values()
    for action in SERVICE_ACTIONS.values():
        asked += [action.effect, action.way_back]
    for cause in CAUSES.values():
        asked += [cause.words, cause.then, cause.repair.person, cause.repair.action]
        asked += cause.follow_ups
        asked += [clue.says for option in cause.options for clue in option.clues]
    for section in SECTIONS.values():
        steps = (*section.STEPS.values(), *section.ACTIONS.values())
        asked += [section.TITLE, *(step.title for step in steps)]
    return {text for text in asked if isinstance(text, str) and text}


def list_texts() -> set[str]:
    """Return every text in code and templates, and the words that stand for names."""
    texts = {*VERDICT_WORDS.values(), *Document.model_fields}
    for node in _list_code():
        if isinstance(node, ast.Constant):
            texts.add(str(node.value))
        elif isinstance(node, ast.keyword):  # a field of a document is a label
            texts.add(str(node.arg))
    for template in _list_templates():
        texts |= {str(each.value) for each in template.find_all(nodes.Const)}
    return texts | {text.replace("_", " ") for text in texts}


def list_problems() -> list[str]:
    """Return what is missing, what no code says any more, and what has other values."""
    entries = read_catalogs()
    asked_for = list_asked()
    texts = asked_for | list_texts()
    problems = [f"no translation: {text!r}" for text in sorted(asked_for - entries.keys())]
    for asked, told in entries.items():
        if not {asked, asked.removesuffix("s")} & texts:
            problems.append(f"not in the code: {asked!r}")
        if sorted(_VALUE.findall(asked)) != sorted(_VALUE.findall(told)):
            problems.append(f"other values: {asked!r}")
    return problems


def main() -> int:
    """Print the problems; return 1 if there are any."""
    problems = list_problems()
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
