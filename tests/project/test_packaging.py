"""What `pip install .` brings: the command, the notebooks, the packages; what they need."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CORE = {"chainlog", "fulfillment", "objectmove", "runbook_lib"}
PACKAGES = CORE | {"addons", "alerting", "dataflow_stack"}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Brought by the extras alone.
STACK_PROGRAMS = ("supervisor", "psutil", "fastapi", "uvicorn", "aiosmtpd", "minio")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, and unpack it into a folder of its own."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "notebooks"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".env.example"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD, str(source)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(
    installed: Path, *arguments: str, home: Path | None = None, without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Python on what was installed, without the checkout and without some packages."""
    away = Path(tempfile.mkdtemp(dir=installed.parent))
    for name in without:
        (away / f"{name}.py").write_text("raise ImportError('not installed', name=__name__)\n")
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(away),
            "PYTHONPATH": f"{installed}{os.pathsep}{away}",
            "RUNBOOK_HOME": str(home or away / "reports"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.process
def test_the_wheel_holds_the_packages_with_their_files_and_nothing_else(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == PACKAGES
    for package in PACKAGES:
        ours = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
        assert [path for path in ours if not (installed / path).is_file()] == []
    for file in (ROOT / "runbook_lib" / "templates").iterdir():
        assert (installed / file.relative_to(ROOT)).is_file()
    assert (installed / "alerting" / "templates" / "incidents.html").is_file()
    assert (installed / "runbook_lib" / "py.typed").is_file()
    assert (installed / "fulfillment" / "locale" / "vi.po").is_file()
    for name in ("store/look.json", "store/change.json", "runbook_serve/runbook-serve.service"):
        assert (installed / "addons" / name).is_file()
    example = (installed / "fulfillment" / "env.example").read_bytes()
    assert example == (ROOT / ".env.example").read_bytes()


@pytest.mark.process
def test_the_notebooks_are_in_the_wheel_and_found_there(installed: Path) -> None:
    wanted = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert len(wanted) == 9
    code = "from fulfillment.sections import SECTIONS; print(SECTIONS.notebooks)"
    done = run(installed, "-c", code)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(installed), done.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb")} == wanted


@pytest.mark.process
def test_the_command_works_without_the_programs_of_the_local_stack(installed: Path) -> None:
    done = run(installed, "-m", "runbook_lib", "--help", without=STACK_PROGRAMS)
    assert done.returncode == 0, done.stderr
    assert " investigate " in done.stdout
    done = run(installed, "-m", "runbook_lib", "check", "--json", without=STACK_PROGRAMS)
    assert done.returncode == 4, done.stderr
    for words, code in (
        ("stack --help", 0),
        ("drill --print-cron", 2),  # it has no .env to read
        ("drill synthetic", 5),  # this is production
        ("drill --scenario pipeline_paused", 2),
        ("init", 0),
        ("drill --print-cron", 5),  # this is production
    ):
        done = run(installed, "-m", "runbook_lib", *words.split(), without=STACK_PROGRAMS)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
    settings = installed.parent / ".env"
    settings.write_text(f"{settings.read_text('utf-8')}\nRUNBOOK_ENVIRONMENT=demo\n", "utf-8")
    for kind in ("cron", "systemd"):
        done = run(
            installed, "-m", "runbook_lib", "drill", f"--print-{kind}", without=STACK_PROGRAMS
        )
        assert done.returncode == 0, done.stderr
        assert "synthetic" in done.stdout
    (installed.parent / ".env").unlink()
    done = run(installed, "-m", "runbook_lib", "stack", "status", without=STACK_PROGRAMS)
    assert done.returncode == 2
    assert "pip install 'fulfillment-runbook[stack]'" in done.stderr


def list_requirements() -> list[Requirement]:
    """Return what the project and its extras need."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines.extend(extra)
    return [Requirement(line) for line in lines]


def read_lock() -> list[Requirement]:
    """Return the locked requirements; one with markers may stand there twice."""
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]


@pytest.mark.parametrize("requirement", list_requirements(), ids=lambda wanted: wanted.name)
def test_the_lock_satisfies_pyproject(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    versions = [str(locked.specifier) for locked in read_lock() if locked.name == name]
    assert versions, "not locked: make lock"
    for version in versions:
        assert version.removeprefix("==") in requirement.specifier, "make lock"


def test_every_locked_version_has_hashes_and_no_address_stands_in_the_lock() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert re.match(r"\S+==\S+( ; .+)? \\\n    --hash=sha256:", block), block[:80]
    assert re.findall(r"https?://|file:|@ |--index|^/", text, re.MULTILINE) == []


def test_what_the_core_imports_is_what_it_declares() -> None:
    distributions = packages_distributions()
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    imported = set()
    for path in [path for package in CORE for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    foreign = imported - sys.stdlib_module_names - PACKAGES
    brought = {canonicalize_name(distributions[name][0]) for name in foreign}
    assert brought <= declared
    #: Not imported by name: what a kernel is, and what papermill and nbclient read.
    assert declared - brought <= {"ipykernel", "nbformat"}
