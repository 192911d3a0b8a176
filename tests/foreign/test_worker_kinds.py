"""Every way to know, and to make sure, that nobody else moves, on a DataFlow that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.commands import Operator, Outcome
from tests.foreign.services import Worker
from tests.foreign.system import WORKER, Foreign, read_plan
from tests.support.gateway import wait_until

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("foreign", ["seaweedfs"], indirect=True),
]

#: The docker command line of the machine where the worker is a compose service.
DOCKER = """#!{python}
import json, subprocess, sys
words = [w for w in sys.argv[1:] if w not in ("compose", "-f", "docker-compose.yml")]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")

def steer(word):
    words = [{python!r}, {worker!r}, word, {folder!r}]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()

runs = steer("status") == "running"
if words[0] == "config":
    print(json.dumps({{"services": {{"fulfillment-service": {{}}, "minio": {{}}}}}}))
elif words[0] == "ps":
    print("w1")
elif words[0] == "inspect":
    state = {{"Status": "running" if runs else "exited", "ExitCode": 0, "Pid": 7 * runs,
             "StartedAt": "2026-11-24T03:00:00Z", "FinishedAt": "2026-11-24T03:00:00Z"}}
    labels = {{"com.docker.compose.service": "fulfillment-service"}}
    print(json.dumps([{{"State": state, "Config": {{"Labels": labels}}}}]))
elif words[0] != "logs":  # this worker writes none
    steer(words[0])
"""


def plan_some(foreign: Foreign, ann: Operator, kind: str, count: int = 3) -> Outcome:
    """Put labels that the worker never looks at, and plan their release."""
    foreign.put(count, f"{kind}/")
    plan = ann.run("plan", "--prefix", f"pending/{kind}/", "--to", f"ready/{kind}/")
    assert (plan.code, plan.document["objects"]) == (0, count), plan
    return plan


def apply(ann: Operator, plan: Outcome) -> Outcome:
    return ann.run("apply", plan.document["plan"], *plan.approval)


def expect_moved(foreign: Foreign, ann: Operator, plan: Outcome, kind: str) -> None:
    """Apply a plan; every label of it is at its destination, and nobody is left paused."""
    applied = apply(ann, plan)
    assert (applied.code, applied.get("moved")) == (0, plan.document["objects"]), applied
    assert len(foreign.shelf.list_keys(f"ready/{kind}/")) == plan.document["objects"]
    assert not foreign.shelf.list_keys(f"pending/{kind}/")
    assert ann.run("check").document["unfinished"] == []


def expect_refused(foreign: Foreign, ann: Operator, plan: Outcome, kind: str) -> Outcome:
    """Apply a plan; it is refused, and nothing was touched."""
    applied = apply(ann, plan)
    assert applied.code == 5, applied
    assert len(foreign.shelf.list_keys(f"pending/{kind}/")) == plan.document["objects"]
    assert not foreign.shelf.list_keys(f"ready/{kind}/")
    return applied


def test_a_service_without_our_interface_is_unknown_and_refuses(foreign: Foreign) -> None:
    ann = foreign.hire("api", WORKER_CONTROL="api")
    plan = plan_some(foreign, ann, "api")
    assert "`apply`" in plan.document["others"]
    assert "WORKER_CONTROL" in plan.document["others"]
    applied = expect_refused(foreign, ann, plan, "api")
    assert "WORKER_CONTROL" in applied.document["error"]


def test_an_owner_adds_the_interface_that_is_documented(foreign: Foreign) -> None:
    ann = foreign.hire("api-added", WORKER_CONTROL="api")
    foreign.fulfillment.worker = worker = Worker()
    try:
        plan = plan_some(foreign, ann, "api-added")
        assert "it is not paused now" in plan.document["others"]
        expect_moved(foreign, ann, plan, "api-added")
        assert (worker.calls, worker.paused) == (["pause", "resume"], False)
    finally:
        foreign.fulfillment.worker = None


def test_commands_stop_and_start_the_worker(foreign: Foreign) -> None:
    ann = foreign.hire("command", **foreign.commands)
    plan = plan_some(foreign, ann, "command")
    assert "WORKER_CONTROL=command" in read_plan(plan)
    expect_moved(foreign, ann, plan, "command")
    assert foreign.steer("status") == "running"


def test_a_worker_that_stood_still_before_is_not_started(foreign: Foreign) -> None:
    ann = foreign.hire("stopped", **foreign.commands)
    foreign.steer("stop")
    try:
        plan = plan_some(foreign, ann, "stopped")
        assert "it is paused now" in plan.document["others"]
        expect_moved(foreign, ann, plan, "stopped")
        assert foreign.steer("status") == "stopped"
    finally:
        foreign.steer("start")


def test_a_status_command_that_fails_refuses(foreign: Foreign) -> None:
    ann = foreign.hire("broken", **foreign.commands | {"WORKER_STATUS_CMD": "false"})
    plan = plan_some(foreign, ann, "broken")
    assert "`apply`" in plan.document["others"]
    applied = expect_refused(foreign, ann, plan, "broken")
    assert "WORKER_STATUS_CMD" in applied.document["error"]
    assert foreign.steer("status") == "running"


def test_a_metric_of_the_owners_says_when_it_moved_last(foreign: Foreign) -> None:
    query = "max(fulfillment_label_job_last_success_timestamp_seconds)"
    ann = foreign.hire("metric", WORKER_CONTROL="metric", WORKER_LAST_MOVE_QUERY=query)

    def tell(at: float) -> None:
        foreign.fulfillment.last_run_at = at
        wait_until(lambda: read() == pytest.approx(at, abs=1), what="the scrape")

    def read() -> float:
        found = foreign.ask_prometheus("/api/v1/query", query=query)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    tell(time.time())
    plan = plan_some(foreign, ann, "metric")
    for words in ("nobody holds the worker", "last scrape", "can ship a label twice"):
        assert words in read_plan(plan)
    applied = expect_refused(foreign, ann, plan, "metric")
    assert "WORKER_LAST_MOVE_QUERY" in applied.document["error"]
    tell(time.time() - 3600)
    expect_moved(foreign, ann, plan, "metric")
    nobody = foreign.hire("no-metric", WORKER_CONTROL="metric", WORKER_LAST_MOVE_QUERY="absent_one")
    plan = plan_some(foreign, nobody, "no-metric")
    assert "no number" in expect_refused(foreign, nobody, plan, "no-metric").document["error"]


def test_without_any_control_the_approved_plan_says_so(foreign: Foreign) -> None:
    ann = foreign.hire("none", WORKER_CONTROL="none")
    plan = plan_some(foreign, ann, "none")
    assert "a pass of the worker between our look and our copy can ship a label twice" in read_plan(
        plan
    )
    expect_moved(foreign, ann, plan, "none")
    assert foreign.steer("status") == "running"


def test_compose_stops_and_starts_the_worker(foreign: Foreign) -> None:
    folder = foreign.folder / "docker"
    folder.mkdir()
    log, docker = folder / "log.jsonl", folder / "docker"
    words = {"log": str(log), "worker": str(WORKER), "folder": str(foreign.folder)}
    docker.write_text(DOCKER.format(python=sys.executable, **words))
    docker.chmod(0o755)
    ann = foreign.hire(
        "compose",
        WORKER_CONTROL="compose",
        RUNBOOK_SERVICES="compose",
        PATH=f"{folder}:/usr/bin:/bin",
    )
    plan = plan_some(foreign, ann, "compose")
    expect_moved(foreign, ann, plan, "compose")
    said = [json.loads(line) for line in log.read_text().splitlines()]
    changes = [one for one in said if one[0] in ("stop", "start")]
    assert changes == [["stop", "fulfillment-service"], ["start", "fulfillment-service"]]
    assert foreign.steer("status") == "running"


@contextmanager
def supervise(foreign: Foreign, folder: Path) -> Iterator[None]:
    """Have a real supervisor run the worker."""
    folder.mkdir()
    socket = folder / "s.sock"
    (folder / "supervisord.conf").write_text(
        textwrap.dedent(f"""
        [unix_http_server]
        file={socket}
        [rpcinterface:supervisor]
        supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
        [supervisord]
        logfile={folder}/supervisord.log
        pidfile={folder}/supervisord.pid
        nodaemon=true
        [program:fulfillment-service]
        command={sys.executable} {WORKER} run {foreign.folder}
        startsecs=0
        stopwaitsecs=30
        """)
    )
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c"]
    process = subprocess.Popen([*command, str(folder / "supervisord.conf")], cwd=folder)
    try:
        wait_until(lambda: foreign.steer("status") == "running", what="the supervised worker")
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.long
def test_supervisor_stops_and_starts_the_worker(foreign: Foreign) -> None:
    foreign.steer("stop")
    folder = foreign.folder / "sv"
    try:
        with supervise(foreign, folder):
            ann = foreign.hire(
                "supervisor",
                WORKER_CONTROL="supervisor",
                RUNBOOK_SERVICES="supervisor",
                RUNBOOK_STACK_HOME=str(folder),
            )
            plan = plan_some(foreign, ann, "supervisor")
            expect_moved(foreign, ann, plan, "supervisor")
            wait_until(lambda: foreign.steer("status") == "running", what="the worker")
    finally:
        foreign.steer("start")


def test_6_2_stops_the_worker(foreign: Foreign) -> None:
    ann = foreign.hire("repair", **foreign.commands)
    words = ("run", "06", "-p", "way=none", "-p", "service_action=stop", "-p", "wait_s=0")
    try:
        shown = ann.run(*words)
        assert shown.code == 5, shown
        (plan,) = (p for p in shown.document["plans"] if p["action"] == "stop")
        assert foreign.steer("status") == "running"
        done = ann.run(*words, "-p", f"plan={plan['plan']}", "-p", f"approve={plan['sha256']}")
        assert foreign.steer("status") == "stopped", done
    finally:
        foreign.steer("start")
