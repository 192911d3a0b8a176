"""An incident is clicked through in JupyterLab, in a real browser, against the real stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import requests

from chainlog import Entry, read_entries
from tests.support.chromium import watch
from tests.support.lab import Lab, run_lab
from tests.support.stack import RunningStack, stack, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["stack"]

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with run_lab(tmp_path_factory.mktemp("lab"), stack.env) as found:
        yield found


@pytest.fixture
def page(browser: Browser, lab: Lab) -> Iterator[Page]:
    # each test has an incident of its own: none reuses what another one read
    shutil.rmtree(lab.home, ignore_errors=True)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture
def paused_pipeline(stack: RunningStack) -> Iterator[None]:
    dag = f"{stack.env['PIPELINE_URL']}/api/v2/dags/{stack.env['PIPELINE_DAG_ID']}"
    requests.patch(dag, json={"is_paused": True}, timeout=10).raise_for_status()
    try:
        wait_until(lambda: len(finished_labels(stack)) >= 2, what="labels wait")
        yield
    finally:
        requests.patch(dag, json={"is_paused": False}, timeout=10).raise_for_status()


def finished_labels(stack: RunningStack) -> list[str]:
    return [key for key in stack.list_keys(stack.env["PENDING_PREFIX"]) if key.endswith(".pdf")]


def journal(lab: Lab) -> list[Entry]:
    newest = max(lab.home.glob("inc-*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    return list(read_entries(newest))


def cell(page: Page, source: str) -> int:
    sources = page.locator(".jp-Notebook .jp-Cell").evaluate_all(
        "all => all.map(c => c.querySelector('.cm-content')?.innerText ?? '')"
    )
    (found,) = [index for index, text in enumerate(sources) if text.startswith(source)]
    return int(found)


def output(page: Page, source: str) -> str:
    area = page.locator(".jp-Notebook .jp-Cell").nth(cell(page, source))
    return area.locator(".jp-Cell-outputWrapper").inner_text()


def approve(page: Page, plan: str, sha256: str) -> None:
    gate = page.locator(".jp-Notebook .jp-Cell").nth(cell(page, plan))
    typed = gate.get_by_placeholder("type it here")
    typed.fill("deadbeef")
    gate.get_by_role("button", name="Approve").click()
    gate.get_by_text("That is not this plan's hash").wait_for()
    typed.fill(sha256[:12])
    gate.get_by_role("button", name="Approve").click()
    gate.get_by_text("Approved. Nothing was changed yet").wait_for()


def run_from(page: Page, lab: Lab, source: str) -> None:
    page.locator(".jp-Notebook .jp-Cell").nth(cell(page, source)).locator(".jp-InputPrompt").click()
    lab.run(page, "Run Selected Cell")


def last_hash(lab: Lab, step: str) -> str:
    actions = [e.data["action"] for e in journal(lab) if e.kind == "action"]
    found = [a["result"]["sha256"] for a in actions if a["step"] == step]
    return str(found[-1])


def test_run_all_stops_at_the_plan_and_a_typed_hash_releases_the_labels(
    page: Page, lab: Lab, stack: RunningStack, paused_pipeline: None
) -> None:
    pending, to = stack.env["PENDING_PREFIX"], stack.env["READY_PREFIX"]
    waiting = set(finished_labels(stack))
    released = {to + key.removeprefix(pending) for key in waiting}
    page.set_viewport_size({"width": 1366, "height": 900})
    seen = watch(page, lab.url, lab.url.replace("http", "ws"), "blob:")
    lab.open(page, "06_remediation")
    lab.run(page, "Run All Cells")

    # it was 12,343 pixels long in this state, and 20,675 after the actions
    assert page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight") < 7_500
    assert "how_many" in output(page, "release = inv.plan")
    assert "STOPPED AT THE PLAN" in output(page, "inv.apply(first")
    assert "Traceback" not in output(page, "inv.apply(first")
    link = page.get_by_role("link", name="Go back to the first plan")
    assert link.evaluate("a => a.getBoundingClientRect().bottom") < 900
    assert waiting <= set(finished_labels(stack))
    assert not [e for e in journal(lab) if e.data.get("action", {}).get("phase") == "applied"]
    assert "longest_minutes" in output(page, 'waiting = inv.read("2.3").frame')

    sha256 = last_hash(lab, "6.1")
    assert sha256[:12] in output(page, "release = inv.plan")
    assert sha256[:12] in output(page, "first, second = remediation")
    approve(page, "first, second = remediation", sha256)
    run_from(page, lab, "inv.apply(first")
    area = page.locator(".jp-Notebook .jp-Cell").nth(cell(page, "inv.apply(first"))
    area.scroll_into_view_if_needed()
    assert "processed" in output(page, "inv.apply(first")

    assert "verified" in output(page, "inv.apply(first")
    assert released <= set(stack.list_keys(to))
    left_alone = [e.data["action"] for e in journal(lab) if e.kind == "action"]
    assert not [a for a in left_alone if a["step"] == "6.2" and a["phase"] == "applied"]
    assert seen.requests == []
