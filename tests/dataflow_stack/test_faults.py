"""What a fault says when the store refuses it, or its undoing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from minio.error import MinioAdminException

from dataflow_stack import fault_state
from dataflow_stack.config import StackConfig, StackError, load_config
from dataflow_stack.faults import FAULTS, Fault, base, turn_off_all


def refuse(*_: Any) -> Any:
    raise MinioAdminException("403", "access denied")


FAULT = Fault("no_permission", "a right is missing", refuse, refuse, lambda _: False)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackConfig:
    monkeypatch.setattr(base, "_check_playground", lambda _: None)
    monkeypatch.setitem(FAULTS, FAULT.name, FAULT)
    return load_config(tmp_path)


def test_a_fault_that_the_store_refuses_stays_noted_and_names_itself(config: StackConfig) -> None:
    with pytest.raises(StackError, match="no_permission"):
        FAULT.on(config)
    assert FAULT.is_noted(config)


def test_a_fault_that_cannot_be_undone_does_not_keep_the_stack_from_stopping(
    config: StackConfig,
) -> None:
    fault_state.remember(config, FAULT.name, {})
    assert turn_off_all(config, for_shutdown=True) == [FAULT.name]
    assert FAULT.is_noted(config)
