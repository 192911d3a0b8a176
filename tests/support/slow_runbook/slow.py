"""A runbook that can be interrupted: it looks for long, moves for long, and gives a worker back.

Files in the current folder say how far it is: ``looking``, ``moving``, ``worker-is-paused``, and
``interrupts``, to which each interrupt adds a line. Once ``go-on`` is there, it waits no longer.
``SLOW_TEXT`` is what a move that is cut off says of itself. A move takes ``SLOW_GIVE_BACK_S``
to let the worker go on.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runbook_lib.approvals import Effect, Plan, PlanKind, write_plan
from runbook_lib.investigation import Investigation
from runbook_lib.model import Conclusion, Outcome, Role, Verdict
from runbook_lib.policy import Policy
from runbook_lib.runbook import Runbook
from runbook_lib.section import (
    ActionStep,
    ChangeParameters,
    SectionParameters,
    Sections,
    by_id,
    step,
)
from runbook_lib.settings import Settings

_LONG_S = 60.0


def _wait(name: str) -> None:
    Path(name).touch()
    try:
        deadline = time.monotonic() + _LONG_S
        while time.monotonic() < deadline and not Path("go-on").exists():
            threading.Event().wait(0.05)
    except KeyboardInterrupt:
        with Path("interrupts").open("a") as file:
            file.write(f"{name}\n")
        raise


@step("2.1", "What is there", name="files", role=Role.IMPACT, source="the folder")
def read_files(_inv: Any) -> Outcome:
    _wait("looking")
    return Outcome(value=0).ok("nothing is there")


def _move(_inv: Any, plan: Plan) -> Effect:
    plan.trace.parent.mkdir(exist_ok=True)
    plan.trace.touch()
    Path("worker-is-paused").touch()
    try:
        _wait("moving")
    except KeyboardInterrupt:
        threading.Event().wait(float(os.environ.get("SLOW_GIVE_BACK_S", "1")))
        raise KeyboardInterrupt(os.environ.get("SLOW_TEXT", "")) from None
    finally:
        Path("worker-is-paused").unlink()
    return Effect("moved", {"moved": 9})


def _verify(_inv: Any, _plan: Plan) -> Effect:
    return Effect("looked", {})


MOVE = PlanKind("slow/move/1", _move, _verify, resume=_move)


def _plan_move(inv: Any) -> Plan:
    facts = {"step": "6.1", "action": "move", "target": "files"}
    return write_plan(inv.incident.folder / "plans", MOVE, "move", now=inv.now(), **facts)


def _conclude(_inv: Any) -> Conclusion:
    return Conclusion(verdict=Verdict.HEALTHY, summary="nothing is wrong")


LOOK = SimpleNamespace(
    NAME="02_look",
    TITLE="Look",
    Parameters=SectionParameters,
    STEPS=by_id(read_files),
    ACTIONS={},
    conclude=_conclude,
)
CHANGE = SimpleNamespace(
    NAME="06_change",
    TITLE="Change",
    Parameters=ChangeParameters,
    STEPS={},
    ACTIONS=by_id(
        ActionStep("6.1", "Move", _plan_move, (MOVE,)),
    ),
    conclude=_conclude,
)
SECTIONS = Sections(
    [LOOK, CHANGE],
    notebooks=Path(__file__).parent,
    read_only=("02_look",),
    investigation=Investigation,
)
RUNBOOK = Runbook(
    summary="A slow runbook.",
    commands=(),
    errors={},
    sections=SECTIONS,
    settings=Settings,
    policy=Policy(quantities=SECTIONS.list_quantities()),
)
