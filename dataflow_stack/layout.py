"""Writes a stack's folder: programs, rendered configuration, overrides of faults."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

from addons.render import render_configs
from runbook_lib.record.incident import write_file

from . import reporter
from .config import StackConfig, read_kept
from .places import LocalPlaces, build_render_env
from .programs import build_command, uses_minio
from .supervisor import MARK, Program, write_conf
from .topology import SERVICES

__all__ = ["LOCK_HOLDER", "read_overrides", "write_layout", "write_overrides"]

#: The group of the programs that serve the environment itself. DataFlow's services are in no group.
_TOOLS = "stack-tools"
#: The program of the fault `worker_stuck`.
LOCK_HOLDER = f"{_TOOLS}:lock-holder"

Overrides = dict[str, dict[str, str]]


def read_overrides(config: StackConfig) -> Overrides:
    """Return the variables that faults have changed, by service."""
    return read_kept(_overrides_file(config), Overrides, {})


def write_overrides(config: StackConfig, overrides: Overrides) -> None:
    """Keep the variables that faults have changed; they hold until they are taken back."""
    write_file(_overrides_file(config), json.dumps(overrides, indent=1) + "\n")


def write_layout(config: StackConfig, *, owner_pid: int | None = None) -> bool:
    """Write everything that the supervisor and its programs read.

    Parameters
    ----------
    config
        The stack.
    owner_pid
        A process with which the stack ends. None: the one that an earlier call named stays.

    Returns
    -------
    bool
        Whether the configuration of Prometheus or Alertmanager is another than before.
    """
    for folder in (config.logs, config.data, config.run):
        folder.mkdir(parents=True, exist_ok=True)
    config.home.chmod(0o700)
    changed = False
    serve_address = reporter.serve_address(config) if config.serves else ""
    environment = build_render_env(config, serve_address=serve_address)
    for path, text in render_configs(config.profile, environment).items():
        file = config.run / path
        file.parent.mkdir(parents=True, exist_ok=True)
        changed = changed or not file.exists() or file.read_text() != text
        file.write_text(text)
    programs = [*_services(config), *_owner_watch(config, owner_pid), _lock_holder(config)]
    if config.serves:
        programs.append(reporter.make_program(config, group=_TOOLS))
    write_conf(config, programs)
    return changed


def _services(config: StackConfig) -> list[Program]:
    places, overrides = LocalPlaces(config), read_overrides(config)
    return [
        Program(
            name=service.name,
            command=build_command(config, service),
            environment={
                **service.environment(places),
                **_local_only(config, service.name),
                **overrides.get(service.name, {}),
                MARK: str(config.home),
            },
            priority=service.priority,
            # `local.up` starts Prometheus once the services that it watches answer.
            autostart=service.name != "prometheus",
        )
        for service in SERVICES.values()
    ]


def _local_only(config: StackConfig, name: str) -> dict[str, str]:
    # MinIO's console would listen on all interfaces.
    return {"MINIO_BROWSER": "off"} if name == "minio" and uses_minio(config) else {}


def _owner_watch(config: StackConfig, owner_pid: int | None) -> list[Program]:
    file = config.run / "owner.json"
    if owner_pid is not None:
        started = psutil.Process(owner_pid).create_time()
        file.write_text(json.dumps({"pid": owner_pid, "started": started}))
    if not file.exists():
        return []
    command = [sys.executable, "-m", "dataflow_stack.owner_watch", os.fspath(file)]
    return [Program("owner-watch", command, {MARK: str(config.home)}, 5, group=_TOOLS)]


def _lock_holder(config: StackConfig) -> Program:
    lock, held = LocalPlaces(config).run("worker.lock"), LocalPlaces(config).run("worker.lock.held")
    command = [sys.executable, "-m", "dataflow_stack.faults.lock_holder", lock, held]
    return Program(
        LOCK_HOLDER.removeprefix(f"{_TOOLS}:"),
        command,
        {MARK: str(config.home)},
        90,
        autostart=False,
        group=_TOOLS,
    )


def _overrides_file(config: StackConfig) -> Path:
    return config.home / "overrides.json"
