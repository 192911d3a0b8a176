"""A store, disks, clocks and a worker in memory, in which nothing happens by chance.

A ``Director`` is asked before every effect of a process what else happens first, and what becomes
of the effect. The production code gets ``SimBucket``, ``SimLog``, ``SimHold`` and ``SimClock``.
``SimBucket`` is the production bucket over ``SimConnections``: what it makes of a raw answer is
what runs here, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from itertools import permutations
from typing import Any, Protocol

from chainlog import GENESIS, Entry, LogError
from objectmove.bucket import Request, S3Bucket
from objectmove.errors import MoveError, MoversError
from objectmove.message import Message, Reply, Sink

from . import simulated_http as http
from .simulated_http import EPOCH, Call, Version, to_datetime, to_ms

__all__ = [
    "CHANGE_FATES",
    "COPY_FATES",
    "EPOCH",
    "LOOK_FATES",
    "Call",
    "Disk",
    "Event",
    "Folder",
    "Killed",
    "Machine",
    "Process",
    "SimBucket",
    "SimClock",
    "SimConnections",
    "SimHold",
    "SimLog",
    "Version",
    "World",
    "to_datetime",
    "to_ms",
]

#: What may become of a request that changes something; of a copy, ``COPY_FATES`` too.
CHANGE_FATES = (
    "refused",
    "lost",
    "dropped",
    "late",
    "slow",
    "die-late",
    "twice",
    *http.ROUTER,
    "router-after",
)
COPY_FATES = ("ghost", "slowdown")
#: What may become of a request that only reads.
LOOK_FATES = ("blind", "silent", "router-404", "router-200", "router-503")

_CHANGE_OPTIONS = " ".join(CHANGE_FATES)
_COPY_OPTIONS = " ".join(CHANGE_FATES + COPY_FATES)
_LOOK_OPTIONS = " ".join(LOOK_FATES)

#: G and S: the most that an effect may come after its acceptance, and clocks of nodes differ.
EFFECT_MS, SPREAD_MS = 10_000, 5_000
_OVERSLEPT_S = 33.0
_REQUEST_MS, _READ_MS, _TIMEOUT_MS, _REPLAY_MS = 4, 2, 10_000, 3_000
_NOT_SENT = Reply(Reply.NOT_SENT, error="connection refused")
_SILENT = Reply(Reply.NO_ANSWER, error="no answer in time")
_NOT_ASKED = Reply(Reply.NOT_SENT, error="no answer in time")
#: Fates in which the request does not reach the store, or has no effect there.
_WITHOUT_EFFECT: Mapping[str, Reply] = {
    "refused": _NOT_SENT,
    "dropped": http.UNAVAILABLE,
    # MinIO takes its rename back before it answers so: nobody sees it
    "slowdown": http.SLOW_DOWN,
    **http.ROUTER,
}
#: Fates in which it takes effect at once, and something else is answered.
_OTHER_ANSWER: Mapping[str, Reply] = {
    "lost": http.NO_ANSWER,
    "router-after": http.ROUTER["router-404"],
}
_BLIND: Mapping[str, Reply] = {"blind": http.NO_ANSWER, "silent": _SILENT, **http.ROUTER}


class Killed(BaseException):
    """The process is dead: nothing that it still tries has an effect."""


_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a key.

    Attributes
    ----------
    old : the version that it removed or replaced
    is_declared : harm to a foreign version, in the window that the plan states
    is_replay : a proxy sent the request a second time
    """

    at_ms: int
    by: str
    verb: str
    key: str
    label: str = ""
    old: Version | None = None
    is_declared: bool = False
    plan: str = ""
    is_replay: bool = False


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

    def copy(self) -> Folder:
        """Return a copy of the whole folder, as ``cp -r`` makes it: what is not synced, too."""
        return Folder(
            {name: Disk(list(disk.entries), len(disk.entries)) for name, disk in self.disks.items()}
        )

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
    """From where a request comes: whose it is, and when it was handed over and last looked."""

    by: str
    plan: str
    called_at_ms: int
    expires_at_ms: int
    looks: Mapping[str, int] = field(repr=False)
    is_replay: bool = False


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
    is_versioned : the bucket keeps every version; a delete leaves a marker
    takes_versions : the consumer that polls deletes the version that it read, for good

    Attributes
    ----------
    objects : what lies at each key now
    versions : of a versioned bucket, all that a key has, the oldest first
    history : what happened, for the audit
    unheld : changes of ours while the worker could move
    page : the most that one page of a listing holds
    """

    def __init__(
        self,
        *,
        is_strict: bool,
        polls: bool = False,
        is_held: bool = True,
        is_versioned: bool = False,
        takes_versions: bool = False,
    ) -> None:
        self.is_strict = is_strict
        self.polls = polls
        self.is_held = is_held
        self.is_versioned = is_versioned
        self.takes_versions = takes_versions
        self.page = 1000
        self.now_ms = 0
        self.store_offset_ms = 1_500
        self.objects: dict[str, Version] = {}
        self.versions: dict[str, list[Version]] = {}
        self.agenda: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self.history: list[Event] = []
        #: Whether a proxy has repeated a request that had not expired.
        self.has_replayed = False
        self.labels: dict[str, str] = {}
        self.unheld: list[str] = []
        self.paused_by = ""
        self.processes = 0
        self.nonces = 0
        self._agreed = 0
        self._version_ids = 0
        self._listings: dict[tuple[str, str, int, bool], str] = {}

    # --- time ---

    @property
    def store_ms(self) -> int:
        """The store's time."""
        return self.now_ms + self.store_offset_ms

    def advance(self, ms: int) -> None:
        """Let time pass, and what is due happen."""
        until = self.now_ms + ms
        while self.agenda and min(self.agenda, key=_when)[0] <= until:
            item = min(self.agenda, key=_when)
            self.agenda.remove(item)
            self.now_ms = max(self.now_ms, item[0])
            self._do(item[2], item[3])
        self.now_ms = max(self.now_ms, until)

    def plan_for(self, ms: int, what: str, *details: Any) -> None:
        """Let something happen later."""
        self._agreed += 1
        self.agenda.append((self.now_ms + ms, self._agreed, what, details))

    def _do(self, what: str, details: tuple[Any, ...]) -> None:
        acts: dict[str, Callable[..., object]] = {
            "request": self.carry_out,
            "replay": self._replay,
            "remove": self.remove,
            "remove-version": self.remove_version,
            "finish-work": self._finish_work,
        }
        acts[what](*details)

    # --- the others ---

    @property
    def is_worker_busy(self) -> bool:
        """Whether the worker has copied and not yet deleted."""
        return any(what == "finish-work" for _, _, what, _ in self.agenda)

    def write(self, key: str, label: str, by: str) -> None:
        """Let someone write content of their own."""
        body = label.encode()
        metadata = {"order-id": "7"}
        headers = {"content-type": "application/pdf"}
        made = Version(label, body, get_etag(body), self.store_ms, by, metadata, headers)
        self._store(key, made)

    def remove(self, key: str, by: str) -> None:
        """Let someone remove whatever is at a key."""
        old = self._pop(key)
        if old is not None:
            self.history.append(Event(self.now_ms, by, "remove", key, old=old))

    def remove_version(self, key: str, version_id: str, by: str) -> None:
        """Let someone remove one version for good; the one before it is there again.

        Raises
        ------
        ValueError
            When the bucket keeps no versions.
        """
        if not self.is_versioned:
            raise ValueError("the bucket keeps no versions")
        kept = [version for version in self.versions.get(key, []) if version.id != version_id]
        self.versions[key] = kept
        old = self.objects.get(key)
        if old is None or old.id != version_id:
            return
        self._forget_listings(key)
        self.history.append(Event(self.now_ms, by, "remove", key, old=old))
        if kept and not kept[-1].is_marker:
            self.objects[key] = kept[-1]
            self.history.append(Event(self.now_ms, by, "restore", key, kept[-1].label))
        else:
            del self.objects[key]

    def remove_memory(self) -> None:
        """Let a tidy colleague, or a rule, remove all that we keep in the bucket of our own."""
        ours = [key for key in {**self.objects, **self.versions} if key.startswith(".runbook/")]
        for key in ours:
            self.objects.pop(key, None)
            self.versions.pop(key, None)
            self._forget_listings(key)

    def take(self, key: str, delete_after_ms: int = 0, *, by_version: bool = False) -> None:
        """Let a consumer take what is at a key: it reads, and deletes now or later.

        Parameters
        ----------
        by_version : it deletes the version that it read, for good, not what is there by then
        """
        version = self.objects[key]
        self.history.append(Event(self.now_ms, "consumer", "read", key, version.label))
        if by_version:
            what, details = "remove-version", (key, version.id, "consumer")
        else:
            what, details = "remove", (key, "consumer")
        if delete_after_ms:
            self.plan_for(delete_after_ms, what, *details)
        else:
            self._do(what, details)

    def work(self, key: str, to: str, delete_after_ms: int = 0) -> None:
        """Let the worker move an object as ``fulfillment.worker`` does.

        What lies at the destination already is not copied again: the same content leaves the
        source only, other content stops the move. It deletes now or later, only if the source has
        the same content still.
        """
        source = self.objects.get(key)
        there = self.objects.get(to)
        if source is None or (there is not None and there.etag != source.etag):
            return
        if there is None:
            self._store(to, replace(source, at_ms=self.store_ms, by="worker"))
        if delete_after_ms:
            self.plan_for(delete_after_ms, "finish-work", key, source.etag)
        else:
            self._finish_work(key, source.etag)

    def _finish_work(self, key: str, etag: str) -> None:
        there = self.objects.get(key)
        if there is not None and there.etag == etag:
            self.remove(key, "worker")

    # --- the store ---

    def read(self, call: Call) -> Reply:
        """Answer a request that only reads."""
        if call.kind == "list":
            return http.answer(200, self.store_ms, self._list(call))
        if call.kind == "versions":
            versions: Mapping[str, Sequence[Version]] = self.versions
            if not self.is_versioned:
                versions = {key: [version] for key, version in self.objects.items()}
            return http.answer_versions(call, versions, self.store_ms)
        version = self.objects.get(call.key)
        if version is not None:
            return http.answer_object(version, self.store_ms, is_head=call.kind == "head")
        if call.kind == "head":
            return http.answer(404, self.store_ms)
        return self._refuse("NoSuchKey", call.key)

    def _list(self, call: Call) -> str:
        """Return a page of a listing, written anew only when something under its prefix changed."""
        most = min(call.most, self.page)
        asked = (call.prefix, call.after, most, call.is_encoded)
        listing = self._listings.get(asked)
        if listing is None:
            listing = http.write_listing(call, self.objects, most=most)
            self._listings[asked] = listing
        return listing

    def _forget_listings(self, key: str) -> None:
        """Forget the listings that a change of this key changes."""
        changed = [asked for asked in self._listings if key.startswith(asked[0])]
        for asked in changed:
            del self._listings[asked]

    def carry_out(self, call: Call, sending: Sending, captured: Version | None = None) -> Reply:
        """Let a request that was accepted take effect, and answer."""
        if call.kind == "copy":
            return self._copy(call, sending, captured)
        if call.kind == "put":
            return self._put(call, sending)
        if call.kind == "delete":
            old = self.objects.get(call.key)
            is_met = not call.if_match or (old is not None and old.etag == call.if_match)
            if self.is_strict and not is_met:
                return self._refuse("PreconditionFailed", call.key)
            self._delete(call.key, sending)
            return http.answer(204, self.store_ms)
        for key in call.keys:
            self._delete(key, sending)
        return http.answer_deletes({}, self.store_ms)

    def has_expired(self, sending: Sending) -> bool:
        """Tell whether the store accepts no more what was signed then."""
        return self.store_ms > sending.expires_at_ms

    def refuse_late(self, call: Call) -> Reply:
        """Answer a request that has expired."""
        if call.kind == "delete_many":
            return http.answer_deletes(dict.fromkeys(call.keys, "AccessDenied"), self.store_ms)
        return self._refuse("AccessDenied", call.key, "Request has expired")

    def find_source(self, call: Call) -> Version | Reply:
        """Return what a copy would copy, or why it does not."""
        source = self.objects.get(call.source)
        if source is None:
            return self._refuse("NoSuchKey", call.source)
        if call.source_if_match and source.etag != call.source_if_match:
            return self._refuse("PreconditionFailed", call.key)
        return source

    def answer_ghost(self, call: Call) -> Reply:
        """Answer as the gateway does when a copy was taken before it looked at it."""
        return self._refuse("NoSuchKey", call.key)

    def _refuse(self, code: str, key: str, message: str = "") -> Reply:
        return http.answer_error(code, self.store_ms, key=key, message=message)

    def _replay(self, call: Call, sending: Sending) -> None:
        """Let a request come a second time."""
        if not self.has_expired(sending):
            self.has_replayed = True
            self.carry_out(call, replace(sending, is_replay=True))

    def _put(self, call: Call, sending: Sending) -> Reply:
        if call.if_absent and self.is_strict and call.key in self.objects:
            return self._refuse("PreconditionFailed", call.key)
        made = Version(
            "",
            call.body,
            get_etag(call.body),
            self.store_ms,
            sending.by,
            dict(call.metadata),
            dict(call.headers),
        )
        made = self._store(call.key, made)
        headers = {"etag": f'"{made.etag}"'}
        if made.id:
            headers["x-amz-version-id"] = made.id
        return http.answer(200, self.store_ms, b"", headers)

    def _copy(self, call: Call, sending: Sending, captured: Version | None) -> Reply:
        source = captured or self.find_source(call)
        if isinstance(source, Reply):
            return source
        old = self.objects.get(call.key)
        if call.if_absent and self.is_strict and old is not None:
            return self._refuse("PreconditionFailed", call.key)
        kept = call if call.replaces else source
        made = replace(
            source,
            at_ms=self.store_ms,
            by=sending.by,
            metadata=dict(kept.metadata),
            headers=dict(kept.headers),
        )
        is_declared = old is not None and self._is_in_window(call.key, old, sending)
        made = self._store(
            call.key, made, is_declared=is_declared, plan=sending.plan, is_replay=sending.is_replay
        )
        return http.answer_copy(made, self.store_ms)

    def _store(
        self,
        key: str,
        made: Version,
        *,
        is_declared: bool = False,
        plan: str = "",
        is_replay: bool = False,
    ) -> Version:
        """Put a version at a key; return it with its id."""
        old = self.objects.get(key)
        if self.is_versioned:
            made = replace(made, id=self._make_version_id())
            self.versions.setdefault(key, []).append(made)
        self.objects[key] = made
        self._forget_listings(key)
        if made.label:
            self.labels[made.etag] = made.label
            self.history.append(
                Event(
                    self.now_ms,
                    made.by,
                    "put",
                    key,
                    made.label,
                    old,
                    is_declared=is_declared,
                    plan=plan,
                    is_replay=is_replay,
                )
            )
            if self.polls and key.startswith("ready/"):
                self.take(key, by_version=self.takes_versions)
        return made

    def _pop(self, key: str) -> Version | None:
        """Take a key's object away; a versioned bucket keeps it under a marker."""
        if self.is_versioned:
            marker = Version("", b"", "", self.store_ms, "", is_marker=True)
            marker = replace(marker, id=self._make_version_id())
            self.versions.setdefault(key, []).append(marker)
        self._forget_listings(key)
        return self.objects.pop(key, None)

    def _make_version_id(self) -> str:
        self._version_ids += 1
        return f"v{self._version_ids}"

    def _delete(self, key: str, sending: Sending) -> None:
        old = self._pop(key)
        if old is not None and old.label:
            is_declared = self._is_in_window(key, old, sending)
            self.history.append(
                Event(
                    self.now_ms,
                    sending.by,
                    "delete",
                    key,
                    "",
                    old,
                    is_declared=is_declared,
                    plan=sending.plan,
                    is_replay=sending.is_replay,
                )
            )

    def _is_in_window(self, key: str, old: Version, sending: Sending) -> bool:
        """Tell whether this harm to a foreign version is one that the plan declares."""
        looks = sending.looks
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

    def scan(self) -> Iterator[Entry]:
        """Yield the lines."""
        return iter(self.read())

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
        text = _encode(data)
        digest = hashlib.sha256(f"{seq} {at} {kind} {text} {prev}".encode()).hexdigest()
        return Entry(seq, at, kind, json.loads(text), prev, digest)


class SimHold:
    """The worker, held through the world."""

    way_back = "Start the worker."

    def __init__(self, process: Process) -> None:
        self._process = process
        self.holds = process.world.is_held
        self.words = "the worker is paused" if self.holds else "nobody holds the worker"

    def is_paused(self) -> bool:
        """Return whether it is paused, by us or by a person; it may not answer."""
        self._process.touch()
        if self._process.choose("ask", (), "blind"):
            raise MoversError("the worker did not answer")
        return bool(self._process.world.paused_by) or not self._process.world.is_held

    def pause(self) -> None:
        """Pause it; the answer may be lost."""
        self._set("pause", "us", MoversError)

    def check(self) -> None:
        """Make sure that it is paused, and that its pass has ended."""
        if not self.is_paused():
            raise MoversError("the worker is not paused")
        if self.holds and self._process.world.is_worker_busy:
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


@cache
def _make_settings(name: str) -> dict[str, Any]:
    """Return what a bucket knows; made once, because its TLS context takes longer than a run."""
    bucket = S3Bucket(endpoint="sim:0", bucket=name, access_key="sim", secret_key="sim")
    return vars(bucket)


_reads: dict[tuple[object, ...], Message] = {}
"""Every read that was asked, and its message: runs have nearly all of them in common."""


class SimBucket(S3Bucket):
    """The production bucket, over the connections of a process, without signatures."""

    def __init__(self, process: Process) -> None:
        name = "strict" if process.world.is_strict else "loose"
        vars(self).update(_make_settings(name))
        self.world = process.world
        self._http = SimConnections(process, name)

    def _make_message(
        self, request: Request, at: datetime | None = None, expires_s: int = 900
    ) -> Message:
        """Return a message; a read's is made once, since nothing depends on its signature."""
        if at is not None:
            return super()._make_message(request, at, expires_s)
        asked = (self.name, request.kind, request.key, *request.query.items())
        message = _reads.get(asked)
        if message is None:
            message = super()._make_message(request)
            _reads[asked] = message
        return message

    def _sign(
        self,
        what: str,  # noqa: ARG002
        query: Mapping[str, str],
        headers: Mapping[str, str],  # noqa: ARG002
        at: datetime,
        expires_s: int,
    ) -> str:
        """Return a query with date and expiry alone: what the simulated store reads."""
        return http.sign(query, at, expires_s)


class SimConnections:
    """The connections of a process to its world's store, with ``Connections``'s behaviour.

    Parameters
    ----------
    bucket : the name of the only one that there is
    """

    def __init__(self, process: Process, bucket: str) -> None:
        self._process = process
        self._world = process.world
        self._bucket = bucket

    def exchange(
        self,
        messages: Sequence[Callable[[], Message]],
        take: Callable[[int, Reply], None] = lambda _index, _reply: None,
        *,
        resend: bool = False,
        sink: Sink | None = None,
    ) -> list[Reply]:
        """Send messages one by one, changes in the order that the director wants."""
        process, world = self._process, self._world
        process.touch()
        requests = [http.read_message(make(), self._bucket) for make in messages]
        replies = [_NOT_SENT] * len(requests)
        called_at_ms = world.now_ms
        looks = process.looks if resend else dict(process.looks)
        is_silent = False
        places: Sequence[int] = (0,) if len(requests) == 1 else self._choose_order(requests)
        for place in places:
            call, expires_at_ms = requests[place]
            if is_silent:
                reply = _NOT_ASKED
            elif call.is_change:
                sending = Sending(process.name, process.plan, called_at_ms, expires_at_ms, looks)
                reply = self._change(call, sending)
            else:
                reply = self._read(call)
            process.touch()
            if resend and reply is _SILENT:
                is_silent = True
            if sink is not None and reply.status == 200:
                sink(reply.body)
                reply = replace(reply, body=b"")
            replies[place] = reply
            take(place, reply)
        return replies

    def _choose_order(self, requests: Sequence[tuple[Call, int]]) -> Sequence[int]:
        """Let the director order the changes: of up to three in every way."""
        calls = [call for call, _ in requests]
        places = tuple(range(len(calls)))
        if not calls or not all(call.is_change for call in calls):
            return places
        orders: dict[str, Sequence[int]] = {
            "order:reversed": places[::-1],
            "order:rotated": (*places[1:], places[0]),
        }
        if len(calls) <= 3:
            others = list(permutations(places))[1:]
            orders = {f"order:{'-'.join(map(str, order))}": order for order in others}
        keys = [key for call in calls for key in call.touched]
        chosen = self._process.choose("order", keys, " ".join(orders))
        return orders.get(chosen, places)

    def _read(self, call: Call) -> Reply:
        process, keys = self._process, call.touched
        process.begin(call.verb, keys)
        self._world.advance(_READ_MS)
        fate = process.choose(call.verb, keys, _LOOK_OPTIONS)
        if fate == "silent":
            self._world.advance(_TIMEOUT_MS)
        if fate:
            return _BLIND[fate]
        process.looks.update(dict.fromkeys(keys, self._world.now_ms))
        return self._world.read(call)

    def _change(self, call: Call, sending: Sending) -> Reply:
        process, world, keys = self._process, self._world, call.touched
        process.begin(call.kind, keys)
        options = _COPY_OPTIONS if call.kind == "copy" else _CHANGE_OPTIONS
        fate = process.choose(call.kind, keys, options)
        world.advance(_REQUEST_MS)
        if fate in _WITHOUT_EFFECT:
            return _WITHOUT_EFFECT[fate]
        if world.has_expired(sending):
            return world.refuse_late(call)
        if world.is_held and not world.paused_by and not keys[0].startswith(".runbook/"):
            world.unheld.append(f"{call.kind} {keys[0]}")
        if fate in ("late", "die-late", "slow"):
            self._delay(call, sending, fate)
            return http.NO_ANSWER
        reply = world.carry_out(call, sending)
        if fate == "twice":
            world.plan_for(_REPLAY_MS, "replay", call, sending)
        if fate == "ghost":
            return world.answer_ghost(call)
        return _OTHER_ANSWER.get(fate, reply)

    def _delay(self, call: Call, sending: Sending, fate: str) -> None:
        """Let a request take effect late: accepted only just, or accepted now."""
        world = self._world
        if fate == "slow":
            source = world.find_source(call) if call.kind == "copy" else None
            if not isinstance(source, Reply):
                world.plan_for(EFFECT_MS - 100, "request", call, sending, source)
            return
        left_ms = sending.expires_at_ms - world.store_ms + EFFECT_MS + SPREAD_MS
        world.plan_for(left_ms - 100, "request", call, sending)
        if fate == "die-late":
            self._process.kill(power=False)
        world.advance(_TIMEOUT_MS)


def get_etag(body: bytes) -> str:
    """Return the ETag that a plain put gets."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _when(item: tuple[int, int, str, tuple[Any, ...]]) -> tuple[int, int]:
    return item[:2]
