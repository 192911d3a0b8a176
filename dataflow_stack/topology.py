"""The one description of the services: names, ports, environment, commands.

``docker-compose.yml`` is checked against it by a test; the supervisor's configuration is
written from it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CONTAINER_PORT", "SERVICES", "Places", "Service", "python_services"]

#: The port on which the Python services listen inside their containers, as DataFlow's do.
CONTAINER_PORT = 8000


class Places(Protocol):
    """Where things are, seen from a service: on this machine, or between containers."""

    def address(self, service: str) -> str:
        """Return ``host:port`` of a service."""

    def bind(self, service: str) -> tuple[str, int]:
        """Return the host and port on which a service listens."""

    def data(self, name: str) -> str:
        """Return the path of a file that survives a restart."""

    def run(self, name: str) -> str:
        """Return the path of a file that need not survive."""

    def setting(self, name: str) -> str:
        """Return a setting's value, or what stands for it."""

    @property
    def exporter_refresh_s(self) -> str:
        """Seconds between two refreshes of the exporter."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes
    ----------
    name
        DataFlow's name, also the supervisor's program and the compose service.
    ports
        Host ports before the port base is added; the first answers the health check.
    health
        The path of its health check.
    priority
        Start order: lower first.
    module
        The Python module to run; empty for other programs.
    environment
        Its variables, given where things are.
    """

    name: str
    ports: tuple[int, ...]
    health: str = "/health"
    priority: int = 50
    module: str = ""
    environment: Callable[[Places], dict[str, str]] = lambda _: {}

    def python_command(self) -> list[str]:
        """Return the command of a Python service."""
        return [sys.executable, "-m", self.module]


def _served(places: Places, name: str) -> dict[str, str]:
    host, port = places.bind(name)
    return {"SERVICE_HOST": host, "SERVICE_PORT": str(port)}


def _store_access(places: Places) -> dict[str, str]:
    names = (
        "MINIO_ROOT_USER",
        "MINIO_ROOT_PASSWORD",
        "MINIO_REGION",
        "FULFILLMENT_BUCKET",
        "PENDING_PREFIX",
        "READY_PREFIX",
    )
    return {"MINIO_ENDPOINT": places.address("minio")} | {n: places.setting(n) for n in names}


def _url(places: Places, service: str) -> str:
    return f"http://{places.address(service)}"


def _minio(places: Places) -> dict[str, str]:
    return {
        "MINIO_ROOT_USER": places.setting("MINIO_ROOT_USER"),
        "MINIO_ROOT_PASSWORD": places.setting("MINIO_ROOT_PASSWORD"),
        "MINIO_PROMETHEUS_AUTH_TYPE": "public",
    }


def _fulfillment(places: Places) -> dict[str, str]:
    return {
        **_served(places, "fulfillment-service"),
        **_store_access(places),
        "SERVICE_DATABASE": places.data("fulfillment.sqlite3"),
        "SERVICE_WORKER_LOCK_FILE": places.run("worker.lock"),
        "SERVICE_CARRIER_URL": _url(places, "carrier-api"),
        "SERVICE_CARRIER_TIMEOUT_S": "2",
        "SERVICE_PIPELINE_URL": _url(places, "pipeline-api"),
        "PIPELINE_DAG_ID": places.setting("PIPELINE_DAG_ID"),
    }


def _carrier(places: Places) -> dict[str, str]:
    return _served(places, "carrier-api")


def _pipeline(places: Places) -> dict[str, str]:
    return {
        **_served(places, "pipeline-api"),
        "SERVICE_DATABASE": places.data("pipeline.sqlite3"),
        "PIPELINE_DAG_ID": places.setting("PIPELINE_DAG_ID"),
    }


def _support(places: Places) -> dict[str, str]:
    return {
        **_served(places, "support-service"),
        "SERVICE_DATABASE": places.data("support.sqlite3"),
        "SERVICE_FULFILLMENT_SERVICE_URL": _url(places, "fulfillment-service"),
        "SERVICE_TIMELINE_CACHE_TTL_SECONDS": "300",
    }


def _probe(places: Places) -> dict[str, str]:
    return {
        **_served(places, "synthetic-probe"),
        "SERVICE_FULFILLMENT_SERVICE_URL": _url(places, "fulfillment-service"),
        "SERVICE_SUPPORT_SERVICE_URL": _url(places, "support-service"),
    }


def _sink(places: Places) -> dict[str, str]:
    host, port = places.bind("notification-sink:smtp")
    return {
        **_served(places, "notification-sink"),
        "SERVICE_DATABASE": places.data("notifications.sqlite3"),
        "SERVICE_SMTP_HOST": host,
        "SERVICE_SMTP_PORT": str(port),
    }


def _exporter(places: Places) -> dict[str, str]:
    host, port = places.bind("artifact-exporter")
    return {
        **_store_access(places),
        "CHAOS_PREFIX": places.setting("CHAOS_PREFIX"),
        "EXPORTER_HOST": host,
        "EXPORTER_PORT": str(port),
        "EXPORTER_REFRESH_S": places.exporter_refresh_s,
    }


_ALL = (
    Service("minio", (9000,), "/minio/health/live", 10, environment=_minio),
    Service(
        "carrier-api",
        (8111,),
        priority=20,
        module="dataflow_stack.services.carrier_api",
        environment=_carrier,
    ),
    Service(
        "pipeline-api",
        (8110,),
        priority=20,
        module="dataflow_stack.services.pipeline_api",
        environment=_pipeline,
    ),
    Service(
        "fulfillment-service",
        (8108,),
        priority=30,
        module="dataflow_stack.services.fulfillment",
        environment=_fulfillment,
    ),
    Service(
        "support-service",
        (8109,),
        priority=30,
        module="dataflow_stack.services.support",
        environment=_support,
    ),
    Service(
        "artifact-exporter",
        (8112,),
        priority=30,
        module="addons.artifact_exporter",
        environment=_exporter,
    ),
    Service(
        "notification-sink",
        (8114, 8116),
        priority=30,
        module="dataflow_stack.services.notification_sink",
        environment=_sink,
    ),
    Service(
        "synthetic-probe",
        (8113,),
        priority=40,
        module="dataflow_stack.services.synthetic_probe",
        environment=_probe,
    ),
    Service("alertmanager", (9093,), "/-/ready", 15),
    Service("prometheus", (9090,), "/-/ready", 15),
)

SERVICES: Mapping[str, Service] = {service.name: service for service in _ALL}


def python_services() -> list[Service]:
    """Return the services that this project brings itself."""
    return [service for service in _ALL if service.module]
