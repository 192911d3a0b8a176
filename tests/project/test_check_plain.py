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
