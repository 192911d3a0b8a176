"""The report can be read on a phone, a laptop and paper, in the light and in the dark, by all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.support.chromium import watch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def report(told_home: Path) -> Path:
    (page,) = told_home.glob("inc-*/report.html")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_every_width_with_every_fold_open(
    report: Path, browser: Browser, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    seen = watch(page, "file://")
    page.goto(f"file://{report}")
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")

    spare = page.evaluate(
        "() => document.documentElement.clientWidth - document.documentElement.scrollWidth"
    )
    page.close()

    assert spare >= 0
    assert seen.requests == []


def test_folds_and_links_are_reached_and_used_by_keyboard(report: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"file://{report}")
    summary = page.locator("#sections details.section > summary").nth(1)
    summary.focus()
    page.keyboard.press("Enter")

    assert page.locator("#sections details.section").nth(1).get_attribute("open") is not None
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.close()


def test_on_paper_it_has_at_most_four_pages_and_nothing_is_cut(
    report: Path, browser: Browser
) -> None:
    page = browser.new_page(viewport={"width": 794, "height": 1123})
    page.goto(f"file://{report}")
    page.emulate_media(media="print")
    wide = page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    page.close()

    assert wide <= 0
    assert pdf.count(b"/Type /Page\n") <= 4


@pytest.mark.parametrize(("width", "height", "screens"), [(1400, 900, 1), (390, 844, 1.5)])
def test_the_first_screen_is_short_and_shows_the_chart(
    report: Path, browser: Browser, width: int, height: int, screens: float
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(f"file://{report}")
    first, whole = page.evaluate(
        "() => ['header', 'body'].map("
        "name => document.querySelector(name).innerText.split(/\\s+/).filter(Boolean).length)"
    )
    bottom = page.locator("header svg.chart").evaluate("e => e.getBoundingClientRect().bottom")
    page.close()

    assert first <= 120
    assert whole <= 700
    assert bottom <= height * screens


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(report: Path, browser: Browser, scheme: str) -> None:
    # the report's own policy forbids every script, also that of the checker
    context = browser.new_context(bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"file://{report}")
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(page).response
    context.close()
    violations = [
        (v["id"], v["impact"], [node["html"][:160] for node in v["nodes"][:3]])
        for v in found["violations"]
    ]
    assert found["testEngine"]["name"] == "axe-core"
    assert violations == []
