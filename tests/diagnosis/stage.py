"""A local stack of its own for each case, and how what section 5 says of it is judged.

Nothing here is taken back but threads and frozen processes: the stack ends with its case.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import psutil
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from dataflow_stack import health, layout
from dataflow_stack.config import StackConfig, load_config
from dataflow_stack.faults.processes import override
from dataflow_stack.orders import inject_orders
from dataflow_stack.places import LocalPlaces
from dataflow_stack.supervisor import Supervisor
from fulfillment.settings import Settings
from runbook_lib.model import CauseStatus
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.slow_link import run_slow_link
from tests.support.stack import run_stack

_WORKER = "fulfillment-service"
_LATE_ORDERS = 6
_FRESH_MINUTES = (0.0, 0.5)
_USER = "label-mover"
_READY_S = 60.0
#: So long section 5 is asked at least: what is wrong may be supported late, or for a moment.
_WATCHED_S = 25.0
_DEADLINE_S = 60.0
_APART_S = 3.0


@dataclass
class Stage:
    """A stack on which a case is played, and what ends with the case."""

    config: StackConfig
    ends: ExitStack

    def address(self, service: str) -> str:
        return LocalPlaces(self.config).address(service)

    def hand_over(self, count: int = _LATE_ORDERS, *, fresh: bool = False) -> None:
        url = f"http://{self.address(_WORKER)}"
        if fresh:
            inject_orders(url, count, late_minutes=_FRESH_MINUTES)
        else:
            inject_orders(url, count)

    def restart(self, service: str, **variables: str) -> None:
        overrides = layout.read_overrides(self.config)
        overrides[service] = overrides.get(service, {}) | variables
        layout.write_overrides(self.config, overrides)
        layout.write_layout(self.config)
        Supervisor(self.config).update()

    def restart_and_wait(self, service: str, **variables: str) -> None:
        override(self.config, service=service, variables=variables)

    def find_process(self, service: str) -> psutil.Process:
        return psutil.Process(Supervisor(self.config).programs()[service]["pid"])

    def link(self, service: str, *, delay_s: float) -> str:
        return self.ends.enter_context(run_slow_link(self.address(service), delay_s / 2))

    def freeze(self, service: str) -> None:
        """Suspend the process of a service until the case ends: its connections stay open."""
        frozen = self.find_process(service)
        frozen.suspend()
        self.ends.callback(partial(os.kill, frozen.pid, signal.SIGCONT))

    def repeat(self, act: Callable[[], object], *, every_s: float) -> None:
        """Do something again and again until the case ends."""
        ended = threading.Event()

        def act_again_and_again() -> None:
            while not ended.wait(every_s):
                act()

        thread = threading.Thread(target=act_again_and_again)
        thread.start()
        self.ends.callback(thread.join)
        self.ends.callback(ended.set)

    def wait_until_healthy(self) -> None:
        health.wait_until_healthy(self.config, deadline_s=_READY_S)


def give_own_user(stage: Stage) -> MinioAdmin:
    """Let the worker run as a user of its own, with every right, until it works so."""
    settings = stage.config.settings
    admin = MinioAdmin(
        endpoint=stage.address("minio"),
        credentials=StaticProvider(settings["MINIO_ROOT_USER"], settings["MINIO_ROOT_PASSWORD"]),
        region=settings["MINIO_REGION"],
        secure=False,
    )
    password = secrets.token_urlsafe(18)
    admin.user_add(_USER, password)
    set_policy(admin, "readwrite")
    stage.restart_and_wait(_WORKER, MINIO_ROOT_USER=_USER, MINIO_ROOT_PASSWORD=password)
    stage.wait_until_healthy()
    return admin


def set_policy(admin: MinioAdmin, policy: str) -> None:
    # The older call: the gateway knows no other, and MinIO still knows this one.
    admin.policy_set(policy, user=_USER)


def judge(looks: Sequence[set[str]], *, expected: Set[str], tolerated: Set[str]) -> str:
    """Return ``right``, or what was not; the last of the looks must name the expected causes."""
    wrong = set().union(*looks) - expected - tolerated
    if wrong:
        return f"wrong: {', '.join(sorted(wrong))}"
    missed = expected - looks[-1]
    return f"missed: {', '.join(sorted(missed))}" if missed else "right"


def play(
    home: Path, perform: Callable[[Stage], None], *, expected: Set[str], tolerated: Set[str]
) -> tuple[list[set[str]], float | None]:
    """Play a case on a fresh stack, and look until its causes are named.

    Returns what each look named, and the seconds from the case to its first right look.
    """
    looks: list[set[str]] = []
    right_s = None
    with run_stack(home / "stack") as stack, ExitStack() as ends:
        stage = Stage(load_config(stack.home).remembered(), ends)
        perform(stage)
        began = time.monotonic()
        variables = stack.env | {"RUNBOOK_HOME": str(home / "reports")}
        with patch.dict(os.environ, variables):
            inv = open_diagnosis(Settings.load())
            while True:
                looks.append(list_causes(ask_why(inv), CauseStatus.SUPPORTED))
                elapsed_s = time.monotonic() - began
                is_right = judge(looks, expected=expected, tolerated=tolerated) == "right"
                if is_right and right_s is None:
                    right_s = round(elapsed_s, 1)
                if elapsed_s > _DEADLINE_S or (elapsed_s > _WATCHED_S and is_right):
                    return looks, right_s
                time.sleep(_APART_S)
