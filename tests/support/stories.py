"""One incident and one drill in the fake world, told through the real runs and notebooks.

Nothing is started: the cells of a notebook are executed in this process, every clock is the
world's, and waiting moves it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import fulfillment
import runbook_lib
from fulfillment.clients import Clients
from fulfillment.clients.http_systems import DagRun, SupportClient
from fulfillment.drills import Scenario, run_drill
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.model import keep_quiet
from runbook_lib.record.incident import Incident, open_incident
from runbook_lib.record.journal import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.run import commands, notebooks
from runbook_lib.run.documents import Document
from tests.support.world import CHANNELS, LAG, ORDER, REFRESH, TICKET, FakeClients, World

if TYPE_CHECKING:
    from fulfillment.drills import Drill


@dataclass
class Story:
    incident: Incident
    documents: list[Document]


def tell_incident(home: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    world = make_world(home, monkeypatch)
    pause_pipeline(world)
    first = commands.investigate(world.settings, SECTIONS, ticket_id=TICKET)
    assert first.incident
    planned = commands.run(world.settings, SECTIONS, ["06"])
    chosen = [plan for plan in planned.plans if plan["step"] in ("6.1", "6.2", "6.4")]
    approval = [
        "plan=" + ",".join(plan["plan"] for plan in chosen),
        "approve=" + ",".join(plan["sha256"] for plan in chosen),
    ]
    applied = commands.run(world.settings, SECTIONS, ["06"], parameter=approval)
    world.now += timedelta(minutes=2)
    checked = commands.run(world.settings, SECTIONS, ["06", "08", "07"])
    return _end(world, first.incident, [first, planned, applied, checked])


def tell_drill(home: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    world = make_world(home, monkeypatch)
    scored = run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert scored.incident
    return _end(world, scored.incident, [scored])


@dataclass(frozen=True)
class PausedPipeline(Scenario):
    name: str = "pipeline_paused"
    world: Any = None
    remedy_steps: tuple[str, ...] = ("6.1", "6.2", "6.4")
    releases: bool = True

    def inject(self, drill: Drill) -> None:
        pause_pipeline(self.world)
        drill.order_ids.add(ORDER)
        drill.incident.update(ticket_id=TICKET)

    def revert(self, drill: Drill) -> None:  # noqa: ARG002
        self.world.dag = replace(self.world.dag, is_paused=False)


def _end(world: World, incident_id: str, documents: list[Document]) -> Story:
    incident = open_incident(world.home, incident_id, redactor=Redactor())
    assert incident is not None
    return Story(incident, documents)


def make_world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(home)
    world.settings = world.settings.model_copy(update={"dataflow_home": None})
    _replace_everywhere(
        monkeypatch, {utc_now: lambda: world.now, Clients: lambda _: FakeClients(world)}, world
    )
    monkeypatch.setattr(Settings, "load", lambda: world.settings)
    # nor are the warnings of `runbook serve`
    monkeypatch.setattr("fulfillment.commands.entry_points", lambda *_, **__: ())
    # whatever listens on this machine is no part of the story
    monkeypatch.setattr(SupportClient, "connect", lambda _: FakeClients(world).support)
    monkeypatch.setattr(notebooks, "_execute", lambda *given: _execute(world, *given))
    monkeypatch.setattr("fulfillment.drills.watch_drill", lambda _: nullcontext(lambda: None))
    monkeypatch.setattr(notebooks.SharedKernel, "ensure_started", lambda _: None)
    return world


def pause_pipeline(world: World) -> None:
    world.dag = replace(world.dag, is_paused=True)
    world.runs = [DagRun("r1", "success", *[world.now - timedelta(minutes=30)] * 2)]
    for number, minutes in enumerate((25, 18, 12), 1):
        world.put_label(minutes, number)
    world.put_lag(*[float(m) for m in range(15, 26)], step_s=60)
    world.fire()
    world.hear(*CHANNELS, minutes_ago=0)


def _look_again(world: World) -> None:
    """Let the metrics and the alert follow what waits in the bucket."""
    assert world.worker is not None
    if not world.worker.paused:
        world.worker = replace(world.worker, last_run_at=world.now, last_move_at=world.now)
    ran = [(world.now - timedelta(seconds=s)).timestamp() for s in (3, 2, 1)]
    world.series["fulfillment_worker_last_run_timestamp_seconds"] = [world.line(ran)]
    for metric in world.series.keys() - {LAG, REFRESH}:
        world.series[metric] = [
            replace(line, samples=world.line([s.value for s in line.samples]).samples)
            for line in world.series[metric]
        ]
    if world.dag.is_paused or any(key.startswith("pending/") for key in world.store.objects):
        return
    world.put_lag(0.0, 0.0, 0.0, 0.0)
    world.runs = [DagRun("r2", "success", *[world.now] * 2)]
    applied_at = max(
        (o.info.last_modified for k, o in world.store.objects.items() if k.startswith("ready/")),
        default=world.now,
    )
    if world.alerts and world.now - applied_at > timedelta(seconds=20):
        world.alerts.clear()
        world.routed.clear()
        world.hear(*CHANNELS, status="resolved", minutes_ago=0)


def _execute(
    world: World, source: Path, values: Mapping[str, Any], *_: Any
) -> notebooks.Failure | None:
    _look_again(world)
    namespace: dict[str, Any] = {}
    steps = {f"step:{step}" for each in SECTIONS.values() for step in (*each.STEPS, *each.ACTIONS)}
    for cell in json.loads(source.read_text("utf-8"))["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        is_left_out = any(tag.startswith("step:") for tag in tags) and not tags & steps
        if cell["cell_type"] == "code" and not is_left_out:
            code = "".join(cell["source"])
            try:
                exec(code, namespace)  # noqa: S102
            except Exception as error:  # noqa: BLE001 - whatever a cell raises
                return notebooks.Failure(str(error), type(error).__name__)
        if "parameters" in tags:
            namespace |= values
    return None


@cache
def _import_all() -> None:
    """Import every module: one that is imported later would keep a story's clock for the next."""
    for package in (runbook_lib, fulfillment):
        for found in walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                import_module(found.name)


def _replace_everywhere(
    monkeypatch: pytest.MonkeyPatch, replaced: Mapping[Any, Callable[..., Any]], world: World
) -> None:
    _import_all()

    def sleep(seconds: float) -> None:
        world.now += timedelta(seconds=seconds)
        _look_again(world)

    def read_seconds() -> float:
        return world.now.timestamp()

    clock = SimpleNamespace(sleep=sleep, monotonic=read_seconds, time=read_seconds)
    known = {id(old): new for old, new in replaced.items()}
    known |= {id(time): clock, id(time.sleep): sleep}
    packages = {"runbook_lib", "fulfillment", "objectmove"}
    ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in packages]
    for module in ours:
        for name, value in list(vars(module).items()):
            if id(value) in known:
                monkeypatch.setattr(module, name, known[id(value)])
            for function in (value, getattr(value, "__init__", None)):
                defaults = getattr(function, "__kwdefaults__", None) or {}
                if defaults.get("sleep") is time.sleep:
                    monkeypatch.setitem(defaults, "sleep", sleep)
                for of in ("clock", "now"):
                    if defaults.get(of) is utc_now:
                        monkeypatch.setitem(defaults, of, known[id(utc_now)])
