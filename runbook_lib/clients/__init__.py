"""One module per outside system. Clients return values; they hold no thresholds and no opinions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..settings import Settings

if TYPE_CHECKING:
    from objectmove.bucket import S3Bucket

    from .alertmanager import AlertmanagerClient
    from .fulfillment import FulfillmentClient
    from .grafana import GrafanaClient
    from .notifications import NotificationsClient
    from .object_store import ObjectStore
    from .pipeline import PipelineClient
    from .probe import ProbeClient
    from .prometheus import PrometheusClient
    from .services import ServicesClient
    from .support import SupportClient

__all__ = ["Clients"]


class Clients:
    """Every client, made from the settings when it is first used.

    Parameters
    ----------
    settings : addresses, credentials and time-outs
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def bucket(self) -> S3Bucket:
        """The object store's bucket, with the keys for looking."""
        from .object_store import connect_bucket

        return connect_bucket(self._settings, for_changes=False)

    @cached_property
    def change_bucket(self) -> S3Bucket:
        """The same bucket, with the keys for changes: another object only if there are such."""
        from .object_store import connect_bucket

        if not self._settings.minio_change_user:
            return self.bucket
        return connect_bucket(self._settings, for_changes=True)

    @cached_property
    def store(self) -> ObjectStore:
        """The bucket as sections and synthetic objects use it: each effect by its own keys."""
        from .object_store import S3Store

        return S3Store(self.bucket, self.change_bucket)

    @cached_property
    def prometheus(self) -> PrometheusClient:
        """Prometheus."""
        from .prometheus import PrometheusClient

        return PrometheusClient(
            self._settings.prometheus_url, timeout_s=self._settings.http_timeout_s
        )

    @cached_property
    def alertmanager(self) -> AlertmanagerClient:
        """Alertmanager."""
        from .alertmanager import AlertmanagerClient

        return AlertmanagerClient(
            self._settings.alertmanager_url, timeout_s=self._settings.http_timeout_s
        )

    @cached_property
    def grafana(self) -> GrafanaClient:
        """Grafana."""
        from .grafana import GrafanaClient

        return GrafanaClient(
            self._settings.grafana_url,
            user=self._settings.grafana_user,
            password=self._settings.grafana_password.get_secret_value(),
            timeout_s=self._settings.http_timeout_s,
        )

    @cached_property
    def support(self) -> SupportClient:
        """The support service: tickets and their timelines."""
        from .support import SupportClient

        return SupportClient(self._settings.support_url, timeout_s=self._settings.http_timeout_s)

    @cached_property
    def fulfillment(self) -> FulfillmentClient:
        """The fulfilment service: shipments and the worker's state."""
        from .fulfillment import FulfillmentClient

        return FulfillmentClient(
            self._settings.fulfillment_url, timeout_s=self._settings.http_timeout_s
        )

    @cached_property
    def pipeline(self) -> PipelineClient:
        """The pipeline (Airflow's REST API)."""
        from .pipeline import PipelineClient

        return PipelineClient(
            self._settings.pipeline_url,
            dag_id=self._settings.pipeline_dag_id,
            user=self._settings.pipeline_user,
            password=self._settings.pipeline_password.get_secret_value(),
            timeout_s=self._settings.http_timeout_s,
        )

    @cached_property
    def probe(self) -> ProbeClient:
        """The synthetic probe."""
        from .probe import ProbeClient

        return ProbeClient(self._settings.probe_url, timeout_s=self._settings.http_timeout_s)

    @cached_property
    def notifications(self) -> NotificationsClient:
        """What the alert receivers got."""
        from .notifications import NotificationsClient

        return NotificationsClient(
            self._settings.notifications_url, timeout_s=self._settings.http_timeout_s
        )

    @cached_property
    def services(self) -> ServicesClient:
        """Status, logs, restart, stop, start: compose or supervisor."""
        from .services import connect_services

        return connect_services(self._settings)
