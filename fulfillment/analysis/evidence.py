"""How causes are judged: rules that weigh named observations. Pure.

A cause is *supported* when the weights of the rules that hold reach 0.6; else *undecided* when an
observation that could decide it is unknown; else *past* when its failures were counted and have
ended; else *undecided* when a rule hints at it; else *refuted*. A cause that makes the observations
of others meaningless (the store is down) leaves those undecided.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from runbook_lib.model import CauseStatus, Finding, Json

_SUPPORTED = 0.6
_HINT = 0.2

Strategy = Literal["release", "retrigger", "none"]
Repair = Callable[[Mapping[str, Json]], tuple[str, str, str]]
"""From what was observed (with ``worker`` and ``dag``, their names) to an action of 6.2, its
target, and what to mind; without a target no action helps, and the words say why."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One observed fact; ``evidence`` refers to the journal. ``value`` None is unknown."""

    value: Json
    evidence: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What one observation says about a cause.

    Attributes
    ----------
    name : of the observation
    holds : tests its value
    weight : above 0 supports, below 0 refutes
    says : the rule in words, when it holds
    decides : whether the cause stays undecided while the observation is unknown
    """

    name: str
    holds: Callable[[Json], bool]
    weight: float
    says: str
    decides: bool = True


hint = partial(Rule, decides=False)

# Tests of a value: seen to be so, seen not to be so, any, none.
is_true = partial(operator.is_, True)
is_false = partial(operator.is_, False)
is_some = bool
is_nothing = operator.not_


class CauseRecord:
    """All that the runbook knows of one cause.

    Attributes
    ----------
    words : the cause in a sentence
    rules : the evidence for it and against it
    repair : what 6.2 does about it
    follow_ups : what to change so that it does not come back; empty: nothing in operations
    strategy : of 6.1 while the cause stands: ``release`` where the worker cannot do its job
        whatever 6.2 does first, ``none`` where nothing may be moved at all
    then : what to do after the repair, in words; empty: nothing
    stops_labels : False for a drill, blind eyes, or wrong ages
    counted_as : the reason of the worker's counted failures that dates its beginning and its end
        (observation ``ended_<reason>``); empty: none
    hidden_by : causes that make its observations meaningless
    """

    def __init__(
        self,
        words: str,
        *rules: Rule,
        repair: Repair,
        follow_ups: tuple[str, ...],
        strategy: Strategy = "retrigger",
        then: str = "",
        stops_labels: bool = True,
        counted_as: str = "",
        hidden_by: tuple[str, ...] = (),
    ) -> None:
        self.words, self.rules, self.repair, self.follow_ups = words, rules, repair, follow_ups
        self.strategy, self.then, self.stops_labels = strategy, then, stops_labels
        self.counted_as, self.hidden_by = counted_as, hidden_by


def is_over(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number over a limit."""
    return lambda value: isinstance(value, int | float) and value > limit


def is_under(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number under a limit."""
    return lambda value: isinstance(value, int | float) and value < limit


def failing(reason: str, what: str) -> tuple[Rule, Rule]:
    """Return the rules of a failure reason: counted lately, and told by the log lately."""
    return (
        Rule(f"failures_{reason}", is_over(0), 0.7, f"{what}: failures counted just now"),
        hint(f"logged_{reason}", is_true, 0.3, f"{what}: the worker's log says so"),
    )


def diagnose(
    causes: Mapping[str, CauseRecord],
    observations: Mapping[str, Observation],
    *,
    first_seen: Mapping[str, datetime] | None = None,
) -> tuple[Finding, ...]:
    """Judge every cause.

    Parameters
    ----------
    causes : in their order; what hides another stands before it
    observations : by name; a missing one is unknown
    first_seen : by cause, since when

    Returns
    -------
    One finding per cause: supported first, then undecided, past, refuted, each by score.
    """
    judged: dict[str, Finding] = {}
    for cause, record in causes.items():
        finding = _judge(cause, record, observations)
        hiding = [
            c for c in record.hidden_by if c in judged and judged[c].status is CauseStatus.SUPPORTED
        ]
        changes: dict[str, Json] = {}
        if hiding:
            reason = f"cannot be told beside {causes[hiding[0]].words}"
            changes = {"status": CauseStatus.UNDECIDED, "reason": reason}
        elif finding.status is CauseStatus.SUPPORTED:
            changes = {"first_seen": (first_seen or {}).get(cause)}
        judged[cause] = finding.model_copy(update=changes)
    order = list(CauseStatus)
    return tuple(sorted(judged.values(), key=lambda f: (order.index(f.status), -f.score)))


def _judge(cause: str, record: CauseRecord, observations: Mapping[str, Observation]) -> Finding:
    known = {n: o for n, o in observations.items() if o.value is not None}
    held = [r for r in record.rules if r.name in known and r.holds(known[r.name].value)]
    # of several rules on one observation, the first says what it is about
    open_ones = [r for r in record.rules[::-1] if r.decides and r.name not in known]
    unknown = {r.name: r.says for r in open_ones}
    score = round(max(-1.0, min(1.0, sum(r.weight for r in held))), 2)
    speak_for = "; ".join(r.says for r in held if r.weight > 0)
    ended = known.get(f"ended_{record.counted_as}")
    if score >= _SUPPORTED:
        status, reason = CauseStatus.SUPPORTED, speak_for
    elif unknown:
        status, reason = CauseStatus.UNDECIDED, f"not known: whether {'; '.join(unknown.values())}"
    elif ended:
        status, reason = CauseStatus.PAST, f"last seen at {ended.value}, and not since"
    elif score >= _HINT:
        status, reason = CauseStatus.UNDECIDED, f"only a hint: {speak_for}"
    else:
        against = "; ".join(r.says for r in held if r.weight < 0)
        status, reason = CauseStatus.REFUTED, against or "nothing speaks for it"
    is_supported = status is CauseStatus.SUPPORTED
    telling = {r.name for r in (held if is_supported else record.rules)}
    if status is CauseStatus.PAST:
        telling = {f"ended_{record.counted_as}"}
    return Finding(
        name=cause,
        words=record.words,
        status=status,
        score=score,
        evidence=tuple(sorted({known[name].evidence for name in telling if name in known})),
        reason=reason,
    )
