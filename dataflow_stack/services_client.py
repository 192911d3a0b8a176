"""The back end ``RUNBOOK_SERVICES=supervisor``: services of the local environment.

It asks supervisor through the socket that ``supervisord.conf`` in ``RUNBOOK_STACK_HOME`` names.
``runbook_lib`` finds this back end by its entry point.
"""

from __future__ import annotations

import configparser
import http.client
import os
import shlex
import socket
import xmlrpc.client
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from fulfillment.clients.services import (
    MAX_LOG_BYTES,
    LogLine,
    ServiceState,
    Verb,
    make_unknown_service_error,
    select_lines,
)
from fulfillment.settings import Settings
from runbook_lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
)

__all__ = ["SupervisorServices"]

_CHANGE_TIMEOUT_S = 60.0
_STORE_NAMES = ("MINIO_", "FULFILLMENT_BUCKET", "PENDING_PREFIX", "READY_PREFIX", "CHAOS_PREFIX")
# Codes of supervisor's XML-RPC faults; see its documentation, "XML-RPC API".
_BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING = 10, 60, 70


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a time-out (supervisor's own transport has none)."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path, self._timeout_s = path, timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        # Kept where the transport looks for what it has to close.
        connection = _UnixConnection(self._path, self._timeout_s)
        self._connection = host, connection
        return connection


class SupervisorServices:
    """The supervisor back end; see ``ServicesClient``.

    Parameters
    ----------
    settings : ``runbook_stack_home``, ``http_timeout_s`` and the secrets to hide
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.runbook_stack_home.resolve()

    def list_services(self) -> list[ServiceState]:
        """Return every service, by name."""
        return sorted(map(_state, self._infos().values()), key=lambda state: state.name)

    def read_logs(self, name: str, *, since: datetime) -> list[LogLine]:
        """Return a service's last lines since a time, oldest first, rotated files too."""
        info = self._info(name)
        lines: list[LogLine] = []
        for field in ("stdout_logfile", "stderr_logfile"):
            if info.get(field):
                text = self._read_tail(Path(info[field]), since)
                lines += select_lines(text.splitlines(), since=since)
        return lines

    def change(self, name: str, verb: Verb) -> None:
        """Stop a service, start it, or both, and wait until that is done."""
        if verb != "start":
            self._change("stopProcess", name, fine=_NOT_RUNNING)
        if verb != "stop":
            self._change("startProcess", name, fine=_ALREADY_STARTED)

    def read_effective_settings(self, name: str) -> dict[str, str]:
        """Return the variables that supervisor sets, and those of the store.

        The values are those of the running process, else those that it would be started with.
        """
        info = self._info(name)
        declared = self._read_declared(name)
        if not info["pid"]:
            return declared
        actual = _read_environment(int(info["pid"]))
        if not actual:  # it ends just now, or has not begun
            return declared
        wanted = {*declared, *(n for n in actual if n.startswith(_STORE_NAMES))}
        return {n: actual.get(n, "") for n in wanted}

    def _infos(self) -> dict[str, dict[str, Any]]:
        found = self._call("getAllProcessInfo")
        # What is in a group of its own serves the environment, and is no service of DataFlow.
        return {str(i["name"]): i for i in found if i.get("group", i["name"]) == i["name"]}

    def _info(self, name: str) -> dict[str, Any]:
        infos = self._infos()
        if name not in infos:
            raise make_unknown_service_error(name, infos)
        return infos[name]

    def _change(self, method: str, name: str, *, fine: int) -> None:
        info = self._info(name)
        full = f"{info['group']}:{info['name']}"
        try:
            self._call(method, full, timeout_s=_CHANGE_TIMEOUT_S)
        except _FaultError as error:
            if error.code != fine:
                raise BadAnswerError(
                    f"{method} {name}: {error.text}. Its log says why: runbook stack logs {name}",
                    system="services",
                ) from error

    def _call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        path = self._socket_path()
        limit_s = timeout_s or self._settings.http_timeout_s
        transport = _UnixTransport(path, limit_s)
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*args)
        except xmlrpc.client.Fault as error:
            raise _FaultError(error) from error
        except TimeoutError as error:
            raise ClientTimeoutError(
                f"supervisor did not answer {method} within {limit_s:g} s", system="services"
            ) from error
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ValueError) as error:
            raise ConnectionRefusedClientError(
                f"supervisor cannot be reached at {path} ({type(error).__name__}). Is the local "
                "environment up (runbook stack up), and RUNBOOK_STACK_HOME right?",
                system="services",
            ) from error

    def _read_tail(self, path: Path, since: datetime) -> str:
        """Return the end of a log and of its rotated files, as far as they are new enough."""
        blocks: list[bytes] = []
        left, number = MAX_LOG_BYTES, 0
        while left > 0 and path.is_file():
            try:
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_mtime < since.timestamp():
                        break
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - left))
                    block = file.read(left)
            except OSError as error:
                raise AccessDeniedError(
                    f"{path} cannot be read: {error.strerror}", system="services"
                ) from error
            blocks.append(block if size <= left else block.partition(b"\n")[2])
            left -= len(block)
            base = path if number == 0 else path.with_suffix("")
            number += 1
            path = base.with_name(f"{base.name}.{number}")
        return b"".join(reversed(blocks)).decode("utf-8", "replace")

    def _read_declared(self, name: str) -> dict[str, str]:
        text = self._read_conf().get(f"program:{name}", "environment", fallback="")
        lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
        lexer.whitespace_split = True
        try:
            pairs = [token.partition("=") for token in lexer if token.strip(",")]
        except ValueError as error:
            raise BadAnswerError(
                f"the environment of {name} in supervisord.conf is malformed", system="services"
            ) from error
        return {key.strip(): value.replace("%%", "%") for key, _, value in pairs}

    def _socket_path(self) -> str:
        # The stack puts the socket elsewhere when the folder's path is too long for one.
        default = str(self._home / "supervisor.sock")
        return self._read_conf().get("unix_http_server", "file", fallback=default)

    def _read_conf(self) -> configparser.RawConfigParser:
        conf = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(" ;",))
        path = self._home / "supervisord.conf"
        try:
            conf.read_string(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConnectionRefusedClientError(
                f"{path} does not exist. Is the local environment up (runbook stack up), and "
                "RUNBOOK_STACK_HOME right?",
                system="services",
            ) from error
        except (OSError, ValueError, configparser.Error) as error:
            # Neither message may quote the file: it holds secrets.
            raise BadAnswerError(
                f"{path} cannot be read ({type(error).__name__})", system="services"
            ) from None
        return conf


class _FaultError(BadAnswerError):
    def __init__(self, fault: xmlrpc.client.Fault) -> None:
        super().__init__(f"supervisor: {fault.faultString}", system="services")
        self.code, self.text = fault.faultCode, fault.faultString


def _state(info: dict[str, Any]) -> ServiceState:
    running = info["statename"] == "RUNNING"
    began = info["start"] if info["statename"] in ("RUNNING", "STARTING") else info["stop"]
    return ServiceState(
        name=str(info["name"]),
        running=running,
        state=str(info["statename"]),
        since=datetime.fromtimestamp(began, UTC) if began else None,
        exit_code=None if running or not info["stop"] else int(info["exitstatus"]),
    )


def _read_environment(pid: int) -> dict[str, str]:
    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError) as error:
        raise AccessDeniedError(
            f"the environment of process {pid} cannot be read ({type(error).__name__})",
            system="services",
        ) from error
