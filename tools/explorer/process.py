"""One run of our program in the world: its clock, its disk, its worker and its store.

A ``Director`` is asked before every effect of a process what else happens first, and what becomes
of the effect. ``SimBucket`` is the production bucket over ``SimConnections``: what it makes of a
raw answer is what runs here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import permutations
from typing import Any, Protocol

from chainlog import LogError

from . import wire
from .engine import bucket, errors, http
from .wire import Call, to_datetime
from .world import EFFECT_MS, OURS, SPREAD_MS, Event, Machine, Sending, World

#: What may become of a request that changes something; of a copy and a rename, ``COPY_FATES`` too.
CHANGE_FATES = (
    "refused",
    "lost",
    "dropped",
    "late",
    "slow",
    "die-late",
    "twice",
    *wire.ROUTER,
    "router-after",
)
COPY_FATES = ("ghost", "slowdown")
#: What may become of a request that only reads.
LOOK_FATES = ("blind", "silent", "router-404", "router-200", "router-503")

_CHANGE_OPTIONS = " ".join(CHANGE_FATES)
_COPY_OPTIONS = " ".join(CHANGE_FATES + COPY_FATES)
_LOOK_OPTIONS = " ".join(LOOK_FATES)
_OVERSLEPT_S = 33.0
_REQUEST_MS, _READ_MS, _TIMEOUT_MS, _REPLAY_MS = 4, 2, 10_000, 3_000

Reply = http.Reply
_NOT_SENT = Reply(http.NOT_SENT, error="connection refused")
_INTERRUPTED = Reply(http.NOT_SENT, error="interrupted")
_SILENT = Reply(http.NO_ANSWER, error="no answer in time")
_NOT_ASKED = Reply(http.NOT_SENT, error="no answer in time")
#: Fates in which the request does not reach the store, or has no effect there.
_WITHOUT_EFFECT: Mapping[str, http.Reply] = {
    "refused": _NOT_SENT,
    "dropped": wire.UNAVAILABLE,
    # MinIO takes its rename back before it answers so: nobody sees it
    "slowdown": wire.SLOW_DOWN,
    **wire.ROUTER,
}
#: Fates in which it takes effect at once, and something else is answered.
_OTHER_ANSWER: Mapping[str, http.Reply] = {
    "lost": wire.NO_ANSWER,
    "router-after": wire.ROUTER["router-404"],
}
_BLIND: Mapping[str, http.Reply] = {
    "blind": wire.NO_ANSWER,
    "silent": _SILENT,
    **wire.ROUTER,
}


class Killed(BaseException):
    """The process is dead: nothing that it still tries has an effect."""


class Director(Protocol):
    """Decides what happens."""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let things happen before a process reads or changes something.

        May raise ``Killed`` or ``KeyboardInterrupt``.
        """

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:
        """Return one of the options (words), or an empty text for the usual."""


class Quiet:
    """The director of a world in which nothing happens."""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let nothing happen."""

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:  # noqa: ARG002
        """Choose the usual."""
        return ""


class Process:
    """One run of our program on a machine; when it is dead nothing of it has an effect.

    Attributes
    ----------
    plan : which plan it carries out
    looks : when it last looked at a key, or a prefix
    lag_ms : how long its clocks stood still
    saved_at : how long the history was when it last saved
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
        self.saved_at = 0
        self._seen_gone: dict[str, int] = {}
        #: What a person answers, with keys and plan: it is said once the engine has accepted it.
        self.answers: list[tuple[str, str, str]] = []

    def log(self, plan: str) -> SimLog:
        return SimLog(self, plan)

    def touch(self) -> None:
        """Do nothing more when dead."""
        if self.is_dead:
            raise Killed

    def kill(self, *, power: bool) -> None:
        self.is_dead = True
        if power:
            self.machine.folder.cut_power()
        raise Killed

    def begin(self, verb: str, keys: Sequence[str] = ()) -> None:
        """Ask the director before each thing that touches the world."""
        self.touch()
        self.director.before(self, verb, keys)
        self.touch()

    def choose(self, verb: str, keys: Sequence[str], options: str) -> str:
        return self.director.choose(self, verb, keys, options)

    def see_gone(self, keys: Sequence[str]) -> None:
        """Note which of these keys, or under these prefixes, do not have planned content now."""
        for goals in self.world.goals.values():
            for key, label in goals.items():
                is_asked = any(key == one or key.startswith(one) for one in keys)
                there = self.world.objects.get(key)
                if is_asked and (there is None or there.label != label):
                    self._seen_gone[key] = len(self.world.history)

    def take_seen_gone(self) -> dict[str, int]:
        """Return what it has seen empty and not saved, which is saved now."""
        seen, self._seen_gone = self._seen_gone, {}
        return seen

    def copy_seen_gone(self) -> dict[str, int]:
        """Return what it has seen empty and not saved, which may be saved later."""
        return dict(self._seen_gone)


class SimClock:
    """The clocks of a process's machine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._naps = 0

    def now(self) -> datetime:
        process = self._process
        return to_datetime(process.world.now_ms + process.machine.offset_ms - process.lag_ms)

    def monotonic(self) -> float:
        """Return seconds that do not jump."""
        return (self._process.world.now_ms - self._process.lag_ms) / 1000

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; who naps often oversleeps, so that waits are few steps."""
        self._process.begin("sleep")
        if 0 < seconds < 1:
            self._naps += 1
            seconds = seconds if self._naps == 1 else _OVERSLEPT_S
        self._process.world.advance(int(seconds * 1000) + 1)
        self._process.touch()


class SimLog:
    """A log on a disk that may fail; the engine writes it for people, and never reads it."""

    def __init__(self, process: Process, plan: str) -> None:
        self.process = process
        self._disk = process.machine.folder.get_disk(plan)

    def append(self, kind: str, data: Mapping[str, Any], *, sync: bool = True) -> None:
        if kind == "answered":
            for answer in self.process.answers:
                self.process.world.say(*answer)
        self.process.begin(f"append:{kind}")
        fate = self.process.choose(f"append:{kind}", (), "fsync-gone fsync-kept")
        if fate != "fsync-gone":
            self._disk.entries.append((kind, data))
        if fate:
            raise LogError("cannot write the log: no space left on device")
        if sync:
            self._disk.synced = len(self._disk.entries)


class SimHold:
    """The worker, held through the world; each machine describes it in its own words."""

    name = "worker"
    way_back = "Start the worker."

    def __init__(self, process: Process) -> None:
        self._process = process
        self.can_pause = process.world.is_held
        self.words = f"the worker is paused by {process.machine.name}"
        if not self.can_pause:
            self.words = "nobody holds the worker"

    def is_paused(self) -> bool:
        self._process.touch()
        if self._process.choose("asked", (), "blind"):
            raise errors.MoversError("the worker did not answer")
        return bool(self._process.world.paused_by) or not self._process.world.is_held

    def pause(self) -> None:
        """Pause it; the answer may be lost."""
        self._set("pause", "us", errors.MoversError)

    def check(self) -> None:
        """Make sure that it is paused, and that its pass has ended."""
        if not self.is_paused():
            raise errors.MoversError("the worker is not paused")
        if self.can_pause and self._process.world.is_worker_busy:
            self._process.world.advance(1_000)

    def resume(self) -> None:
        """Let it work again; the answer may be lost."""
        self._set("resume", "", errors.MoveError)

    def _set(self, verb: str, paused_by: str, error: type[errors.MoveError]) -> None:
        world = self._process.world
        self._process.begin(verb)
        fate = self._process.choose(verb, (), "lost refused")
        if fate != "refused":
            world.paused_by = paused_by
            world.history.append(Event(world.now_ms, self._process.name, verb, ""))
        if fate:
            raise error(f"the worker did not answer to {verb}")


@cache
def _make_settings(name: str) -> dict[str, Any]:
    """Return what a bucket knows; made once, because its TLS context takes longer than a run."""
    made = bucket.S3Bucket(endpoint="sim:0", bucket=name, access_key="sim", secret_key="sim")  # noqa: S106
    return vars(made)


_reads: dict[tuple[object, ...], http.Message] = {}
"""Every read that was asked, and its message: runs have nearly all of them in common."""


class SimBucket(bucket.S3Bucket):
    """The production bucket, over the connections of a process, without signatures."""

    def __init__(self, process: Process) -> None:
        vars(self).update(_make_settings(process.world.kind))
        self.world = process.world
        self._http = SimConnections(process, process.world.kind)  # type: ignore[assignment]

    def _make_message(
        self, request: bucket.Request, at: datetime | None = None, expires_s: int = 900
    ) -> http.Message:
        """Return a message; a read's is made once, since nothing depends on its signature."""
        if at is not None:
            return super()._make_message(request, at, expires_s)
        asked = (self.bucket, request.kind, request.key, *request.query.items())
        made = _reads.get(asked)
        if made is None:
            made = super()._make_message(request)
            _reads[asked] = made
        return made

    def _sign(
        self,
        method_and_path: str,  # noqa: ARG002
        query: Mapping[str, str],
        headers: Mapping[str, str],  # noqa: ARG002
        at: datetime,
        expires_s: int,
    ) -> str:
        """Return a query with date and expiry alone: what the simulated store reads."""
        return wire.sign(query, at, expires_s)


class SimConnections:
    """The connections of a process to its world's store, with ``Connections``'s behaviour."""

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._world = process.world
        self._name = name

    def exchange(
        self,
        messages: Sequence[Callable[[], http.Message]],
        take: Callable[[int, http.Reply], None] = lambda _index, _reply: None,
        *,
        resend: bool = False,
        sink: http.Sink | None = None,
    ) -> list[http.Reply]:
        """Send messages one by one, changes in the order that the director wants."""
        process, world = self._process, self._world
        process.touch()
        requests = [wire.read_message(make(), self._name) for make in messages]
        replies = [_NOT_SENT] * len(requests)
        called_at_ms = world.now_ms
        index = len(world.history)
        looks = process.looks if resend else dict(process.looks)
        is_silent = False
        interrupt: KeyboardInterrupt | None = None
        places: Sequence[int] = (0,) if len(requests) == 1 else self._choose_order(requests)
        for place in places:
            call, expires_at_ms = requests[place]
            sending = Sending(process.name, process.plan, called_at_ms, expires_at_ms, looks, index)
            try:
                if interrupt is not None:
                    reply = _INTERRUPTED
                elif is_silent:
                    reply = _NOT_ASKED
                elif call.is_change:
                    reply = self._change(call, sending)
                else:
                    reply = self._read(call)
            except KeyboardInterrupt as error:
                interrupt = error
                reply = _INTERRUPTED
            process.touch()
            if resend and reply is _SILENT:
                is_silent = True
            if sink is not None and reply.status == 200:
                sink(reply.body)
                reply = reply._replace(body=b"")
            replies[place] = reply
            take(place, reply)
        if interrupt is not None:
            raise interrupt
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

    def _read(self, call: Call) -> http.Reply:
        process, keys = self._process, call.touched
        process.begin(call.verb, keys)
        self._world.advance(_READ_MS)
        fate = process.choose(call.verb, keys, _LOOK_OPTIONS)
        if fate == "silent":
            self._world.advance(_TIMEOUT_MS)
        if fate:
            return _BLIND[fate]
        process.looks.update(dict.fromkeys(keys, self._world.now_ms))
        if not any(key.startswith(OURS) for key in keys):
            process.see_gone(keys)
        return self._world.read(call)

    def _change(self, call: Call, sending: Sending) -> http.Reply:
        process, world, keys = self._process, self._world, call.touched
        process.begin(call.kind, keys)
        options = _COPY_OPTIONS if call.source else _CHANGE_OPTIONS
        fate = process.choose(call.kind, keys, options)
        world.advance(_REQUEST_MS)
        if fate in _WITHOUT_EFFECT:
            return _WITHOUT_EFFECT[fate]
        if world.has_expired(sending):
            return world.refuse_late(call)
        is_about_objects = not keys[0].startswith(OURS)
        if world.is_held and not world.paused_by and is_about_objects:
            world.unheld.append(f"{call.kind} {keys[0]}")
        if fate in ("late", "die-late", "slow"):
            self._delay(call, sending, fate)
            return wire.NO_ANSWER
        reply = world.carry_out(call, sending)
        if fate == "twice":
            world.plan_for(_REPLAY_MS, "replay", call, sending)
        if fate == "ghost":
            return world.answer_ghost(call)
        if reply.status in (200, 204):
            self._note_evidence(call, is_told=not fate)
        return _OTHER_ANSWER.get(fate, reply)

    def _note_evidence(self, call: Call, *, is_told: bool) -> None:
        """Note what the process knows after a change, or has saved by it."""
        if is_state(call.key) and call.kind == "put":
            self._process.saved_at = len(self._world.history)
            self._world.note_saved(call.key, self._process.name, self._process.take_seen_gone())
        if is_told and call.kind != "put":
            self._process.see_gone(call.touched)

    def _delay(self, call: Call, sending: Sending, fate: str) -> None:
        """Let a request take effect late: accepted only just, or accepted now."""
        world = self._world
        captured = None
        ms = EFFECT_MS - 100
        if fate == "slow":
            source = world.find_source(call) if call.source else None
            if isinstance(source, http.Reply):
                return
            captured = source if call.kind == "copy" else None
        else:
            ms += sending.expires_at_ms - world.store_ms + SPREAD_MS
        world.plan_for(ms, "request", call, sending, captured)
        if is_state(call.key):
            seen = self._process.copy_seen_gone()
            world.plan_for(ms, "saved", call.key, self._process.name, seen)
        if fate == "die-late":
            self._process.kill(power=False)
        if fate != "slow":
            world.advance(_TIMEOUT_MS)


def is_state(key: str) -> bool:
    """Tell whether a key is one of the engine's state objects, which it saves to."""
    return key.startswith((f"{OURS}state", f"{OURS}parts/"))
