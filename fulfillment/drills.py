"""A drill: check that all is well, inject a fault, detect it, run the notebooks, revert, score.

A drill runs the same code as a real incident. It approves as ``drill:<id>``, and releases only
labels of orders that it injected. Environments register scenarios in the entry point group
``runbook.scenarios``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path

from objectmove.errors import MoveError
from runbook_lib import errors
from runbook_lib.errors import ExitCode
from runbook_lib.investigation import make_incident
from runbook_lib.language import gettext
from runbook_lib.model import ActionPhase, Json, Mark, Progress, Verdict, count_of, format_time
from runbook_lib.record.detection import TRIGGER
from runbook_lib.record.history import list_proofs
from runbook_lib.record.incident import ENDED_WELL, Incident, list_incidents
from runbook_lib.record.journal import utc_now
from runbook_lib.record.view import JournalView
from runbook_lib.report import write_outputs
from runbook_lib.run.commands import run_sections
from runbook_lib.run.documents import Document
from runbook_lib.run.interrupts import Interrupts, delay_interrupts
from runbook_lib.run.notebooks import RunStatus
from runbook_lib.section import attempt, to_rows
from runbook_lib.show.text import VERDICT_WORDS

from .analysis.causes import CAUSES
from .change.exercises import (
    REVERT_COMMAND,
    DrillError,
    check_environment,
    check_playground,
    get_drill_id,
    list_drill_orders,
    lock_drills,
    make_approver,
)
from .change.release import GATE, check_store
from .change.synthetic import Backlog, create_backlog, revert_backlog
from .clients import Clients, check_connected
from .investigation import Investigation
from .policy import POLICY
from .quantities import DELAY_ALERT, UPLOAD_ALERT
from .sections import SECTIONS
from .sections.immediate import CHANNELS
from .sections.signals import BLIND_ALERT
from .settings import Settings
from .waiting import Waiting, iter_with_metadata, list_prefixes, read_label


@dataclass(frozen=True)
class Scenario(ABC):
    """A fault that a drill can inject, and what the drill must then show.

    The drill approves ``exercise_steps`` of section 4 and ``remedy_steps`` of section 6. If the
    remedy ``only_mitigates``, or there is none, it then reverts the fault; else after section 7. To
    the timeouts for the alert to fire and to clear, it adds the waits of the alert's rule.
    """

    name: str  # of the fault, and of the cause that section 5 must find
    alert: str = "FulfillmentDelay"  # or "" if none fires
    verdict_expected: Verdict = Verdict.FIXED  # of section 6, after repair or revert
    releases: bool = False  # labels move, so a proof is needed
    detect_timeout_s: float = 45  # until the alert fires
    notify_timeout_s: float = 20  # until every channel got it
    clear_timeout_s: float = 35  # until the alert clears
    exercise_steps: tuple[str, ...] = ()
    remedy_steps: tuple[str, ...] = ()
    only_mitigates: bool = False  # the remedy moves labels, but leaves the fault
    needs: str = ""  # what the environment must have, in words

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that meet the goal."""
        if self.verdict_expected is Verdict.HEALTHY:
            # A reading may catch brief trouble, such as a probe that fails during a restart.
            return (Verdict.HEALTHY, Verdict.FIXED)
        return (self.verdict_expected,)

    @abstractmethod
    def inject(self, drill: Drill) -> None:
        """Cause the fault for real, and add the orders that it injects to ``drill.order_ids``."""

    @abstractmethod
    def revert(self, drill: Drill) -> None:
        """Revert the fault, however the drill ended."""

    def recover(self, drill: Drill) -> None:
        """Revert the fault of a killed drill, and what it left half done."""
        self.revert(drill)


@dataclass(frozen=True)
class _SyntheticLabels(Scenario):
    """Labels that cannot ship. Needs only the store, Prometheus and ``addons/``."""

    def inject(self, drill: Drill) -> None:
        settings = drill.settings
        age_minutes = 2 * settings.lag_threshold_minutes
        backlog = Backlog(object_size_kb=4, age_minutes=age_minutes, drill_id=drill.id)
        create_backlog(drill.clients.store, backlog, settings=settings, now=utc_now())

    def revert(self, drill: Drill) -> None:
        remove_labels(drill)


def remove_labels(drill: Drill) -> None:
    """Remove a drill's synthetic labels; raise ``DrillError`` if one is left."""
    prefixes = list_prefixes(drill.settings)
    removal = revert_backlog(drill.clients.store, *prefixes, drill_id=drill.id)
    if removal.failed:
        raise DrillError(f"{len(removal.failed)} synthetic labels of {drill.id} are left")


_SYNTHETIC = _SyntheticLabels(
    "synthetic",
    remedy_steps=("6.3",),
    verdict_expected=Verdict.HEALTHY,  # no real label ever waits
)


def list_scenarios() -> dict[str, Scenario]:
    """Return the scenarios by name, except those of an environment that isn't installed."""
    scenarios: dict[str, Scenario] = {}
    for entry in entry_points(group="runbook.scenarios"):
        with suppress(ImportError):
            scenarios.update(entry.load())
    scenarios[_SYNTHETIC.name] = _SYNTHETIC
    return scenarios


def find_scenario(name: str) -> Scenario:
    scenarios = list_scenarios()
    if name not in scenarios:
        known = ", ".join(sorted(scenarios))
        raise errors.UsageError(f"there is no drill scenario {name!r}; there are: {known}")
    return scenarios[name]


def choose_scenario(settings: Settings, name: str = "") -> Scenario:
    """Return a scenario; the default is a fault of our local stack, else synthetic labels."""
    if name:
        return find_scenario(name)
    has_stack = settings.runbook_services == "supervisor"
    return find_scenario("pipeline_paused") if has_stack else _SYNTHETIC


#: The alerts that prevent a drill. The alert about an overdue drill must not.
_ALERTS = (DELAY_ALERT, UPLOAD_ALERT, BLIND_ALERT)


def wait_for(check: Callable[[], bool], *, timeout_s: float, apart_s: float = 0.5) -> bool:
    """Call ``check`` until it is true or time is up; return its result.

    A ``ClientError`` counts as False, except in the last call, which raises it.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(errors.ClientError):
            if check():
                return True
        time.sleep(apart_s)
    return check()


def wait_until_calm(settings: Settings, clients: Clients, *, timeout_s: float) -> list[str]:
    """Wait until ``list_trouble`` finds none; return what it finds last."""
    wait_for(lambda: not list_trouble(settings, clients), timeout_s=timeout_s, apart_s=2)
    return list_trouble(settings, clients)


def list_trouble(settings: Settings, clients: Clients) -> list[str]:
    """Return why no drill may begin, in words.

    Reasons are a pending or firing alert, unless PROMETHEUS_URL is empty; an unfinished release in
    the bucket; and overdue real labels. If one of these can't be read, that is the only reason.
    """
    trouble: list[str] = []
    try:
        check_store(clients)
        if settings.prometheus_url:
            alerts = [each for each in clients.prometheus.list_alerts() if each.name in _ALERTS]
            trouble += [f"{alert.name} is {alert.state}" for alert in alerts]
        for row in GATE.list_unfinished(clients):
            trouble.append(f"{row['plan']} is not finished: {row['way_on']}")
        now = utc_now()
        objects = iter_with_metadata(clients.store, settings.pending_prefix)
        labels = [read_label(info, settings, now) for info in objects]
        waiting = Waiting(labels, settings.lag_threshold_minutes)
        if waiting.overdue:
            count = count_of(len(waiting.overdue), "overdue real label")
            trouble.append(f"{count} (over {waiting.limit_minutes:g} min)")
    except (errors.SafetyError, errors.ClientError, MoveError) as error:
        return [f"whether all is well cannot be read ({error})"]
    return trouble


#: How long a single late label keeps an alert pending.
PENDING_S = 15.0
#: Parameters of section 4, for a small exercise.
_EXERCISE = {"count": 5, "object_size_kb": 4}


#: How a run ends without a failure.
_GOOD_RUNS = (RunStatus.DONE, RunStatus.STOPPED_AT_PLAN)


@dataclass
class Drill:
    """A running drill and its incident; ``has_fault`` while a fault may be left to revert."""

    settings: Settings
    clients: Clients
    scenario: Scenario
    progress: Progress
    incident: Incident
    injected_at: datetime | None = None
    has_fault: bool = False

    def __post_init__(self) -> None:
        self.id = get_drill_id(self.incident)  # in metadata and approvals
        #: The orders that the drill injected.
        self.order_ids = list_drill_orders(self.incident.journal.view())

    def mark(self, what: str, reason: str = "", **facts: Json) -> datetime:
        return self.incident.mark(f"drill_{what.replace(' ', '_')}", reason, **facts)

    def begin_stage(self, stage: str, words: str) -> datetime:
        self.progress(f"{stage}: {words}")
        return self.mark(stage)

    def conclude(self, section_name: str, incident: Incident) -> Verdict:
        """Read a section's steps without the notebook, and return the verdict."""
        inv = Investigation(
            incident, section=SECTIONS[section_name], settings=self.settings, clients=self.clients
        )
        for step in inv.section.STEPS:
            inv.read_step(step)
        return inv.conclude().verdict

    def is_well(self) -> bool:
        """Read section 5; tell whether symptom, cause and alert are gone."""
        verdict = self.conclude("05_root_cause", self.incident)
        return verdict in (Verdict.HEALTHY, Verdict.FIXED)

    def read_alert_states(self) -> set[str]:
        """Return the states of the scenario's alert: pending, firing, both or none."""
        alerts = self.clients.prometheus.list_alerts()
        return {alert.state for alert in alerts if alert.name == self.scenario.alert}

    def read_notices(self, status: str) -> dict[str, float]:
        """Return {channel: seconds from the fault to its first notice with this status}."""
        injected_at = self.injected_at or utc_now()
        notices = self.clients.notifications.list_notifications(since=injected_at)
        # Newest first, so that the oldest remains in the dict.
        return {
            notice.channel: round((notice.received_at - injected_at).total_seconds(), 2)
            for notice in reversed(notices)
            if notice.status == status and self.scenario.alert in notice.alertnames
        }

    def run(self, *section_names: str, **parameters: object) -> bool:
        """Run sections' notebooks; tell whether each ran to its end or stopped at a plan."""
        runs = run_sections(
            self.incident, SECTIONS, section_names, parameters, progress=self.progress
        )
        return all(run.status in _GOOD_RUNS for run in runs)


#: Waits until the drill closes the pipe, or its process dies. Then runs the given command until it
#: succeeds, for ten minutes or more, because the network may be down.
_WATCH = 'cat; for try in $(seq 100); do "$@" && break; sleep 3; done'


@contextmanager
def watch_drill(home: Path) -> Iterator[Callable[[], None]]:
    """Start a watchdog, which reverts the drill's fault when this process or the block ends.

    Yields a function that ends the watchdog, for a drill that left no fault. The watchdog notices
    the end, even by a kill, because only this process holds the other end of its stdin.
    """
    with (home / "drill-watch.log").open("ab") as log:
        revert = [sys.executable, "-m", "runbook_lib", "--runbook=fulfillment", "drill", "--revert"]
        process = subprocess.Popen(
            ["sh", "-c", _WATCH, f"the watchdog of {home}", *revert],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def dismiss() -> None:
        process.kill()
        process.wait()

    try:
        yield dismiss
    finally:
        if process.stdin is not None:
            process.stdin.close()


def run_drill(
    settings: Settings,
    scenario: Scenario,
    *,
    progress: Progress,
    calm_s: float = PENDING_S,
) -> Document:
    """Wait ``calm_s`` at most until there is no trouble, then carry out one drill and score it.

    Raises ``EnvironmentForbidsError`` outside a marked playground, and ``SafetyError`` if there is
    trouble; ``DrillError`` if another drill runs, the environment lacks what the scenario needs, or
    the system is not healthy; and on Ctrl-C or SIGTERM ``RunInterruptedError``, which says whether
    the fault is reverted.
    """
    check_environment(settings)
    clients = Clients(settings)
    check_connected(settings, clients)
    if scenario.needs and settings.runbook_services != "supervisor":
        text = f"{scenario.name} needs {scenario.needs}. "
        raise DrillError(f"{text}Elsewhere: runbook drill synthetic")
    check_playground(settings, clients.store)
    home = settings.runbook_home.resolve()
    with lock_drills(home):
        reasons = wait_until_calm(settings, clients, timeout_s=calm_s)
        if reasons:
            text = f"no drill now: {'; '.join(reasons)}. Nothing was injected"
            raise errors.SafetyError(f"{text}. Next: `runbook investigate`")
        incident = make_incident(settings, exercise=scenario.name)
        incident.update(approver=make_approver(incident.id))
        with watch_drill(home) as dismiss:
            drill = Drill(settings, clients, _add_waits(clients, scenario), progress, incident)
            document = _run_and_revert(drill)
            if not drill.has_fault:
                dismiss()
            return document


def _add_waits(clients: Clients, scenario: Scenario) -> Scenario:
    """Add the waits of the alert's rule to the scenario's timeouts."""
    rules, _ = attempt(clients.prometheus.list_rules)
    for rule in rules or ():
        if rule.name == scenario.alert:
            return replace(
                scenario,
                detect_timeout_s=scenario.detect_timeout_s + rule.for_s + rule.observe_s,
                clear_timeout_s=scenario.clear_timeout_s + rule.clear_s,
            )
    return scenario


def _run_and_revert(drill: Drill) -> Document:
    """Carry out a drill. However it ends, revert its fault and score it.

    A second Ctrl-C, while the fault is reverted, ends the drill; its watchdog then does the rest. A
    drill that ends before the injection is not scored.
    """
    ending: BaseException | None = None
    try:
        _carry_out(drill)
    except (errors.RunbookError, KeyboardInterrupt) as error:
        ending = error
        drill.mark("failed", reason=str(error) or "interrupted")
    is_interrupted = isinstance(ending, KeyboardInterrupt | errors.RunInterruptedError)
    if ending is not None and drill.injected_at is None:
        drill.incident.close(Verdict.UNKNOWN)
        write_outputs(drill.incident, SECTIONS)
        if is_interrupted:
            raise errors.RunInterruptedError("Interrupted. Nothing was injected.") from None
        raise ending
    with Interrupts() as interrupts:
        _revert(drill)
    document = _score_and_close(drill)
    if is_interrupted or interrupts.count:
        text = "Interrupted. The drill's fault is reverted."
        if drill.has_fault:
            text = f"Interrupted. The fault is still there. Revert it with: {REVERT_COMMAND}."
        if isinstance(ending, errors.ActionInterruptedError):
            text += f" {ending}"  # how to resume the change that was cut off
        raise errors.RunInterruptedError(text)
    return document


def _carry_out(drill: Drill) -> None:
    """Go through every stage, and journal marks for the score."""
    scenario = drill.scenario
    drill.mark("started")
    drill.begin_stage("steady state", "is the system healthy?")
    if not _wait_long(drill.is_well):
        raise DrillError(
            "the system is not healthy, so nothing was injected. `runbook investigate` says why; "
            f"the drill's readings are in {drill.incident.folder}"
        )
    _inject(drill)
    _wait_for_alert(drill)
    _wait_for_channels(drill)
    drill.begin_stage("diagnosis", "sections 1, 2, 3 and 5")
    drill.run("01_purpose", "02_signals_detection", "03_immediate_actions")
    _wait_long(lambda: _find_cause(drill))
    drill.mark("diagnosed")
    for step in scenario.exercise_steps:
        _approve_and_run(drill, "04_chaos_verification", (step,), _EXERCISE)
    drill.begin_stage("remedy", "section 6" if scenario.remedy_steps else "revert the fault")
    if scenario.remedy_steps:
        _approve_and_run(drill, "06_remediation", scenario.remedy_steps)
        drill.mark("remedied")
    if scenario.only_mitigates or not scenario.remedy_steps:
        _revert(drill)
    _wait_until_clear(drill)
    drill.begin_stage("close", "sections 6, 8 and 7")
    _wait_for_verdict(drill)
    drill.run("08_references", "07_postmortem")
    _revert(drill)
    if _wait_long(drill.is_well):
        drill.mark("steady_again")


def _find_cause(drill: Drill) -> bool:
    """Run section 5; tell whether it named a cause, which may show later than the alert."""
    drill.run("05_root_cause")
    return bool(POLICY.list_causes(drill.incident.journal.view()))


def _wait_long(check: Callable[[], bool]) -> bool:
    """Wait for up to 90 s, because rates and logs show a cause that long after its fault."""
    return wait_for(check, timeout_s=90, apart_s=3)


def _inject(drill: Drill) -> None:
    drill.has_fault = True
    drill.injected_at = drill.begin_stage("inject", drill.scenario.name)
    # Finish before an interrupt: half a fault could take effect after it was reverted.
    with delay_interrupts():
        drill.scenario.inject(drill)
    drill.mark("injected", orders=sorted(drill.order_ids))


def _wait_for_alert(drill: Drill) -> None:
    """Wait until the alert fires, or if none is expected, until section 5 sees trouble."""
    alert = drill.scenario.alert

    def is_seen() -> bool:
        if alert:
            return "firing" in drill.read_alert_states()
        return not drill.is_well()

    timeout_s = drill.scenario.detect_timeout_s
    drill.begin_stage("alert", f"wait for {alert or 'a breach'}, {timeout_s:g} s at most")
    if wait_for(is_seen, timeout_s=timeout_s) and alert:
        drill.mark("detect")


def _wait_for_channels(drill: Drill) -> None:
    """Wait until every channel got the alert, as far as ``NOTIFICATIONS_URL`` tells."""
    if not (drill.scenario.alert and drill.settings.notifications_url):
        return
    drill.begin_stage("channels", "wait until each got the alert")

    wait_for(
        lambda: len(drill.read_notices("firing")) == len(CHANNELS),
        timeout_s=drill.scenario.notify_timeout_s,
    )
    drill.mark("notify", told_s=drill.read_notices("firing"))


def _approve_and_run(
    drill: Drill, section_name: str, steps: tuple[str, ...], parameters: Mapping[str, object] = {}
) -> None:
    """Run a section up to its plans, approve those of some steps, and run it again.

    Each step's newest plan counts, even of an earlier run: the run that carries out 4.1 also plans
    4.2, the removal.
    """
    if not drill.run(section_name, **parameters):
        return
    newest: dict[str, Mapping[str, Json]] = {}
    journal = drill.incident.journal.view()
    for action in journal.list_actions(ActionPhase.PLANNED):
        newest[action.step] = action.result
    plans = [newest[step] for step in steps if step in newest]
    ids = ",".join(str(plan["plan"]) for plan in plans)
    hashes = ",".join(str(plan["sha256"]) for plan in plans)
    drill.run(section_name, **parameters, plan=ids, approve=hashes)


def _wait_until_clear(drill: Drill) -> None:
    """Wait until the alert is gone, and every channel knows it."""
    if not drill.scenario.alert:
        return

    def is_clear() -> bool:
        if drill.read_alert_states():
            return False
        shows_notices = bool(drill.settings.notifications_url)
        return not shows_notices or len(drill.read_notices("resolved")) == len(CHANNELS)

    limit_s = drill.scenario.clear_timeout_s
    drill.begin_stage("clear", f"wait until the alert clears, {limit_s:g} s at most")
    if wait_for(is_clear, timeout_s=limit_s):
        drill.mark("cleared")


def _wait_for_verdict(drill: Drill) -> None:
    """Read section 6 until its verdict is as expected; symptoms may outlast the fault."""
    verdicts = drill.scenario.verdicts
    _wait_long(lambda: drill.conclude("06_remediation", drill.incident) in verdicts)


def _revert(drill: Drill) -> None:
    """Revert the fault, unless that is done; journal a failure."""
    if not drill.has_fault:
        return
    drill.progress("revert")
    drill.mark("revert")
    try:
        drill.scenario.revert(drill)
    except (errors.RunbookError, OSError) as error:
        drill.mark("revert_failed", reason=str(error))
    else:
        drill.has_fault = False
        drill.mark("reverted")


def _score_and_close(drill: Drill) -> Document:
    """Score the drill, write its report, and close its incident unless the fault is left."""
    incident = drill.incident
    document = score(incident.journal.view(), drill.scenario, incident=incident.id, drill=drill.id)
    drill.mark(
        "scored",
        is_good=document.exit_code is ExitCode.OK,
        phases=list_durations(document.phases),
        objectives=document.objectives,
    )
    _note_trigger(drill, incident)
    if not drill.has_fault:
        incident.close(document.verdict)
        _close_other_incidents(drill)
    report = write_outputs(incident, SECTIONS)
    return document.model_copy(update={"report": str(report)})


def _note_trigger(drill: Drill, incident: Incident) -> None:
    """Journal the drill's fault as the trigger of an incident.

    Call this once the drill is scored, because the diagnosis must not read the trigger.
    """
    began_at = drill.injected_at or utc_now()
    text = gettext(
        "the drill %(incident)s injected %(fault)s",
        incident=drill.incident.id,
        fault=drill.scenario.name,
    )
    incident.mark(TRIGGER, at=format_time(began_at), text=text, source="the drill")


def _close_other_incidents(drill: Drill) -> None:
    """Close incidents that other commands opened since the injection, if all is well.

    Skips an incident in which somebody planned a change.
    """
    for folder in list_incidents(drill.incident.folder.parent):
        other = Incident(folder, redactor=drill.incident.redactor)
        with suppress(errors.RecordError):
            is_earlier = drill.injected_at is None or other.state.opened_at < drill.injected_at
            if other.is_closed or is_earlier or other.journal.view().actions:
                continue
            _note_trigger(drill, other)
            verdict = drill.conclude("06_remediation", other)
            if verdict in ENDED_WELL:
                other.update(exercise=drill.scenario.name, part_of=drill.incident.id)
                other.close(
                    verdict,
                    reason=f"a drill caused its trouble: ../{drill.incident.id}/report.html",
                )
                write_outputs(other, SECTIONS)


_Marks = Mapping[str, Mark]
#: For each phase, the marks at its start and its end.
_PHASES = {
    "detect_s": ("inject", "detect"),
    "diagnose_s": ("diagnosis", "diagnosed"),
    "remediate_s": ("remedy", "remedied"),
    "revert_s": ("revert", "reverted"),
}
#: Name, target, what was measured, and whether it met the target.
_Objective = tuple[str, str, str, bool]


def score(journal: JournalView, scenario: Scenario, *, incident: str, drill: str) -> Document:
    """Return what a drill measured, and which goals it met.

    ``phases`` are in seconds, or None if not reached or unknown. ``detect_s`` and ``notify_s``
    count from the injection, and ``clear_s`` from the last repair or revert until the alert is gone
    and every channel knows it.
    """
    marks = {mark.what.removeprefix("drill_"): mark for mark in journal.marks}
    proofs = list_proofs(journal)
    cause_found: tuple[str, ...] = ()
    if "diagnosed" in marks:
        last_seq = marks["diagnosed"].seq
        diagnosis = JournalView(entry for entry in journal.entries if entry.seq <= last_seq)
        cause_found = tuple(cause.name for cause in POLICY.list_causes(diagnosis))
    judged = journal.find_conclusion("06_remediation")
    document = Document(
        schema_name="runbook/drill/1",
        incident=incident,
        verdict=judged.verdict if judged else Verdict.UNKNOWN,
        commands=() if "reverted" in marks else (REVERT_COMMAND,),
        scenario=scenario.name,
        drill=drill,
        phases=_measure_phases(journal, marks),
        cause_expected=scenario.name,
        cause_found=cause_found,
        objects_lost=sum(proof["lost"] for proof in proofs) if proofs else None,
        foreign_touched=sum(proof["foreign_changed"] for proof in proofs) if proofs else None,
        reverted="reverted" in marks,
        error=marks["failed"].reason if "failed" in marks else "",
        report="",
    )
    objectives = to_rows(
        ("name", "target", "actual", "met"), _list_objectives(document, journal, marks, scenario)
    )
    missed = tuple(row["name"] for row in objectives if not row["met"])
    exit_code = ExitCode.RUN_FAILED if document.error else ExitCode.of(not missed)
    end = "passed" if exit_code is ExitCode.OK else "FAILED"
    answer = f"Drill {scenario.name} {end}"
    if missed:
        answer += f": {', '.join(missed)}"
    update = {"objectives": objectives, "missed": missed, "exit_code": exit_code, "answer": answer}
    return document.model_copy(update=update)


def list_durations(phases: Mapping[str, Json]) -> dict[str, Json]:
    """Return the phases in seconds, with the last channel's time as ``notify_s``."""
    told = [seconds for seconds in phases["notify_s"].values() if seconds is not None]
    return {**phases, "notify_s": max(told, default=None)}


def _measure_phases(journal: JournalView, marks: _Marks) -> dict[str, Json]:
    """Return ``score``'s phases; ``notify_s`` is {channel: seconds}."""
    phases: dict[str, Json] = {}
    for name, (start, end) in _PHASES.items():
        is_measured = start in marks and end in marks
        phases[name] = _count_seconds(marks[start].at, marks[end].at) if is_measured else None
    told_s = marks["notify"].facts["told_s"] if "notify" in marks else {}
    phases["notify_s"] = {channel: told_s.get(channel) for channel in CHANNELS}
    phases["clear_s"] = None
    if "cleared" in marks:
        cleared_at = marks["cleared"].at
        repairs = [*journal.list_actions(ActionPhase.APPLIED), marks.get("reverted")]
        repaired_at = [repair.at for repair in repairs if repair and repair.at <= cleared_at]
        if repaired_at:
            phases["clear_s"] = _count_seconds(max(repaired_at), cleared_at)
    return phases


def _count_seconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 2)


def _list_objectives(
    document: Document,
    journal: JournalView,
    marks: _Marks,
    scenario: Scenario,
) -> Iterator[_Objective]:
    """Yield each goal of a drill, and whether the drill met it."""
    phases = document.phases
    if scenario.alert:
        yield _judge_time("alert fires", phases["detect_s"], scenario.detect_timeout_s)
        if "notify" in marks:
            missing = [channel for channel, told_s in phases["notify_s"].items() if told_s is None]
            actual = f"missing: {', '.join(missing)}" if missing else "all"
            yield "every channel is notified", ", ".join(CHANNELS), actual, not missing
        yield _judge_time("alert clears", phases["clear_s"], scenario.clear_timeout_s)
    expected = document.cause_expected
    found = " and ".join(CAUSES[name].words for name in document.cause_found)
    is_found = expected in document.cause_found
    yield "cause is named", CAUSES[expected].words, found or "none", is_found
    verdict = document.verdict or Verdict.UNKNOWN
    allowed = " or ".join(VERDICT_WORDS[verdict] for verdict in scenario.verdicts)
    yield "verdict", allowed, VERDICT_WORDS[verdict], verdict in scenario.verdicts
    failed = [run.section for run in journal.runs if run.status not in _GOOD_RUNS]
    yield "no notebook fails", "no failure", ", ".join(failed) or "no failure", not failed
    is_steady = "steady_again" in marks
    reverted = "reverted" if document.reverted else "not reverted"
    health = "healthy again" if is_steady else "not healthy again"
    is_over = document.reverted and is_steady
    yield "the fault is taken back", "reverted, healthy again", f"{reverted}, {health}", is_over
    if scenario.releases:
        # A label that arrived and was then taken by a consumer counts as in place.
        in_place = sum(p["in_place"] + p["gone_after_landed"] for p in list_proofs(journal))
        target = "at least 1 proven in place"
        yield "labels are released", target, f"{in_place} proven in place", in_place > 0
        counts = {
            "nothing is lost": document.objects_lost,
            "nothing outside the plan is written": document.foreign_touched,
        }
        for name, count in counts.items():
            yield name, "0", "no proof" if count is None else str(count), count == 0


def _judge_time(name: str, actual_s: float | None, limit_s: float) -> _Objective:
    """Judge a time against its limit; None never meets it."""
    actual = "not reached" if actual_s is None else f"{actual_s:.1f} s"
    return name, f"within {limit_s:.0f} s", actual, actual_s is not None and actual_s <= limit_s
