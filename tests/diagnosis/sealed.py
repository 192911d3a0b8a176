"""Forty cases by an author who has not read how section 5 judges: docs/diagnosis-sealed.md.

The cases and their answers were committed before the first of them was played.
"""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path

import psutil
from minio import MinioAdmin

from dataflow_stack.config import StackError
from dataflow_stack.faults import FAULTS
from dataflow_stack.faults.base import send, wait_for_service
from dataflow_stack.object_store import admin_client, run_juicefs
from dataflow_stack.places import build_env
from dataflow_stack.programs import juicefs_meta, uses_minio
from dataflow_stack.supervisor import Supervisor
from tests.diagnosis.player import Case, run_command
from tests.diagnosis.stage import Stage, give_own_user, set_policy

_ROOT = Path(__file__).resolve().parents[2]
_WORKER = "fulfillment-service"
_POLICY = "sealed-case"
_NOBODY = "http://127.0.0.1:1"


CASES: dict[str, Case] = {}

Play = Callable[[Stage], None]


def _case(breaks: str, expected: str = "", *, tolerated: str = "") -> Callable[[Play], Play]:
    def add(perform: Play) -> Play:
        name = perform.__name__.lstrip("_")
        CASES[name] = Case(
            breaks, perform, frozenset(expected.split()), frozenset(tolerated.split())
        )
        return perform

    return add


# What breaks, and how.


def _turn_on(stage: Stage, *faults: str) -> None:
    for fault in faults:
        FAULTS[fault].on(stage.config)


def _set_carrier(stage: Stage, *, latency_s: float = 0.02, error_rate: float = 0.0) -> None:
    behaviour = {"latencyS": latency_s, "errorRate": error_rate}
    send(stage.config, "carrier-api", "PUT", "/admin/behaviour", behaviour)


def _set_feed(stage: Stage, *, interval_s: float, late_share: float) -> None:
    pace = {"intervalS": interval_s, "lateShare": late_share}
    send(stage.config, _WORKER, "PUT", "/admin/feed", pace)


def _change_runs(stage: Stage, change: str) -> None:
    """Let the database of the pipeline run a statement after each of its runs."""
    trigger = f"CREATE TRIGGER changed AFTER INSERT ON dag_runs BEGIN {change}; END"
    with closing(sqlite3.connect(stage.config.data / "pipeline.sqlite3", timeout=10)) as database:
        database.execute(trigger)
        database.commit()


def _hold_worker_lock(stage: Stage) -> None:
    file = stage.ends.enter_context((stage.config.run / "worker.lock").open("a"))
    fcntl.flock(file, fcntl.LOCK_EX)


def _let_worker(stage: Stage, *statements: dict[str, object]) -> None:
    """Let the worker run as a user that may do only this."""
    admin: MinioAdmin = give_own_user(stage)
    admin.policy_add(_POLICY, policy={"Version": "2012-10-17", "Statement": list(statements)})
    set_policy(admin, _POLICY)


def _put_label(stage: Stage, name: str, body: bytes, **metadata: str) -> None:
    settings = stage.config.settings
    admin_client(stage.config).put_object(
        bucket_name=settings["FULFILLMENT_BUCKET"],
        object_name=settings["PENDING_PREFIX"] + name,
        data=io.BytesIO(body),
        length=len(body),
        content_type="application/pdf",
        metadata={key.replace("_", "-"): value for key, value in metadata.items()},
    )


# One fault.


@_case(
    "The carrier refuses 97 of 100 requests with 503; a label gets through now and then.",
    "carrier_errors",
)
def _carrier_mostly_refuses(stage: Stage) -> None:
    _set_carrier(stage, error_rate=0.97)
    stage.hand_over(20)


@_case(
    "The worker's time-out for the carrier is set to 5 ms by mistake.",
    "carrier_timeout",
)
def _deadline_too_short(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_CARRIER_TIMEOUT_S="0.005")
    stage.hand_over()


@_case(
    "The carrier takes 6 s for two thirds of the time, and is quick in between.", "carrier_timeout"
)
def _carrier_slow_by_turns(stage: Stage) -> None:
    latencies = cycle((6.0, 0.02, 6.0))
    _set_carrier(stage, latency_s=6.0)
    stage.repeat(lambda: _set_carrier(stage, latency_s=next(latencies)), every_s=8)
    stage.repeat(partial(stage.hand_over, 2), every_s=4)


@_case(
    "The worker is configured with a path that the carrier doesn't have: each request is 404.",
    "carrier_errors",
)
def _carrier_wrong_path(stage: Stage) -> None:
    url = f"http://{stage.address('carrier-api')}/v2"
    stage.restart_and_wait(_WORKER, SERVICE_CARRIER_URL=url)
    stage.hand_over()


@_case(
    "The worker's lock file is configured as a folder: the service answers, each pass crashes.",
    "worker_stuck",
)
def _lock_is_a_folder(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_WORKER_LOCK_FILE=str(stage.config.run))
    stage.hand_over()


@_case("Something kills the worker's process every second, before it is up.", "worker_stopped")
def _killed_again_and_again(stage: Stage) -> None:
    def kill() -> None:
        # No process between two starts.
        with suppress(psutil.Error, StackError):
            stage.find_process(_WORKER).kill()

    stage.hand_over()
    stage.repeat(kill, every_s=1)


@_case("The worker watches `Pending/`, in capitals.", "bad_prefix")
def _prefix_in_capitals(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_WORKER_PREFIX="Pending/")
    stage.hand_over()


@_case("The worker moves labels to `done/`; whoever ships looks into `ready/`.", "bad_prefix")
def _other_destination(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, READY_PREFIX="done/")
    stage.hand_over()


@_case(
    "The worker's user may read and write, but no longer delete: copies pile up.", "no_permission"
)
def _may_not_delete(stage: Stage) -> None:
    actions = ["s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject", "s3:PutObject"]
    _let_worker(stage, {"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::*"]})
    stage.hand_over()


@_case("The worker's user may upload to `pending/`, but not write to `ready/`.", "no_permission")
def _may_not_write_ready(stage: Stage) -> None:
    settings = stage.config.settings
    ready = f"arn:aws:s3:::{settings['FULFILLMENT_BUCKET']}/{settings['READY_PREFIX']}*"
    _let_worker(
        stage,
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]},
        {"Effect": "Deny", "Action": ["s3:PutObject"], "Resource": [ready]},
    )
    stage.hand_over()


@_case(
    "A quota is used up in the middle of an import: the first labels fit, the rest don't.",
    "storage_full",
)
def _quota_reached_midway(stage: Stage) -> None:
    if uses_minio(stage.config):
        raise StackError("this case needs the JuiceFS gateway: take minio off the PATH")
    supervisor = Supervisor(stage.config)
    # Its metadata lives in an embedded database, which only one process can open.
    supervisor.stop("minio")
    try:
        meta = f"badger://{juicefs_meta(stage.config)}"
        path = f"/{stage.config.settings['FULFILLMENT_BUCKET']}"
        run_juicefs(stage.config, "quota", "set", meta, "--path", path, "--inodes=80")
    finally:
        supervisor.start("minio")
    wait_for_service(stage.config, "minio")
    stage.hand_over(60)


@_case(
    "Someone pauses the DAG in the database of the pipeline, past its API and its event log.",
    "pipeline_paused",
)
def _paused_in_database(stage: Stage) -> None:
    with closing(sqlite3.connect(stage.config.data / "pipeline.sqlite3", timeout=10)) as database:
        database.execute("UPDATE dags SET is_paused = 1")
        database.commit()
    stage.hand_over()


@_case("Seven of eight runs of the DAG fail.", "pipeline_failing")
def _most_runs_fail(stage: Stage) -> None:
    _change_runs(
        stage,
        "UPDATE dag_runs SET state = 'failed' WHERE number = NEW.number AND number % 8 != 0",
    )
    stage.repeat(partial(stage.hand_over, 2), every_s=4)


@_case(
    "The worker had a wrong key for a while; that was repaired, then someone paused the DAG.",
    "pipeline_paused",
)
def _key_repaired_then_paused(stage: Stage) -> None:
    _turn_on(stage, "bad_credentials")
    stage.hand_over()
    time.sleep(6)
    FAULTS["bad_credentials"].off(stage.config)
    _turn_on(stage, "pipeline_paused")
    stage.hand_over()


@_case(
    "25 files of a drill were left behind; the real labels wait because the DAG fails.",
    "pipeline_failing",
    tolerated="synthetic",
)
def _drill_left_behind(stage: Stage) -> None:
    _turn_on(stage, "synthetic", "pipeline_failing")
    stage.hand_over(20)


@_case("Someone ran the chaos script with `--prefix pending/` and went home.", "synthetic")
def _chaos_into_pending(stage: Stage) -> None:
    script = _ROOT / "scripts" / "chaos" / "simulate_fulfillment_delay.py"
    subprocess.run(
        [sys.executable, str(script), "--prefix", "pending/", "--count", "30"],
        env=os.environ | build_env(stage.config),
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )


@_case("support-service hangs: it accepts connections and never answers.", "support_down")
def _support_frozen(stage: Stage) -> None:
    stage.freeze("support-service")


@_case(
    "The object store goes down for 8 s, is up for some seconds, and goes down again.",
    "store_down",
    tolerated="metrics_blind",
)
def _store_flaps(stage: Stage) -> None:
    supervisor = Supervisor(stage.config)
    stage.hand_over()
    supervisor.stop("minio")
    steps = cycle((supervisor.stop, supervisor.start, supervisor.stop))
    stage.repeat(lambda: next(steps)("minio"), every_s=4)


# Two faults.


@_case(
    "The worker's user is misspelt, so nothing is uploaded; the DAG is paused as well.",
    "bad_credentials pipeline_paused",
)
def _user_misspelt_and_paused(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, MINIO_ROOT_USER="admim")
    _turn_on(stage, "pipeline_paused")
    stage.hand_over()


@_case(
    "A forgotten job holds the worker's lock; meanwhile the DAG's runs have begun to fail.",
    "worker_stuck pipeline_failing",
)
def _lock_held_and_failing(stage: Stage) -> None:
    _hold_worker_lock(stage)
    _turn_on(stage, "pipeline_failing")
    stage.hand_over()


@_case("The bucket's quota is used up, and the carrier answers 503.", "storage_full carrier_errors")
def _full_and_carrier_refuses(stage: Stage) -> None:
    _turn_on(stage, "storage_full", "carrier_errors")
    stage.hand_over()


@_case(
    "The DAG is paused for maintenance; then the worker stops, too.",
    "worker_stopped pipeline_paused",
)
def _paused_then_stopped(stage: Stage) -> None:
    _turn_on(stage, "pipeline_paused")
    stage.hand_over()
    time.sleep(3)
    _turn_on(stage, "worker_stopped")


@_case(
    "The worker watches `outgoing/`, and the carrier answers too late.",
    "bad_prefix carrier_timeout",
)
def _wrong_prefix_and_slow_carrier(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_WORKER_PREFIX="outgoing/")
    _turn_on(stage, "carrier_timeout")
    stage.hand_over()


@_case(
    "The exporter has a wrong key and shows no lag; behind its back the worker is stopped.",
    "worker_stopped metrics_blind",
    tolerated="bad_credentials",
)
def _stopped_unseen(stage: Stage) -> None:
    stage.restart("artifact-exporter", MINIO_ROOT_PASSWORD=secrets.token_urlsafe(18))
    stage.hand_over()
    _turn_on(stage, "worker_stopped")


@_case(
    "The object store hangs, and support-service is stopped.",
    "store_down support_down",
    tolerated="metrics_blind",
)
def _store_frozen_and_support_stopped(stage: Stage) -> None:
    _turn_on(stage, "support_down")
    stage.freeze("minio")
    stage.hand_over()


@_case(
    "The worker runs as a user that may only read, and its clock is 200 s ahead.",
    "no_permission clock_skew",
)
def _reader_with_fast_clock(stage: Stage) -> None:
    _turn_on(stage, "no_permission")
    stage.restart_and_wait(_WORKER, SERVICE_CLOCK_OFFSET_S="200")
    stage.hand_over()


@_case("Prometheus hangs, and the DAG's runs fail.", "metrics_blind pipeline_failing")
def _prometheus_frozen_and_failing(stage: Stage) -> None:
    _turn_on(stage, "pipeline_failing")
    stage.hand_over()
    stage.freeze("prometheus")


@_case(
    "The carrier hangs: it accepts connections and never answers; support-service is stopped.",
    "carrier_timeout support_down",
)
def _carrier_frozen_and_support_stopped(stage: Stage) -> None:
    stage.freeze("carrier-api")
    _turn_on(stage, "support_down")
    stage.hand_over()


@_case("The worker's clock is 4 min behind, and late orders flood in.", "surge clock_skew")
def _surge_with_slow_clock(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_CLOCK_OFFSET_S="-240")
    _set_feed(stage, interval_s=0.05, late_share=0.6)


# No fault, or none that has a name.


@_case("The worker was stopped and started again; everything has drained since.")
def _stop_repaired(stage: Stage) -> None:
    stage.hand_over()
    _turn_on(stage, "worker_stopped")
    time.sleep(8)
    FAULTS["worker_stopped"].off(stage.config)


@_case("The carrier answered 503 for a while; it works again, and everything has drained since.")
def _carrier_repaired(stage: Stage) -> None:
    _turn_on(stage, "carrier_errors")
    stage.hand_over()
    time.sleep(10)
    FAULTS["carrier_errors"].off(stage.config)


@_case("A quiet night: no order comes, so the worker has nothing to move.")
def _quiet_night(stage: Stage) -> None:
    _set_feed(stage, interval_s=3600, late_share=0.0)
    time.sleep(10)


@_case("The carrier refuses 5 of 100 requests; a second try succeeds, no label waits.")
def _carrier_hiccups(stage: Stage) -> None:
    _set_carrier(stage, error_rate=0.05)
    stage.repeat(partial(stage.hand_over, 2, fresh=True), every_s=3)


@_case("The worker is set to run every 8 s and to move up to 200 files at a time; it keeps up.")
def _slow_rhythm(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_WORKER_INTERVAL_S="8", SERVICE_WORKER_BATCH="200")
    stage.wait_until_healthy()
    stage.hand_over(fresh=True)


@_case("Ten labels of unknown orders have waited in `pending/` for two hours.")
def _labels_of_unknown_orders(stage: Stage) -> None:
    since = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    for number in range(10):
        order = str(770_000 + number)
        name = f"{order}-{secrets.token_hex(6)}.pdf"
        _put_label(stage, name, b"%PDF-1.4 label", order_id=order, pending_since=since)


@_case("A colleague paused the worker by its API, on purpose.", tolerated="worker_stopped")
def _worker_paused(stage: Stage) -> None:
    send(stage.config, _WORKER, "POST", "/fulfillment/worker/pause")
    stage.hand_over()


@_case("The network between worker and store adds 50 ms to each round trip; the worker keeps up.")
def _slow_store_link(stage: Stage) -> None:
    link = stage.link("minio", delay_s=0.05)
    stage.restart_and_wait(_WORKER, MINIO_ENDPOINT=link)
    stage.wait_until_healthy()
    stage.hand_over(fresh=True)


@_case("The worker's clock is 2 s ahead, which harms nobody.")
def _clock_nearly_right(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, SERVICE_CLOCK_OFFSET_S="2")
    stage.hand_over(fresh=True)


@_case("The DAG's runs stay `running` for hours; the worker releases all the same.")
def _runs_stay_running(stage: Stage) -> None:
    _change_runs(stage, "UPDATE dag_runs SET state = 'running' WHERE number = NEW.number")
    stage.hand_over(fresh=True)


@_case(
    "support-service has a wrong address of fulfillment-service: timelines lack the shipments.",
    tolerated="support_down",
)
def _timelines_without_shipments(stage: Stage) -> None:
    stage.restart_and_wait("support-service", SERVICE_FULFILLMENT_SERVICE_URL=_NOBODY)
    stage.hand_over(fresh=True)


if __name__ == "__main__":
    sys.exit(run_command(CASES, "sealed"))
