"""docker-compose.yml and the local stack describe the same environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_stack.config import load_config
from dataflow_stack.places import build_render_env
from dataflow_stack.topology import CONTAINER_PORT, SERVICES, Service, python_services

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
    """Replace ``${NAME:-default}`` as compose does when the variable is not set."""
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
def test_a_service_has_the_same_host_ports_on_loopback(
    service: Service, compose: dict[str, Any]
) -> None:
    published = [port.split(":") for port in compose["services"][service.name]["ports"]]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert set(service.ports) <= {int(outside) for _, outside, _ in published}


@pytest.mark.parametrize("service", python_services(), ids=lambda service: service.name)
def test_a_python_service_runs_the_same_module(service: Service, compose: dict[str, Any]) -> None:
    assert compose["services"][service.name]["command"] == ["python", "-m", service.module]


def test_no_port_of_any_container_is_open_to_the_network(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_the_root_user_of_the_store_sets_it_up_and_is_used_by_nobody_else(
    compose: dict[str, Any],
) -> None:
    text = {name: json.dumps(service) for name, service in compose["services"].items()}
    assert {name for name, found in text.items() if "STORE_ROOT_" in found} == {
        "minio",
        "bucket-setup",
        "store-users",
    }
    lab = compose["services"]["lab"]["environment"]
    assert "STORE_LOOK_USER" in lab["MINIO_ROOT_USER"]
    assert "STORE_CHANGE_USER" in lab["MINIO_CHANGE_USER"]


@pytest.mark.parametrize("name", ["look", "change", "service"])
def test_a_policy_allows_nothing_but_reading_and_what_its_prefixes_need(name: str) -> None:
    policy = json.loads((ROOT / "docker" / "store" / f"{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement) == {"Effect", "Action", "Resource"}
        writes = [a for a in statement["Action"] if re.match(r"s3:(Put|Delete)", a)]
        places = {r.removeprefix("arn:aws:s3:::BUCKET") for r in statement["Resource"]}
        assert all(re.fullmatch(r"s3:[A-Z][A-Za-z]+", action) for action in statement["Action"])
        assert name != "look" or not writes
        assert not writes or places <= {
            "/pending/*",
            "/ready/*",
            "/chaos/*",
            "/parked/*",
            "/.runbook/*",
        }
    assert f"give {name} " in (ROOT / "docker" / "store" / "users.sh").read_text()


def test_containers_are_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+[mg]", with_defaults(service["mem_limit"])), name
        if name != "airflow":  # it writes into its own home, as a user of its own
            assert service["read_only"] is True, name
            assert (service["user"] == "0:0") == (name == "volume-setup"), name


def test_who_needs_another_container_waits_until_it_is_well_or_done(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        for other, wanted in service.get("depends_on", {}).items():
            once = compose["services"][other].get("restart") == "no"
            ready = "service_completed_successfully" if once else "service_healthy"
            assert wanted == {"condition": ready}, (name, other)


IMAGE = re.findall(r"^COPY (\w+) ", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
MODULES = [*(service.module for service in python_services()), "dataflow_stack.seed"]
MODULES += ["addons.artifact_exporter.__main__"]


@pytest.mark.process
@pytest.mark.parametrize("module", [*MODULES, "addons.render"])
def test_a_service_imports_nothing_that_its_image_has_not(module: str, tmp_path: Path) -> None:
    for package in IMAGE:
        (tmp_path / package).symlink_to(ROOT / package)
    listed = subprocess.check_output(
        [sys.executable, "docker/requirements.py"], cwd=ROOT, text=True
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted, brought = (
        {re.split(r"[=<>]", line)[0].replace("-", "_") for line in lines}
        for lines in (project["dependencies"], listed.split())
    )
    code = (
        "import importlib, importlib.abc, sys\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in sys.argv[2:]: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "importlib.import_module(sys.argv[1])\n"
    )
    brought |= {"typing_extensions", "markupsafe"}  # by pydantic and jinja2
    gone = {*wanted, "chainlog"} - brought
    done = subprocess.run(
        [sys.executable, "-c", code, module, *gone],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_lasting_container_has_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        once = service.get("restart") == "no"
        assert bool(service["healthcheck"].get("disable")) == once, name


def test_prometheus_and_alertmanager_get_the_same_variables(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    local = build_render_env(load_config(tmp_path, 0))
    assert set(environment(compose, "config")) == set(local)
    targets = {k: v for k, v in environment(compose, "config").items() if k.startswith("TARGET_")}
    for name, target in targets.items():
        service, _, port = target.partition(":")
        if service in SERVICES:
            assert target == ComposePlaces({}).address(service)
        else:
            assert (name, port) == ("TARGET_PROMETHEUS", "9090")


def test_every_image_is_pinned_and_its_version_stands_in_the_example(
    compose: dict[str, Any],
) -> None:
    example = (ROOT / "docker" / "stack.env").read_text()
    for name, service in compose["services"].items():
        image = service["image"]
        version = with_defaults(image).rpartition(":")[2]
        assert re.search(r"\d", version), f"{name} has no fixed version: {image}"
        for variable, default in _VARIABLE.findall(image):
            assert re.search(f"^{variable}={re.escape(default)}$", example, re.MULTILINE)


def test_a_comment_stands_above_each_service() -> None:
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    start, end = lines.index("services:"), lines.index("volumes:")
    for number in range(start + 1, end):
        if re.match(r"  [\w-]+:$", lines[number]):
            assert lines[number - 1].startswith("  # "), lines[number]


@pytest.mark.process
def test_compose_accepts_the_file_with_the_example_settings() -> None:
    files = ["--env-file", ".env.example", "--env-file", "docker/stack.env"]
    command = ["docker-compose", *files, "--profile", "*", "config"]
    done = subprocess.run(
        [*command, "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is not set" not in done.stderr


@pytest.mark.process
def test_the_image_installs_the_locked_packages() -> None:
    done = subprocess.run(
        [sys.executable, "docker/requirements.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    locked = (ROOT / "requirements.lock").read_text()
    printed = done.stdout.splitlines()
    assert [line for line in printed if f"{line} \\\n" not in locked] == []
    assert {"fastapi", "minio", "uvicorn"} <= {line.partition("==")[0] for line in printed}
