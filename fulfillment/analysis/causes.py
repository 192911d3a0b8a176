"""Why labels wait: the known causes, how each is judged, and what helps. Pure.

A cause is

- *supported* if all ``clues`` of one of its options hold, and none of ``unless``; else
- *undecided* if a needed observation is unknown, or the first clue of an option holds; else
- *refuted*.

A cause such as a store that is down makes the observations of some other causes meaningless. While
it is supported, it hides these: they are undecided.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, not_
from typing import Literal, NamedTuple

from runbook_lib.language import gettext
from runbook_lib.model import CauseStatus, Finding, Json, Reading

#: If a larger share of carrier requests fails, the carrier is at fault.
MAX_FAILED_SHARE = 0.2
#: If the store has fewer free bytes, it is nearly full.
MIN_FREE_BYTES = 2**31
#: This many log lines that name a reason alone support its cause.
OFTEN = 10
#: A worker hangs if it runs, but has moved and logged nothing for longer than this.
MAX_IDLE_MINUTES = 10

Strategy = Literal["release", "retrigger", "none"]


class Observation(NamedTuple):
    """An observed value, None if unknown, and the journal entry that has it, such as ``#12``."""

    value: Json
    evidence: str


def collect_observations(readings: Iterable[Reading]) -> dict[str, Observation]:
    """Return each observation's newest known value, as {name: observation}."""
    observations: dict[str, Observation] = {}
    for reading in sorted(readings, key=attrgetter("observed_at")):
        evidence = f"#{reading.seq}" if reading.seq else reading.step
        for name, value in reading.observations.items():
            if value is not None or name not in observations:
                observations[name] = Observation(value, evidence)
    return observations


class Clue(NamedTuple):
    """A test of one observation, and what it means if the test holds."""

    name: str  # the observation's
    holds: Callable[[Json], bool]
    says: str


class Option(NamedTuple):
    """One way to recognise a cause: all of ``clues`` hold, and none of ``unless``.

    Once all clues of an option that ``decides`` are known, no other unknown observation leaves the
    cause undecided. So a system without our counters can refute it, too.
    """

    clues: tuple[Clue, ...]
    unless: tuple[Clue, ...] = ()
    decides: bool = False


def when(*clues: Clue, unless: Sequence[Clue] = (), decides: bool = False) -> Option:
    """Make an option: when all ``clues`` hold, unless one of ``unless`` does."""
    return Option(clues, tuple(unless), decides)


def is_over(limit: float) -> Callable[[Json], bool]:
    """Return a test whether a number is over a limit."""
    return lambda value: value > limit


def is_under(limit: float) -> Callable[[Json], bool]:
    """Return a test whether a number is under a limit."""
    return lambda value: value < limit


class Repair(NamedTuple):
    """What helps: an action of 6.2 on a service or DAG, or what ``person`` tells a person to do.

    With both, the person acts first.
    """

    action: str = ""
    target: str = ""
    person: str = ""


Values = Mapping[str, Json]
"""Observed values by name, and the facts ``worker``, ``dag`` and ``retrigger_moved_nothing``."""


@dataclass(frozen=True, kw_only=True)
class CauseRecord:
    """All that the runbook knows of one cause.

    options : the ways to recognise it; while a clue of the first one is unknown, it isn't refuted
    repair : what helps; ``{worker}`` and ``{dag}`` stand for their names
    starts : if one of these services is down, the repair is to start the first such one
    follow_ups : what to change so that it doesn't come back
    strategy : how 6.1 gets labels moving: ``release`` moves them before 6.2 repairs the cause,
        ``retrigger`` lets the worker move them after 6.2, and ``none`` moves nothing
    then : what to do after the repair, or ``""``
    stops_labels : whether the incident lasts as long as the cause
    hidden_by : causes that make its observations meaningless; their records come first
    """

    words: str
    options: tuple[Option, ...]
    repair: Repair
    starts: tuple[str, ...] = ()
    follow_ups: tuple[str, ...]
    strategy: Strategy = "retrigger"
    then: str = ""
    stops_labels: bool = True
    hidden_by: tuple[str, ...] = ()


def diagnose(observations: Mapping[str, Observation]) -> tuple[Finding, ...]:
    """Judge every cause: supported ones first, then undecided, then refuted.

    Within a status, they keep the order of the records. A missing observation is unknown.
    """
    judged: dict[str, Finding] = {}
    for cause, record in CAUSES.items():
        hiding = [c for c in record.hidden_by if judged[c].status is CauseStatus.SUPPORTED]
        judged[cause] = _judge(cause, observations, hiding)
    order = list(CauseStatus)
    return tuple(sorted(judged.values(), key=lambda finding: order.index(finding.status)))


def _judge(cause: str, observations: Mapping[str, Observation], hiding: Sequence[str]) -> Finding:
    """Judge one cause; ``hiding`` are the supported causes that hide it."""
    record = CAUSES[cause]

    def test(clue: Clue) -> bool | None:
        """Tell whether a clue holds; None if its observation is unknown."""
        seen = observations.get(clue.name)
        if seen is None or seen.value is None:
            return None
        return bool(clue.holds(seen.value))

    clues = list(record.options[0].clues)
    unknown = [clue for clue in clues if test(clue) is None]
    hints = [option.clues[0] for option in record.options if test(option.clues[0])]
    found: list[Clue] = []
    for option in record.options:
        tests = [test(clue) for clue in option.clues]
        if all(tests) and not any(map(test, option.unless)):
            found += option.clues
        if option.decides and None not in tests:
            unknown = []
    status = CauseStatus.UNDECIDED
    if hiding:
        reason = f"{gettext('hidden by')} {gettext(CAUSES[hiding[0]].words)}"
    elif found:
        status = CauseStatus.SUPPORTED
        clues = found
        reason = _say(found)
    elif unknown:
        reason = f"{gettext('not known whether')} {gettext(_say(unknown))}"
    elif hints:
        clues = hints
        reason = f"{gettext('not enough')}: {gettext(_say(hints))}"
    else:
        status = CauseStatus.REFUTED
        reason = "nothing points to it now"
    evidence = {observations[clue.name].evidence for clue in clues if clue.name in observations}
    return Finding(
        name=cause,
        words=record.words,
        status=status,
        evidence=tuple(sorted(evidence)),
        reason=reason,
    )


def _say(clues: Iterable[Clue]) -> str:
    """Join what the clues say. A single one stays English; whoever shows it translates it."""
    says = list(dict.fromkeys(clue.says for clue in clues))
    if len(says) > 1:
        says = list(map(gettext, says))
    return "; ".join(says)


_KEY_FIRST = "set MINIO_ROOT_PASSWORD of {worker} to the store's secret"
_PLACE_FIRST = (
    "set FULFILLMENT_BUCKET, PENDING_PREFIX and READY_PREFIX of {worker} as 5.4 shows them"
)
_DOWN = ("store_down", "worker_stopped")
#: While one of these causes lasts, no label leaves.
STANDSTILL = frozenset({*_DOWN, "worker_stuck", "pipeline_paused", "pipeline_failing"})
#: While one of these lasts, the worker finishes few labels or none, because each needs the carrier.
_CARRIER_CAUSES = frozenset({"carrier_timeout", "carrier_errors"})


def _fails_by(reason: str, says: str) -> Clue:
    """Return the clue that the worker recently failed for a reason."""
    return Clue(f"failures_{reason}", bool, says)


def _logs(reason: str) -> Clue:
    """Return the clue that the worker's log names a reason."""
    return Clue(f"logged_{reason}", bool, "the worker's log names this cause")


def _logs_often(reason: str, says: str) -> Clue:
    """Return the clue that the worker's log names a reason at least ``OFTEN`` times."""
    return Clue(f"logged_{reason}", is_over(OFTEN - 1), says)


def _make_carrier_record(words: str, outcome: str, says: str, follow_up: str) -> CauseRecord:
    """Return the record of a fault of the carrier; ``outcome`` is as the worker counts it."""
    return CauseRecord(
        words=words,
        options=(when(Clue(f"carrier_{outcome}_share", is_over(MAX_FAILED_SHARE), says)),),
        repair=Repair(
            person="call the carrier: labels without tracking number wait for it; no restart helps"
        ),
        follow_ups=("retry the carrier with backoff", follow_up),
    )


_STORE_DOWN = Clue("store_live", not_, "the object store does not answer, or is unhealthy")
_REFRESH_STOPPED = Clue("exporter_refresh_age_s", is_over(60), "the exporter stopped refreshing")
_PAUSED = Clue("worker_paused_by_others", bool, "somebody paused the worker")
_ANSWERS = Clue("worker_answers", bool, "the worker's API answers")
_SILENT = Clue("worker_answers", not_, "the worker's API does not answer")
_DAG_PAUSED = Clue("dag_paused", bool, "the DAG that releases labels is paused")
_LATE = Clue("overdue_real", bool, "labels wait too long")
_NONE_LATE = Clue("overdue_real", not_, "no label waits too long")
_UNREACHABLE = _fails_by("store_unreachable", "the worker waits for the store")
_BAD_KEY = _fails_by("bad_credentials", "the store rejects the worker's key or signature")
_KEY_MATCHES = Clue("credentials_match", bool, "the worker has the store's secret")
_KEYLESS = Clue("keyless_denials", bool, "the store denies a worker without a key")
_DENIED = _fails_by("access_denied", "the store denies the worker a right")
_NO_ROOM = _fails_by("storage_full", "writes are refused for lack of space")

#: Each cause by its name, which the fault that drills inject has, too.
CAUSES: Mapping[str, CauseRecord] = {
    "store_down": CauseRecord(
        words="an object store that is down",
        options=(when(_STORE_DOWN),),
        repair=Repair(person="restore the store on its own host"),
        starts=("minio", "object-store", "store"),
        follow_ups=("alert on the store's live endpoint", "restart the store automatically"),
        strategy="none",
    ),
    "metrics_blind": CauseRecord(
        words="missing or stale metrics",
        options=(
            when(Clue("prometheus_answers", not_, "Prometheus does not answer")),
            when(Clue("exporter_up", not_, "Prometheus cannot scrape the exporter")),
            when(Clue("lag_present", not_, "the lag has no recent value"), _REFRESH_STOPPED),
        ),
        repair=Repair(person="restore exporter and Prometheus on their hosts"),
        starts=("artifact-exporter", "prometheus"),
        follow_ups=("page on FulfillmentMetricsMissing", "restart the exporter automatically"),
        then="trust the listing (2.3) meanwhile",
        stops_labels=False,
        # Without the store, the exporter has nothing to measure.
        hidden_by=("store_down",),
    ),
    "worker_stopped": CauseRecord(
        words="a stopped worker",
        options=(
            when(
                Clue("worker_running", not_, "the worker's service does not run"), unless=[_ANSWERS]
            ),
            when(_PAUSED),
            when(
                Clue("worker_listed", not_, "the worker's service is not listed any more"), _SILENT
            ),
        ),
        repair=Repair("start", "{worker}"),
        follow_ups=("restart the worker automatically", "alert when the worker is down"),
    ),
    "worker_stuck": CauseRecord(
        words="a worker that hangs",
        options=(
            # A worker that waits for an answer begins no pass, either. But its time-out ends that
            # wait before a label is late, so a late label is needed, too.
            when(
                Clue("worker_stands_still", bool, "the worker runs, but begins no new pass"),
                _LATE,
                unless=[_UNREACHABLE, Clue("waiting_finished", not_, "no finished object waits")],
            ),
            when(Clue("worker_hangs", bool, "the worker's process runs, but answers no request")),
            # A worker without an API.
            when(
                Clue("worker_idle_minutes", is_over(MAX_IDLE_MINUTES), "no move and no log line"),
                Clue("worker_running", bool, "the worker's process runs"),
                _LATE,
                unless=[_ANSWERS, _DAG_PAUSED],
                decides=True,
            ),
        ),
        repair=Repair("restart", "{worker}"),
        follow_ups=("a time-out for the run lock", "alert when no pass begins"),
        strategy="release",
        hidden_by=_DOWN,
    ),
    "pipeline_paused": CauseRecord(
        words="a paused pipeline",
        options=(when(_DAG_PAUSED),),
        repair=Repair("unpause", "{dag}"),
        follow_ups=("alert when the DAG is paused", "give each pause a reason and an end"),
        strategy="release",
    ),
    "pipeline_failing": CauseRecord(
        words="a pipeline whose runs fail",
        options=(
            when(
                Clue("dag_failed_runs", bool, "the DAG's newest run failed"),
                Clue("dag_failed_runs", is_over(1), "the run before it failed, too"),
            ),
            when(Clue("dag_import_errors", bool, "the DAG cannot be loaded")),
        ),
        repair=Repair(
            person="the DAG's own logs say why its runs fail: the runbook cannot repair them"
        ),
        follow_ups=("alert on failed runs of the DAG", "retries for the DAG's tasks"),
        strategy="release",
    ),
    "bad_credentials": CauseRecord(
        words="wrong credentials of the worker",
        options=(
            when(_BAD_KEY, unless=[_KEY_MATCHES]),
            when(_KEYLESS, unless=[_KEY_MATCHES]),
            when(_BAD_KEY, _logs("bad_credentials")),
            when(
                Clue("credentials_match", not_, "the worker's secret is not the store's"),
                _logs("bad_credentials"),
            ),
            when(
                _logs_often("bad_credentials", "the worker's log repeats that its key is rejected"),
                decides=True,
            ),
        ),
        repair=Repair("restart", "{worker}", _KEY_FIRST),
        follow_ups=("check credentials at start", "a checklist for key rotation"),
        strategy="release",
        hidden_by=("store_down",),
    ),
    "no_permission": CauseRecord(
        words="a permission that the worker lacks",
        options=(
            when(_DENIED, unless=[_BAD_KEY, _KEYLESS]),
            when(_DENIED, _logs("access_denied"), unless=[_KEYLESS]),
        ),
        repair=Repair(person="give the worker's user its right back: no restart helps"),
        follow_ups=("check rights at start", "review of policy changes"),
        strategy="release",
        hidden_by=("store_down",),
    ),
    "bad_prefix": CauseRecord(
        words="a worker that watches another prefix",
        options=(when(Clue("worker_place", bool, "the worker uses another bucket or prefix")),),
        repair=Repair("restart", "{worker}", _PLACE_FIRST),
        follow_ups=("check prefixes at start", "review of configuration changes"),
        strategy="release",
    ),
    "storage_full": CauseRecord(
        words="a full object store",
        options=(
            when(_NO_ROOM),
            when(
                _logs("storage_full"),
                Clue("store_free_bytes", is_under(MIN_FREE_BYTES), "under 2 GiB are free"),
            ),
            when(
                _logs_often("storage_full", "the worker's log repeats that the store is full"),
                decides=True,
            ),
            when(Clue("store_refuses_ours", bool, "the store has no room for our own write")),
        ),
        repair=Repair(
            person="free or add capacity: a move needs room for the copies, and no restart helps"
        ),
        follow_ups=("alert on minio_cluster_capacity_usable_free_bytes", "retention for ready/"),
        strategy="none",
        hidden_by=("store_down",),
    ),
    "carrier_timeout": _make_carrier_record(
        "a carrier that answers slower than the client waits",
        "timeout",
        "the carrier answers too slowly",
        "alert on the carrier's latency",
    ),
    "carrier_errors": _make_carrier_record(
        "errors of the carrier",
        "error",
        "the carrier answers with errors",
        "alert on the carrier's error rate",
    ),
    "surge": CauseRecord(
        words="labels that arrive faster than a healthy worker drains them",
        options=(
            when(
                Clue("surplus_objects", is_over(50), "more labels arrive than leave"),
                Clue("drain_per_minute", bool, "the worker moves labels"),
                unless=[
                    Clue("catching_up", bool, "held-back labels are arriving now"),
                    Clue("waiting_finished", is_under(20), "no finished objects queue up"),
                    _NONE_LATE,
                ],
            ),
        ),
        repair=Repair(person="the worker drains the queue: a restart only costs time"),
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # While no label leaves, you can't tell whether a healthy worker would keep up.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    "synthetic": CauseRecord(
        words="only synthetic objects",
        options=(
            when(
                Clue("overdue_synthetic", bool, "synthetic objects wait over the threshold"),
                _NONE_LATE,
                # Leftovers do not explain an incident in which real labels were late.
                unless=[Clue("real_were_overdue", bool, "real labels waited too long")],
            ),
        ),
        repair=Repair(person="6.3 clean up the chaos objects (runbook run 06)"),
        follow_ups=(),
        stops_labels=False,
        hidden_by=("store_down",),
    ),
    "support_down": CauseRecord(
        words="a support service that is down",
        options=(when(Clue("support_answers", not_, "the support service does not answer")),),
        repair=Repair("restart", "support-service"),
        starts=("support-service",),
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    "clock_skew": CauseRecord(
        words="a service whose clock is off",
        options=(when(Clue("clock_skewed", bool, "a system's clock is off")),),
        repair=Repair(
            person="set the clock right (a restart does not help); trust no ages from that system"
        ),
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}


# This command plans the advised actions one by one, and says how to approve each.
_RUN = "runbook fix"
_STRATEGY_WORDS: Mapping[Strategy, str] = {
    "release": "6.1 release the finished labels by move",
    "retrigger": "6.1 re-trigger the worker",
    "none": "then plan the release again",
}


class Advice(NamedTuple):
    """What section 5 says, and section 6 plans.

    causes : the supported causes, most urgent first
    strategy, why : what 6.1 does, and why
    action, target, reason : what 6.2 does, to which service or DAG, and why; action ``none`` if
        nothing in 6.2 helps
    steps : what to do, in order, each with the causes that it helps against
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
        """The numbered steps."""
        return tuple(f"{number}. {text}" for number, (text, _) in enumerate(self.steps, 1))

    def about(self, cause: str) -> str:
        """Return the steps that help against one cause, as one text."""
        return "; ".join(text for text, causes in self.steps if cause in causes)


def advise(causes: Sequence[str], values: Values) -> Advice:
    """Merge what helps against the supported ``causes``, in their order.

    Causes that forbid a release come first. A release by move comes before the repairs, because a
    repaired worker moves labels, too. A re-trigger needs the worker, so it comes after them.
    """
    strategy, why = choose_strategy(causes, values)
    forbidding = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    allowing = [cause for cause in causes if cause not in forbidding]
    stopping = frozenset(cause for cause in allowing if CAUSES[cause].stops_labels)
    steps: list[tuple[str, frozenset[str]]] = []
    reasons: list[str] = []
    actions: list[Repair] = []
    for cause in forbidding + allowing:
        repair = find_repair(cause, values)
        texts = [repair.person] if repair.person else []
        reasons.append(": ".join([cause, *texts]))
        if repair.target:
            actions.append(repair)
            texts.append(f"6.2 {gettext(repair.action)} {repair.target} ({_RUN})")
        texts = [f", {gettext('then')} ".join(texts), gettext(CAUSES[cause].then)]
        steps += [(text, frozenset([cause])) for text in texts if text]
    move = (f"{gettext(_STRATEGY_WORDS[strategy])} ({_RUN})", stopping)
    if strategy == "release":
        steps.insert(0, move)
    # Once the cause that forbids a release is gone, labels that another stopped still need one.
    elif strategy == "retrigger" or (forbidding and stopping):
        steps.append(move)
    first = actions[0] if actions else Repair("none", values["worker"])
    return Advice(
        causes=tuple(causes),
        strategy=strategy,
        why=why,
        action=first.action,
        target=first.target,
        reason="; ".join(reasons) or "no cause is supported: nothing to restart",
        steps=tuple(steps),
    )


def find_repair(cause: str, values: Values) -> Repair:
    """Return what helps against a cause, given what was observed."""
    record = CAUSES[cause]
    repair = record.repair
    down = values.get("services_down") or ()
    for name in record.starts:
        if name in down:
            return Repair("start", name)
    if cause == "worker_stopped":
        if values.get("worker_paused"):
            repair = Repair("resume", "{worker}")
        elif values.get("worker_listed") is False:
            repair = Repair(person="deploy {worker} again: no such service is there to start")
    names = {"worker": values["worker"], "dag": values["dag"]}
    person = gettext(repair.person)
    return repair._replace(target=repair.target.format(**names), person=person.format(**names))


def choose_strategy(causes: Iterable[str], values: Values) -> tuple[Strategy, str]:
    """Choose what 6.1 does by the first rule that holds, and say why."""
    ordered = [cause for cause in CAUSES if cause in set(causes)]
    forbidding = [CAUSES[cause].words for cause in ordered if CAUSES[cause].strategy == "none"]
    disabling = [cause for cause in ordered if CAUSES[cause].strategy == "release"]
    standstill = STANDSTILL.intersection(ordered)
    needs_finished = disabling or _CARRIER_CAUSES.intersection(ordered)
    has_no_api = values.get("worker_answers", True) is None
    rules: list[tuple[object, Strategy, str]] = [
        (forbidding, "none", f"do not release: {' and '.join(forbidding)}; see 6.2"),
        (values.get("waiting_real") == 0, "none", "no real object waits"),
        (
            needs_finished and values.get("waiting_finished") == 0,
            "none",
            "no finished object waits: see 6.2",
        ),
        (disabling, "release", f"the worker cannot move labels: {', '.join(disabling)}"),
        (standstill and has_no_api, "none", "6.2 brings the worker back; then it moves labels"),
        (standstill, "retrigger", "6.2 brings the worker back first; then ask it to run once"),
        (
            values.get("overdue_real") == 0,
            "none",
            "no real object waits over the threshold, and nothing stops the worker",
        ),
        (
            has_no_api or values.get("retrigger_moved_nothing"),
            "release",
            "the worker has no API to run it again, or a re-trigger moved nothing",
        ),
        (True, "retrigger", "no cause is found that stops the worker: ask it to run once"),
    ]
    return next((strategy, why) for holds, strategy, why in rules if holds)
