"""What the stack keeps in its folder, damaged: one error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_stack import fault_state
from dataflow_stack.config import StackConfig, StackError, load_config
from dataflow_stack.layout import read_overrides

READERS = {
    "stack.json": StackConfig.remembered,
    "faults.json": fault_state.active,
    "overrides.json": read_overrides,
}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a": 7}', b"[" * 100_000])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_an_error_that_names_it(
    name: str, content: bytes, tmp_path: Path
) -> None:
    config = load_config(home=tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StackError, match=name):
        READERS[name](config)
