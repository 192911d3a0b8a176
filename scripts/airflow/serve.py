"""Run a command beside a real Airflow on loopback, then stop exactly what was started.

Usage: ``serve.py HOME COMMAND [ARGUMENT…]``. ``HOME/venv`` holds Airflow; ``HOME/run`` is made
anew, and removed again when the command succeeded. The command finds in its environment

- ``AIRFLOW_TEST_URL``: an API server where everyone is administrator
- ``AIRFLOW_TEST_LOGIN_URL``: one on the same database that asks for user and password
- ``AIRFLOW_TEST_USER``, ``AIRFLOW_TEST_PASSWORD``: a user whom it knows
- ``AIRFLOW_TEST_APPROVERS``, ``AIRFLOW_TEST_STRANGER``: those who may approve a release, and one
  who may not; they have the same password
- ``AIRFLOW_TEST_DAGS``: the folder of DAGs, a copy that may be broken
- ``AIRFLOW_TEST_RUNBOOK``: the folder in which tasks call ``runbook``; its ``.env`` is the tests'
- ``AIRFLOW_TEST_ALERTMANAGER``: the address at which tasks that fail look for an Alertmanager
- ``AIRFLOW_TEST_SCHEDULER``, ``AIRFLOW_TEST_SCHEDULER_LOG``: the process id of the scheduler, whose
  children carry out tasks, and its log

Airflow keeps its state in a PostgreSQL of its own, on loopback, that ends with it.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests
from filelock import FileLock, Timeout

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
_DAGS = (
    _ROOT / "docker" / "airflow" / "dags",
    _ROOT / "addons" / "airflow" / "dags",
    _ROOT / "tests" / "airflow" / "dags",
)
_USER = "runbook"
_APPROVERS = ("ann", "bob")
_STRANGER = "mallory"
_START_S, _STOP_S = 600.0, 30.0
#: After so long without a heartbeat the scheduler takes a task for dead.
_HEARTBEAT_S = 30
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
        for folder in _DAGS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(folder, run / "dags", ignore=ignored, dirs_exist_ok=True)
        (run / "runbook").mkdir()
        _write_kernel(run)
        with _postgres() as database, _airflow(home, run, database) as given:
            # In this process's group, so that Ctrl-C reaches it as well.
            code = subprocess.run(command, env={**os.environ, **given}, check=False).returncode
    if code == 0:
        shutil.rmtree(run)
    else:
        sys.stderr.write(f"Airflow's logs are kept: {run}\n")
    return code


@contextmanager
def _airflow(home: Path, run: Path, database: str) -> Iterator[dict[str, str]]:
    ports = _choose_ports(3)
    url, login_url, tasks_url = (f"http://127.0.0.1:{port}" for port in ports)
    password = secrets.token_urlsafe(16)
    passwords = dict.fromkeys((_USER, *_APPROVERS, _STRANGER), password)
    (run / "passwords.json").write_text(json.dumps(passwords), encoding="utf-8")
    (alertmanager_port,) = _choose_free_ports(1)
    alertmanager_url = f"http://127.0.0.1:{alertmanager_port}"
    env = _build_env(home, run, tasks_url, database)
    env["RUNBOOK_AIRFLOW_ALERTMANAGER"] = alertmanager_url
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
        # Apart, so that a test that asks much holds up no task's heartbeat.
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
            "AIRFLOW_TEST_APPROVERS": ",".join(_APPROVERS),
            "AIRFLOW_TEST_STRANGER": _STRANGER,
            "AIRFLOW_TEST_DAGS": str(run / "dags"),
            "AIRFLOW_TEST_RUNBOOK": str(run / "runbook"),
            "AIRFLOW_TEST_ALERTMANAGER": alertmanager_url,
            "AIRFLOW_TEST_SCHEDULER": str(workers[0].pid),
            "AIRFLOW_TEST_SCHEDULER_LOG": str(run / "scheduler.log"),
        }
    finally:
        # A task that runs ends only while its server answers.
        _stop(workers)
        _stop(servers)


@contextmanager
def _postgres() -> Iterator[str]:
    """Run PostgreSQL on loopback, as a user who is not root; yield Airflow's address of it."""
    programs = _find_postgres()
    # It refuses to run as root; Debian's package made this user for it.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="runbook-postgres-"))
    password = secrets.token_hex(16)
    (folder / "password").write_text(password, encoding="utf-8")
    if user is not None:
        shutil.chown(folder, user, user)
        shutil.chown(folder / "password", user, user)
    (port,) = _choose_free_ports(1)
    data = folder / "data"
    make = ("--username=airflow", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
    serve = ("-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories=")
    log_path = folder / "log"
    with log_path.open("wb") as log:
        subprocess.run(
            [programs / "initdb", f"--pgdata={data}", "--encoding=UTF8", "--locale=C", *make],
            user=user, group=user, cwd=folder, stdout=log, stderr=log, check=True,
        )  # fmt: skip
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *serve],
            user=user, group=user, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until(lambda: _listens(port), [process])
        yield f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
    finally:
        # SIGINT: end now, and close what is open.
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_S)
        shutil.rmtree(folder, ignore_errors=True)


def _find_postgres() -> Path:
    """Return the folder of PostgreSQL's programs, the newest where there are several."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise SystemExit("PostgreSQL is missing: install Debian's package postgresql")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _choose_ports(count: int) -> list[int]:
    """Return ports: from AIRFLOW_TEST_PORT on, else free ones."""
    if wanted := os.environ.get("AIRFLOW_TEST_PORT"):
        return list(range(int(wanted), int(wanted) + count))
    return _choose_free_ports(count)


def _choose_free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        doors = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(door.getsockname()[1]) for door in doors]


def _build_env(home: Path, run: Path, tasks_url: str, database: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL_ENV"))
    }
    users = [f"{user}:user" for user in (_USER, *_APPROVERS, _STRANGER)]
    options = {
        "CORE__DAGS_FOLDER": run / "dags",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTION_API_SERVER_URL": f"{tasks_url}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        # Four parts, and one more for each of them that is tried again.
        "CORE__PARALLELISM": 8,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(users),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": run / "passwords.json",
        "DATABASE__SQL_ALCHEMY_CONN": database,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": _HEARTBEAT_S,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 2,
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        # A changed DAG file is seen within seconds.
        "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": 1,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 1,
        # To read a DAG file costs a second or more of a core.
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
    }
    return {
        **inherited,
        "PATH": f"{home / 'venv' / 'bin'}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(run),
        "RUNBOOK_AIRFLOW_COMMAND": _find_runbook(),
        "RUNBOOK_AIRFLOW_FOLDER": str(run / "runbook"),
        "RUNBOOK_AIRFLOW_NOTEBOOKS": str(_ROOT / "notebooks"),
        "JUPYTER_PATH": str(run / "jupyter"),
        "RUNBOOK_AIRFLOW_APPROVERS": ",".join(_APPROVERS),
        "RUNBOOK_AIRFLOW_RETRY_S": "5",
        **{f"AIRFLOW__{name}": str(value) for name, value in options.items()},
    }


def _write_kernel(run: Path) -> None:
    """Write a kernelspec: papermill in Airflow's environment, and notebooks in the runbook's."""
    folder = run / "jupyter" / "kernels" / "runbook"
    folder.mkdir(parents=True)
    python = [f"PYTHONPATH={_ROOT}", sys.executable, "-m", "ipykernel_launcher"]
    kernel = {
        "argv": ["env", "-C", str(run / "runbook"), *python, "-f", "{connection_file}"],
        "display_name": "runbook",
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")


def _find_runbook() -> str:
    """Return the command line that calls this checkout's ``runbook`` in its own environment."""
    program = Path(sys.executable).with_name("runbook")
    return shlex.join(["env", f"PYTHONPATH={_ROOT}", str(program)])


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
