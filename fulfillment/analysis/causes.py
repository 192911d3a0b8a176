"""Why labels wait: all that the runbook knows of each cause, in one record. Pure.

The order is the one in which supported causes are dealt with.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from runbook_lib.model import Json

from .evidence import (
    CauseRecord,
    Repair,
    Rule,
    failing,
    hint,
    is_false,
    is_nothing,
    is_over,
    is_some,
    is_true,
    is_under,
)


class Cause(StrEnum):
    """Why labels wait. The names are those of the faults."""

    CARRIER_TIMEOUT = "carrier_timeout"
    CARRIER_ERRORS = "carrier_errors"
    WORKER_STOPPED = "worker_stopped"
    WORKER_STUCK = "worker_stuck"
    STORAGE_FULL = "storage_full"
    STORE_DOWN = "store_down"
    BAD_CREDENTIALS = "bad_credentials"
    NO_PERMISSION = "no_permission"
    BAD_PREFIX = "bad_prefix"
    PIPELINE_PAUSED = "pipeline_paused"
    PIPELINE_FAILING = "pipeline_failing"
    SURGE = "surge"
    SYNTHETIC = "synthetic"
    SUPPORT_DOWN = "support_down"
    METRICS_BLIND = "metrics_blind"
    CLOCK_SKEW = "clock_skew"


#: What the object store's service may be called.
STORE_SERVICES = ("minio", "object-store", "store")
_SETTING_FIRST = "correct its setting first"
_STOPPED = (Cause.STORE_DOWN, Cause.WORKER_STOPPED)
#: While one of these stands, no label leaves.
STANDSTILL = frozenset(
    {*_STOPPED, Cause.WORKER_STUCK, Cause.PIPELINE_PAUSED, Cause.PIPELINE_FAILING}
)


def _by_hand(why: str) -> Repair:
    return lambda _: ("", "", why)


def _start(*names: str, otherwise: str) -> Repair:
    def start(seen: Mapping[str, Json]) -> tuple[str, str, str]:
        down = seen.get("services_down") or ()
        target = next((name for name in names if name in down), "")
        return "start", target, "" if target else otherwise

    return start


def _restart_worker(mind: str = "") -> Repair:
    return lambda seen: ("restart", seen["worker"], mind)


def _wake_worker(seen: Mapping[str, Json]) -> tuple[str, str, str]:
    return "resume" if seen.get("worker_paused") else "start", seen["worker"], ""


def _bring_support_back(seen: Mapping[str, Json]) -> tuple[str, str, str]:
    name = "support-service"
    return "start" if name in (seen.get("services_down") or ()) else "restart", name, ""


def _carrier(words: str, outcome: str, says: str, watched: str) -> CauseRecord:
    return CauseRecord(
        words,
        Rule(f"carrier_{outcome}_share", is_over(0.2), 0.8, says),
        hint(f"logged_carrier_{outcome}", is_true, 0.3, "the worker's log says so"),
        hint("waiting_incomplete", is_over(0), 0.1, "objects without tracking number wait"),
        repair=_by_hand(
            "call the carrier: what has no tracking number waits for it, and no restart helps"
        ),
        follow_ups=("retry the carrier with backoff", f"alert on the carrier's {watched}"),
        counted_as=f"carrier_{outcome}",
    )


CAUSES: Mapping[str, CauseRecord] = {
    Cause.STORE_DOWN: CauseRecord(
        "an object store that is down",
        Rule(
            "store_live", is_false, 0.9, "the object store does not answer, or says it is not well"
        ),
        Rule("store_live", is_true, -0.6, "the object store is live"),
        hint("failures_store_unreachable", is_over(0), 0.3, "the worker cannot reach it"),
        repair=_start(
            *STORE_SERVICES,
            otherwise="its service is not a stopped one here: restore the store where it runs",
        ),
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
        repair=_start(
            "artifact-exporter",
            "prometheus",
            otherwise="exporter and Prometheus are not stopped services here: look there",
        ),
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
        hidden_by=_STOPPED,
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
        repair=_by_hand("the DAG's own logs say why its runs fail: nothing here mends it"),
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
        repair=_by_hand("give the worker's user its right back: no restart helps"),
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
        hint("store_free_bytes", is_under(2**31), 0.3, "under 2 GiB are free"),
        repair=_by_hand(
            "free or add capacity: a move needs room for the copies, and no restart helps"
        ),
        follow_ups=(
            "alert on capacity by the names that the store exports "
            "(minio_cluster_capacity_usable_free_bytes)",
            "a retention rule for ready/",
        ),
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
        repair=_by_hand("the worker drains the queue: a restart only costs time"),
        follow_ups=("a larger batch or more workers", "alert on arrivals over drain"),
        # A surge outruns a healthy drain: while nothing may leave, that cannot be told.
        hidden_by=tuple(sorted(STANDSTILL)),
    ),
    Cause.SYNTHETIC: CauseRecord(
        "synthetic objects alone",
        Rule("overdue_synthetic", is_over(0), 0.8, "synthetic objects wait over the threshold"),
        Rule("overdue_real", is_over(0), -0.5, "real objects wait over it too"),
        hint("drill_alert_firing", is_true, 0.1, "a drill's alert fires"),
        repair=_by_hand("6.3 clean up the chaos objects (runbook run 06)"),
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
        repair=_bring_support_back,
        follow_ups=("alert on collection failures of support",),
        then="6.4 refresh the ticket's timeline (runbook run 06 -p ticket_id=TICKET)",
    ),
    Cause.CLOCK_SKEW: CauseRecord(
        "a service whose clock is off",
        Rule("clock_skewed", is_some, 0.8, "a system's clock is off"),
        hint("future_pending_since", is_over(0), 0.2, "labels claim to be from the future"),
        repair=_by_hand(
            "set the clock right: a restart alone does not; trust no ages from that system"
        ),
        follow_ups=("time synchronisation on every host", "alert on clock skew"),
        stops_labels=False,
    ),
}
