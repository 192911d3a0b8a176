"""The chaos script keeps DataFlow's flags, variables, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fulfillment.clients import Clients
from scripts.chaos import simulate_fulfillment_delay as chaos_script
from scripts.chaos.simulate_fulfillment_delay import run_chaos_script
from tests.support.world import TICKET, FakeClients, World

SECRET = "sentinel-secret-7c1f"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a healthy world that the script talks to."""
    world = World(tmp_path)
    monkeypatch.setattr(chaos_script, "Clients", lambda _settings: FakeClients(world))
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "local")
    assert Clients is not chaos_script.Clients
    return world


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the script and gives its exit code and document."""

    def call(*argv: str) -> tuple[int, dict[str, Any]]:
        code = run_chaos_script(argv)
        return code, json.loads(capsys.readouterr().out)

    return call


def chaos_keys(world: World) -> list[str]:
    return [k for k in world.store.objects if k.startswith("chaos/")]


def test_the_document_has_every_field_of_dataflow(run: Any) -> None:
    code, document = run("--count", "2", "--object-size-kb", "1", "--support-ticket-id", TICKET)
    assert code == 0
    assert {
        "status", "mode", "bucket", "prefix", "dryRun", "holdUntil", "countRequested",
        "objectSizeKiB", "results", "events", "durationSeconds",
    } <= set(document)  # fmt: skip
    assert (document["status"], document["mode"]) == ("ok", "inject")
    results = document["results"]
    assert {"servicesRunning", "minioRunning", "minioPs"} <= set(results["compose"])
    assert results["compose"]["minioRunning"] is True
    assert {"objectsCreated", "objectsPlanned", "sample", "totalBytes", "approxMiB"} <= set(
        results["backlog"]
    )
    assert {"status", "httpStatus", "elapsedSeconds", "timelineEvents"} <= set(results["support"])
    assert results["support"]["latestFulfillmentEvent"]


def test_revert_tells_what_it_removed(world: World, run: Any) -> None:
    run("--count", "2", "--object-size-kb", "1")
    code, document = run("--revert")
    assert (code, document["mode"]) == (0, "revert")
    removal = document["results"]["removal"]
    assert (removal["removed"], removal["candidates"], removal["totalBytes"]) == (2, 2, 2048)
    assert chaos_keys(world) == []


def test_a_dry_run_creates_nothing_and_shows_what_waits(world: World, run: Any) -> None:
    keys = [world.put_label(3, number=n) for n in range(1, 8)]
    before = dict(world.store.objects)
    code, document = run("--dry-run", "--prefix", "pending/", "--count", "5")
    backlog = document["results"]["backlog"]
    assert code == 0
    assert (backlog["objectsCreated"], backlog["objectsPlanned"]) == (0, 5)
    assert [w["key"] for w in backlog["waiting"]] == keys[:5]
    assert world.store.objects == before


def test_a_dry_run_is_allowed_everywhere_but_nothing_else_is(
    run: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "production")
    assert run("--dry-run")[0] == 0
    for argv in (("--count", "1"), ("--revert",)):
        code, document = run(*argv)
        assert (code, document["status"]) == (2, "error")
        assert "production" in document["message"]
    assert chaos_keys(world) == []


def test_variables_are_defaults_and_flags_win(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULFILLMENT_DELAY_COUNT", "4")
    monkeypatch.setenv("FULFILLMENT_DELAY_OBJECT_SIZE_KB", "1")
    monkeypatch.setenv("FULFILLMENT_DELAY_PREFIX", "pending/")
    assert run()[1]["results"]["backlog"]["objectsCreated"] == 4
    document = run("--count", "1", "--prefix", "chaos/x/")[1]
    assert (document["countRequested"], document["prefix"]) == (1, "chaos/x/")


def test_dataflows_defaults_are_kept(run: Any) -> None:
    document = run("--dry-run")[1]
    assert (document["countRequested"], document["objectSizeKiB"]) == (25, 128)
    assert document["prefix"] == "chaos/fulfillment-delay/"


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


def test_a_store_that_is_down_is_an_expected_failure(world: World, run: Any) -> None:
    world.down.add("store")
    code, document = run("--count", "1")
    assert (code, document["status"]) == (2, "error")
    assert "refused" in document["message"]


def test_a_defect_is_exit_3_with_a_document(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(chaos_script, "create_backlog", broken)
    code, document = run("--count", "1")
    assert (code, document["message"]) == (3, "ZeroDivisionError: a defect")


def test_a_support_probe_that_fails_is_not_ok(world: World, run: Any) -> None:
    world.case = None
    code, document = run("--dry-run", "--support-ticket-id", "nope")
    assert (code, document["status"]) == (2, "error")
    assert "support probe failed" in document["message"]
    assert document["results"]["support"]["httpStatus"] == 404
    world.down.add("services")
    assert run("--dry-run")[1]["results"]["compose"]["minioRunning"] is None


def test_backdating_is_told(run: Any) -> None:
    document = run("--count", "1", "--object-size-kb", "1", "--age-minutes", "20")[1]
    assert document["ageMinutes"] == 20
    assert document["results"]["backlog"]["pendingSince"] < document["events"][0]["at"]


def test_a_wrong_flag_is_exit_2() -> None:
    with pytest.raises(SystemExit, match="2"):
        run_chaos_script(["--no-such-flag"])
