"""Waits until every part of the stack does its work."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

import requests

from .config import StackConfig, StackError
from .places import LocalPlaces
from .supervisor import Supervisor
from .topology import SERVICES, Service
from .web import ask

__all__ = [
    "Check",
    "find_unhealthy",
    "find_unwatched",
    "is_healthy",
    "log_tail",
    "read_lag_minutes",
    "wait_until_healthy",
]

Check = Callable[[StackConfig], dict[str, str]]

_FAILED_STATES = ("FATAL", "EXITED", "UNKNOWN")
_SHOWN_LINES = 20


def is_healthy(config: StackConfig, service: Service) -> bool:
    """Tell whether a service's health check passes."""
    url = f"http://{LocalPlaces(config).address(service.name)}{service.health}"
    try:
        return ask("GET", url, timeout_s=2).ok
    except requests.RequestException:
        return False


def log_tail(config: StackConfig, name: str, lines: int) -> list[str]:
    """Return the last lines of a service's log, at most the last 256 KiB."""
    file = config.logs / f"{name}.log"
    if not file.exists():
        return []
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 262_144))
        text = stream.read().decode(errors="replace")
    return text.splitlines()[-lines:] if lines > 0 else []


def find_unhealthy(config: StackConfig) -> dict[str, str]:
    """Return what is wrong, by service; empty when labels, metrics and probes all work."""
    return _find_unhealthy(config, set(SERVICES))


def find_unwatched(config: StackConfig) -> dict[str, str]:
    """Return what is wrong with the services other than Prometheus, which starts last."""
    return _find_unhealthy(config, set(SERVICES) - {"prometheus"})


def _find_unhealthy(config: StackConfig, names: set[str]) -> dict[str, str]:
    wrong = {
        name: f"no answer from {service.health}"
        for name, service in SERVICES.items()
        if name in names and not is_healthy(config, service)
    }
    if wrong:
        return wrong
    checks: dict[str, Callable[[StackConfig], str]] = {
        "artifact-exporter": _check_exporter,
        "fulfillment-service": _check_worker,
        "synthetic-probe": _check_probe,
        "prometheus": _check_targets,
    }
    for name in sorted(names & set(checks)):
        try:
            problem = checks[name](config)
        except (requests.RequestException, KeyError, ValueError) as error:
            problem = str(error)
        if problem:
            wrong[name] = problem
    return wrong


def wait_until_healthy(
    config: StackConfig, *, deadline_s: float, check: Check = find_unhealthy
) -> None:
    """Wait until nothing is wrong.

    Raises
    ------
    StackError
        When a program gave up or the deadline passed; shows the failing service's last lines.
    """
    supervisor, deadline = Supervisor(config), time.monotonic() + deadline_s
    while wrong := check(config):
        states = {name: str(p["statename"]) for name, p in supervisor.programs().items()}
        dead = [name for name, state in states.items() if state in _FAILED_STATES]
        if dead or time.monotonic() > deadline:
            name = dead[0] if dead else next(iter(wrong))
            problem = wrong.get(name, "") or f"is {states.get(name, 'missing')}"
            tail = "\n".join(log_tail(config, name, _SHOWN_LINES))
            raise StackError(f"{name} is not healthy: {problem}. Its last log lines:\n{tail}")
        time.sleep(0.25)


def read_lag_minutes(config: StackConfig) -> float:
    """Return the exporter's lag of real labels; infinite while it cannot say."""
    try:
        text = _read(config, "artifact-exporter", "/metrics").text
    except requests.RequestException:
        return math.inf
    found = re.search(r'^fulfillment_lag_minutes\{origin="real"\} (\S+)', text, re.MULTILINE)
    return float(found.group(1)) if found else math.inf


def _read(config: StackConfig, service: str, path: str) -> requests.Response:
    answer = ask("GET", f"http://{LocalPlaces(config).address(service)}{path}", timeout_s=5)
    answer.raise_for_status()
    return answer


def _check_exporter(config: StackConfig) -> str:
    blind = math.isinf(read_lag_minutes(config))
    return "it shows no lag: its listing fails" if blind else ""


def _check_worker(config: StackConfig) -> str:
    worker = _read(config, "fulfillment-service", "/fulfillment/worker").json()
    if worker["lastError"]:
        return str(worker["lastError"])
    return "" if worker["lastRunAt"] else "the worker has not run yet"


def _check_probe(config: StackConfig) -> str:
    status = _read(config, "synthetic-probe", "/status").json()
    return "" if status["status"] == "ok" else "; ".join(status["errors"]) or "not run yet"


def _check_targets(config: StackConfig) -> str:
    answer = _read(config, "prometheus", "/api/v1/targets?state=active").json()
    targets = answer["data"]["activeTargets"]
    down = [t["labels"]["instance"] for t in targets if t["health"] != "up"]
    return f"targets not scraped yet: {', '.join(down)}" if down or not targets else ""
