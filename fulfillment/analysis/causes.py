"""Why labels wait: each cause in one record, how causes are judged, what to do about them. Pure.

The first of these that applies is the status of a cause:

- *supported*: all signs of one of its options are there, and nothing that excuses them;
- *undecided*: a needed observation is unknown;
- *undecided*: the first sign of an option is there;
- *refuted*.

Some causes, such as a store that is down, make the observations of other causes meaningless. While
such a cause is supported, those other causes are undecided. Advice deals with supported causes in
the order of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from operator import attrgetter
from typing import Literal, NamedTuple

from runbook_lib.model import CauseStatus, Finding, Json, Reading

#: If a larger share of carrier requests fails, the carrier is at fault.
MAX_FAILED_SHARE = 0.2
#: If the store has fewer free bytes, it is nearly full.
MIN_FREE_BYTES = 2**31
#: A log that names a reason so often in five minutes tells the cause by itself.
OFTEN = 10
#: A worker that runs, and has moved and logged nothing for so many minutes, hangs.
MAX_IDLE_MINUTES = 10

Strategy = Literal["release", "retrigger", "none"]
#: Actions of 6.2 after which the worker runs again.
_BRINGS_BACK = ("start", "resume", "restart")


class Observation(NamedTuple):
    """One observed fact.

    A ``value`` of None means unknown. ``evidence`` is the reading's journal entry, such as ``#12``.
    """

    value: Json
    evidence: str


def collect_observations(readings: Iterable[Reading]) -> dict[str, Observation]:
    """Return the named observations of readings, each with its journal entry.

    If two steps observed the same, the later reading counts. A known value is never replaced by an
    unknown one.
    """
    observations: dict[str, Observation] = {}
    for reading in sorted(readings, key=attrgetter("observed_at")):
        evidence = f"#{reading.seq}" if reading.seq else reading.step
        for name, value in reading.observations.items():
            if value is not None or name not in observations:
                observations[name] = Observation(value, evidence)
    return observations


class Sign(NamedTuple):
    """What one observation says: its name, a test of its value, and what is so, in words."""

    name: str
    holds: Callable[[Json], bool]
    says: str


class Option(NamedTuple):
    """A way to tell a cause: all of ``signs`` are there, and none of ``unless``."""

    signs: tuple[Sign, ...]
    unless: tuple[Sign, ...] = ()


def when(*signs: Sign, unless: Sequence[Sign] = ()) -> Option:
    """Return an option."""
    return Option(signs, tuple(unless))


def is_true(value: Json) -> bool:
    """Test that a value is exactly True."""
    return value is True


def is_false(value: Json) -> bool:
    """Test that a value is exactly False."""
    return value is False


def is_some(value: Json) -> bool:
    """Test that a value is neither empty, nor zero, nor False."""
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


class Repair(NamedTuple):
    """What helps against a cause.

    Attributes
    ----------
    action : of 6.2, such as ``restart``; empty where no action of 6.2 helps
    target : the service or DAG that it changes; empty where no action helps
    person : what a person does before the action, or instead of it; empty: nothing
    """

    action: str = ""
    target: str = ""
    person: str = ""


Values = Mapping[str, Json]
"""Observed values by name, and three more entries.

``worker`` and ``dag`` name the worker's service and the DAG. ``retrigger_moved_nothing`` says
whether the last remedy was a re-trigger after which the worker ran and moved nothing.
"""


@dataclass(frozen=True, kw_only=True)
class CauseRecord:
    """All that the runbook knows of one cause.

    Attributes
    ----------
    words : the cause in words
    options : the ways to tell it
    needs : names of the observations without which it is not refuted; the signs of the first option
        are needed, too
    repair : what helps, or a function that chooses it by what was observed. ``{worker}`` and
        ``{dag}`` stand for their names
    follow_ups : what to change so that it does not come back; empty: no change in operations
    strategy : how 6.1 gets labels moving. ``release``: by move, before 6.2 repairs the cause.
        ``retrigger``: the worker moves them, after 6.2. ``none``: no label may be moved
    then : what to do after the repair, in words; empty: nothing
    stops_labels : whether the incident lasts as long as the cause; False for synthetic objects,
        blind metrics and a wrong clock
    counted_as : the failure reason whose counter says when the cause began; empty: none
    hidden_by : causes that make its observations meaningless; their records come earlier
    """

    words: str
    options: tuple[Option, ...]
    repair: Callable[[Values], Repair] | Repair
    follow_ups: tuple[str, ...]
    strategy: Strategy = "retrigger"
    then: str = ""
    stops_labels: bool = True
    counted_as: str = ""
    hidden_by: tuple[str, ...] = ()
    needs: tuple[Sign, ...] = ()

    def find_repair(self, values: Values) -> Repair:
        """Return what helps against the cause, by what was observed."""
        repair = self.repair if isinstance(self.repair, Repair) else self.repair(values)
        names = {"worker": values["worker"], "dag": values["dag"]}
        return Repair(*(text.format(**names) for text in repair))


def diagnose(observations: Mapping[str, Observation]) -> tuple[Finding, ...]:
    """Judge every cause.

    Parameters
    ----------
    observations : by name; a missing one is unknown

    Returns
    -------
    One finding per cause: supported first, then undecided, refuted; of one status in the order of
    the records.
    """
    judged: dict[str, Finding] = {}
    for cause, record in CAUSES.items():
        # The causes that may hide this one are judged already: their records come earlier.
        hiding = [c for c in record.hidden_by if judged[c].status is CauseStatus.SUPPORTED]
        judged[cause] = _judge(cause, observations, hiding)
    order = list(CauseStatus)
    return tuple(sorted(judged.values(), key=lambda finding: order.index(finding.status)))


def _judge(cause: str, observations: Mapping[str, Observation], hiding: Sequence[str]) -> Finding:
    """Judge one cause; ``hiding`` names the supported causes that hide it."""
    record = CAUSES[cause]
    known = {name: seen.value for name, seen in observations.items() if seen.value is not None}

    def list_seen(signs: Iterable[Sign]) -> list[Sign]:
        """Return the signs that are there."""
        return [sign for sign in signs if sign.name in known and sign.holds(known[sign.name])]

    found: list[Sign] = []
    partly: list[Sign] = []
    for option in record.options:
        seen = list_seen(option.signs)
        if option.signs[0] in seen:
            partly += seen
        if len(seen) == len(option.signs) and not list_seen(option.unless):
            found += seen
    needed = (*record.options[0].signs, *record.needs)
    unknown = [sign for sign in needed if sign.name not in known]
    rests_on = [sign.name for sign in (*partly, *needed)]
    if hiding:
        status = CauseStatus.UNDECIDED
        reason = f"cannot be judged because of {CAUSES[hiding[0]].words}"
    elif found:
        status = CauseStatus.SUPPORTED
        reason = _say(found)
        rests_on = [sign.name for sign in found]
    elif unknown:
        status = CauseStatus.UNDECIDED
        reason = f"not known: whether {_say(unknown)}"
    elif partly:
        status = CauseStatus.UNDECIDED
        reason = f"not enough: {_say(partly)}"
    else:
        status = CauseStatus.REFUTED
        reason = "nothing speaks for it"
    evidence = {observations[name].evidence for name in rests_on if name in observations}
    return Finding(
        name=cause,
        words=record.words,
        status=status,
        evidence=tuple(sorted(evidence)),
        reason=reason,
    )


def _say(signs: Iterable[Sign]) -> str:
    """Return what signs say, each once."""
    return "; ".join(dict.fromkeys(sign.says for sign in signs))


class Cause(StrEnum):
    """The causes that the runbook knows.

    The value is the name in small letters. The fault that drills inject has the same name.
    """

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


#: Names that the object store's service may have.
STORE_SERVICES = ("minio", "object-store", "store")
_KEY_FIRST = "set MINIO_ROOT_PASSWORD of {worker} to the store's secret"
_PLACE_FIRST = (
    "set FULFILLMENT_BUCKET, PENDING_PREFIX and READY_PREFIX of {worker} as 5.4 shows them"
)
_STORE_ELSEWHERE = "no service of the store is stopped here: restore the store where it runs"
_METRICS_ELSEWHERE = "no service of the exporter or Prometheus is stopped here: look where they run"
_SUPPORT = "support-service"
_DOWN = (Cause.STORE_DOWN, Cause.WORKER_STOPPED)
#: Each of these causes keeps every label from leaving.
STANDSTILL = frozenset({*_DOWN, Cause.WORKER_STUCK, Cause.PIPELINE_PAUSED, Cause.PIPELINE_FAILING})
#: While one of these lasts, the worker finishes fewer labels or none: each label needs the
#: carrier.
_CARRIER_CAUSES = (Cause.CARRIER_TIMEOUT, Cause.CARRIER_ERRORS)


def _start_first(names: Sequence[str], *, otherwise: Repair) -> Callable[[Values], Repair]:
    """Return a function that finds a repair: start the first of these services that is down.

    Parameters
    ----------
    otherwise : the repair when none of them is down
    """

    def find_repair(values: Values) -> Repair:
        down = values.get("services_down") or ()
        for name in names:
            if name in down:
                return Repair("start", name)
        return otherwise

    return find_repair


def _resume_or_start_worker(values: Values) -> Repair:
    """Return the repair of a stopped worker: resume it if it is paused, deploy it again if no such
    service is listed, else start it.
    """
    if values.get("worker_paused"):
        return Repair("resume", "{worker}")
    if values.get("worker_listed") is False:
        return Repair(person="deploy {worker} again: no such service is there to start")
    return Repair(
        "start", "{worker}", _KEY_FIRST if values.get("credentials_match") is False else ""
    )


def _count(reason: str, says: str) -> Sign:
    """Return the sign that the worker counted failures for a reason lately."""
    return Sign(f"failures_{reason}", is_over(0), says)


def _log(reason: str) -> Sign:
    """Return the sign that the worker's log names a reason."""
    return Sign(f"logged_{reason}", is_over(0), "the worker's log names it")


def _log_often(reason: str, says: str) -> Sign:
    """Return the sign that the worker's log names a reason again and again."""
    return Sign(f"logged_{reason}", is_over(OFTEN - 1), says)


def _make_carrier_record(words: str, outcome: str, says: str, measure: str) -> CauseRecord:
    """Return the record of a cause that lies with the carrier.

    Parameters
    ----------
    words : the cause in words
    outcome : of a carrier request, as the worker counts and logs it
    says : the sign in words
    measure : what an alert should watch
    """
    return CauseRecord(
        words=words,
        options=(when(Sign(f"carrier_{outcome}_share", is_over(MAX_FAILED_SHARE), says)),),
        repair=Repair(
            person="call the carrier: labels without tracking number wait for it; no restart helps"
        ),
        follow_ups=("retry the carrier with backoff", f"alert on the carrier's {measure}"),
        counted_as=f"carrier_{outcome}",
    )


_STORE_DOWN = Sign("store_live", is_false, "the object store does not answer, or is not well")
_REFRESH_STOPPED = Sign("exporter_refresh_age_s", is_over(60), "the exporter stopped refreshing")
_PAUSED = Sign("worker_paused_by_others", is_true, "somebody paused the worker")
_ANSWERS = Sign("worker_answers", is_true, "the worker's API answers")
_SILENT = Sign("worker_answers", is_false, "the worker's API does not answer")
_DAG_PAUSED = Sign("dag_paused", is_true, "the DAG that releases labels is paused")
_LATE = Sign("overdue_real", is_over(0), "labels wait too long")
_UNREACHABLE = _count("store_unreachable", "the worker waits for the store")
_BAD_KEY = _count("bad_credentials", "the store rejects the worker's key or signature")
_KEY_MATCHES = Sign("credentials_match", is_true, "the worker has the store's secret")
_KEYLESS = Sign("keyless_denials", is_over(0), "the store denies a worker without a key")
_DENIED = _count("access_denied", "the store denies the worker a right")
_NO_ROOM = _count("storage_full", "writes are refused for want of room")

CAUSES: Mapping[str, CauseRecord] = {
    Cause.STORE_DOWN: CauseRecord(
        words="an object store that is down",
        options=(when(_STORE_DOWN),),
        repair=_start_first(STORE_SERVICES, otherwise=Repair(person=_STORE_ELSEWHERE)),
        follow_ups=("alert on the store's live endpoint", "restart the store by itself"),
        strategy="none",
        counted_as="store_unreachable",
    ),
    Cause.METRICS_BLIND: CauseRecord(
        words="metrics that are blind",
        options=(
            # Without the store no exporter can see anything.
            when(
                Sign("prometheus_answers", is_false, "Prometheus does not answer"),
                unless=[_STORE_DOWN],
            ),
            when(
                Sign("exporter_up", is_false, "Prometheus cannot scrape the exporter"),
                unless=[_STORE_DOWN],
            ),
            when(
                Sign("lag_present", is_false, "there is no fresh value of the lag"),
                _REFRESH_STOPPED,
                unless=[_STORE_DOWN],
            ),
        ),
        repair=_start_first(
            ("artifact-exporter", "prometheus"), otherwise=Repair(person=_METRICS_ELSEWHERE)
        ),
        follow_ups=("page on FulfillmentMetricsMissing", "restart the exporter by itself"),
        then="believe the listing (2.3) meanwhile",
        stops_labels=False,
    ),
    Cause.WORKER_STOPPED: CauseRecord(
        words="a stopped worker",
        options=(
            when(
                Sign("worker_running", is_false, "the worker's service does not run"),
                unless=[_ANSWERS],
            ),
            when(_PAUSED),
            when(
                Sign("worker_listed", is_false, "no such service is listed any more"),
                _SILENT,
            ),
        ),
        repair=_resume_or_start_worker,
        follow_ups=("restart the worker by itself", "alert when the worker is down"),
    ),
    Cause.WORKER_STUCK: CauseRecord(
        words="a worker that hangs",
        options=(
            # A worker that waits for an answer begins no pass, either, but its time-out ends the
            # wait before a label is late.
            when(
                Sign("worker_stands_still", is_true, "the worker runs, but begins no new pass"),
                _LATE,
                unless=[
                    _UNREACHABLE,
                    Sign("waiting_finished", is_nothing, "no finished object waits"),
                ],
            ),
            when(Sign("worker_hangs", is_true, "its process runs, and answers nobody")),
            # A worker without an API.
            when(
                Sign("worker_idle_minutes", is_over(MAX_IDLE_MINUTES), "it moves and logs nothing"),
                Sign("worker_running", is_true, "its process runs"),
                _LATE,
                unless=[_ANSWERS, _DAG_PAUSED],
            ),
        ),
        repair=Repair("restart", "{worker}"),
        follow_ups=("a time-out for the run lock", "alert when no pass begins"),
        strategy="release",
        hidden_by=_DOWN,
    ),
    Cause.PIPELINE_PAUSED: CauseRecord(
        words="a paused pipeline",
        options=(when(_DAG_PAUSED),),
        repair=Repair("unpause", "{dag}"),
        follow_ups=("alert when the DAG is paused", "a reason and an end for each pause"),
        strategy="release",
    ),
    Cause.PIPELINE_FAILING: CauseRecord(
        words="a pipeline whose runs fail",
        options=(
            when(
                Sign("dag_failed_runs", is_over(0), "its newest run failed"),
                Sign("dag_failed_runs", is_over(1), "the run before failed, too"),
            ),
            when(Sign("dag_import_errors", is_true, "the DAG cannot be loaded")),
        ),
        repair=Repair(
            person="the DAG's own logs say why its runs fail: the runbook cannot repair them"
        ),
        follow_ups=("alert on failed runs of the DAG", "retries for its tasks"),
        strategy="release",
    ),
    Cause.BAD_CREDENTIALS: CauseRecord(
        words="wrong credentials of the worker",
        options=(
            when(_BAD_KEY, unless=[_KEY_MATCHES]),
            when(_KEYLESS, unless=[_KEY_MATCHES]),
            when(_BAD_KEY, _log("bad_credentials")),
            when(
                Sign("credentials_match", is_false, "the worker's secret is not the store's"),
                _log("bad_credentials"),
            ),
            when(
                _log_often("bad_credentials", "its log says over and over that its key is rejected")
            ),
        ),
        repair=Repair("restart", "{worker}", _KEY_FIRST),
        follow_ups=("check credentials at start", "a checklist for key rotation"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="bad_credentials",
    ),
    Cause.NO_PERMISSION: CauseRecord(
        words="a permission that the worker lacks",
        options=(
            when(_DENIED, unless=[_BAD_KEY, _KEYLESS]),
            when(_DENIED, _log("access_denied"), unless=[_KEYLESS]),
        ),
        repair=Repair(person="give the worker's user its right back: no restart helps"),
        follow_ups=("check rights at start", "review of policy changes"),
        strategy="release",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="access_denied",
    ),
    Cause.BAD_PREFIX: CauseRecord(
        words="a worker that watches another prefix",
        options=(when(Sign("worker_place", is_some, "the worker watches or fills another place")),),
        repair=Repair("restart", "{worker}", _PLACE_FIRST),
        follow_ups=("check prefixes at start", "review of configuration changes"),
        strategy="release",
    ),
    Cause.STORAGE_FULL: CauseRecord(
        words="a full object store",
        options=(
            when(_NO_ROOM),
            when(
                _log("storage_full"),
                Sign("store_free_bytes", is_under(MIN_FREE_BYTES), "under 2 GiB are free"),
            ),
            when(_log_often("storage_full", "its log says over and over that the store is full")),
            when(Sign("store_refuses_ours", is_true, "the store has no room for our own write")),
        ),
        repair=Repair(
            person="free or add capacity: a move needs room for the copies, and no restart helps"
        ),
        follow_ups=("alert on minio_cluster_capacity_usable_free_bytes", "retention for ready/"),
        strategy="none",
        hidden_by=(Cause.STORE_DOWN,),
        counted_as="storage_full",
    ),
    Cause.CARRIER_TIMEOUT: _make_carrier_record(
        "a carrier that answers slower than the client waits",
        "timeout",
        "the carrier does not answer in time",
        "latency",
    ),
    Cause.CARRIER_ERRORS: _make_carrier_record(
        "errors of the carrier", "error", "the carrier answers with errors", "error rate"
    ),
    Cause.SURGE: CauseRecord(
        words="labels that arrive faster than a healthy worker drains them",
        options=(
            when(
                Sign("surplus_objects", is_over(50), "more labels arrive than leave"),
                unless=[
                    Sign("drain_per_minute", is_nothing, "no label leaves"),
                    Sign("catching_up", is_true, "labels that were kept back are no surge"),
                    Sign("waiting_finished", is_under(20), "no finished objects queue up"),
                    Sign("overdue_real", is_nothing, "no label waits too long"),
                ],
            ),
        ),
        needs=(
            Sign("drain_per_minute", is_some, "labels leave"),
            Sign("waiting_finished", is_some, "finished objects queue up"),
        ),
        repair=Repair(person="the worker drains the queue: a restart only costs time"),
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # While no label leaves, nobody can see whether labels arrive faster than a healthy worker
        # drains them.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    Cause.SYNTHETIC: CauseRecord(
        words="synthetic objects alone",
        options=(
            when(
                Sign("overdue_synthetic", is_over(0), "synthetic objects wait over the threshold"),
                # Leftovers do not explain an incident in which real labels were late.
                unless=[_LATE, Sign("real_were_overdue", is_true, "real labels waited too long")],
            ),
        ),
        needs=(Sign("overdue_real", is_nothing, "no real object waits over the threshold"),),
        repair=Repair(person="6.3 clean up the chaos objects (runbook run 06)"),
        follow_ups=(),
        stops_labels=False,
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Cause.SUPPORT_DOWN: CauseRecord(
        words="a support service that is down",
        options=(when(Sign("support_answers", is_false, "the support service does not answer")),),
        repair=_start_first((_SUPPORT,), otherwise=Repair("restart", _SUPPORT)),
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    Cause.CLOCK_SKEW: CauseRecord(
        words="a service whose clock is off",
        options=(when(Sign("clock_skewed", is_some, "a system's clock is off")),),
        repair=Repair(
            person="set the clock right (a restart does not help); trust no ages from that system"
        ),
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}


# This command plans every action of the advice, and stops; each plan says how to approve it.
_RUN = "runbook run 06"
_STRATEGY_WORDS: Mapping[Strategy, str] = {
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
    causes : the supported causes, in the order in which to deal with them
    strategy, why : what 6.1 does, and why
    action, target, reason : what 6.2 does, to which service or DAG, and why; action ``none`` when
        no action of 6.2 helps
    steps : all that is to be done, in order
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
        """Return the steps that help against one cause as one text."""
        return "; ".join(step.words for step in self.steps if cause in step.causes)


def advise(causes: Sequence[str], values: Values) -> Advice:
    """Merge what helps against each supported cause.

    A cause that forbids a release comes first. A release by move comes before the repairs, because
    a repaired worker moves labels, too. A re-trigger comes after the repairs, because it needs the
    worker.

    Parameters
    ----------
    causes : the supported ones, in the order in which to deal with them
    values : all observed values; a missing one is unknown
    """
    repairs = {cause: CAUSES[cause].find_repair(values) for cause in causes}
    brings_back = any(
        r.action in _BRINGS_BACK and r.target == values["worker"] for r in repairs.values()
    )
    strategy, why = choose_strategy(causes, values, brings_back=brings_back)
    forbidding = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    others = [cause for cause in causes if cause not in forbidding]
    stopping = frozenset(cause for cause in others if CAUSES[cause].stops_labels)
    steps = [AdviceStep(f"do not release: {CAUSES[c].words}", frozenset([c])) for c in forbidding]
    repair_steps: list[AdviceStep] = []
    for cause in forbidding + others:
        texts = (_describe_repair(repairs[cause]), CAUSES[cause].then)
        repair_steps += [AdviceStep(text, frozenset([cause])) for text in texts if text]
    # Without a finished label, a release would move nothing: a repair, if there is one, is enough.
    is_vain = bool(repair_steps) and strategy == "release" and values.get("waiting_finished") == 0
    # After a cause that forbids a release has ended, labels that another cause stopped still need a
    # release.
    is_wanted = strategy != "none" and not is_vain
    move = AdviceStep(_STRATEGY_WORDS[strategy], stopping)
    move_steps = [move] if is_wanted or (forbidding and stopping) else []
    steps += move_steps + repair_steps if strategy == "release" else repair_steps + move_steps
    if causes and all(_RUN not in step.words for step in steps):
        steps.append(AdviceStep(f"then measure again ({_RUN})", frozenset()))
    reasons = [
        f"{cause}: {repair.person}" if repair.person else cause for cause, repair in repairs.items()
    ]
    actions = [repair for repair in repairs.values() if repair.target]
    repair = actions[0] if actions else Repair("none", values["worker"])
    return Advice(
        causes=tuple(causes),
        strategy=strategy,
        why=why,
        action=repair.action,
        target=repair.target,
        reason="; ".join(reasons) or "no cause is supported: nothing to restart",
        steps=tuple(steps),
    )


def choose_strategy(
    causes: Iterable[str], values: Values, *, brings_back: bool = True
) -> tuple[Strategy, str]:
    """Choose what 6.1 does by the causes and by what waits, and say why: the first rule that holds.

    Parameters
    ----------
    brings_back : whether a repair of 6.2 brings the worker back first
    """
    supported = set(causes)
    ordered = [cause for cause in CAUSES if cause in supported]
    forbidding = [cause for cause in ordered if CAUSES[cause].strategy == "none"]
    forbidden = [CAUSES[cause].words for cause in forbidding]
    disabling = [cause for cause in ordered if CAUSES[cause].strategy == "release"]
    standstills = [cause for cause in ordered if cause in STANDSTILL]
    has_no_api = values.get("worker_has_api") is False
    is_nothing_finished = values.get("waiting_finished") == 0
    rules: list[tuple[object, Strategy, str]] = [
        (forbidding, "none", f"do not release: {' and '.join(forbidden)}; see 6.2"),
        (values.get("waiting_real") == 0, "none", "no real object waits"),
        (disabling, "release", f"the worker cannot move labels: {', '.join(disabling)}"),
        (
            not standstills and values.get("overdue_real") == 0,
            "none",
            "no real object waits over the threshold, and nothing stops the worker",
        ),
        (standstills and has_no_api, "none", "6.2 brings the worker back; it moves by itself"),
        (standstills, "retrigger", "6.2 brings the worker back first; then ask it to run once"),
        (
            supported.intersection(_CARRIER_CAUSES) and is_nothing_finished,
            "none",
            "no finished object waits, and a re-trigger cannot help the carrier: see 6.2",
        ),
        (values.get("retrigger_moved_nothing"), "release", "a re-trigger moved nothing"),
        (has_no_api, "release", "no cause was found, and the worker has no API to run it again"),
        (
            values.get("worker_paused") and not brings_back,
            "release",
            "the worker is paused, and would refuse",
        ),
        (True, "retrigger", "no cause is found that stops the worker: ask it to run once"),
    ]
    return next((strategy, why) for holds, strategy, why in rules if holds)


def _describe_repair(repair: Repair) -> str:
    """Say what a person does first, and then the action; without either, an empty text."""
    step = f"6.2 {repair.action} {repair.target} ({_RUN})" if repair.target else ""
    return ", then ".join(text for text in (repair.person, step) if text)
