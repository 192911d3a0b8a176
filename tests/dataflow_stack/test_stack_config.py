"""Settings, supervisor configuration and fault table of the local stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.places import build_env
from fulfillment.settings import Settings
from runbook_lib.errors import EnvironmentForbidsError, SettingsError


def test_the_runbook_can_read_every_variable_of_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in build_env(load_config(tmp_path, 0)).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.is_playground
    assert settings.runbook_services == "supervisor"
    assert settings.fulfillment_url == "http://127.0.0.1:8108"
    assert settings.label_finished == "metadata:tracking-number"
    assert settings.worker_control == "api"


def test_a_value_that_the_supervisor_cannot_hold_is_refused_without_telling_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", 'pass"word-42')
    with pytest.raises(SettingsError, match="MINIO_ROOT_PASSWORD") as caught:
        load_config(tmp_path)
    assert "word-42" not in str(caught.value)


def test_a_fault_is_refused_outside_local_and_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "production")
    with pytest.raises(EnvironmentForbidsError, match="production"):
        FAULTS["pipeline_paused"].on(load_config(tmp_path, 0))
