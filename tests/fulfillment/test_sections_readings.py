"""Each reading step: ok in a healthy world, a breach when its input is bad, unknown when dead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from fulfillment.analysis import causes as evidence
from fulfillment.analysis.causes import CAUSES, collect_observations
from fulfillment.clients import Clients
from fulfillment.clients.http_systems import ProbeStatus, ProbeStep, WorkerState
from fulfillment.clients.services import LogLine
from fulfillment.quantities import Quantity
from fulfillment.sections import SECTIONS, root_cause
from fulfillment.settings import HTTP_SYSTEMS
from objectmove.state import STATE, BucketState, Move
from runbook_lib.model import CauseStatus, Note, Reading, Role, Status, Verdict
from runbook_lib.record.notes import write_note
from tests.fulfillment.test_causes import list_clues
from tests.support.golden import expect_golden
from tests.support.world import TICKET, FakeClients, World, make_case

Change = Callable[[World], None]
ROOT = Path(__file__).parents[2]
#: A copy of the layout of DataFlow.
DATAFLOW = ROOT / "tests" / "foreign" / "dataflow"


@dataclass(frozen=True)
class Case:
    ready: Change | None = None
    breach: Change | None = None
    unknown: Change | None = None


def down(*systems: str) -> Change:
    return lambda w: w.down.update(systems)


def overdue(w: World) -> None:
    w.put_label(minutes=25)


def set_worker(**fields: Any) -> Change:
    def change(w: World) -> None:
        assert isinstance(w.worker, WorkerState)
        w.worker = replace(w.worker, **fields)

    return change


def fail_probe(w: World) -> None:
    step = ProbeStep("timeline_refresh", "error", "took too long")
    w.probe = ProbeStatus("error", (step,), w.now)


def log_error(w: World) -> None:
    w.logs.append(LogLine(w.now, "2026-11-24T04:00:00Z ERROR upload failed: storage_full"))


def grow_failures(w: World) -> None:
    w.count("fulfillment_artifacts_failed_total", "reason", {"storage_full": [1.0, 2.0, 4.0]})


def quiet_ticket(w: World) -> None:
    w.case = make_case(w.now - timedelta(minutes=40))
    overdue(w)


def resolve(w: World) -> None:
    w.fire()
    w.take(SECTIONS["02_signals_detection"], "2.1")
    w.alerts.clear()
    w.hear("slack", "email", "teams", minutes_ago=3)
    w.hear("slack", "email", "teams", status="resolved")


def delivered(w: World) -> None:
    w.fire()
    w.hear("slack", "email", "teams")


def diagnose(w: World) -> None:
    w.dag = replace(w.dag, is_paused=True)
    inv = w.open(SECTIONS["05_root_cause"])
    for step in inv.section.STEPS:
        inv.read_step(step)
    inv.conclude()


def note_the_point(w: World) -> None:
    section = SECTIONS["07_postmortem"]
    assert w.take(section, "7.3").status is Status.UNKNOWN
    diagnose(w)
    assert w.take(section, "7.3").status is Status.BREACH
    write_note(w.incident, Note(text="The pause is announced.", checklist="7.3"))


def log_measures(w: World) -> None:
    overdue(w)
    w.take(SECTIONS["02_signals_detection"], "2.3")
    diagnose(w)
    inv = w.open(SECTIONS["06_remediation"])
    plan = inv.plan("6.2")
    inv.apply(plan, approve=plan.sha256)


def take_references(w: World) -> None:
    home = w.home / "dataflow"
    for name in (
        "docs/monitoring/README.md",
        "docs/monitoring/incident-runbook.md",
        "docs/design/implementation/wave-4-ops-hardening.md",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("## Fulfillment artifacts backlog\n", "utf-8")
    for name in ("Makefile", "scripts/chaos/simulate_fulfillment_delay.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATAFLOW / name, home / name)
    w.settings = w.settings.model_copy(update={"dataflow_home": home})


def read_references(w: World) -> None:
    take_references(w)
    inv = w.open(SECTIONS["08_references"])
    for step in inv.section.STEPS:
        inv.read_step(step)


def break_reference(w: World) -> None:
    (w.home / "dataflow/docs/monitoring/README.md").unlink()
    w.take(SECTIONS["08_references"], "8.3")


def no_rule(w: World) -> None:
    w.rules = [r for r in w.rules if r.name != "FulfillmentDelay"]


def leave_unfinished(world: World) -> None:
    move = Move(
        plan="rel-1",
        sha256="0" * 64,
        start=0,
        end=2,
        keep_until=world.now,
    )
    state = BucketState(id="0" * 32, format="objectmove/state/1", moves={move.id: move})
    world.put(STATE, state.encode())


CASES: dict[str, Case] = {
    "1.1": Case(
        breach=lambda w: w.put(".runbook/environment.json", b'{"environment": "demo"}'),
        unknown=down("store"),
    ),
    "1.3": Case(
        breach=lambda w: w.rights.update(read=(False, "")),
        unknown=lambda w: w.rights.update(list=(None, ""), read=(None, "")),
    ),
    "1.4": Case(
        breach=lambda w: w.skew_s.update(support=-120),
        unknown=down("store", *HTTP_SYSTEMS),
    ),
    "1.5": Case(breach=leave_unfinished, unknown=down("store")),
    "2.1": Case(breach=lambda w: w.fire(), unknown=down("prometheus")),
    "2.2": Case(unknown=down("grafana")),
    "2.3": Case(breach=overdue, unknown=down("store")),
    "2.4": Case(breach=overdue, unknown=down("store")),
    "2.5": Case(breach=quiet_ticket, unknown=down("support")),
    "2.6": Case(breach=fail_probe, unknown=down("probe")),
    "3.1": Case(
        ready=delivered,
        breach=lambda w: setattr(w, "routed", [replace(w.routed[0], muted_by=("s1",))]),
        unknown=down("notifications"),
    ),
    "3.2": Case(breach=overdue, unknown=down("store")),
    "3.3": Case(breach=down("store")),
    "3.4": Case(unknown=down("store")),
    "3.5": Case(breach=log_error, unknown=down("services")),
    "4.3": Case(breach=down("support"), unknown=down("services")),
    "5.1": Case(breach=set_worker(paused=True), unknown=down("fulfillment", "services")),
    "5.2": Case(breach=grow_failures, unknown=down("prometheus", "fulfillment")),
    "5.3": Case(
        breach=lambda w: setattr(w, "dag", replace(w.dag, is_paused=True)), unknown=down("pipeline")
    ),
    "5.4": Case(
        breach=set_worker(pending_prefix="other/"), unknown=down("fulfillment", "services")
    ),
    "6.1.2": Case(),
    "6.5": Case(
        ready=lambda w: w.put_lag(*[0.1] * 40),
        breach=lambda w: w.put_lag(*[12.0] * 40),
        unknown=down("prometheus"),
    ),
    "7.1": Case(ready=resolve, breach=lambda w: w.fire(), unknown=down("notifications")),
    "7.2": Case(ready=log_measures),
    "7.3": Case(ready=note_the_point),
    "7.4": Case(breach=no_rule, unknown=down("probe")),
    "7.5": Case(ready=read_references, breach=break_reference),
    "8.1": Case(),
    "8.2": Case(),
    "8.3": Case(ready=take_references, breach=break_reference),
    "8.4": Case(
        ready=take_references,
        breach=lambda w: (w.home / "dataflow/docs/monitoring/incident-runbook.md").write_text("no"),
    ),
    "8.5": Case(
        ready=take_references,
        breach=lambda w: (
            w.home / "dataflow/docs/design/implementation/wave-4-ops-hardening.md"
        ).unlink(),
    ),
}
#: What each case is to be.
STATUSES = {"ready": Status.OK, "breach": Status.BREACH, "unknown": Status.UNKNOWN}


def read(world: World, step: str) -> Reading:
    section = next(s for s in SECTIONS.values() if step in s.STEPS and s.NAME[1] == step[0])
    with_ticket = {"ticket_id": TICKET} if step in ("2.5", "4.3") else {}
    return world.take(section, step, **with_ticket)


def take(world: World, step: str) -> Status:
    reading = read(world, step)
    assert reading.source
    assert reading.reason
    return reading.status


STEPS = {step.id: step for section in SECTIONS.values() for step in section.STEPS.values()}
#: What a step's source names, and the system behind it.
SETTINGS = {f"${name}_url": name for name in (*HTTP_SYSTEMS, "grafana")} | {
    "$minio_endpoint": "store",
    "$fulfillment_bucket": "store",
    "log of $worker_service": "services",
}


def list_systems(step: str) -> list[str]:
    return [system for name, system in SETTINGS.items() if name in STEPS[step].source]


def test_a_step_without_a_case_reads_and_is_not_ok_while_its_systems_are_down(
    tmp_path: Path,
) -> None:
    for step in STEPS.keys() - CASES.keys():
        world = World(tmp_path / step)
        assert take(world, step) is not Status.UNKNOWN
        world.down.update(list_systems(step))
        if world.down:
            assert take(world, step) in (Status.UNKNOWN, Status.BREACH)


def test_every_case_has_its_status_and_its_words_are_on_the_page(tmp_path: Path) -> None:
    lines: list[str] = []
    hide = {str(ROOT): "ROOT"}
    for step, case in CASES.items():
        for name, status in STATUSES.items():
            change = getattr(case, name)
            if name != "ready" and change is None:
                continue
            world = World(tmp_path / f"{step}-{name}")
            hide[str(world.home)] = "HOME"
            for prepare in dict.fromkeys((case.ready, change)):
                if prepare is not None:
                    prepare(world)
            reading = read(world, step)
            assert reading.status is status, (step, name)
            assert reading.source, step
            assert reading.reason, step
            cells = (step, reading.status, reading.value, reading.reason)
            lines.append(" | ".join(str(cell) for cell in cells))
    expect_golden("fulfillment/readings.txt", "\n".join(lines), hide=hide)


def test_every_clue_of_a_cause_is_what_a_reading_says(world: World) -> None:
    """A clue on an observation that nobody makes would never hold, and nobody would notice."""
    section, made = SECTIONS["05_root_cause"], set[str]()
    failed_before = ProbeStatus("error", (ProbeStep("login", "error", "refused"),), world.now)
    for probe in (world.probe, failed_before):
        world.probe = probe
        for step in section.STEPS:
            made |= world.take(section, step, ticket_id=TICKET).observations.keys()
    clues = chain.from_iterable(map(list_clues, CAUSES))
    assert {clue.name for clue in clues} <= made


@pytest.mark.parametrize(
    ("samples", "status"),
    [
        ([0.0, 0.0], Status.OK),
        ([12.0], Status.OK),
        ([9.0, *[12.0] * 30], Status.OK),
        ([*[12.0] * 31], Status.BREACH),
        ([12.0] * 31 + [9.0], Status.OK),
        ([float("nan")], Status.UNKNOWN),
        ([], Status.UNKNOWN),
    ],
)
def test_lag_counts_only_when_every_sample_is_over_for_long_enough(
    world: World, samples: list[float], status: Status
) -> None:
    world.put_lag(*samples)
    assert take(world, "2.1") is status


def test_a_drills_alert_is_shown_but_is_no_incident(world: World) -> None:
    world.fire(drill="true")
    reading = world.take(SECTIONS.find("02"), "2.1")
    assert reading.status is Status.OK
    assert [row["drill"] for row in reading.rows] == [True]


def test_failing_uploads_are_an_incident_without_any_lag(world: World) -> None:
    world.fire("FulfillmentUploadFailing")
    assert take(world, "2.1") is Status.BREACH


@dataclass
class LeftOut:
    real: Clients
    fakes: FakeClients
    systems: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real if name in self.systems else self.fakes, name)


def leave_out(world: World, *systems: str) -> Any:
    update = {f"{name}_url": "" for name in systems if name != "services"}
    if "services" in systems:
        update["runbook_services"] = "none"
    world.settings = world.settings.model_copy(update=update)
    return LeftOut(Clients(world.settings), FakeClients(world), systems)


@pytest.mark.parametrize("system", sorted({*SETTINGS.values()} - {"store"}))
def test_a_system_that_we_do_not_have_is_left_out_and_nothing_is_a_breach(
    world: World, system: str
) -> None:
    delivered(world)
    world.pages = [[]]
    clients = leave_out(world, system)
    found: dict[str, Any] = {}
    for section in SECTIONS.values():
        if section.NAME[:2] in ("01", "02", "03", "05", "08"):
            inv = world.open(section, ticket_id=TICKET)
            inv.clients = cast(Clients, clients)
            found |= {step: inv.read_step(step) for step in section.STEPS}
    left = {step for step, reading in found.items() if reading.status is Status.LEFT_OUT}
    documents = {"8.3", "8.4", "8.5"}  # DATAFLOW_HOME is empty
    assert documents <= left
    left -= documents
    asking = {s for s in found if system in list_systems(s) and STEPS[s].role is not Role.GROUND}
    assert left <= asking, {s: found[s].reason for s in left}
    assert left >= {step for step in asking if list_systems(step) == [system]}
    breaches = {step: r.reason for step, r in found.items() if r.status is Status.BREACH}
    assert set(breaches) <= {"2.1"}, breaches
    causes = evidence.diagnose(collect_observations(found.values()))
    assert [f.name for f in causes if f.status is CauseStatus.SUPPORTED] == []
    assert left
    for step in left:
        assert "is empty" in found[step].reason or "=none" in found[step].reason


def test_a_needed_step_that_is_left_out_is_not_unknown(world: World) -> None:
    clients = leave_out(world, "prometheus")
    inv = world.open(SECTIONS["02_signals_detection"])
    inv.clients = clients
    for step in inv.section.STEPS:
        inv.read_step(step)
    assert inv.conclude().verdict is Verdict.HEALTHY
    overdue(world)
    inv.read_step("2.3")
    assert inv.conclude().verdict is Verdict.INCIDENT


@pytest.mark.parametrize("held_since", ["2026-11-24T04:00:00Z", ""])
def test_a_pause_of_our_own_release_is_not_somebodys(
    world: World, monkeypatch: pytest.MonkeyPatch, held_since: str
) -> None:
    set_worker(paused=True, paused_at=world.now)(world)
    row = {"plan": "rel-1", "held_since": held_since, "way_on": "runbook resume rel-1"}
    monkeypatch.setattr(root_cause.GATE, "list_unfinished", lambda *_: [row])
    reading = world.take(root_cause, "5.1")
    assert reading.status is Status.BREACH
    assert reading.observations["worker_paused"] is True
    assert reading.observations["worker_paused_by_others"] is not bool(held_since)
    assert ("rel-1" in reading.reason) is bool(held_since)
    assert any(event.kind == "trigger" for event in reading.events) is not bool(held_since)


def make_plain(world: World, command: str = "") -> None:
    """Leave out what DataFlow itself does not have: exporter, counters, an API of the worker."""
    world.leave_out_exporter()
    world.series.clear()
    world.pages = [[]]
    world.worker = None
    world.settings = world.settings.model_copy(update={"worker_log_cmd": command})
    world.put_label(25)


@pytest.mark.parametrize("has_metric", [True, False])
def test_a_late_file_says_since_when_only_where_no_metric_does(
    world: World, has_metric: bool
) -> None:
    overdue(world)
    if not has_metric:
        world.down.add("prometheus")
    section = SECTIONS["02_signals_detection"]
    world.take(section, "2.1")
    reading = world.take(section, "2.3")
    (backlog,) = [m for m in reading.measurements if m.quantity == Quantity.BACKLOG]
    assert (backlog.status, backlog.since is None) == (Status.BREACH, has_metric)


def find_supported(world: World) -> list[str]:
    inv = world.open(root_cause)
    for step in root_cause.STEPS:
        inv.read_step(step)
    return [f.name for f in inv.conclude().findings if f.status is CauseStatus.SUPPORTED]


@pytest.mark.process
def test_a_log_command_tells_of_a_wrong_credential(world: World, tmp_path: Path) -> None:
    line = f"{world.now - timedelta(seconds=3):%Y-%m-%dT%H:%M:%SZ} ERROR SignatureDoesNotMatch\n"
    log = tmp_path / "worker.log"
    log.write_text(line * 54, "utf-8")
    make_plain(world, f"cat {log}")
    world.down.add("services")
    reading = world.take(root_cause, "5.4")
    assert reading.observations["logged_bad_credentials"] == 54
    assert (reading.status, "54 lines" in reading.reason) == (Status.BREACH, True)
    assert find_supported(world) == ["bad_credentials"]


def test_a_worker_that_says_running_and_is_silent_hangs(world: World) -> None:
    make_plain(world)
    world.logs = [LogLine(world.now - timedelta(minutes=14), "moved 12")]
    assert find_supported(world) == ["worker_stuck"]
    world.logs.append(LogLine(world.now, "moved 3"))
    assert find_supported(world) == []


def test_a_store_that_refuses_our_own_write_is_full(world: World) -> None:
    make_plain(world)
    world.store.full = True
    assert world.take(root_cause, "5.2").status is Status.BREACH
    assert find_supported(world) == ["storage_full"]
