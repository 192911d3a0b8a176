"""Plays the cases of others on a local stack of their own, by other means than our faults.

Nothing here is taken back but threads and frozen processes: the stack ends with its case.
"""

from __future__ import annotations

import configparser
import os
import secrets
import signal
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

import psutil
import yaml
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from dataflow_stack import health, layout
from dataflow_stack.config import StackConfig, StackError
from dataflow_stack.faults.base import send, wait_for, wait_for_service
from dataflow_stack.faults.processes import override
from dataflow_stack.object_store import admin_client, run_juicefs
from dataflow_stack.orders import build_orders, inject_orders
from dataflow_stack.places import LocalPlaces
from dataflow_stack.programs import juicefs_meta, uses_minio
from dataflow_stack.supervisor import Supervisor
from tests.support.gateway import find_free_ports
from tests.support.slow_link import SlowLink, run_slow_link

_WORKER = "fulfillment-service"
_LATE_ORDERS = 6
_FRESH_MINUTES = (0.0, 0.5)
_USER = "label-mover"
_DELAY_S = 3.0
_SLOW_S = 0.8
_BURST = 200
_FLOOD = 20
_FLOOD_EVERY_S = 1.0
_READY_S = 60.0


@dataclass
class Stage:
    """A stack on which a case is played, and what ends with the case.

    ``operator`` are settings of the operator that differ from the stack's own.
    """

    config: StackConfig
    ends: ExitStack
    operator: dict[str, str] = field(default_factory=dict)

    def address(self, service: str) -> str:
        return LocalPlaces(self.config).address(service)

    def hand_over(self, count: int = _LATE_ORDERS, *, fresh: bool = False) -> None:
        url = f"http://{self.address(_WORKER)}"
        if fresh:
            inject_orders(url, count, late_minutes=_FRESH_MINUTES)
        else:
            inject_orders(url, count)

    def restart(self, service: str, **variables: str) -> None:
        overrides = layout.read_overrides(self.config)
        overrides[service] = overrides.get(service, {}) | variables
        layout.write_overrides(self.config, overrides)
        layout.write_layout(self.config)
        Supervisor(self.config).update()

    def restart_and_wait(self, service: str, **variables: str) -> None:
        override(self.config, service=service, variables=variables)

    def scale_to_zero(self, service: str) -> None:
        """Take a service out of the supervisor's configuration."""
        conf = configparser.RawConfigParser()
        conf.read(self.config.conf)
        conf.remove_section(f"program:{service}")
        with self.config.conf.open("w") as file:
            conf.write(file)
        Supervisor(self.config).update()

    def find_process(self, service: str) -> psutil.Process:
        return psutil.Process(Supervisor(self.config).programs()[service]["pid"])

    def link(self, service: str, *, delay_s: float = 0.0) -> SlowLink:
        return self.ends.enter_context(run_slow_link(self.address(service), delay_s / 2))

    def freeze(self, service: str) -> None:
        """Suspend the process of a service until the case ends: its connections stay open."""
        frozen = self.find_process(service)
        frozen.suspend()
        self.ends.callback(partial(os.kill, frozen.pid, signal.SIGCONT))

    def repeat(self, act: Callable[[], object], *, every_s: float) -> None:
        """Do something again and again until the case ends."""
        ended = threading.Event()

        def act_again_and_again() -> None:
            while not ended.wait(every_s):
                act()

        thread = threading.Thread(target=act_again_and_again)
        thread.start()
        self.ends.callback(thread.join)
        self.ends.callback(ended.set)

    def wait_until_healthy(self) -> None:
        health.wait_until_healthy(self.config, deadline_s=_READY_S)


def _worker_scaled_to_zero(stage: Stage) -> None:
    stage.hand_over()
    stage.scale_to_zero(_WORKER)


def _pipeline_controller_at_zero(stage: Stage) -> None:
    stage.scale_to_zero("pipeline-api")
    stage.hand_over()


def _corrupted_secret(stage: Stage) -> None:
    secret = stage.config.settings["MINIO_ROOT_PASSWORD"]
    stage.restart_and_wait(_WORKER, MINIO_ROOT_PASSWORD=f"{secret}=")
    stage.hand_over()


def _changed_password(stage: Stage) -> None:
    stage.restart_and_wait("minio", MINIO_ROOT_PASSWORD=secrets.token_urlsafe(18))
    stage.hand_over()


def _missing_credentials(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, MINIO_ROOT_USER="", MINIO_ROOT_PASSWORD="")
    stage.hand_over()


def _revoked_right(stage: Stage) -> None:
    admin = give_own_user(stage)
    statement = {
        "Effect": "Allow",
        "Action": ["s3:GetBucketLocation"],
        "Resource": ["arn:aws:s3:::elsewhere"],
    }
    admin.policy_add("nothing-here", policy={"Version": "2012-10-17", "Statement": [statement]})
    set_policy(admin, "nothing-here")
    stage.hand_over()


def _unregistered_user(stage: Stage) -> None:
    give_own_user(stage).user_remove(_USER)
    stage.hand_over()


def give_own_user(stage: Stage) -> MinioAdmin:
    """Let the worker run as a user of its own, with every right, until it works so."""
    settings = stage.config.settings
    admin = MinioAdmin(
        endpoint=stage.address("minio"),
        credentials=StaticProvider(settings["MINIO_ROOT_USER"], settings["MINIO_ROOT_PASSWORD"]),
        region=settings["MINIO_REGION"],
        secure=False,
    )
    password = secrets.token_urlsafe(18)
    admin.user_add(_USER, password)
    set_policy(admin, "readwrite")
    stage.restart_and_wait(_WORKER, MINIO_ROOT_USER=_USER, MINIO_ROOT_PASSWORD=password)
    stage.wait_until_healthy()
    return admin


def set_policy(admin: MinioAdmin, policy: str) -> None:
    # The older call: the gateway knows no other, and MinIO still knows this one.
    admin.policy_set(policy, user=_USER)


def _wrong_environment(stage: Stage) -> None:
    bucket = f"{stage.config.settings['FULFILLMENT_BUCKET']}-staging"
    admin_client(stage.config).make_bucket(bucket_name=bucket)
    stage.restart_and_wait(_WORKER, FULFILLMENT_BUCKET=bucket)
    stage.hand_over()


def _wrong_target_port(stage: Stage) -> None:
    (port,) = find_free_ports(1)
    stage.restart("carrier-api", SERVICE_PORT=str(port))
    stage.hand_over()


def _wrong_own_port(stage: Stage) -> None:
    (port,) = find_free_ports(1)
    stage.restart(_WORKER, SERVICE_PORT=str(port))


def _network_delay(stage: Stage) -> None:
    link = stage.link("carrier-api", delay_s=_DELAY_S)
    stage.restart_and_wait(_WORKER, SERVICE_CARRIER_URL=f"http://{link.endpoint}")
    stage.hand_over()


def _network_partition(stage: Stage) -> None:
    link = stage.link("minio")
    stage.restart_and_wait(_WORKER, MINIO_ENDPOINT=link.endpoint)
    stage.wait_until_healthy()
    link.cut()
    stage.hand_over()


def _name_resolution(stage: Stage) -> None:
    stage.restart_and_wait(_WORKER, MINIO_ENDPOINT="object-store.invalid:9000")
    stage.hand_over()


def _full_disk(stage: Stage) -> None:
    if uses_minio(stage.config):
        raise StackError("full_disk is played on the JuiceFS gateway: take minio off the PATH")
    supervisor = Supervisor(stage.config)
    # Its metadata lives in an embedded database, which only one process can open.
    supervisor.stop("minio")
    try:
        meta = f"badger://{juicefs_meta(stage.config)}"
        run_juicefs(stage.config, "config", meta, "--inodes=1", "--yes")
    finally:
        supervisor.start("minio")
    wait_for_service(stage.config, "minio")
    stage.hand_over()


def _failing_job(stage: Stage) -> None:
    trigger = (
        "CREATE TRIGGER bad_image AFTER INSERT ON dag_runs"
        " BEGIN UPDATE dag_runs SET state = 'failed' WHERE number = NEW.number; END"
    )
    with closing(sqlite3.connect(stage.config.data / "pipeline.sqlite3", timeout=10)) as database:
        database.execute(trigger)
        database.commit()
    stage.hand_over()


def _breaking_configuration(stage: Stage) -> None:
    stage.hand_over()
    stage.restart(_WORKER, SERVICE_WORKER_BATCH="eight")


def _container_kill(stage: Stage) -> None:
    killed = stage.find_process(_WORKER)
    killed.kill()
    killed.wait(10)
    wait_for_service(stage.config, _WORKER)
    stage.hand_over()


def _pod_failure(stage: Stage) -> None:
    stage.hand_over()
    stage.freeze(_WORKER)


def _flood(stage: Stage) -> None:
    def hand_over_again() -> None:
        orders = build_orders(_FLOOD)
        send(stage.config, _WORKER, "POST", "/fulfillment/orders", {"orders": orders})

    stage.repeat(hand_over_again, every_s=_FLOOD_EVERY_S)


def _slow_but_healthy(stage: Stage) -> None:
    link = stage.link("carrier-api", delay_s=_SLOW_S)
    stage.restart_and_wait("pipeline-api", SERVICE_RUN_INTERVAL_S="20")
    carrier_url = f"http://{link.endpoint}"
    stage.restart_and_wait(_WORKER, SERVICE_CARRIER_URL=carrier_url, SERVICE_WORKER_INTERVAL_S="3")
    stage.wait_until_healthy()
    stage.hand_over(fresh=True)


def _burst_that_drains(stage: Stage) -> None:
    stage.hand_over(_BURST, fresh=True)


def _unrelated_failure(stage: Stage) -> None:
    stage.restart("notification-sink", SERVICE_SMTP_PORT="mail")
    stage.hand_over(fresh=True)


def _half_blind(stage: Stage) -> None:
    file = stage.config.run / "prometheus.yml"
    content = yaml.safe_load(file.read_text("utf-8"))
    jobs = [job for job in content["scrape_configs"] if job["job_name"] != "app-services"]
    content["scrape_configs"] = jobs
    file.write_text(yaml.safe_dump(content), "utf-8")
    Supervisor(stage.config).reload("prometheus")

    def is_half_blind() -> bool:
        answer = send(stage.config, "prometheus", "GET", "/api/v1/scrape_pools")
        return len(answer["data"]["scrapePools"]) == len(jobs)

    wait_for("Prometheus scrapes no service", is_half_blind)
    stage.operator["RUNBOOK_SERVICES"] = "none"
    stage.hand_over(fresh=True)


#: How each case is played, by its name.
PLAYS: Mapping[str, Callable[[Stage], None]] = {
    "worker_scaled_to_zero": _worker_scaled_to_zero,
    "pipeline_controller_at_zero": _pipeline_controller_at_zero,
    "corrupted_secret": _corrupted_secret,
    "changed_password": _changed_password,
    "missing_credentials": _missing_credentials,
    "revoked_right": _revoked_right,
    "unregistered_user": _unregistered_user,
    "wrong_environment": _wrong_environment,
    "wrong_target_port": _wrong_target_port,
    "wrong_own_port": _wrong_own_port,
    "network_delay": _network_delay,
    "network_partition": _network_partition,
    "name_resolution": _name_resolution,
    "full_disk": _full_disk,
    "failing_job": _failing_job,
    "breaking_configuration": _breaking_configuration,
    "container_kill": _container_kill,
    "pod_failure": _pod_failure,
    "flood": _flood,
    "slow_but_healthy": _slow_but_healthy,
    "burst_that_drains": _burst_that_drains,
    "unrelated_failure": _unrelated_failure,
    "half_blind": _half_blind,
}
