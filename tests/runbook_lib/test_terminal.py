"""A terminal at night: the answer and the next command first, 80 columns, lines to paste."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from runbook_lib.errors import ExitCode
from runbook_lib.model import CauseStatus, Finding, Observed, Status, Verdict
from runbook_lib.run.documents import (
    Document,
    print_document,
)
from tests.support.golden import expect_golden

AT = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
SHA256 = "9d5ed678fe57bcca610140957afab571" * 2
APPLY = f"runbook apply rel-20261124T040000Z-51c0 --approve {SHA256}"
HEAD: dict[str, Any] = {"schema": "x", "at": AT, "incident": "inc-20261124T040000Z-51c0"}


def tell(**fields: Any) -> Document:
    return Document.model_validate({**HEAD, "plan": "rel-1", **fields})


PLAN = tell(
    plan="rel-20261124T040000Z-51c0",
    answer="Planned, nothing was changed: 74 objects, 4.6 MiB",
    status="planned",
    sha256=SHA256,
    objects=74,
    bytes=4_812_800,
    expires_at="2026-11-24T04:15:00Z",
    excluded={"incomplete": 2},
    path="/somewhere/" + "deep/" * 20 + "plan.jsonl",
    apply=APPLY,
    rows=({"key": "pending/" + "4" * 90, "to": "ready/" + "4" * 90},),
)


def show(document: Document) -> list[str]:
    out = io.StringIO()
    print_document(document, Console(file=out, width=80))
    return out.getvalue().splitlines()


def observe(step: str, status: Status) -> Observed:
    return Observed(
        step=step, name="lag", status=status, observed_at=AT, source="x", reason="it is so"
    )


INVESTIGATED = Document(
    **HEAD,
    verdict=Verdict.INCIDENT,
    exit_code=ExitCode.NOT_OK,
    readings=(observe("2.1", Status.BREACH), observe("3.3", Status.OK)),
    causes=(
        Finding(
            name="worker_stopped",
            status=CauseStatus.SUPPORTED,
            reason="the worker's service does not run",
            evidence=("#143",),
        ),
    ),
    notebooks=(),
    report="/somewhere/report.html",
    since=AT - timedelta(minutes=10),
    answer="Incident since 03:50:00Z. worker_stopped: the worker's service does not run",
    affected="3 orders",
    advice=("1. 6.2 start the worker", "2. 6.1 re-trigger it"),
    commands=("runbook fix",),
)
APPLIED = tell(
    exit_code=ExitCode.NOT_OK,
    answer="NOT ALL DONE: 70 moved; 4 waiting",
    moved=70,
    already=0,
    conflicts=0,
    failed=0,
    waiting=4,
    commands=("runbook resume rel-1",),
)
PROOF = tell(
    exit_code=ExitCode.NOT_OK,
    answer="Not proven: 1 unproven, 70 in place, 3 gone after landed",
    in_place=70,
    gone_after_landed=3,
    unproven=1,
    lost=0,
    taken_back_by="",
)


def test_what_the_terminal_shows_is_on_the_page() -> None:
    pages = {
        "investigate": INVESTIGATED,
        "plan": PLAN,
        "apply, not all done": APPLIED,
        "verify, not proven": PROOF,
    }
    lines: list[str] = []
    for name, document in pages.items():
        lines += [f"# {name}", *show(document), ""]
    expect_golden("runbook_lib/terminal.txt", "\n".join(lines))
