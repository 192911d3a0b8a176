"""Section 5: why labels wait, from evidence. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import takewhile

from runbook_lib import model
from runbook_lib.errors import ClientError, NotConfiguredError, NotFoundError
from runbook_lib.model import CauseStatus, Role, Status, Verdict
from runbook_lib.section import ActionStep, SectionParameters, attempt, by_id, rows_of, step

from ..analysis import causes
from ..analysis.causes import CAUSES, STORE_SERVICES, Advice, Cause, Observation, advise, diagnose
from ..analysis.forecasts import compute_drain
from ..analysis.samples import join
from ..clients.http_systems import WorkerState
from ..investigation import Investigation
from . import detection, worker_metrics
from .detection import read_alert, read_backlog_objects, read_probe, read_range, read_ticket
from .immediate import read_store_health
from .purpose import read_clocks
from .timeline import build_timeline, read_events

_STILL_S = 15
_UNKNOWN_GAP_STILL_S = 300.0
_FRESH_S = 120.0
_UP = 'up{job="artifact-exporter"}'
_CARRIER_TIMES = "fulfillment_carrier_request_seconds_bucket"
_LATENCY = f"histogram_quantile(0.95, sum by (le, outcome) (rate({_CARRIER_TIMES}[1m])))"
_SUPPORT_FAILURES = "sum(increase(support_timeline_collection_failures_total[1m]))"
_REFUSALS = ("bad_credentials", "access_denied", "no_such_bucket")


@step(
    "5.1", "Worker does not move labels, or the carrier times out", name="worker and carrier",
    source="$fulfillment_url/fulfillment/worker; its counters; services; log", role=Role.CAUSE,
    threshold=f"stopped, paused, still, or over {causes.BAD_SHARE:.0%} of carrier requests fail",
)  # fmt: skip
def read_worker(inv: Investigation) -> model.Outcome:
    """Read services, worker and carrier as far as each can be read; unknown when none can."""
    service, clients = inv.settings.worker_service, inv.clients
    states = attempt(lambda: clients.services.list_services())[0]
    states = states or attempt(lambda: clients.find_switch(service).list_services())[0] or []
    stopped = {s.name: s.since for s in states if not s.running}
    worker, answers, worker_error = _read_state(inv)
    counted, count_error = attempt(lambda: worker_metrics.read_worker_metrics(inv))
    metrics = counted or worker_metrics.WorkerMetrics("no counters")
    own = next((s for s in states if s.name == service), None)
    # One that is just starting neither runs nor is stopped: the next look tells.
    running = None if own is None or own.state.upper() == "STARTING" else own.running
    ran_at = worker.last_run_at if worker else None
    still = attempt(lambda: _watch(inv, ran_at, metrics.run_gap_s))[0] if ran_at else None
    timeouts, errors = metrics.share("timeout"), metrics.share("error")
    checks = {
        f"{service} does not run": running is False,
        f"its API does not answer: {worker_error}": running and answers is False,
        "the worker is paused": worker is not None and worker.paused,
        "the worker begins no new pass": still,
        f"{timeouts or 0:.0%} of carrier requests time out": (timeouts or 0) > causes.BAD_SHARE,
        f"{errors or 0:.0%} of carrier requests fail": (errors or 0) > causes.BAD_SHARE,
    }
    problems = [problem for problem, is_so in checks.items() if is_so]
    watchers, blind_since = _read_watchers(inv)
    latency = attempt(lambda: read_range(inv, _LATENCY, labels=("outcome",)))[0] or ()
    since = {
        Cause.STORE_DOWN: next((at for n, at in stopped.items() if n in STORE_SERVICES), None),
        Cause.WORKER_STOPPED: stopped.get(service),
        Cause.BAD_PREFIX: own.since if own and own.running else None,
        Cause.WORKER_STUCK: ran_at,
        Cause.SUPPORT_DOWN: next((at for n, at in stopped.items() if "support" in n), None),
        Cause.METRICS_BLIND: blind_since,
    }
    seen = model.Outcome(
        value="; ".join(problems) or None,
        source=f"{inv.clients.fulfillment.url}/fulfillment/worker; {metrics.source}; services",
        rows=rows_of(states, "running", "state", "since", "exit_code", service="name"),
        facts=worker.raw if worker else {},
        plot=model.Plot(title="Carrier latency", unit="seconds", part="diagnosis", lines=latency),
        events=read_events(inv),
        first_seen={**metrics.first, **{c: at for c, at in since.items() if at}},
        observations={
            "worker_running": running,
            "worker_answers": answers,
            "worker_paused": worker.paused if worker else None,
            "worker_stands_still": still,
            "worker_last_move": worker.last_move_at if worker else None,
            "carrier_timeout_share": timeouts,
            "carrier_error_share": errors,
            "surplus_objects": metrics.surplus,
            "drain_per_minute": metrics.drained,
            **worker_metrics.observe_reasons(inv, metrics, "carrier_timeout", "carrier_error"),
            "services_down": list(stopped),
            **watchers,
        },
    )
    if problems:
        down = f"; not running: {', '.join(stopped)}" if stopped else ""
        return seen.breach("; ".join(problems) + down)
    if not inv.settings.fulfillment_url:
        return seen.left_out(worker_error)
    if worker is None or counted is None or still is None:
        return seen.unknown(worker_error or count_error or "no pass could be seen")
    seen.value = "working"
    carrier = "and the carrier answers it" if timeouts is not None else "but asks no carrier"
    return seen.ok(f"the worker runs its passes {carrier}")


def _read_state(inv: Investigation) -> tuple[WorkerState | None, bool | None, str]:
    """Return the worker's state, whether its API answers (None: it has none), and why not."""
    try:
        return inv.clients.fulfillment.read_worker(), True, ""
    except NotFoundError:
        return None, None, "the service has no API for its worker"
    except NotConfiguredError as error:
        return None, None, str(error)
    except ClientError as error:
        return None, False, str(error)


def _watch(inv: Investigation, ran_at: datetime, gap_s: float | None) -> bool | None:
    """Tell whether the worker stands still, by its own clock; look on for up to 15 s if unsure."""
    limit_s = _UNKNOWN_GAP_STILL_S if gap_s is None else max(_STILL_S, 6 * gap_s)
    service = inv.clients.fulfillment
    age_s = (service.read_clock() - ran_at).total_seconds()
    if age_s <= min(5.0, limit_s / 2):
        return False
    for _ in range(_STILL_S):
        if age_s > limit_s:
            return True
        inv.sleep(1.0)
        if (service.read_worker().last_run_at or ran_at) > ran_at:
            return False
        age_s = (service.read_clock() - ran_at).total_seconds()
    return True if age_s > limit_s else None


def _read_watchers(inv: Investigation) -> tuple[dict[str, model.Json], datetime | None]:
    """Observe Prometheus, the exporter and support, which see the labels for us.

    Returns
    -------
    The observations, and since when the exporter is not scraped, if it is not.
    """
    prometheus, window_s = inv.clients.prometheus, inv.window.total_seconds()
    seen, _ = attempt(lambda: join(prometheus.query_samples(_UP, window_s)))
    # An exporter that moved leaves a series behind: only the newest scrape speaks of now.
    is_fresh = seen and (inv.now() - seen[-1].at).total_seconds() < _FRESH_S
    is_up = seen[-1].value == 1 if seen and is_fresh else None
    last_up = max((s.at for s in seen or () if s.value == 1), default=None)
    health, _ = attempt(inv.clients.support.read_health)
    failures, _ = attempt(lambda: prometheus.query(_SUPPORT_FAILURES))
    return {
        "prometheus_answers": seen is not None if inv.settings.prometheus_url else None,
        "exporter_up": is_up,
        "support_answers": health is not None if inv.settings.support_url else None,
        "support_failures": failures[0].samples[-1].value if failures and health else None,
    }, last_up if is_up is False else None


@step(
    "5.2", "The store is full", name="room in the store", role=Role.CAUSE,
    unit="refused writes", source="failed writes by reason; $minio_endpoint capacity",
    threshold="a write refused for want of room, or under 2 GiB free",
)  # fmt: skip
def read_room(inv: Investigation) -> model.Outcome:
    """Tell whether the store has room: refused writes counted, told by the log, and free bytes."""
    metrics = worker_metrics.read_worker_metrics(inv)
    free, _ = attempt(lambda: inv.clients.store.read_free_bytes())
    refused = metrics.recent.get("storage_full", 0.0)
    seen = model.Outcome(
        value=refused if metrics.recent else None,
        source=f"{metrics.source}{{reason=storage_full}}; {inv.clients.store.endpoint} capacity",
        observations={
            "store_free_bytes": free,
            **worker_metrics.observe_reasons(inv, metrics, "storage_full", "store_unreachable"),
        },
    )
    if refused:
        return seen.breach(f"{refused:.0f} writes were refused for want of room")
    if free is not None and free < causes.LOW_BYTES:
        return seen.breach(f"only {free / 2**20:.0f} MiB are free")
    if not metrics.recent:
        return seen.unknown("the worker counts no failures by reason")
    untold = "; the store does not tell its free capacity" if free is None else ""
    return seen.ok(f"no write was refused for want of room just now{untold}")


@step(
    "5.3", "The pipeline is stopped", name="pipeline", role=Role.CAUSE,
    source="$pipeline_url/api/v2/dags/$pipeline_dag_id",
    threshold="paused, import errors, file gone, or the newest run failed",
)  # fmt: skip
def read_pipeline(inv: Investigation) -> model.Outcome:
    """Tell whether the DAG that releases labels runs, and how fast labels come and leave."""
    dag, runs = inv.clients.pipeline.read_dag(), inv.clients.pipeline.list_runs(limit=10)
    ended = [run for run in runs if run.state in ("success", "failed")]
    failed = list(takewhile(lambda run: run.state == "failed", ended))
    is_broken = dag.has_import_errors or dag.is_stale
    # Nobody tells when a DAG was paused: not before its newest run.
    since = {
        Cause.PIPELINE_FAILING: failed[-1].started_at if failed else None,
        Cause.PIPELINE_PAUSED: runs[0].started_at if runs else None,
    }
    seen = model.Outcome(
        value="paused" if dag.is_paused else (ended[0].state if ended else "no run"),
        rows=rows_of(runs, run="id", state="state", started="started_at", ended="ended_at"),
        plot=worker_metrics.draw_throughput(inv),
        forecast=attempt(lambda: _forecast(inv, is_stopped=dag.is_paused or is_broken))[0],
        first_seen={cause: at for cause, at in since.items() if at},
        observations={
            "dag_paused": dag.is_paused,
            "dag_import_errors": is_broken,
            # Old runs of a DAG that cannot be loaded say nothing about new ones.
            "dag_failed_runs": len(failed) if ended and not is_broken else None,
        },
    )
    if dag.is_paused:
        return seen.breach(f"the DAG {dag.id} is paused")
    if dag.has_import_errors:
        return seen.breach(f"the DAG {dag.id} has import errors")
    if dag.is_stale:
        return seen.breach(f"the file of DAG {dag.id} is gone: no run is scheduled")
    if failed:
        return seen.breach(f"its last {len(failed)} runs failed")
    if not ended:
        return seen.unknown("no run has ended yet")
    return seen.ok("not paused, and the newest run succeeded")


def _forecast(inv: Investigation, *, is_stopped: bool) -> model.DrainForecast:
    arrival, drain = worker_metrics.read_rates(inv, is_stopped=is_stopped)
    backlog = worker_metrics.BACKLOG % inv.settings.pending_prefix
    waiting = inv.clients.prometheus.query(f"sum({backlog})")
    found = compute_drain(waiting[0].samples[-1].value if waiting else None, arrival, drain)
    return model.DrainForecast(
        arrival_per_min=round(arrival.per_minute, 2) if arrival else None,
        drain_per_min=round(drain.per_minute, 2) if drain else None,
        empty_in_minutes=round(found.minutes_to_empty, 1) if found.minutes_to_empty else None,
        text=f"{found.outlook}: {found.reason}",
    )


@step(
    "5.4", "Wrong prefix or credentials", name="prefix and credentials", role=Role.CAUSE,
    source="$fulfillment_url/fulfillment/worker; settings of $worker_service; its counters",
    threshold="it has another prefix or bucket, or requests are denied",
)  # fmt: skip
def read_configuration(inv: Investigation) -> model.Outcome:
    """Compare where the worker works and with which credentials against the runbook's settings."""
    service = inv.settings.worker_service
    worker, _, worker_error = _read_state(inv)
    told, told_error = attempt(lambda: inv.clients.services.read_effective_settings(service))
    counted, count_error = attempt(lambda: worker_metrics.read_worker_metrics(inv))
    effective, metrics = told or {}, counted or worker_metrics.WorkerMetrics("no counters")
    # The worker's own word counts more than its environment.
    rows: list[dict[str, model.Json]] = [
        {"setting": name, "worker": found, "runbook": getattr(inv.settings, setting)}
        for setting in ("fulfillment_bucket", "pending_prefix", "ready_prefix")
        for name in [setting.removeprefix("fulfillment_")]
        if (found := getattr(worker, name, "") or effective.get(setting.upper()))
    ]
    places = [
        f"its {row['setting'].replace('_', ' ')} is {row['worker']!r}, not {row['runbook']!r}"
        for row in rows
        if row["worker"] != row["runbook"]
    ]
    word = effective.get("MINIO_ROOT_PASSWORD")
    match = None if word is None else word == "equal to the store's"
    refused = {r: n for r in _REFUSALS if (n := metrics.recent.get(r, 0.0))}
    problems = [*places, *(f"{n:.0f} times {reason}" for reason, n in refused.items())]
    if match is False and "bad_credentials" not in refused:
        problems.append("its secret is not the one that the runbook uses")
    api = f"{inv.clients.fulfillment.url}/fulfillment/worker"
    seen = model.Outcome(
        value="; ".join(problems) or None,
        source=f"{api}; settings of {service}; {metrics.source}",
        rows=rows,
        observations={
            "worker_place": "; ".join(places) if rows else None,
            "credentials_match": match,
            **worker_metrics.observe_reasons(inv, metrics, *_REFUSALS),
        },
    )
    if problems:
        return seen.breach("; ".join(problems))
    if not rows or not metrics.recent:
        errors = "; ".join(e for e in (worker_error, told_error, count_error) if e)
        return seen.unknown(errors or "nothing to compare")
    seen.value = "right"
    return seen.ok("place and credentials are right, nothing is denied")


NAME = "05_root_cause"
TITLE = "Root cause exploration"
Parameters = SectionParameters
#: Of other sections, and the diagnosis rests on them.
_SHARED = by_id(
    read_clocks, read_alert, read_backlog_objects, read_ticket, read_probe, read_store_health
)
STEPS = _SHARED | by_id(read_worker, read_room, read_pipeline, read_configuration)
ACTIONS: dict[str, ActionStep] = {}
#: Then there is something to do, whether a cause is known or not.
IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)


def collect_observations(readings: Mapping[str, model.Reading]) -> dict[str, Observation]:
    """Return the named observations of the readings, each with its journal entry.

    A known value is never replaced by an unknown one of a later step.
    """
    found: dict[str, Observation] = {}
    for reading in [readings[s] for s in STEPS if s in readings]:
        for name, value in reading.observations.items():
            if value is not None or name not in found:
                found[name] = Observation(value, f"#{reading.seq}" if reading.seq else reading.step)
    return found


def judge_causes(inv: Investigation) -> tuple[tuple[model.Finding, ...], Advice]:
    """Judge every cause on what was read lately, and since the last action; say what helps.

    One that was a cause of this incident and is refuted now is past, unless another took its place
    before anything was changed: then it was an error.
    """
    readings = detection.list_current(inv, STEPS)
    # a process's own state before counters
    first = dict(reversed([s for r in readings.values() for s in r.first_seen.items()]))
    seen = collect_observations(readings)
    found = diagnose(seen)
    supported = {f.name for f in found if f.status is CauseStatus.SUPPORTED}
    told = {name: observation.value for name, observation in seen.items()}
    told |= {"worker": inv.settings.worker_service, "dag": inv.settings.pipeline_dag_id}
    advice = advise([cause for cause in CAUSES if cause in supported], told)
    causes = inv.policy.list_causes(inv.journal)
    before = {f.name for f in causes if not supported or inv.journal.last_applied}
    findings = []
    for f in found:
        changes: dict[str, model.Json] = {"next_step": advice.about(f.name)}
        if f.name in supported:
            changes["first_seen"] = first.get(f.name)
        elif f.name in before and f.status is CauseStatus.REFUTED:
            changes |= {"status": CauseStatus.PAST, "reason": f"it was, and is not now: {f.reason}"}
        findings.append(f.model_copy(update=changes))
    return tuple(findings), advice


def conclude(inv: Investigation) -> model.Conclusion:
    """Name the causes that the journal's readings support.

    A supported cause that stops labels is an incident even before one of them waits too long; after
    an action that took the symptom away it is only mitigated.
    """
    readings = detection.list_current(inv, STEPS)
    findings, advice = judge_causes(inv)
    supported = [f for f in findings if f.status is CauseStatus.SUPPORTED]
    symptom, said = detection.judge_symptoms(inv, STEPS)
    verdict = symptom
    odd = [r for r in readings.values() if r.role is Role.CAUSE and r.status is Status.BREACH]
    if any(CAUSES[f.name].stops_labels for f in supported):
        is_gone = symptom in (Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
        is_better = is_gone and inv.journal.last_applied
        verdict = Verdict.MITIGATED if is_better else Verdict.INCIDENT
    if supported:
        summary = "; ".join(f"{f.name}: {f.reason}" for f in supported)
        if symptom is Verdict.HEALTHY and verdict is Verdict.INCIDENT:
            summary += " (no label waits too long yet)"
    elif odd:
        summary = "none of these; odd is: " + "; ".join(f"{r.step} {r.reason}" for r in odd)
    elif symptom is Verdict.INCIDENT:
        summary = "there is an incident, and why is not known"
    else:
        summary = f"no cause is supported; {said}"
    hints = [f for f in findings if f.status is CauseStatus.UNDECIDED and f.score > 0]
    if hints and not supported and symptom is not Verdict.HEALTHY:
        summary += "; hints: " + ", ".join(f"{f.name} ({f.reason})" for f in hints)
    return model.Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        forecast=next((r.forecast for r in readings.values() if r.forecast), None),
        advice=advice.words if supported or verdict in IN_TROUBLE else (),
    )
