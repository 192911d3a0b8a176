"""Why labels wait: each cause in one record, how causes are judged, what to do about them. Pure.

A cause is *supported* when the weights of the rules that hold reach 0.6; else *undecided* when an
observation that could decide it is unknown; else *past* when its failures were counted and have
ended; else *undecided* when a rule hints at it; else *refuted*. A cause that makes the observations
of others meaningless (the store is down) leaves those undecided. The records' order is the one in
which supported causes are dealt with.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Literal, NamedTuple

from runbook_lib.model import CauseStatus, Finding, Json

#: Over this share of carrier requests, and under this many free bytes, something is wrong.
BAD_SHARE, LOW_BYTES = 0.2, 2**31
_SUPPORTED = 0.6
_HINT = 0.2

Strategy = Literal["release", "retrigger", "none"]
Repair = tuple[str, str, str]
"""An action of 6.2, its target, and what to mind; without a target no action helps, and the words
say why."""


class Observation(NamedTuple):
    """One observed fact; ``evidence`` refers to the journal. ``value`` None is unknown."""

    value: Json
    evidence: str


class Rule(NamedTuple):
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
    repair : what 6.2 does about it, from what was observed (with ``worker`` and ``dag``, their
        names); or in words what a person does, where no action helps
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
        repair: Callable[[Mapping[str, Json]], Repair] | str,
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

    def find_repair(self, seen: Mapping[str, Json]) -> Repair:
        """Return what 6.2 does about it, by what was observed."""
        return self.repair(seen) if callable(self.repair) else ("", "", self.repair)


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


def diagnose(observations: Mapping[str, Observation]) -> tuple[Finding, ...]:
    """Judge every cause.

    Parameters
    ----------
    observations : by name; a missing one is unknown

    Returns
    -------
    One finding per cause: supported first, then undecided, past, refuted, each by score.
    """
    judged: dict[str, Finding] = {}
    for cause, record in CAUSES.items():
        hiding = [c for c in record.hidden_by if judged[c].status is CauseStatus.SUPPORTED]
        judged[cause] = _judge(cause, observations, hiding)
    order = list(CauseStatus)
    return tuple(sorted(judged.values(), key=lambda f: (order.index(f.status), -f.score)))


def _judge(cause: str, observations: Mapping[str, Observation], hiding: Sequence[str]) -> Finding:
    record, known = CAUSES[cause], {n: o for n, o in observations.items() if o.value is not None}
    held = [r for r in record.rules if r.name in known and r.holds(known[r.name].value)]
    # of several rules on one observation, the first says what it is about
    unknown = {r.name: r.says for r in record.rules[::-1] if r.decides and r.name not in known}
    score = round(max(-1.0, min(1.0, sum(r.weight for r in held))), 2)
    speak_for = "; ".join(r.says for r in held if r.weight > 0)
    telling, ended = {r.name for r in record.rules}, f"ended_{record.counted_as}"
    if score >= _SUPPORTED:
        status, reason, telling = CauseStatus.SUPPORTED, speak_for, {r.name for r in held}
    elif unknown:
        status, reason = CauseStatus.UNDECIDED, f"not known: whether {'; '.join(unknown.values())}"
    elif ended in known:
        reason = f"last seen at {known[ended].value}, and not since"
        status, telling = CauseStatus.PAST, {ended}
    elif score >= _HINT:
        status, reason = CauseStatus.UNDECIDED, f"only a hint: {speak_for}"
    else:
        against = "; ".join(r.says for r in held if r.weight < 0)
        status, reason = CauseStatus.REFUTED, against or "nothing speaks for it"
    if hiding:
        status, reason = CauseStatus.UNDECIDED, f"cannot be told beside {CAUSES[hiding[0]].words}"
    evidence = tuple(sorted({known[name].evidence for name in telling if name in known}))
    return Finding(
        name=cause, words=record.words, status=status, score=score, evidence=evidence, reason=reason
    )


Cause = StrEnum(
    "Cause",
    "CARRIER_TIMEOUT CARRIER_ERRORS WORKER_STOPPED WORKER_STUCK STORAGE_FULL STORE_DOWN "
    "BAD_CREDENTIALS NO_PERMISSION BAD_PREFIX PIPELINE_PAUSED PIPELINE_FAILING SURGE SYNTHETIC "
    "SUPPORT_DOWN METRICS_BLIND CLOCK_SKEW",
)
"""Why labels wait. Each name in small letters is its value, and that of the fault."""

#: What the object store's service may be called.
STORE_SERVICES = ("minio", "object-store", "store")
_SETTING_FIRST = "correct its setting first"
_STORE_ELSEWHERE = "its service is not a stopped one here: restore the store where it runs"
_EYES_ELSEWHERE = "exporter and Prometheus are not stopped services here: look there"
_SUPPORT = "support-service"
_DOWN = (Cause.STORE_DOWN, Cause.WORKER_STOPPED)
#: While one of these stands, no label leaves.
STANDSTILL = frozenset({*_DOWN, Cause.WORKER_STUCK, Cause.PIPELINE_PAUSED, Cause.PIPELINE_FAILING})


def _start(names: Sequence[str], otherwise: Repair, seen: Mapping[str, Json]) -> Repair:
    """Start the first of these services that is down; when none of them is, do otherwise."""
    down = [name for name in names if name in (seen.get("services_down") or ())]
    return ("start", down[0], "") if down else otherwise


def _restart_worker(mind: str = "") -> Callable[[Mapping[str, Json]], Repair]:
    return lambda seen: ("restart", seen["worker"], mind)


def _wake_worker(seen: Mapping[str, Json]) -> Repair:
    return "resume" if seen.get("worker_paused") else "start", seen["worker"], ""


def _carrier(words: str, outcome: str, says: str, watched: str) -> CauseRecord:
    return CauseRecord(
        words,
        Rule(f"carrier_{outcome}_share", is_over(BAD_SHARE), 0.8, says),
        hint(f"logged_carrier_{outcome}", is_true, 0.3, "the worker's log says so"),
        hint("waiting_incomplete", is_over(0), 0.1, "objects without tracking number wait"),
        repair="call the carrier: what has no tracking number waits for it, and no restart helps",
        follow_ups=("retry the carrier with backoff", f"alert on the carrier's {watched}"),
        counted_as=f"carrier_{outcome}",
    )


CAUSES: Mapping[str, CauseRecord] = {
    Cause.STORE_DOWN: CauseRecord(
        "an object store that is down",
        Rule("store_live", is_false, 0.9, "the object store does not answer, or is not well"),
        Rule("store_live", is_true, -0.6, "the object store is live"),
        hint("failures_store_unreachable", is_over(0), 0.3, "the worker cannot reach it"),
        repair=partial(_start, STORE_SERVICES, ("", "", _STORE_ELSEWHERE)),
        follow_ups=("alert on the store's live endpoint", "restart the store by itself"),
        strategy="none",
        counted_as="store_unreachable",
    ),
    Cause.METRICS_BLIND: CauseRecord(
        "metrics that are blind",
        Rule("prometheus_answers", is_false, 0.9, "Prometheus does not answer"),
        hint("exporter_up", is_false, 0.9, "Prometheus cannot scrape the exporter"),
        hint("lag_present", is_false, 0.3, "there is no fresh value of the lag"),
        hint("exporter_refresh_age_s", is_over(60), 0.4, "the exporter stopped refreshing"),
        hint("store_live", is_false, -0.5, "without the store no exporter can see anything"),
        hint("exporter_up", is_true, -0.1, "the exporter is scraped"),
        repair=partial(_start, ("artifact-exporter", "prometheus"), ("", "", _EYES_ELSEWHERE)),
        follow_ups=("page on FulfillmentMetricsMissing", "restart the exporter by itself"),
        then="believe the listing (2.3) meanwhile",
        stops_labels=False,
    ),
    Cause.WORKER_STOPPED: CauseRecord(
        "a stopped worker",
        Rule("worker_running", is_false, 0.9, "the worker's service does not run"),
        hint("worker_paused", is_true, 0.9, "somebody paused the worker"),
        hint("worker_answers", is_false, 0.3, "the worker's API does not answer"),
        hint("worker_answers", is_true, -0.5, "the worker's API answers"),
        repair=_wake_worker,
        follow_ups=("restart the worker by itself", "alert when the worker is down"),
    ),
    Cause.WORKER_STUCK: CauseRecord(
        "a worker that is alive and moves nothing",
        Rule("worker_stands_still", is_true, 0.8, "the worker runs, but begins no new pass"),
        Rule("worker_stands_still", is_false, -0.6, "the worker begins new passes"),
        hint("waiting_finished", is_nothing, -0.3, "no finished object waits"),
        repair=_restart_worker(),
        follow_ups=("a time-out for the run lock", "alert when no pass begins"),
        strategy="release",
        hidden_by=_DOWN,
    ),
    Cause.PIPELINE_PAUSED: CauseRecord(
        "a paused pipeline",
        Rule("dag_paused", is_true, 0.9, "the DAG that releases labels is paused"),
        Rule("dag_paused", is_false, -0.6, "the DAG is not paused"),
        repair=lambda seen: ("unpause", seen["dag"], ""),
        follow_ups=("alert when the DAG is paused", "a reason and an end for each pause"),
        strategy="release",
    ),
    Cause.PIPELINE_FAILING: CauseRecord(
        "a pipeline whose runs fail",
        Rule("dag_failed_runs", is_over(1), 0.8, "its newest runs failed"),
        Rule("dag_failed_runs", is_over(0), 0.2, "its newest run failed"),
        hint("dag_import_errors", is_true, 0.8, "the DAG cannot be loaded"),
        Rule("dag_failed_runs", is_nothing, -0.6, "its newest run did not fail"),
        repair="the DAG's own logs say why its runs fail: nothing here mends it",
        follow_ups=("alert on failed runs of the DAG", "retries for its tasks"),
        strategy="release",
    ),
    Cause.BAD_CREDENTIALS: CauseRecord(
        "wrong credentials of the worker",
        *failing("bad_credentials", "the store rejects the worker's key or signature"),
        hint("credentials_match", is_false, 0.3, "the worker's secret is not the store's"),
        hint("credentials_match", is_true, -0.4, "the worker has the store's secret"),
        repair=_restart_worker(_SETTING_FIRST),
        follow_ups=("check credentials at start", "a checklist for key rotation"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="bad_credentials",
    ),
    Cause.NO_PERMISSION: CauseRecord(
        "a permission that the worker lacks",
        *failing("access_denied", "the store denies the worker a right"),
        hint("failures_bad_credentials", is_over(0), -0.3, "its key itself is rejected"),
        repair="give the worker's user its right back: no restart helps",
        follow_ups=("check rights at start", "review of policy changes"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="access_denied",
    ),
    Cause.BAD_PREFIX: CauseRecord(
        "a worker that watches another prefix",
        Rule("worker_place", is_some, 0.9, "the worker watches or fills another place"),
        Rule("worker_place", is_nothing, -0.6, "the worker's prefixes and bucket are right"),
        hint("failures_no_such_bucket", is_over(0), 0.3, "it names a missing bucket"),
        repair=_restart_worker(_SETTING_FIRST),
        follow_ups=("check prefixes at start", "review of configuration changes"),
        strategy="release",
    ),
    Cause.STORAGE_FULL: CauseRecord(
        "a full object store",
        *failing("storage_full", "writes are refused for want of room"),
        hint("store_free_bytes", is_under(LOW_BYTES), 0.3, "under 2 GiB are free"),
        repair="free or add capacity: a move needs room for the copies, and no restart helps",
        follow_ups=("alert on minio_cluster_capacity_usable_free_bytes", "retention for ready/"),
        strategy="none",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="storage_full",
    ),
    Cause.CARRIER_TIMEOUT: _carrier(
        "a carrier that answers slower than the client waits",
        "timeout",
        "the carrier does not answer in time",
        "latency",
    ),
    Cause.CARRIER_ERRORS: _carrier(
        "errors of the carrier", "error", "the carrier answers with errors", "error rate"
    ),
    Cause.SURGE: CauseRecord(
        "labels that arrive faster than a healthy worker drains them",
        Rule("surplus_objects", is_over(50), 0.7, "more labels arrive than leave"),
        Rule("drain_per_minute", is_nothing, -0.7, "nothing leaves at all: that is no surge"),
        hint("waiting_finished", is_over(50), 0.2, "finished objects queue up"),
        Rule("waiting_finished", is_under(20), -0.6, "no finished objects queue up"),
        repair="the worker drains the queue: a restart only costs time",
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # A surge outruns a healthy drain: while nothing may leave, that cannot be told.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    Cause.SYNTHETIC: CauseRecord(
        "synthetic objects alone",
        Rule("overdue_synthetic", is_over(0), 0.8, "synthetic objects wait over the threshold"),
        Rule("overdue_real", is_over(0), -0.5, "real objects wait over it too"),
        hint("drill_alert_firing", is_true, 0.1, "a drill's alert fires"),
        repair="6.3 clean up the chaos objects (runbook run 06)",
        follow_ups=(),
        stops_labels=False,
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Cause.SUPPORT_DOWN: CauseRecord(
        "a support service that is down",
        # Itself down, whatever else is: more than its source's absence takes away.
        Rule("support_answers", is_false, 1.2, "the support service does not answer"),
        hint("support_failures", is_over(0), 0.6, "it cannot collect shipments just now"),
        hint("probe_refresh_failed", is_true, 0.4, "the probe's timeline refresh fails"),
        hint("probe_failed_before", is_true, 0.2, "the probe fails before the refresh"),
        hint("timeline_behind_minutes", is_over(15), 0.6, "the timeline is behind"),
        hint("worker_answers", is_false, -0.5, "its source of shipments is down itself"),
        repair=partial(_start, (_SUPPORT,), ("restart", _SUPPORT, "")),
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    Cause.CLOCK_SKEW: CauseRecord(
        "a service whose clock is off",
        Rule("clock_skewed", is_some, 0.8, "a system's clock is off"),
        hint("future_pending_since", is_over(0), 0.2, "labels claim to be from the future"),
        repair="set the clock right: a restart alone does not; trust no ages from that system",
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}


# It plans everything below and stops; each plan says how to approve it.
_RUN = "runbook run 06"
_WAYS: Mapping[Strategy, str] = {
    "release": f"6.1 release by move what is finished ({_RUN})",
    "retrigger": f"6.1 re-trigger the worker ({_RUN})",
    "none": f"then plan the release anew ({_RUN})",
}


class Advice(NamedTuple):
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


def advise(causes: Sequence[str], seen: Mapping[str, Json]) -> Advice:
    """Merge what helps against each supported cause.

    What forbids a release comes first. A release by move comes before the repairs, which let the
    worker move again; a re-trigger comes after them, since it needs the worker.

    Parameters
    ----------
    causes : supported ones, in the order in which they are to be dealt with
    seen : all observations; a missing one is unknown; and as ``worker`` and ``dag`` the names of
        the worker's service and of the DAG
    """
    strategy, why = choose_strategy(causes, seen)
    repairs = {cause: CAUSES[cause].find_repair(seen) for cause in causes}
    stops = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    moved = frozenset(c for c in causes if CAUSES[c].stops_labels and c not in stops)
    steps = [(f"do not release: {CAUSES[cause].words}", frozenset([cause])) for cause in stops]
    mends = [
        (text, frozenset([cause]))
        for cause in sorted(causes, key=lambda cause: cause not in stops)
        for text in (_say(*repairs[cause]), CAUSES[cause].then)
        if text
    ]
    way = [(_WAYS[strategy], moved)] if strategy != "none" or (stops and moved) else []
    steps += [*way, *mends] if strategy == "release" else [*mends, *way]
    repair = _choose_repair(repairs, seen["worker"])
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


def _choose_repair(repairs: Mapping[str, Repair], worker: str) -> Repair:
    """Return action, target and reason for the first cause that an action of 6.2 helps."""
    said = {c: f"{c}: {mind}" if mind else str(c) for c, (*_, mind) in repairs.items()}
    for cause, (action, target, _) in repairs.items():
        if target:
            rest = ", ".join(c for c in repairs if c is not cause)
            also = f"; also supported: {rest}" if rest else ""
            return action, target, f"{said[cause]}{also}"
    return "none", worker, "; ".join(said.values()) or "no cause is supported: nothing to restart"
