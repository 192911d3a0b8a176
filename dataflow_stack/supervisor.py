"""The supervisor: its configuration, and talking to it over its unix socket."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import xmlrpc.client
from configparser import ConfigParser
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from .config import StackConfig, StackError

__all__ = ["MARK", "Program", "Supervisor", "write_conf"]

#: The variable that every process of a stack carries; its value is the stack's home.
MARK = "DATAFLOW_STACK_PROCESS_OF"

_KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
# Codes of the supervisor's XML-RPC faults.
_ALREADY_STOPPED, _ALREADY_STARTED = 70, 60
#: Longer paths do not fit into a socket's address (104 bytes on macOS).
_SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Program:
    """One program under the supervisor."""

    name: str
    command: list[str]
    environment: dict[str, str]
    priority: int
    autostart: bool = True
    group: str = ""


def write_conf(config: StackConfig, programs: list[Program]) -> None:
    """Write the supervisor's configuration; it holds secrets, so only its owner may read it."""
    conf = ConfigParser(interpolation=None)
    conf["unix_http_server"] = {"file": str(_socket_path(config.home)), "chmod": "0700"}
    conf["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    conf["supervisorctl"] = {"serverurl": f"unix://{_socket_path(config.home)}"}
    conf["supervisord"] = {
        "logfile": str(config.logs / "supervisord.log"),
        "logfile_maxbytes": "5MB",
        "pidfile": str(config.home / "supervisord.pid"),
        "childlogdir": str(config.logs),
        "directory": str(config.home),
        "identifier": "dataflow-stack",
    }
    for program in programs:
        variables = ",".join(f'{k}="{v}"' for k, v in sorted(program.environment.items()))
        conf[f"program:{program.name}"] = {
            "command": _escape(shlex.join(program.command)),
            "environment": _escape(variables),
            "directory": str(config.home),
            "priority": str(program.priority),
            "autostart": "true" if program.autostart else "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "3",
            "stopwaitsecs": "5",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _escape(str(config.logs / f"{program.name}.log")),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "3",
        }
    groups: dict[str, list[str]] = {}
    for program in programs:
        if program.group:
            groups.setdefault(program.group, []).append(program.name)
    for group, names in groups.items():
        conf[f"group:{group}"] = {"programs": ",".join(names)}
    descriptor = os.open(config.conf, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        conf.write(file)


class Supervisor:
    """The supervisor of one stack."""

    def __init__(self, config: StackConfig) -> None:
        self._config = config
        self._socket = _socket_path(config.home)

    def is_running(self) -> bool:
        """Tell whether the supervisor answers."""
        try:
            self._call("getState")
        except StackError:
            return False
        return True

    def launch(self) -> None:
        """Start the supervisor as a daemon, with an environment that holds nothing foreign.

        Raises
        ------
        StackError
            When it does not start.
        """
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config.conf)],
            env={**kept, MARK: str(self._config.home), "PYTHONUNBUFFERED": "1"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            raise StackError(f"supervisord did not start: {(done.stdout + done.stderr)[-1000:]}")

    def programs(self) -> dict[str, dict[str, Any]]:
        """Return each program's ``statename``, ``pid``, ``start`` and ``now``."""
        return {str(item["name"]): item for item in self._call("getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Start a program; one that runs already is left alone."""
        self._call("startProcess", name, False, tolerated=_ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Stop a program and wait until it ended; one that is down already is left alone."""
        self._call("stopProcess", name, True, tolerated=_ALREADY_STOPPED)

    def restart(self, name: str) -> None:
        """Stop and start a program."""
        self.stop(name)
        self.start(name)

    def reload(self, name: str) -> None:
        """Let a program read its configuration again; one that is down will when it starts."""
        self._call("signalProcess", name, "HUP", tolerated=_ALREADY_STOPPED)

    def update(self) -> list[str]:
        """Take over a changed configuration; return the programs that were added or restarted."""
        added, changed, removed = self._call("reloadConfig")[0]
        for name in (*removed, *changed):
            self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("addProcessGroup", name)
        return [*changed, *added]

    def shut_down(self) -> None:
        """Stop all programs at once, then the supervisor."""
        # By itself the supervisor stops one program after the other, a second for each.
        self._call("stopAllProcesses", False)
        self._call("shutdown")

    def _call(self, method: str, *arguments: object, tolerated: int = 0) -> Any:
        proxy = xmlrpc.client.ServerProxy(
            "http://127.0.0.1",
            transport=SupervisorTransport(None, None, serverurl=f"unix://{self._socket}"),
        )
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if tolerated and fault.faultCode == tolerated:
                return None
            raise StackError(f"supervisor refused {method}: {fault.faultString}") from None
        except (OSError, HTTPException, xmlrpc.client.Error) as error:
            raise StackError(f"the supervisor of {self._config.home} does not answer") from error
        finally:
            proxy("close")()


def _socket_path(home: Path) -> Path:
    path = home / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"dataflow-stack-{digest}.sock"


def _escape(text: str) -> str:
    # The supervisor expands %(name)s in these values.
    return text.replace("%", "%%")
