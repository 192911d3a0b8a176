"""What `runbook drill --print-cron` prints works where it is pasted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fulfillment.commands import Kind, make_schedule
from fulfillment.drills import choose_scenario
from fulfillment.settings import HTTP_SYSTEMS, Settings

ROOT = Path(__file__).resolve().parents[2]


def build(kind: Kind, folder: Path, *, home: Path) -> str:
    (folder / ".env").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RUNBOOK_HOME", str(home))
        patch.setenv("RUNBOOK_ENVIRONMENT", "local")
        return make_schedule(kind, "synthetic", every=False)


def cron_command(text: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith("30 9"))
    return line.split(" ", 5)[5].replace(r"\%", "%")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "on call 100% $HOME 'it\"s'"
    folder.mkdir()
    lines = ["MINIO_ROOT_USER=a b", "MINIO_ROOT_PASSWORD='c$(d) e'"]
    lines += [f"{name.upper()}_URL=" for name in HTTP_SYSTEMS]
    (folder / ".env").write_text("\n".join([*lines, "MINIO_ENDPOINT=127.0.0.1:1"]))
    return folder


@pytest.mark.process
def test_the_cron_line_runs_in_an_empty_environment_with_the_settings_of_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "reports of all"
    command = cron_command(build("cron", folder, home=home))
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        ["/usr/bin/env", "-i", f"PYTHONPATH={ROOT}", "/bin/sh", "-c", command],
        cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (4, "")
    assert "not connected" in (home / "drill.log").read_text()
    assert sorted(folder.rglob("*")) == before


def test_the_scenario_fits_the_system() -> None:
    ours = Settings(runbook_services="supervisor")
    assert choose_scenario(ours).name == "pipeline_paused"
    for services in ("compose", "none"):
        foreign = Settings.model_validate({"runbook_services": services})
        assert choose_scenario(foreign).name == "synthetic"
