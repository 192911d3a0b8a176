"""``runbook init``: what it writes, and when it refuses."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fulfillment import commands as command
from fulfillment.change.exercises import MARKER_KEY, check_playground, read_marker
from fulfillment.commands import init
from fulfillment.settings import Settings
from runbook_lib.errors import EnvironmentForbidsError, ExitCode, SafetyError
from tests.support.world import FakeClients, World, make_settings


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    del world.store.objects[MARKER_KEY]
    world.store.memory.writes.clear()
    monkeypatch.setattr(command, "Clients", lambda _: FakeClients(world))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return world


def settings(world: World, environment: str = "demo") -> Settings:
    return make_settings(world.home, runbook_environment=environment)


def test_a_commented_env_file_is_written_once_for_its_owner_alone(world: World) -> None:
    document = init(settings(world))
    path = Path(document.env_file)
    assert path == Path.cwd() / ".env"
    assert (document.exit_code, document.env_file_written) == (ExitCode.OK, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("utf-8")
    assert text.startswith("# ")
    names = {line.lstrip("# ").partition("=")[0] for line in text.splitlines() if "=" in line}
    assert {name.upper() for name in Settings.model_fields} <= names
    path.write_text("RUNBOOK_OPERATOR=me\n")
    assert init(settings(world)).env_file_written is False
    assert path.read_text() == "RUNBOOK_OPERATOR=me\n"
    assert world.store.memory.writes == []


def test_the_marker_says_what_it_will_write_and_where_and_waits_for_approval(world: World) -> None:
    said = init(settings(world), marker="demo")
    assert said.exit_code is ExitCode.REFUSED
    assert said.writes == {
        "endpoint": "memory:0",
        "bucket": "fulfillment-artifacts",
        "key": MARKER_KEY,
        "content": '{"environment": "demo"}',
    }
    assert said.sha256[:12] in said.apply
    assert world.store.memory.writes == []
    with pytest.raises(SafetyError, match="of something else"):
        init(settings(world), marker="demo", approve="0" * 64)
    assert world.store.memory.writes == []
    done = init(settings(world), marker="demo", approve=said.sha256)
    assert (done.exit_code, read_marker(world.store)) == (ExitCode.OK, "demo")  # type: ignore[arg-type]
    check_playground(settings(world), world.store)  # type: ignore[arg-type]
    again = init(settings(world), marker="demo")
    assert (again.exit_code, again.writes) == (ExitCode.OK, {})
    assert world.store.memory.writes == [("put", MARKER_KEY)]


@pytest.mark.parametrize("environment", ["production", "local", "staging"])
def test_a_marker_that_the_setting_does_not_name_is_refused(world: World, environment: str) -> None:
    with pytest.raises(EnvironmentForbidsError, match=environment):
        init(settings(world, environment), marker="demo", approve="0" * 64)
    assert world.store.memory.writes == []
