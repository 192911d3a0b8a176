"""The corpus of journals: each is read, and judged as it was when it was kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chainlog import LogError
from fulfillment.policy import POLICY
from runbook_lib.model import Verdict
from runbook_lib.record.incident import IncidentState
from tests.fulfillment.test_sections_readings import CASES
from tools.corpus import Journal, judge_lines, read_corpus


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


def test_the_corpus_has_every_verdict(journals: list[Journal]) -> None:
    for journal in journals:
        IncidentState.model_validate(journal.incident)
    assert len(journals) >= 500
    assert {journal.today["verdict"] for journal in journals} >= set(Verdict)


def test_a_journal_that_its_test_damaged_is_refused(journals: list[Journal]) -> None:
    lines = next(journal.journal for journal in journals if len(journal.journal) > 2)
    with pytest.raises(LogError):
        judge_lines([lines[0], *lines[2:]])
