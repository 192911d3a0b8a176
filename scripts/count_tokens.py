"""Print each package's size in Python tokens and kB, and fail past a budget of pyproject.toml.

In tokens, docstrings and comments do not count. An f-string counts as one token, as in Python
3.11's tokenizer. Lines are free. In kB (1,000 bytes), all of the Python counts, so that prose and
tables in strings do, too. A folder ``next`` counts nowhere: a redesign grows there beside the old
until it takes over.

The budgets are ``[tool.runbook.tokens]``, one for each package, and ``[tool.runbook.kilobytes]``:
for the packages together, and for the tests with ``bench`` and ``tools``. A budget only falls.
"""

from __future__ import annotations

import ast
import io
import math
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: What counts as tests.
_TESTS = ("tests", "bench", "tools")
# Python 3.12 and newer split an f-string into parts.
_FSTRING_START = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END = getattr(tokenize, "FSTRING_END", None)


def find_docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def count_tokens(source: str) -> int:
    """Count the tokens of code."""
    docstring_lines = find_docstring_lines(ast.parse(source))
    count = 0
    fstring_depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _NOT_CODE or token.start[0] in docstring_lines:
            continue
        if _FSTRING_START is not None and token.type == _FSTRING_START:
            fstring_depth += 1
            continue
        if _FSTRING_END is not None and token.type == _FSTRING_END:
            fstring_depth -= 1
            if fstring_depth > 0:
                continue
        if fstring_depth == 0:
            count += 1
    return count


def count_lines(source: str) -> int:
    """Count the lines that hold code: without docstrings, comments and blanks."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - find_docstring_lines(ast.parse(source)))


class Size(NamedTuple):
    """The size of a folder's Python."""

    tokens: int
    size_bytes: int

    @property
    def kilobytes(self) -> int:
        """The bytes in units of 1,000, rounded up."""
        return math.ceil(self.size_bytes / 1000)


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, without those of a redesign in a folder ``next``."""
    for path in folder.rglob("*.py"):
        if "next" not in path.relative_to(folder).parts:
            yield path


def measure_folders(folders: Iterable[str]) -> Size:
    """Measure the Python of folders; one that does not exist is empty."""
    tokens = 0
    size_bytes = 0
    for folder in folders:
        for path in list_files(Path(folder)):
            source = path.read_text("utf-8")
            tokens += count_tokens(source)
            size_bytes += len(source.encode())
    return Size(tokens, size_bytes)


def write_row(name: str, tokens: str, kilobytes: str) -> None:
    """Write one row of the table."""
    sys.stdout.write(f"{name:12} {tokens:>24} {kilobytes:>18}\n")


def main() -> int:
    """Print each size beside its budget; return 1 when one is past it."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    tokens: dict[str, int] = project["tool"]["runbook"]["tokens"]
    kilobytes: dict[str, int] = project["tool"]["runbook"]["kilobytes"]
    breaches = []
    for name, budget in tokens.items():
        size = measure_folders([name])
        write_row(name, f"{size.tokens:,} tokens of {budget:,}", f"{size.kilobytes:,} kB")
        if size.tokens > budget:
            breaches.append(name)
    for name, folders in (("packages", list(tokens)), ("tests", _TESTS)):
        size = measure_folders(folders)
        budget = kilobytes[name]
        write_row(name, f"{size.tokens:,} tokens", f"{size.kilobytes:,} kB of {budget:,}")
        if size.kilobytes > budget:
            breaches.append(f"{name} in kB")
    if breaches:
        sys.stderr.write(f"past the budget in pyproject.toml: {', '.join(breaches)}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
