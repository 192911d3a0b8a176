"""What `make test` makes of its parts: no part is green without having run to its end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from scripts.run_tests import Outcome, judge_part, list_verdicts

GREEN = Outcome(passed=frozenset({"a", "b"}))


def write_report(path: Path, exit_code: int, failed: list[str]) -> Path:
    path.write_text(json.dumps({"exit": exit_code, "failed": failed, "passed": ["b"]}), "utf-8")
    return path


def fail(*tests: str) -> Outcome:
    return Outcome(failed=frozenset(tests))


def passed(*tests: str) -> Outcome:
    return Outcome(passed=frozenset(tests))


def test_a_part_that_ran_to_its_end_has_its_tests(tmp_path: Path) -> None:
    report = write_report(tmp_path / "part.json", 1, ["a"])
    assert judge_part(1, report) == Outcome(frozenset({"a"}), frozenset({"b"}))
    report = write_report(tmp_path / "part.json", 0, [])
    assert judge_part(0, report) == Outcome(passed=frozenset({"b"}))


@pytest.mark.parametrize(
    "exit_code",
    [
        -signal.SIGKILL,
        pytest.ExitCode.INTERRUPTED,
        pytest.ExitCode.INTERNAL_ERROR,
        pytest.ExitCode.USAGE_ERROR,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ],
)
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


def test_two_flaky_tests_are_green_and_three_are_not() -> None:
    outcomes = {"x": fail("a"), "y": fail("b")}
    repeated = {"x": passed("a"), "y": passed("b")}
    assert list_verdicts(outcomes, repeated) == (["flaky: a", "flaky: b"], True)
    outcomes["z"] = fail("c")
    repeated["z"] = passed("c")
    lines, is_green = list_verdicts(outcomes, repeated)
    assert lines[:3] == ["flaky: a", "flaky: b", "flaky: c"]
    assert not is_green


def test_a_broken_part_or_repetition_is_never_green() -> None:
    assert list_verdicts({"x": GREEN}, {}) == ([], True)
    for outcomes, repeated in (
        ({"x": Outcome(broken="killed")}, {}),
        ({"x": fail("a")}, {"x": Outcome(broken="killed")}),
    ):
        lines, is_green = list_verdicts(outcomes, repeated)
        assert "broken: x: killed" in lines
        assert not is_green
