"""The gate and the cards: nothing is approved before somebody types the hash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fulfillment.change.release import MOVE
from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib import show
from runbook_lib.approvals import Plan
from runbook_lib.model import ActionEntry, ActionPhase
from runbook_lib.show.display import describe
from tests.support.golden import expect_golden
from tests.support.incidents import START, make_incident, tell_incident

DETECTION = SECTIONS["02_signals_detection"]


@dataclass
class Row:
    """One of the objects of a release."""

    number: int

    def to_json(self) -> dict[str, Any]:
        key, size = f"pending/{self.number:04d}.pdf", 450 - self.number
        return {"key": key, "order_id": "", "size_bytes": size}


#: A release of many objects.
PLAN = Plan(
    kind=MOVE,
    path=Path("plans/rel-1.jsonl"),
    sha256="9d5ed678" + "0" * 56,
    expires_at=datetime(2026, 11, 24, tzinfo=UTC),
    summary={"objects": 450, "bytes": 2048, "excluded": {"synthetic": 3}},
    step="6.1",
    action="release",
    target="many objects",
    content=None,
    rows=[Row(number) for number in range(450)],
    way_back="runbook undo rel-1",
)


def test_only_the_typed_hash_approves_and_other_approvals_stay() -> None:
    names: dict[str, Any] = {"approve": "a" * 64}
    asked = show.confirm(PLAN, names)
    short = PLAN.sha256[:12]
    for wrong in ("", short[:11], f"{short[:11]}g", PLAN.sha256):
        asked.field.value = wrong
        asked.button.click()
        assert names["approve"] == "a" * 64
    asked.field.value = f" {short.upper()} "
    asked.button.click()
    asked.button.click()
    assert names["approve"] == f"{'a' * 64},{PLAN.sha256}"


def test_an_empty_plan_shows_nothing_to_approve() -> None:
    assert len(show.confirm(PLAN, {}).children) == 2
    assert len(show.confirm(replace(PLAN, is_empty=True), {}).children) == 1


def test_where_no_widgets_are_shown_a_card_is() -> None:
    bundle = show.confirm(PLAN, {})._repr_mimebundle_()
    assert "plans/rel-1.jsonl" in bundle["text/html"]
    assert "pending/0009.pdf" in bundle["text/html"]
    assert "pending/0010.pdf" not in bundle["text/html"]
    assert "release on many objects" in bundle["text/plain"]


def test_one_table_says_what_each_plan_is_how_much_its_hash_and_where_it_stands(
    tmp_path: Path,
) -> None:
    incident = make_incident(tmp_path).incident
    inv = Investigation(incident, section=DETECTION, settings=Settings())
    done = replace(PLAN, path=Path("plans/rel-2.jsonl"), sha256="ab" * 32)
    empty = replace(
        PLAN, path=Path("plans/syn-1.jsonl"), is_empty=True, step="6.3", summary={"reason": "none"}
    )
    for plan in (empty, PLAN, done):
        told = {**plan.summary, "is_empty": plan.is_empty}
        entry = plan.make_entry(ActionPhase.PLANNED, result=told)
        inv.record("action", {"action": entry.model_dump(mode="json")})
    for phase in (ActionPhase.APPLIED, ActionPhase.VERIFIED):
        entry = done.make_entry(phase)
        inv.record("action", {"action": entry.model_dump(mode="json")})
    plans = inv.read_plans()

    assert list(plans["status"]) == ["planned", "verified"]
    assert plans["how_many"][0] == "450 files, 2.0 KiB"
    assert list(plans["hash"]) == [PLAN.sha256[:12], "ab" * 6]


@pytest.mark.parametrize(
    ("until", "notebook"), [("plan", "06_remediation"), ("end", "07_postmortem")]
)
def test_an_investigation_leads_to_the_section_that_comes_next(
    tmp_path: Path, until: str, notebook: str
) -> None:
    tell = tell_incident(tmp_path, until=until)
    inv = Investigation(tell.incident, section=DETECTION, settings=Settings(), now=lambda: START)
    card = describe(inv)

    assert f'href="{notebook}.ipynb"' in card.to_html()
    assert tell.incident.id in card.to_text()


RESTART = ActionEntry(step="6.2", action="restart", phase=ActionPhase.PLANNED, target="x")


def test_the_words_of_the_cards_are_on_the_page() -> None:
    lines = ["# a plan", describe(PLAN).to_text()]
    for phase in ActionPhase:
        entry = PLAN.make_entry(phase, reason="450 moved", result={"n": 1})
        lines += [f"# {phase}", describe(entry).to_text()]
    lines += ["# no way back", describe(RESTART).to_text()]
    expect_golden("runbook_lib/cards.txt", "\n".join(lines))
