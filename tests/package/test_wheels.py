"""The three wheels: what they hold and need, and that each alone does its main job."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.build_wheels import build_wheels, describe_wheels, read_project
from tests.package.conftest import MakeMachine, name_store
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, connect

ROOT = Path(__file__).resolve().parents[2]
ROOT_PROJECT = read_project()
PROJECT = ROOT_PROJECT["project"]
WHEELS = describe_wheels(ROOT_PROJECT)
PACKAGES: dict[str, list[str]] = {
    name: wheel["packages"] for name, wheel in ROOT_PROJECT["tool"]["runbook"]["wheels"].items()
}
#: Links to folders outside.
LINKS = ("fulfillment/notebooks", "runbook_lib/templates/sample")
#: How the names of files end that stay in a checkout.
LEFT_OUT = ("README.md", ".airflowignore", ".sh")


@pytest.mark.process
def test_each_package_with_its_files_is_in_one_wheel(wheels: dict[str, Path]) -> None:
    for name, packages in PACKAGES.items():
        command = ["git", "ls-files", *packages]
        tracked = subprocess.check_output(command, cwd=ROOT, text=True).split()
        with zipfile.ZipFile(wheels[name]) as wheel:
            held = {file for file in wheel.namelist() if ".dist-info/" not in file}
            for file in held:
                assert wheel.read(file) == (ROOT / file).read_bytes()
        linked = {file for file in held if file.startswith(LINKS)}
        assert len(linked) in (0, 9)
        ours = {file for file in tracked if not file.endswith(LEFT_OUT)}
        assert held - linked == ours - {*LINKS}


@pytest.mark.process
def test_two_builds_are_the_same_bytes(wheels: dict[str, Path], tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        again = build_wheels(tmp_path)
    finally:
        os.umask(mask)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in wheels.values()]


def test_what_the_root_lists_goes_into_one_wheel() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for tables in WHEELS.values():
        for name, table in tables.items():
            found[name] += table.get("dependencies", table)
    dependencies = [line for line in found["project"] if Requirement(line).name not in WHEELS]
    assert sorted(dependencies) == sorted(PROJECT["dependencies"])
    assert sorted(found["project.scripts"]) == sorted(PROJECT["scripts"])
    for group, entries in PROJECT["entry-points"].items():
        assert sorted(found[f'project.entry-points."{group}"']) == sorted(entries)
    assert len(WHEELS["objectmove"]["project"]["dependencies"]) <= 5


def test_what_a_wheel_imports_is_what_it_and_the_ones_below_declare() -> None:
    distributions = packages_distributions()
    ours: set[str] = set()
    declared: set[str] = set()
    for name, packages in PACKAGES.items():
        own = {Requirement(line).name for line in WHEELS[name]["project"]["dependencies"]}
        ours |= {*packages}
        declared |= own
        imported: set[str] = set()
        # `runbook stack` and `runbook serve` need extras, which their own messages name
        for package in {*packages} - {"addons", "alerting", "dataflow_stack"}:
            imported |= list_imports(package)
        foreign = imported - sys.stdlib_module_names - ours
        brought = {canonicalize_name(distributions[module][0]) for module in foreign}
        assert brought <= declared
        # not imported by name: what a kernel is, and what papermill and nbclient read
        assert own - brought - {*WHEELS} <= {"ipykernel", "nbformat"}


def list_imports(package: str) -> set[str]:
    imported = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    return imported


def test_the_move_alone_moves_files_and_proves_it(
    make_machine: MakeMachine, seaweedfs: StoreServer
) -> None:
    machine = make_machine("objectmove")
    client = connect(seaweedfs.endpoint)
    for name in ("a", "b", "c"):
        client.fput_object(seaweedfs.bucket, f"from/{name}", __file__)
    ends = [f"s3://{seaweedfs.bucket}/{prefix}/" for prefix in ("from", "to")]
    keys = {
        "AWS_ENDPOINT_URL": f"http://{seaweedfs.endpoint}",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }

    def move(*words: str) -> dict[str, Any]:
        done = machine.run("objectmove", *words, "--json", **keys)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    plan = move("plan", *ends)
    moved = move("apply", *ends, plan["plan"], "--approve", plan["sha256"][:12])
    proof = move("verify", *ends, plan["plan"])
    counts = proof["counts"]
    assert (moved["moved"], counts["in_place"], counts["lost"]) == (3, 3, 0)
    for prefix, count in (("from/", 0), ("to/", 3)):
        found = list(client.list_objects(seaweedfs.bucket, prefix, recursive=True))
        assert len(found) == count
    found = "from importlib.util import find_spec; print(find_spec('runbook_lib'))"
    assert machine.run("python", "-c", found).stdout == "None\n"


def test_this_runbook_alone_checks_makes_its_settings_and_runs_a_notebook(
    make_machine: MakeMachine, seaweedfs: StoreServer
) -> None:
    machine = make_machine(*PACKAGES)
    assert " investigate " in machine.run("runbook", "--help").stdout
    version = machine.run("runbook", "--version").stdout
    assert version == f"fulfillment-runbook {PROJECT['version']}\n"
    machine.run("runbook", "check", "--json", exit_code=4)
    machine.run("runbook", "drill", "synthetic", exit_code=5)  # this is production
    machine.run("runbook", "init")
    store = {
        "MINIO_ENDPOINT": seaweedfs.endpoint,
        "MINIO_SECURE": "false",
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
    }
    done = machine.run("runbook", "check", "--json", **store)
    (found,) = [system for system in json.loads(done.stdout)["systems"] if system["reachable"]]
    assert (found["name"], found["missing_for_looking"]) == ("store", [])
    done = machine.run("runbook", "run", "01", "--json", **store)
    (notebook,) = json.loads(done.stdout)["notebooks"]
    assert (notebook["notebook"], notebook["status"]) == ("01_purpose.ipynb", "done")
    done = machine.run("runbook", "drill", "--print-cron", RUNBOOK_ENVIRONMENT="demo")
    assert "synthetic" in done.stdout
    done = machine.run("runbook", "stack", "status", exit_code=2)
    assert "pip install 'fulfillment-runbook[stack]'" in done.stderr


def test_neither_of_two_runbooks_knows_the_other(
    make_machine: MakeMachine, seaweedfs: StoreServer, tmp_path: Path
) -> None:
    example = shutil.copytree(ROOT / "examples" / "inbox", tmp_path / "inbox")
    machine = make_machine(*PACKAGES, example)
    done = machine.run("runbook", "investigate", exit_code=2)
    assert done.stderr.endswith("--runbook or RUNBOOK_NAME: fulfillment, inbox\n")
    commands = {}
    for name in ("inbox", "fulfillment"):
        done = machine.run("runbook", "--runbook", name, "--help")
        assert machine.run("runbook", "--help", RUNBOOK_NAME=name).stdout == done.stdout
        commands[name] = set(re.findall(r"^│ (\w+) ", done.stdout, re.M))
    assert commands["fulfillment"] - commands["inbox"] >= {"check", "init", "mcp", "serve"}
    store = name_store("inbox", seaweedfs.endpoint, seaweedfs.bucket)
    store["INBOX_LATE_MINUTES"] = "0.001"
    connect(seaweedfs.endpoint).fput_object(seaweedfs.bucket, "inbox/a", __file__)
    words = ("--runbook", "inbox", "investigate", "--json")
    done = machine.run("python", "-c", _LIST_MODULES, *words, **store)
    assert "runbook --runbook inbox plan" in json.loads(done.stdout)["advice"][0]
    assert "fulfillment" not in done.stderr.split()


_LIST_MODULES = """
import sys
from runbook_lib.cli import run_command
run_command(sys.argv[1:])
sys.stderr.write(" ".join(sys.modules))
"""


LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def test_the_lock_satisfies_pyproject() -> None:
    locked: dict[str, list[str]] = defaultdict(list)
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK, re.M):  # some stand twice
        locked[name].append(version)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for wanted in map(Requirement, lines):
            versions = locked[canonicalize_name(wanted.name)]
            assert versions, f"{wanted} is not locked: make lock"
            for version in versions:
                assert version in wanted.specifier, f"{wanted}: make lock"


def test_no_address_stands_in_the_lock() -> None:
    assert re.findall(r"https?://|file:|@ |--index|^/", LOCK, re.MULTILINE) == []
