"""Section 5: why labels wait, from evidence. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from objectmove.errors import MoveError
from runbook_lib import model
from runbook_lib.errors import (
    ClientError,
    ClientTimeoutError,
    NotConfiguredError,
    NotFoundError,
)
from runbook_lib.frames import FLAG, TEXT, TIME, WHOLE, Dtype
from runbook_lib.model import ActionPhase, CauseStatus, Finding, Reading, Role, Status, Verdict
from runbook_lib.policy import say_main_causes
from runbook_lib.record.actions import group_actions
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step
from runbook_lib.show.text import count_of

from ..analysis import causes
from ..analysis.causes import (
    CAUSES,
    STORE_SERVICES,
    Advice,
    Cause,
    Observation,
    advise,
    collect_observations,
    diagnose,
)
from ..change.release import GATE
from ..clients.http_systems import WorkerState
from ..clients.services import ServiceState, try_time
from ..investigation import Investigation
from ..policy import IN_TROUBLE
from . import detection, immediate
from .detection import read_alert, read_backlog_objects, read_probe, read_ticket
from .immediate import read_store_health
from .purpose import read_clocks
from .recovery import find_close_before
from .signals import read_lines, read_samples
from .symptoms import judge_now, list_current
from .timeline import build_timeline, read_events
from .worker_metrics import (
    WorkerMetrics,
    count_flow,
    draw_throughput,
    is_catching_up,
    observe_reasons,
    read_worker_metrics,
)

NAME = "05_root_cause"
TITLE = "Root cause exploration"
Parameters = SectionParameters

#: The steps whose actions make labels move again.
_REMEDIES = ("6.1", "6.2")
#: How long to watch a worker that may stand still, or a service that starts, in seconds.
_WATCH_S = 15
#: After this long without a pass a worker stands still, if its usual gap between passes is unknown.
_STANDSTILL_S = 300.0
#: A scrape that is older than this says nothing about now.
_FRESH_S = 120.0
_UP = 'up{job="artifact-exporter"}'
_CARRIER_TIMES = "fulfillment_carrier_request_seconds_bucket"
_LATENCY = f"histogram_quantile(0.95, sum by (le, outcome) (rate({_CARRIER_TIMES}[1m])))"
#: Beside readings, the outcome ``ok`` would seem to be a status.
_NAMED_LATENCY = f'label_replace({_LATENCY}, "outcome", "answered", "outcome", "ok")'
_SUPPORT_FAILURES = "sum(increase(support_timeline_collection_failures_total[1m]))"
_REFUSALS = ("bad_credentials", "access_denied", "no_such_bucket")


@step(
    "5.1",
    "Does the worker run, and does the carrier answer?",
    name="worker and carrier",
    source="$fulfillment_url/fulfillment/worker; its counters; services; log",
    role=Role.CAUSE,
    threshold="the worker is stopped, paused or still, or over "
    f"{causes.MAX_FAILED_SHARE:.0%} of carrier requests fail",
)
def read_worker(inv: Investigation) -> model.Outcome:
    """Read services, worker and carrier, each as far as it can be read.

    A worker that just starts, or that may stand still, is watched for up to 15 s.
    """
    look = _look_at_worker(inv)
    problems = _list_worker_problems(inv, look)
    outcome = _describe_worker(inv, look)
    if problems:
        reason = "; ".join(problems)
        outcome.value = reason
        if look.stopped:
            reason += f"; not running: {', '.join(look.stopped)}"
        return outcome.breach(reason)
    answer = look.answer
    if not inv.settings.fulfillment_url:
        return outcome.left_out(answer.error)
    if answer.state is None or look.counter_error or look.stands_still is None:
        return outcome.unknown(answer.error or look.counter_error or "no pass could be seen")
    metrics = look.metrics
    timeout_share = metrics.compute_carrier_share("timeout")
    error_share = metrics.compute_carrier_share("error")
    if metrics.is_short and None in (timeout_share, error_share):
        requests = count_of(round(sum(metrics.recent_requests.values())), "request")
        words = "the worker runs its passes; whether the carrier answers is not known yet: "
        words += f"{requests} {metrics.recently}, the time since the last action"
        return outcome.unknown(words)
    outcome.value = "working"
    carrier = "and the carrier answers it"
    if timeout_share is None:
        carrier = "with too few carrier requests to judge the carrier"
    return outcome.ok(f"the worker runs its passes {carrier}")


class _WorkerLook(NamedTuple):
    """What one look found out about the services, the worker and its counters.

    Attributes
    ----------
    states : the services that are listed; empty when they cannot be listed
    stopped : for each service that does not run, since when; None when that is not known
    process : the worker's service; None when it is not listed
    is_running : whether the worker's service runs; None when that is not known
    answer : what the worker's API answered
    metrics : the worker's counters; without counts when these cannot be read
    counter_error : why the counters cannot be read; empty when they can
    stands_still : whether the worker begins no pass; None when that is not known
    is_paused : whether the worker is paused; None when that is not known
    holding_plan : the plan of ours for which the worker is paused; empty when there is none
    """

    states: Sequence[ServiceState]
    stopped: dict[str, datetime | None]
    process: ServiceState | None
    is_running: bool | None
    answer: _WorkerAnswer
    metrics: WorkerMetrics
    counter_error: str
    stands_still: bool | None
    is_paused: bool | None
    holding_plan: str

    @property
    def is_paused_by_others(self) -> bool | None:
        """Whether someone other than us paused the worker; None when that is not known."""
        return self.is_paused and not self.holding_plan


def _look_at_worker(inv: Investigation) -> _WorkerLook:
    """Look at the services, the worker and its counters; if need be, watch it for up to 15 s."""
    states = _list_services(inv)
    answer = _ask_worker(inv)
    worker = answer.state
    counted, counter_error = attempt(lambda: read_worker_metrics(inv))
    metrics = counted or WorkerMetrics("no counters")
    process = _find_service(states, inv.settings.worker_service)
    is_running = _is_running(process)
    accepts_no_request = not (answer.answers or answer.is_silent)
    if process is not None and accepts_no_request and _is_young(inv, process):
        is_running = _watch_start(inv, process)
    stands_still = _watch_passes(inv, worker, process, metrics)
    is_paused = worker.paused if worker else None
    return _WorkerLook(
        states=states,
        stopped={state.name: state.since for state in states if not state.running},
        process=process,
        is_running=is_running,
        answer=answer,
        metrics=metrics,
        counter_error=counter_error,
        stands_still=stands_still,
        is_paused=is_paused,
        holding_plan=_find_own_hold(inv) if is_paused else "",
    )


def _list_worker_problems(inv: Investigation, look: _WorkerLook) -> list[str]:
    """Return what is wrong with the worker or the carrier, in words."""
    service = inv.settings.worker_service
    process_words = service
    if inv.settings.worker_control == "command":
        # WORKER_STATUS_CMD tells of the worker only: the service that hosts it may still answer.
        process_words = "the worker, by WORKER_STATUS_CMD,"
    answer = look.answer
    is_missing = bool(look.states) and look.process is None
    is_mute = answer.answers is False
    hangs = _hangs(look)
    # An unknown share, of too few requests, counts as 0.
    timeout_share = look.metrics.compute_carrier_share("timeout") or 0
    error_share = look.metrics.compute_carrier_share("error") or 0
    recently = look.metrics.recently
    plan = look.holding_plan
    checks = {
        f"{process_words} does not run": look.is_running is False,
        f"{service} is not among the services": is_missing and is_mute,
        f"its API does not answer: {answer.error}": look.is_running and is_mute,
        "its process runs, and answers nobody": hangs,
        "the worker is paused": look.is_paused_by_others,
        f"the worker is paused for {plan}, which is not finished": bool(plan),
        "the worker begins no new pass": look.stands_still,
        f"{timeout_share:.0%} of the carrier requests {recently} timed out": timeout_share
        > causes.MAX_FAILED_SHARE,
        f"{error_share:.0%} of the carrier requests {recently} failed": error_share
        > causes.MAX_FAILED_SHARE,
    }
    return [problem for problem, applies in checks.items() if applies]


def _hangs(look: _WorkerLook) -> bool:
    """Tell whether the worker's process runs, but neither its API nor its counters answer."""
    return bool(look.is_running and look.answer.is_silent and look.counter_error)


def _describe_worker(inv: Investigation, look: _WorkerLook) -> model.Outcome:
    """Return what was read of services, worker and carrier, without a judgement."""
    worker = look.answer.state
    process = look.process
    metrics = look.metrics
    watchers = _read_watchers(inv)
    latency, _ = attempt(lambda: read_lines(inv, _NAMED_LATENCY, labels=("outcome",)))
    support_services = [name for name in look.stopped if "support" in name]
    first_signs = {
        Cause.STORE_DOWN: _find_stop(look.stopped, STORE_SERVICES),
        Cause.WORKER_STOPPED: look.stopped.get(inv.settings.worker_service),
        # A worker has its settings from its start.
        Cause.BAD_PREFIX: process.since if process and process.running else None,
        Cause.WORKER_STUCK: worker.last_run_at if worker else None,
        Cause.SUPPORT_DOWN: _find_stop(look.stopped, support_services),
        Cause.METRICS_BLIND: watchers.blind_since,
    }
    # A pause for our own plan did not trigger the incident.
    pauses = [] if look.holding_plan else _list_pauses(worker)
    return model.Outcome(
        source=f"{inv.clients.fulfillment.url}/fulfillment/worker; {metrics.source}; services",
        rows=rows_of(look.states, "running", "state", "since", "exit_code", service="name"),
        facts=worker.raw if worker else {},
        plot=model.Plot(
            title="Carrier latency, 95th percentile of a minute",
            unit="seconds",
            part="diagnosis",
            lines=latency or (),
        ),
        events=[*read_events(inv), *pauses],
        # What a service or the worker says of itself counts more than counters.
        first_seen={**metrics.began, **_drop_unknown(first_signs)},
        observations={
            "worker_running": look.is_running,
            "worker_listed": look.process is not None if look.states else None,
            "worker_answers": look.answer.answers,
            "worker_has_api": look.answer.has_api,
            "worker_paused": look.is_paused,
            "worker_paused_by_others": look.is_paused_by_others,
            "worker_stands_still": look.stands_still,
            "worker_hangs": _hangs(look),
            "worker_last_move": worker.last_move_at if worker else None,
            "carrier_timeout_share": metrics.compute_carrier_share("timeout"),
            "carrier_error_share": metrics.compute_carrier_share("error"),
            "surplus_objects": metrics.surplus,
            "catching_up": is_catching_up(inv, metrics),
            "drain_per_minute": metrics.drained,
            "counted_briefly": metrics.is_short,
            **observe_reasons(inv, metrics, "carrier_timeout", "carrier_error"),
            "services_down": list(look.stopped),
            **watchers.observations,
        },
    )


def _is_of_this_incident(inv: Investigation, at: datetime) -> bool:
    """Tell whether a time is in the window, and after the close of the incident before this one."""
    if at < inv.now() - inv.window:
        return False
    close = find_close_before(inv)
    return close is None or at > close.at


def _find_own_hold(inv: Investigation) -> str:
    """Return the id of our plan that holds the worker; empty when none is known to hold it."""
    try:
        unfinished = GATE.list_unfinished(inv.clients)
    except (ClientError, MoveError):
        return ""
    for plan in unfinished:
        if plan["held_since"]:
            return str(plan["plan"])
    return ""


def _list_pauses(worker: WorkerState | None) -> list[model.Event]:
    """Return the event of the worker's pause; empty without a pause whose time is known."""
    if worker is None or not worker.paused or worker.paused_at is None:
        return []
    text = f"the worker was paused by {worker.paused_by or 'somebody'}"
    return [model.Event(worker.paused_at, "trigger", text, "fulfillment")]


def _list_services(inv: Investigation) -> list[ServiceState]:
    """Return the states of all services and of the worker; empty when none can be read."""
    listed, _ = attempt(lambda: inv.clients.services.list_services())
    states = list(listed or [])
    worker = inv.settings.worker_service
    # WORKER_CONTROL may name another way to read the state of the worker.
    if _find_service(states, worker) is None:
        listed, _ = attempt(lambda: inv.clients.find_switch(worker).list_services())
        states += [state for state in listed or [] if state.name == worker]
    return states


def _find_service(states: Iterable[ServiceState], name: str) -> ServiceState | None:
    for state in states:
        if state.name == name:
            return state
    return None


def _is_running(state: ServiceState | None) -> bool | None:
    """Tell whether a service runs; None while it starts, and when its state is not known."""
    if state is None or state.state.upper() == "STARTING":
        return None
    return state.running


def _is_young(inv: Investigation, state: ServiceState) -> bool:
    """Tell whether a service was started in the last 15 s, and is starting or running."""
    is_up_or_starting = _is_running(state) is not False  # None: it is starting
    if state.since is None or not is_up_or_starting:
        return False
    return (inv.now() - state.since).total_seconds() < _WATCH_S


def _watch_start(inv: Investigation, first: ServiceState) -> bool | None:
    """Tell whether the worker's young service comes up: watch it for up to 15 s, until it answers.

    If it starts again meanwhile, it does not come up: its process ends after each start.

    Parameters
    ----------
    first : the state that was read first
    """
    state: ServiceState | None = first
    for _ in range(_WATCH_S):
        inv.sleep(1.0)
        state = _find_service(_list_services(inv), first.name)
        if state is None or not _is_young(inv, state):
            break
        if state.since != first.since:
            return False
        if _ask_worker(inv).answers:
            return True
    return _is_running(state)


def _find_stop(stopped: Mapping[str, datetime | None], names: Sequence[str]) -> datetime | None:
    """Return since when the first stopped service with one of these names is stopped.

    None when none of them is stopped, and when the time is not known.
    """
    for name, at in stopped.items():
        if name in names:
            return at
    return None


def _drop_unknown(times: Mapping[Cause, datetime | None]) -> dict[str, datetime]:
    """Return the times that are known."""
    return {cause: at for cause, at in times.items() if at}


class _WorkerAnswer(NamedTuple):
    """What the worker's API answered.

    Attributes
    ----------
    state : the worker's state; None without an answer
    answers : whether the API answers; None when there is no API
    error : why the API does not answer; empty when it does
    has_api : whether the worker has an API; None when that is not known
    is_silent : whether the API accepts a request, but does not answer in time
    """

    state: WorkerState | None
    answers: bool | None
    error: str
    has_api: bool | None
    is_silent: bool = False


def _ask_worker(inv: Investigation) -> _WorkerAnswer:
    try:
        state = inv.clients.fulfillment.read_worker()
    except NotFoundError:
        why = "the service has no API for its worker"
        return _WorkerAnswer(None, answers=None, error=why, has_api=False)
    except NotConfiguredError as error:
        return _WorkerAnswer(None, answers=None, error=str(error), has_api=False)
    except ClientError as error:
        is_silent = isinstance(error, ClientTimeoutError)
        return _WorkerAnswer(
            None, answers=False, error=str(error), has_api=None, is_silent=is_silent
        )
    return _WorkerAnswer(state, answers=True, error="", has_api=True)


def _watch_passes(
    inv: Investigation,
    worker: WorkerState | None,
    process: ServiceState | None,
    metrics: WorkerMetrics,
) -> bool | None:
    """Tell whether the worker stands still; None when that cannot be known. May watch for 15 s.

    Parameters
    ----------
    worker : the worker's state by its API; None without an answer
    process : the state of the worker's service; None when that is not known
    """
    if worker is None:
        return None
    ran_at = worker.last_run_at or _find_idle_start(inv, worker, process)
    if ran_at is None:
        return None
    stands_still, _ = attempt(lambda: _stands_still(inv, ran_at, metrics.run_gap_s))
    return stands_still


def _find_idle_start(
    inv: Investigation, worker: WorkerState, process: ServiceState | None
) -> datetime | None:
    """Return when a worker started that runs, but has made no pass yet.

    None if it moved something. None in its first 15 s, too: its first pass may still come.
    """
    if process is None or process.since is None:
        return None
    if not process.running or worker.last_move_at is not None:
        return None
    age_s = (inv.now() - process.since).total_seconds()
    return process.since if age_s > _WATCH_S else None


def _stands_still(inv: Investigation, ran_at: datetime, gap_s: float | None) -> bool | None:
    """Tell whether the worker stands still: its last pass is older than six of its usual gaps.

    It must also be older than 15 s. If the usual gap is unknown, it must be older than 5 min.
    Watches for up to 15 s whether a new pass begins. The answer is None if no new pass begins, and
    the last pass is not old enough even then.

    Parameters
    ----------
    ran_at : when the last pass was, by the worker's clock; without a pass, when the worker started
    gap_s : the usual time between two passes; None when unknown
    """
    limit_s = _STANDSTILL_S if gap_s is None else max(_WATCH_S, 6 * gap_s)
    service = inv.clients.fulfillment
    age_s = (service.read_clock() - ran_at).total_seconds()
    # If the last pass was a few seconds ago, no watching is needed.
    if age_s <= min(5.0, limit_s / 2):
        return False
    for _ in range(_WATCH_S):
        if age_s > limit_s:
            return True
        inv.sleep(1.0)
        newest_at = service.read_worker().last_run_at
        if newest_at and newest_at > ran_at:
            return False
        age_s = (service.read_clock() - ran_at).total_seconds()
    return True if age_s > limit_s else None


class _Watchers(NamedTuple):
    """Whether the systems that the diagnosis rests on work: Prometheus, the exporter, support.

    ``blind_since`` is when the exporter was last scraped; None while it is scraped, or when that is
    not known.
    """

    observations: dict[str, model.Json]
    blind_since: datetime | None


def _read_watchers(inv: Investigation) -> _Watchers:
    """Read whether Prometheus and support answer, and whether the exporter is scraped."""
    window_s = inv.window.total_seconds()
    scrapes, _ = attempt(lambda: read_samples(inv, _UP, window_s))
    # An exporter that moved leaves an old series behind, so only the newest scrape counts.
    is_up = None
    if scrapes and (inv.now() - scrapes[-1].at).total_seconds() < _FRESH_S:
        is_up = scrapes[-1].value == 1
    blind_since = None
    if is_up is False:
        blind_since = max((s.at for s in scrapes or () if s.value == 1), default=None)
    health, _ = attempt(inv.clients.support.read_health)
    failures, _ = attempt(lambda: inv.clients.prometheus.query(_SUPPORT_FAILURES))
    observations = {
        "prometheus_answers": scrapes is not None if inv.settings.prometheus_url else None,
        "exporter_up": is_up,
        "support_answers": health is not None if inv.settings.support_url else None,
        # While support does not answer, the newest counts are from before it went down.
        "support_failures": failures[0].samples[-1].value if failures and health else None,
    }
    return _Watchers(observations, blind_since)


@step(
    "5.2",
    "Does the store have room?",
    name="room in the store",
    role=Role.CAUSE,
    unit="refused writes",
    source="failed writes by reason; $minio_endpoint capacity",
    threshold="a write was refused for want of room, or under 2 GiB are free",
)
def read_room(inv: Investigation) -> model.Outcome:
    """Tell whether the store has room: by refused writes in the counters, and by free bytes.

    What the worker's log says goes only into the observations.
    """
    metrics = read_worker_metrics(inv)
    free_bytes, _ = attempt(lambda: inv.clients.store.read_free_bytes())
    refused_count = metrics.recent_failures.get("storage_full", 0.0)
    outcome = model.Outcome(
        value=refused_count if metrics.recent_failures else None,
        source=f"{metrics.source}{{reason=storage_full}}; {inv.clients.store.endpoint} capacity",
        observations={
            "store_free_bytes": free_bytes,
            **observe_reasons(inv, metrics, "storage_full", "store_unreachable"),
        },
    )
    if refused_count:
        words = f"{refused_count:.0f} writes were refused for want of room {metrics.recently}"
        return outcome.breach(words)
    if free_bytes is not None and free_bytes < causes.MIN_FREE_BYTES:
        return outcome.breach(f"only {free_bytes / 2**20:.0f} MiB are free")
    if not metrics.recent_failures:
        return outcome.unknown("the worker does not count its failures by reason")
    remark = ""
    if free_bytes is None:
        # Some stores have the metric, but its value is 0 or NaN.
        remark = "; no free capacity above 0 could be read, so only refused writes are judged"
    return outcome.ok(f"no write was refused for want of room just now{remark}")


@step(
    "5.3",
    "Does the pipeline run?",
    name="pipeline",
    role=Role.CAUSE,
    source="$pipeline_url/api/v2/dags/$pipeline_dag_id",
    threshold="the DAG is paused or broken, its file is gone, or its newest run failed",
)
def read_pipeline(inv: Investigation) -> model.Outcome:
    """Tell whether the DAG that releases labels runs, and how many came and left."""
    dag = inv.clients.pipeline.read_dag()
    # The newest run comes first.
    runs = inv.clients.pipeline.list_runs(limit=10)
    ended_runs = [run for run in runs if run.state in ("success", "failed")]
    newest_failed = list(takewhile(lambda run: run.state == "failed", ended_runs))
    is_broken = dag.has_import_errors or dag.is_stale
    flow, _ = attempt(lambda: count_flow(inv))
    value = "paused"
    if not dag.is_paused:
        value = ended_runs[0].state if ended_runs else "no run"
    pause, _ = attempt(inv.clients.pipeline.find_last_pause)
    # Without an event log the time of the pause is unknown, but it was after the newest run began.
    paused_at = runs[0].started_at if runs else None
    events = []
    # A pause that has ended is shown only if it belongs to this incident.
    if pause is not None and (dag.is_paused or _is_of_this_incident(inv, pause.at)):
        paused_at = pause.at
        text = f"the DAG {dag.id} was paused by {pause.by or 'somebody'}"
        events.append(model.Event(pause.at, "trigger", text, "pipeline"))
    first_signs = {
        Cause.PIPELINE_FAILING: newest_failed[-1].started_at if newest_failed else None,
        Cause.PIPELINE_PAUSED: paused_at,
    }
    outcome = model.Outcome(
        value=value,
        rows=rows_of(runs, run="id", state="state", started="started_at", ended="ended_at"),
        plot=draw_throughput(inv),
        facts=flow or {},
        first_seen=_drop_unknown(first_signs),
        events=events,
        observations={
            "dag_paused": dag.is_paused,
            "dag_import_errors": is_broken,
            # Old runs of a DAG that cannot be loaded say nothing about new ones.
            "dag_failed_runs": len(newest_failed) if ended_runs and not is_broken else None,
        },
    )
    if dag.is_paused:
        return outcome.breach(f"the DAG {dag.id} is paused")
    if dag.has_import_errors:
        return outcome.breach(f"the DAG {dag.id} has import errors")
    if dag.is_stale:
        return outcome.breach(f"the file of DAG {dag.id} is gone: no run is scheduled")
    if newest_failed:
        return outcome.breach(f"the newest runs of the DAG failed ({len(newest_failed)})")
    if not ended_runs:
        return outcome.unknown("no run has ended yet")
    began_at = ended_runs[0].started_at
    which = f"its newest run, of {began_at:%H:%M:%SZ}," if began_at else "its newest run"
    return outcome.ok(f"the DAG is not paused, and {which} succeeded")


@step(
    "5.4",
    "Are the prefix and the credentials right?",
    name="prefix and credentials",
    role=Role.CAUSE,
    source="$fulfillment_url/fulfillment/worker; settings of $worker_service; its counters",
    threshold="the worker has another prefix, bucket or secret, or its requests are denied",
)
def read_configuration(inv: Investigation) -> model.Outcome:
    """Compare the worker's bucket, prefixes and credentials with the runbook's settings."""
    service = inv.settings.worker_service
    answer = _ask_worker(inv)
    effective, settings_error = attempt(
        lambda: inv.clients.services.read_effective_settings(service)
    )
    counted, count_error = attempt(lambda: read_worker_metrics(inv))
    metrics = counted or WorkerMetrics("no counters")
    rows = _compare_places(inv, answer.state, effective or {})
    places = [
        f"its {row['setting'].replace('_', ' ')} is {row['worker']!r}, not {row['runbook']!r}"
        for row in rows
        if row["worker"] != row["runbook"]
    ]
    # The client never returns the secret itself, only one of three texts about it.
    key_state = (effective or {}).get("MINIO_ROOT_PASSWORD")
    is_store_secret = None if key_state is None else key_state == "equal to the store's"
    is_keyless = key_state == "absent"
    refusals = {reason: metrics.recent_failures.get(reason, 0.0) for reason in _REFUSALS}
    problems = list(places)
    for reason, count in refusals.items():
        if count:
            problems.append(f"{count:.0f} times {reason} {metrics.recently}")
    if is_keyless:
        problems.append("the worker has no secret, and asks without a key")
    # Refusals for bad credentials are among the problems already, and say the same.
    elif is_store_secret is False and not refusals["bad_credentials"]:
        problems.append("the worker's secret is not the one that the runbook uses")
    api = f"{inv.clients.fulfillment.url}/fulfillment/worker"
    outcome = model.Outcome(
        value="; ".join(problems) or None,
        source=f"{api}; settings of {service}; {metrics.source}",
        rows=rows,
        observations={
            "worker_place": "; ".join(places) if rows else None,
            "credentials_match": is_store_secret,
            "keyless_denials": refusals["access_denied"] if is_keyless else 0.0,
            **observe_reasons(inv, metrics, *_REFUSALS),
        },
    )
    if problems:
        return outcome.breach("; ".join(problems))
    if not inv.settings.fulfillment_url:
        return outcome.left_out(answer.error)
    if not rows or not metrics.recent_failures:
        read_errors = [error for error in (answer.error, settings_error, count_error) if error]
        return outcome.unknown("; ".join(read_errors) or "nothing to compare")
    outcome.value = "right"
    return outcome.ok(
        "the worker's bucket, prefixes and credentials are right; no request is denied"
    )


def _compare_places(
    inv: Investigation, worker: WorkerState | None, effective: Mapping[str, str]
) -> list[dict[str, model.Json]]:
    """Return a row for the worker's bucket and each of its prefixes, as far as they are known.

    What the worker's API says counts more than its environment.

    Parameters
    ----------
    effective : the settings in the environment of the worker's service
    """
    places = {
        "bucket": "fulfillment_bucket",
        "pending_prefix": "pending_prefix",
        "ready_prefix": "ready_prefix",
    }
    rows = []
    for name, setting in places.items():
        value = getattr(worker, name, "") or effective.get(setting.upper())
        if value:
            wanted = getattr(inv.settings, setting)
            row = {"setting": name, "worker": value, "runbook": wanted}
            rows.append(row)
    return rows


#: Steps of other sections that the diagnosis rests on.
_SHARED = by_id(
    read_clocks, read_alert, read_backlog_objects, read_ticket, read_probe, read_store_health
)
STEPS = _SHARED | by_id(read_worker, read_room, read_pipeline, read_configuration)
ACTIONS: dict[str, ActionStep] = {}
#: The columns of each step's rows, and their dtypes in a frame; also those of sections 2 and 3.
COLUMNS: Mapping[str, Mapping[str, Dtype]] = {
    **detection.COLUMNS,
    **immediate.COLUMNS,
    "5.1": {
        "service": TEXT,
        "running": FLAG,
        "state": TEXT,
        "since": TIME,
        "exit_code": WHOLE,
    },
    "5.3": {"run": TEXT, "state": TEXT, "started": TIME, "ended": TIME},
    "5.4": {"setting": TEXT, "worker": TEXT, "runbook": TEXT},
}


class Diagnosis(NamedTuple):
    """The finding on every cause, and what helps against the supported ones."""

    findings: tuple[Finding, ...]
    advice: Advice


def judge_causes(inv: Investigation) -> Diagnosis:
    """Judge every cause by the current readings, and say what helps.

    A cause that was supported earlier in this incident and is refuted now is past. But if another
    cause is supported now and nothing was changed, the earlier diagnosis was wrong: the cause stays
    refuted.
    """
    readings = list_current(inv, STEPS)
    observations = collect_observations(readings.values())
    judged = diagnose(_drop_ended_before(inv, observations))
    supported = {finding.name for finding in judged if finding.status is CauseStatus.SUPPORTED}
    values = {name: observation.value for name, observation in observations.items()}
    values["worker"] = inv.settings.worker_service
    values["dag"] = inv.settings.pipeline_dag_id
    values["retrigger_moved_nothing"] = _has_retriggered_in_vain(inv)
    first_signs = _find_first_signs(readings.values())
    supported_earlier: set[str] = set()
    if not supported or inv.journal.last_applied:
        supported_earlier = {finding.name for finding in inv.policy.list_causes(inv.journal)}
    doubtful = [
        finding
        for finding in judged
        if finding.name in supported_earlier and finding.status is CauseStatus.UNDECIDED
    ]
    # So soon after an action, what was counted cannot show yet whether these causes are over.
    if doubtful and values.get("counted_briefly"):
        values["doubtful"] = say_main_causes(doubtful)
    advice = advise([cause for cause in CAUSES if cause in supported], values)
    findings = []
    for finding in judged:
        changes: dict[str, model.Json] = {"next_step": advice.about(finding.name)}
        if finding.name in supported:
            changes["first_seen"] = first_signs.get(finding.name)
        elif finding.name in supported_earlier and finding.status is CauseStatus.REFUTED:
            changes["status"] = CauseStatus.PAST
            changes["reason"] = f"it was supported earlier, and is over: {finding.reason}"
        findings.append(finding.model_copy(update=changes))
    return Diagnosis(tuple(findings), advice)


def _has_retriggered_in_vain(inv: Investigation) -> bool:
    """Tell whether the last remedy was a re-trigger after which the worker ran and moved nothing.

    False when the worker does not say when it last moved a label.
    """
    remedies = [
        action
        for action in group_actions(inv.journal.actions)
        if action.applied and action.first.step in _REMEDIES
    ]
    last = max(remedies, key=lambda action: action.decisive.seq, default=None)
    if last is None or last.first.action != "retrigger" or not last.is_verified:
        return False
    before = last.result(ActionPhase.APPLIED).get("before") or {}
    after = last.result(ActionPhase.VERIFIED).get("state") or {}
    moved_at = after.get("last_move_at")
    return moved_at is not None and moved_at == before.get("last_move_at")


def _drop_ended_before(
    inv: Investigation, observations: Mapping[str, Observation]
) -> dict[str, Observation]:
    """Return the observations without ``ended_<reason>`` from before this incident.

    Left out are ends that came before the last earlier incident was closed.
    """
    kept = dict(observations)
    end_names = [name for name in kept if name.startswith("ended_")]
    close = find_close_before(inv) if end_names else None
    for name in end_names:
        ended_at = try_time(kept[name].value)
        if ended_at and close and ended_at <= close.at:
            del kept[name]
    return kept


def _find_first_signs(readings: Iterable[Reading]) -> dict[str, datetime]:
    """Return when the first sign of each cause was there, by cause.

    If several readings have a sign of the same cause, the first reading counts.
    """
    signs: dict[str, datetime] = {}
    for reading in readings:
        for cause, at in reading.first_seen.items():
            signs.setdefault(cause, at)
    return signs


def conclude(inv: Investigation) -> model.Conclusion:
    """Name the causes that the current readings support.

    The verdict is the incident's, by current readings.
    """
    readings = list_current(inv, STEPS)
    findings, advice = judge_causes(inv)
    supported = [finding for finding in findings if finding.status is CauseStatus.SUPPORTED]
    verdict, reason = judge_now(inv, STEPS)
    has_symptom = any(
        reading.status is Status.BREACH and reading.role in model.SYMPTOMS
        for reading in readings.values()
    )
    breaches = [r for r in readings.values() if r.role is Role.CAUSE and r.status is Status.BREACH]
    if supported:
        summary = "; ".join(f"{finding.name}: {finding.reason}" for finding in supported)
        if not has_symptom and verdict is Verdict.INCIDENT:
            summary += " (no label waits too long yet)"
    elif breaches:
        summary = "no known cause fits; look at: "
        summary += "; ".join(f"{r.step} {r.reason}" for r in breaches)
    elif has_symptom:
        summary = "there is an incident, and no cause is supported now"
    else:
        summary = f"no cause is supported; {reason}"
    hints = [f for f in findings if f.status is CauseStatus.UNDECIDED and f.has_signs]
    if hints and not supported and verdict is not Verdict.HEALTHY:
        summary += "; hints: " + ", ".join(f"{f.name} ({f.reason})" for f in hints)
    return model.Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        advice=advice.words if supported or verdict in IN_TROUBLE else (),
    )


def record_diagnosis(inv: Investigation) -> None:
    """Write section 5's conclusion to the journal, when another section has read section 5's steps.

    A plan rests on the conclusion: without it, nobody knows later why something was changed.
    """
    conclusion = conclude(inv).model_copy(update={"section": NAME})
    inv.record("conclusion", {"conclusion": conclusion.model_dump(mode="json")})
