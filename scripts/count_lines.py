"""Print the library's lines of code: without docstrings, comments, blanks and templates."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

#: The design's ceilings by package; docs/adr/0013-size-of-the-library.md tells what they took.
CEILINGS = {"chainlog": 150, "fulfillment": 5300, "objectmove": 1700, "runbook_lib": 4000}
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


def count_lines(source: str) -> int:
    """Count the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def main() -> int:
    """Print the counts; 1 when a package is past its ceiling."""
    counts: Counter[str] = Counter()
    for root in CEILINGS:
        for path in Path(root).rglob("*.py"):
            counts[root] += count_lines(path.read_text("utf-8"))
    over = [name for name, count in counts.items() if count > CEILINGS[name]]
    for name, count in sorted(counts.items()):
        mark = "  past its ceiling" if name in over else ""
        sys.stdout.write(f"{name:21} {count:6} of {CEILINGS[name]}{mark}\n")
    sys.stdout.write(f"{counts.total():28} lines of code\n")
    return int(bool(over))


if __name__ == "__main__":
    raise SystemExit(main())
