"""A clean environment for every test, and a mark on those that need a process or a server."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from fulfillment.settings import Settings
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from tests.support.gateway import juicefs, seaweedfs
from tests.support.rgw import rgw
from tests.support.stack import stack

__all__ = ["juicefs", "rgw", "seaweedfs", "stack"]

# a machine's first plot lists its fonts by a process, which tests may not start unmarked
importlib.import_module("matplotlib.font_manager")
# jsonschema, below nbformat, would build 39 parsers for it
sys.modules.setdefault("rfc3987_syntax", None)
# a shell has what it runs in the background ignore Ctrl-C, and tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)
# a busy machine is no error
hypothesis.settings.register_profile("runbook", deadline=None)
hypothesis.settings.load_profile("runbook")

#: Folders of which every test needs a process or a server, and fixtures that start one. Other
#: tests that do are marked where they stand. `make check` runs all tests without the mark.
_PROCESS_FOLDERS = {"airflow", "browser", "drills", "faults", "foreign", "stack"}
_PROCESS_FIXTURES = {"httpserver", "juicefs", "rgw", "seaweedfs", "stack"}
_PROCESS_EVENTS = {"os.fork", "os.posix_spawn", "socket.bind", "subprocess.Popen"}
_unmarked_test = ""

_PREFIXES = (
    "MINIO_",
    "RUNBOOK_",
    "FULFILLMENT_",
    "ALERTMANAGER_",
    "GRAFANA_",
    "SERVE_",
    "SERVICE_",
    "JUPYTER_",
    "TARGET_",
    "EXPORTER_",
)
_KEPT = {"RUNBOOK_FAULT_RUNS"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every setting, and let relative paths be relative to the test's own folder."""
    names = {name.upper() for name in Settings.model_fields}
    for name in list(os.environ):
        if name not in _KEPT and (name in names or name.startswith(_PREFIXES)):
            monkeypatch.delenv(name)
    monkeypatch.setattr("runbook_lib.settings.find_root", lambda *_: tmp_path)
    monkeypatch.setattr("runbook_lib.settings.find_checkout", lambda *_: tmp_path)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")


@pytest.fixture(scope="session")
def told_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the incident of `tests.support.stories`, told once: copy it."""
    from tests.support.stories import tell_incident

    home = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as monkeypatch:
        tell_incident(home, monkeypatch)
    return home


@pytest.fixture
def told(told_home: Path, tmp_path: Path) -> Incident:
    (folder,) = list_incidents(shutil.copytree(told_home, tmp_path / "told"))
    return Incident(folder, redactor=Redactor())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what its folder or its fixtures tell to need a process or a server."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    fixtures = _PROCESS_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    if folder in _PROCESS_FOLDERS or fixtures:
        item.add_marker("process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Tell the guard below which test runs, when it has no mark."""
    global _unmarked_test  # noqa: PLW0603
    if item.get_closest_marker("process") is None:
        _unmarked_test = item.nodeid
    try:
        return (yield)
    finally:
        _unmarked_test = ""


def refuse_unmarked_process(event: str, _: tuple[object, ...]) -> None:
    """Fail a test that starts a process or a server without the mark."""
    if _unmarked_test and event in _PROCESS_EVENTS:
        raise RuntimeError(f"{event} without the mark: @pytest.mark.process: {_unmarked_test}")


sys.addaudithook(refuse_unmarked_process)
