"""A real fault, a real alert, and the report that `runbook serve` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_stack import reporter
from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders
from tests.support.stack import run_stack, wait_until


@pytest.mark.skipif(not reporter.can_serve(), reason="the extra serve is not installed")
@pytest.mark.timeout(400)
def test_a_fault_becomes_a_report_without_anyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))
    with run_stack(tmp_path / "stack", serves=True) as stack:
        monkeypatch.setenv("RUNBOOK_STACK_HOME", str(stack.home))
        monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "local")
        config = load_config(stack.home).remembered()
        stack.env["SERVE_URL"] = f"http://{reporter.serve_address(config)}"
        FAULTS["pipeline_paused"].on()
        inject_orders(stack.env["FULFILLMENT_URL"], 3)

        def list_told() -> list[str]:
            items = stack.get("NOTIFICATIONS_URL", "/notifications")["items"]
            return [item["channel"] for item in items if "inc-" in item["text"]]

        wait_until(
            lambda: set(list_told()) == {"slack", "teams", "email"},
            what="the report reaches every channel",
            deadline_s=240,
        )
        assert len(list_told()) == 3
        (row,) = stack.get("SERVE_URL", "/incidents")["incidents"]
        assert (row["is_open"], row["verdict"]) == (True, "incident")
        assert row["cause"] == "pipeline_paused"
        FAULTS["pipeline_paused"].off()
