"""Count the constructs that make code hard to read, and fail past the limits of pyproject.toml.

``[tool.runbook.plain]`` names the packages and holds the limits, which are on all of them
together: tokens a line, and constructs per 1,000 tokens. ``--list`` prints each place, too.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.count_tokens import count_lines, count_tokens

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def is_pair_assignment(node: ast.AST) -> bool:
    """Whether ``node`` is ``a, b = x, y``."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def is_walrus(node: ast.AST) -> bool:
    """Whether ``node`` is ``name := value``."""
    return isinstance(node, ast.NamedExpr)


def is_nested_comprehension(node: ast.AST) -> bool:
    """Whether ``node`` is a comprehension with two ``for``, or with another one inside."""
    if not isinstance(node, _COMPREHENSIONS):
        return False
    comprehensions = [child for child in ast.walk(node) if isinstance(child, _COMPREHENSIONS)]
    return len(node.generators) > 1 or len(comprehensions) > 1


def is_cast_or_mapping(node: ast.AST) -> bool:
    """Whether ``node`` is ``cast(…)`` or ``Class(**mapping)``."""
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func).rpartition(".")[2]
    is_class = name == "cls" or name.lstrip("_")[:1].isupper()
    return name == "cast" or (is_class and any(word.arg is None for word in node.keywords))


def is_nested_conditional(node: ast.AST) -> bool:
    """Whether ``node`` is a conditional expression that has another one as a part."""
    if not isinstance(node, ast.IfExp):
        return False
    return any(isinstance(part, ast.IfExp) for part in (node.test, node.body, node.orelse))


def is_condition(node: ast.AST | None) -> bool:
    """Whether ``node`` is certainly a truth value."""
    if isinstance(node, ast.BoolOp):
        return all(is_condition(value) for value in node.values)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "bool"
    return isinstance(node, ast.Compare)


def is_value_times_condition(node: ast.AST) -> bool:
    """Whether ``node`` is ``value * condition``, ``value[condition]`` or ``value[:condition]``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return is_condition(node.left) or is_condition(node.right)
    if not isinstance(node, ast.Subscript):
        return False
    if isinstance(node.slice, ast.Slice):
        return is_condition(node.slice.lower) or is_condition(node.slice.upper)
    return is_condition(node.slice)


CHECKS = {
    "pair_assignments": is_pair_assignment,
    "walruses": is_walrus,
    "nested_comprehensions": is_nested_comprehension,
    "casts_and_mappings": is_cast_or_mapping,
    "nested_conditionals": is_nested_conditional,
    "values_times_conditions": is_value_times_condition,
}


def list_constructs(source: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of each construct."""
    for node in ast.walk(ast.parse(source)):
        for name, check in CHECKS.items():
            if check(node):
                yield name, getattr(node, "lineno", 0)


def measure(package: Path, *, lists: bool = False) -> Counter[str]:
    """Count tokens, lines and constructs of a package; print each construct's place if told to."""
    counts: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        source = path.read_text("utf-8")
        counts["tokens"] += count_tokens(source)
        counts["lines"] += count_lines(source)
        for name, line in list_constructs(source):
            counts[name] += 1
            if lists:
                sys.stdout.write(f"{path}:{line}: {name}\n")
    return counts


def compute_figures(counts: Counter[str]) -> dict[str, float]:
    """Return the figures that have limits: tokens a line, constructs per 1,000 tokens."""
    figures = {"tokens_per_line": counts["tokens"] / max(counts["lines"], 1)}
    for name in CHECKS:
        figures[name] = 1000 * counts[name] / max(counts["tokens"], 1)
    return figures


def write_row(name: str, cells: Iterable[str]) -> None:
    """Write one row of the table."""
    sys.stdout.write(f"{name:24}" + "".join(f"{cell:>13}" for cell in cells) + "\n")


def main(arguments: list[str]) -> int:
    """Print the figures of each package and of all; return 1 when one is past its limit."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    limits = project["tool"]["runbook"]["plain"]
    packages = limits.pop("packages")
    counts = {name: measure(Path(name), lists="--list" in arguments) for name in packages}
    counts["all"] = sum(counts.values(), Counter())
    figures = {package: compute_figures(counted) for package, counted in counts.items()}
    write_row("", [*counts, "limit"])
    breaches = []
    for name, limit in limits.items():
        cells = [f"{figures[package][name]:.2f}" for package in counts]
        if name in CHECKS:
            cells = [
                f"{counts[package][name]}: {cell}"
                for package, cell in zip(counts, cells, strict=True)
            ]
        write_row(name, [*cells, f"{limit:.2f}"])
        if figures["all"][name] > limit:
            breaches.append(f"{name} {figures['all'][name]:.3f} > {limit}")
    for breach in breaches:
        sys.stderr.write(f"past its limit: {breach}; see `python -m scripts.check_plain --list`\n")
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
