"""`runbook serve` beside the local stack: its address, its settings, its command."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from .config import StackConfig
from .places import LocalPlaces, build_env
from .supervisor import MARK, Program
from .web import ask

__all__ = ["NAME", "PORT", "can_serve", "is_serving", "make_program", "serve_address"]

NAME = "runbook-serve"
_MODULE = "alerting"
#: The modules that `runbook serve` needs. The extra ``serve`` installs them.
_NEEDED = ("apprise", "dbos", _MODULE)
PORT = 8115


def can_serve() -> bool:
    """Tell whether the extra ``serve`` is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


def serve_address(config: StackConfig) -> str:
    """Return where `runbook serve` listens."""
    return f"127.0.0.1:{PORT + config.port_base}"


def is_serving(config: StackConfig) -> bool:
    """Tell whether the health check of `runbook serve` passes."""
    try:
        return ask("GET", f"http://{serve_address(config)}/health", timeout_s=2).ok
    except OSError:
        return False


def make_program(config: StackConfig, *, group: str) -> Program:
    """Return the program of `runbook serve`; write the file of its targets.

    The program has a low priority, so that a drill on two cores takes no longer than without it.
    """
    places = LocalPlaces(config)
    sink = f"json://{places.address('notification-sink')}"
    mail = f"mailto://{places.address('notification-sink:smtp')}?mode=insecure"
    # The sink reads a message in the field that Slack names `text`.
    targets = [
        f"{sink}/slack/reports?:message=text",
        f"{sink}/teams/reports?:message=text",
        f"{mail}&from=runbook@dataflow.local&to=oncall@dataflow.local",
    ]
    environment = {
        **build_env(config),
        "SERVE_TARGETS_FILE": _write(config.run / "serve_targets", "\n".join(targets)),
        "RUNBOOK_HOME": str(config.runbook_home),
        "SERVE_ADDRESS": serve_address(config),
        MARK: str(config.home),
    }
    command = ["nice", "-n", "10", sys.executable, "-m", _MODULE]
    return Program(NAME, command, environment, 60, group=group)


def _write(path: Path, text: str) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return str(path)
