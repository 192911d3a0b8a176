"""The command's edge: usage, exit codes, JSON errors."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from runbook_lib.cli import build_app, run_command
from runbook_lib.errors import ExitCode
from tests.support.golden import expect_golden
from tests.support.incidents import make_incident

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Runbook:
    folder: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Result:
        self.capture.readouterr()
        code = run_command(arguments)
        printed = self.capture.readouterr()
        return Result(code, printed.out, printed.err)


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def runbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runbook:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    monkeypatch.setenv("MINIO_ENDPOINT", "127.0.0.1:1")
    return Runbook(tmp_path, capsys)


WRONG = [
    ("nonsense",),
    ("run", "99"),
    ("run", "02", "-p", "no_such_parameter=1"),
    ("run", "02", "-p", "window_minutes=soon"),
    ("run", "02", "-p", "print('x')=1"),
    ("investigate", "--incident", "../../etc"),
    ("run", "02", "-p", "window_minutes=0"),
    ("plan", "--older-than", "soon"),
    ("apply", "../../plan", "--approve", "0"),
    ("drill", "nope"),
    ("settle", "rel-x", "--from-file", "nowhere.txt"),
    ("report", "inc-20200101T000000Z-0000"),
]


def test_wrong_usage_is_exit_2_leaves_nothing_and_its_words_are_on_the_page(
    runbook: Runbook,
) -> None:
    lines: list[str] = []
    for arguments in (*WRONG, ("investigate",), ("plan",)):
        done = runbook.run(*arguments)
        assert done.code == (2 if arguments in WRONG else 4), arguments
        assert done.stderr.strip()
        said = [line for line in done.stderr.splitlines() if line.startswith("runbook: ")]
        if said:  # else typer says it, in a box as wide as the terminal
            lines += [f"$ runbook {shlex.join(arguments)}", *said, f"exit {done.code}"]
    theirs = "Input should be a valid number, unable to parse string as a number"
    hide = {str(runbook.folder): "HOME", theirs: "WHAT PYDANTIC SAYS"}
    expect_golden("runbook_lib/errors.txt", "\n".join(lines), hide=hide)
    assert list(runbook.folder.iterdir()) == []


def list_help(command: Any, name: str) -> list[str]:
    first, *_ = (command.help or "").splitlines() or [""]
    lines = [f"{name}: {first}"]
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):  # not our words
            continue
        words = getattr(parameter, "help", None) or ""
        lines.append(f"    {'/'.join(parameter.opts)}: {words}")
    for own, below in getattr(command, "commands", {}).items():
        lines += list_help(below, f"{name} {own}")
    return lines


def test_the_words_of_help_are_on_the_page() -> None:
    command = get_command(build_app([]))
    expect_golden("runbook_lib/help.txt", "\n".join(list_help(command, "runbook")))


@pytest.mark.parametrize(("environment", "is_listed"), [("demo", True), ("production", False)])
def test_help_has_groups_and_the_demo_where_it_may_run(
    runbook: Runbook, monkeypatch: pytest.MonkeyPatch, environment: str, is_listed: bool
) -> None:
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", environment)
    listed = runbook.run("--help").stdout
    assert listed.index("At 3 a.m.") < listed.index("A release by hand") < listed.index("Set-up")
    assert ("Demo and drills" in listed) is is_listed
    assert runbook.run("drill", "--help").code == 0


def test_a_mistyped_command_is_answered_with_the_right_one(runbook: Runbook) -> None:
    done = runbook.run("investigat")
    assert done.code == 2
    assert "'investigate'" in done.stderr


def test_a_plan_that_is_not_here_is_not_denied_while_the_store_is_down(
    runbook: Runbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_incident(runbook.folder / "reports").incident.folder
    plan = "rel-20261124T031400Z-1a2b"
    (folder / "plans").mkdir(exist_ok=True)
    (folder / "plans" / f"{plan}.jsonl").write_text("")
    monkeypatch.setenv("MINIO_ROOT_USER", "someone")
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "something")
    done = runbook.run("resume", plan.replace("1a2b", "1a2c"))
    assert done.code == 1
    assert "read .runbook/state.json" in done.stderr
    assert "no incident" not in done.stderr


def test_incidents_close_and_history_tell_what_is_there(
    runbook: Runbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ROOT_USER", "someone")
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "something")
    incident = make_incident(runbook.folder / "reports").incident.id
    listed = json.loads(runbook.run("incidents", "--json").stdout)
    assert [row["incident"] for row in listed["incidents"]] == [incident]
    assert runbook.run("close", incident).code == 3  # the store does not answer
    assert runbook.run("close", incident).code == 2
    assert runbook.run("report", incident).code == 0
    assert runbook.run("report", incident, "--check").code == 0
    for command in (("history",), ("incidents", "--all")):
        told = json.loads(runbook.run(*command, "--json").stdout)
        assert [row["verdict"] for row in told["incidents"]] == ["incident"]
    shown = runbook.run("incidents").stdout
    assert incident in shown


@pytest.mark.parametrize("line", ["RUNBOOK_OPERATOR ann", "X='not closed"])
def test_a_damaged_line_of_the_settings_is_named_without_what_it_holds(
    runbook: Runbook, line: str
) -> None:
    settings = runbook.folder / ".env"
    settings.write_text(f"# settings\n\nHTTP_TIMEOUT_S=4\n{line}\n")
    done = runbook.run("incidents")
    assert done.code == 2
    assert f"{settings}, line " in done.stderr
    assert line not in done.stderr
    assert done.stderr.count("\n") == runbook.run("incidents", "--json").stderr.count("\n") == 1


def test_an_error_with_json_is_one_document(runbook: Runbook) -> None:
    done = runbook.run("report", "nope", "--json")
    document = json.loads(done.stdout)
    assert (document["schema"], document["exit_code"]) == ("runbook/error/1", 2)
    assert "nope" in document["error"]


HEAVY = {
    *("pandas", "matplotlib", "IPython", "papermill", "ipywidgets", "minio", "supervisor"),
    "nbformat",
}


def imported_by(folder: Path, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "runbook_lib", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "RUNBOOK_HOME": str(folder / "reports"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.process
def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """`--help` is typed at 3 a.m.: it must not wait for what it does not use."""
    imported = imported_by(tmp_path, "--help")
    assert "typer" in imported
    assert imported & HEAVY == set()
    assert imported_by(tmp_path, "apply", "--help") & HEAVY == set()


def test_a_fault_of_the_tool_is_one_line_and_the_path_of_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def break_down(*_: object) -> None:
        raise LookupError("it was Bearer abcdefgh1234")

    monkeypatch.setattr("runbook_lib.cli.build_app", break_down)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_command(["check"]) == ExitCode.RUN_FAILED
    (line,) = capsys.readouterr().err.splitlines()
    words, _, path = line.rpartition(" ")
    assert "LookupError" in words
    trace = Path(path).read_text("utf-8")
    assert "break_down" in trace
    assert "abcdefgh" not in line + trace
