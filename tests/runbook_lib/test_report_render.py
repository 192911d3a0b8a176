"""The report is one offline file, whatever the journal holds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from fulfillment.sections import SECTIONS
from runbook_lib.record.incident import Incident
from runbook_lib.report import ReportModel, write_report
from runbook_lib.report.render import CSP
from tests.support.incidents import PLAN, SHA256, make_incident, tell_incident


class Page(HTMLParser):
    """Ids, tags, links and pictures of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.policy: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        if tag == "img":
            self.images.append(values)
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]


def render(incident: Incident) -> tuple[str, Page]:
    html = write_report(incident, ReportModel(incident, SECTIONS)).read_text("utf-8")
    return html, Page(html)


def all_steps() -> set[str]:
    return {
        step
        for module in SECTIONS.values()
        for step in (*module.STEPS, *module.ACTIONS)
        if step.startswith(f"{int(module.NAME[:2])}.")
    }


def test_every_step_of_the_runbook_has_an_anchor(tmp_path: Path) -> None:
    _, page = render(tell_incident(tmp_path).incident)

    assert {f"step-{step}" for step in all_steps()} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_beside_it_lie_the_orders_and_the_same_story_for_programs(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    render(incident)

    rows = (incident.folder / "affected_orders.csv").read_text("utf-8").splitlines()
    told = json.loads((incident.folder / "report.json").read_text("utf-8"))
    assert rows[0] == "order,first_seen,last_seen"
    assert [row.partition(",")[0] for row in rows[1:]] == told["affected"]
    assert (told["schema"], len(told["affected"])) == ("runbook/report/1", 37)
    assert told["title"] in (incident.folder / "report.md").read_text("utf-8")


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    html, page = render(tell_incident(tmp_path).incident)

    assert page.policy == CSP
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert page.images == []
    assert "url(" not in html
    assert "@import" not in html


def test_plan_hash_and_head_are_printed(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    html, _ = render(incident)

    head = incident.journal.view().entries[-1]
    for text in (PLAN, SHA256, head.hash, f"entry {head.seq}"):
        assert text in html


def test_a_damaged_journal_is_told_up_to_the_damage(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    lines = incident.journal.path.read_bytes().splitlines(keepends=True)
    lines[10] = lines[10].replace(b"ok", b"no")
    incident.journal.path.write_bytes(b"".join(lines))

    html, _ = render(incident)

    assert "line 11" in html
    assert "entry 10, " in html


def test_secrets_reach_the_report_in_no_form(tmp_path: Path) -> None:
    secret = 'S3ntinel"&<pass>/value'
    tell = make_incident(tmp_path, secrets=(secret,))
    # written by another hand, so that the report's own redaction is what counts
    path = tell.incident.journal.path
    from runbook_lib.record.journal import Journal
    from runbook_lib.redact import Redactor

    other = Journal(path, redactor=Redactor(), clock=tell.clock)
    other.append("note", {"section": "", "text": f"it was {secret} all along"})
    reading = {
        "step": "2.1",
        "name": secret,
        "value": secret,
        "status": "breach",
        "observed_at": "2026-11-24T03:14:00Z",
        "source": f"http://admin:{'hunter2hunter2'}@127.0.0.1/{secret}",
        "rows": [{secret: secret}],
        "text": secret,
        "facts": {"other": secret},
    }
    other.append("reading", {"section": "02_signals_detection", "reading": reading})

    html, _ = render(tell.incident)

    assert "S3ntinel" not in html
    assert "hunter2hunter2" not in html
    assert "[redacted]" in html
