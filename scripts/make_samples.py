"""Make the sample reports of an incident and of a drill, and the README's pictures.

Everything comes from real runs, each on a stack of its own: nothing is drawn or edited by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, open_ticket, wait_for_artifacts
from fulfillment.clients import Clients
from fulfillment.drills import wait_for
from fulfillment.settings import Settings
from tests.support.stack import RunningStack, run_stack

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, IMAGES = ROOT / "docs" / "samples", ROOT / "docs" / "images"
_SIZES = {"report": (1280, 900), "report-phone": (390, 844)}


def main() -> None:
    """Run a drill and an incident, keep their reports, take the pictures."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    drill = make_sample(lambda _: runbook("drill"))
    incident = make_sample(make_incident)
    # Only now: a report names its commit, and a changed checkout as such.
    (SAMPLES / "drill.html").write_text(drill, "utf-8")
    (SAMPLES / "incident.html").write_text(incident, "utf-8")
    take_pictures(SAMPLES / "incident.html")


def make_sample(run: Callable[[RunningStack], dict[str, Any]]) -> str:
    """Return the report of a run on a new stack, so that no sample shows what another one left.

    The place of this checkout is taken out of it.
    """
    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder) / "stack") as stack:
        home = str(Path(folder) / "reports")
        os.environ.update(stack.env, RUNBOOK_HOME=home, RUNBOOK_OPERATOR="on-call")
        html = Path(run(stack)["report"]).read_text("utf-8")
        return html.replace(f"{ROOT}/", "")


def make_incident(stack: RunningStack) -> dict[str, Any]:
    """Pause the DAG, let late labels pile up, and carry out the runbook as a person would."""
    fault, config = FAULTS["pipeline_paused"], load_config(home=stack.home).remembered()
    clients = Clients(Settings.load())
    fault.on(config)
    try:
        orders = inject_orders(stack.env["FULFILLMENT_URL"], 20)
        wait_for_artifacts(stack.env["FULFILLMENT_URL"], orders)
        ticket = open_ticket(stack.env["SUPPORT_URL"], orders[0])
        wait_for(lambda: is_firing(clients), timeout_s=60)
        runbook("investigate", "--ticket", ticket)
        plans = runbook("run", "06")["plans"]
        runbook(
            *("run", "06", "-p", "plan=" + ",".join(plan["plan"] for plan in plans)),
            *("-p", "approve=" + ",".join(plan["sha256"] for plan in plans)),
        )
        wait_for(lambda: not is_firing(clients), timeout_s=60)
        runbook("run", "06")  # nothing is left to do: it says that it is fixed
        runbook("note", "--lead", "on-call", "--severity", "3")
        runbook("note", "The plan listed every file before anything moved.", "--went", "well")
        follow_up = "Alert when the DAG is paused for over 10 minutes."
        runbook("note", follow_up, "--owner", "platform team", "--due", "2026-12-15")
        return runbook("run", "08", "07")
    finally:
        fault.restore(config)


def is_firing(clients: Clients) -> bool:
    """Tell whether the alert fires."""
    alerts = clients.prometheus.list_alerts()
    return any(a.name == "FulfillmentDelay" and a.state == "firing" for a in alerts)


def runbook(*arguments: str) -> dict[str, Any]:
    """Run the command and return its document."""
    command = [sys.executable, "-m", "runbook_lib", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    sys.stdout.write(f"runbook {' '.join(arguments[:2])}: exit {done.returncode}\n")
    return document


def take_pictures(report: Path) -> None:
    """Take the README's pictures of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "chromium",
            args=["--no-sandbox", "--disable-background-networking"],
        )
        for name, (width, height) in _SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(report.as_uri())
            page.screenshot(path=str(IMAGES / f"{name}.png"))
        browser.close()


if __name__ == "__main__":
    main()
