"""The set-up script with stand-ins for the programs, so that nothing is ever installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup" / "prometheus.sh"
TOOLS = ("sh", "sed", "sort", "head", "uname")
PROGRAMS = {
    "prometheus": "prometheus, version 2.53.3+ds1 (branch: debian/sid)",
    "promtool": "promtool, version 2.53.3",
    "prometheus-alertmanager": "alertmanager, version 0.28.1+ds (branch: debian/sid)",
    "amtool": "amtool, version 0.28.1",
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Give a folder that is the whole PATH: no package manager, all programs present."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for name, version in PROGRAMS.items():
        write_program(folder / name, version)
    return folder


def write_program(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)


def run(programs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, *options],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.process
def test_with_everything_present_it_tells_one_line_each(programs: Path) -> None:
    done = run(programs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"prometheus: {programs}/prometheus",
        f"promtool: {programs}/promtool",
        f"alertmanager: {programs}/prometheus-alertmanager",
        f"amtool: {programs}/amtool",
    ]


@pytest.mark.process
def test_where_it_cannot_install_it_says_what_to_install(programs: Path) -> None:
    (programs / "amtool").unlink()
    done = run(programs, "--test")
    assert done.returncode == 1
    assert done.stdout == ""
    missing = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert missing == ["amtool", "chromium", "docker-compose", "faketime"]
