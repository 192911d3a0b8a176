"""The verdict table: one rule for each cell, no broken promise, and a wrong cell is caught."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import product
from pathlib import Path

import pytest

from fulfillment.outcome import (
    NOW_TABLE,
    TABLES,
    VERDICT_TABLE,
    WAY_TABLE,
    Actions,
    Backlog,
    Before,
    Causes,
    Clear,
    Needed,
    Now,
    NowRule,
    Return,
    Situation,
    Tables,
    Uploads,
    VerdictRule,
    Way,
    WayRule,
    Worker,
    list_cells,
)
from runbook_lib.model import AlertState
from tests.support.verdict_promises import list_broken, list_refused

DOCS = Path(__file__).parents[2] / "docs" / "verdict-table.md"
COLUMNS: dict[str, tuple[type[StrEnum], ...]] = {
    "now": (Needed, AlertState, AlertState, Uploads, Backlog),
    "verdict": (Now, Causes, Actions, Before, Clear),
    "way": (Way, Worker, Return),
}
RULES: dict[str, Sequence[NowRule] | Sequence[VerdictRule] | Sequence[WayRule]] = {
    "now": TABLES.now_rules,
    "verdict": TABLES.verdict_rules,
    "way": TABLES.way_rules,
}


@pytest.mark.parametrize("table", list(RULES))
def test_each_cell_has_exactly_one_rule(table: str) -> None:
    columns = COLUMNS[table]
    found = Counter(
        cell for rule in RULES[table] for cell in list_cells(rule[: len(columns)], columns)
    )
    assert set(found) == set(product(*columns))
    assert set(found.values()) == {1}
    assert all(rule.reason for rule in RULES[table])


def list_situations() -> Iterator[Situation]:
    """Yield every combination of what goes into the table."""
    values = product(
        Needed, AlertState, AlertState, Uploads, Backlog, Causes, Actions, Before, Clear
    )
    return (Situation(*combination) for combination in values)


def find_broken(tables: Tables) -> Iterator[str]:
    """Yield each promise that the tables break, over all combinations."""
    for wanted, worker, returns in product(Way, Worker, Return):
        way = tables.choose_way(wanted, worker, returns).way
        yield from list_refused(wanted, worker, returns, way)
    for situation in list_situations():
        yield from list_broken(situation, tables.decide(situation))


def test_no_combination_breaks_a_promise() -> None:
    assert Counter(find_broken(TABLES)) == Counter()


#: A line of a table, and what somebody might have written instead.
SEEDED = {
    "healthy beside a breach": (
        "not-breach any any not-failing overdue TROUBLE",
        "not-breach any any not-failing overdue WELL",
    ),
    "healthy by what is stale": (
        "unknown+stale not-firing not-firing not-failing not-overdue UNREAD",
        "unknown+stale not-firing not-firing not-failing not-overdue WELL",
    ),
    "recovered because nothing can be uploaded": (
        "not-breach any any failing any TROUBLE",
        "not-breach any any failing any WELL",
    ),
    "recovered because no label exists": (
        "ok not-firing not-firing none not-overdue SILENT",
        "ok not-firing not-firing none not-overdue WELL",
    ),
    "mitigated while the alert fires": (
        "alert supported proven+unproven any any NOT_FIXED REPAIR no no",
        "alert supported proven+unproven any any MITIGATED REPAIR yes no",
    ),
    "decaying for ever": (
        "alert gone proven+unproven any past NOT_FIXED DIAGNOSE no no",
        "alert gone proven+unproven any past FIXED_ALERT_DECAYING WAIT no no",
    ),
    "healthy since the trouble began": (
        "well gone none cause+trouble any FIXED LEARN yes yes",
        "well gone none cause+trouble any HEALTHY REFERENCES no no",
    ),
    "fixed, and a repair to paste": (
        "well gone proven any any FIXED LEARN yes yes",
        "well gone proven any any FIXED REPAIR yes yes",
    ),
    "closed while its cause stands": (
        "well supported proven+unproven any any MITIGATED REPAIR yes no",
        "well supported proven+unproven any any MITIGATED REPAIR yes yes",
    ),
    "a paused worker is re-triggered": (
        "retrigger paused stays RELEASE",
        "retrigger paused stays RETRIGGER",
    ),
    "a worker that is not there is re-triggered": (
        "retrigger absent any RELEASE",
        "retrigger absent any RETRIGGER",
    ),
    "fixed with labels of which nobody knows": (
        "well gone unproven any any UNKNOWN VERIFY no no",
        "well gone unproven any any FIXED LEARN yes yes",
    ),
    "a cut-off release is forgotten": (
        "above any unfinished any any NOT_FIXED RESUME no no",
        "above any unfinished any any NOT_FIXED MEASURE no no",
    ),
}


@pytest.mark.parametrize(("right", "wrong"), SEEDED.values(), ids=SEEDED)
def test_a_wrong_cell_is_caught(right: str, wrong: str) -> None:
    texts = (NOW_TABLE, VERDICT_TABLE, WAY_TABLE)
    assert sum(text.count(right) for text in texts) == 1
    seeded = Tables(*(text.replace(right, wrong) for text in texts))
    assert next(find_broken(seeded), "")


def test_a_cause_that_is_gone_is_not_called_unknown() -> None:
    gone = [rule for rule in TABLES.verdict_rules if "gone" in rule.causes.split("+")]
    assert gone
    assert not [rule for rule in gone if "no cause is known" in rule.reason]


def print_table(names: Sequence[str], rules: Sequence[Sequence[str]]) -> str:
    """Return a table of a page."""
    lines = [f"| {' | '.join(row)} |" for row in (names, *rules)]
    return "\n".join([lines[0], f"|{'---|' * len(names)}", *lines[1:]])


def test_the_docs_show_the_tables_of_the_code() -> None:
    """WRITE_TABLE=1 prints them anew."""
    tables = {
        "now": (NowRule._fields, TABLES.now_rules),
        "verdict": (VerdictRule._fields, TABLES.verdict_rules),
        "way": (WayRule._fields, TABLES.way_rules),
    }
    text = DOCS.read_text("utf-8")
    for name, (fields, rules) in tables.items():
        table = print_table(fields, rules)
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if "WRITE_TABLE" in os.environ:
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            text = f"{before}{begin}{table}{end}{after}"
            DOCS.write_text(text, "utf-8")
        assert f"{begin}{table}{end}" in text
