"""A person who pastes what is printed and nothing else, and somebody who counts independently.

``follow`` is the heart: it executes the printed commands until none is left that needs no decision.
A printed command that is refused fails, and so does one that is printed twice without progress.
``Tally`` is a consumer that takes when it is told to, and counts by the hash of each body.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.commands import Lane, Operator, Outcome, Running
from tests.support.audit import Label
from tests.support.gateway import wait_until
from tests.support.lossy_proxy import Spoil, Trap

STANDS_STILL = "--consumer-stands-still"
RESUME_WORKER = "--resume-worker"
#: What a proxy sees of a request that changes something but a claim or a probe's object.
CHANGES = ("copy", "delete", "bulk", "record")
PLACES = ("pending/", "ready/", "parked/")
MOST_AT_ONCE = 32
_MOST_COMMANDS = 15
_FENCE_S = 3.0
_OPEN = ("waiting", "failed", "unproven", "conflicts", "left")
_NO_WAY_ON = ("verify", "plan", "check", "investigate", "report", "note")
_COMMAND = re.compile(
    r"runbook (?:apply|resume|undo|settle) [A-Za-z0-9][\w.#-]*"
    r"(?: --(?:approve|from-file) (?:'[^']*'|\"[^\"]*\"|[^\s;,`]+)| --[a-z][a-z-]*(?:=[^\s;,`]+)?)*"
)


def read_printed(outcome: Outcome) -> list[str]:
    document = outcome.document
    if document.get("apply"):
        return [document["apply"]]
    if document.get("way_on"):
        return list(document["way_on"])
    return find_commands(str(document.get("error", "")) or outcome.errors)


def find_commands(text: str) -> list[str]:
    return [found.rstrip(".:)") for found in _COMMAND.findall(text.replace("\\\n", " "))]


def list_unfinished(operator: Operator) -> list[dict[str, Any]]:
    check = operator.run("check")
    assert "unfinished" in check.document, "check says nothing of unfinished releases"
    return list(check.document["unfinished"])


def read_after_a_kill(operator: Operator) -> list[str]:
    """Return the commands that this machine prints after a command that said nothing at its end."""
    check = operator.run("check").document
    printed = [row["way_on"] for row in check.get("unfinished", [])]
    if not printed:
        printed = list(operator.run("plan").document.get("way_on", []))
    return [command for text in printed for command in find_commands(text)]


def pick(printed: Sequence[str], *, words: Collection[str]) -> str:
    """Return the first printed command that a person may paste without deciding anything.

    ``words`` may be said truthfully, such as ``--consumer-stands-still``.
    """
    for command in printed:
        parts = shlex.split(command.replace("\\\n", " "))
        assert parts[0] == "runbook", f"not a command: {command}"
        if parts[1] in _NO_WAY_ON:
            continue
        if parts[1] == "settle" and "--approve" not in parts:
            continue  # a person decides
        said = {STANDS_STILL, RESUME_WORKER} & {part.partition("=")[0] for part in parts}
        if said <= set(words):
            return command
    return ""


def start_printed(operator: Operator, command: str) -> Running:
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "runbook", f"not a command: {command}"
    return operator.start(*words)


def paste(operator: Operator, command: str) -> Outcome:
    return start_printed(operator, command).wait()


def is_refused(outcome: Outcome) -> bool:
    """Tell whether a command was refused; a plan that waits for its approval is none."""
    return outcome.code == 2 or (outcome.code == 5 and not outcome.document.get("apply"))


def count_open(outcome: Outcome) -> int:
    """Return how many rows an outcome leaves open; of one without a document very many."""
    if not any(name in outcome.document for name in _OPEN):
        return 1 << 30
    return sum(outcome.get(name) for name in _OPEN)


def follow(
    operator: Operator, outcome: Outcome, *, words: Collection[str] = (STANDS_STILL,)
) -> Outcome:
    """Execute only the printed commands until none is left but what a person must decide.

    Fails when a printed command is refused, when one is printed again although it made no progress
    (fewer open rows, or once a fence that passed), or when there is no end.
    """
    printed = list[str]()
    if outcome.code != 0:
        printed = read_printed(outcome) or read_after_a_kill(operator)
    waited: set[str] = set()
    for _ in range(_MOST_COMMANDS):
        command = pick(printed, words=words)
        if not command:
            return outcome
        before = count_open(outcome)
        began = time.monotonic()
        outcome = paste(operator, command)
        took_s = time.monotonic() - began
        print(f"pasted: {command} → exit {outcome.code}, {took_s:.1f} s")
        assert not is_refused(outcome), f"a printed command is refused: {command}\n{tell(outcome)}"
        printed = read_printed(outcome)
        is_again = pick(printed, words=words) == command
        if is_again and count_open(outcome) >= before:
            is_fence = took_s >= _FENCE_S and command not in waited
            assert is_fence, f"printed again without progress: {command}\n{tell(outcome)}"
            waited.add(command)
    raise AssertionError(f"no end after {_MOST_COMMANDS} printed commands: {tell(outcome)}")


def tell(outcome: Outcome) -> str:
    shown = str(outcome.document.get("error", "")) or outcome.errors or str(outcome.document)
    return f"runbook {' '.join(outcome.words)}: exit {outcome.code}\n{shown[:1500]}"


def approve(operator: Operator, *words: str) -> str:
    shown = operator.run(*words)
    assert shown.code == 5, tell(shown)
    assert shown.document.get("apply"), f"nothing to paste: {tell(shown)}"
    return str(shown.document["apply"])


def plan_release(operator: Operator, labels: int) -> Outcome:
    plan = operator.run("plan")
    assert plan.code == 0, tell(plan)
    assert plan.document["objects"] == labels, tell(plan)
    return plan


def put_and_plan(
    lane: Lane, seed: int, labels: int, *, worker: bool = False
) -> tuple[list[Label], Operator, Outcome]:
    put = lane.shelf.put_labels(labels, random.Random(seed))
    ann = lane.hire("ann", worker=worker)
    return put, ann, plan_release(ann, labels)


def release(operator: Operator, labels: int) -> Outcome:
    plan = plan_release(operator, labels)
    applied = paste(operator, plan.document["apply"])
    assert applied.code == 0, tell(applied)
    return plan


def kill_at(lane: Lane, running: Running, kinds: tuple[str, ...], number: int, phase: str) -> None:
    lane.proxy.traps.append(Trap(kinds, number, phase, running.process.kill))


def kill(
    lane: Lane, operator: Operator, command: str, kinds: tuple[str, ...], number: int, *, phase: str
) -> Outcome:
    running = start_printed(operator, command)
    kill_at(lane, running, kinds, number, phase)
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    return killed


def spoil_after(lane: Lane, kind: str, number: int, *spoils: Spoil) -> Trap:
    trap = Trap((kind,), number, "after", lambda: lane.proxy.spoils.extend(spoils))
    lane.proxy.traps.append(trap)
    return trap


def settle_truthfully(operator: Operator, plan_id: str, taken: Collection[str]) -> None:
    """Say of each label in doubt whether it is one of those that a consumer took."""
    open_keys = [row["key"] for row in operator.run("settle", plan_id).document["rows"]]
    words = answer(open_keys, {key for key in open_keys if key.partition("/")[2] in taken})
    if words:
        settled = paste(operator, approve(operator, "settle", plan_id, *words))
        assert settled.code == 0, tell(settled)
    left = operator.run("settle", plan_id)
    assert left.code == 0, tell(left)


def answer(open_keys: Sequence[str], taken: Collection[str]) -> list[str]:
    words = list[str]()
    for word, is_wanted in (("--taken", True), ("--not-taken", False)):
        keys = [key for key in open_keys if (key in taken) == is_wanted]
        words += [word, *keys] if keys else []
    return words


def put_foreign(lane: Lane, key: str, body: bytes) -> Label:
    """Put an object as a writer or another system does; return it as a label of its own."""
    shown = {"content-type": "application/pdf"}
    lane.shelf._put(key, body, shown, {})
    return Label(key.partition("/")[2], hashlib.sha256(body).hexdigest(), shown, {})


class Tally:
    def __init__(self, lane: Lane) -> None:
        self._shelf = lane.shelf
        self.shipped: Counter[str] = Counter()

    def take(self, *names: str) -> int:
        keys = [f"ready/{name}" for name in names] or self._shelf.list_keys("ready/")
        for key in keys:
            self.take_key(key)
        return len(keys)

    def take_key(self, key: str) -> None:
        response = self._shelf.client.get_object(self._shelf.bucket, key)
        with response:
            body = response.read()
        self.shipped[hashlib.sha256(body).hexdigest()] += 1
        self._shelf.client.remove_object(self._shelf.bucket, key)

    def names(self, labels: Sequence[Label]) -> set[str]:
        return {label.name for label in labels if self.shipped[label.sha256]}

    @contextmanager
    def drain(self, *, every_s: float) -> Iterator[None]:
        """Take one label after the other, each read first and deleted a while later."""
        end = threading.Event()
        client, bucket = self._shelf.client, self._shelf.bucket

        def work() -> None:
            while not end.is_set():
                for key in self._shelf.list_keys("ready/")[:1]:
                    with client.get_object(bucket, key) as response:
                        body = response.read()
                    self.shipped[hashlib.sha256(body).hexdigest()] += 1
                    end.wait(every_s)
                    client.remove_object(bucket, key)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join(timeout=30)


def where_are(lane: Lane, labels: Sequence[Label]) -> dict[str, set[str]]:
    wait_until(lambda: lane.proxy.is_idle, what="the last late request")
    found = lane.shelf.read_places(*PLACES)
    by_place: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        for place in found.get(label.sha256, []):
            by_place[next(name for name in PLACES if place.key.startswith(name))].add(label.name)
    return by_place


def remove_memory(lane: Lane) -> None:
    """Remove the bucket's memory, as a lifecycle rule or a tidy colleague does."""
    for key in lane.shelf.list_keys(".runbook/"):
        lane.shelf.client.remove_object(lane.shelf.bucket, key)


def expect_nothing_twice(lane: Lane, labels: Sequence[Label], tally: Tally) -> None:
    places = where_are(lane, labels)
    names = {label.name for label in labels}
    twice = {label.name for label in labels if tally.shipped[label.sha256] > 1}
    shipped = tally.names(labels)
    assert not twice, f"{len(twice)} shipped twice"
    assert not shipped & places["ready/"], "shipped, and there to be shipped again"
    lost = names - shipped - set().union(*places.values())
    assert not lost, f"{len(lost)} are nowhere"


def expect_home(lane: Lane, labels: Sequence[Label]) -> None:
    places = where_are(lane, labels)
    names = {label.name for label in labels}
    stuck = names - places["pending/"]
    assert not stuck, f"{len(stuck)} of {len(names)} are not back in pending/"
    for place in PLACES[1:]:
        assert not places[place], f"{len(places[place])} are in {place}, too"


def expect_finished(lane: Lane, operator: Operator) -> None:
    waiting = {key for key in lane.shelf.list_keys("pending/") if key.lower().endswith(".pdf")}
    plan = operator.run("plan")
    assert plan.code in (0, 3), tell(plan)
    lines = Path(plan.document["path"]).read_text("utf-8").splitlines()
    offered = {key for line in lines if (key := json.loads(line).get("key"))}
    assert offered == waiting, f"{len(offered)} are offered, {len(waiting)} wait: {tell(plan)}"
    assert not lane.worker.is_paused, "the worker was left paused"
    unfinished = list_unfinished(operator)
    assert not unfinished, unfinished


def ship_the_rest(lane: Lane, labels: Sequence[Label], tally: Tally) -> None:
    """Have a stranger release what still waits, and a consumer take it; each ships exactly once."""
    carol = lane.hire("carol")
    expect_finished(lane, carol)
    tally.take()
    waiting = where_are(lane, labels)["pending/"]
    if waiting:
        release(carol, len(waiting))
    tally.take()
    expect_nothing_twice(lane, labels, tally)
    missing = {label.name for label in labels} - tally.names(labels)
    assert not missing, f"{len(missing)} never shipped"
