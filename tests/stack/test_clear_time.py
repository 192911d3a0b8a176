"""The predicted clear time, held against when the alert really cleared, under two rule profiles."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pytest

from dataflow_stack.config import Profile, load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from runbook_lib.model import Verdict, format_time, parse_time
from runbook_lib.record.journal import utc_now
from tests.support.stack import RunningStack, run_stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def resolved_at(stack: RunningStack, since: datetime) -> dict[str, datetime]:
    path = f"/notifications?since={format_time(since)}"
    return {
        item["channel"]: parse_time(item["receivedAt"])
        for item in stack.get("NOTIFICATIONS_URL", path)["items"]
        if item["status"] == "resolved" and "FulfillmentDelay" in item["alertnames"]
    }


@pytest.mark.parametrize("profile", ["demo", pytest.param("rehearsal", marks=pytest.mark.long)])
def test_the_alert_clears_within_the_predicted_time(
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with run_stack(tmp_path / "stack", profile=profile) as stack:
        for name, value in (*stack.env.items(), ("RUNBOOK_HOME", str(tmp_path / "reports"))):
            monkeypatch.setenv(name, value)
        fault = FAULTS["pipeline_paused"]
        config = load_config(home=stack.home).remembered()
        fault.on(config)
        wait_for_artifacts(
            stack.env["FULFILLMENT_URL"], inject_orders(stack.env["FULFILLMENT_URL"], 4)
        )
        wait_until(stack.is_firing, what="FulfillmentDelay fires", deadline_s=90)

        inv = Investigation.open(section=SECTIONS["06_remediation"], wait_s=60)
        unpause = inv.plan("6.2")
        assert unpause.action == "unpause"
        inv.apply(unpause, approve=unpause.sha256)
        acted_at = utc_now()
        inv.verify(unpause)
        cleared: dict[str, datetime] = {}
        watcher = threading.Thread(target=lambda: watch(stack, cleared), daemon=True)
        watcher.start()
        reading = inv.read_step("6.5")
        for step in inv.section.STEPS:
            if step != "6.5":
                inv.read_step(step)
        conclusion = inv.conclude()
        assert conclusion.verdict in (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING), conclusion
        watcher.join(timeout=120)
        wait_until(lambda: len(resolved_at(stack, acted_at)) == 3, what="every channel is told")
        fault.restore(config)

    deadline = reading.clears_by
    assert deadline is not None
    assert acted_at < cleared["alert"] <= deadline
    with capsys.disabled():
        predicted = (deadline - acted_at).total_seconds()
        actual = (cleared["alert"] - acted_at).total_seconds()
        print(
            f"\n{profile}: alert cleared after {actual:.1f} s, predicted at most {predicted:.1f} s"
        )


def watch(stack: RunningStack, cleared: dict[str, datetime]) -> None:
    wait_until(lambda: not stack.is_firing(), what="the alert clears", deadline_s=110)
    cleared["alert"] = utc_now()
