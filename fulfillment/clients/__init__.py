"""Clients of the outside systems. They return what a system answered, and judge nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property

from objectmove.bucket import S3Bucket
from runbook_lib.errors import (
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotConnectedError,
)

from ..settings import HTTP_SYSTEMS, Settings
from . import http_systems as http
from .object_store import ObjectStore, connect_bucket
from .services import CommandServices, ServicesClient, connect_services


class Clients:
    """A client of every outside system. None sends anything before it is used.

    An HTTP client without an address raises ``NotConfiguredError`` at its first request.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.prometheus = http.PrometheusClient.connect(settings)
        self.alertmanager = http.AlertmanagerClient.connect(settings)
        self.grafana = http.GrafanaClient.connect(settings)
        self.support = http.SupportClient.connect(settings)
        self.fulfillment = http.FulfillmentClient.connect(settings)
        self.pipeline = http.PipelineClient.connect(settings, dag_id=settings.pipeline_dag_id)
        self.probe = http.ProbeClient.connect(settings)
        self.notifications = http.NotificationsClient.connect(settings)

    @cached_property
    def bucket(self) -> S3Bucket:
        return connect_bucket(self._settings, for_changes=False)

    @cached_property
    def change_bucket(self) -> S3Bucket:
        """The bucket with the change keys, or ``bucket`` itself if there are none."""
        if not self._settings.minio_change_user:
            return self.bucket
        return connect_bucket(self._settings, for_changes=True)

    @cached_property
    def store(self) -> ObjectStore:
        """The bucket for sections and drills, which reads and changes with separate keys."""
        return ObjectStore(self.bucket, self.change_bucket)

    @cached_property
    def services(self) -> ServicesClient:
        return connect_services(self._settings)

    def find_switch(self, service: str) -> ServicesClient | CommandServices:
        """Return what starts and stops a service: the worker's own commands, or the back end."""
        settings = self._settings
        if settings.worker_status_cmd and service == settings.worker_service:
            return CommandServices(settings)
        return self.services


def check_connected(settings: Settings, clients: Clients) -> None:
    """Ask every system at once. One answer is enough, even one that denies access.

    Raises ``NotConnectedError`` if none answers, or the object store has no address or no keys.
    """
    access_key, secret_key, _ = settings.read_store_keys(for_changes=False)
    if not (settings.minio_endpoint and access_key and secret_key):
        raise NotConnectedError(
            "you are not connected: set MINIO_ENDPOINT, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD "
            "in .env or the environment (`runbook stack env` prints the local stack's)"
        )
    systems = [getattr(clients, name) for name in HTTP_SYSTEMS]
    asked = [system.check_reachable for system in systems if system.url]
    questions: list[Callable[[], object]] = [clients.store.read_clock, *asked]
    no_answer = (ClientTimeoutError, ConnectionRefusedClientError)
    pool = ThreadPoolExecutor(len(questions))
    try:
        answers = as_completed([pool.submit(ask) for ask in questions])
        if any(not isinstance(answer.exception(), no_answer) for answer in answers):
            return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    raise NotConnectedError(
        f"you are not connected: none of {len(questions)} systems answers. See the addresses "
        "in .env or the environment (`runbook stack up` starts the local stack)"
    )
