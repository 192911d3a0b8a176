"""Judge what happened in a world, by its history alone.

An audit knows the plans' goals (which content goes from where to where), what a person said, and
what the engine told; of how the engine came to it, it knows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .world import PARKED, SOURCE, TO, Event, World, get_name, list_happened

#: Who is no process of ours.
_OTHERS = ("writer", "someone")
#: How old our last look at a source may be when we resume the worker.
_LOOK_MS = 2_000


class Finding(NamedTuple):
    """A promise that was broken; ``is_declared``: outside of what is promised."""

    promise: int
    text: str
    is_declared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a run, or a proof, said of a plan.

    Attributes
    ----------
    plan : the plan's id
    about : the source keys that it is about; empty: all of the plan
    is_undo : whether it is about taking the plan back
    moved : of how many rows it says that they moved
    skipped, unproven : source keys
    open : how many rows wait, are in doubt or are left
    taken_back : whether it says that the plan was taken back
    """

    plan: str
    about: Collection[str] = ()
    is_undo: bool = False
    moved: int = 0
    skipped: Collection[str] = ()
    unproven: Collection[str] = ()
    open: int = 0
    is_complete: bool = False
    is_ended: bool = False
    is_held: bool = True
    taken_back: bool = False


@dataclass
class Ship:
    """What became of one content at its destination, as far as the history was read.

    Attributes
    ----------
    copies : where in the history ours and the worker's were put that may have shipped the object
        which is at the source now: nobody took them back, and nobody said that none was taken
    ours : those of them that we put there
    is_undone : whether a person confirmed that the consumer is stopped, for an undo
    put_at, put_at_ms : where in the history, and when, the source was put; None: it is not there
    resumed_at_ms : when we resumed the worker
    gone_at : up to where in the history a run has seen the source empty, and has saved that
    """

    copies: list[int] = field(default_factory=list)
    ours: list[int] = field(default_factory=list)
    is_asked: bool = False
    is_undone: bool = False
    put_at: int | None = None
    put_at_ms: int = 0
    resumed_at_ms: int | None = None
    gone_at: int = -1

    @property
    def is_late(self) -> bool:
        """Whether the object was put at its source after our last look before the resume."""
        return self.resumed_at_ms is not None and self.put_at_ms > self.resumed_at_ms - _LOOK_MS

    def keep_copies(self, after: int) -> None:
        """Forget earlier copies: they are not of the object that is at the source now."""
        self.copies = [at for at in self.copies if at >= after]
        self.ours = [at for at in self.ours if at >= after]


def follow_copies(world: World, name: str, label: str) -> Iterator[tuple[Event, Ship]]:
    """Yield each event of one name with what was shipped before it.

    The same bytes that are put at a source again are the same object, until a run has seen the
    source empty before they were put, and has saved that. Then they are a new object. While it is
    told as unproven, nothing makes it a new object but a person's answer. Of what the worker alone
    copied before we did anything, nobody can know: it is a new object, too.
    """
    ship = Ship(resumed_at_ms=None if world.is_held else 0)
    for index, event in enumerate(world.history):
        if event.verb == "resume":
            ship.resumed_at_ms = event.at_ms
        ship.is_undone |= event.verb == "undo"
        if get_name(event.key) != name:
            continue
        yield event, ship
        if event.key == SOURCE + name:
            _follow_source(ship, event, index, label)
        elif event.key == TO + name:
            _follow_destination(ship, event, index, label)
    yield Event(world.now_ms, "", "end", ""), ship


def _follow_source(ship: Ship, event: Event, index: int, label: str) -> None:
    """Take in what happened at the source, and what was said of it."""
    if event.old is not None and event.old.label == label != event.label:
        ship.put_at = None
        if event.by == "worker" or not ship.ours:
            ship.gone_at = index
    elif event.verb == "put" and event.label == label:
        if ship.put_at is None:
            ship.put_at = index
        ship.put_at_ms = event.at_ms
    elif event.verb == "not_taken":
        ship.keep_copies(index)
        ship.is_asked = False
    elif event.verb in ("taken", "unproven"):
        ship.is_asked = True
    elif event.verb == "known_gone":
        ship.gone_at = max(ship.gone_at, event.index)
    if not ship.is_asked and ship.put_at is not None and ship.put_at >= ship.gone_at:
        ship.keep_copies(ship.gone_at)


def _follow_destination(ship: Ship, event: Event, index: int, label: str) -> None:
    if event.verb == "put" and event.label == label:
        # What was put while the worker ran is another object, to the worker.
        if event.is_ours or (event.by == "worker" and not ship.is_late):
            ship.copies.append(index)
        if event.is_ours:
            ship.ours.append(index)
        return
    is_removed = event.verb == "delete" or (event.verb == "put" and ship.is_undone)
    if is_removed and event.old is not None and event.old.label == label:
        del ship.copies[-1:]
        del ship.ours[-1:]


def list_goals(world: World) -> list[tuple[str, str]]:
    goals = {(get_name(key), label) for rows in world.goals.values() for key, label in rows.items()}
    return sorted(goals)


def was_taken(world: World, label: str) -> bool:
    return any(event.verb == "read" and event.label == label for event in world.history)


def is_late(world: World, key: str, label: str) -> bool:
    """Tell whether what lies at a source was put there after we had resumed the worker."""
    *_, (_, ship) = follow_copies(world, get_name(key), label)
    return ship.is_late


def is_disturbed_by_others(world: World) -> bool:
    """Tell whether someone else wrote, removed or took anything since the first plan."""
    is_planned = False
    for event in world.history:
        is_planned |= event.verb == "plan"
        if is_planned and event.by in (*_OTHERS, "worker"):
            return True
    return False


def find_lost(world: World) -> Iterator[Finding]:
    """Find planned content that is nowhere, and we, or our worker, removed the last of it."""
    for name, label in list_goals(world):
        places = set[str]()
        last = ""
        is_excused = False
        is_undone = False
        for event in world.history:
            is_freed = event.verb == "not_taken" and event.key == SOURCE + name
            is_undone |= event.verb == "undo" or is_freed
            if get_name(event.key) != name:
                continue
            if event.old is not None and event.old.label == label:
                places.discard(event.key)
                last = event.by
                is_taken_away = not event.is_ours and event.by != "worker"
                # Whoever takes away what we brought to its place, took it.
                is_copy = event.key == TO + name or event.old.by.isdigit() or is_undone
                is_excused |= is_taken_away and is_copy
            if event.label == label:
                is_excused |= event.verb == "read"
                if event.verb == "put":
                    places.add(event.key)
        is_ours = last.isdigit() or last == "worker"
        if not places and is_ours and not is_excused:
            yield Finding(1, f"{label} is nowhere: {last} removed it", not world.is_held)


def find_forgotten_parked(world: World) -> Iterator[Finding]:
    """Find content that nobody took, and that stays parked after all that was printed was done."""
    for name, label in list_goals(world):
        places = [key for key, version in world.objects.items() if version.label == label]
        is_parked = bool(places) and all(key.startswith(PARKED) for key in places)
        happened = list_happened(world, name)
        is_replaced = any(event.by in _OTHERS and event.label != label for event in happened)
        is_removed = any(event.verb == "remove" for event in happened)
        is_said = any(event.verb == "taken" for event in happened)
        if is_parked and not (is_replaced or is_removed or is_said or was_taken(world, label)):
            yield Finding(4, f"{label} was not taken, and stays parked")


def find_second_copies(world: World) -> Iterator[Finding]:
    """Find what we, or our worker, put at the destination twice."""
    for name, label in list_goals(world):
        is_let_go = False
        for event, ship in follow_copies(world, name, label):
            is_let_go |= event.verb == "let_go"
            is_ship = event.verb == "put" and event.key == TO + name and event.label == label
            is_ours = event.is_ours or event.by == "worker"
            if not (is_ship and is_ours and ship.copies):
                continue
            who = "our worker" if event.by == "worker" else "us"
            text = f"{label} was put at {event.key} again by {who}"
            is_approved = event.by == "worker" and (is_let_go or ship.is_late)
            yield Finding(2, text, is_approved or not world.is_held)


def find_unheld(world: World) -> Iterator[Finding]:
    """Find changes that we made while the worker could move."""
    for what in world.unheld:
        yield Finding(2, f"{what} while the worker may move")


def find_reach(world: World, who: str) -> Iterator[Finding]:
    """Find what our worker would ship a second time if its next pass were now."""
    if not world.is_held or world.paused_by or world.is_worker_busy:
        return
    for name, label in list_goals(world):
        there = world.objects.get(SOURCE + name)
        if there is None or there.label != label or TO + name in world.objects:
            continue
        is_let_go = False
        for event, ship in follow_copies(world, name, label):
            is_let_go |= event.verb == "let_go"
            if event.verb == "end" and ship.ours and not ship.is_late:
                yield Finding(2, f"after {who} our worker ships {label} again", is_let_go)


def find_cancelled(world: World) -> Iterator[Finding]:
    """Find what we sent to the destination after we were told that it must stay."""
    for name, label in list_goals(world):
        cancelled_at = len(world.history)
        for index, event in enumerate(world.history):
            if event.key == SOURCE + name and event.verb == "cancelled":
                cancelled_at = min(cancelled_at, index)
            is_copy = event.is_ours and event.verb == "put" and event.key == TO + name
            if is_copy and event.label == label and event.index > cancelled_at:
                yield Finding(2, f"{label} was cancelled, and was sent")


def find_harm(world: World) -> Iterator[Finding]:
    """Find what we removed or replaced that was not ours to touch."""
    undone = {event.plan for event in world.history if event.verb == "undo"}
    planned = set(list_goals(world))
    for event in world.history:
        if not event.is_ours or event.old is None or not event.old.label:
            continue
        label = event.old.label
        is_declared = event.is_declared or event.is_replay
        if event.verb == "put" and label != event.label:
            yield Finding(3, f"we overwrote {label} at {event.key}", is_declared)
        elif event.verb == "delete" and (get_name(event.key), label) not in planned:
            yield Finding(3, f"we removed {label} from {event.key}", is_declared)
        elif event.verb == "delete" and event.key.startswith(TO) and event.plan not in undone:
            yield Finding(3, f"we removed {label} from {event.key}, and nobody undoes")


def check_told(world: World, told: Told, who: str) -> Iterator[Finding]:
    """Compare what a run says with what is true at that moment."""
    goals = world.goals.get(told.plan, {})
    if told.about:
        goals = {key: goals[key] for key in told.about}
    moved = [key for key, label in goals.items() if _has_moved(world, told, key, label)]
    if told.moved > len(moved):
        yield Finding(3, f"{who} says {told.moved} moved, {len(moved)} are")
    waiting = goals.keys() - moved - {event.key for event in world.history if event.verb == "taken"}
    if told.is_complete and not told.is_undo and waiting:
        yield Finding(3, f"{who} says complete, and something planned waits")
    if told.taken_back and not _list_said(world, "undo", told.plan):
        yield Finding(3, f"{who} says that it was taken back, and nobody did")
    if told.is_undo and told.is_ended:
        yield from _find_uncounted(world, told, who)
    for key in () if told.is_undo else told.skipped:
        copied = [e for e in list_happened(world, get_name(key)) if _is_copy_of(e, told.plan)]
        if copied and copied[-1].label == goals.get(key):
            yield Finding(3, f"{who} says that {key} was skipped, and it was copied")
    if not told.is_held and world.paused_by == "us":
        yield Finding(5, f"{who} says that the worker is not held, and it is paused")


def _find_uncounted(world: World, told: Told, who: str) -> Iterator[Finding]:
    """Find copies of ours that an undo left at the destination without a word."""
    named = {get_name(key) for key in (*told.skipped, *told.unproven)}
    uncounted = []
    for key, label in world.goals.get(told.plan, {}).items():
        name = get_name(key)
        if name not in named and _is_copy_left(world, key, label, told.plan):
            uncounted.append(name)
    if len(uncounted) > told.open:
        yield Finding(3, f"{who} took back, and says nothing of our copies of {uncounted}")


def _has_moved(world: World, told: Told, key: str, label: str) -> bool:
    """Tell whether content came to where it goes, left where it was, and was not brought back."""
    name = get_name(key)
    from_, to = (TO, SOURCE) if told.is_undo else (SOURCE, TO)
    has_come = told.is_undo
    has_left = False
    for event in list_happened(world, name):
        is_put = event.verb == "put" and event.label == label
        if is_put and event.key == to + name:
            has_come = True
        elif is_put and event.key == from_ + name and event.plan == told.plan:
            has_left = False
        elif event.key == to + name and event.verb == "delete" and event.plan == told.plan:
            has_come = told.is_undo
        elif event.key == from_ + name and event.old is not None and event.old.label == label:
            has_left = True
    there = world.objects.get(from_ + name)
    is_gone = there is None or there.label != label
    return has_come and (has_left or is_gone)


def _is_copy_left(world: World, key: str, label: str, plan: str) -> bool:
    """Tell whether the copy of a plan's release is still at its destination."""
    is_left = False
    for event in list_happened(world, get_name(key)):
        if event.key.startswith(TO) and event.verb == "put":
            is_left = event.plan == plan and event.label == label
        elif event.key.startswith(TO) and event.verb in ("delete", "remove"):
            is_left = False
    return is_left


def _is_copy_of(event: Event, plan: str) -> bool:
    """Tell whether an event changed a destination on behalf of a plan."""
    return event.plan == plan and event.key.startswith(TO) and event.verb in ("put", "delete")


def _list_said(world: World, verb: str, plan: str) -> list[Event]:
    return [event for event in world.history if (event.verb, event.plan) == (verb, plan)]


def check_doubts(world: World, keys: Sequence[str], *, is_still: bool) -> Iterator[Finding]:
    """Find questions that nobody should have to answer.

    ``is_still``: nobody takes from the destination since before the release, and a person said so.
    """
    if is_still and not is_disturbed_by_others(world):
        yield Finding(4, "the consumer is stopped, and a person is asked about objects")
    for key in keys if world.kind == "rename" else ():
        happened = list_happened(world, get_name(key))
        puts = [event for event in happened if event.verb == "put" and event.by in _OTHERS]
        places = [place for place in world.objects if get_name(place) == get_name(key)]
        if places and len(puts) < 2:
            yield Finding(4, f"a rename of {key} is asked about, and it is at {places}")


def find_all(world: World) -> Iterator[Finding]:
    yield from find_lost(world)
    yield from find_second_copies(world)
    yield from find_unheld(world)
    yield from find_cancelled(world)
    yield from find_harm(world)
