"""Print each package's size in Python tokens, and fail past a budget of pyproject.toml.

Docstrings and comments do not count. An f-string counts as one token, as in Python 3.11's
tokenizer. Lines are free. The budgets are ``[tool.runbook.tokens]``; the commit that raises one
says which concept came in.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

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


def count_package(package: Path) -> int:
    """Count the tokens of a package."""
    return sum(count_tokens(path.read_text("utf-8")) for path in package.rglob("*.py"))


def main() -> int:
    """Print the tokens of each package beside its budget; return 1 when one is past it."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    budgets: dict[str, int] = project["tool"]["runbook"]["tokens"]
    counts = {name: count_package(Path(name)) for name in budgets}
    for name, count in counts.items():
        sys.stdout.write(f"{name:21} {count:8,} tokens of {budgets[name]:,}\n")
    sys.stdout.write(f"{'all':21} {sum(counts.values()):8,} tokens\n")
    breaches = [name for name, count in counts.items() if count > budgets[name]]
    if breaches:
        sys.stderr.write(f"past the budget in pyproject.toml: {', '.join(breaches)}\n")
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main())
