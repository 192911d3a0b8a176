"""Run a command beside a real Airflow on loopback, then stop exactly what was started.

Usage: ``serve.py HOME COMMAND [ARGUMENT…]``. ``HOME/venv`` holds Airflow; ``HOME/run`` is made
anew, and removed again when the command succeeded. The command finds in its environment

- ``AIRFLOW_TEST_URL``: an API server where everyone is administrator
- ``AIRFLOW_TEST_LOGIN_URL``: one on the same database that asks for user and password
- ``AIRFLOW_TEST_USER``, ``AIRFLOW_TEST_PASSWORD``: the one user whom it knows
- ``AIRFLOW_TEST_DAGS``: the folder of DAGs, a copy that may be broken
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests
from filelock import FileLock, Timeout

__all__ = ["main"]

_DAGS = Path(__file__).resolve().parents[2] / "docker" / "airflow" / "dags"
_USER = "runbook"
_START_S, _STOP_S = 180.0, 30.0
_LOGIN = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    # Tokens that run out while a test looks on.
    "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": "5",
    "AIRFLOW__API_AUTH__JWT_LEEWAY": "0",
}


def main(arguments: list[str]) -> int:
    """Start Airflow, run the command, stop; return the command's exit code."""
    home, command = Path(arguments[0]).resolve(), arguments[1:]
    # Without this a plain kill would leave Airflow's processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = home / "run"
    try:
        lock = FileLock(home / "lock").acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"Another Airflow runs in {home}; set AIRFLOW_TEST_HOME\n")
        return 2
    with lock:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(_DAGS, run / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        with _airflow(home, run) as given:
            # In this process's group, so that Ctrl-C reaches it as well.
            code = subprocess.run(command, env={**os.environ, **given}, check=False).returncode
    if code == 0:
        shutil.rmtree(run)
    else:
        sys.stderr.write(f"Airflow's logs are kept: {run}\n")
    return code


@contextmanager
def _airflow(home: Path, run: Path) -> Iterator[dict[str, str]]:
    ports = _choose_ports(3)
    url, login_url, tasks_url = (f"http://127.0.0.1:{port}" for port in ports)
    password = secrets.token_urlsafe(16)
    (run / "passwords.json").write_text(json.dumps({_USER: password}), encoding="utf-8")
    env = _build_env(home, run, tasks_url)
    login_env = {**env, **_LOGIN}
    airflow = str(home / "venv" / "bin" / "airflow")
    server = ("api-server", "--host", "127.0.0.1", "--workers", "1", "--apps")
    servers: list[subprocess.Popen[bytes]] = []
    workers: list[subprocess.Popen[bytes]] = []

    def start(
        started: list[subprocess.Popen[bytes]], name: str, *command: str, env: dict[str, str] = env
    ) -> None:
        with (run / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [airflow, *command], env=env, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)

    try:
        start(workers, "migrate", "db", "migrate")
        if workers[0].wait(_START_S) != 0:
            raise SystemExit(f"the database was not made; see {run / 'migrate.log'}")
        workers.clear()
        # Not `airflow standalone`: its log servers listen on all interfaces, and its scheduler
        # starts a run before the API server can answer the task, which then fails.
        start(servers, "api-server", *server, "core", "--port", str(ports[0]))
        start(servers, "api-server-login", *server, "core", "--port", str(ports[1]), env=login_env)
        # Apart: on SQLite a request that waits for the lock stops its whole server, and with it
        # a task's request that holds the lock.
        start(servers, "api-server-tasks", *server, "execution", "--port", str(ports[2]))
        _wait_until(lambda: _is_healthy(url) and _is_healthy(login_url), servers)
        _wait_until(lambda: _answers(f"{tasks_url}/execution/health"), servers)
        start(workers, "scheduler", "scheduler", "--skip-serve-logs")
        start(workers, "dag-processor", "dag-processor")
        _wait_until(lambda: _is_healthy(url, "scheduler", "dag_processor"), servers + workers)
        yield {
            "AIRFLOW_TEST_URL": url,
            "AIRFLOW_TEST_LOGIN_URL": login_url,
            "AIRFLOW_TEST_USER": _USER,
            "AIRFLOW_TEST_PASSWORD": password,
            "AIRFLOW_TEST_DAGS": str(run / "dags"),
        }
    finally:
        # A task that runs ends only while its server answers.
        _stop(workers)
        _stop(servers)


def _choose_ports(count: int) -> list[int]:
    """Return ports: from AIRFLOW_TEST_PORT on, else free ones."""
    if wanted := os.environ.get("AIRFLOW_TEST_PORT"):
        return list(range(int(wanted), int(wanted) + count))
    with ExitStack() as held:
        doors = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(door.getsockname()[1]) for door in doors]


def _build_env(home: Path, run: Path, tasks_url: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL_ENV"))
    }
    options = {
        "CORE__DAGS_FOLDER": run / "dags",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTION_API_SERVER_URL": f"{tasks_url}/execution/",
        "CORE__PARALLELISM": 2,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:user",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": run / "passwords.json",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{run / 'airflow.db'}?timeout=30",
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        # A changed DAG file is seen within seconds.
        "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": 1,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 1,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 1,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
    }
    return {
        **inherited,
        "PATH": f"{home / 'venv' / 'bin'}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(run),
        **{f"AIRFLOW__{name}": str(value) for name, value in options.items()},
    }


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    """Ask each process's group to end, together; kill what remains of them."""
    for process in started:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"killed: process {process.pid} did not end in {_STOP_S:.0f} s\n")
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # The whole group has ended already.
        os.killpg(process.pid, number)


def _wait_until(is_true: Callable[[], bool], started: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_S
    while not is_true():
        if any(process.poll() is not None for process in started):
            raise SystemExit("a process of Airflow ended early; see the logs in its folder run/")
        if time.monotonic() > deadline:
            raise SystemExit(f"Airflow was not healthy within {_START_S:.0f} s; see its logs")
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _is_healthy(url: str, *parts: str) -> bool:
    health = f"{url}/api/v2/monitor/health"
    if not _answers(health):
        return False
    found = requests.get(health, timeout=5).json()
    return all(found[part]["status"] == "healthy" for part in ("metadatabase", *parts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
