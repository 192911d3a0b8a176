"""Section 5: why labels wait, from evidence."""

from collections.abc import Mapping
from itertools import islice, takewhile

from objectmove.errors import MoveError
from runbook_lib import model
from runbook_lib.errors import ClientError, ClientTimeoutError, NotConfiguredError, NotFoundError
from runbook_lib.frames import TEXT, TIME
from runbook_lib.language import gettext
from runbook_lib.model import ActionPhase, CauseStatus, Finding, Role
from runbook_lib.policy import IN_TROUBLE
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step

from ..analysis import causes
from ..analysis.causes import CAUSES, Advice, advise, collect_observations, diagnose
from ..change.release import GATE
from ..clients.http_systems import WorkerState
from ..clients.services import ServiceState
from ..investigation import Investigation
from .detection import read_alert, read_backlog_objects, read_probe, read_ticket
from .immediate import read_store_health
from .purpose import read_clocks
from .signals import (
    CARRIER,
    FAILED,
    UP,
    count_flow,
    is_catching_up,
    observe_reasons,
    read_events,
    read_worker_log,
    read_worker_metrics,
)

NAME = "05_root_cause"
TITLE = "Root cause exploration"
Parameters = SectionParameters

#: A pass that began more recently than this may still run.
_LEAST_STALL_S = 15.0
#: A worker has stalled after this long without a pass, if its usual gap between passes is unknown.
_STALL_S = 300.0
#: To tell when the last label was moved, list at most this many objects.
_MAX_READY = 20_000
_REFUSALS = ("bad_credentials", "access_denied", "no_such_bucket")


@step(
    "5.1",
    "Does the worker run, and does the carrier answer?",
    name="worker and carrier",
    source=f"$fulfillment_url/fulfillment/worker; services; {CARRIER}",
    columns={"since": TIME},
    role=Role.CAUSE,
    threshold="the worker is stopped, paused or idle, or over "
    f"{causes.MAX_FAILED_SHARE:.0%} of carrier requests fail",
)
def read_worker(inv: Investigation) -> model.Outcome:
    """Read services, worker and carrier, as far as each can be read."""
    states = _list_services(inv)
    process = next((s for s in states if s.name == inv.settings.worker_service), None)
    is_running = process.running if process and process.state.upper() != "STARTING" else None
    worker, api_answers, has_timed_out, error = _ask_worker(inv)
    metrics = read_worker_metrics(inv)
    has_stalled = None
    pausing_plan = ""
    is_paused_by_others = None
    idle_minutes = None
    events = read_events(inv)
    if worker is None:
        idle_minutes = _find_idle_minutes(inv)
    else:
        has_stalled, _ = attempt(lambda: _has_stalled(inv, worker, process, metrics.run_gap_s))
        pausing_plan = _find_own_hold(inv) if worker.paused else ""
        is_paused_by_others = worker.paused and not pausing_plan
        if worker.paused_at and is_paused_by_others:
            who = worker.paused_by or gettext("somebody")
            text = gettext("the worker was paused by %(who)s", who=who)
            events.append(model.Event(worker.paused_at, "trigger", text, "fulfillment"))
    outcome = model.Outcome(
        rows=rows_of(states, "running", "state", "since", "exit_code", service="name"),
        facts=worker.raw if worker else {},
        events=events,
        observations={
            "worker_running": is_running,
            "worker_listed": process is not None if states else None,
            "worker_answers": api_answers,
            "worker_paused": worker.paused if worker else None,
            "worker_paused_by_others": is_paused_by_others,
            "worker_stands_still": has_stalled,
            "worker_hangs": bool(is_running and has_timed_out and metrics.error),
            "worker_idle_minutes": idle_minutes,
            "failures_store_unreachable": metrics.count_failures("store_unreachable"),
            "carrier_timeout_share": metrics.compute_carrier_share("timeout"),
            "carrier_error_share": metrics.compute_carrier_share("error"),
            "surplus_objects": metrics.surplus,
            "catching_up": is_catching_up(inv, metrics),
            "drain_per_minute": metrics.drained,
            "services_down": [state.name for state in states if not state.running],
            **_read_watchers(inv),
        },
    )
    problems = list_worker_problems(outcome.observations)
    if pausing_plan:
        problems.append(f"the worker is paused for {pausing_plan}, which is not finished")
    if problems:
        outcome.value = "; ".join(problems)
        return outcome.breach(outcome.value)
    if not inv.settings.fulfillment_url:
        return outcome.left_out(error)
    error = error or metrics.error
    if error or has_stalled is None:
        return outcome.unknown(error or "no pass of the worker was seen yet")
    outcome.value = "working"
    if metrics.compute_carrier_share("timeout") is None:
        return outcome.ok("the worker runs, but sent too few carrier requests to judge the carrier")
    return outcome.ok("the worker runs, and the carrier answers")


def list_worker_problems(observed: Mapping[str, model.Json]) -> list[str]:
    """Return what is wrong with the worker or the carrier, in words. Pure."""
    is_mute = observed["worker_answers"] is False
    is_running = observed["worker_running"]
    is_missing = observed["worker_listed"] is False and is_mute
    # The share of too few requests is unknown, and counts as 0.
    timeouts = observed["carrier_timeout_share"] or 0
    failures = observed["carrier_error_share"] or 0
    checks = {
        "the worker does not run": is_running is False or is_missing,
        "the worker's API does not answer": is_running and is_mute,
        "the worker is paused": observed["worker_paused_by_others"],
        "the worker begins no new pass": observed["worker_stands_still"],
        f"{timeouts:.0%} of the carrier requests timed out": timeouts > causes.MAX_FAILED_SHARE,
        f"{failures:.0%} of the carrier requests failed": failures > causes.MAX_FAILED_SHARE,
    }
    return [problem for problem, applies in checks.items() if applies]


def _find_idle_minutes(inv: Investigation) -> float | None:
    """Return how long ago a worker without an API last logged a line or moved a label.

    None without such activity, or if the log has no line in the window and WORKER_STATUS_CMD is
    unset: a label may be another worker's.
    """
    now = inv.now()
    lines, _ = attempt(lambda: read_worker_log(inv, now - inv.window))
    if not lines and not inv.settings.worker_status_cmd:
        return None
    ready, _ = attempt(
        lambda: list(islice(inv.clients.store.list_objects(inv.settings.ready_prefix), _MAX_READY))
    )
    active_at = [line.at for line in lines or () if line.at]
    active_at += [info.last_modified for info in ready or ()]
    if not active_at:
        return None
    return round((now - max(active_at)).total_seconds() / 60, 1)


def _find_own_hold(inv: Investigation) -> str:
    """Return the id of our unfinished plan that paused the worker, or "" without one."""
    try:
        unfinished = GATE.list_unfinished(inv.clients)
    except (ClientError, MoveError):
        return ""
    return next((str(plan["plan"]) for plan in unfinished if plan["held_since"]), "")


def _list_services(inv: Investigation) -> list[ServiceState]:
    """Return the states of all services and of the worker, as far as they can be read."""
    worker = inv.settings.worker_service
    listed, _ = attempt(lambda: inv.clients.services.list_services())
    states = list(listed or ())
    if worker not in [state.name for state in states]:
        # WORKER_STATUS_CMD may still tell the worker's state.
        listed, _ = attempt(lambda: inv.clients.find_switch(worker).list_services())
        states += [state for state in listed or () if state.name == worker]
    return states


def _ask_worker(inv: Investigation) -> tuple[WorkerState | None, bool | None, bool, str]:
    """Return the worker's state, whether its API answers, whether it timed out, and the error.

    Without an API, nobody knows whether it answers: None.
    """
    try:
        return inv.clients.fulfillment.read_worker(), True, False, ""
    except NotFoundError:
        return None, None, False, "the service has no API for its worker"
    except NotConfiguredError as error:
        return None, None, False, str(error)
    except ClientError as error:
        return None, False, isinstance(error, ClientTimeoutError), str(error)


def _has_stalled(
    inv: Investigation, worker: WorkerState, process: ServiceState | None, gap_s: float | None
) -> bool | None:
    """Tell whether the worker's last pass, or its start, is older than six of its usual gaps.

    It measures by the worker's own clock, and in any case allows 15 s. None if neither time is
    known.
    """
    started_at = process.since if process and process.running else None
    ran_at = worker.last_run_at or worker.last_move_at or started_at
    if ran_at is None:
        return None
    limit_s = _STALL_S if gap_s is None else max(_LEAST_STALL_S, 6 * gap_s)
    return (inv.clients.fulfillment.read_clock() - ran_at).total_seconds() > limit_s


def _read_watchers(inv: Investigation) -> dict[str, model.Json]:
    """Observe whether Prometheus, the exporter and support work."""
    up, _ = attempt(lambda: inv.clients.prometheus.query(UP))
    health, _ = attempt(inv.clients.support.read_health)
    return {
        "prometheus_answers": up is not None if inv.settings.prometheus_url else None,
        "exporter_up": any(series.samples[-1].value for series in up) if up else None,
        "support_answers": health is not None if inv.settings.support_url else None,
    }


@step(
    "5.2",
    "Does the store have room?",
    name="room in the store",
    role=Role.CAUSE,
    unit="refused writes",
    source=f"{FAILED}; $minio_endpoint",
    threshold="a write was refused for lack of space, or under 2 GiB are free",
)
def read_room(inv: Investigation) -> model.Outcome:
    """Tell by refused writes, ours too, and by free bytes whether the store has room.

    Our own write copies an object that doesn't exist, so it changes nothing.
    """
    metrics = read_worker_metrics(inv)
    store = inv.clients.store
    free_bytes = store.read_free_bytes()
    refuses_ours, _ = attempt(lambda: store.is_full(inv.settings.ready_prefix))
    seen, problems = observe_reasons(inv, metrics, "storage_full")
    if refuses_ours:
        problems.append("the store refuses our own write for lack of space")
    if free_bytes is not None and free_bytes < causes.MIN_FREE_BYTES:
        problems.append(f"only {free_bytes / 2**20:.0f} MiB are free")
    outcome = model.Outcome(
        value=seen["failures_storage_full"],
        observations={"store_free_bytes": free_bytes, "store_refuses_ours": refuses_ours, **seen},
    )
    if problems:
        return outcome.breach("; ".join(problems))
    if outcome.value is None:
        return outcome.unknown(metrics.error)
    return outcome.ok("no write was refused for lack of space")


@step(
    "5.3",
    "Does the pipeline run?",
    name="pipeline",
    role=Role.CAUSE,
    source="$pipeline_url/api/v2/dags/$pipeline_dag_id",
    columns={"run": TEXT, "state": TEXT, "started": TIME, "ended": TIME},
    threshold="the DAG is paused or broken, its file is gone, or its newest run failed",
)
def read_pipeline(inv: Investigation) -> model.Outcome:
    """Tell whether the DAG that releases labels runs, and how many labels came and left."""
    pipeline = inv.clients.pipeline
    dag = pipeline.read_dag()
    # The newest run comes first.
    runs = pipeline.list_runs()
    ended = [run for run in runs if run.state in ("success", "failed")]
    failed = list(takewhile(lambda run: run.state == "failed", ended))
    is_broken = dag.has_import_errors or dag.is_stale
    flow, _ = attempt(lambda: count_flow(inv))
    pause, _ = attempt(pipeline.find_last_pause)
    link = inv.link_to("dag", dag.id)
    events = []
    if pause is not None and dag.is_paused:
        who = pause.by or gettext("somebody")
        text = gettext("the DAG %(dag)s was paused by %(who)s", dag=dag.id, who=who)
        events.append(model.Event(pause.at, "trigger", text, "pipeline", link=link))
    newest = ended[0].state if ended else "no run"
    outcome = model.Outcome(
        value="paused" if dag.is_paused else newest,
        link=link,
        rows=rows_of(runs, run="id", state="state", started="started_at", ended="ended_at"),
        facts=flow or {},
        events=events,
        observations={
            "dag_paused": dag.is_paused,
            "dag_import_errors": is_broken,
            # If the DAG can't be loaded, its old runs say nothing about new ones.
            "dag_failed_runs": len(failed) if ended and not is_broken else None,
        },
    )
    if dag.is_paused:
        return outcome.breach(f"the DAG {dag.id} is paused")
    if is_broken:
        return outcome.breach(f"the DAG {dag.id} cannot be loaded, or its file is gone")
    if failed:
        return outcome.breach(f"the newest runs of the DAG failed ({len(failed)})")
    if not ended:
        return outcome.unknown("no run has ended yet")
    return outcome.ok("the DAG is not paused, and its newest run succeeded")


@step(
    "5.4",
    "Are the prefix and the credentials right?",
    name="prefix and credentials",
    role=Role.CAUSE,
    source=f"$fulfillment_url/fulfillment/worker; settings of $worker_service; {FAILED}",
    threshold="the worker has another prefix, bucket or secret, or its requests are denied",
)
def read_configuration(inv: Investigation) -> model.Outcome:
    """Compare the worker's bucket, prefixes and credentials with the runbook's settings."""
    inv.clients.store.check_key()  # with a wrong key of our own, the comparison proves nothing
    service = inv.settings.worker_service
    worker, _, _, api_error = _ask_worker(inv)
    effective, settings_error = attempt(
        lambda: inv.clients.services.read_effective_settings(service)
    )
    metrics = read_worker_metrics(inv)
    rows = _compare_places(inv, worker, effective or {})
    places = [
        f"the worker's {row['setting']} is {row['worker']!r}, not {row['runbook']!r}"
        for row in rows
        if row["worker"] != row["runbook"]
    ]
    secret = (effective or {}).get("MINIO_ROOT_PASSWORD")
    own_secret = inv.settings.minio_root_password.get_secret_value()
    matches = None if secret is None else secret == own_secret
    seen, problems = observe_reasons(inv, metrics, *_REFUSALS)
    problems = [*places, *problems]
    if matches is False:
        problems.append("the worker's secret is not the one that the runbook uses")
    outcome = model.Outcome(
        value="; ".join(problems) or None,
        rows=rows,
        observations={
            "worker_place": "; ".join(places) if rows else None,
            "credentials_match": matches,
            "keyless_denials": seen["failures_access_denied"] if secret == "" else 0.0,
            **seen,
        },
    )
    if problems:
        return outcome.breach("; ".join(problems))
    if not inv.settings.fulfillment_url:
        return outcome.left_out(api_error)
    if not rows or not metrics.failures:
        read_errors = [error for error in (api_error, settings_error, metrics.error) if error]
        return outcome.unknown("; ".join(read_errors) or "nothing to compare")
    outcome.value = "right"
    return outcome.ok("the worker's bucket, prefixes and credentials are right")


def _compare_places(
    inv: Investigation, worker: WorkerState | None, effective: Mapping[str, str]
) -> list[dict[str, model.Json]]:
    """Return a row for the worker's bucket and each of its prefixes, as far as they are known.

    The worker's API overrides its environment, ``effective``.
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
            rows.append({"setting": name, "worker": value, "runbook": wanted})
    return rows


#: Steps of other sections that the diagnosis rests on.
_SHARED = by_id(
    read_clocks, read_alert, read_backlog_objects, read_ticket, read_probe, read_store_health
)
STEPS = _SHARED | by_id(read_worker, read_room, read_pipeline, read_configuration)
ACTIONS: dict[str, ActionStep] = {}


def judge_causes(inv: Investigation) -> tuple[tuple[Finding, ...], Advice]:
    """Judge every cause by the current readings, and say what helps.

    A cause that this incident once supported and that is refuted now is past. But if nothing was
    changed and another cause is supported now, the earlier diagnosis was wrong, and the cause stays
    refuted unless it was past already.
    """
    current = inv.journal.list_current(inv.now())
    observations = collect_observations(current[step] for step in STEPS if step in current)
    judged = diagnose(observations)
    supported = {finding.name for finding in judged if finding.status is CauseStatus.SUPPORTED}
    values = {name: observation.value for name, observation in observations.items()}
    values["worker"] = inv.settings.worker_service
    values["dag"] = inv.settings.pipeline_dag_id
    values["retrigger_moved_nothing"] = _has_retriggered_in_vain(inv)
    supported_earlier = {
        f.name for f in inv.journal.diagnosis.findings if f.status is CauseStatus.PAST
    }
    if not supported or inv.journal.last_applied:
        supported_earlier = {finding.name for finding in inv.policy.list_causes(inv.journal)}
    advice = advise([cause for cause in CAUSES if cause in supported], values)
    findings = []
    for finding in judged:
        changes: dict[str, model.Json] = {"next_step": advice.about(finding.name)}
        if finding.name in supported_earlier and finding.status is CauseStatus.REFUTED:
            changes["status"] = CauseStatus.PAST
        findings.append(finding.model_copy(update=changes))
    return tuple(findings), advice


def _has_retriggered_in_vain(inv: Investigation) -> bool:
    """Tell whether the last remedy was a re-trigger after which the worker ran and moved nothing.

    False if the worker doesn't say when it last moved a label.
    """
    last = inv.journal.last_applied
    if last is None or last.action != "retrigger":
        return False
    verified = inv.journal.list_actions(ActionPhase.VERIFIED)
    states = [check.result.get("state") or {} for check in verified if check.seq > last.seq]
    moved_at = states[-1].get("last_move_at") if states else None
    before = last.result.get("before") or {}
    return moved_at is not None and moved_at == before.get("last_move_at")


def conclude(inv: Investigation) -> model.Conclusion:
    """Name the causes that the current readings support. The verdict is the incident's."""
    findings, advice = judge_causes(inv)
    verdict, reason = inv.judge_now(STEPS)
    words = advice.words if advice.causes or verdict in IN_TROUBLE else ()
    supported = [finding for finding in findings if finding.name in advice.causes]
    summary = "; ".join(f"{finding.name}: {gettext(finding.reason)}" for finding in supported)
    return model.Conclusion(
        verdict=verdict,
        summary=summary or f"{gettext('no cause is supported')}; {reason}",
        findings=findings,
        advice=words,
    )


def record_diagnosis(inv: Investigation) -> None:
    """Journal section 5's conclusion for another section, whose plans rest on it."""
    conclusion = conclude(inv).model_copy(update={"section": NAME})
    inv.record("conclusion", {"conclusion": conclusion.model_dump(mode="json")})
