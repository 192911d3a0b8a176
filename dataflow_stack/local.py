"""The local stack: start, stop, ask. The command line and tests use these functions."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from runbook_lib.errors import SettingsError

from . import faults, health, layout, object_store, reporter
from .config import Profile, StackConfig, StackError, load_config
from .places import LocalPlaces, build_env
from .processes import check_ports, end_processes, find_processes
from .store_client import STORE_ERRORS
from .supervisor import Supervisor
from .topology import SERVICES

__all__ = ["down", "env", "logs", "restart", "start_services", "status", "up"]

_STORE_DEADLINE_S = 20.0
_SHUTDOWN_GRACE_S = 10.0


def up(
    *,
    home: Path | None = None,
    port_base: int | None = None,
    profile: Profile | None = None,
    deadline_s: float = 60.0,
    owner_pid: int | None = None,
    serves: bool | None = None,
) -> dict[str, str]:
    """Start the stack, or complete one that runs, and wait until all of it is healthy.

    Faults that are still on are turned off.

    Parameters
    ----------
    home, port_base
        Where it lives; default ``RUNBOOK_STACK_HOME`` and ``RUNBOOK_STACK_PORT_BASE``.
    profile
        The times of rules and routes: ``demo`` (seconds), ``rehearsal``, or ``production``
        (minutes). Default: ``demo``, or what a running stack has.
    deadline_s
        The longest wait.
    owner_pid
        A process with which the stack ends. None: no other than the one that it had already.
    serves
        Whether `runbook serve` runs beside it and gets the alerts; default: where its extra is
        installed, or what a running stack has.

    Returns
    -------
    dict
        As `env`.

    Raises
    ------
    PortTakenError
        When another process holds a port.
    StackError
        When a service does not become healthy; shows its last log lines.
    """
    wanted = load_config(home, port_base)
    wanted.home.mkdir(parents=True, exist_ok=True)
    with FileLock(wanted.home / "up.lock", timeout=deadline_s):
        supervisor = Supervisor(wanted)
        if supervisor.is_running():
            config = _adopt(wanted, profile, explicit=port_base is not None)
            if serves is not None:
                config = replace(config, serves=serves)
            config.save()
            changed = layout.write_layout(config, owner_pid=owner_pid)
            supervisor.update()
            if changed:
                for name in ("prometheus", "alertmanager"):
                    supervisor.reload(name)
        else:
            starts = reporter.can_serve() if serves is None else serves
            config = replace(wanted.with_profile(profile), serves=starts)
            end_processes(config.home)
            check_ports(config)
            config.save()
            # The owner of an earlier run is of no concern to this one.
            (config.run / "owner.json").unlink(missing_ok=True)
            layout.write_layout(config, owner_pid=owner_pid)
            object_store.prepare_volume(config)
            supervisor.launch()
        _complete(config, supervisor, deadline_s)
    settings, file = build_env(config), config.home / ".env"
    file.touch(0o600)
    # what is started in this folder, such as a drill by cron, reads it
    file.write_text("".join(f"{name}='{value}'\n" for name, value in sorted(settings.items())))
    return settings


def down(*, home: Path | None = None) -> None:
    """Stop the stack and make sure that no process of it is left; its data stays.

    Raises
    ------
    StackError
        When a process cannot be ended.
    """
    config = load_config(home).remembered()
    supervisor = Supervisor(config)
    running = supervisor.is_running()
    if running:
        faults.turn_off_all(config, for_shutdown=True)
        supervisor.shut_down()
    end_processes(config.home, grace_s=_SHUTDOWN_GRACE_S if running else 0)
    (config.run / "owner.json").unlink(missing_ok=True)


def env(*, home: Path | None = None) -> dict[str, str]:
    """Return every endpoint and credential of the stack, by the name of its setting."""
    return build_env(_current(home))


def status(*, home: Path | None = None) -> dict[str, Any]:
    """Return what runs: per service its state, process, port, health; and faults that are on."""
    config = _current(home)
    supervisor = Supervisor(config)
    running = supervisor.is_running()
    programs = supervisor.programs() if running else {}
    services = []
    for service in SERVICES.values():
        info = programs.get(service.name, {})
        up_now = info.get("statename") == "RUNNING"
        services.append(
            {
                "name": service.name,
                "state": info.get("statename", "STOPPED"),
                "pid": info.get("pid") or None,
                "port": service.ports[0] + config.port_base,
                "url": f"http://{LocalPlaces(config).address(service.name)}",
                "healthy": running and health.is_healthy(config, service),
                "uptime_s": max(0, info["now"] - info["start"]) if up_now else None,
            }
        )
    if config.serves:
        services.append(_describe_reporter(config, programs))
    return {
        "running": running,
        "home": str(config.home),
        "profile": config.profile,
        "port_base": config.port_base,
        "healthy": all(service["healthy"] for service in services),
        "services": services,
        "faults": faults.list_on(config) if running else [],
        "processes": len(find_processes(config.home)),
    }


def _describe_reporter(config: StackConfig, programs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    info = programs.get(reporter.NAME, {})
    up_now = info.get("statename") == "RUNNING"
    address = reporter.serve_address(config)
    return {
        "name": reporter.NAME,
        "state": info.get("statename", "STOPPED"),
        "pid": info.get("pid") or None,
        "port": int(address.rpartition(":")[2]),
        "url": f"http://{address}",
        "healthy": up_now and reporter.is_serving(config),
        "uptime_s": max(0, info["now"] - info["start"]) if up_now else None,
    }


def logs(service: str, *, lines: int = 100, home: Path | None = None) -> list[str]:
    """Return the last lines of a service's log."""
    config = load_config(home).remembered()
    if service != reporter.NAME:
        config = _with_service(service, home)
    return health.log_tail(config, service, lines)


def restart(service: str, *, home: Path | None = None, deadline_s: float = 30.0) -> None:
    """Restart a service and wait until its health check passes.

    Raises
    ------
    StackError
        When the stack is down, or the service does not come back.
    """
    config = _with_service(service, home)
    Supervisor(config).restart(service)
    health.wait_until_healthy(config, deadline_s=deadline_s, check=_only(service))


def _current(home: Path | None) -> StackConfig:
    """Return the stack as it runs; while it is down, as it would start now."""
    config = load_config(home)
    return config.remembered() if Supervisor(config).is_running() else config


def _only(name: str) -> health.Check:
    def check(config: StackConfig) -> dict[str, str]:
        service = SERVICES[name]
        return {} if health.is_healthy(config, service) else {name: "no answer"}

    return check


def _find_silent_reporter(config: StackConfig) -> dict[str, str]:
    return {} if reporter.is_serving(config) else {reporter.NAME: "no answer from /health"}


def _seed(config: StackConfig) -> dict[str, str]:
    """Make the bucket and its marker; return what prevents it, as a health check does."""
    # The gateway calls itself alive a moment before it takes requests.
    try:
        object_store.seed_bucket(config)
    except STORE_ERRORS as error:
        return {"minio": f"the bucket cannot be made: {error}"}
    return {}


def _with_service(name: str, home: Path | None) -> StackConfig:
    if name not in SERVICES:
        raise SettingsError(f"no service {name!r}; there are: {', '.join(SERVICES)}")
    return load_config(home).remembered()


def _adopt(wanted: StackConfig, profile: Profile | None, *, explicit: bool) -> StackConfig:
    """Return the running stack, with another profile if one is given.

    Refuses a port base that was asked for explicitly and is not that of the running stack.
    """
    running = wanted.remembered()
    if explicit and running.port_base != wanted.port_base:
        raise SettingsError(
            f"the stack in {wanted.home} runs with port base {running.port_base};"
            " stop it first: runbook stack down"
        )
    return running.with_profile(profile)


def start_services(*, home: Path | None = None) -> None:
    """Start every stopped service of a running stack; faults stay as they are.

    Raises
    ------
    StackError
        When the stack is down.
    """
    config = load_config(home).remembered()
    _start_stopped(Supervisor(config), set(SERVICES))


def _start_stopped(supervisor: Supervisor, names: Collection[str]) -> None:
    for name, info in supervisor.programs().items():
        if name in names and info["statename"] not in ("RUNNING", "STARTING", "BACKOFF"):
            supervisor.start(name)


def _complete(config: StackConfig, supervisor: Supervisor, deadline_s: float) -> None:
    """Start what is stopped, turn every fault off, and wait until all is healthy."""
    started = time.monotonic()
    _start_stopped(supervisor, set(SERVICES) - {"prometheus"})
    health.wait_until_healthy(config, deadline_s=deadline_s, check=_only("minio"))
    health.wait_until_healthy(config, deadline_s=_STORE_DEADLINE_S, check=_seed)
    faults.turn_off_all(config)
    try:
        # A slow start pages nobody: what is watched answers before the watcher starts.
        left_s = max(1.0, deadline_s - (time.monotonic() - started))
        health.wait_until_healthy(config, deadline_s=left_s, check=health.find_unwatched)
        supervisor.start("prometheus")
        left_s = max(1.0, deadline_s - (time.monotonic() - started))
        health.wait_until_healthy(config, deadline_s=left_s)
        if config.serves:
            left_s = max(1.0, deadline_s - (time.monotonic() - started))
            health.wait_until_healthy(config, deadline_s=left_s, check=_find_silent_reporter)
    except StackError as error:
        raise StackError(f"{error}\nAll logs are in {config.logs}.") from None
