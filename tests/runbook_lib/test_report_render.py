"""The report is one offline file, whatever the journal holds."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.model import Finding, Line, Plot, Verdict, format_time
from runbook_lib.record.incident import Incident
from runbook_lib.report import ReportModel, write_report
from runbook_lib.report.chart import RIGHT, TOP, draw_chart
from runbook_lib.report.model import summarise
from runbook_lib.report.render import CSP
from tests.support.incidents import PLAN, SHA256, START, make_incident, tell_incident


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


def test_every_link_leads_to_an_anchor_or_beside_the_report(tmp_path: Path) -> None:
    _, page = render(tell_incident(tmp_path).incident)

    inside = {link[1:] for link in page.links if link.startswith("#")}
    outside = {link for link in page.links if not link.startswith("#")}
    assert inside <= set(page.ids)
    assert all(re.fullmatch(r"notebooks/[\w.-]+\.html", link) for link in outside)


def test_links_lead_out_to_what_a_template_names_and_nowhere_else(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    template = "https://dags/<x>?from={from}&to={to}"
    event = {"at": format_time(START), "kind": "trigger", "text": "paused", "link": template}
    tell.read("2.1", "lag", "breach", link="javascript:alert(1)", since=format_time(START))
    tell.read("2.5", "timeline", "ok", link="https://tickets/7?a=1&b=2", ticket="7")
    tell.read("5.3", "pipeline", "breach", link=template, events=[event])
    html, page = render(tell.incident)

    links = {link for link in page.links if not link.startswith("#")}
    newest = tell.incident.journal.view().readings[-1].observed_at
    dag = f"https://dags/<x>?from={format_time(START)}&to={format_time(newest)}"
    assert links == {"https://tickets/7?a=1&b=2", dag}
    assert "<x>" not in html
    told = json.loads((tell.incident.folder / "report.json").read_text("utf-8"))
    assert set(told["links"].values()) == links


def test_a_report_links_what_was_open_at_the_same_time(tmp_path: Path) -> None:
    incident = make_incident(tmp_path).incident
    other = make_incident(tmp_path).incident
    _, page = render(incident)

    links = [link for link in page.links if link.startswith("..")]
    assert links == [f"../{other.id}/report.html"]


def test_beside_it_lie_the_orders_and_the_same_story_for_programs(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    render(incident)

    rows = (incident.folder / "affected_orders.csv").read_text("utf-8").splitlines()
    told = json.loads((incident.folder / "report.json").read_text("utf-8"))
    assert rows[0] == "order,first_seen,last_seen"
    assert [row.partition(",")[0] for row in rows[1:]] == told["affected"]
    assert (told["schema"], len(told["affected"])) == ("runbook/report/1", 37)
    assert told["title"] in (incident.folder / "report.md").read_text("utf-8")


def test_every_request_that_waited_is_on_the_page(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.3", "backlog", "breach", order_ids=[str(number) for number in range(3_000)])
    html, _ = render(tell.incident)

    assert all(f", {number}" in html for number in range(1, 3_000))


def test_a_chart_covers_a_minute_and_every_value(tmp_path: Path) -> None:
    line = Line(name="lag", points=((START, 3.0), (START + timedelta(seconds=1), 4.0)))
    tell = make_incident(tmp_path)
    readings = [tell.read("2.3", "backlog", "breach", plot=Plot(lines=(line,)))]
    chart = draw_chart("Files waiting", readings, {"cause": START}, start=START)

    assert chart is not None
    assert (chart.begin, chart.end) == (START, START + timedelta(minutes=1))
    assert (chart.place(chart.end), chart.lift(4.0)) == (RIGHT, TOP)
    later = START + timedelta(minutes=1)
    assert draw_chart("Files waiting", readings, {"cause": START}, start=later) is None


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


def test_a_journal_of_thousands_of_large_entries_stays_under_two_megabytes(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    rows = [{"key": f"pending/{i}-{'x' * 200}.pdf", "size_bytes": i} for i in range(200)]
    for step in sorted(all_steps()):
        tell.read(step, "a reading", "ok", rows=rows, text="line\n" * 5_000)
    for number in range(3_000):
        tell.record("note", {"text": f"note {number} " + "y" * 300})

    assert (
        write_report(tell.incident, ReportModel(tell.incident, SECTIONS)).stat().st_size < 2_000_000
    )


def test_a_damaged_journal_is_told_up_to_the_damage(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    lines = incident.journal.path.read_bytes().splitlines(keepends=True)
    lines[10] = lines[10].replace(b"ok", b"no")
    incident.journal.path.write_bytes(b"".join(lines))

    html, _ = render(incident)

    assert "line 11" in html
    assert "entry 10, " in html


@pytest.mark.parametrize("tail", [b'{"seq": 999, "at"', b"\xff\xfe\x00"])
def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path, tail: bytes) -> None:
    incident = tell_incident(tmp_path).incident
    with incident.journal.path.open("ab") as file:
        file.write(tail)

    html, _ = render(incident)

    assert ReportModel(incident, SECTIONS).damage in unescape(html)
    assert summarise(ReportModel(incident, SECTIONS)).title in html


def test_a_cause_stands_with_the_last_finding_that_supports_it(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    refuted = Finding(
        name="pipeline_paused",
        words="a paused pipeline",
        status="refuted",
        reason="the DAG is not paused",
    )
    tell.start("06_remediation")
    tell.conclude(Verdict.FIXED, "it is gone", findings=(refuted,))

    html, _ = render(tell.incident)
    shown = html[html.index('<section id="diagnosis">') :]
    shown = shown[: shown.index("<details")]

    for text in ("a paused pipeline", "supported", "The DAG fulfillment_release is paused"):
        assert text in shown, text
    assert "the DAG is not paused" not in shown


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
