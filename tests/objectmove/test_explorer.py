"""No interleaving up to the bound breaks a promise, and the explorer finds those that would.

Each mutant takes one fix away; the script beside it is the failure of MOVE.md that it brings back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from objectmove import bucket, ledger, move, planning
from objectmove.bucket import Answer, Request
from objectmove.ledger import Ledger
from objectmove.message import Reply
from objectmove.plan import save_plan
from objectmove.table import State

from .explore import (
    FATES_NEXT,
    FATES_NOW,
    SCENARIOS,
    Run,
    compare,
    list_tasks,
    load_start,
    main,
    parse_script,
    prepare_start,
    search,
    search_all,
    without_chance,
)
from .simulation import CHANGE_FATES, COPY_FATES, LOOK_FATES, Process, SimLog, World

Mutant = Callable[[], AbstractContextManager[object]]


@pytest.fixture(autouse=True)
def fixed_chance() -> Iterator[None]:
    with without_chance():
        yield
    prepare_start.cache_clear()


def run(scenario: str, script: str = "") -> list[str]:
    """Return what a run breaks."""
    return Run(SCENARIOS[scenario], parse_script(script)).execute().violations


# --- mutants ---


@contextmanager
def doubt_answers() -> Iterator[None]:
    """Believe no answer but a look at the destination, and plan again what is unproven."""
    take_copy = move._Mover._take_copy

    def doubt(self: Any, row: int, answer: Answer) -> None:
        take_copy(self, row, replace(answer, effect="unknown"))

    with (
        mock.patch.object(move._Mover, "_take_copy", doubt),
        mock.patch.object(ledger, "find_keys_in_doubt", return_value={}),
        mock.patch.object(planning, "find_keys_in_doubt", return_value={}),
    ):
        yield


@contextmanager
def forget_intents() -> Iterator[None]:
    """Take an announced copy without an answer for one that was never sent."""
    take = Ledger._take

    def forget(self: Any, entry: Any) -> None:
        if entry.kind in ("intent", "doubtful"):
            entry = entry._replace(data={**entry.data, "rows": []})
        take(self, entry)

    with mock.patch.object(Ledger, "_take", forget):
        yield


def withdraw(self: Any, rows: list[int]) -> None:
    """Delete sources; what answers 412 was rewritten, so its copy is withdrawn."""
    for row in rows:
        planned = self.plan.rows[row]
        request = Request("delete", planned.key, if_match=planned.etag)
        answer = self.session.send([request])[0]
        if answer.code == "NoAnswer":
            answer = self.session.send([request])[0]
        if answer.code == "PreconditionFailed":
            self.session.send([Request("delete", planned.to)])
            self.ledger.close(State.CONFLICT, [row])
        else:
            self.ledger.close(State.MOVED, [row])


@contextmanager
def hold_without_note(self: Any) -> Iterator[None]:
    """Pause the worker, and remember in memory alone to let it go on."""
    hold = self.hold
    if is_ours := not hold.is_paused():
        hold.pause()
    try:
        yield
    finally:
        if is_ours:
            hold.resume()


@contextmanager
def undo_the_deleted() -> Iterator[None]:
    """Take back only what left its source."""
    invert = planning._invert

    def invert_moved(bucket: Any, plan: Any, known: Any) -> Any:
        rows, excluded = invert(bucket, plan, known)
        moved = {plan.rows[place].to for place in known.rows(State.MOVED)}
        return [row for row in rows if row.key in moved], excluded

    with mock.patch.object(planning, "_invert", invert_moved):
        yield


@contextmanager
def read_before_lock() -> Iterator[None]:
    """Read the ledger when it is opened."""
    init, append = SimLog.__init__, SimLog.append

    def open_early(self: Any, process: Any, plan: str) -> None:
        init(self, process, plan)
        self.early = list(process.machine.folder.get_disk(plan).entries)

    def append_early(self: Any, kind: str, data: Any, *, sync: bool = True) -> Any:
        self.early.append(append(self, kind, data, sync=sync))
        return self.early[-1]

    with (
        mock.patch.object(SimLog, "__init__", open_early),
        mock.patch.object(SimLog, "append", append_early),
        mock.patch.object(SimLog, "read", lambda self: list(self.early)),
    ):
        yield


def overwrite() -> AbstractContextManager[object]:
    """Copy without a condition on the target."""
    make_copy = move._Mover._make_copy
    return mock.patch.object(
        move._Mover, "_make_copy", lambda self, row: replace(make_copy(self, row), if_absent=False)
    )


@contextmanager
def believe_every_404() -> Iterator[None]:
    """Take a 404 for the proof that a request had no effect."""
    read_answer = bucket.read_answer

    def read(request: Request, reply: Reply) -> Answer:
        answer = read_answer(request, reply)
        return replace(answer, effect="none") if reply.status == 404 else answer

    with mock.patch.object(bucket, "read_answer", read):
        yield


def accept_late() -> AbstractContextManager[object]:
    return mock.patch.object(World, "has_expired", return_value=False)


def ignore_record() -> AbstractContextManager[object]:
    return mock.patch.object(ledger, "read_record", return_value=None)


def withdraw_copies() -> AbstractContextManager[object]:
    return mock.patch.object(move._Mover, "_delete", withdraw)


def keep_no_note() -> AbstractContextManager[object]:
    return mock.patch.object(move._Mover, "_held", hold_without_note)


_LATE = "1<delete_many@pending/a=sleep 1<delete_many@pending/a#2=rewrite:a"
FAILURES: list[tuple[str, Mutant, str, str, str]] = [
    ("F1", doubt_answers, "polled-strict", "", "promise 2: a1 was put"),
    ("F1", doubt_answers, "polled-loose", "", "promise 2: a1 was put"),
    ("F2", forget_intents, "polled-strict", "1<landed@ledger=kill", "promise 2: a1 was put"),
    ("F2", forget_intents, "polled-loose", "1<landed@ledger=kill", "promise 2: a1 was put"),
    (
        "F3",
        withdraw_copies,
        "release-strict",
        "1.delete@pending/a=lost",
        "promise 1: a1 is nowhere",
    ),
    (
        "F3",
        withdraw_copies,
        "release-strict",
        "1<delete@pending/a=remove:a",
        "promise 1: a1 is nowhere",
    ),
    ("F4", accept_late, "release-loose", _LATE, "promise 3: 1 removed a"),
    ("F5", undo_the_deleted, "undo-half-strict", "", "promise 4: process 1 says complete"),
    (
        "F7",
        forget_intents,
        "release-strict",
        "1.copy@ready/a=lost 2<list@pending/=rewrite:a",
        "promise 4: pending/a is told as skipped",
    ),
    ("F8", keep_no_note, "release-strict", "1.pause=lost", "promise 5: the worker stays paused"),
    (
        "F8",
        keep_no_note,
        "release-strict",
        "1<delete@pending/a=kill",
        "promise 5: the worker stays",
    ),
    ("F12", overwrite, "release-strict", "1<copy@ready/a=foreign:a", "promise 3: 1 overwrote xa1"),
    (
        "parsing",
        believe_every_404,
        "polled-strict",
        "1.copy@ready/a=ghost",
        "promise 2: a1 was put",
    ),
    (
        "parsing",
        believe_every_404,
        "polled-strict",
        "1.copy@ready/a=router-after",
        "promise 2: a1 was put",
    ),
    (
        "record",
        ignore_record,
        "polled-strict",
        "1<delete@pending/a=kill-old",
        "promise 2: a1 was put",
    ),
]
_IDS = [f"{name}-{scenario}-{script or 'nothing'}" for name, _, scenario, script, _ in FAILURES]


@pytest.mark.parametrize(("_name", "mutant", "scenario", "script", "broken"), FAILURES, ids=_IDS)
def test_a_failure_of_the_first_version_is_found_and_is_gone(
    _name: str, mutant: Mutant, scenario: str, script: str, broken: str
) -> None:
    assert run(scenario, script) == []
    prepare_start.cache_clear()
    with mutant():
        violations = run(scenario, script)
    assert any(violation.startswith(broken) for violation in violations), violations


@pytest.mark.parametrize("point", ["put@state.json", "copy@ready/a", "delete@pending/a"])
def test_f14_a_ledger_that_was_read_before_its_lock_breaks_nothing(point: str) -> None:
    """The lock is tested beside; claim and record stand behind it, whatever was read."""
    with read_before_lock():
        assert run("polled-strict", f"1<{point}=kill 2<lock=op-same") == []


_UNANNOUNCED = "1<deleting@ledger=kill 2.done@ledger=fsync-kept 5<hold@ledger=kill"
_NOT_ON_DISK = "1<look@ready/a=foreign:a 1.done@ledger=fsync-kept 4<delete@state.json=kill"
#: What the explorer found in drafts of the mover itself.
FOUND = [
    # what a bare folder believed of the record was not written down
    ("polled-strict", "1<delete@pending/a=kill-bare 2<hold@ledger=kill"),
    ("polled-strict", "1<delete@pending/a=kill-old 2.put@state.json=late"),
    ("release-strict", "1<delete@pending/a=kill-bare 2<moved@ledger=kill"),
    # a resume did not ask what another plan had left in doubt
    ("polled-strict", "1<put@state.json=op-plan 2.copy@ready/a=lost"),
    # the worker stayed paused: killed before the approval; a release that was cut, then undone
    ("release-strict", "1<approved@ledger=kill"),
    ("undo-half-strict", ""),
    # a release was told as complete after its undo, and after a person's "not taken"
    ("undo-strict", "1<put@claim=op-parent"),
    ("not-taken-strict", "1<put@claim=op-parent"),
    # an old ledger told as skipped what another had moved
    ("release-strict", "1<delete@claim=kill-old"),
    # done, and shown as unfinished for ever
    ("release-strict", "1<delete@state.json=kill"),
    ("release-strict", "1.done@ledger=fsync-kept"),
    # the worker went on while a copy could still take effect
    ("polled-strict", "1.copy@ready/a=slow 1.doubtful@ledger=fsync-gone 2<lock=work:a"),
    # killed before it was on record, an undo could not be gone on with, nor its release
    ("undo-half-strict", "1<approved@ledger=foreign:a 1<put@plan.jsonl=kill-bare"),
    # an undo that announced nothing was never begun, after a power cut
    ("undo-half-loose", _UNANNOUNCED),
    # the record went, and then, in a power cut, the line that says that it is over
    ("undo-half-strict", _NOT_ON_DISK),
    # a record said for ever that the worker is paused, for a release that was taken back
    ("undo-half-strict", "1<put@state.json=op-parent 4.delete@state.json=refused"),
    # a process that woke up let the worker go on under another session
    ("release-strict", "1<delete@pending/a=op-bare 2<delete@pending/a=yield"),
]


@pytest.mark.parametrize(("scenario", "script"), FOUND)
def test_what_the_explorer_found_is_gone(scenario: str, script: str) -> None:
    assert run(scenario, script) == []


@pytest.mark.parametrize("scenario", ["release-loose", "undo-loose"])
def test_no_copy_follows_a_look_that_is_too_old(scenario: str) -> None:
    """The record came between: what somebody put there meanwhile was overwritten."""
    script = "1<put@state.json#2=op-bare 2.put@claim=late"
    outcome = Run(SCENARIOS[scenario], parse_script(script)).execute()
    assert not outcome.violations
    assert any("looked at too long ago: nothing was sent" in line for line in outcome.log)


def test_an_undo_that_has_begun_is_not_planned_anew(tmp_path: Path) -> None:
    """F10: planning it again overwrote it, and a late resume opened its window again."""
    start = load_start(SCENARIOS["undo-strict"])
    release = start.plans[start.plan.header.parent]
    release = replace(release, path=tmp_path / release.path.name)
    process = Process(start.world, Run(SCENARIOS["undo-strict"], start=start), start.machine, "")
    how: dict[str, Any] = {"logs": process.logs, "made_by": "test", "others": "", "window_s": 900}

    def plan_undo() -> Any:
        undo = planning.make_undo_plan(process.bucket, release, now=process.clock.now(), **how)
        save_plan(undo)
        return undo

    first = plan_undo()
    process.logs(first.id).append("approved", {"sha256": first.sha256, "by": "test"})
    start.world.advance(60_000)
    assert plan_undo().sha256 == first.sha256


def test_naive_and_reduced_search_agree_on_what_is_broken() -> None:
    for mutant, scenario in ((forget_intents, "polled-strict"), (keep_no_note, "release-loose")):
        prepare_start.cache_clear()
        with mutant():
            naive, reduced = compare(SCENARIOS[scenario], 1)
        assert naive == reduced != set()


def test_the_fates_that_come_next_are_all_that_there_are() -> None:
    assert set(FATES_NEXT.changes) == set(CHANGE_FATES)
    assert set(FATES_NEXT.copies) == set(COPY_FATES)
    assert set(FATES_NEXT.looks) == set(FATES_NEXT.naive_looks) == set(LOOK_FATES)
    for now, coming in zip(FATES_NOW, FATES_NEXT, strict=True):
        assert set(now) <= set(coming)


@pytest.mark.parametrize("scenario", ["polled-versioned", "three-loose"])
def test_the_fates_that_come_next_can_be_searched(scenario: str) -> None:
    few = search(SCENARIOS[scenario], 1, fates=FATES_NOW)
    more = search(SCENARIOS[scenario], 1, fates=FATES_NEXT)
    assert few.runs < more.runs


@pytest.mark.parametrize("event", ["read-late:a", "take-version:a", "copy-folder"])
def test_what_happens_beside_can_be_named(event: str) -> None:
    assert run("release-versioned", f"1<delete@pending/a={event}") == []


def test_a_copied_folder_can_be_resumed_beside_the_first() -> None:
    script = "1<landed@ledger=copy-folder 1<delete@pending/a=op-copied"
    outcome = Run(SCENARIOS["release-strict"], parse_script(script)).execute()
    assert not outcome.violations
    assert any("2 on copied" in line for line in outcome.log)


def test_a_run_is_determined_by_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--scenario", "two-loose", "--choices", "1<intent@ledger#2=kill 2.copy@ready/b=late"]
    texts = []
    for _ in range(2):
        assert main(line) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


def test_a_script_that_names_what_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="never came to"):
        run("release-strict", "7.copy@ready/a=lost")
    with pytest.raises(ValueError, match="offers"):
        run("release-strict", "1.copy@ready/a=loost")


@pytest.mark.timeout(900)
def test_no_interleaving_of_the_small_bound_breaks_a_promise() -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    founds = list(search_all(list_tasks(is_full=False, seed=seed, count=0)))
    text = "\n".join(found.render() for found in founds)
    print(f"{text}\n{sum(found.runs for found in founds)} executions")
    assert not any(found.failing for found in founds), text
