"""docker-compose.yml and the local stack describe the same environment."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_stack.config import load_config
from dataflow_stack.topology import CONTAINER_PORT, SERVICES, Service

ROOT = Path(__file__).parents[2]
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_SMTP_PORT = 8025


@dataclass(frozen=True)
class ComposePlaces:
    """`topology.Places` between containers."""

    settings: dict[str, str]

    def address(self, service: str) -> str:
        native = {"minio": 9000, "prometheus": 9090, "alertmanager": 9093}
        return f"{service}:{native.get(service, CONTAINER_PORT)}"

    def bind(self, service: str) -> tuple[str, int]:
        return "0.0.0.0", _SMTP_PORT if service.endswith(":smtp") else CONTAINER_PORT  # noqa: S104

    def data(self, name: str) -> str:
        return f"/data/{name}"

    def run(self, name: str) -> str:
        return f"/data/{name}"

    def setting(self, name: str) -> str:
        return self.settings[name]

    @property
    def exporter_refresh_s(self) -> str:
        return "1"


def with_defaults(value: str) -> str:
    return _VARIABLE.sub(lambda found: found.group(2), value)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture
def places(tmp_path: Path) -> ComposePlaces:
    return ComposePlaces(load_config(tmp_path, 0).settings)


def environment(compose: dict[str, Any], name: str) -> dict[str, str]:
    found = compose["services"][name].get("environment", {})
    return {key: with_defaults(str(value)) for key, value in found.items()}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_has_the_same_name_and_variables(
    service: Service, compose: dict[str, Any], places: ComposePlaces
) -> None:
    found, wanted = environment(compose, service.name), service.environment(places)
    if service.name == "minio":
        found.pop("HOME")
    elif "MINIO_ROOT_USER" in wanted:
        # the local stack has one key for all; here each has its own, and nobody the root user's
        for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
            assert found.pop(name) != wanted.pop(name)
    assert found == wanted


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_has_the_same_host_ports(service: Service, compose: dict[str, Any]) -> None:
    published = [port.split(":")[1] for port in compose["services"][service.name]["ports"]]
    assert set(service.ports) <= {int(outside) for outside in published}


def test_no_port_of_any_container_is_open_to_the_network(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_containers_are_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+[mg]", with_defaults(service["mem_limit"])), name
        if name != "airflow":  # it writes into its own home, as a user of its own
            assert service["read_only"] is True, name
            assert (service["user"] == "0:0") == (name == "volume-setup"), name


@pytest.mark.process
def test_compose_accepts_the_file_with_the_example_settings() -> None:
    files = ["--env-file", ".env.example", "--env-file", "docker/stack.env"]
    command = ["docker-compose", *files, "--profile", "*", "config"]
    done = subprocess.run(
        [*command, "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is not set" not in done.stderr
