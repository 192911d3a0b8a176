"""What others wrote is shown as text: no script runs, nothing is fetched, nothing is moved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fulfillment.sections import SECTIONS
from runbook_lib.model import (
    ActionEntry,
    ActionPhase,
    CauseStatus,
    Conclusion,
    Finding,
    Reading,
    Verdict,
)
from runbook_lib.record.incident import Incident
from runbook_lib.report import ReportModel, export_notebooks, render, write_report
from runbook_lib.show.display import describe
from tests.support.chromium import watch
from tests.support.hostile import HOSTILE, MARK
from tests.support.incidents import Teller, make_incident

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FORMS = ("text/html", "text/markdown", "text/plain", "text/latex", "image/svg+xml",
         "text/vnd.mermaid", "application/javascript", "application/json")  # fmt: skip


def batched(names: Iterable[str], size: int = 12) -> Iterator[tuple[str, ...]]:
    """Yield the names a few at a time: one report holds them all."""
    rest = iter(names)
    while group := tuple(islice(rest, size)):
        yield group


_BODY = Path(render.__file__).parents[1] / "templates" / "body.html"
# Links that the pages may hold: anchors, and their neighbours in the incident folder.
_HARMLESS_LINK = r"^(#[\w.-]+|(notebooks/)?[\w.‹›+-]+\.(html|ipynb)(#[\w.-]+)?)$"
# ruff: noqa: E501
_LOOK = (
    """() => {
  const all = [...document.querySelectorAll('*')];
  return {
    ran: """
    + MARK
    + """ ?? null,
    scripts: document.scripts.length,
    active: all.filter(e => /^(script|iframe|object|embed|form|input|button|link|base|math|audio|video)$/i.test(e.tagName)).map(e => e.tagName),
    svgs: document.querySelectorAll('svg:not(.chart)').length,
    charts: document.querySelectorAll('svg.chart').length,
    handlers: all.flatMap(e => [...e.attributes]).filter(a => /^on/i.test(a.name)).map(a => a.name),
    links: all.flatMap(e => ['href', 'src', 'action', 'srcset'].map(n => e.getAttribute(n))).filter(v => v && !/^data:image.(png|jpeg|gif|svg.xml);base64,/.test(v)),
    placed: all.filter(e => ['fixed', 'absolute'].includes(getComputedStyle(e).position)).map(e => e.tagName),
    hidden: getComputedStyle(document.querySelector('main')).display,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    sections: document.querySelectorAll('main > section').length,
    refresh: document.querySelectorAll('meta[http-equiv=refresh]').length,
    title: document.title,
  };
}"""
)


def tell_hostile(home: Path, texts: Sequence[str]) -> Incident:
    tell = make_incident(home)
    tell.incident.update(ticket_id=texts[0], environment=texts[-1])
    for text in texts:
        tell_one(tell, text)
    return tell.incident


def tell_one(tell: Teller, text: str) -> None:
    tell.start("02_signals_detection", ticket_id=text, drill_id=text)
    points = [["2026-11-24T03:14:00Z", 3], ["2026-11-24T03:15:00Z", 4]]
    # names of a JSON object cannot hold a lone surrogate once pydantic has seen them
    name = text.encode("utf-8", "backslashreplace").decode()
    evidence: dict[str, Any] = {
        "rows": [{"key": text, name: "a name", "status": text, "metadata": {name: text}}],
        "plot": {
            "title": text,
            "unit": text,
            "lines": [{"name": text, "points": points}],
            "marks": [["2026-11-24T03:14:30Z", text]],
        },
        "text": text,
        "facts": {name: text, "labels": [text]},
    }
    words = {"value": text, "unit": text, "threshold": text, "source": text, "reason": text}
    evidence["events"] = [
        {"at": "2026-11-24T03:14:00Z", "kind": kind, "text": text, "source": text}
        for kind in ("trigger", "alert", "notice")
    ]
    for step in ("2.1", "3.1", f"2.{len(tell.incident.journal.view().entries)}"):
        tell.read(step, text, "breach", **evidence, **words)
    tell.read("7.1", text, "unknown", reason=text)
    tell.read("9." + text[:20], text, "ok")
    plan = {"plan": text, "objects": 3, name: text, "excluded": {name: 1}}
    names = {"action": text, "target": text, "undo": text, "source": text}
    tell.act(ActionPhase.PLANNED, **names, result=plan)
    tell.act(ActionPhase.FAILED, **names, reason=text, result={"plan": text})
    finding = Finding(
        name="carrier_errors",
        status=CauseStatus.SUPPORTED,
        evidence=(text, "#1", "2.1"),
        reason=text,
        next_step=text,
    )
    tell.conclude(
        Verdict.INCIDENT, text, findings=(finding,),
        follow_ups=[text],
    )  # fmt: skip
    tell.record("note", {"text": text})
    tell.record("torn_tail", {"kept_as": text})
    run = {"notebook": text, "status": text, "duration_s": 1.0, "error": f"KeyError: {text}"}
    tell.record("notebook", run)
    drill = {"event": text, "scenario": text, "phases": {text: text}, "objectives": [{text: text}]}
    tell.record("drill", drill)
    tell.record(text, {text: text})


def write_notebook(incident: Incident, texts: Sequence[str]) -> None:
    """Leave an executed notebook whose every output is one of the texts, in every form."""
    cells = []
    for text in texts:
        outputs = [new_output("display_data", data={form: text}) for form in FORMS]
        table = f"<table><tr><td title='{text}'>{text}</table>"
        isolated = {"text/html": {"isolated": True}}
        outputs += [
            new_output("stream", name="stderr", text=text),
            new_output("error", ename=text, evalue=text, traceback=[text]),
            new_output("display_data", data={"text/html": table}),
            new_output("display_data", data={"text/html": f"<pre>{text}</pre>"}, metadata=isolated),
        ]
        cells += [new_markdown_cell(text), new_code_cell(text, outputs=outputs)]
    notebook = new_notebook(cells=cells, metadata={"title": texts[0]})
    path = incident.path("notebooks", "02_signals_detection.ipynb")
    path.write_text(nbformat.writes(notebook), "utf-8", errors="backslashreplace")
    run = {"notebook": path.name, "status": "done", "duration_s": 1.0, "error": ""}
    incident.journal.append("notebook", {"section": "02_signals_detection", **run})


def write_cards(path: Path, incident: Incident) -> None:
    """Write what a notebook shows of the same entries, without any policy around it."""
    kinds = {"reading": Reading, "action": ActionEntry, "conclusion": Conclusion}
    shown = [
        describe(kinds[entry.kind].model_validate(entry.data[entry.kind])).to_html()
        for entry in incident.journal.view().entries
        if entry.kind in kinds
    ]
    style = "pre{white-space:pre-wrap} main{overflow-wrap:anywhere;overflow-x:auto}"
    head = f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style>"
    path.write_text(f"{head}<main>{''.join(map(str, shown))}</main>", "utf-8")


def look_at(page: Page, path: Path) -> dict[str, Any]:
    seen = watch(page, "file://")
    page.goto(f"file://{path}")
    found: dict[str, Any] = page.evaluate(_LOOK)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    opened: dict[str, Any] = page.evaluate(_LOOK)
    assert seen.requests == []
    assert seen.dialogs == []
    assert page.url == f"file://{path}"
    assert found["ran"] is None
    assert opened["ran"] is None
    for state in (found, opened):
        assert state["scripts"] == 0
        assert state["active"] == []
        assert state["svgs"] == 0
        assert "report" in path.name or state["charts"] == 0
        assert state["handlers"] == []
        assert state["placed"] == []
        assert state["refresh"] == 0
        assert state["hidden"] == "block"
        assert state["wide"] <= 0
        assert [link for link in state["links"] if not re.match(_HARMLESS_LINK, link)] == []
    return found


def without_policy(path: Path) -> Path:
    """Return a copy of a page without its Content-Security-Policy: the second wall must hold."""
    bare = path.with_name(f"bare-{path.name}")
    html = path.read_text("utf-8")
    assert "Content-Security-Policy" in html
    bare.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html), "utf-8")
    return bare


@pytest.mark.parametrize("names", list(batched(HOSTILE)), ids=lambda names: f"{names[0]}…")
def test_hostile_inputs_are_only_text(
    names: tuple[str, ...], tmp_path: Path, browser: Browser
) -> None:
    texts = [HOSTILE[name] for name in names]
    incident = tell_hostile(tmp_path, texts)
    write_notebook(incident, texts)
    export_notebooks(incident)
    (notebook,) = incident.folder.glob("notebooks/*.html")
    report = write_report(incident, ReportModel(incident, SECTIONS))
    write_cards(tmp_path / "cards.html", incident)

    page = browser.new_page(viewport={"width": 390, "height": 844})
    try:
        found = look_at(page, report)
        for path in (notebook, without_policy(report), without_policy(notebook)):
            look_at(page, path)
        page.set_viewport_size({"width": 1280, "height": 800})
        for path in (report, tmp_path / "cards.html"):
            look_at(page, path)
    finally:
        page.close()

    assert found["sections"] == _BODY.read_text("utf-8").count("<section ")
    assert report.stat().st_size < 2_000_000
