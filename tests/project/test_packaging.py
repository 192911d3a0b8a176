"""What `pip install .` brings: the command, the notebooks, the packages; and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"addons", "chainlog", "dataflow_stack", "fulfillment", "objectmove", "runbook_lib"}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
#: Brought by the extra `stack` alone.
STACK_PROGRAMS = ("supervisor", "psutil", "fastapi", "uvicorn", "aiosmtpd")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, and unpack it into a folder of its own."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "notebooks"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", ".env.example"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD, str(source)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(
    installed: Path, *arguments: str, without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Python on what was installed, without the checkout and without some packages."""
    away = installed.parent / "away"
    away.mkdir(exist_ok=True)
    for name in without:
        (away / f"{name}.py").write_text("raise ImportError('not installed', name=__name__)\n")
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(away),
            "PYTHONPATH": f"{installed}{os.pathsep}{away}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_wheel_holds_the_packages_with_their_files_and_nothing_else(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == PACKAGES
    for package in PACKAGES:
        ours = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
        assert [path for path in ours if not (installed / path).is_file()] == []
    for file in (ROOT / "runbook_lib" / "report" / "templates").iterdir():
        assert (installed / file.relative_to(ROOT)).is_file()
    assert (installed / "runbook_lib" / "py.typed").is_file()
    example = (installed / "fulfillment" / "env.example").read_bytes()
    assert example == (ROOT / ".env.example").read_bytes()


def test_the_notebooks_are_in_the_wheel_and_found_there(installed: Path) -> None:
    wanted = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert len(wanted) == 8
    code = "from fulfillment.sections import SECTIONS; print(SECTIONS.notebooks)"
    done = run(installed, "-c", code)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(installed), done.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb")} == wanted


def test_the_command_works_without_the_programs_of_the_local_stack(installed: Path) -> None:
    done = run(installed, "-m", "runbook_lib", "--help", without=STACK_PROGRAMS)
    assert done.returncode == 0, done.stderr
    assert " investigate " in done.stdout
    assert " stack " in done.stdout
    done = run(installed, "-m", "runbook_lib", "check", "--json", without=STACK_PROGRAMS)
    assert done.returncode == 4, done.stderr
    done = run(installed, "-m", "runbook_lib", "stack", "status", without=STACK_PROGRAMS)
    assert done.returncode == 2
    assert "pip install 'fulfillment-runbook[stack]'" in done.stderr


def test_the_command_and_its_plug_ins_are_registered(installed: Path) -> None:
    (file,) = installed.glob("*.dist-info/entry_points.txt")
    lines = {
        "runbook = runbook_lib.cli:main",
        "stack = dataflow_stack.cli:app",
        "fulfillment = fulfillment.runbook:RUNBOOK",
        "compose = fulfillment.clients.services:ComposeServices",
        "supervisor = dataflow_stack.services_client:SupervisorServices",
        "dataflow = dataflow_stack.scenarios:SCENARIOS",
    }
    assert lines <= set(file.read_text("utf-8").splitlines())


def test_condas_environment_adds_nothing_to_pyproject_but_python_and_a_store() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert environment["name"] == project["name"]
    *plain, pip = environment["dependencies"]
    assert [line.split()[0] for line in plain] == ["python", "pip", "minio-server"]
    wanted = SpecifierSet(plain[0].removeprefix("python "))
    allowed = SpecifierSet(project["requires-python"])
    for minor in range(20):
        assert f"3.{minor}" not in wanted or f"3.{minor}" in allowed
    (install,) = pip["pip"]
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", install)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert "it was not run" in (ROOT / "environment.yml").read_text("utf-8")
