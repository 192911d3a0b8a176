"""The helper carries another runbook, without the first one's packages and beside the first."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer
from tests.support.second_runbook import (
    COMMAND,
    EXAMPLE,
    FIRST,
    FIRST_RUNBOOK,
    HELPER,
    INBOX,
    hide_packages,
    link_packages,
    list_foreign,
    make_environment,
    read_words,
    register,
    run_command,
)

pytestmark = pytest.mark.process


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the helper and the second runbook, and nothing of the first."""
    link_packages(tmp_path, HELPER)
    (tmp_path / "inbox").symlink_to(EXAMPLE / "inbox")
    hide_packages(tmp_path, FIRST)
    register(tmp_path, "fulfillment-runbook", COMMAND)
    register(tmp_path, "inbox-runbook", INBOX)
    return tmp_path


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A folder with both runbooks."""
    link_packages(tmp_path, (*HELPER, *FIRST))
    (tmp_path / "inbox").symlink_to(EXAMPLE / "inbox")
    register(tmp_path, "fulfillment-runbook", COMMAND + FIRST_RUNBOOK)
    register(tmp_path, "inbox-runbook", INBOX)
    return tmp_path


def runbook(
    site: Path, *arguments: str, store: StoreServer | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runbook_lib", *arguments]
    return run_command(command, cwd=site, environment=make_environment(site, store))


def read_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == document["exit_code"], done.stderr
    return document


def fill(store: StoreServer, *keys: str) -> Minio:
    client = Minio(store.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    for found in client.list_objects(store.bucket, recursive=True):
        client.remove_object(store.bucket, str(found.object_name))
    for key in keys:
        client.put_object(store.bucket, key, io.BytesIO(key.encode()), len(key))
    return client


def list_keys(client: Minio, store: StoreServer) -> list[str]:
    objects = client.list_objects(store.bucket, recursive=True)
    keys = [str(found.object_name) for found in objects]
    return sorted(key for key in keys if not key.startswith(".runbook/"))


def test_the_second_runbook_imports_the_helper_and_the_move_alone() -> None:
    allowed = {*HELPER, "inbox", "pydantic", *sys.stdlib_module_names}
    for path in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            assert {name.partition(".")[0] for name in names} <= allowed, path


def test_a_second_runbook_looks_plans_changes_proves_and_reports(
    alone: Path, seaweedfs: StoreServer
) -> None:
    client = fill(seaweedfs, "inbox/a.csv", "inbox/b.csv", "other/c.csv")
    look = read_json(runbook(alone, "investigate", "--json", store=seaweedfs))
    assert (look["exit_code"], look["verdict"]) == (3, "incident")
    assert "runbook plan" in look["advice"][0]  # the only runbook needs no name
    assert list((alone / "reports" / "inbox").glob("inc-*/plans/*")) == []

    run = ("run", "inbox", "--json", "-p", "move=true")
    planned = read_json(runbook(alone, *run, store=seaweedfs))
    assert (planned["exit_code"], planned["notebooks"][0]["status"]) == (5, "stopped_at_plan")
    (plan,) = planned["plans"]
    assert "inbox/a.csv" in list_keys(client, seaweedfs)

    given = ("-p", f"plan={plan['plan']}", "-p", f"approve={plan['sha256']}")
    moved = read_json(runbook(alone, *run, *given, store=seaweedfs))
    assert (moved["exit_code"], moved["verdict"]) == (3, "not_fixed")
    assert list_keys(client, seaweedfs) == ["other/c.csv", "retry/a.csv", "retry/b.csv"]

    client.put_object(seaweedfs.bucket, "heartbeat", io.BytesIO(b"now"), 3)
    fixed = read_json(runbook(alone, "investigate", "--json", store=seaweedfs))
    assert (fixed["exit_code"], fixed["verdict"]) == (0, "fixed")

    report = read_words(Path(fixed["report"]).read_text("utf-8"))
    for words in ("2 files", "moved 2 files to the standby consumer", "never wrote a heartbeat"):
        assert words.lower() in report.lower()
    assert list_foreign(report) == []
    again = runbook(alone, "verify-report", fixed["incident"], store=seaweedfs)
    assert again.returncode == 0, again.stderr


def test_a_consumer_that_works_is_not_raced(alone: Path, seaweedfs: StoreServer) -> None:
    client = fill(seaweedfs, "inbox/a.csv", "heartbeat")
    plan = read_json(runbook(alone, "plan", "--json", store=seaweedfs))
    approve = ("apply", plan["plan"], "--approve", plan["sha256"], "--json")
    refused = read_json(runbook(alone, *approve, store=seaweedfs))
    assert refused["exit_code"] == 5
    assert list_keys(client, seaweedfs) == ["heartbeat", "inbox/a.csv"]


def test_the_command_comes_with_the_default_and_the_name_chooses_another(both: Path) -> None:
    first = runbook(both, "--help").stdout
    assert "The fulfilment backlog runbook" in first
    assert runbook(both, "stack", "--help").returncode == 0
    for option in (("--runbook", "inbox"), ("--runbook=inbox",)):
        second = runbook(both, *option, "--help").stdout
        assert "An inbox that is stuck" in second
        assert runbook(both, *option, "stack", "--help").returncode == 2
    named = runbook(both, "--runbook", "fulfillment", "--help").stdout
    assert "The fulfilment backlog runbook" in named


@pytest.mark.parametrize(
    ("names", "said"), [((), "no runbook is installed"), (("a", "b"), "--runbook: a, b")]
)
def test_no_runbook_and_several_without_a_default_are_one_sentence(
    alone: Path, names: Sequence[str], said: str
) -> None:
    lines = ["[runbook]", *(f"{name} = inbox.runbook:RUNBOOK" for name in names)]
    register(alone, "inbox-runbook", "\n".join(lines))
    done = runbook(alone, "--help")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
