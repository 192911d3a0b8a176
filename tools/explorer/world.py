"""A store, a worker, consumers and disks in memory, in which nothing happens by chance.

The world outlives every process, and keeps a history of all that happened to planned content. It
knows neither the engine's plans nor what the engine writes under ``.runbook/``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import wire
from .engine import http
from .wire import Call, Version

#: G and S: the most that an effect may come after its acceptance, and clocks of nodes differ.
EFFECT_MS, SPREAD_MS = 10_000, 5_000
#: A look may be so old when a request is sent that rests on it.
_LOOK_MS = 2_100
OURS = ".runbook/"
SOURCE, TO, PARKED = "pending/", "ready/", "parked/"

Kind = Literal["strict", "loose", "rename", "putting"]
"""Of a store: honours every condition; none on what it writes and deletes; every one, and renames.
"""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a key, or that a person said of it.

    Attributes
    ----------
    by : a process's number, or who else
    verb : ``put`` and ``delete`` (by a process); ``put``, ``remove`` and ``read`` (by others);
        ``pause`` and ``resume`` (of the worker, by us); ``known_gone``: a process saw that the
        planned content was not there, and has saved since;
        ``not_taken``, ``taken``, ``cancelled``, ``unproven``, ``undo``: what was said
    label : of a put and a read: the content
    old : the version that was removed or replaced
    is_declared : harm to a foreign version, in the window that the plan states
    plan : which plan the process carried out
    is_replay : a proxy sent the request a second time
    index : of ``known_gone``: how long the history was when the process saw it; of a change by a
        process: when it was handed over
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
    index: int = 0

    @property
    def is_ours(self) -> bool:
        return self.by.isdigit()


@dataclass
class Disk:
    """The file of one log: kinds and contents. From ``synced`` on, none survives a power cut."""

    entries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    synced: int = 0


@dataclass
class Folder:
    disks: dict[str, Disk] = field(default_factory=dict)
    plans: dict[str, Any] = field(default_factory=dict)

    def get_disk(self, plan: str) -> Disk:
        return self.disks.setdefault(plan, Disk())

    def copy(self) -> Folder:
        """Return a copy of the whole folder, as ``cp -r`` makes it: what is not synced, too."""
        disks = {
            name: Disk(list(disk.entries), len(disk.entries)) for name, disk in self.disks.items()
        }
        return Folder(disks, dict(self.plans))

    def copy_first(self, plan: str, count: int) -> Folder:
        """Return an older copy of the folder, in which a log has ``count`` lines."""
        older = self.copy()
        older.disks[plan] = Disk(self.get_disk(plan).entries[:count], count)
        return older

    def cut_power(self) -> None:
        """Lose what was not synced."""
        for disk in self.disks.values():
            del disk.entries[disk.synced :]


@dataclass
class Machine:
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
    looks: dict[str, int] = field(repr=False)
    index: int = 0
    is_replay: bool = False


class World:
    """All that outlives a process.

    Parameters
    ----------
    kind : of store; a ``putting`` one is strict, and does not copy
    polls : a consumer takes whatever comes to the destination at once
    is_held : the worker can be paused by us
    has_parking : we may put objects under the parking prefix

    Attributes
    ----------
    objects : what lies at each key now
    history : what happened, for the audits
    unheld : changes of ours while the worker could move
    has_replayed : whether a proxy has repeated a request that had not expired
    goals : for each plan, the contents (labels) by their source keys
    paused_by : who has paused the worker: nobody, ``us`` or ``person``
    """

    def __init__(
        self,
        kind: Kind,
        *,
        polls: bool = False,
        is_held: bool = True,
        has_parking: bool = True,
    ) -> None:
        self.kind = kind
        self.has_parking = has_parking
        self.polls = polls
        self.is_held = is_held
        self.now_ms = 0
        self.store_offset_ms = 1_500
        self.objects: dict[str, Version] = {}
        self.agenda: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self.history: list[Event] = []
        self.labels: dict[str, str] = {}
        self.has_replayed = False
        self.unheld: list[str] = []
        self.goals: dict[str, dict[str, str]] = {}
        self.paused_by = ""
        self.processes = 0
        self.nonces = 0
        self._agreed = 0
        self._listings: dict[tuple[str, str, int], str] = {}

    @property
    def is_strict(self) -> bool:
        return self.kind != "loose"

    @property
    def store_ms(self) -> int:
        return self.now_ms + self.store_offset_ms

    def advance(self, ms: int) -> None:
        until = self.now_ms + ms
        while self.agenda and min(self.agenda, key=_when)[0] <= until:
            item = min(self.agenda, key=_when)
            self.agenda.remove(item)
            self.now_ms = max(self.now_ms, item[0])
            self._do(item[2], item[3])
        self.now_ms = max(self.now_ms, until)

    def plan_for(self, ms: int, what: str, *details: Any) -> None:
        self._agreed += 1
        self.agenda.append((self.now_ms + ms, self._agreed, what, details))

    def _do(self, what: str, details: tuple[Any, ...]) -> None:
        acts: dict[str, Callable[..., object]] = {
            "request": self.carry_out,
            "replay": self._replay,
            "remove": self.remove,
            "finish-work": self._finish_work,
            "saved": self.note_saved,
        }
        acts[what](*details)

    @property
    def is_worker_busy(self) -> bool:
        """Whether the worker has copied and not yet deleted."""
        return any(what == "finish-work" for _, _, what, _ in self.agenda)

    def say(self, verb: str, key: str, plan: str = "") -> None:
        self.history.append(Event(self.now_ms, "person", verb, key, plan=plan))

    def note_saved(self, state: str, by: str, seen_gone: Mapping[str, int]) -> None:
        """Note what a process has seen empty, if it is who wrote the state last."""
        saved = self.objects.get(state)
        if saved is None or saved.by != by:
            return
        for key, index in seen_gone.items():
            self.history.append(Event(self.now_ms, by, "known_gone", key, index=index))

    def write(self, key: str, label: str, by: str) -> None:
        """Let someone write content of their own; the same label is the same bytes."""
        body = label.encode()
        self._store(key, Version(label, body, get_etag(body), self.store_ms, by))

    def remove(self, key: str, by: str) -> None:
        old = self._pop(key)
        if old is not None:
            self.history.append(Event(self.now_ms, by, "remove", key, old=old))

    def remove_memory(self, prefix: str = OURS) -> None:
        """Let a tidy colleague, or a rule, remove what we keep in the bucket of our own."""
        ours = [key for key in self.objects if key.startswith(prefix)]
        for key in ours:
            self._pop(key)

    def take(self, key: str, delete_after_ms: int = 0) -> None:
        """Let a consumer take what is at a key: it reads, and deletes now or later."""
        version = self.objects[key]
        self.history.append(Event(self.now_ms, "consumer", "read", key, version.label))
        if delete_after_ms:
            self.plan_for(delete_after_ms, "remove", key, "consumer")
        else:
            self.remove(key, "consumer")

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

    def read(self, call: Call) -> http.Reply:
        if call.kind == "list":
            return wire.answer(200, self.store_ms, self._list(call))
        version = self.objects.get(call.key)
        if version is not None:
            return wire.answer_object(version, self.store_ms, is_head=call.kind == "head")
        if call.kind == "head":
            return wire.answer(404, self.store_ms)
        return self._refuse("NoSuchKey", call.key)

    def _list(self, call: Call) -> str:
        asked = (call.prefix, call.after, call.most)
        listing = self._listings.get(asked)
        if listing is None:
            listing = wire.write_listing(call, self.objects)
            self._listings[asked] = listing
        return listing

    def _forget_listings(self, key: str) -> None:
        changed = [asked for asked in self._listings if key.startswith(asked[0])]
        for asked in changed:
            del self._listings[asked]

    def carry_out(
        self, call: Call, sending: Sending, captured: Version | None = None
    ) -> http.Reply:
        if call.kind == "copy":
            return self._copy(call, sending, captured)
        if call.kind == "rename":
            return self._rename(call, sending)
        if call.kind == "put":
            return self._put(call, sending)
        if call.kind == "delete":
            if not self._is_met(call.key, call.if_match):
                return self._refuse("PreconditionFailed", call.key)
            self._delete(call.key, sending)
            return wire.answer(204, self.store_ms)
        failed = {}
        for key, etag in call.keys.items():
            if self._is_met(key, etag):
                self._delete(key, sending)
            else:
                failed[key] = "PreconditionFailed"
        return wire.answer_deletes(failed, self.store_ms)

    def _is_met(self, key: str, etag: str) -> bool:
        """Tell whether a delete may take effect: AWS honours the condition of what is there."""
        old = self.objects.get(key)
        is_other = old is None or old.etag != etag
        return not (self.is_strict and etag and is_other)

    def has_expired(self, sending: Sending) -> bool:
        """Tell whether the store accepts no more what was signed then."""
        return self.store_ms > sending.expires_at_ms

    def refuse_late(self, call: Call) -> http.Reply:
        if call.kind == "delete_many":
            return wire.answer_deletes(dict.fromkeys(call.keys, "AccessDenied"), self.store_ms)
        return self._refuse("AccessDenied", call.key, "Request has expired")

    def find_source(self, call: Call) -> Version | http.Reply:
        """Return what a copy or a rename would take, or why it does not."""
        source = self.objects.get(call.source)
        if source is None:
            return self._refuse("NoSuchKey", call.source)
        if call.source_if_match and source.etag != call.source_if_match:
            return self._refuse("PreconditionFailed", call.key)
        return source

    def answer_ghost(self, call: Call) -> http.Reply:
        """Answer as the gateway does when a copy was taken before it looked at it."""
        return self._refuse("NoSuchKey", call.key)

    def _refuse(self, code: str, key: str, text: str = "") -> http.Reply:
        return wire.answer_error(code, self.store_ms, key=key, text=text)

    def _replay(self, call: Call, sending: Sending) -> None:
        if not self.has_expired(sending):
            self.has_replayed = True
            self.carry_out(call, replace(sending, is_replay=True))

    def _put(self, call: Call, sending: Sending) -> http.Reply:
        old = self.objects.get(call.key)
        if self.is_strict and call.if_match and old is None:
            return self._refuse("NoSuchKey", call.key)
        is_other = old is not None and call.if_match not in ("", old.etag)
        is_taken = call.if_absent and old is not None
        if self.is_strict and (is_other or is_taken):
            return self._refuse("PreconditionFailed", call.key)
        etag = get_etag(call.body)
        label = self.labels.get(etag, "")
        made = Version(label, call.body, etag, self.store_ms, sending.by)
        self._store(call.key, made, sending)
        return wire.answer(200, self.store_ms, b"", {"etag": f'"{made.etag}"'})

    def _copy(self, call: Call, sending: Sending, captured: Version | None) -> http.Reply:
        source = captured or self.find_source(call)
        if isinstance(source, http.Reply):
            return source
        if self.kind == "putting":
            return self._refuse("NotImplemented", call.key)
        if call.if_absent and self.is_strict and call.key in self.objects:
            return self._refuse("PreconditionFailed", call.key)
        made = replace(source, at_ms=self.store_ms, by=sending.by)
        self._store(call.key, made, sending)
        return wire.answer_copy(made, self.store_ms)

    def _rename(self, call: Call, sending: Sending) -> http.Reply:
        """Move an object in one step: it keeps ETag and LastModified.

        A store that does not know renames refuses, or takes the request for a put without content.
        """
        if self.kind in ("strict", "putting"):
            return self._refuse("NotImplemented", call.key)
        if self.kind == "loose":
            return self._put(call, sending)
        source = self.find_source(call)
        if isinstance(source, http.Reply):
            return source
        if call.if_absent and call.key in self.objects:
            return self._refuse("PreconditionFailed", call.key)
        # The one step is two events: the put first, so that the content is never nowhere.
        polls, self.polls = self.polls, False
        self._store(call.key, replace(source, by=sending.by), sending)
        self._delete(call.source, sending)
        self.polls = polls
        self._offer(call.key)
        return wire.answer(200, self.store_ms, b"")

    def _store(self, key: str, made: Version, sending: Sending | None = None) -> None:
        old = self.objects.get(key)
        self.objects[key] = made
        self._forget_listings(key)
        if not made.label:
            return
        self.labels[made.etag] = made.label
        event = Event(self.now_ms, made.by, "put", key, made.label, old)
        if sending is not None:
            is_declared = old is not None and self._is_in_window(key, old, sending)
            event = self._sign(replace(event, is_declared=is_declared), sending)
        self.history.append(event)
        self._offer(key)

    def _offer(self, key: str) -> None:
        """Let the consumer that polls take what has come."""
        if self.polls and key.startswith(TO):
            self.take(key)

    def _pop(self, key: str) -> Version | None:
        self._forget_listings(key)
        return self.objects.pop(key, None)

    def _delete(self, key: str, sending: Sending) -> None:
        old = self._pop(key)
        if old is not None and old.label:
            is_declared = self._is_in_window(key, old, sending)
            event = Event(self.now_ms, sending.by, "delete", key, old=old, is_declared=is_declared)
            self.history.append(self._sign(event, sending))

    def _sign(self, event: Event, sending: Sending) -> Event:
        """Return an event that says whose it is."""
        return replace(event, plan=sending.plan, is_replay=sending.is_replay, index=sending.index)

    def _is_in_window(self, key: str, old: Version, sending: Sending) -> bool:
        """Tell whether this harm to a foreign version is one that the plan declares."""
        looks = sending.looks
        prefix = key.rpartition("/")[0] + "/"
        looked_at_ms = max(looks.get(key, -(1 << 40)), looks.get(prefix, -(1 << 40)))
        return (
            not self.is_strict
            and old.at_ms - self.store_offset_ms >= looked_at_ms
            and sending.called_at_ms - looked_at_ms <= _LOOK_MS
            and self.store_ms <= sending.expires_at_ms + EFFECT_MS + SPREAD_MS
        )


def get_etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def get_name(key: str) -> str:
    return key.rpartition("/")[2]


def list_happened(world: World, name: str) -> Sequence[Event]:
    """Return what happened to the objects of one name, wherever they lay."""
    return [event for event in world.history if get_name(event.key) == name]


def _when(item: tuple[int, int, str, tuple[Any, ...]]) -> tuple[int, int]:
    return item[:2]
