"""What to do about the supported causes, and in which order: one plan for all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runbook_lib.model import Json

from .causes import CAUSES, STANDSTILL
from .evidence import Strategy

# It plans everything below and stops; each plan says how to approve it.
_RUN = "runbook run 06"
_WAYS = {
    "release": f"6.1 release by move what is finished ({_RUN})",
    "retrigger": f"6.1 re-trigger the worker ({_RUN})",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What section 5 says, and section 6 plans.

    Attributes
    ----------
    causes : the supported ones
    strategy, why : of 6.1
    action, target, reason : of 6.2; action ``none`` when nothing there helps
    steps : all of it in words, in order, each with the causes that it is for
    """

    causes: tuple[str, ...]
    strategy: Strategy
    why: str
    action: str
    target: str
    reason: str
    steps: tuple[tuple[str, frozenset[str]], ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The steps, numbered."""
        return tuple(f"{n}. {text}" for n, (text, _) in enumerate(self.steps, 1))

    def about(self, cause: str) -> str:
        """Return what of it is for one cause."""
        return "; ".join(text for text, causes in self.steps if cause in causes)


def advise(causes: Sequence[str], seen: Mapping[str, Json], *, worker: str, dag_id: str) -> Advice:
    """Merge what helps against each supported cause.

    What forbids a release comes first. A release by move comes before the repairs, which let the
    worker move again; a re-trigger comes after them, since it needs the worker.

    Parameters
    ----------
    causes : supported ones, in the order in which they are to be dealt with
    seen : all observations; a missing one is unknown
    worker, dag_id : names of the worker's service and of the DAG
    """
    strategy, why = choose_strategy(causes, seen)
    told = {**seen, "worker": worker, "dag": dag_id}
    repairs = {cause: CAUSES[cause].repair(told) for cause in causes}
    stops = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    moved = frozenset(c for c in causes if CAUSES[c].stops_labels and c not in stops)
    mends = [
        (text, frozenset([cause]))
        for cause in sorted(causes, key=lambda cause: cause not in stops)
        for text in (_say(*repairs[cause]), CAUSES[cause].then)
        if text
    ]
    steps = [(f"do not release: {CAUSES[cause].words}", frozenset([cause])) for cause in stops]
    if strategy == "release":
        steps += [(_WAYS[strategy], moved), *mends]
    elif strategy == "retrigger":
        steps += [*mends, (_WAYS[strategy], moved)]
    else:
        steps += mends
        steps += [(f"then plan the release anew ({_RUN})", moved)] if stops and moved else []
    repair = _choose_repair(repairs, worker)
    return Advice(tuple(causes), strategy, why, *repair, tuple(steps))


def choose_strategy(causes: Iterable[str], seen: Mapping[str, Json]) -> tuple[Strategy, str]:
    """Return ``release``, ``retrigger`` or ``none``, and why; see ``advise``."""
    wanted = {c: CAUSES[c].strategy for c in CAUSES if c in set(causes)}
    if stop := [c for c, strategy in wanted.items() if strategy == "none"]:
        return "none", f"do not release: {stop[0]}; see 6.2"
    if seen.get("waiting_real") == 0:
        return "none", "no real object waits"
    if block := [c for c, strategy in wanted.items() if strategy == "release"]:
        return "release", f"the worker cannot do it: {', '.join(block)}"
    if back := [c for c in wanted if c in STANDSTILL]:
        return "retrigger", f"it does its whole job once 6.2 brought it back: {', '.join(back)}"
    if seen.get("overdue_real") == 0:
        return "none", "no real object waits over the threshold, and nothing stops the worker"
    return "retrigger", "no cause was found that stops the worker: it does its whole job"


def _say(action: str, target: str, mind: str) -> str:
    step = f"6.2 {action} {target} ({_RUN})" if target else ""
    return ", then ".join(text for text in (mind, step) if text)


def _choose_repair(
    repairs: Mapping[str, tuple[str, str, str]], worker: str
) -> tuple[str, str, str]:
    """Return action, target and reason for the first cause that an action of 6.2 helps."""
    said = {c: f"{c}: {mind}" if mind else str(c) for c, (*_, mind) in repairs.items()}
    for cause, (action, target, _) in repairs.items():
        if target:
            rest = [str(c) for c in repairs if c is not cause]
            also = f"; also supported: {', '.join(rest)}" if rest else ""
            return action, target, f"{said[cause]}{also}"
    return "none", worker, "; ".join(said.values()) or "no cause is supported: nothing to restart"
