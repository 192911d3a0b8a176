"""The helper carries another runbook: without this one's packages, from command to report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.count_tokens import count_lines

ROOT = Path(__file__).resolve().parents[2]
SECOND = ROOT / "tests" / "support" / "second_runbook"
#: The second runbook takes this one's place among what is installed.
METADATA = "fulfillment_runbook-0.dist-info"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the helper, the second runbook, and nothing of the first."""
    for name in ("runbook_lib", "chainlog"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("disk.py", "06_disk.ipynb"):
        (tmp_path / name).symlink_to(SECOND / name)
    for name in ("fulfillment", "objectmove", "dataflow_stack"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here', name=__name__)\n")
    (tmp_path / METADATA).mkdir()
    (tmp_path / METADATA / "METADATA").write_text("Name: fulfillment-runbook\nVersion: 0\n")
    (tmp_path / METADATA / "entry_points.txt").write_text("[runbook]\ndisk = disk:RUNBOOK\n")
    return tmp_path


def runbook(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runbook_lib", *arguments],
        cwd=place,
        env={"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_section(place: Path, *parameters: str) -> dict[str, Any]:
    given = [word for text in parameters for word in ("-p", text)]
    done = runbook(place, "run", "disk", *given, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == document["exit_code"], done.stderr
    return document


def _say(page: str) -> str:
    """Return the words of a page."""
    text = re.sub(r"(?s)<style>.*?</style>", "", page)
    return re.sub(r"<[^>]+>", " ", text)


def test_a_second_runbook_has_at_most_fifty_lines() -> None:
    cells = json.loads((SECOND / "06_disk.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert count_lines((SECOND / "disk.py").read_text("utf-8")) + sum(map(count_lines, code)) <= 50


@pytest.mark.process
def test_a_second_runbook_looks_plans_changes_proves_and_reports(place: Path) -> None:
    for name in ("a.tmp", "b.tmp", "kept.txt"):
        (place / name).write_text("x" * 10)

    planned = run_section(place)
    assert (planned["exit_code"], planned["notebooks"][0]["status"]) == (5, "stopped_at_plan")
    (plan,) = planned["plans"]
    assert (place / "a.tmp").exists()

    applied = run_section(place, f"plan={plan['plan']}", f"approve={plan['sha256']}")
    assert (applied["exit_code"], applied["verdict"]) == (0, "fixed")
    assert (list(place.glob("*.tmp")), (place / "kept.txt").exists()) == ([], True)

    report = Path(applied["report"]).read_text("utf-8")
    for words in ("What nobody needs", "2 files", "clean", "a.tmp"):
        assert words in report
    for words in ("label", "order", "DAG", "MinIO", "worker"):
        assert not re.search(rf"\b{words}s?\b", _say(report)), words
    again = runbook(place, "verify-report", applied["incident"])
    assert again.returncode == 0, again.stderr


@pytest.mark.process
def test_its_command_has_what_every_runbook_has_and_nothing_of_the_first(place: Path) -> None:
    shown = runbook(place, "--help").stdout
    assert "A folder that fills up." in shown
    assert " investigate " in shown
    for name in ("plan", "drill", "chaos", "stack"):
        assert f" {name} " not in shown


@pytest.mark.process
@pytest.mark.parametrize(
    ("names", "told"), [((), "none"), (("a", "b"), "disk:RUNBOOK, disk:RUNBOOK")]
)
def test_no_runbook_and_two_are_one_sentence(place: Path, names: Sequence[str], told: str) -> None:
    lines = ["[runbook]", *(f"{name} = disk:RUNBOOK" for name in names)]
    (place / METADATA / "entry_points.txt").write_text("\n".join(lines))
    done = runbook(place, "--help")
    assert done.returncode == 2
    assert done.stderr == f"runbook: one runbook must be installed; there is: {told}\n"
