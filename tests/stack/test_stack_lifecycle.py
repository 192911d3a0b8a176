"""The local stack comes up whole, keeps its data, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from dataflow_stack import local
from dataflow_stack.cli import app
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from dataflow_stack.processes import find_processes
from tests.support.stack import RunningStack, find_port_base, run_stack, stack, wait_until

__all__ = ["stack"]
pytestmark = pytest.mark.stack


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`runbook serve` beside a new stack opens incidents."""
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "reports"))


def test_every_port_listens_on_loopback_only(stack: RunningStack) -> None:
    listening = [
        connection.laddr
        for process in find_processes(stack.home)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 11
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_data_survives_down_and_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with run_stack(home) as first:
        # a start pages nobody: that nothing was scraped yet is no alert
        assert first.get("NOTIFICATIONS_URL", "/notifications")["items"] == []
        query = "/api/v1/query?query=ALERTS{alertstate='firing'}"
        assert first.get("PROMETHEUS_URL", query)["data"]["result"] == []
        url = first.env["FULFILLMENT_URL"]
        orders = inject_orders(url, 1)
        keys = wait_for_artifacts(url, orders)
        assert find_processes(home)
        local.down(home=home)
        assert not find_processes(home)
        env = local.up(home=home, port_base=first.port_base, owner_pid=os.getpid())
        assert env == first.env
        ready = {"ready/" + key.removeprefix("pending/") for key in keys}
        wait_until(lambda: ready <= set(first.list_keys("ready/")), what="the labels are there")
        found = first.get("FULFILLMENT_URL", f"/fulfillment/shipments?orderId={orders[0]}")
        assert found["total"] == 1


def test_a_stack_does_not_outlive_its_owner(tmp_path: Path) -> None:
    home, base = tmp_path / "home", find_port_base()
    script = (
        "import os, sys; from pathlib import Path; from dataflow_stack import local;"
        f"local.up(home=Path({str(home)!r}), port_base={base}, owner_pid=os.getpid());"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == "up\n"
            assert find_processes(home)
        finally:
            owner.kill()
    try:
        wait_until(lambda: not find_processes(home), what="the stack ended with its owner")
    finally:
        local.down(home=home)


def test_a_taken_port_is_named_with_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = find_port_base()
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNBOOK_STACK_PORT_BASE", str(base))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8109 + base))
        other.listen()
        result = CliRunner().invoke(app, ["up", "--json"])
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["exit_code"] == 2
    assert str(8109 + base) in document["error"]
    assert "RUNBOOK_STACK_PORT_BASE" in document["error"]
    assert not find_processes(tmp_path / "home")


def test_env_prints_what_a_shell_can_read(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(stack.home))
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0
    shell = subprocess.run(
        ["sh", "-c", f'{result.stdout}\nprintf %s "$RUNBOOK_STACK_HOME|$MINIO_ENDPOINT"'],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert shell.stdout == f"{stack.home}|{stack.env['MINIO_ENDPOINT']}"


def test_restart_gives_a_service_another_process(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(stack.home))

    def pid() -> int:
        services = {s["name"]: s for s in local.status(home=stack.home)["services"]}
        return int(services["carrier-api"]["pid"])

    before = pid()
    result = CliRunner().invoke(app, ["restart", "carrier-api", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["service"] == "carrier-api"
    assert pid() != before
