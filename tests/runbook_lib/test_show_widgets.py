"""The gate and the cards: nothing is approved before somebody types the hash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fulfillment.change.release import MOVE
from runbook_lib import show
from runbook_lib.approvals import Plan
from runbook_lib.model import ActionEntry, ActionPhase
from runbook_lib.show.display import describe
from tests.support.golden import expect_golden


@dataclass
class Row:
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


RESTART = ActionEntry(step="6.2", action="restart", phase=ActionPhase.PLANNED, target="x")


def test_the_words_of_the_cards_are_on_the_page() -> None:
    lines = ["# a plan", describe(PLAN).to_text()]
    for phase in ActionPhase:
        entry = PLAN.make_entry(phase, reason="450 moved", result={"n": 1})
        lines += [f"# {phase}", describe(entry).to_text()]
    lines += ["# no way back", describe(RESTART).to_text()]
    expect_golden("runbook_lib/cards.txt", "\n".join(lines))
