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
from operator import attrgetter, not_
from typing import Literal, NamedTuple

from runbook_lib.language import gettext
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
    """A way to tell a cause: all of ``signs`` are there, and none of ``unless``.

    ``decides`` : where all its signs are known, the cause is not undecided. So a system without our
    counters can refute a cause, too.
    """

    signs: tuple[Sign, ...]
    unless: tuple[Sign, ...] = ()
    decides: bool = False


def when(*signs: Sign, unless: Sequence[Sign] = (), decides: bool = False) -> Option:
    """Return an option."""
    return Option(signs, tuple(unless), decides)


def is_over(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number over a limit."""
    return lambda value: value > limit


def is_under(limit: float) -> Callable[[Json], bool]:
    """Return a test for a number under a limit."""
    return lambda value: value < limit


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
    options : the ways to tell it; without all signs of the first one it is not refuted
    repair : what helps. ``{worker}`` and ``{dag}`` stand for their names
    starts : services; the first of them that is down is started instead
    follow_ups : what to change so that it does not come back; empty: no change in operations
    strategy : how 6.1 gets labels moving. ``release``: by move, before 6.2 repairs the cause.
        ``retrigger``: the worker moves them, after 6.2. ``none``: no label may be moved
    then : what to do after the repair, in words; empty: nothing
    stops_labels : whether the incident lasts as long as the cause
    hidden_by : causes that make its observations meaningless; their records come earlier
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

    def is_known(sign: Sign) -> bool:
        return sign.name in known

    def is_there(sign: Sign) -> bool:
        return is_known(sign) and sign.holds(known[sign.name])

    signs = list(record.options[0].signs)
    unknown = [sign for sign in signs if not is_known(sign)]
    hints = [option.signs[0] for option in record.options if is_there(option.signs[0])]
    found: list[Sign] = []
    for option in record.options:
        if all(map(is_there, option.signs)) and not any(map(is_there, option.unless)):
            found += option.signs
        if option.decides and all(map(is_known, option.signs)):
            unknown = []
    status = CauseStatus.UNDECIDED
    if hiding:
        reason = f"{gettext('hidden by')} {gettext(CAUSES[hiding[0]].words)}"
    elif found:
        status = CauseStatus.SUPPORTED
        signs = found
        reason = _say(found)
    elif unknown:
        reason = f"{gettext('not known whether')} {gettext(_say(unknown))}"
    elif hints:
        signs = hints
        reason = f"{gettext('not enough')}: {gettext(_say(hints))}"
    else:
        status = CauseStatus.REFUTED
        reason = "nothing points to it now"
    evidence = {observations[sign.name].evidence for sign in signs if sign.name in observations}
    return Finding(
        name=cause,
        words=record.words,
        status=status,
        evidence=tuple(sorted(evidence)),
        reason=reason,
    )


def _say(signs: Iterable[Sign]) -> str:
    """Return what signs say, each once; a single one in English, to be looked up where it shows."""
    says = list(dict.fromkeys(sign.says for sign in signs))
    if len(says) > 1:
        says = list(map(gettext, says))
    return "; ".join(says)


_KEY_FIRST = "set MINIO_ROOT_PASSWORD of {worker} to the store's secret"
_PLACE_FIRST = (
    "set FULFILLMENT_BUCKET, PENDING_PREFIX and READY_PREFIX of {worker} as 5.4 shows them"
)
_DOWN = ("store_down", "worker_stopped")
#: Each of these causes keeps every label from leaving.
STANDSTILL = frozenset({*_DOWN, "worker_stuck", "pipeline_paused", "pipeline_failing"})
#: While one of these lasts, the worker finishes fewer labels or none: each label needs the
#: carrier.
_CARRIER_CAUSES = frozenset({"carrier_timeout", "carrier_errors"})


def _count(reason: str, says: str) -> Sign:
    """Return the sign that the worker lately counted failures for a reason."""
    return Sign(f"failures_{reason}", bool, says)


def _log(reason: str) -> Sign:
    """Return the sign that the worker's log names a reason."""
    return Sign(f"logged_{reason}", bool, "the worker's log names it")


def _log_often(reason: str, says: str) -> Sign:
    """Return the sign that the worker's log names a reason again and again."""
    return Sign(f"logged_{reason}", is_over(OFTEN - 1), says)


def _make_carrier_record(words: str, outcome: str, says: str, follow_up: str) -> CauseRecord:
    """Return the record of a cause that lies with the carrier.

    Parameters
    ----------
    words : the cause in words
    outcome : of a carrier request, as the worker counts and logs it
    says : the sign in words
    follow_up : which alert tells of it next time
    """
    return CauseRecord(
        words=words,
        options=(when(Sign(f"carrier_{outcome}_share", is_over(MAX_FAILED_SHARE), says)),),
        repair=Repair(
            person="call the carrier: labels without tracking number wait for it; no restart helps"
        ),
        follow_ups=("retry the carrier with backoff", follow_up),
    )


_STORE_DOWN = Sign("store_live", not_, "the object store does not answer, or is not well")
_REFRESH_STOPPED = Sign("exporter_refresh_age_s", is_over(60), "the exporter stopped refreshing")
_PAUSED = Sign("worker_paused_by_others", bool, "somebody paused the worker")
_ANSWERS = Sign("worker_answers", bool, "the worker's API answers")
_SILENT = Sign("worker_answers", not_, "the worker's API does not answer")
_DAG_PAUSED = Sign("dag_paused", bool, "the DAG that releases labels is paused")
_LATE = Sign("overdue_real", bool, "labels wait too long")
_NONE_LATE = Sign("overdue_real", not_, "no label waits too long")
_UNREACHABLE = _count("store_unreachable", "the worker waits for the store")
_BAD_KEY = _count("bad_credentials", "the store rejects the worker's key or signature")
_KEY_MATCHES = Sign("credentials_match", bool, "the worker has the store's secret")
_KEYLESS = Sign("keyless_denials", bool, "the store denies a worker without a key")
_DENIED = _count("access_denied", "the store denies the worker a right")
_NO_ROOM = _count("storage_full", "writes are refused for want of room")

#: Each cause by its name. The fault that drills inject has the same name.
CAUSES: Mapping[str, CauseRecord] = {
    "store_down": CauseRecord(
        words="an object store that is down",
        options=(when(_STORE_DOWN),),
        repair=Repair(person="restore the store where it runs"),
        starts=("minio", "object-store", "store"),
        follow_ups=("alert on the store's live endpoint", "restart the store by itself"),
        strategy="none",
    ),
    "metrics_blind": CauseRecord(
        words="metrics that are blind",
        options=(
            when(Sign("prometheus_answers", not_, "Prometheus does not answer")),
            when(Sign("exporter_up", not_, "Prometheus cannot scrape the exporter")),
            when(Sign("lag_present", not_, "there is no fresh value of the lag"), _REFRESH_STOPPED),
        ),
        repair=Repair(person="restore exporter and Prometheus where they run"),
        starts=("artifact-exporter", "prometheus"),
        follow_ups=("page on FulfillmentMetricsMissing", "restart the exporter by itself"),
        then="believe the listing (2.3) meanwhile",
        stops_labels=False,
        # Without the store no exporter can see anything.
        hidden_by=("store_down",),
    ),
    "worker_stopped": CauseRecord(
        words="a stopped worker",
        options=(
            when(
                Sign("worker_running", not_, "the worker's service does not run"),
                unless=[_ANSWERS],
            ),
            when(_PAUSED),
            when(
                Sign("worker_listed", not_, "no such service is listed any more"),
                _SILENT,
            ),
        ),
        repair=Repair("start", "{worker}"),
        follow_ups=("restart the worker by itself", "alert when the worker is down"),
    ),
    "worker_stuck": CauseRecord(
        words="a worker that hangs",
        options=(
            # A worker that waits for an answer begins no pass, either, but its time-out ends the
            # wait before a label is late.
            when(
                Sign("worker_stands_still", bool, "the worker runs, but begins no new pass"),
                _LATE,
                unless=[
                    _UNREACHABLE,
                    Sign("waiting_finished", not_, "no finished object waits"),
                ],
            ),
            when(Sign("worker_hangs", bool, "its process runs, and answers nobody")),
            # A worker without an API.
            when(
                Sign("worker_idle_minutes", is_over(MAX_IDLE_MINUTES), "it moves and logs nothing"),
                Sign("worker_running", bool, "its process runs"),
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
        follow_ups=("alert when the DAG is paused", "a reason and an end for each pause"),
        strategy="release",
    ),
    "pipeline_failing": CauseRecord(
        words="a pipeline whose runs fail",
        options=(
            when(
                Sign("dag_failed_runs", bool, "its newest run failed"),
                Sign("dag_failed_runs", is_over(1), "the run before failed, too"),
            ),
            when(Sign("dag_import_errors", bool, "the DAG cannot be loaded")),
        ),
        repair=Repair(
            person="the DAG's own logs say why its runs fail: the runbook cannot repair them"
        ),
        follow_ups=("alert on failed runs of the DAG", "retries for its tasks"),
        strategy="release",
    ),
    "bad_credentials": CauseRecord(
        words="wrong credentials of the worker",
        options=(
            when(_BAD_KEY, unless=[_KEY_MATCHES]),
            when(_KEYLESS, unless=[_KEY_MATCHES]),
            when(_BAD_KEY, _log("bad_credentials")),
            when(
                Sign("credentials_match", not_, "the worker's secret is not the store's"),
                _log("bad_credentials"),
            ),
            when(
                _log_often(
                    "bad_credentials", "its log says over and over that its key is rejected"
                ),
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
            when(_DENIED, _log("access_denied"), unless=[_KEYLESS]),
        ),
        repair=Repair(person="give the worker's user its right back: no restart helps"),
        follow_ups=("check rights at start", "review of policy changes"),
        strategy="release",
        hidden_by=("store_down",),
    ),
    "bad_prefix": CauseRecord(
        words="a worker that watches another prefix",
        options=(when(Sign("worker_place", bool, "the worker watches or fills another place")),),
        repair=Repair("restart", "{worker}", _PLACE_FIRST),
        follow_ups=("check prefixes at start", "review of configuration changes"),
        strategy="release",
    ),
    "storage_full": CauseRecord(
        words="a full object store",
        options=(
            when(_NO_ROOM),
            when(
                _log("storage_full"),
                Sign("store_free_bytes", is_under(MIN_FREE_BYTES), "under 2 GiB are free"),
            ),
            when(
                _log_often("storage_full", "its log says over and over that the store is full"),
                decides=True,
            ),
            when(Sign("store_refuses_ours", bool, "the store has no room for our own write")),
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
        "the carrier does not answer in time",
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
                Sign("surplus_objects", is_over(50), "more labels arrive than leave"),
                Sign("drain_per_minute", bool, "the worker moves labels"),
                unless=[
                    Sign("catching_up", bool, "labels that were kept back are no surge"),
                    Sign("waiting_finished", is_under(20), "no finished objects queue up"),
                    _NONE_LATE,
                ],
            ),
        ),
        repair=Repair(person="the worker drains the queue: a restart only costs time"),
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # While no label leaves, nobody can see whether labels arrive faster than a healthy worker
        # drains them.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    "synthetic": CauseRecord(
        words="synthetic objects alone",
        options=(
            when(
                Sign("overdue_synthetic", bool, "synthetic objects wait over the threshold"),
                _NONE_LATE,
                # Leftovers do not explain an incident in which real labels were late.
                unless=[Sign("real_were_overdue", bool, "real labels waited too long")],
            ),
        ),
        repair=Repair(person="6.3 clean up the chaos objects (runbook run 06)"),
        follow_ups=(),
        stops_labels=False,
        hidden_by=("store_down",),
    ),
    "support_down": CauseRecord(
        words="a support service that is down",
        options=(when(Sign("support_answers", not_, "the support service does not answer")),),
        repair=Repair("restart", "support-service"),
        starts=("support-service",),
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    "clock_skew": CauseRecord(
        words="a service whose clock is off",
        options=(when(Sign("clock_skewed", bool, "a system's clock is off")),),
        repair=Repair(
            person="set the clock right (a restart does not help); trust no ages from that system"
        ),
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}


# This command plans the actions of the advice one by one, and says how to approve each.
_RUN = "runbook fix"
_STRATEGY_WORDS: Mapping[Strategy, str] = {
    "release": "6.1 release by move what is finished",
    "retrigger": "6.1 re-trigger the worker",
    "none": "then plan the release again",
}


class Advice(NamedTuple):
    """What section 5 says, and section 6 plans.

    Attributes
    ----------
    causes : the supported causes, in the order in which to deal with them
    strategy, why : what 6.1 does, and why
    action, target, reason : what 6.2 does, to which service or DAG, and why; action ``none`` when
        no action of 6.2 helps
    steps : all that is to be done, in order: in words, and against which causes it helps
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
        return tuple(f"{number}. {text}" for number, (text, _) in enumerate(self.steps, 1))

    def about(self, cause: str) -> str:
        """Return the steps that help against one cause as one text."""
        return "; ".join(text for text, causes in self.steps if cause in causes)


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
    strategy, why = choose_strategy(causes, values)
    forbidding = [cause for cause in causes if CAUSES[cause].strategy == "none"]
    others = [cause for cause in causes if cause not in forbidding]
    stopping = frozenset(cause for cause in others if CAUSES[cause].stops_labels)
    steps: list[tuple[str, frozenset[str]]] = []
    reasons: list[str] = []
    actions: list[Repair] = []
    for cause in forbidding + others:
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
    # After a cause that forbids a release, labels that another one stopped still need a release.
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
    """Return what helps against a cause, by what was observed."""
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
    """Choose what 6.1 does, and say why: the first rule that holds."""
    ordered = [cause for cause in CAUSES if cause in set(causes)]
    forbidding = [CAUSES[cause].words for cause in ordered if CAUSES[cause].strategy == "none"]
    disabling = [cause for cause in ordered if CAUSES[cause].strategy == "release"]
    standstill = STANDSTILL.intersection(ordered)
    needs_finished = disabling or _CARRIER_CAUSES.intersection(ordered)
    has_no_api = values.get("worker_has_api") is False
    rules: list[tuple[object, Strategy, str]] = [
        (forbidding, "none", f"do not release: {' and '.join(forbidding)}; see 6.2"),
        (values.get("waiting_real") == 0, "none", "no real object waits"),
        (
            needs_finished and values.get("waiting_finished") == 0,
            "none",
            "no finished object waits: see 6.2",
        ),
        (disabling, "release", f"the worker cannot move labels: {', '.join(disabling)}"),
        (standstill and has_no_api, "none", "6.2 brings the worker back; it moves by itself"),
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
