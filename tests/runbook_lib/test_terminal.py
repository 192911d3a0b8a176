"""A terminal at night: the answer and the next command first, 80 columns, lines to paste."""

from __future__ import annotations

import io
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runbook_lib.errors import ExitCode
from runbook_lib.model import CauseStatus, Finding, Observed, Status, Verdict
from runbook_lib.run.documents import (
    Document,
    SectionsDocument,
    print_document,
)
from runbook_lib.run.move_commands import MovePlanDocument, MoveProofDocument, MoveRunDocument
from tests.support.golden import expect_golden
from tests.support.stories import tell_incident

AT = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
SHA256 = "9d5ed678fe57bcca610140957afab571" * 2
APPLY = f"runbook apply rel-20261124T040000Z-51c0 --approve {SHA256}"
HEAD: dict[str, Any] = {"schema": "x", "at": AT, "incident": "inc-20261124T040000Z-51c0"}
PLAN = MovePlanDocument(
    **HEAD,
    exit_code=ExitCode.OK,
    plan="rel-20261124T040000Z-51c0",
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


def pasted(lines: list[str]) -> list[list[str]]:
    """Return what a shell makes of the lines that are to be pasted."""
    text = "\n".join(lines).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("runbook ")]


def observe(step: str, status: Status) -> Observed:
    return Observed(
        step=step, name="lag", status=status, observed_at=AT, source="x", reason="it is so"
    )


INVESTIGATED = SectionsDocument(
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
    affected="3 orders",
    advice=("1. 6.2 start the worker", "2. 6.1 re-trigger it"),
    next="runbook run 06",
)
EMPTY = PLAN.model_copy(
    update={"apply": "", "objects": 0, "rows": (), "reason": "all are incomplete"}
)
APPLIED = MoveRunDocument(
    **HEAD,
    exit_code=ExitCode.NOT_OK,
    plan="rel-1",
    summary="70 moved; 4 waiting; go on with: runbook resume rel-1",
    moved=70,
    already=0,
    conflicts=0,
    failed=0,
    waiting=4,
    way_on=("runbook resume rel-1",),
)
DONE = APPLIED.model_copy(
    update={"exit_code": ExitCode.OK, "way_on": (), "waiting": 0, "summary": "74 moved"}
)
HELD = MoveRunDocument(
    **HEAD,
    exit_code=ExitCode.NOT_OK,
    plan="rel-1",
    summary="70 moved; 2 unproven; 1 skipped; go on with: runbook settle rel-1",
    moved=70,
    skipped=1,
    reasons=({"key": "pending/3.pdf", "reason": "its writer replaced it"},),
    unproven=("pending/1.pdf", "pending/2.pdf"),
    way_on=("runbook settle rel-1", "runbook resume rel-1 --resume-worker"),
)
PROOF = MoveProofDocument(
    **HEAD,
    exit_code=ExitCode.NOT_OK,
    plan="rel-1",
    summary="not proven: 1 unproven, 70 in place, 3 gone after landed",
    waiting=0,
    changed_by_others=0,
    lost=0,
    foreign_changed=0,
    in_place=70,
    duplicated=0,
    gone_after_landed=3,
    unproven=1,
    skipped=0,
    taken_back=0,
    taken_back_by="",
    settled_by_word=0,
)


def test_what_the_terminal_shows_is_on_the_page() -> None:
    pages = {
        "investigate": INVESTIGATED,
        "plan": PLAN,
        "plan of nothing": EMPTY,
        "apply, not all done": APPLIED,
        "apply": DONE,
        "resume, some in doubt": HELD,
        "verify, not proven": PROOF,
    }
    lines: list[str] = []
    for name, document in pages.items():
        lines += [f"# {name}", *show(document), ""]
    expect_golden("runbook_lib/terminal.txt", "\n".join(lines))


@pytest.mark.process
def test_run_06_ends_with_a_line_to_paste_for_each_plan_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = tell_incident(tmp_path, monkeypatch).documents
    stopped, done = [d for d in documents if d.schema_name == "runbook/run/1"][:2]
    lines = show(stopped)

    assert stopped.exit_code == 5
    assert "stopped at plan" in " ".join(" ".join(lines).split())
    commands = pasted(lines)
    assert [c[:3] for c in commands] == [["runbook", "run", "06"]] * 3
    approvals = [re.sub(r".*=", "", c[-1]) for c in commands]
    assert all(re.fullmatch(r"[0-9a-f]{12}", sha256) for sha256 in approvals)
    assert lines[-1].endswith(f"-p approve={approvals[-1]}")
    # What was carried out is not offered again.
    assert [c[:3] for c in pasted(show(done))] == [["runbook", "run", "07"]]
