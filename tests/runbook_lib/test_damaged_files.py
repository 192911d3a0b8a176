"""A damaged file is one sentence: which file, and what to do. What does not need it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from runbook_lib.cli import run_command
from runbook_lib.record.incident import Incident
from tests.support.incidents import make_incident


class Printed(NamedTuple):
    code: int
    out: str
    errors: str

    @property
    def sentence(self) -> str:
        (line,) = self.errors.splitlines()
        return line


Run = Callable[..., Printed]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path))

    def run(*arguments: str) -> Printed:
        capsys.readouterr()
        code = run_command(arguments)
        return Printed(code, *capsys.readouterr())

    return run


@pytest.fixture
def incident(tmp_path: Path) -> Incident:
    return make_incident(tmp_path).incident


@pytest.mark.parametrize("line", ["RUNBOOK_OPERATOR ann", "X='not closed"])
def test_a_damaged_line_of_the_settings_is_named_without_what_it_holds(
    run: Run, tmp_path: Path, line: str
) -> None:
    (tmp_path / ".env").write_text(f"# settings\n\nHTTP_TIMEOUT_S=4\n{line}\n")
    printed = run("incidents")
    assert printed.code == 2
    assert f"{tmp_path / '.env'}, line " in printed.sentence
    assert line not in printed.sentence
    assert run("incidents", "--json").errors.count("\n") == 1
