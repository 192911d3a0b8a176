"""Why labels wait: each cause in one record, how causes are judged, what to do about them. Pure.

A cause is *supported* when the weights of the rules that hold reach 0.6; else *undecided* when an
observation that could decide it is unknown; else *past* when its failures were counted and have
ended; else *undecided* when a rule hints at it; else *refuted*. A cause that makes the observations
of others meaningless (the store is down) leaves those undecided. Supported causes are dealt with in
the order of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from typing import Literal, NamedTuple

from runbook_lib.model import CauseStatus, Finding, Json

from ..outcome import Return, Way, Worker, choose_way

#: Over this share of carrier requests, something is wrong.
BAD_SHARE = 0.2
#: Under this many free bytes, something is wrong.
LOW_BYTES = 2**31
_SUPPORTED = 0.6
_HINT = 0.2

Strategy = Literal["release", "retrigger", "none"]
#: Repairs that bring the worker back.
_BRINGS_BACK = ("start", "resume", "restart")
_STRATEGIES: Mapping[Way, Strategy] = {
    Way.RELEASE: "release",
    Way.RETRIGGER: "retrigger",
    Way.NONE: "none",
}


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


def is_true(value: Json) -> bool:
    """Test that a value is known, and true."""
    return value is True


def is_false(value: Json) -> bool:
    """Test that a value is known, and false."""
    return value is False


def is_some(value: Json) -> bool:
    """Test that a value is not empty, zero or False."""
    return bool(value)


def is_nothing(value: Json) -> bool:
    """Test that a value is empty, zero or False."""
    return not value


def is_over(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number over a limit."""
    return lambda value: isinstance(value, int | float) and value > limit


def is_under(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number under a limit."""
    return lambda value: isinstance(value, int | float) and value < limit


def failing(reason: str, what: str) -> tuple[Rule, Rule]:
    """Return the rules of a failure reason: counted lately, and in the log lately."""
    return (
        Rule(f"failures_{reason}", is_over(0), 0.7, what),
        hint(f"logged_{reason}", is_true, 0.3, "the worker's log names it"),
    )


class Repair(NamedTuple):
    """An action of 6.2, its target, and what to mind.

    Without a target no action helps, and ``mind`` says why.
    """

    action: str = ""
    target: str = ""
    mind: str = ""


Values = Mapping[str, Json]
"""Observed values by name; with ``worker`` and ``dag``, the names of the service and the DAG."""


@dataclass(frozen=True, kw_only=True)
class CauseRecord:
    """All that the runbook knows of one cause.

    Attributes
    ----------
    words : the cause in a sentence
    rules : the evidence for it and against it
    repair : what 6.2 does about it, by what was observed; where no action helps, what a person
        does, in words
    follow_ups : what to change so that it does not come back; empty: no change in operations
    strategy : how 6.1 gets labels moving while the cause stands: ``release`` where the worker
        cannot do its job whatever 6.2 does, ``none`` where nothing may be moved at all
    then : what to do after the repair, in words; empty: nothing
    stops_labels : False for a drill, blind metrics, or wrong ages
    counted_as : the failure reason whose counter says when the cause began and ended (observation
        ``ended_<reason>``); empty: none
    hidden_by : causes that make its observations meaningless
    """

    words: str
    rules: tuple[Rule, ...]
    repair: Callable[[Values], Repair] | str
    follow_ups: tuple[str, ...]
    strategy: Strategy = "retrigger"
    then: str = ""
    stops_labels: bool = True
    counted_as: str = ""
    hidden_by: tuple[str, ...] = ()

    def find_repair(self, values: Values) -> Repair:
        """Return what 6.2 does about it, by what was observed."""
        if isinstance(self.repair, str):
            return Repair(mind=self.repair)
        return self.repair(values)


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
    """Judge one cause; ``hiding`` are the supported causes that hide it."""
    record = CAUSES[cause]
    known = {
        name: observation
        for name, observation in observations.items()
        if observation.value is not None
    }
    held = [rule for rule in record.rules if rule.name in known and _holds(rule, known)]
    score = round(max(-1.0, min(1.0, sum(rule.weight for rule in held))), 2)
    judgement = _decide(record, known, held, score)
    status = judgement.status
    reason = judgement.reason
    if hiding:
        status = CauseStatus.UNDECIDED
        reason = f"cannot be judged because of {CAUSES[hiding[0]].words}"
    evidence = {known[name].evidence for name in judgement.telling if name in known}
    return Finding(
        name=cause,
        words=record.words,
        status=status,
        score=score,
        evidence=tuple(sorted(evidence)),
        reason=reason,
    )


def _holds(rule: Rule, known: Mapping[str, Observation]) -> bool:
    return rule.holds(known[rule.name].value)


class _Judgement(NamedTuple):
    """A cause's status, why, and the names of the observations that say so."""

    status: CauseStatus
    reason: str
    telling: set[str]


def _decide(
    record: CauseRecord, known: Mapping[str, Observation], held: Sequence[Rule], score: float
) -> _Judgement:
    """Decide a cause by its own rules.

    Parameters
    ----------
    known : the observations that are known
    held : the rules that hold
    score : the sum of their weights
    """
    every = {rule.name for rule in record.rules}
    support = "; ".join(rule.says for rule in held if rule.weight > 0)
    if score >= _SUPPORTED:
        return _Judgement(CauseStatus.SUPPORTED, support, {rule.name for rule in held})
    unknown = _say_unknown(record, known)
    if unknown:
        reason = f"not known: whether {'; '.join(unknown)}"
        return _Judgement(CauseStatus.UNDECIDED, reason, every)
    ended = f"ended_{record.counted_as}"
    if ended in known:
        reason = f"last seen at {known[ended].value}, and not since"
        return _Judgement(CauseStatus.PAST, reason, {ended})
    if score >= _HINT:
        return _Judgement(CauseStatus.UNDECIDED, f"only a hint: {support}", every)
    against = "; ".join(rule.says for rule in held if rule.weight < 0)
    return _Judgement(CauseStatus.REFUTED, against or "nothing speaks for it", every)


def _say_unknown(record: CauseRecord, known: Mapping[str, Observation]) -> list[str]:
    """Return in words what is unknown and would decide; one rule for each observation."""
    words: dict[str, str] = {}
    for rule in record.rules:
        if rule.decides and rule.name not in known:
            words.setdefault(rule.name, rule.says)
    return list(words.values())


class Cause(StrEnum):
    """Why labels wait. The name in small letters is the value, and the name of the fault."""

    CARRIER_TIMEOUT = auto()
    CARRIER_ERRORS = auto()
    WORKER_STOPPED = auto()
    WORKER_STUCK = auto()
    STORAGE_FULL = auto()
    STORE_DOWN = auto()
    BAD_CREDENTIALS = auto()
    NO_PERMISSION = auto()
    BAD_PREFIX = auto()
    PIPELINE_PAUSED = auto()
    PIPELINE_FAILING = auto()
    SURGE = auto()
    SYNTHETIC = auto()
    SUPPORT_DOWN = auto()
    METRICS_BLIND = auto()
    CLOCK_SKEW = auto()


#: What the object store's service may be called.
STORE_SERVICES = ("minio", "object-store", "store")
_KEY_FIRST = "set MINIO_ROOT_PASSWORD of {worker} to the store's secret"
_PLACE_FIRST = (
    "set FULFILLMENT_BUCKET, PENDING_PREFIX and READY_PREFIX of {worker} as 5.4 shows them"
)
_STORE_ELSEWHERE = "its service is not a stopped one here: restore the store where it runs"
_EYES_ELSEWHERE = "exporter and Prometheus are not stopped services here: look there"
_SUPPORT = "support-service"
_DOWN = (Cause.STORE_DOWN, Cause.WORKER_STOPPED)
#: While one of these stands, no label leaves.
STANDSTILL = frozenset({*_DOWN, Cause.WORKER_STUCK, Cause.PIPELINE_PAUSED, Cause.PIPELINE_FAILING})


def _start_first(names: Sequence[str], *, otherwise: Repair) -> Callable[[Values], Repair]:
    """Return a repair: start the first of these services that is down, else do otherwise."""

    def find_repair(values: Values) -> Repair:
        down = values.get("services_down") or ()
        for name in names:
            if name in down:
                return Repair("start", name)
        return otherwise

    return find_repair


def _restart_worker(values: Values) -> Repair:
    return Repair("restart", values["worker"])


def _restart_with(setting: str) -> Callable[[Values], Repair]:
    """Return a repair: restart the worker after a person corrects its setting."""

    def find_repair(values: Values) -> Repair:
        worker = values["worker"]
        return Repair("restart", worker, setting.replace("{worker}", worker))

    return find_repair


def _wake_worker(values: Values) -> Repair:
    worker = values["worker"]
    if values.get("worker_paused"):
        return Repair("resume", worker)
    if values.get("worker_listed") is False:
        return Repair(mind=f"deploy {worker} again: no such service is there to start")
    mind = ""
    if values.get("credentials_match") is False:
        mind = _KEY_FIRST.replace("{worker}", worker)
    return Repair("start", worker, mind)


def _carrier(words: str, outcome: str, says: str, watched: str) -> CauseRecord:
    return CauseRecord(
        words=words,
        rules=(
            Rule(f"carrier_{outcome}_share", is_over(BAD_SHARE), 0.8, says),
            hint(f"logged_carrier_{outcome}", is_true, 0.3, "the worker's log says so"),
            hint("waiting_incomplete", is_over(0), 0.1, "objects without tracking number wait"),
        ),
        repair="call the carrier: what has no tracking number waits for it, and no restart helps",
        follow_ups=("retry the carrier with backoff", f"alert on the carrier's {watched}"),
        counted_as=f"carrier_{outcome}",
    )


CAUSES: Mapping[str, CauseRecord] = {
    Cause.STORE_DOWN: CauseRecord(
        words="an object store that is down",
        rules=(
            Rule("store_live", is_false, 0.9, "the object store does not answer, or is not well"),
            Rule("store_live", is_true, -0.6, "the object store is live"),
            hint("failures_store_unreachable", is_over(0), 0.3, "the worker cannot reach it"),
        ),
        repair=_start_first(STORE_SERVICES, otherwise=Repair(mind=_STORE_ELSEWHERE)),
        follow_ups=("alert on the store's live endpoint", "restart the store by itself"),
        strategy="none",
        counted_as="store_unreachable",
    ),
    Cause.METRICS_BLIND: CauseRecord(
        words="metrics that are blind",
        rules=(
            Rule("prometheus_answers", is_false, 0.9, "Prometheus does not answer"),
            hint("exporter_up", is_false, 0.9, "Prometheus cannot scrape the exporter"),
            hint("lag_present", is_false, 0.3, "there is no fresh value of the lag"),
            hint("exporter_refresh_age_s", is_over(60), 0.4, "the exporter stopped refreshing"),
            hint("store_live", is_false, -0.5, "without the store no exporter can see anything"),
            hint("exporter_up", is_true, -0.1, "the exporter is scraped"),
        ),
        repair=_start_first(
            ("artifact-exporter", "prometheus"), otherwise=Repair(mind=_EYES_ELSEWHERE)
        ),
        follow_ups=("page on FulfillmentMetricsMissing", "restart the exporter by itself"),
        then="believe the listing (2.3) meanwhile",
        stops_labels=False,
    ),
    Cause.WORKER_STOPPED: CauseRecord(
        words="a stopped worker",
        rules=(
            Rule("worker_running", is_false, 0.9, "the worker's service does not run"),
            hint("worker_paused_by_others", is_true, 0.9, "somebody paused the worker"),
            hint("worker_listed", is_false, 0.4, "no such service is listed any more"),
            hint("worker_answers", is_false, 0.3, "the worker's API does not answer"),
            hint("worker_answers", is_true, -0.5, "the worker's API answers"),
        ),
        repair=_wake_worker,
        follow_ups=("restart the worker by itself", "alert when the worker is down"),
    ),
    Cause.WORKER_STUCK: CauseRecord(
        words="a worker that is alive and moves nothing",
        rules=(
            # It may be waiting for an answer: the time-out comes before a label is late.
            Rule("worker_stands_still", is_true, 0.5, "the worker runs, but begins no new pass"),
            hint("overdue_real", is_over(0), 0.3, "labels wait too long"),
            Rule("worker_stands_still", is_false, -0.6, "the worker begins new passes"),
            hint("worker_hangs", is_true, 0.9, "its process runs, and answers nobody"),
            hint("failures_store_unreachable", is_over(0), -0.4, "it waits for the store"),
            hint("waiting_finished", is_nothing, -0.3, "no finished object waits"),
        ),
        repair=_restart_worker,
        follow_ups=("a time-out for the run lock", "alert when no pass begins"),
        strategy="release",
        hidden_by=_DOWN,
    ),
    Cause.PIPELINE_PAUSED: CauseRecord(
        words="a paused pipeline",
        rules=(
            Rule("dag_paused", is_true, 0.9, "the DAG that releases labels is paused"),
            Rule("dag_paused", is_false, -0.6, "the DAG is not paused"),
        ),
        repair=lambda values: Repair("unpause", values["dag"]),
        follow_ups=("alert when the DAG is paused", "a reason and an end for each pause"),
        strategy="release",
    ),
    Cause.PIPELINE_FAILING: CauseRecord(
        words="a pipeline whose runs fail",
        rules=(
            Rule("dag_failed_runs", is_over(1), 0.8, "its newest runs failed"),
            Rule("dag_failed_runs", is_over(0), 0.2, "its newest run failed"),
            hint("dag_import_errors", is_true, 0.8, "the DAG cannot be loaded"),
            Rule("dag_failed_runs", is_nothing, -0.6, "its newest run did not fail"),
        ),
        repair="the DAG's own logs say why its runs fail: nothing here mends it",
        follow_ups=("alert on failed runs of the DAG", "retries for its tasks"),
        strategy="release",
    ),
    Cause.BAD_CREDENTIALS: CauseRecord(
        words="wrong credentials of the worker",
        rules=(
            *failing("bad_credentials", "the store rejects the worker's key or signature"),
            hint("credentials_match", is_false, 0.3, "the worker's secret is not the store's"),
            hint("credentials_match", is_true, -0.4, "the worker has the store's secret"),
            hint("keyless_denials", is_over(0), 0.7, "the store denies a worker without a key"),
        ),
        repair=_restart_with(_KEY_FIRST),
        follow_ups=("check credentials at start", "a checklist for key rotation"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="bad_credentials",
    ),
    Cause.NO_PERMISSION: CauseRecord(
        words="a permission that the worker lacks",
        rules=(
            *failing("access_denied", "the store denies the worker a right"),
            hint("failures_bad_credentials", is_over(0), -0.3, "its key itself is rejected"),
            hint("keyless_denials", is_over(0), -1.0, "the worker has no key at all"),
        ),
        repair="give the worker's user its right back: no restart helps",
        follow_ups=("check rights at start", "review of policy changes"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="access_denied",
    ),
    Cause.BAD_PREFIX: CauseRecord(
        words="a worker that watches another prefix",
        rules=(
            Rule("worker_place", is_some, 0.9, "the worker watches or fills another place"),
            Rule("worker_place", is_nothing, -0.6, "the worker's prefixes and bucket are right"),
            hint("failures_no_such_bucket", is_over(0), 0.3, "it names a missing bucket"),
        ),
        repair=_restart_with(_PLACE_FIRST),
        follow_ups=("check prefixes at start", "review of configuration changes"),
        strategy="release",
    ),
    Cause.STORAGE_FULL: CauseRecord(
        words="a full object store",
        rules=(
            *failing("storage_full", "writes are refused for want of room"),
            hint("store_free_bytes", is_under(LOW_BYTES), 0.3, "under 2 GiB are free"),
        ),
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
        words="labels that arrive faster than a healthy worker drains them",
        rules=(
            Rule("surplus_objects", is_over(50), 0.7, "more labels arrive than leave"),
            Rule(
                "drain_per_minute", is_nothing, -0.7, "nothing leaves at all: that is not a surge"
            ),
            hint("catching_up", is_true, -0.8, "what was kept back comes now"),
            hint("waiting_finished", is_over(50), 0.2, "finished objects queue up"),
            Rule("waiting_finished", is_under(20), -0.6, "no finished objects queue up"),
            hint("overdue_real", is_nothing, -0.5, "no label waits too long"),
        ),
        repair="the worker drains the queue: a restart only costs time",
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # A surge outruns a healthy drain: that cannot be seen while nothing may leave.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    Cause.SYNTHETIC: CauseRecord(
        words="synthetic objects alone",
        rules=(
            Rule("overdue_synthetic", is_over(0), 0.8, "synthetic objects wait over the threshold"),
            Rule("overdue_real", is_over(0), -0.5, "real objects wait over it too"),
            hint("drill_alert_firing", is_true, 0.1, "a drill's alert fires"),
        ),
        repair="6.3 clean up the chaos objects (runbook run 06)",
        follow_ups=(),
        stops_labels=False,
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Cause.SUPPORT_DOWN: CauseRecord(
        words="a support service that is down",
        rules=(
            # Counts more than its source's absence takes away: support is down, whatever else is.
            Rule("support_answers", is_false, 1.2, "the support service does not answer"),
            hint("support_failures", is_over(0), 0.4, "it could not collect shipments lately"),
            hint("probe_refresh_failed", is_true, 0.4, "the probe's timeline refresh fails"),
            hint("probe_failed_before", is_true, 0.2, "the probe fails before the refresh"),
            hint("timeline_behind_minutes", is_over(15), 0.6, "the timeline is behind"),
            hint("worker_answers", is_false, -0.5, "its source of shipments is down itself"),
        ),
        repair=_start_first((_SUPPORT,), otherwise=Repair("restart", _SUPPORT)),
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    Cause.CLOCK_SKEW: CauseRecord(
        words="a service whose clock is off",
        rules=(
            Rule("clock_skewed", is_some, 0.8, "a system's clock is off"),
            hint("future_pending_since", is_over(0), 0.2, "labels claim to be from the future"),
        ),
        repair="set the clock right: a restart alone does not; trust no ages from that system",
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}


# This run plans all that is listed below, and stops; each plan says how to approve it.
_RUN = "runbook run 06"
_WAYS: Mapping[Strategy, str] = {
    "release": f"6.1 release by move what is finished ({_RUN})",
    "retrigger": f"6.1 re-trigger the worker ({_RUN})",
    "none": f"then plan the release anew ({_RUN})",
}


class AdviceStep(NamedTuple):
    """One thing to do, in words, and the causes that it is for."""

    words: str
    causes: frozenset[str]


class Advice(NamedTuple):
    """What section 5 says, and section 6 plans.

    Attributes
    ----------
    causes : the supported ones
    strategy, why : of 6.1
    action, target, reason : of 6.2; action ``none`` when nothing there helps
    steps : all of it in order
    """

    causes: tuple[str, ...]
    strategy: Strategy
    why: str
    action: str
    target: str
    reason: str
    steps: tuple[AdviceStep, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The steps, numbered."""
        return tuple(f"{number}. {step.words}" for number, step in enumerate(self.steps, 1))

    def about(self, cause: str) -> str:
        """Return the steps that help against one cause."""
        return "; ".join(step.words for step in self.steps if cause in step.causes)


def advise(causes: Sequence[str], values: Values) -> Advice:
    """Merge what helps against each supported cause. A cause that forbids a release comes first. A
    release by move comes before the repairs, which let the worker move again; a re-trigger comes
    after them, since it needs the worker.

    Parameters
    ----------
    causes : the supported ones, the first to deal with first
    values : all observed values; a missing one is unknown
    """
    repairs = {cause: CAUSES[cause].find_repair(values) for cause in causes}
    wanted, why = choose_strategy(causes, values)
    returns = any(
        r.action in _BRINGS_BACK and r.target == values["worker"] for r in repairs.values()
    )
    strategy, why = _fit_way(wanted, why, values, returns=returns)
    stops = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    others = [cause for cause in causes if cause not in stops]
    moved = frozenset(cause for cause in others if CAUSES[cause].stops_labels)
    steps = [AdviceStep(f"do not release: {CAUSES[c].words}", frozenset([c])) for c in stops]
    mends: list[AdviceStep] = []
    for cause in stops + others:
        texts = (_say(repairs[cause]), CAUSES[cause].then)
        mends += [AdviceStep(text, frozenset([cause])) for text in texts if text]
    way = []
    if strategy != "none" or (stops and moved):
        way.append(AdviceStep(_WAYS[strategy], moved))
    steps += way + mends if strategy == "release" else mends + way
    repair = _choose_repair(repairs, values["worker"])
    return Advice(
        causes=tuple(causes),
        strategy=strategy,
        why=why,
        action=repair.action,
        target=repair.target,
        reason=repair.mind,
        steps=tuple(steps),
    )


def _fit_way(wanted: Strategy, why: str, values: Values, *, returns: bool) -> tuple[Strategy, str]:
    """Return a way of 6.1 that the worker does not refuse, and why."""
    worker = Worker.RUNS
    if values.get("worker_has_api") is False:
        worker = Worker.ABSENT
    elif values.get("worker_paused"):
        worker = Worker.PAUSED
    elif values.get("worker_answers") is None:
        worker = Worker.UNSEEN
    rule = choose_way(Way(wanted), worker, Return.COMES_BACK if returns else Return.STAYS)
    fitted = _STRATEGIES[rule.way]
    return fitted, why if fitted == wanted else rule.reason


def choose_strategy(causes: Iterable[str], values: Values) -> tuple[Strategy, str]:
    """Return ``release``, ``retrigger`` or ``none``, and why; see ``advise``."""
    wanted = set(causes)
    ordered = [cause for cause in CAUSES if cause in wanted]
    stops = [cause for cause in ordered if CAUSES[cause].strategy == "none"]
    if stops:
        return "none", f"do not release: {CAUSES[stops[0]].words}; see 6.2"
    if values.get("waiting_real") == 0:
        return "none", "no real object waits"
    blocks = [cause for cause in ordered if CAUSES[cause].strategy == "release"]
    if blocks:
        return "release", f"the worker cannot do it: {', '.join(blocks)}"
    standing = [cause for cause in ordered if cause in STANDSTILL]
    if not standing and values.get("overdue_real") == 0:
        return "none", "no real object waits over the threshold, and nothing stops the worker"
    return _choose_with_worker(standing, has_api=values.get("worker_has_api") is not False)


def _choose_with_worker(standing: Sequence[str], *, has_api: bool) -> tuple[Strategy, str]:
    """Choose where the worker can move labels, now or once its standstill is repaired."""
    names = ", ".join(standing)
    if standing and has_api:
        return "retrigger", f"6.2 brings the worker back first ({names}); then ask it to run once"
    if standing:
        return "none", f"the worker moves labels by itself after 6.2 brings it back: {names}"
    if has_api:
        return "retrigger", "no cause is found that stops the worker: ask it to run once"
    return "release", "no cause was found, and the worker has no API to run it again"


def _say(repair: Repair) -> str:
    step = f"6.2 {repair.action} {repair.target} ({_RUN})" if repair.target else ""
    return ", then ".join(text for text in (repair.mind, step) if text)


def _choose_repair(repairs: Mapping[str, Repair], worker: str) -> Repair:
    """Return the first repair that is an action of 6.2; ``mind`` says for which causes."""
    reasons = {
        cause: f"{cause}: {repair.mind}" if repair.mind else str(cause)
        for cause, repair in repairs.items()
    }
    for cause, repair in repairs.items():
        if repair.target:
            rest = [other for other in repairs if other != cause]
            also = f"; also supported: {', '.join(rest)}" if rest else ""
            return repair._replace(mind=f"{reasons[cause]}{also}")
    return Repair(
        "none", worker, "; ".join(reasons.values()) or "no cause is supported: nothing to restart"
    )
