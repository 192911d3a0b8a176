"""The corpus of journals: each is read, and judged as it was when it was kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from chainlog import LogError
from fulfillment.policy import POLICY
from runbook_lib.model import Verdict, format_time
from runbook_lib.record.incident import Incident, IncidentState, create_incident
from runbook_lib.redact import Redactor
from runbook_lib.report.model import ReportModel
from tests.fulfillment.test_sections_readings import CASES
from tools.corpus import Journal, get_content, judge_lines, keep_incidents, read_corpus, read_kept


@pytest.fixture(scope="module")
def journals() -> list[Journal]:
    return read_corpus()


def test_each_journal_gets_the_verdict_since_and_until_that_stand_in_the_corpus(
    journals: list[Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A test that wrote a journal may have made up a step that is new here.
    shown = {step: POLICY.quantities.shown[step] for step in CASES}
    known = replace(POLICY, quantities=replace(POLICY.quantities, shown=shown))
    monkeypatch.setattr("tools.corpus.POLICY", known)
    judged = [(journal, judge_lines(journal.journal)) for journal in journals]
    others = [(j.test, j.today, today) for j, today in judged if j.today != today]
    assert others == []


def test_the_corpus_has_every_verdict_and_each_incident_once(journals: list[Journal]) -> None:
    for journal in journals:
        IncidentState.model_validate(journal.incident)
    assert len({get_content(journal) for journal in journals}) == len(journals) >= 500
    assert {journal.today["verdict"] for journal in journals} >= set(Verdict)


def test_a_kept_incident_is_judged_as_its_report_judges_it(
    tmp_path: Path, journals: list[Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEP_JOURNALS", str(tmp_path / "kept"))
    redactor = Redactor()
    known = next(journal for journal in journals if journal.today["until"])
    incident = create_incident(tmp_path / "home", redactor=redactor)
    (incident.folder / "incident.json").write_text(json.dumps(known.incident), "utf-8")
    incident.journal.path.write_text("".join(f"{line}\n" for line in known.journal), "utf-8")

    keep_incidents(tmp_path / "home", "a test")
    keep_incidents(tmp_path / "home", "another test")

    (folder,) = (tmp_path / "kept").iterdir()
    kept = read_kept(folder)
    report = ReportModel(Incident(incident.folder, redactor=redactor), {})
    assert report.since is not None
    assert report.until is not None
    times = {"since": format_time(report.since), "until": format_time(report.until)}
    assert kept == Journal("a test", kept.incident, known.journal, known.today)
    assert kept.today == {"verdict": report.verdict, **times}


def test_a_journal_that_its_test_damaged_is_refused(journals: list[Journal]) -> None:
    lines = next(journal.journal for journal in journals if len(journal.journal) > 2)
    with pytest.raises(LogError):
        judge_lines([lines[0], *lines[2:]])
