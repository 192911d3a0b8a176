"""Ports and processes of this machine: who holds what, and who is left."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

from . import reporter
from .config import PortTakenError, StackConfig, StackError
from .supervisor import MARK
from .topology import SERVICES

__all__ = ["check_ports", "end_processes", "find_processes"]

#: By how much the message proposes to shift the ports when one is taken.
_SHIFT = 1000


def check_ports(config: StackConfig) -> None:
    """Make sure that every port of the stack is free.

    Raises
    ------
    PortTakenError
        Names the first port that is not, what wants it, and the setting that shifts them all.
    """
    ports = {
        default + config.port_base: service.name
        for service in SERVICES.values()
        for default in service.ports
    }
    if config.serves:
        ports[int(reporter.serve_address(config).rpartition(":")[2])] = reporter.NAME
    for port, name in ports.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise PortTakenError(
                    f"port {port} for {name} is taken by another process. Stop it, or shift all"
                    " ports of the stack:\n\n"
                    f"  RUNBOOK_STACK_PORT_BASE={config.port_base + _SHIFT} runbook stack up\n"
                ) from error


def find_processes(home: Path) -> list[psutil.Process]:
    """Return the processes of the stack in this folder."""
    home, found = home.resolve(), []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            marked = process.environ().get(MARK) == str(home)
            # The gateway wipes its own environment; its working folder tells whose it is.
            gateway = process.name() == "juicefs" and process.cwd() == str(home)
            if marked or gateway:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # gone, or another user's: not ours in either case
    return found


def end_processes(home: Path, *, grace_s: float = 0.0, patience_s: float = 5.0) -> None:
    """End what is left of a stack: wait, then ask, then kill.

    Parameters
    ----------
    home
        The stack's folder.
    grace_s
        How long to wait for processes that were told to end already.
    patience_s
        How long to wait after asking, and after killing.

    Raises
    ------
    StackError
        When a process is left all the same; names it.
    """
    if _all_gone(home, grace_s):
        return
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in find_processes(home):
            with suppress(psutil.NoSuchProcess):
                end(process)
        if _all_gone(home, patience_s):
            return
    names = ", ".join(f"{p.pid} ({p.name()})" for p in find_processes(home))
    raise StackError(f"processes of the stack are left: {names}")


def _all_gone(home: Path, wait_s: float) -> bool:
    # Looks anew each time: a process that is about to end may still have started others.
    deadline = time.monotonic() + wait_s
    while find_processes(home):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
