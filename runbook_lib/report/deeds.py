"""What was done, in words that a tired person reads. Pure."""

from __future__ import annotations

from ..model import ActionPhase, Json
from ..show.text import clip
from .story import ActionStory

__all__ = ["count_moved", "say_deeds"]

_DEEDS = {
    "release": "released {n} by move",
    "undo": "took {n} back",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {n} for an exercise",
    "revert_synthetic": "removed {n} of an exercise",
}
_COUNTS = ("moved", "created", "removed")


def say_deeds(actions: list[ActionStory]) -> str:
    """Return one sentence about actions that changed the world, in their order."""
    text = "; ".join(_say(action) for action in actions)
    return text[:1].upper() + text[1:]


def count_moved(action: ActionStory) -> int:
    """Return how many objects a release moved; 0 when it moved none or says nothing."""
    return _count(action.result(ActionPhase.APPLIED), ("moved",)) or 0


def _say(action: ActionStory) -> str:
    first = action.first
    words = _DEEDS.get(first.action, f"{first.action.replace('_', ' ')}: {{target}}")
    number = _count(action.result(ActionPhase.APPLIED), _COUNTS)
    noun = "synthetic object" if "synthetic" in first.action else "object"
    amount = "" if number is None else f"{number:,} "
    objects = f"{amount}{noun}{'' if number == 1 else 's'}"
    # a target may hold braces: it is put in by replacement, never by format
    text = words.replace("{n}", objects).replace("{target}", clip(first.target, 70))
    return f"{text} ({_judge(action)})"


def _judge(action: ActionStory) -> str:
    """Say what the check after it found."""
    applied = max(i for i, (_, a) in enumerate(action.phases) if a.phase is ActionPhase.APPLIED)
    after = [a.phase for _, a in action.phases[applied:]]
    if ActionPhase.FAILED in after[-1:]:
        return "the check afterwards failed"
    if ActionPhase.VERIFIED not in after:
        return "not verified"
    return "proven" if action.first.action in ("release", "undo") else "verified"


def _count(result: dict[str, Json], names: tuple[str, ...]) -> int | None:
    found = (result.get(name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)
