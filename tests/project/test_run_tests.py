"""What `make test` makes of its parts: no part is green without having run to its end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from scripts.run_tests import Outcome, judge_part, list_verdicts


def write_report(path: Path, exit_code: int, failed: list[str]) -> Path:
    path.write_text(json.dumps({"exit": exit_code, "failed": failed}), "utf-8")
    return path


def test_a_part_that_ran_to_its_end_has_its_tests(tmp_path: Path) -> None:
    report = write_report(tmp_path / "part.json", 1, ["a"])
    assert judge_part(1, report) == Outcome(frozenset({"a"}))
    report = write_report(tmp_path / "part.json", 0, [])
    assert judge_part(0, report) == Outcome()


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, pytest.ExitCode.NO_TESTS_COLLECTED])
def test_a_part_that_broke_off_is_broken_whatever_its_report_says(
    tmp_path: Path, exit_code: int
) -> None:
    report = write_report(tmp_path / "part.json", exit_code, [])
    assert judge_part(exit_code, report).broken


def test_a_part_without_a_whole_report_of_its_own_is_broken(tmp_path: Path) -> None:
    report = tmp_path / "part.json"
    assert judge_part(0, report).broken
    report.write_text('{"exit": 0, "failed": [', "utf-8")
    assert judge_part(0, report).broken
    assert judge_part(0, write_report(report, 1, ["a"])).broken
    assert judge_part(1, write_report(report, 1, [])).broken


def test_one_failure_or_one_broken_part_is_not_green() -> None:
    green = {"x": Outcome()}
    assert list_verdicts(green) == ([], True)
    failed = {"y": Outcome(frozenset({"a"}))}
    assert list_verdicts(green | failed) == (["failed: a"], False)
    broken = {"y": Outcome(broken="killed")}
    assert list_verdicts(green | broken) == (["broken: y: killed"], False)
