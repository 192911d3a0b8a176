"""One incident and one drill give the documents and the report that they gave before.

``WRITE_GOLDEN=1 pytest tests/fulfillment/test_golden.py`` writes ``golden/`` anew: read the
difference before it is committed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from dataflow_stack.faults import FAULTS
from fulfillment.analysis.causes import CAUSES, CauseRecord
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib import language
from runbook_lib.run.commands import incidents
from runbook_lib.run.documents import print_document
from tests.fulfillment.test_sections_readings import CASES
from tests.support.golden import expect_golden
from tests.support.stories import Story, tell_drill, tell_incident

ROOT = Path(__file__).parents[2]
_BLOCKS = {"h1", "h2", "h3", "h4", "caption", "summary", "tr", "li", "p", "dt", "dd", "figure"}
_JOURNAL_LINE = re.compile(r"\d+ \| \d{4}-\d\d-\d\d ")
_SILENT = {"style", "script", "svg", "head"}


@pytest.fixture
def local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language._Reader, "zone", ZoneInfo("Asia/Ho_Chi_Minh"))


@pytest.fixture
def tried_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for section in SECTIONS.values():
        steps = {step: read for step, read in section.STEPS.items() if step in CASES}
        monkeypatch.setattr(section, "STEPS", steps)
    causes = cast(dict[str, CauseRecord], CAUSES)
    everything = dict(causes)
    for cause in everything.keys() - FAULTS.keys():
        del causes[cause]
    yield
    causes.clear()
    causes.update(everything)  # in their order


@pytest.mark.usefixtures("local_time", "tried_only")
@pytest.mark.parametrize("tell", [tell_incident, tell_drill], ids=["incident", "drill"])
def test_a_story_is_told_as_before(
    tell: Callable[[Path, pytest.MonkeyPatch], Story],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = tell(tmp_path, monkeypatch)
    name = tell.__name__.removeprefix("tell_")
    report = (story.incident.folder / "report.html").read_text("utf-8")
    screen = io.StringIO()
    for document in story.documents:
        print_document(document, Console(file=screen, width=80))
    found = {
        f"{name}_documents.json": "\n".join(d.to_json() for d in story.documents),
        f"{name}_report.txt": "\n".join(_say_page(report)),
        f"{name}_terminal.txt": screen.getvalue(),
        f"{name}_history.json": incidents(Settings.load(), show_all=True).to_json(),
    }
    names = _name_entries(story)
    for file, text in found.items():
        expect_golden(f"fulfillment/{file}", _normalise(text, tmp_path, names))


def _name_entries(story: Story) -> dict[str, str]:
    """Return a name for each journal line's number.

    A name stays the same when another reading comes in before it. So the difference of these files
    shows what a change is about, and nothing else.
    """
    names = {}
    for entry in story.incident.journal.view().entries:
        data = entry.data.get(entry.kind, entry.data)
        if entry.kind == "reading":
            name = data["step"]
        elif entry.kind == "action":
            name = f"{data['step']}-{data['phase']}"
        elif entry.kind == "conclusion":
            name = data["section"]
        else:
            name = entry.kind
        names[str(entry.seq)] = name
    return names


def _normalise(text: str, home: Path, names: dict[str, str]) -> str:
    """Replace what differs from run to run: folders, random names, hashes, versions, numbers."""
    for place, word in ((str(home), "HOME"), (str(ROOT), "ROOT")):
        text = text.replace(place, word)
    text = re.sub(r"(\d{8}T\d{6}Z)-[0-9a-f]{4}\b", r"\1-0000", text, flags=re.IGNORECASE)
    text = re.sub(
        r"\b[0-9a-f]{64}\b|(?<=approve = ')[0-9a-f]+|(?<=approve=)[0-9a-f]+", "SHA256", text
    )
    text = re.sub(r"(?<=^commit \| ).*|(?<=^Python )\d.*", "…", text, flags=re.MULTILINE)
    text = re.sub(r"#(\d+)\b", lambda match: f"#{names.get(match[1], match[1])}", text)
    text = re.sub(r"(?<=the )\d+(?= lines of the journal)|(?<=entry )\d+(?=, SHA)", "N", text)
    return text.rstrip() + "\n"


class _Lines(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._words: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self._end()
            self._words.append({"h1": "# ", "h2": "## ", "h3": "### ", "h4": "#### "}.get(tag, ""))
        elif tag in ("td", "th") and any(word.strip() for word in self._words):
            self._words.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT
        if tag in _BLOCKS:
            self._end()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._words.append(data)

    def _end(self) -> None:
        if text := " ".join("".join(self._words).split()):
            self.lines.append(text)
        self._words = []


def _say_page(html: str) -> list[str]:
    parser = _Lines()
    parser.feed(html)
    parser.close()
    return [line for line in parser.lines if not _JOURNAL_LINE.match(line)]
