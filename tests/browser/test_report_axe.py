"""axe-core finds nothing in a report, with every fold open."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from fulfillment.sections import SECTIONS
from runbook_lib.record.incident import Incident
from runbook_lib.report import ReportModel, write_report
from tests.support.chromium import open_browser

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(told: Incident, scheme: str) -> None:
    report = write_report(told, ReportModel(told, SECTIONS))
    with open_browser() as browser:
        # the report's own policy forbids every script, also that of the checker
        context = browser.new_context(bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"file://{report}")
        page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
        found = Axe().run(page).response

    violations = [
        (v["id"], v["impact"], [node["html"][:160] for node in v["nodes"][:3]])
        for v in found["violations"]
    ]
    assert found["testEngine"]["name"] == "axe-core"
    assert violations == []
