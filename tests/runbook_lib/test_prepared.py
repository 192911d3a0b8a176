"""A command that is ready to begin, before its words are known."""

from __future__ import annotations

import io
import sys

import pytest

from runbook_lib import prepared


@pytest.mark.parametrize("runbook", [[], ["--runbook", "inbox"]])
def test_it_carries_out_the_words_for_the_runbook_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, runbook: list[str]
) -> None:
    carried_out: list[list[str]] = []
    monkeypatch.setattr(prepared, "use_runbook", lambda name: name)
    monkeypatch.setattr(prepared, "prepare_kernel", lambda: None)
    monkeypatch.setattr(prepared, "_import_run_modules", lambda: None)
    monkeypatch.setattr(prepared, "run_main", lambda: carried_out.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["prepared", *runbook])
    monkeypatch.setattr(sys, "stdin", io.StringIO('["investigate", "--json"]\n'))
    prepared.main()
    assert carried_out == [[*runbook, "investigate", "--json"]]
