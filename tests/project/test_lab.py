"""`make lab`: a person works on copies, and no order id reaches a tracked notebook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import lab

ROOT = Path(__file__).parents[2]


def test_make_lab_never_opens_the_checkouts_notebooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = re.search(r"^lab:.*?\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe is not None
    assert "scripts.lab" in recipe[0]
    assert "notebooks/" not in recipe[0]
    started: list[str] = []
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/of/this/person")
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    monkeypatch.setattr("fulfillment.investigation.check_connected", lambda *_: None)
    monkeypatch.setattr(lab.os, "execv", lambda _program, words: started.extend(words))
    lab.main(["--no-browser"])

    (root,) = [word for word in started if word.startswith("--ServerApp.root_dir=")]
    (incident,) = (tmp_path / "reports").glob("inc-*")
    assert root == f"--ServerApp.root_dir={incident}"
    assert (incident / "lab" / "06_remediation.ipynb").is_file()
    assert started[-1] == "--no-browser"
    assert lab.os.environ["JUPYTER_CONFIG_PATH"] == f"{lab.CONFIG}:/of/this/person"
