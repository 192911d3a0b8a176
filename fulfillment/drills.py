"""A drill: steady state, inject, detect, notify, diagnose, remediate, verify, revert, score.

A drill runs the code of a real incident. It approves as ``drill:<id>``, and releases only labels of
orders that it injected itself. An environment registers its scenarios through the entry point group
``runbook.scenarios``. ``build_schedule`` makes the text of a schedule for drills, and installs
nothing.
"""

from __future__ import annotations

import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import Timeout

from runbook_lib import errors
from runbook_lib.investigation import make_incident
from runbook_lib.model import ActionPhase, Json, Progress, Verdict, format_time
from runbook_lib.record.detection import TRIGGER
from runbook_lib.record.history import list_history, write_gauges
from runbook_lib.record.incident import ENDED_WELL, Incident, list_incidents
from runbook_lib.record.journal import utc_now
from runbook_lib.record.view import JournalView
from runbook_lib.report import write_outputs
from runbook_lib.run.commands import run_sections
from runbook_lib.run.interrupts import Interrupts, hold_interrupts
from runbook_lib.run.notebooks import RunStatus, run_notebook
from runbook_lib.section import attempt
from runbook_lib.settings import find_root
from runbook_lib.show.text import VERDICT_WORDS

from .analysis.causes import CAUSES, Cause
from .change.drill_record import (
    REVERT_COMMAND,
    DrillRecord,
    lock_drills,
    read_record,
    remove_record,
    write_record,
)
from .change.environment_guard import check_environment, check_playground
from .change.synthetic import create_backlog, revert_backlog, sweep_expired
from .clients import Clients, check_connected
from .commands import CHANNELS, DrillDocument, Objective, Phases
from .drill_guard import check_interlock, is_alert_pending
from .investigation import Investigation
from .policy import POLICY
from .sections import SECTIONS
from .sections.immediate import expect_channels
from .settings import Settings


@dataclass(frozen=True)
class Scenario(ABC):
    """One fault that a drill can inject, and what the drill must then show.

    Attributes
    ----------
    cause_expected : the fault's name, and the cause that section 5 must name
    alert : the alert that must fire; empty: none is expected
    exercise_steps : steps of section 4 that the drill approves
    remedy_steps : steps of section 6 that the drill approves; none: the fault is taken back
        after the diagnosis, and no time to remediate is measured
    only_mitigates : the remedy only moves labels, so the drill takes the fault back after it
    verdict_expected : section 6's verdict at the end, when the fault is repaired or taken back
    releases : whether labels are moved, so that a proof is needed
    needs : what the environment must have, in words; empty: it runs on every DataFlow
    detect_timeout_s, notify_timeout_s, clear_timeout_s : how long the alert may take to fire, to
        reach every channel, and to clear. The waits of this environment's alert rule and route come
        on top
    """

    cause_expected: Cause
    alert: str = "FulfillmentDelay"
    exercise_steps: tuple[str, ...] = ()
    remedy_steps: tuple[str, ...] = ()
    only_mitigates: bool = False
    verdict_expected: Verdict = Verdict.FIXED
    releases: bool = False
    needs: str = ""
    detect_timeout_s: float = 45
    notify_timeout_s: float = 20
    clear_timeout_s: float = 45

    @property
    def name(self) -> str:
        """The scenario's name, which is its cause's."""
        return str(self.cause_expected)

    @abstractmethod
    def inject(self, drill: Drill) -> None:
        """Cause the fault for real; add the orders that it injects to ``drill.order_ids``."""

    @abstractmethod
    def revert(self, drill: Drill) -> None:
        """Take the fault back, whatever state the drill ended in."""

    def recover(self, drill: Drill) -> None:
        """Take back what a killed drill left: the fault, and all that it left half done."""
        self.revert(drill)


def list_accepted(expected: Verdict) -> tuple[Verdict, ...]:
    """Return the verdicts that count as the expected one.

    Where healthy is expected, fixed will do. Earlier in the drill a look may catch a brief trouble,
    such as a probe that fails while a service restarts; once that is over, the verdict is fixed.
    """
    if expected is Verdict.HEALTHY:
        return (Verdict.HEALTHY, Verdict.FIXED)
    return (expected,)


@dataclass(frozen=True)
class _SyntheticLabels(Scenario):
    """Labels that cannot ship. Needs only the store, Prometheus, and the parts of ``addons/``."""

    def inject(self, drill: Drill) -> None:
        """Make labels that seem to wait twice as long as the threshold."""
        settings = drill.settings
        create_backlog(
            drill.clients.store,
            settings=settings,
            prefix=settings.chaos_prefix,
            drill_id=drill.id,
            count=25,
            now=utc_now(),
            object_size_kb=4,
            age_minutes=2 * settings.lag_threshold_minutes,
        )

    def revert(self, drill: Drill) -> None:
        """Remove this drill's labels, if the remedy did not."""
        prefix = drill.settings.chaos_prefix
        removal = revert_backlog(drill.clients.store, prefix, drill_id=drill.id)
        if removal.failed:
            count = len(removal.failed)
            raise errors.RevertError(f"{count} labels of {drill.id} are left under {prefix}")


_SYNTHETIC = _SyntheticLabels(
    Cause.SYNTHETIC,
    remedy_steps=("6.3",),
    verdict_expected=Verdict.HEALTHY,  # no real label ever waits
)


def list_scenarios() -> dict[str, Scenario]:
    """Return every registered scenario by name, and the one that every DataFlow can run.

    If the programs of an environment are not installed, its scenarios are missing.
    """
    scenarios: dict[str, Scenario] = {}
    for entry in entry_points(group="runbook.scenarios"):
        with suppress(ImportError):
            scenarios.update(entry.load())
    scenarios[_SYNTHETIC.name] = _SYNTHETIC
    return scenarios


def find_scenario(name: str) -> Scenario:
    """Return the scenario with this name.

    Raises
    ------
    UsageError
        When there is none; lists those that exist.
    """
    scenarios = list_scenarios()
    if name not in scenarios:
        known = ", ".join(sorted(scenarios))
        text = f"there is no drill scenario {name!r}; there are: {known}"
        if len(scenarios) == 1:
            text += ". The local stack's come with: pip install 'fulfillment-runbook[stack]'"
        raise errors.UsageError(text)
    return scenarios[name]


def get_default_scenario(settings: Settings) -> str:
    """Return the default scenario's name: a fault of our local stack, else synthetic labels."""
    if settings.runbook_services == "supervisor":
        return "pipeline_paused"
    return _SYNTHETIC.name


class ChannelCount(NamedTuple):
    """How many requests Alertmanager made to a channel, and how many of them failed."""

    sent: float
    failed: float


@dataclass
class Scorecard:
    """What a drill measured; None: not measured.

    Attributes
    ----------
    cause_found : the causes that the diagnosis supported
    in_place : released labels that are proven to be at their destination, or to have left it again
    foreign_touched : objects with planned content that were written during the release, at keys
        that its plan does not name
    verdict : section 6's verdict at the end
    steady_after : whether the system was healthy again at the end
    has_fault : whether something is still to be taken back
    hears_receivers : whether the service at ``NOTIFICATIONS_URL`` says what the receivers got
    notified : Alertmanager's counts by channel; read only if ``hears_receivers`` is False
    why_unknown : why Alertmanager's counts are missing, too; empty: they are there, or not needed
    error : why the drill ended early
    """

    phases: Phases = field(default_factory=Phases)
    cause_found: tuple[str, ...] = ()
    failed_notebooks: list[str] = field(default_factory=list)
    in_place: int = 0
    objects_lost: int | None = None
    foreign_touched: int | None = None
    verdict: Verdict | None = None
    reverted: bool = False
    revert_error: str = ""
    steady_after: bool = False
    has_fault: bool = False
    hears_receivers: bool = True
    notified: dict[str, ChannelCount] = field(default_factory=dict)
    why_unknown: str = ""
    error: str = ""

    def add_proof(self, result: dict[str, Json]) -> None:
        """Add the counts of a release's proof. The result of another action changes nothing."""
        if "lost" not in result or "foreign_changed" not in result:
            return
        # A label that a consumer took after it had arrived counts as in place.
        self.in_place += int(result["in_place"])
        self.in_place += int(result["gone_after_landed"])
        lost_before = self.objects_lost or 0
        self.objects_lost = lost_before + int(result["lost"])
        touched_before = self.foreign_touched or 0
        self.foreign_touched = touched_before + int(result["foreign_changed"])


def compute_objectives(card: Scorecard, scenario: Scenario) -> Iterator[Objective]:
    """Yield each objective of the scenario, with what was measured."""
    if scenario.alert:
        yield _judge_time("alert fires", card.phases.detect_s, scenario.detect_timeout_s)
        if card.hears_receivers:
            yield _judge_channels(card)
            clear_name = "alert clears, every channel says so"
        else:
            yield _judge_counts(card)
            clear_name = "alert clears"
        yield _judge_time(clear_name, card.phases.clear_s, scenario.clear_timeout_s)
    yield _judge_cause(card, scenario)
    accepted = list_accepted(scenario.verdict_expected)
    yield Objective(
        name="verdict",
        target=" or ".join(VERDICT_WORDS[verdict] for verdict in accepted),
        actual=VERDICT_WORDS[card.verdict] if card.verdict else "none",
        met=card.verdict in accepted,
    )
    yield Objective(
        name="no notebook fails",
        target="no failure",
        actual=", ".join(card.failed_notebooks) or "no failure",
        met=not card.failed_notebooks,
    )
    reverted = "reverted" if card.reverted else "not reverted"
    health = "healthy again" if card.steady_after else "not healthy again"
    yield Objective(
        name="the fault is taken back",
        target="reverted, healthy again",
        actual=f"{reverted}, {health}",
        met=card.reverted and card.steady_after,
    )
    if scenario.releases:
        yield Objective(
            name="labels are released",
            target="at least 1 proven in place",
            actual=f"{card.in_place} proven in place",
            met=card.in_place > 0,
        )
        yield _judge_zero("nothing is lost", card.objects_lost)
        yield _judge_zero("nothing outside the plan is written", card.foreign_touched)


def _judge_channels(card: Scorecard) -> Objective:
    """Judge whether every channel got the alert, by what the receivers got."""
    missing = [channel for channel, time_s in card.phases.notify_s.items() if time_s is None]
    return Objective(
        name="every channel is notified",
        target="slack, email, teams",
        actual=f"missing: {', '.join(missing)}" if missing else "all three",
        met=not missing,
    )


def _judge_counts(card: Scorecard) -> Objective:
    """Judge whether every channel on the alert's route got it, by Alertmanager's counts.

    A system without Alertmanager does not fail here: nobody can know which channels got it.
    """
    delivered = [name for name, count in card.notified.items() if count.sent > count.failed]
    # A channel has failed when each of its requests failed.
    failed = [name for name, count in card.notified.items() if count.failed >= count.sent > 0]
    silent = [name for name, count in card.notified.items() if not count.sent]
    parts = []
    if delivered:
        parts.append(f"delivered by Alertmanager's count: {', '.join(delivered)}")
    if failed:
        parts.append(f"failed: {', '.join(failed)}")
    if silent:
        parts.append(f"not tried: {', '.join(silent)}")
    is_accepted = bool(delivered) or card.why_unknown == _NO_ALERTMANAGER
    return Objective(
        name="every channel is notified",
        target=", ".join(card.notified) or "the channels on the alert's route",
        actual="; ".join(parts) or f"nobody can know: {card.why_unknown}",
        met=is_accepted and not failed and not silent,
    )


def _judge_cause(card: Scorecard, scenario: Scenario) -> Objective:
    """Judge whether the expected cause is among those found; others may be there, too."""
    cause = str(scenario.cause_expected)
    words = [CAUSES[name].words for name in card.cause_found]
    return Objective(
        name="cause is named",
        target=CAUSES[cause].words,
        actual=" and ".join(words) or "none",
        met=cause in card.cause_found,
    )


def _judge_time(name: str, actual_s: float | None, limit_s: float) -> Objective:
    """Judge a time in seconds against its limit; None: what it measures did not happen."""
    return Objective(
        name=name,
        target=f"within {limit_s:.0f} s",
        actual="not reached" if actual_s is None else f"{actual_s:.1f} s",
        met=actual_s is not None and actual_s <= limit_s,
    )


def _judge_zero(name: str, count: int | None) -> Objective:
    """Judge a count that must be 0; None: no proof counted it."""
    return Objective(
        name=name,
        target="0",
        actual="no proof" if count is None else str(count),
        met=count == 0,
    )


_APART_S = 0.5
#: How long a single late label may keep an alert pending.
_PENDING_S = 15.0
#: How long a cause may outlast its fault: rates and logs look back.
_LOOKS_BACK_S = 90.0
_LOOKS_APART_S = 3.0
_NO_ALERTMANAGER = "ALERTMANAGER_URL and NOTIFICATIONS_URL are empty"
#: Parameters of section 4: its exercise stays small.
_EXERCISE = {"count": 5, "object_size_kb": 4}


@dataclass
class Drill:
    """A drill at work. Making a new one opens its incident.

    Attributes
    ----------
    incident : where everything is recorded
    id : the drill's name in metadata and approvals
    order_ids : orders that the drill injected itself
    injected_at : when the injection of the fault began
    counted_before : what Alertmanager counted before the fault, by channel
    card : what was measured
    killed : the incident of a killed drill, whose fault is to be taken back; None: the drill is
        new
    """

    settings: Settings
    clients: Clients
    scenario: Scenario
    progress: Progress
    order_ids: set[int] = field(default_factory=set)
    injected_at: datetime = field(default_factory=utc_now)
    counted_before: dict[str, ChannelCount] = field(default_factory=dict)
    card: Scorecard = field(default_factory=Scorecard)
    killed: Incident | None = None

    def __post_init__(self) -> None:
        self.card.hears_receivers = bool(self.settings.notifications_url)
        if self.killed is not None:
            self.incident = self.killed
            self.id = self.incident.state.drill_id
            self.order_ids.update(self.incident.state.drill_orders)
            return
        self.incident = make_incident(self.settings, drill=True)
        self.id = "d" + self.incident.id.removeprefix("inc-").lower()
        self.incident.update(drill_id=self.id, scenario=self.scenario.name, drill_orders=[])

    def record(self, event: str, **data: Json) -> None:
        """Write an event of the drill to the journal."""
        entry = {"section": "", "drill": self.id, "event": event, **data}
        self.incident.journal.append("drill", entry)

    def conclude(self, section_name: str, incident: Incident | None = None) -> Verdict:
        """Read every step of a section now, without a notebook; return the section's verdict.

        Parameters
        ----------
        incident : where readings and verdict are recorded; default: the drill's own
        """
        inv = Investigation(
            incident or self.incident,
            section=SECTIONS[section_name],
            settings=self.settings,
            clients=self.clients,
        )
        for step in inv.section.STEPS:
            inv.read_step(step)
        return inv.conclude().verdict

    def is_healthy(self) -> bool:
        """Read section 2, and tell whether all is well by this look alone."""
        last_seq = self.incident.journal.view().last_seq
        self.conclude("02_signals_detection")
        entries = self.incident.journal.view().entries
        this_look = JournalView(entry for entry in entries if entry.seq > last_seq)
        steps = SECTIONS["02_signals_detection"].STEPS.values()
        roles = {step.role for step in steps if step.role and step.needed}
        judgement = POLICY.judge(this_look, now=this_look.last_look_at, roles=roles)
        return judgement is not None and judgement.verdict is Verdict.HEALTHY

    def is_well_again(self) -> bool:
        """Read section 5, and tell whether symptom, cause and alert are gone now."""
        return self.conclude("05_root_cause") in (Verdict.HEALTHY, Verdict.FIXED)

    def wait_until_steady(self) -> bool:
        """Wait until all is well, 90 s at most; tell whether it is.

        Before the fault, section 2 decides. Once the drill has a verdict, section 5 decides.
        """
        check = self.is_well_again if self.card.verdict else self.is_healthy
        return wait_for(check, timeout_s=_LOOKS_BACK_S, apart_s=_LOOKS_APART_S)

    def list_received(self, status: str) -> dict[str, datetime]:
        """Return when each channel's receiver first got the alert since the fault.

        Empty without ``NOTIFICATIONS_URL``: then no log says what the receivers got.

        Parameters
        ----------
        status : ``firing`` or ``resolved``: what the notification says of the alert
        """
        if not self.card.hears_receivers:
            return {}
        received: dict[str, datetime] = {}
        notifications = self.clients.notifications.list_notifications(since=self.injected_at)
        for notification in notifications:
            is_mine = self.scenario.alert in notification.alertnames
            channel = notification.channel
            if is_mine and notification.status == status and channel in CHANNELS:
                received.setdefault(channel, notification.received_at)
        return received

    def count_notified(self) -> dict[str, ChannelCount]:
        """Return what Alertmanager counts for each channel since it started.

        Raises
        ------
        ClientError
            When Alertmanager cannot be asked.
        """
        totals = dict.fromkeys(CHANNELS, ChannelCount(0, 0))
        for count in self.clients.alertmanager.read_notification_counts():
            for channel, total in totals.items():
                if channel in count.integration.lower():  # ``teams`` is in ``msteamsv2``
                    sent = total.sent + count.sent
                    totals[channel] = ChannelCount(sent, total.failed + count.failed)
        return totals

    def find_notified(self) -> dict[str, ChannelCount]:
        """Return what Alertmanager sent since the fault, for each channel on the alert's route.

        Raises
        ------
        ClientError
            When Alertmanager cannot be asked.
        """
        alerts = self.clients.alertmanager.list_alerts()
        receivers: list[str] = []
        for alert in alerts:
            if alert.labels.get("alertname") == self.scenario.alert:
                receivers += alert.receivers
        since_fault = {}
        totals = self.count_notified()
        for channel in expect_channels(receivers):
            before = self.counted_before.get(channel, ChannelCount(0, 0))
            sent = totals[channel].sent - before.sent
            since_fault[channel] = ChannelCount(sent, totals[channel].failed - before.failed)
        return since_fault

    def have_all_received(self, status: str) -> bool:
        """Tell whether the receivers of all channels got this status of the alert.

        True without ``NOTIFICATIONS_URL``: then no log says what the receivers got.
        """
        if not self.card.hears_receivers:
            return True
        return len(self.list_received(status)) == len(CHANNELS)

    def read_alert_states(self) -> set[str]:
        """Return ``pending``, ``firing``, both, or nothing when the alert is not active."""
        alerts = self.clients.prometheus.list_alerts()
        return {alert.state for alert in alerts if alert.name == self.scenario.alert}

    def run_notebooks(self, *section_names: str) -> None:
        """Run the notebooks of some sections, and note on the scorecard those that fail."""
        runs = run_sections(
            self.incident,
            SECTIONS,
            section_names,
            progress=self.progress,
        )
        for run in runs:
            if run.status is RunStatus.FAILED:
                self.card.failed_notebooks.append(run.section)


def wait_for(check: Callable[[], bool], *, timeout_s: float, apart_s: float = _APART_S) -> bool:
    """Call ``check`` again and again, ``apart_s`` seconds apart, until it is true or time is up.

    An error of a client counts as "not yet", but in the last try it is raised.

    Returns
    -------
    Whether the check became true in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(errors.ClientError):
            if check():
                return True
        time.sleep(apart_s)
    return check()


#: Called with RUNBOOK_HOME, returns a context. If this process dies in it, or cannot take the
#: drill's fault back, a watchdog does so.
Watch = Callable[[Path], AbstractContextManager[object]]


def run_drill(
    settings: Settings,
    scenario: Scenario,
    *,
    progress: Progress,
    watch: Watch = nullcontext,
) -> DrillDocument:
    """Carry out one drill and score it.

    Parameters
    ----------
    watch : is entered before the fault, and left when the drill ends; by default nothing watches

    Raises
    ------
    NotConnectedError
        Without credentials, or when nothing answers.
    EnvironmentForbidsError
        Outside a marked local or demo environment.
    SafetyError
        When the fault of a killed drill is still there, an alert about labels is pending or fires,
        real labels wait too long, a release works in the bucket or holds the worker, or the store
        is not well. Also when one of these cannot be read.
    DrillError
        When another drill runs, the environment lacks what the scenario needs, or the system is not
        in its steady state.
    RunInterruptedError
        On Ctrl-C or SIGTERM. Its message says whether the fault is taken back.
    """
    check_environment(settings)
    clients = Clients(settings)
    check_connected(settings, clients)
    if scenario.needs and settings.runbook_services != "supervisor":
        text = f"{scenario.name} needs {scenario.needs}. "
        raise errors.DrillError(f"{text}Elsewhere: runbook drill --scenario synthetic")
    check_playground(settings, clients.store)
    home = settings.runbook_home.resolve()
    with be_only_drill(home):
        killed = read_record(home)
        if killed is not None:
            text = f"the fault of {killed.drill} ({killed.scenario}) is not taken back yet"
            raise errors.SafetyError(f"{text}. Nothing was injected. {REVERT_COMMAND}")
        # One late label makes an alert pending for some seconds. That is no reason to refuse.
        wait_for(lambda: not is_alert_pending(clients), timeout_s=_PENDING_S)
        check_interlock(settings, clients, now=utc_now())
        drill = Drill(settings, clients, _add_waits(clients, scenario), progress)
        record = DrillRecord(
            incident=drill.incident.id,
            drill=drill.id,
            scenario=scenario.name,
            began_at=utc_now(),
        )
        write_record(home, record)
        with watch(home):
            try:
                return _run(drill)
            finally:
                if not drill.card.has_fault:
                    remove_record(home)


@contextmanager
def be_only_drill(home: Path) -> Iterator[None]:
    """Be the only drill under RUNBOOK_HOME.

    Raises
    ------
    DrillError
        When another one is under way.
    """
    home.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_drills(home).acquire()
    except Timeout:
        raise errors.DrillError("another drill is running here; wait for it to end") from None
    with lock:
        yield


def _add_waits(clients: Clients, scenario: Scenario) -> Scenario:
    """Return the scenario with timeouts that include the waits of the alert's rule and route.

    These are ``for``, ``keep_firing_for``, evaluation intervals, ``group_wait`` and
    ``group_interval``. A rule or route that cannot be read adds nothing.
    """
    rules, _ = attempt(clients.prometheus.list_rules)
    timing, _ = attempt(clients.alertmanager.read_group_timing)
    for_s = 0.0
    keep_firing_for_s = 0.0
    evaluation_s = 0.0
    for rule in rules or ():
        if rule.name == scenario.alert:
            for_s = max(for_s, rule.for_s)
            keep_firing_for_s = max(keep_firing_for_s, rule.keep_firing_for_s)
            evaluation_s = max(evaluation_s, rule.group_interval_s)
    # Prometheus needs a scrape and some evaluations to see a fault, and again to see it gone. Four
    # evaluation intervals are enough for each.
    observation_s = 4 * evaluation_s
    group_wait_s, group_interval_s = timing or (0.0, 0.0)
    return replace(
        scenario,
        detect_timeout_s=scenario.detect_timeout_s + for_s + observation_s,
        notify_timeout_s=scenario.notify_timeout_s + group_wait_s,
        clear_timeout_s=scenario.clear_timeout_s
        + keep_firing_for_s
        + group_interval_s
        + observation_s,
    )


def _run(drill: Drill) -> DrillDocument:
    """Carry out a drill that may begin. However it ends, take its fault back and score it.

    Raises
    ------
    SteadyStateError
        When the system is not healthy. Nothing was injected, and nothing is scored.
    RunInterruptedError
        After an interrupt, once the drill is scored. Before the injection, nothing is scored.
    KeyboardInterrupt
        At the second Ctrl-C while the fault is taken back, or at any Ctrl-C while the drill is
        scored. The drill then gets no score.
    """
    again = f"runbook drill --scenario {drill.scenario.name}"
    _begin(drill, again)
    change_message = ""  # what a change that was interrupted says of itself
    is_interrupted = False
    try:
        _carry_out(drill)
    except errors.RunInterruptedError as error:  # already in the journal
        is_interrupted = True
        if isinstance(error, errors.ActionInterruptedError):
            change_message = str(error)
    except errors.RunbookError as error:
        drill.card.error = str(error)
        drill.record("failed", reason=str(error))
    except KeyboardInterrupt as error:
        is_interrupted = True
        change_message = str(error)
        _record_interrupt(drill, change_message or "Interrupted. The drill takes its fault back.")
    finally:
        # A fault that stays would be real trouble. So the first Ctrl-C in this block is only
        # counted. A second one ends the block.
        with Interrupts() as interrupts:
            _revert(drill)
        if interrupts.count > 0 and not is_interrupted:
            is_interrupted = True
            _record_interrupt(drill, "Interrupted while the drill took its fault back.")
        # A drill that ended early fails anyway, so nobody waits for its steady state.
        is_whole = not (is_interrupted or drill.card.error) and drill.card.verdict is not None
        try:
            if is_whole:
                drill.card.steady_after = drill.wait_until_steady()
        except KeyboardInterrupt:
            is_interrupted = True
            _record_interrupt(drill, "Interrupted after the drill took its fault back.")
        if is_interrupted:
            drill.card.error = _say_interrupted(drill, change_message, again)
        document = _close(drill)
    if is_interrupted:
        raise errors.RunInterruptedError(drill.card.error)
    return document


#: The stages of a drill, in their order; progress numbers them.
_STAGES = ("steady state", "inject", "alert", "channels", "diagnosis", "remedy", "clear", "close")


def _tell_stage(drill: Drill, stage: str, words: str) -> None:
    """Say which stage of a drill begins."""
    number = _STAGES.index(stage) + 1
    drill.progress(f"{number} of {len(_STAGES)} {stage}: {words}")


def _begin(drill: Drill, again: str) -> None:
    """Sweep expired leftovers of killed drills, and make sure that the system is healthy.

    Raises
    ------
    SteadyStateError, RunInterruptedError
        When the system is not healthy, or at Ctrl-C. Nothing was injected; the incident is closed,
        and its report written.
    """
    swept = sweep_expired(drill.clients.store, drill.settings, now=utc_now())
    drill.record("started", scenario=drill.scenario.name, swept=swept)
    _tell_stage(drill, "steady state", "is the system healthy?")
    try:
        is_steady = drill.wait_until_steady()
    except KeyboardInterrupt:
        text = f"Interrupted. Nothing was injected. Do it again with: {again}"
        _record_interrupt(drill, text)
        _give_up(drill)
        raise errors.RunInterruptedError(text) from None
    if not is_steady:
        _give_up(drill)
        raise errors.SteadyStateError(
            "the system is not healthy, so nothing was injected. `runbook investigate` says why; "
            f"the drill's readings are in {drill.incident.folder}"
        )
    drill.record("steady", before=True)


def _record_interrupt(drill: Drill, reason: str) -> None:
    """Write to the journal that the drill was interrupted."""
    entry = {"section": "", "reason": reason}
    drill.incident.journal.append("interrupted", entry)


def _give_up(drill: Drill) -> None:
    """Close the incident of a drill that injected nothing, and write its report."""
    drill.incident.close(Verdict.UNKNOWN)
    write_outputs(drill.incident, SECTIONS)


def _say_interrupted(drill: Drill, change_message: str, again: str) -> str:
    """Say whether the fault is gone, and what to do next.

    Parameters
    ----------
    change_message : what an interrupted change says of itself; empty: no change was interrupted
    again : the command that does the drill again
    """
    if drill.card.reverted:
        fault_state = "The drill's fault is taken back."
    else:
        fault_state = (
            f"The drill's fault could not be taken back: {drill.card.revert_error}. "
            f"Take it back with: {REVERT_COMMAND}."
        )
    for other in _list_other_incidents(drill):
        fault_state += (
            f" {other.id}, which was opened because of the fault, is still open. Once its alert "
            f"has cleared, measure and close it with: runbook run 06 07 --incident {other.id}."
        )
    if change_message:
        return f"{fault_state} {change_message}"
    return f"Interrupted. {fault_state} Do it again with: {again}"


def _carry_out(drill: Drill) -> None:
    """Inject the fault, and go through every stage after it; measure on the scorecard."""
    scenario = drill.scenario
    card = drill.card
    if not card.hears_receivers:
        with suppress(errors.ClientError):
            drill.counted_before = drill.count_notified()
    _tell_stage(drill, "inject", scenario.name)
    drill.injected_at = utc_now()
    drill.record("inject", scenario=scenario.name)
    card.has_fault = True
    # An interrupt waits: a half-made fault could take effect after it was taken back.
    with hold_interrupts():
        scenario.inject(drill)
    orders = sorted(drill.order_ids)
    drill.incident.update(drill_orders=orders)
    drill.record("injected", orders=orders)
    _wait_for_alert(drill)
    _wait_for_channels(drill)
    diagnosis_began = time.monotonic()
    _tell_stage(drill, "diagnosis", "sections 1, 2, 3 and 5")
    drill.run_notebooks(
        "01_purpose", "02_signals_detection", "03_immediate_actions", "05_root_cause"
    )
    card.phases.diagnose_s = _seconds_since(diagnosis_began)
    causes = POLICY.list_causes(drill.incident.journal.view())
    card.cause_found = tuple(cause.name for cause in causes)
    exercises = [(step,) for step in scenario.exercise_steps]
    _approve_and_run(drill, "04_chaos_verification", exercises, _EXERCISE)
    _tell_stage(drill, "remedy", "section 6" if scenario.remedy_steps else "take the fault back")
    if scenario.remedy_steps:
        remedy_began = time.monotonic()
        _approve_and_run(drill, "06_remediation", [scenario.remedy_steps])
        card.phases.remediate_s = _seconds_since(remedy_began)
    if not scenario.remedy_steps or scenario.only_mitigates:
        _revert(drill)
        _wait_until_clear(drill, utc_now())
    else:
        _wait_until_clear(drill, drill.incident.journal.view().last_applied_at or utc_now())
    _tell_stage(drill, "close", "sections 6, 8 and 7")
    _wait_for_verdict(drill)
    drill.run_notebooks("08_references", "07_postmortem")


def _wait_for_verdict(drill: Drill) -> None:
    """Read section 6 until its verdict is as expected, 90 s at most; note the last verdict.

    The signs of a fault outlast the fault, so the first verdict may still be another one.
    """

    def is_as_expected() -> bool:
        drill.card.verdict = drill.conclude("06_remediation")
        return drill.card.verdict in list_accepted(drill.scenario.verdict_expected)

    wait_for(is_as_expected, timeout_s=_LOOKS_BACK_S, apart_s=_LOOKS_APART_S)


def _wait_for_alert(drill: Drill) -> None:
    """Wait until the alert fires, and note how long that took.

    If no alert is expected, wait until section 2 is not healthy; then no time is noted.
    """

    def is_unhealthy() -> bool:
        return not drill.is_healthy()

    def fires() -> bool:
        return "firing" in drill.read_alert_states()

    alert = drill.scenario.alert
    timeout_s = drill.scenario.detect_timeout_s
    _tell_stage(drill, "alert", f"wait for {alert or 'a breach'}, {timeout_s:g} s at most")
    if not alert:
        wait_for(is_unhealthy, timeout_s=timeout_s)
    elif wait_for(fires, timeout_s=timeout_s):
        drill.card.phases.detect_s = _seconds_between(drill.injected_at, utc_now())
    drill.record("detect", seconds=drill.card.phases.detect_s)


def _wait_for_channels(drill: Drill) -> None:
    """Wait until every channel got the alert, and note when each got it."""

    def is_notified() -> bool:
        return drill.have_all_received("firing")

    _tell_stage(drill, "channels", "wait until each got the alert")
    notify_s = drill.card.phases.notify_s
    if not drill.card.hears_receivers:
        _wait_for_deliveries(drill)
    elif drill.card.phases.detect_s is not None:
        wait_for(is_notified, timeout_s=drill.scenario.notify_timeout_s)
        for channel, at in drill.list_received("firing").items():
            notify_s[channel] = _seconds_between(drill.injected_at, at)
    known = {channel: time_s for channel, time_s in notify_s.items() if time_s is not None}
    if drill.card.phases.detect_s is not None:
        # Our look may come up to 0.5 s late. If a receiver got the alert earlier, its time counts.
        drill.card.phases.detect_s = min([drill.card.phases.detect_s, *known.values()])
    drill.record("notify", seconds=known)


def _wait_for_deliveries(drill: Drill) -> None:
    """Wait until Alertmanager delivered to every channel on the alert's route, and note when.

    If that cannot be known, note why.
    """
    card = drill.card
    if not drill.settings.alertmanager_url:
        card.why_unknown = _NO_ALERTMANAGER
        return
    if card.phases.detect_s is None:
        card.why_unknown = "the alert did not fire"
        return
    notify_s = card.phases.notify_s

    def is_delivered() -> bool:
        card.notified = drill.find_notified()
        for channel, count in card.notified.items():
            if count.sent > count.failed and notify_s[channel] is None:
                notify_s[channel] = _seconds_between(drill.injected_at, utc_now())
        return bool(card.notified) and all(
            notify_s[channel] is not None for channel in card.notified
        )

    try:
        wait_for(is_delivered, timeout_s=drill.scenario.notify_timeout_s)
    except errors.ClientError as error:
        card.why_unknown = f"Alertmanager cannot be asked ({error})"
        return
    if not card.notified:
        names = ", ".join(CHANNELS)
        card.why_unknown = (
            f"Alertmanager holds the alert for no receiver that is named after {names}"
        )


def _approve_and_run(
    drill: Drill,
    section_name: str,
    groups: Sequence[tuple[str, ...]],
    parameters: Mapping[str, object] = {},
) -> None:
    """Run a section up to its plans; then, for each group of steps, approve their plans and rerun.

    Without groups nothing is run. If the first run fails, nothing is approved. Runs that fail, and
    the proofs of what was applied, are noted on the scorecard.
    """
    drill.progress(f"{section_name}: plan")
    journal = drill.incident.journal
    last_seq = journal.view().last_seq
    has_plans = bool(groups) and _run_section(drill, section_name, parameters)
    for steps in groups if has_plans else ():
        approval = _approve(drill, section_name, steps, after=last_seq)
        _run_section(drill, section_name, {**parameters, **approval})
    for action in journal.view().list_actions(ActionPhase.VERIFIED, after=last_seq):
        drill.card.add_proof(action.result)


def _run_section(drill: Drill, section_name: str, parameters: Mapping[str, object]) -> bool:
    """Run a section; return whether it ran to its end or to its plans. Else note the failure."""
    run = run_notebook(SECTIONS, section_name, drill.incident, parameters, progress=drill.progress)
    has_run = run.status in (RunStatus.DONE, RunStatus.STOPPED_AT_PLAN)
    if not has_run:
        drill.card.failed_notebooks.append(run.section)
    return has_run


def _approve(
    drill: Drill, section_name: str, steps: Sequence[str], *, after: int
) -> dict[str, str]:
    """Approve the newest plans of some steps; return the notebook parameters that approve them.

    Plans up to the journal's entry with the number ``after`` do not count.
    """
    newest: dict[str, Mapping[str, Json]] = {}
    for action in drill.incident.journal.view().list_plans(after=after).values():
        newest[action.step] = action.result
    approved = [step for step in steps if step in newest]
    ids = [str(newest[step]["plan"]) for step in approved]
    hashes = [str(newest[step]["sha256"]) for step in approved]
    approver = f"drill:{drill.id}"
    drill.record("approve", by=approver, steps=approved, plans=ids)
    drill.progress(f"{section_name}: apply {', '.join(approved)}, approved as {approver}")
    return {"plan": ",".join(ids), "approve": ",".join(hashes)}


def _wait_until_clear(drill: Drill, fixed_at: datetime) -> None:
    """Wait until the alert is gone and every channel said so; note how long that took.

    If the receivers say when they got the news, the last of these times counts. Without
    ``NOTIFICATIONS_URL`` nobody says it: then only the alert counts, by the time of our look.
    """
    if not drill.scenario.alert:
        return
    limit_s = drill.scenario.clear_timeout_s
    _tell_stage(drill, "clear", f"wait until the alert clears, {limit_s:g} s at most")

    def is_clear() -> bool:
        if drill.read_alert_states():
            return False
        return drill.have_all_received("resolved")

    if wait_for(is_clear, timeout_s=limit_s):
        resolved_at = drill.list_received("resolved").values()
        cleared_at = max(resolved_at, default=utc_now())
        clear_s = _seconds_between(fixed_at, cleared_at)
        # Negative if the receivers got the news before the remedy was noted.
        drill.card.phases.clear_s = max(0.0, clear_s)
    drill.record("clear", seconds=drill.card.phases.clear_s)


def _revert(drill: Drill) -> None:
    """Take the fault back, unless that is done already; note a failure on the scorecard."""
    if drill.card.reverted:
        return
    drill.progress("revert")
    began = time.monotonic()
    try:
        drill.scenario.revert(drill)
        drill.card.reverted = True
        drill.card.has_fault = False
        drill.card.phases.revert_s = _seconds_since(began)
        drill.record("reverted")
    except (errors.RunbookError, OSError) as error:
        drill.card.revert_error = str(error)
        drill.record("revert_failed", reason=str(error))


def _close(drill: Drill) -> DrillDocument:
    """Score the drill, close its incident, and write report and gauges.

    The incident stays open while the fault is not taken back. If the system is healthy again,
    incidents that others opened because of the fault are closed, too, if a last look finds them
    well.
    """
    card = drill.card
    verdict = card.verdict or Verdict.UNKNOWN
    objectives = tuple(compute_objectives(card, drill.scenario))
    if card.error:
        exit_code = errors.ExitCode.RUN_FAILED
    else:
        are_all_met = all(objective.met for objective in objectives)
        exit_code = errors.ExitCode.of(are_all_met)
    document = DrillDocument(
        schema_name="runbook/drill/1",
        incident=drill.incident.id,
        verdict=verdict,
        exit_code=exit_code,
        scenario=drill.scenario.name,
        drill=drill.id,
        phases=card.phases,
        cause_expected=str(drill.scenario.cause_expected),
        cause_found=card.cause_found,
        objects_lost=card.objects_lost,
        foreign_touched=card.foreign_touched,
        objectives=objectives,
        reverted=card.reverted,
        error=card.error,
    )
    score = document.model_dump(mode="json", exclude={"schema_name"})
    drill.record("scored", **score)
    _note_trigger(drill, drill.incident)
    if not card.has_fault:
        drill.incident.close(verdict)
    if card.steady_after:
        _close_other_incidents(drill)
    report = write_outputs(drill.incident, SECTIONS)
    home = drill.settings.runbook_home
    history = list_history(home, POLICY)
    write_gauges(home, history)
    return document.model_copy(update={"report": str(report)})


def _note_trigger(drill: Drill, incident: Incident) -> None:
    """Write into an incident's journal that a drill's fault began its trouble.

    A drill does so after it was scored, so that no look that counts for the score knows the fault.
    """
    text = f"the fault {drill.scenario.name} of the drill {drill.incident.id} was injected"
    facts = {"at": format_time(drill.injected_at), "text": text, "source": "the drill"}
    incident.journal.append(TRIGGER, facts)


def _close_other_incidents(drill: Drill) -> None:
    """Close incidents that others opened because of the fault, if a last look finds them well."""
    place = f"../{drill.incident.id}/report.html"
    text = "its trouble came from the fault of a drill, whose report counts the labels that the "
    text += f"drill's own looks saw: {place}"
    others = _list_other_incidents(drill)
    if others:
        names = ", ".join(other.id for other in others)
        drill.incident.update(opened_beside=names)
    for other in others:
        with suppress(errors.RecordError):
            _note_trigger(drill, other)
            verdict = drill.conclude("06_remediation", other)
            if verdict in ENDED_WELL:
                other.update(drill=True, fault_drill=drill.incident.id)
                other.close(verdict, reason=text)
                write_outputs(other, SECTIONS)


def _list_other_incidents(drill: Drill) -> list[Incident]:
    """Return the incidents that others, such as ``runbook serve``, began after the fault.

    Only those count that are not closed. One in which somebody planned a change belongs to that
    person, and is left out.
    """
    others = []
    for folder in list_incidents(drill.incident.folder.parent):
        if folder.name == drill.incident.id:
            continue
        other = Incident(folder, redactor=drill.incident.redactor)
        with suppress(errors.RecordError):
            state = other.state
            is_later = state.opened_at >= drill.injected_at
            is_unfinished = state.closed_at is None
            if is_unfinished and is_later and not other.journal.view().actions:
                others.append(other)
    return others


def _seconds_since(began: float) -> float:
    """Return the seconds since a time of the monotonic clock, to a hundredth."""
    return round(time.monotonic() - began, 2)


def _seconds_between(start: datetime, end: datetime) -> float:
    """Return the seconds from one time to another, to a hundredth."""
    seconds = (end - start).total_seconds()
    return round(seconds, 2)


Kind = Literal["cron", "systemd"]
_TEMPLATES = Path(__file__).with_name("templates")


def build_schedule(kind: Kind, *, folder: Path, home: Path, environment: str, scenario: str) -> str:
    """Return a crontab line or a systemd service and timer.

    Parameters
    ----------
    folder : where the drill runs; its ``.env`` is read
    home : RUNBOOK_HOME; with cron, lock and log lie there, too
    environment : RUNBOOK_ENVIRONMENT. Perhaps it is set in this shell only, so the line sets it
    scenario : its name; empty: every scenario that fits

    Raises
    ------
    UsageError
        When the scenario is unknown.
    """
    chosen = ["--scenario", find_scenario(scenario).name] if scenario else ["--all"]
    variables = [f"RUNBOOK_HOME={home}", f"RUNBOOK_ENVIRONMENT={environment}"]
    program = ["/usr/bin/env", *variables, sys.executable, "-m", "runbook_lib"]
    command = [*program, "drill", *chosen, "--json"]
    quote: Callable[[str], str]
    # In both formats a bare % means something else.
    if kind == "systemd":
        quote = _quote_unit
        percent = "%%"
        working_folder = str(folder)
    else:
        quote = shlex.quote
        percent = r"\%"
        working_folder = quote(str(folder))
    quoted_home = quote(str(home))
    quoted_command = " ".join(map(quote, command))
    template_file = _TEMPLATES / f"{kind}.txt"
    template = template_file.read_text("utf-8")
    return template.format(
        home=quoted_home.replace("%", percent),
        command=quoted_command.replace("%", percent),
        folder=working_folder.replace("%", percent),
    )


def find_settings_folder(settings: Settings) -> Path:
    """Return the folder whose ``.env`` a drill reads: the nearest one, else the local stack's.

    Raises
    ------
    UsageError
        When neither folder has a ``.env``.
    """
    for folder in (find_root(Path.cwd()), settings.runbook_stack_home):
        if (folder / ".env").is_file():
            return folder
    raise errors.UsageError(
        "a scheduled drill reads its settings from .env, and there is none: `runbook "
        "init` writes one; `runbook stack up` starts the local stack, which has its own"
    )


def _quote_unit(word: str) -> str:
    """Quote a word of a command for a systemd unit."""
    if word == shlex.quote(word):
        return word
    escaped = word.replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
