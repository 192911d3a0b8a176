"""What a fault is: turned on for real, noted, and really undone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from runbook_lib.errors import EnvironmentForbidsError

from .. import fault_state, health, object_store
from ..config import StackConfig, StackError, load_config
from ..places import LocalPlaces
from ..store_client import STORE_ERRORS
from ..supervisor import Supervisor
from ..topology import SERVICES
from ..web import ask

__all__ = ["Fault", "Note", "send", "wait_for", "wait_for_service"]

Note = dict[str, Any]

_LAG_LIMIT_MINUTES = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes
    ----------
    name
        Also the name of the cause that a diagnosis must find.
    effect
        What it does while it is on, in words.
    make
        Causes it; returns what its undoing needs to know.
    undo
        Takes back the fault, and what it left behind. Without a note, it sets what is usual.
    look
        Looks at the system itself, and tells whether the fault is there.
    """

    name: str
    effect: str
    make: Callable[[StackConfig], Note]
    undo: Callable[[StackConfig, Note], object]
    look: Callable[[StackConfig], bool]

    def is_noted(self, config: StackConfig | None = None) -> bool:
        """Tell whether it was turned on here and not off."""
        return self.name in fault_state.active(_given(config))

    def is_on(self, config: StackConfig | None = None) -> bool:
        """Tell whether the system has it, whoever caused it or took it back.

        Raises
        ------
        StackError
            When the system does not answer.
        """
        with _naming(f"{self.name} cannot be seen"):
            return self.look(_given(config))

    def on(self, config: StackConfig | None = None) -> None:
        """Cause the fault; harmless when it is on already.

        Raises
        ------
        EnvironmentForbidsError
            Outside a marked local environment.
        StackError
            When the stack is down or the fault could not be caused.
        """
        config = _given(config)
        _check_playground(config)
        if self.is_noted(config) and self.is_on(config):
            return
        fault_state.remember(config, self.name, {})
        with _naming(f"{self.name} cannot be caused"):
            note = self.make(config)
        fault_state.remember(config, self.name, note)

    def restore(self, config: StackConfig | None = None) -> None:
        """Take it back without waiting for the system to recover; harmless when it is off.

        Raises
        ------
        StackError
            When it could not be taken back; it stays noted.
        """
        config = _given(config)
        if self.is_noted(config) or self.is_on(config):
            note = fault_state.active(config).get(self.name, {})
            with _naming(f"{self.name} cannot be reverted"):
                self.undo(config, note)
            fault_state.forget(config, self.name)

    def off(self, config: StackConfig | None = None, *, deadline_s: float = 90.0) -> None:
        """Take it back, and wait until the stack is healthy and labels flow.

        While other faults are on, only this one is taken back.

        Raises
        ------
        StackError
            When it could not be taken back, or the stack does not recover in time.
        """
        config = _given(config)
        self.restore(config)
        if not fault_state.active(config):
            health.wait_until_healthy(config, deadline_s=deadline_s, check=_find_unsettled)


def send(
    config: StackConfig, service: str, method: str, path: str, body: object = None
) -> dict[str, Any]:
    """Call a service of the stack; return the JSON it answers.

    Raises
    ------
    StackError
        When it does not answer, or refuses.
    """
    url = f"http://{LocalPlaces(config).address(service)}{path}"
    try:
        answer = ask(method, url, json=body, timeout_s=10)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise StackError(f"{service}: {method} {path} failed: {error}") from error
    content: dict[str, Any] = answer.json()
    return content


def wait_for(what: str, is_so: Callable[[], bool], *, deadline_s: float = 30.0) -> None:
    """Wait for a condition.

    Raises
    ------
    StackError
        When it is not so in time.
    """
    deadline = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > deadline:
            raise StackError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.1)


def wait_for_service(config: StackConfig, name: str) -> None:
    """Wait until a service answers its health check."""
    wait_for(f"{name} is healthy", lambda: health.is_healthy(config, SERVICES[name]))


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn an error of the store into a ``StackError`` that begins with ``what``."""
    try:
        yield
    except STORE_ERRORS as error:
        raise StackError(f"{what}: the store says {error}") from error


def _given(config: StackConfig | None) -> StackConfig:
    return config or load_config().remembered()


def _find_unsettled(config: StackConfig) -> dict[str, str]:
    wrong = health.find_unhealthy(config)
    if not wrong:
        lag = health.read_lag_minutes(config)
        if lag > _LAG_LIMIT_MINUTES:
            wrong["fulfillment-service"] = f"labels still wait, the oldest for {lag:.1f} minutes"
    return wrong


def _check_playground(config: StackConfig) -> None:
    declared = os.environ.get("RUNBOOK_ENVIRONMENT", "local")
    if declared not in ("local", "demo"):
        raise EnvironmentForbidsError(
            f"RUNBOOK_ENVIRONMENT is {declared!r}: faults are made in local or demo only"
        )
    if not Supervisor(config).is_running():
        raise StackError(f"no stack runs in {config.home}: runbook stack up")
    if "store_down" in fault_state.active(config):
        return  # the marker was read when the store was taken down
    try:
        marked = object_store.read_marker(config)
    except STORE_ERRORS as error:
        raise EnvironmentForbidsError(
            f"the bucket's marker {object_store.MARKER_KEY} cannot be read: {error}"
        ) from error
    if marked not in ("local", "demo"):
        raise EnvironmentForbidsError(f"the bucket's marker says {marked!r}, not local or demo")
