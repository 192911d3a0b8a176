"""Ctrl-C while notebooks run: the cell ends first, one sentence, the report, exit 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chainlog import Entry, read_entries
from tests.support.gateway import wait_until

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[2]
SLOW = ROOT / "tests" / "support" / "slow_runbook"
METADATA = "fulfillment_runbook-0.dist-info"
TEXT = "Interrupted after 3 of 9 files. Carry on with: runbook resume move-1"


@dataclass
class Place:
    folder: Path

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runbook_lib", *words],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(self.folder),
                "RUNBOOK_HOME": str(self.folder / "reports"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def plan(self) -> dict[str, dict[str, Any]]:
        process = self.start("run", "06", "--json")
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 5, errors
        return {plan["step"]: plan for plan in json.loads(out)["plans"]}

    def apply(self, *plans: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
        ids = ",".join(plan["plan"] for plan in plans)
        hashes = ",".join(plan["sha256"] for plan in plans)
        words = ("run", "06", "-p", f"plan={ids}", "-p", f"approve={hashes}")
        return self.start(*words, **environment)

    def wait_for(self, name: str, process: subprocess.Popen[str]) -> None:
        def is_there() -> bool:
            assert process.poll() is None, process.communicate()
            return (self.folder / name).exists()

        wait_until(is_there, what=name)

    @property
    def incident(self) -> Path:
        (incident,) = (self.folder / "reports").glob("inc-*")
        return incident

    @property
    def entries(self) -> list[Entry]:
        return list(read_entries(self.incident / "journal.jsonl"))

    @property
    def interrupts(self) -> list[str]:
        return (self.folder / "interrupts").read_text().split()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("runbook_lib", "chainlog"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in SLOW.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    for name in ("fulfillment", "objectmove", "dataflow_stack"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here', name=__name__)\n")
    (tmp_path / METADATA).mkdir()
    (tmp_path / METADATA / "METADATA").write_text("Name: fulfillment-runbook\nVersion: 0\n")
    (tmp_path / METADATA / "entry_points.txt").write_text("[runbook]\nslow = slow:RUNBOOK\n")
    return Place(tmp_path)


def send(process: subprocess.Popen[str], number: signal.Signals, *, to_group: bool) -> None:
    """Signal the command alone, as ``kill`` does, or its process group, as a terminal does."""
    if to_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def end(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Task exception" not in errors
    assert "Exception ignored" not in errors
    last: str = errors.splitlines()[-1]
    return last.removeprefix("runbook: ")


def check_record(place: Place, sentence: str) -> None:
    told = [e.data for e in place.entries if e.data.get("what") == "interrupted"]
    assert [data["reason"] for data in told] == [sentence]
    assert [e.data["status"] for e in place.entries if e.kind == "notebook"][-1] == "interrupted"
    assert sentence in (place.incident / "report.html").read_text("utf-8")
    assert list(place.incident.glob("notebooks/*.ipynb"))


_WAYS = pytest.mark.parametrize(
    ("number", "to_group"),
    [
        pytest.param(signal.SIGINT, True, id="the group"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM", marks=pytest.mark.long),
    ],
)


@pytest.mark.process
@_WAYS
def test_an_interrupted_look_changed_nothing_and_names_the_command(
    place: Place, number: signal.Signals, *, to_group: bool
) -> None:
    process = place.start("investigate")
    place.wait_for("looking", process)
    send(process, number, to_group=to_group)
    sentence = end(process)
    again = "runbook investigate"
    assert sentence.endswith(f": {again}")
    assert place.interrupts == ["looking"]
    check_record(place, sentence)


@pytest.mark.process
@_WAYS
def test_an_interrupted_change_gives_the_worker_back_and_says_how_far_it_came(
    place: Place, number: signal.Signals, *, to_group: bool
) -> None:
    process = place.apply(place.plan()["6.1"], SLOW_TEXT=TEXT)
    place.wait_for("moving", process)
    send(process, number, to_group=to_group)
    sentence = end(process)
    assert sentence == TEXT
    assert place.interrupts == ["moving"]
    assert not (place.folder / "worker-is-paused").exists()
    check_record(place, sentence)
    actions = [e.data["action"] for e in place.entries if e.kind == "action"]
    assert (actions[-1]["phase"], actions[-1]["reason"]) == ("failed", TEXT)


@pytest.mark.process
def test_the_second_interrupt_ends_a_cell_at_once(place: Place) -> None:
    plan = place.plan()["6.1"]
    process = place.apply(plan, SLOW_GIVE_BACK_S="600")
    place.wait_for("moving", process)
    process.send_signal(signal.SIGINT)
    place.wait_for("interrupts", process)
    process.send_signal(signal.SIGINT)
    sentence = end(process)
    assert sentence.endswith(f": runbook resume {plan['plan']}")
    check_record(place, sentence)
