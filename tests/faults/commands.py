"""Operators who work with the ``runbook`` command alone: whole processes, settings by environment.

``run_many`` lets them release labels in many small rounds while processes are killed and paused,
answers get lost and consumers take what comes, and counts what became of every label.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.audit import Counted, Label, Shelf, Totals, count
from tests.support.consumers import Consumers, run_consumers
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, wait_until
from tests.support.lossy_proxy import FATES, LossyProxy, Spoil, Trap, run_lossy_proxy
from tests.support.network import Act, Received, answer_json, run_server

COMMAND = (str(Path(sys.executable).with_name("runbook")),)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
LEASE_S = 8.0
_ROOT = Path(__file__).parents[2]
_ENDS_S = 90.0
#: On a busy machine so many commands are given their time before a release counts as endless.
_LEAST_ATTEMPTS = 40
_TIMING = {
    "RELEASE_LEASE_S": f"{LEASE_S:g}",
    "RELEASE_EFFECT_S": "1",
    "RELEASE_CLOCK_SPREAD_S": "1",
    "HTTP_TIMEOUT_S": "2",
}
_NOBODY = [
    f"{name}_URL"
    for name in ("PROMETHEUS", "ALERTMANAGER", "GRAFANA", "SUPPORT", "FULFILLMENT", "PIPELINE")
]
_NOBODY += ["PROBE_URL", "NOTIFICATIONS_URL"]


@dataclass(frozen=True)
class Outcome:
    """How one command ended: ``code`` is negative when a signal ended it."""

    words: tuple[str, ...]
    code: int
    document: dict[str, Any]
    errors: str

    def get(self, name: str) -> int:
        value = self.document.get(name, 0)
        return value if isinstance(value, int) else len(value)

    @property
    def approval(self) -> tuple[str, str]:
        return "--approve", self.document["sha256"]


@dataclass
class Running:
    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out: Path

    def send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, deadline_s: float = _ENDS_S) -> Outcome:
        try:
            code = self.process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"runbook {' '.join(self.words)} did not end: {self.out}") from None
        text = self.out.read_text("utf-8")
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        errors = self.out.with_suffix(".err").read_text("utf-8", "replace")
        return Outcome(self.words, code, document, errors)


@dataclass(frozen=True)
class Operator:
    """One person at one machine; ``clock_s``: how much this machine's clock is ahead."""

    name: str
    folder: Path
    endpoint: str
    bucket: str
    settings: dict[str, str] = field(default_factory=dict)
    clock_s: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *words: str) -> Running:
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **dict.fromkeys(_NOBODY, ""),
            **_TIMING,
            "HOME": str(self.folder),
            "PYTHONPATH": str(_ROOT),
            "MINIO_ENDPOINT": self.endpoint,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "FULFILLMENT_BUCKET": self.bucket,
            "RUNBOOK_HOME": str(self.home),
            "RUNBOOK_OPERATOR": self.name,
            "RUNBOOK_SERVICES": "none",
            "LABEL_FINISHED": "always",
            "WORKER_CONTROL": "none",
            **self.settings,
        }
        if self.clock_s:
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME": f"{self.clock_s:+d}s",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        number, name = tempfile.mkstemp(".out", f"{words[0]}-", self.folder)
        out = Path(name)
        with os.fdopen(number, "wb") as output, out.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                [*COMMAND, *words, "--json"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        return Running(words, process, out)

    def run(self, *words: str, deadline_s: float = _ENDS_S) -> Outcome:
        return self.start(*words).wait(deadline_s)

    def copy_from(self, other: Operator) -> None:
        """Take over another one's folder as it is now, as by scp."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(other.home, self.home, ignore=shutil.ignore_patterns("*.lock"))


@dataclass
class Worker:
    """The label worker's door: it can be asked, paused and resumed; it moves nothing.

    ``on_pause`` is called once, when a pause has taken effect and is not answered yet.
    """

    is_paused: bool = False
    on_pause: Callable[[], None] | None = None

    def answer(self, request: Received) -> Act:
        if request.method == "POST":
            self.is_paused = request.target.endswith("/pause")
            act = self.on_pause
            if self.is_paused and act is not None:
                self.on_pause = None
                act()
        names = ("pendingPrefix", "readyPrefix", "bucket", "endpoint", "credentials")
        state = {"paused": self.is_paused, "moving": False, **dict.fromkeys(names, "")}
        return answer_json(200, state)


@dataclass
class Lane:
    shelf: Shelf
    proxy: LossyProxy
    folder: Path
    worker_url: str
    worker: Worker
    consumers: Consumers | None

    def hire(self, name: str, *, clock_s: int = 0, worker: bool = False, **more: str) -> Operator:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        settings = {"WORKER_CONTROL": "api", "FULFILLMENT_URL": self.worker_url} if worker else {}
        settings |= more
        return Operator(name, folder, self.proxy.endpoint, self.shelf.bucket, settings, clock_s)

    def count(self, labels: Sequence[Label]) -> Counted:
        wait_until(lambda: self.proxy.is_idle, what="the last late request")
        if self.consumers is not None:
            wait_until(lambda: not self.shelf.list_keys("ready/"), what="the consumers' last look")
        return count(labels, self.shelf, self.consumers.read_taken() if self.consumers else ())

    def clear(self) -> None:
        self.proxy.calm()
        wait_until(lambda: self.proxy.is_idle, what="the last late request")
        self.proxy.landed.clear()
        self.proxy.has_renames = True
        self.proxy.has_copies = True
        self.shelf.clear()
        self.worker.is_paused = False


@contextmanager
def open_lane(
    server: StoreServer,
    folder: Path,
    *,
    seed: int,
    bucket: str = "lane-0",
    consumers: int = 3,
    pause_s: float = 0.03,
    prefix: str = "ready/",
) -> Iterator[Lane]:
    """Open a lane on a running store; ``consumers`` may be 0, and so may their pause."""
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker()
    with ExitStack() as stack:
        shelf = Shelf(server.endpoint, bucket, has_tags=server.kind != "rgw-encrypted")
        proxy = stack.enter_context(run_lossy_proxy(server.endpoint, seed=seed))
        service = stack.enter_context(run_server(worker.answer))
        taking = None
        if consumers:
            taken = folder / "taken.jsonl"
            taking = stack.enter_context(
                run_consumers(
                    server.endpoint, bucket, taken, prefix=prefix, count=consumers, pause_s=pause_s
                )
            )
        url = f"http://{service.endpoint}"
        lane = Lane(shelf, proxy, folder, url, worker, taking)
        lane.clear()
        yield lane


def make_plan(operator: Operator) -> Outcome:
    """Plan a release of what waits; a busy machine may need a second attempt."""
    outcomes = (operator.run("plan") for _ in range(3))
    return next(outcome for outcome in outcomes if outcome.code == 0)


def read_planned(plan: Outcome) -> set[str]:
    lines = Path(plan.document["path"]).read_text("utf-8").splitlines()
    keys = (str(json.loads(line).get("key", "")) for line in lines)
    return {key.partition("/")[2] for key in keys if key}


def go_on(operator: Operator, plan: Outcome) -> Outcome:
    """Resume until nothing is left to do but what a person must decide; return the last outcome.

    A release that died before the bucket knew it is begun again; one that is refused for good is
    at its end too: somebody else moved what it was about. Raises TimeoutError when it does not end.
    """
    end, plan_id = time.monotonic() + 2 * _ENDS_S, plan.document["plan"]
    refused = ""
    attempts = 0
    while time.monotonic() < end or attempts < _LEAST_ATTEMPTS:
        attempts += 1
        outcome = operator.run("resume", plan_id)
        if outcome.code == 5:
            again = operator.run("apply", plan_id, *plan.approval)
            outcome = again if again.code in (0, 3, 5) else outcome
        is_left = any(outcome.get(name) for name in ("failed", "waiting", "error"))
        if outcome.code in (0, 2) or (outcome.code == 3 and not is_left):
            return outcome
        # whoever works in the bucket will end; any other refusal is the end when it stays
        if outcome.code == 5 and outcome.errors == refused and "try again" not in refused.lower():
            return outcome
        refused = outcome.errors
    raise TimeoutError(f"{plan_id} does not end: {outcome}")


def find_wrong(counted: Counted, planned: set[str], outcome: Outcome) -> list[str]:
    wrong, there = [], counted.moved & planned
    names = ("reasons", "unproven")
    if outcome.code == 0 and there != planned:
        wrong.append(f"exit 0, but {len(planned - there)} of {len(planned)} did not move")
    is_whole = not (outcome.get("waiting") or outcome.get("left"))  # it speaks of each label
    if outcome.code in (0, 3) and "moved" in outcome.document and is_whole:
        said = {
            str(item["key"] if isinstance(item, dict) else item).partition("/")[2]
            for name in names
            for item in outcome.document.get(name) or ()
        }
        if false := planned - said - counted.moved:
            wrong.append(f"told as moved, but were not: {sorted(false)}")
    proven = outcome.get("in_place") + outcome.get("gone_after_landed")
    if max(proven, outcome.get("moved")) > len(there):
        wrong.append(f"only {len(there)} moved")
    both = counted.twice | (counted.pending & (counted.taken | counted.ready))
    if outcome.get("lost") > len(counted.lost) or outcome.get("duplicated") > len(both):
        wrong.append("a false alarm")
    said_all = f"{outcome.words[0]} exit {outcome.code} {outcome.document}"
    return [f"{text}: {said_all}" for text in wrong]


_KINDS = (("copy",), ("delete", "bulk"), ("claim", "record", "own"), ("list", "head", "get"))
_CLOCKS = (0, 0, 0, 120, -120, 600) if FAKETIME else (0,)


@dataclass
class Round:
    """One small release with its disturbances."""

    lane: Lane
    rng: random.Random
    totals: Totals = field(default_factory=lambda: Totals(rounds=1))
    said: list[str] = field(default_factory=list)
    outcomes: list[tuple[set[str], Outcome]] = field(default_factory=list)

    def hire(self, name: str, *, worker: bool) -> Operator:
        return self.lane.hire(name, clock_s=self.rng.choice(_CLOCKS), worker=worker)

    def spoil(self) -> None:
        """Let some requests of some kind go wrong, in four rounds of five."""
        if self.rng.random() < 0.2:
            return
        kinds = self.rng.choice((*_KINDS, tuple(kind for kinds in _KINDS for kind in kinds)))
        rate, fates = self.rng.uniform(0.02, 0.3), self.rng.sample(FATES, self.rng.randint(1, 4))
        self.lane.proxy.late_s = self.rng.choice((0.5, 3.0, 3.0, LEASE_S + 4))
        self.lane.proxy.spoils = [Spoil(kinds, rate, fates)]
        self.said.append(f"spoil {rate:.2f} of {kinds}: {fates}")

    def aim(self, running: Running, number: signal.Signals) -> None:
        """Send a signal at some request, or at any moment; or the command ends before that."""
        # who waits for another one's claim asks for a new one again and again: not at those
        every = ("copy", "delete", "bulk", "record", "own", "head")
        kinds, most = self.rng.choice(
            (
                (every, 60),
                (every, 60),
                (("claim",), 3),
                (("copy",), 25),
                (("delete", "bulk"), 3),
                ((), 0),
            )
        )
        if not kinds:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(timeout=self.rng.uniform(0.3, 3.0))
            running.send(number)
            self.said.append(f"{number.name} at any moment")
            return
        nth = self.rng.randint(1, most)
        phase = self.rng.choice(("before", "after"))
        trap = Trap(kinds, nth, phase, lambda: running.send(number))
        self.lane.proxy.traps.append(trap)
        self.said.append(f"{number.name} {phase} {nth} of {kinds}")
        wait_until(
            lambda: trap.sprung.is_set() or running.process.poll() is not None,
            what="the trap",
            deadline_s=_ENDS_S,
        )
        self.lane.proxy.traps.clear()

    def kill(self) -> None:
        ann = self.hire("ann", worker=self.rng.random() < 0.3)
        plan = make_plan(ann)
        self.spoil()
        begin: tuple[str, ...] = ("apply", plan.document["plan"], *plan.approval)
        words = begin
        for _ in range(self.rng.randint(1, 5)):
            running = ann.start(*words)
            self.aim(running, signal.SIGKILL)
            outcome = running.wait()
            self.totals.kills += outcome.code == -signal.SIGKILL
            if outcome.code in (0, 3):
                break
            words = begin if outcome.code == 5 else ("resume", plan.document["plan"])
        if self.rng.random() < 0.3:
            bob = self.hire("bob", worker="FULFILLMENT_URL" in ann.settings)
            bob.copy_from(ann)
            self.said.append("bob goes on")
            self.end(bob, plan)
        else:
            self.end(ann, plan)

    def stop(self) -> None:
        """Have one operator's machine sleep past its claim while another one acts."""
        worker = self.rng.random() < 0.3
        ann, bob = (self.hire(name, worker=worker) for name in ("ann", "bob"))
        plan = make_plan(ann)
        other = self.rng.choice(("early copy", "late copy", "the bucket's record", "his own plan"))
        if other == "early copy":
            bob.copy_from(ann)
        self.spoil()
        running = ann.start("apply", plan.document["plan"], *plan.approval)
        self.said.append(f"bob: {other}")
        try:
            self.aim(running, signal.SIGSTOP)
            self.totals.stops += running.process.poll() is None
            if self.rng.random() < 0.4:  # she wakes in the middle of his work, or after it
                wake = Trap(("copy", "delete", "bulk"), self.rng.randint(1, 30), "before",
                            lambda: running.send(signal.SIGCONT))  # fmt: skip
                self.lane.proxy.traps.append(wake)
            if other == "his own plan":
                theirs = bob.run("plan")
                if theirs.code == 0 and theirs.document.get("objects"):
                    self.outcomes.append((read_planned(theirs), go_on(bob, theirs)))
            else:
                if other == "late copy":
                    bob.copy_from(ann)
                self.outcomes.append((read_planned(plan), go_on(bob, plan)))
        finally:
            running.send(signal.SIGCONT)
        running.wait()
        self.end(ann, plan)

    def end(self, operator: Operator, plan: Outcome) -> None:
        """Bring a release to its end, have it proven, and let a stranger release what is left."""
        lane, planned = self.lane, read_planned(plan)
        self.outcomes.append((planned, go_on(operator, plan)))
        lane.proxy.calm()
        self.outcomes.append((planned, operator.run("verify", plan.document["plan"])))
        if lane.shelf.list_keys("pending/") != ["pending/notes.txt"]:
            carol = lane.hire("carol", worker="FULFILLMENT_URL" in operator.settings)
            more = carol.run("plan")
            if more.code == 0 and more.document.get("objects"):
                self.outcomes.append((read_planned(more), go_on(carol, more)))

    def judge(self, labels: Sequence[Label]) -> Totals:
        totals, lane, counted = self.totals, self.lane, self.lane.count(labels)
        totals.labels = len(labels)
        totals.lost, totals.twice = len(counted.lost), len(counted.twice)
        totals.unkept = len(counted.unkept)
        totals.recopied = sum(times - 1 for times in lane.proxy.landed.values())
        wrong = [text for said in self.outcomes for text in find_wrong(counted, *said)]
        wrong += ["notes.txt went"] * ("pending/notes.txt" not in lane.shelf.list_keys("pending/"))
        wrong += ["the worker was left paused"] * lane.worker.is_paused
        totals.wrong = len(wrong)
        documents = [said.document for _, said in self.outcomes if "moved" in said.document]
        totals.unproven = len({key for document in documents for key in document["unproven"]})
        totals.conflicts = max((document["conflicts"] for document in documents), default=0)
        self.said += wrong
        return totals


def run_many(
    server: StoreServer,
    folder: Path,
    *,
    seed: int,
    kills: int,
    stops: int,
    lanes: int,
) -> Totals:
    """Play rounds, ``lanes`` at a time, until so many processes were killed and stopped.

    Prints every round that did not go well, with its seed and what was done in it.
    """
    if not FAKETIME:
        print("every clock is right: faketime is not installed")
    sum_, lock, rounds = Totals(), threading.Lock(), iter(range(1 << 30))

    def work(number: int) -> None:
        nonlocal sum_
        bucket, place = f"lane-{number}", folder / f"lane-{number}"
        with open_lane(server, place, seed=seed + number, bucket=bucket) as lane:
            while True:
                with lock:
                    left_kills, left_stops = kills - sum_.kills, stops - sum_.stops
                    round_ = next(rounds)
                if left_kills <= 0 and left_stops <= 0:
                    return
                rng = random.Random(f"{seed}-{round_}")
                is_stop = rng.random() * (left_kills / 4 + left_stops) < left_stops
                totals, said = play(lane, rng, is_stop=is_stop)
                with lock:
                    sum_ += totals
                if not totals.is_clean:
                    print(f"{server.kind} round {seed}-{round_}: {totals}", *said, sep="\n  ")

    with ThreadPoolExecutor(lanes) as pool:
        for done in [pool.submit(work, number) for number in range(lanes)]:
            done.result()
    return sum_


def play(lane: Lane, rng: random.Random, *, is_stop: bool) -> tuple[Totals, list[str]]:
    lane.clear()
    lane.proxy.has_renames = rng.random() < 0.5
    put, round_ = lane.shelf.put_labels(30, rng), Round(lane, rng)
    try:
        (round_.stop if is_stop else round_.kill)()
    except TimeoutError as error:
        round_.totals.endless += 1
        round_.said.append(str(error))
    lane.proxy.calm()
    return round_.judge(put), round_.said
