"""What `make lint` counts: constructs, and tokens against their budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_plain, count_tokens

PROJECT = """
[tool.runbook.tokens]
package = {budget}

[tool.runbook.kilobytes]
packages = {kilobytes}
tests = {kilobytes}

[tool.runbook.plain]
packages = ["package"]
tokens_per_line = 8
walruses = {limit}
"""


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a, b = x, y", ["pair_assignments"]),
        ("a, b = read()", []),
        ("while chunk := read(): pass", ["walruses"]),
        ("[x for y in z for x in y]", ["nested_comprehensions"]),
        ("cast(int, x)", ["casts_and_mappings"]),
        ("Plan(**document)", ["casts_and_mappings"]),
        ("read(**document)", []),
        ("a if b else c", []),
        ("a if b else c if d else e", ["nested_conditionals"]),
        ("f(a if b else c) if d else e", []),
        ("'s' * (n != 1)", ["values_times_conditions"]),
        ("2 * (threshold or 1.0)", []),
        ("rows[: not fired]", ["values_times_conditions"]),
    ],
)
def test_a_construct_is_counted_and_its_plain_neighbour_is_not(
    source: str, names: list[str]
) -> None:
    assert [name for name, _ in check_plain.list_constructs(source)] == names


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package of five tokens a line, with one walrus, and go to the folder above it."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "module.py").write_text('"""A docstring."""\n\nif (x := 1):\n    y = x + 2\n')
    monkeypatch.chdir(tmp_path)
    return folder


def write_limits(folder: Path, *, budget: int = 99, kilobytes: int = 1, limit: int = 99) -> None:
    text = PROJECT.format(budget=budget, kilobytes=kilobytes, limit=limit)
    (folder.parent / "pyproject.toml").write_text(text)


def test_a_construct_past_its_limit_fails_and_is_listed_with_its_place(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_limits(package, limit=99)
    assert check_plain.main([]) == 0
    write_limits(package, limit=1)
    assert check_plain.main(["--list"]) == 1
    printed = capsys.readouterr()
    assert "package/module.py:3: walruses" in printed.out
    assert "walruses" in printed.err


def test_a_package_past_its_budget_fails(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_limits(package, budget=12)
    assert count_tokens.main() == 0
    write_limits(package, budget=11)
    assert count_tokens.main() == 1
    assert "package" in capsys.readouterr().err
