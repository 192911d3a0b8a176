"""Build the three wheels of this repository: the move, the helper, this runbook.

`python -m scripts.build_wheels [FOLDER]` writes them into FOLDER, by default ``dist``. It needs
setuptools and git.

What goes into which wheel stands in ``[tool.runbook.wheels]`` of pyproject.toml. All else follows
from the rest of pyproject.toml, so that every dependency, script and entry point stands there once:
a script or an entry point belongs to the wheel that holds its package, a dependency to the wheel
that names it, else to the one that names none. Each wheel needs the ones before it, in exactly this
version.

Two builds of one commit are the same bytes: files have the commit's time, and the same rights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
_BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
#: The rights of each file of a wheel: those that we copy, and those that setuptools makes.
_RIGHTS = 0o644
_UMASK = 0o022


def read_project() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def build_wheels(folder: Path) -> list[Path]:
    """Build every wheel into a folder, and return their paths: each needs the ones before it."""
    wheels = []
    for name, project in describe_wheels(read_project()).items():
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch)
            _copy_sources(project, source)
            (source / "pyproject.toml").write_text(_format_toml(project), "utf-8")
            wheels.append(_build_wheel(name, source, folder))
    return wheels


def describe_wheels(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each wheel the tables of its own pyproject.toml.

    Parameters
    ----------
    root : what the repository's pyproject.toml says
    """
    wheels: dict[str, dict[str, Any]] = root["tool"]["runbook"]["wheels"]
    version = root["project"]["version"]
    claimed = {name for wheel in wheels.values() for name in wheel.get("dependencies", ())}
    before: list[str] = []
    described = {}
    for name, wheel in wheels.items():
        requirements = []
        for line in root["project"]["dependencies"]:
            requirement = Requirement(line).name
            if "dependencies" in wheel:
                is_ours = requirement in wheel["dependencies"]
            else:
                is_ours = requirement not in claimed
            if is_ours:
                requirements.append(line)
        described[name] = _describe_wheel(root, name, wheel, [*before, *requirements])
        before = [*before, f"{name}=={version}"]
    return described


def _describe_wheel(
    root: Mapping[str, Any], name: str, wheel: Mapping[str, Any], dependencies: list[str]
) -> dict[str, Any]:
    """Return the tables of one wheel's pyproject.toml."""
    packages = wheel["packages"]
    project = {
        **root["project"],
        "name": name,
        "description": wheel["description"],
        "readme": wheel["readme"],
        "dependencies": dependencies,
    }
    extras = project.pop("optional-dependencies")
    scripts = project.pop("scripts")
    groups = project.pop("entry-points")
    tables = {
        "build-system": root["build-system"],
        "project": project,
        "project.optional-dependencies": {extra: extras[extra] for extra in wheel["extras"]},
        "project.scripts": _choose(scripts, packages),
    }
    for group, entries in groups.items():
        tables[f'project.entry-points."{group}"'] = _choose(entries, packages)
    tables["tool.setuptools.packages.find"] = {"include": [f"{each}*" for each in packages]}
    tables["tool.setuptools.package-data"] = root["tool"]["setuptools"]["package-data"]
    return tables


def _choose(entries: Mapping[str, str], packages: Iterable[str]) -> dict[str, str]:
    """Return the entry points whose package is one of these."""
    return {
        name: target for name, target in entries.items() if target.partition(".")[0] in packages
    }


def _format_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of texts and of lists of texts as TOML, which writes both as JSON does."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        for key, value in table.items():
            lines.append(f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _copy_sources(tables: Mapping[str, Mapping[str, Any]], target: Path) -> None:
    """Copy a wheel's packages, its readme and the license. A link becomes what it leads to."""
    project = tables["project"]
    for pattern in tables["tool.setuptools.packages.find"]["include"]:
        package = pattern.rstrip("*")
        shutil.copytree(
            ROOT / package,
            target / package,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
            copy_function=_copy_file,
        )
    for name in (project["readme"], *project["license-files"]):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _copy_file(ROOT / name, target / name)


def _copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file's content, with the rights that every file of a wheel has."""
    shutil.copyfile(source, target)
    Path(target).chmod(_RIGHTS)


def read_commit_time() -> str:
    """Return when the last commit was made, in seconds since 1970."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.check_output(command, cwd=ROOT, text=True).strip()


def _build_wheel(name: str, source: Path, folder: Path) -> Path:
    """Build one wheel of its sources."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(source)],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": read_commit_time()},
        umask=_UMASK,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"the wheel {name} cannot be built:\n{done.stdout}{done.stderr}")
    (built,) = source.glob("*.whl")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(built, folder))


if __name__ == "__main__":
    for path in build_wheels(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")):
        sys.stdout.write(f"{path}\n")
