"""Each file of an incident's folder, damaged: no command ends in a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runbook_lib.cli import run_command
from tests.support.stories import make_world

INCIDENT = "{incident}"
RELEASE = "{release}"
LOOKS = ("incidents", "history", f"report {INCIDENT}", f"verify-report {INCIDENT}")
PLANS = (f"verify {RELEASE}", f"resume {RELEASE}", f"undo {RELEASE}", f"settle {RELEASE}")
#: Which commands read a file, by a pattern of its name.
READERS = {
    "inc-*/journal.jsonl": (*LOOKS, f"note remark --incident {INCIDENT}"),
    "inc-*/manifest.json": LOOKS[2:],
    "inc-*/inc-*.zip": (f"verify-report {INCIDENT}/{INCIDENT}.zip",),
    "inc-*/notebooks/*.html": LOOKS[2:],
    "inc-*/ledger/rel-*.jsonl": (LOOKS[2], *PLANS, "check"),
    "inc-*/plans/rel-*.jsonl": (LOOKS[2], *PLANS, f"apply {RELEASE}", "check"),
    "inc-*/plans/svc-unpause-*Z-????.jsonl": (LOOKS[2], "check"),
    "inc-*/plans/svc-unpause-*.applied.json": (LOOKS[2], "check"),
}
DAMAGES = {"cut": None, "not text": b"\xff\xfe\x00{", "nested": b"[" * 100_000}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", READERS)
def test_a_damaged_file_is_one_sentence_and_no_traceback(
    pattern: str,
    damage: str,
    *,
    told_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    make_world(home, monkeypatch)
    (plan,) = told_home.glob("inc-*/plans/rel-*.jsonl")
    (original,) = told_home.glob(pattern)
    for reader in READERS[pattern]:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(told_home, home)
        monkeypatch.chdir(home)
        whole = original.read_bytes()
        content = DAMAGES[damage] or whole[: len(whole) // 2]
        (home / original.relative_to(told_home)).write_bytes(content)
        command = reader.format(incident=plan.parents[1].name, release=plan.stem)
        capsys.readouterr()
        run_command(command.split())
        errors = capsys.readouterr().err.splitlines()
        assert len([line for line in errors if line.startswith("runbook: ")]) <= 1, command
        assert not any("Traceback" in line for line in errors), command
