"""Where things are on this machine, and the variables that describe a running stack."""

from __future__ import annotations

from dataclasses import dataclass

from addons.profiles import PROFILES

from .config import StackConfig
from .topology import SERVICES

__all__ = ["LocalPlaces", "build_env", "build_render_env"]

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalPlaces:
    """`topology.Places` for processes on loopback."""

    config: StackConfig

    def port(self, service: str) -> int:
        """Return a service's port; ``notification-sink:smtp`` is the sink's mail port."""
        name, _, second = service.partition(":")
        return SERVICES[name].ports[1 if second else 0] + self.config.port_base

    def address(self, service: str) -> str:
        """Return ``host:port`` of a service."""
        return f"{_HOST}:{self.port(service)}"

    def bind(self, service: str) -> tuple[str, int]:
        """Return the host and port on which a service listens."""
        return _HOST, self.port(service)

    def data(self, name: str) -> str:
        """Return the path of a file that survives a restart."""
        return str(self.config.data / name)

    def run(self, name: str) -> str:
        """Return the path of a file that need not survive."""
        return str(self.config.run / name)

    def setting(self, name: str) -> str:
        """Return a setting's value."""
        return self.config.settings[name]

    @property
    def exporter_refresh_s(self) -> str:
        """Seconds between two refreshes of the exporter: as often as Prometheus scrapes."""
        return {"demo": "1", "rehearsal": "5", "production": "15"}[self.config.profile]


def build_env(config: StackConfig) -> dict[str, str]:
    """Return every endpoint and credential of the stack, by the name of its setting."""
    places = LocalPlaces(config)

    def url(service: str) -> str:
        return f"http://{places.address(service)}"

    settings = config.settings
    return {
        **settings,
        "MINIO_ENDPOINT": places.address("minio"),
        "MINIO_SECURE": "false",
        "PROMETHEUS_URL": url("prometheus"),
        "ALERTMANAGER_URL": url("alertmanager"),
        "GRAFANA_URL": "",  # there is none here
        "SUPPORT_URL": url("support-service"),
        "FULFILLMENT_URL": url("fulfillment-service"),
        "PIPELINE_URL": url("pipeline-api"),
        "CARRIER_URL": url("carrier-api"),
        "EXPORTER_URL": url("artifact-exporter"),
        "PROBE_URL": url("synthetic-probe"),
        "NOTIFICATIONS_URL": url("notification-sink"),
        "RUNBOOK_ENVIRONMENT": "local",
        "RUNBOOK_SERVICES": "supervisor",
        "LABEL_FINISHED": "metadata:tracking-number",
        "WORKER_CONTROL": "api",
        "RUNBOOK_STACK_HOME": str(config.home),
        "RUNBOOK_STACK_PORT_BASE": str(config.port_base),
        "LAG_FOR_MINUTES": f"{PROFILES[config.profile].lag_for_s / 60:g}",
    }


def build_render_env(config: StackConfig, *, serve_address: str = "") -> dict[str, str]:
    """Return what ``addons.render`` needs to point Prometheus and Alertmanager at the stack.

    Parameters
    ----------
    serve_address
        Of `runbook serve`; empty: it does not run.
    """
    places = LocalPlaces(config)
    sink = f"http://{places.address('notification-sink')}"
    reporter = {"TARGET_SERVE": serve_address} if serve_address else {}
    return reporter | {
        "TARGET_MINIO": places.address("minio"),
        "TARGET_FULFILLMENT": places.address("fulfillment-service"),
        "TARGET_SUPPORT": places.address("support-service"),
        "TARGET_PIPELINE": places.address("pipeline-api"),
        "TARGET_CARRIER": places.address("carrier-api"),
        "TARGET_EXPORTER": places.address("artifact-exporter"),
        "TARGET_PROBE": places.address("synthetic-probe"),
        "TARGET_SINK": places.address("notification-sink"),
        "TARGET_ALERTMANAGER": places.address("alertmanager"),
        "TARGET_PROMETHEUS": places.address("prometheus"),
        "ALERTMANAGER_SLACK_WEBHOOK_URL": f"{sink}/slack/critical",
        "ALERTMANAGER_TEAMS_WEBHOOK_URL": f"{sink}/teams/oncall",
        "ALERTMANAGER_EMAIL_TO": "oncall@dataflow.local",
        "ALERTMANAGER_EMAIL_FROM": "alertmanager@dataflow.local",
        "ALERTMANAGER_SMTP_SMARTHOST": places.address("notification-sink:smtp"),
        "ALERTMANAGER_SMTP_REQUIRE_TLS": "false",
    }
