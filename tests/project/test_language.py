"""The runbook in Vietnamese: the catalogs fit the code, and an incident is told in it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib import language
from runbook_lib.model import count_of
from runbook_lib.report import write_outputs
from runbook_lib.run.documents import print_document
from scripts import check_language
from tests.support.golden import expect_golden
from tests.support.stories import tell_incident


@pytest.fixture
def vietnamese(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("translations", "zone"):
        monkeypatch.setattr(language._Reader, name, getattr(language._Reader, name))
    monkeypatch.setenv("RUNBOOK_LANG", "vi")
    monkeypatch.setenv("RUNBOOK_TIMEZONE", "Asia/Ho_Chi_Minh")
    Settings.load()


def test_everything_is_translated_with_its_values_and_nothing_else() -> None:
    assert check_language.list_problems() == []


def test_a_missing_a_dead_and_a_wrong_translation_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"We %(actions)s.": "%(actions)s", "up to": "%(a)s", "gone": "x"}
    monkeypatch.setattr(check_language, "read_catalogs", lambda: told)
    problems = check_language.list_problems()
    assert problems[-2:] == ["other values: 'up to'", "not in the code: 'gone'"]
    assert "no translation: 'a paused pipeline'" in problems


@pytest.mark.usefixtures("vietnamese")
def test_an_incident_is_told_in_vietnamese_and_afterwards_in_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = tell_incident(tmp_path, monkeypatch)
    folder = story.incident.folder
    screen = io.StringIO()
    print_document(story.documents[0], Console(file=screen, width=100))
    page = (folder / "report.html").read_text("utf-8")
    header = page[page.index("<header") : page.index("</header>")]
    pages = {
        "answer": screen.getvalue(),
        "report": re.sub(r"(<[^>]*>\s*)+", "\n", header),
        "summary": (folder / "summary.txt").read_text("utf-8"),
    }
    for name, text in pages.items():
        hide = {folder.name: "INCIDENT", str(tmp_path): "HOME"}
        expect_golden(f"project/vietnamese_{name}.txt", text, hide=hide)
    assert '<html lang="vi">' in page
    language.choose_language(zone=None)
    page = write_outputs(story.incident, SECTIONS).read_text("utf-8")
    assert '<html lang="en">' in page
    assert "by a paused pipeline" in page


@pytest.mark.usefixtures("vietnamese")
def test_a_number_of_things_has_the_plural_of_the_language() -> None:
    assert [count_of(n, "file") for n in (1, 1204)] == ["1 tệp", "1,204 tệp"]
    language.choose_language(zone=None)
    assert [count_of(n, "file") for n in (0, 1, None)] == ["0 files", "1 file", "files"]
