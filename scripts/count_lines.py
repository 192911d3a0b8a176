"""Print the library's lines of code: without docstrings, comments, blanks and templates."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

#: Ceilings by package; docs/adr/0013-size-of-the-library.md says why they are what they are.
CEILINGS = {
    "": 900,
    "analysis": 900,
    "change": 2600,
    "cli": 400,
    "clients": 2350,
    "record": 450,
    "report": 1000,
    "run": 1500,
    "sections": 3550,
    "show": 1250,
}
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
    root = Path("runbook_lib")
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        counts[parts[0] if len(parts) > 1 else ""] += count_lines(path.read_text("utf-8"))
    over = [name for name, count in counts.items() if count > CEILINGS.get(name, 0)]
    for name, count in sorted(counts.items()):
        mark = "  past its ceiling" if name in over else ""
        sys.stdout.write(f"runbook_lib/{name:9} {count:6} of {CEILINGS.get(name, 0)}{mark}\n")
    sys.stdout.write(f"runbook_lib{counts.total():16} lines of code\n")
    return int(bool(over))


if __name__ == "__main__":
    raise SystemExit(main())
