"""A store, disks, clocks and a worker in memory, in which nothing happens by chance.

A ``Director`` is asked before every effect of a process what else happens first, and what becomes
of the effect. The production code gets ``SimBucket``, ``SimLog``, ``SimHold`` and ``SimClock``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from chainlog import GENESIS, Entry, LogError
from objectmove.bucket import Answer, OnAnswer, Request, Seen
from objectmove.errors import AbsentError, MoveError, MoversError, StoreError

__all__ = [
    "EPOCH",
    "Event",
    "Folder",
    "Killed",
    "Machine",
    "Process",
    "SimBucket",
    "SimClock",
    "SimHold",
    "SimLog",
    "Version",
    "World",
]

EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
#: G and S: the most that an effect may come after its acceptance, and clocks of nodes differ.
EFFECT_MS, SPREAD_MS = 10_000, 5_000
_ANSWERS = {
    "refused": Answer("none", code="NotSent"),
    "dropped": Answer("unknown", code="HTTP 503"),
    "lost": Answer("unknown", code="NoAnswer"),
    "ghost": Answer("unknown", code="NoSuchKey"),
}
_OVERSLEPT_S = 33.0
_REQUEST_MS, _READ_MS, _TIMEOUT_MS = 4, 2, 10_000


class Killed(BaseException):
    """The process is dead: nothing that it still tries has an effect."""


@dataclass(frozen=True, slots=True)
class Version:
    """What lies at a key; ``label`` names the content, ``by`` who put it there."""

    label: str
    body: bytes
    etag: str
    at_ms: int
    by: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a key; ``old`` is the version that it removed or replaced."""

    at_ms: int
    by: str
    verb: str
    key: str
    label: str = ""
    old: Version | None = None
    is_declared: bool = False
    plan: str = ""


@dataclass
class Disk:
    """One ledger's file: the lines from ``synced`` on do not survive a power cut."""

    entries: list[Entry] = field(default_factory=list)
    synced: int = 0
    owner: SimLog | None = None


@dataclass
class Folder:
    """The ledgers that one machine has."""

    disks: dict[str, Disk] = field(default_factory=dict)

    def get_disk(self, plan: str) -> Disk:
        """Return a ledger's file, a new one when there is none."""
        return self.disks.setdefault(plan, Disk())

    def copy_first(self, plan: str, count: int) -> Folder:
        """Return an older copy of the folder, in which a ledger has ``count`` lines."""
        copy = {name: Disk(list(disk.entries), disk.synced) for name, disk in self.disks.items()}
        return Folder({**copy, plan: Disk(self.get_disk(plan).entries[:count], count)})

    def cut_power(self) -> None:
        """Lose what was not synced."""
        for disk in self.disks.values():
            del disk.entries[disk.synced :]


@dataclass
class Machine:
    """Where processes run: one folder, one clock."""

    name: str
    folder: Folder = field(default_factory=Folder)
    offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class Sending:
    """From where a request comes: its process, and when it was signed off and last looked."""

    process: Process
    called_at_ms: int
    expires_at_ms: int


class Director(Protocol):
    """Decides what happens."""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let things happen before a process reads or changes something; may raise ``Killed``."""

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:
        """Return one of the options (words), or an empty text for the usual."""


class World:
    """All that outlives a process.

    Parameters
    ----------
    is_strict : honours conditions on deletes and on the targets of copies and puts
    polls : a consumer takes whatever comes under ``ready/`` at once
    is_held : the worker can be paused by us
    """

    def __init__(self, *, is_strict: bool, polls: bool = False, is_held: bool = True) -> None:
        self.is_strict, self.polls, self.is_held = is_strict, polls, is_held
        self.now_ms = 0
        self.store_offset_ms = 1_500
        self.objects: dict[str, Version] = {}
        self.agenda: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self.history: list[Event] = []
        self.labels: dict[str, str] = {}
        self.unheld: list[str] = []
        self.paused_by = ""
        self.processes = self.nonces = 0
        self._agreed = 0

    # --- time ---

    @property
    def store_ms(self) -> int:
        """The store's time."""
        return self.now_ms + self.store_offset_ms

    def advance(self, ms: int) -> None:
        """Let time pass, and what is due happen."""
        until = self.now_ms + ms
        while self.agenda and min(self.agenda)[0] <= until:
            item = min(self.agenda)
            self.agenda.remove(item)
            self.now_ms = max(self.now_ms, item[0])
            self._do(item[2], item[3])
        self.now_ms = max(self.now_ms, until)

    def plan_for(self, ms: int, what: str, *details: Any) -> None:
        """Let something happen later."""
        self._agreed += 1
        self.agenda.append((self.now_ms + ms, self._agreed, what, details))

    def _do(self, what: str, details: tuple[Any, ...]) -> None:
        if what == "request":
            self.carry_out(*details)
        else:
            self.remove(*details)

    # --- the others ---

    def write(self, key: str, label: str, by: str) -> None:
        """Let someone write content of their own."""
        body = label.encode()
        made = Version(label, body, get_etag(body), self.store_ms, by, {"order-id": "7"})
        self._store(key, made)

    def remove(self, key: str, by: str) -> None:
        """Let someone remove whatever is at a key."""
        if old := self.objects.pop(key, None):
            self.history.append(Event(self.now_ms, by, "remove", key, old=old))

    def take(self, key: str, delete_after_ms: int = 0) -> None:
        """Let a consumer take what is at a key: it reads, and deletes now or later."""
        label = self.objects[key].label
        self.history.append(Event(self.now_ms, "consumer", "read", key, label))
        if delete_after_ms:
            self.plan_for(delete_after_ms, "remove", key, "consumer")
        else:
            self.remove(key, "consumer")

    def work(self, key: str, to: str, delete_after_ms: int = 0) -> None:
        """Let the worker move an object: it copies, and deletes now or later."""
        self._store(to, replace(self.objects[key], at_ms=self.store_ms, by="worker"))
        if delete_after_ms:
            self.plan_for(delete_after_ms, "remove", key, "worker")
        else:
            self.remove(key, "worker")

    # --- the store ---

    def carry_out(
        self, request: Request, sending: Sending, captured: Version | None = None
    ) -> Answer:
        """Let a request that was accepted take effect, and answer."""
        if request.kind == "copy":
            return self._copy(request, sending, captured)
        if request.kind == "put":
            if request.if_absent and self.is_strict and request.key in self.objects:
                return Answer("unknown", code="PreconditionFailed")
            etag, by = get_etag(request.body), sending.process.name
            made = Version("", request.body, etag, self.store_ms, by, {})
            self._store(request.key, made)
            return Answer("done", etag=etag)
        if request.kind == "delete":
            old = self.objects.get(request.key)
            is_met = not request.if_match or (old is not None and old.etag == request.if_match)
            if self.is_strict and not is_met:
                return Answer("unknown", code="PreconditionFailed")
            self._delete(request.key, sending)
            return Answer("done")
        for key in request.keys:
            self._delete(key, sending)
        return Answer("done")

    def has_expired(self, sending: Sending) -> bool:
        """Tell whether the store accepts no more what was signed then."""
        return self.store_ms > sending.expires_at_ms

    def refuse(self, request: Request) -> Answer:
        """Answer a request that has expired."""
        if request.kind == "delete_many":
            return Answer("done", failed=dict.fromkeys(request.keys, "AccessDenied"))
        return Answer("none", code="AccessDenied")

    def find_source(self, request: Request) -> Version | Answer:
        """Return what a copy would copy, or why it does not."""
        source = self.objects.get(request.source)
        if source is None:
            return Answer("unknown", code="NoSuchKey")
        if request.if_match and source.etag != request.if_match:
            return Answer("unknown", code="PreconditionFailed")
        return source

    def _copy(self, request: Request, sending: Sending, captured: Version | None) -> Answer:
        source = captured or self.find_source(request)
        if isinstance(source, Answer):
            return source
        old = self.objects.get(request.key)
        if request.if_absent and self.is_strict and old is not None:
            return Answer("unknown", code="PreconditionFailed")
        metadata = dict(source.metadata)
        if request.headers:
            metadata = {k.removeprefix("x-amz-meta-"): v for k, v in request.headers.items()}
        made = Version(
            source.label, source.body, source.etag, self.store_ms, sending.process.name, metadata
        )
        is_declared = old is not None and self._is_in_window(request.key, old, sending)
        self._store(request.key, made, is_declared=is_declared, plan=sending.process.plan)
        return Answer("done", etag=made.etag, last_modified=to_datetime(made.at_ms))

    def _store(self, key: str, made: Version, *, is_declared: bool = False, plan: str = "") -> None:
        old = self.objects.get(key)
        self.objects[key] = made
        if made.label:
            self.labels[made.etag] = made.label
            event = Event(self.now_ms, made.by, "put", key, made.label, old, is_declared, plan)
            self.history.append(event)
            if self.polls and key.startswith("ready/"):
                self.take(key)

    def _delete(self, key: str, sending: Sending) -> None:
        old = self.objects.pop(key, None)
        if old is not None and old.label:
            is_declared = self._is_in_window(key, old, sending)
            by, plan = sending.process.name, sending.process.plan
            self.history.append(Event(self.now_ms, by, "delete", key, "", old, is_declared, plan))

    def _is_in_window(self, key: str, old: Version, sending: Sending) -> bool:
        """Tell whether this harm to a foreign version is one that the plan declares."""
        looks = sending.process.looks
        prefix = key.rpartition("/")[0] + "/"
        looked_at_ms = max(looks.get(key, -(1 << 40)), looks.get(prefix, -(1 << 40)))
        return (
            not self.is_strict
            and old.at_ms - self.store_offset_ms >= looked_at_ms
            and sending.called_at_ms - looked_at_ms <= 2_100
            and self.store_ms <= sending.expires_at_ms + EFFECT_MS + SPREAD_MS
        )


class Process:
    """One run of our program on a machine; when it is dead nothing of it has an effect.

    ``looks`` is when it last looked at a key; ``lag_ms`` how long its clocks stood still.
    """

    def __init__(self, world: World, director: Director, machine: Machine, plan: str) -> None:
        world.processes += 1
        self.name = str(world.processes)
        self.world, self.director, self.machine, self.plan = world, director, machine, plan
        self.is_dead = False
        self.looks: dict[str, int] = {}
        self.lag_ms = 0
        self.bucket = SimBucket(self)
        self.clock = SimClock(self)
        self.hold = SimHold(self)

    def logs(self, plan: str) -> SimLog:
        """Return a ledger."""
        return SimLog(self, plan)

    def touch(self) -> None:
        """Do nothing more when dead."""
        if self.is_dead:
            raise Killed

    def kill(self, *, power: bool) -> None:
        """Die here."""
        self.is_dead = True
        for disk in self.machine.folder.disks.values():
            if disk.owner is not None and disk.owner.process is self:
                disk.owner = None
        if power:
            self.machine.folder.cut_power()
        raise Killed

    def begin(self, verb: str, keys: Sequence[str] = ()) -> None:
        """Ask the director before each thing that touches the world."""
        self.touch()
        self.director.before(self, verb, keys)
        self.touch()

    def choose(self, verb: str, keys: Sequence[str], options: str) -> str:
        """Ask the director what becomes of it."""
        return self.director.choose(self, verb, keys, options)


class SimClock:
    """The clocks of a process's machine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._naps = 0

    def now(self) -> datetime:
        """Return the machine's time."""
        process = self._process
        return to_datetime(process.world.now_ms + process.machine.offset_ms - process.lag_ms)

    def monotonic(self) -> float:
        """Return seconds that do not jump."""
        return (self._process.world.now_ms - self._process.lag_ms) / 1000

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; who naps often oversleeps, so that waits are few steps."""
        self._process.begin("sleep")
        if seconds < 1:
            self._naps += 1
            seconds = seconds if self._naps == 1 else _OVERSLEPT_S
        self._process.world.advance(int(seconds * 1000) + 1)
        self._process.touch()


class SimLog:
    """A ledger on a disk that may fail, with ``ChainedLog``'s behaviour."""

    def __init__(self, process: Process, plan: str) -> None:
        self.process = process
        self._disk = process.machine.folder.get_disk(plan)
        self._is_broken = False
        self._depth = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out."""
        self.process.begin("lock") if not self._depth else self.process.touch()
        if self._disk.owner not in (None, self):
            raise LogError("the ledger is in use by another process")
        self._disk.owner = self
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._disk.owner is self:
                self._disk.owner = None

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Entry:
        """Append one line."""
        with self.locked():
            self.process.begin(f"append:{kind}")
            if self._is_broken:
                raise LogError("the ledger is not written any more")
            fate = self.process.choose(f"append:{kind}", (), "fsync-gone fsync-kept")
            entry = self._make(kind, data)
            if fate != "fsync-gone":
                self._disk.entries.append(entry)
            if fate:
                self._is_broken = True
                raise LogError("cannot write the ledger: no space left on device")
            if sync:
                self._disk.synced = len(self._disk.entries)
            return entry

    def read(self) -> list[Entry]:
        """Return the lines."""
        self.process.begin("read-log")
        return list(self._disk.entries)

    def reserve(self) -> None:
        """Have room."""
        self.process.touch()

    def release_reserve(self) -> None:
        """Give it back."""
        self.process.touch()

    def _make(self, kind: str, data: dict[str, Any]) -> Entry:
        last = self._disk.entries[-1] if self._disk.entries else None
        seq, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
        at = self.process.clock.now()
        text = json.dumps(data, sort_keys=True)
        digest = hashlib.sha256(f"{seq} {at} {kind} {text} {prev}".encode()).hexdigest()
        return Entry(seq, at, kind, json.loads(text), prev, digest)


class SimHold:
    """The worker, held through the world."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.words = "the worker is paused" if process.world.is_held else "nobody else moves"

    def is_paused(self) -> bool:
        """Return whether it is paused, by us or by a person."""
        self._process.touch()
        return bool(self._process.world.paused_by) or not self._process.world.is_held

    def pause(self) -> None:
        """Pause it; the answer may be lost."""
        self._set("pause", "us", MoversError)

    def check(self) -> None:
        """Make sure that it is paused, and that its pass has ended."""
        if not self.is_paused():
            raise MoversError("the worker is not paused")
        if any(details[1:] == ("worker",) for *_, details in self._process.world.agenda):
            self._process.world.advance(1_000)

    def resume(self) -> None:
        """Let it work again; the answer may be lost."""
        self._set("resume", "", MoveError)

    def _set(self, verb: str, paused_by: str, error: type[MoveError]) -> None:
        self._process.begin(verb)
        fate = self._process.choose(verb, (), "lost refused")
        if fate != "refused":
            self._process.world.paused_by = paused_by
        if fate:
            raise error(f"the worker did not answer to {verb}")


class SimBucket:
    """The bucket of a world."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world
        self.endpoint = "sim:0"
        self.name = "strict" if process.world.is_strict else "loose"

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        """Yield what lies under a prefix, LastModified with milliseconds."""
        if self._begin("list", [prefix]):
            raise StoreError(f"list {prefix}: no answer", code="NoAnswer")
        for key in [key for key in self._world.objects if key.startswith(prefix)]:
            yield self._see(key, self._world.objects[key], is_head=False)

    def look(self, keys: Sequence[str]) -> dict[str, Seen | None]:
        """Return what lies at keys, LastModified in whole seconds."""
        if self._begin("look", keys):
            return {}
        objects = self._world.objects
        return {
            key: self._see(key, objects[key], is_head=True) if key in objects else None
            for key in keys
        }

    def read(self, key: str) -> bytes | None:
        """Return an object's content."""
        if self._begin("read", [key]):
            raise StoreError(f"read {key}: no answer", code="NoAnswer")
        version = self._world.objects.get(key)
        return version.body if version else None

    def read_sha256(self, key: str) -> str:
        """Return the SHA-256 of an object's content."""
        body = self.read(key)
        if body is None:
            raise AbsentError(f"read {key}", code="NoSuchKey")
        return hashlib.sha256(body).hexdigest()

    def read_clock(self) -> datetime:
        """Return the store's time, in whole seconds."""
        self._begin("clock", ())
        return to_datetime(self._world.store_ms).replace(microsecond=0)

    def send(
        self,
        requests: Sequence[Request],
        *,
        signed_at: datetime,
        expires_s: int,
        on_answer: OnAnswer = lambda _index, _answer: None,
    ) -> list[Answer]:
        """Send requests one by one, in the order that the director wants."""
        self._process.touch()
        expires_at_ms = to_ms(signed_at) + expires_s * 1000
        sending = Sending(self._process, self._world.now_ms, expires_at_ms)
        answers = [Answer("none", code="NotSent")] * len(requests)
        places = list(range(len(requests)))
        if len(requests) > 1:
            keys = [key for request in requests for key in get_keys(request)]
            if self._process.choose("order", keys, "reversed"):
                places.reverse()
        for place in places:
            answers[place] = self._send_one(requests[place], sending)
            self._process.touch()
            on_answer(place, answers[place])
        return answers

    def _send_one(self, request: Request, sending: Sending) -> Answer:
        keys, world = get_keys(request), self._world
        self._process.begin(request.kind, keys)
        options = "refused lost dropped late slow die-late"
        if request.kind == "copy":
            options += " ghost"
        fate = self._process.choose(request.kind, keys, options)
        world.advance(_REQUEST_MS)
        if fate in ("refused", "dropped"):
            return _ANSWERS[fate]
        if world.has_expired(sending):
            return world.refuse(request)
        if world.is_held and not world.paused_by and not keys[0].startswith(".runbook/"):
            world.unheld.append(f"{request.kind} {keys[0]}")
        if fate in ("late", "die-late", "slow"):
            self._delay(request, sending, fate)
            return _ANSWERS["lost"]
        answer = world.carry_out(request, sending)
        return _ANSWERS.get(fate, answer)

    def _delay(self, request: Request, sending: Sending, fate: str) -> None:
        """Let a request take effect late: accepted only just, or accepted now."""
        world = self._world
        if fate == "slow":
            source = world.find_source(request) if request.kind == "copy" else None
            if not isinstance(source, Answer):
                world.plan_for(EFFECT_MS - 100, "request", request, sending, source)
            return
        left_ms = sending.expires_at_ms - world.store_ms + EFFECT_MS + SPREAD_MS
        world.plan_for(left_ms - 100, "request", request, sending)
        if fate == "die-late":
            self._process.kill(power=False)
        world.advance(_TIMEOUT_MS)

    def _begin(self, verb: str, keys: Sequence[str]) -> bool:
        """Look at keys; returns whether nobody answers."""
        self._process.begin(verb, keys)
        self._world.advance(_READ_MS)
        is_blind = bool(self._process.choose(verb, keys, "blind"))
        if not is_blind:
            self._process.looks.update(dict.fromkeys(keys, self._world.now_ms))
        return is_blind

    def _see(self, key: str, version: Version, *, is_head: bool) -> Seen:
        at = to_datetime(version.at_ms)
        if not is_head:
            return Seen(key, version.etag, len(version.body), at)
        at = at.replace(microsecond=0)
        return Seen(key, version.etag, len(version.body), at, dict(version.metadata))


def get_keys(request: Request) -> tuple[str, ...]:
    """Return every key that a request touches; what it changes first."""
    if request.kind == "delete_many":
        return request.keys
    return (request.key, request.source) if request.source else (request.key,)


def get_etag(body: bytes) -> str:
    """Return the ETag that a plain put gets."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def to_datetime(ms: int) -> datetime:
    """Return virtual milliseconds as a time."""
    return EPOCH + timedelta(milliseconds=ms)


def to_ms(at: datetime) -> int:
    """Return a time as virtual milliseconds."""
    return (at - EPOCH) // timedelta(milliseconds=1)
