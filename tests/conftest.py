"""A clean environment for every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fulfillment.settings import Settings
from tests.support.gateway import juicefs, seaweedfs
from tests.support.stack import stack

__all__ = ["juicefs", "seaweedfs", "stack"]

# a shell has what it runs in the background ignore Ctrl-C, and tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)

_PREFIXES = (
    "MINIO_",
    "RUNBOOK_",
    "FULFILLMENT_",
    "ALERTMANAGER_",
    "GRAFANA_",
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
    monkeypatch.setattr("runbook_lib.settings.find_root", lambda _: tmp_path)
    monkeypatch.setattr("runbook_lib.settings.find_checkout", lambda: tmp_path)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
