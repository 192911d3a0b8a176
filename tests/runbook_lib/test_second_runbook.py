"""The helper carries another runbook, without the first one's packages and beside the first."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.gateway import StoreServer
from tests.support.second_runbook import (
    COMMAND,
    EXAMPLE,
    FIRST,
    FIRST_RUNBOOK,
    HELPER,
    INBOX,
    hide_packages,
    link_packages,
    make_environment,
    register,
    run_command,
)

pytestmark = pytest.mark.process


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the helper and the second runbook, and nothing of the first."""
    link_packages(tmp_path, HELPER)
    (tmp_path / "inbox").symlink_to(EXAMPLE / "inbox")
    hide_packages(tmp_path, FIRST)
    register(tmp_path, "fulfillment-runbook", COMMAND)
    register(tmp_path, "inbox-runbook", INBOX)
    return tmp_path


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A folder with both runbooks."""
    link_packages(tmp_path, (*HELPER, *FIRST))
    (tmp_path / "inbox").symlink_to(EXAMPLE / "inbox")
    register(tmp_path, "fulfillment-runbook", COMMAND + FIRST_RUNBOOK)
    register(tmp_path, "inbox-runbook", INBOX)
    return tmp_path


def runbook(
    site: Path, *arguments: str, store: StoreServer | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runbook_lib", *arguments]
    return run_command(command, cwd=site, environment=make_environment(site, store))


def test_the_second_runbook_imports_the_helper_and_the_move_alone() -> None:
    allowed = {*HELPER, "inbox", "pydantic", *sys.stdlib_module_names}
    for path in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            assert {name.partition(".")[0] for name in names} <= allowed, path


def test_the_command_comes_with_the_default_and_the_name_chooses_another(both: Path) -> None:
    first = runbook(both, "--help").stdout
    assert "The fulfilment backlog runbook" in first
    assert runbook(both, "stack", "--help").returncode == 0
    for option in (("--runbook", "inbox"), ("--runbook=inbox",)):
        second = runbook(both, *option, "--help").stdout
        assert "An inbox that is stuck" in second
        assert runbook(both, *option, "stack", "--help").returncode == 2
    named = runbook(both, "--runbook", "fulfillment", "--help").stdout
    assert "The fulfilment backlog runbook" in named


@pytest.mark.parametrize(
    ("names", "said"), [((), "no runbook is installed"), (("a", "b"), "--runbook: a, b")]
)
def test_no_runbook_and_several_without_a_default_are_one_sentence(
    alone: Path, names: Sequence[str], said: str
) -> None:
    lines = ["[runbook]", *(f"{name} = inbox.runbook:RUNBOOK" for name in names)]
    register(alone, "inbox-runbook", "\n".join(lines))
    done = runbook(alone, "--help")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
