"""The chaos script keeps DataFlow's flags, variables, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fulfillment.clients import Clients
from scripts.chaos import simulate_fulfillment_delay as chaos_script
from scripts.chaos.simulate_fulfillment_delay import run_chaos_script
from tests.support.golden import expect_golden
from tests.support.world import TICKET, FakeClients, World

SECRET = "sentinel-secret-7c1f"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(chaos_script, "Clients", lambda _settings: FakeClients(world))
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "local")
    assert Clients is not chaos_script.Clients
    return world


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: str) -> tuple[int, dict[str, Any]]:
        code = run_chaos_script(argv)
        return code, json.loads(capsys.readouterr().out)

    return call


def chaos_keys(world: World) -> list[str]:
    return [k for k in world.store.objects if k.startswith("chaos/")]


def name_types(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: name_types(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [name_types(inner) for inner in value[:1]]
    return type(value).__name__


def test_the_documents_tell_what_was_made_and_removed_in_the_fields_of_the_page(
    run: Any, world: World
) -> None:
    code, made = run("--count", "7", "--object-size-kb", "1", "--support-ticket-id", TICKET)
    assert (code, made["status"], made["mode"]) == (0, "ok", "inject")
    sample = made["results"]["backlog"]["sample"]
    assert len(sample) == 5
    stored = world.store.read_info(sample[0]["key"])
    assert (stored.metadata or {})["order-id"] == str(sample[0]["orderId"])
    assert (stored.metadata or {})["artifact-id"] == sample[0]["artifactId"]
    assert stored.size_bytes == sample[0]["sizeBytes"]
    steps = ["compose-status", "ensure-bucket", "create-backlog", "support-probe"]
    assert [event["step"] for event in made["events"]] == steps
    assert made["events"][2]["details"] == made["results"]["backlog"]
    code, removed = run("--revert")
    assert (code, removed["mode"]) == (0, "revert")
    removal = removed["results"]["removal"]
    assert (removal["removed"], removal["candidates"], removal["totalBytes"]) == (7, 7, 7168)
    assert chaos_keys(world) == []
    page = json.dumps([name_types(made), name_types(removed)], indent=1)
    expect_golden("fulfillment/chaos_documents.json", page)
    code, again = run("--revert", "--dry-run")
    assert (code, again["results"]["support"]) == (0, None)
    assert again["events"][-1]["step"] == "remove-backlog"


def test_a_dry_run_creates_nothing_anywhere_and_shows_what_it_would_make_and_what_waits(
    world: World, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "production")
    keys = [world.put_label(3, number=n) for n in range(1, 8)]
    before = dict(world.store.objects)
    argv = ("--prefix", "pending/", "--count", "6", "--object-size-kb", "1")
    code, document = run("--dry-run", *argv)
    assert code == 0
    backlog = document["results"]["backlog"]
    assert (backlog["objectsCreated"], backlog["objectsPlanned"]) == (0, 6)
    assert (len(backlog["sample"]), backlog["totalBytes"]) == (5, 6 * 1024)
    assert [w["key"] for w in backlog["waiting"]] == keys[:6]
    for argv in (("--count", "1"), ("--revert",)):
        code, document = run(*argv)
        assert (code, document["status"]) == (2, "error")
        assert "production" in document["message"]
    assert world.store.objects == before


def test_a_secret_on_the_command_line_is_warned_of_and_never_shown(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def connect(settings: Any) -> FakeClients:
        seen.append(settings.minio_root_password.get_secret_value())
        return FakeClients(world)

    monkeypatch.setattr(chaos_script, "Clients", connect)
    prefix = f"chaos/{SECRET}/"
    code = run_chaos_script(["--dry-run", "--minio-secret-key", SECRET, "--prefix", prefix])
    printed = capsys.readouterr()
    assert code == 0
    assert seen == [SECRET]
    assert "warning" in printed.err
    assert SECRET not in printed.out + printed.err
