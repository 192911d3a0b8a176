"""Wrong credentials, healed by hand, on real servers: what is said on the way, and at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders
from runbook_lib.record.incident import Incident
from runbook_lib.redact import Redactor
from tests.stack.test_incident import Runbook
from tests.support.stack import RunningStack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

ALERT = "FulfillmentUploadFailing"


def list_states(stack: RunningStack) -> set[str]:
    """Return the states in which Prometheus has the alert."""
    alerts = stack.get("PROMETHEUS_URL", "/api/v1/alerts")["data"]["alerts"]
    return {alert["state"] for alert in alerts if alert["labels"]["alertname"] == ALERT}


def test_nothing_uploaded_is_no_recovery_and_what_a_hand_healed_is_fixed(
    stack: RunningStack, tmp_path: Path
) -> None:
    runbook = Runbook(stack, tmp_path)
    config = load_config(home=stack.home).remembered()

    def order() -> None:
        inject_orders(stack.env["FULFILLMENT_URL"], 2)

    def fires() -> bool:
        order()
        return "firing" in list_states(stack)

    def is_over() -> bool:
        order()
        return not list_states(stack)

    FAULTS["bad_credentials"].on(config)
    try:
        wait_until(fires, what="the alert fires", deadline_s=120)
        code, looked = runbook("investigate")
        assert (code, looked["verdict"]) == (3, "incident")
        assert "bad_credentials" in {
            cause["name"] for cause in looked["causes"] if cause["status"] == "supported"
        }
        order()
        code, again = runbook("investigate")
        assert (code, again["log"]["until"]) == (3, None)
    finally:
        FAULTS["bad_credentials"].restore(config)
    wait_until(is_over, what="the alert clears", deadline_s=180)

    looks = []

    def is_fixed() -> bool:
        order()
        looks.append(runbook("investigate"))
        return looks[-1][1]["verdict"] == "fixed"

    wait_until(is_fixed, what="all is well again", deadline_s=120)
    code, looked = looks[-1]
    assert (code, looked["verdict"], looked["incident"]) == (0, "fixed", again["incident"])
    assert looked["log"]["since"] < looked["log"]["until"] <= looked["at"]
    summary = (tmp_path / looked["incident"] / "summary.txt").read_text("utf-8")
    assert summary.startswith("Verdict: Fixed")
    assert "until not yet" not in summary
    code, ended = runbook("run", "07")
    assert (code, ended["verdict"]) == (0, "fixed")
    incident = Incident(tmp_path / looked["incident"], redactor=Redactor())
    assert incident.is_closed
