"""What ``runbook drill`` does: run one scenario, run all, or only take back a killed drill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from objectmove.errors import MoveError
from runbook_lib import errors
from runbook_lib.errors import ExitCode
from runbook_lib.model import Progress, Verdict
from runbook_lib.record.history import list_history, write_gauges
from runbook_lib.record.incident import Incident
from runbook_lib.record.journal import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs

from .change.drill_record import DrillRecord, find_killed_drill, read_record, remove_record
from .change.environment_guard import check_environment
from .change.release import GATE
from .change.synthetic import revert_backlog
from .clients import Clients
from .commands import RELEASE, AllDrillsDocument, DrillDocument, DrillRevertDocument, DrillRow
from .drill_guard import list_trouble
from .drills import (
    Drill,
    Scenario,
    Watch,
    be_only_drill,
    find_scenario,
    list_scenarios,
    run_drill,
    wait_for,
)
from .policy import POLICY
from .sections import SECTIONS
from .settings import Settings
from .waiting import list_prefixes

#: How long a drill's own alert and late labels may outlast its fault.
_CALM_S = 120.0
_LOOKS_APART_S = 2.0


def drill_one(
    settings: Settings, scenario: Scenario, *, progress: Progress, watch: Watch
) -> DrillDocument:
    """Take back what a killed drill left, then carry out one scenario; raises as ``run_drill``."""
    recovered = _recover(settings, progress)
    document = run_drill(settings, scenario, progress=progress, watch=watch)
    return document.model_copy(update={"recovered": recovered})


def drill_all(settings: Settings, *, progress: Progress, watch: Watch) -> AllDrillsDocument:
    """Carry out every scenario that fits this system, one after the other.

    A drill that fails does not stop the others. Each has its own incident, report and score.

    Returns
    -------
    A row for each drill. Exit code 3 unless each one passed.

    Raises
    ------
    SafetyError
        When the first scenario is refused, as ``run_drill`` says. Nothing was injected.
    RunInterruptedError
        On Ctrl-C or SIGTERM, once the running drill has taken its fault back.
    """
    recovered = _recover(settings, progress)
    scenarios = list(_list_fitting(settings))
    rows: list[DrillRow] = []
    drills: list[DrillDocument] = []
    for number, scenario in enumerate(scenarios, start=1):
        place = f"{number} of {len(scenarios)} {scenario.name}"
        say = partial(_say_in_place, progress, place)
        try:
            if rows:
                _wait_until_calm(settings, say)
            document = run_drill(settings, scenario, progress=say, watch=watch)
        except (errors.RunInterruptedError, KeyboardInterrupt) as error:
            raise _make_interrupted(str(error), rows, place) from None
        except errors.SafetyError as error:
            if not rows:
                raise
            row = DrillRow(scenario=scenario.name, end="refused", missed=str(error))
        except errors.RunbookError as error:
            row = DrillRow(scenario=scenario.name, end="FAILED", missed=str(error))
        else:
            drills.append(document)
            row = _make_row(document)
        rows.append(row)
        say(row.end)
    have_all_passed = all(row.end == "passed" for row in rows)
    return AllDrillsDocument(
        schema_name="runbook/drill-all/1",
        exit_code=ExitCode.of(have_all_passed),
        rows=tuple(rows),
        drills=tuple(drills),
        recovered=recovered,
    )


def _list_fitting(settings: Settings) -> Iterator[Scenario]:
    """Yield the scenarios that this system can run, sorted by name."""
    has_stack = settings.runbook_services == "supervisor"
    for _, scenario in sorted(list_scenarios().items()):
        if has_stack or not scenario.needs:
            yield scenario


def _say_in_place(
    progress: Progress, place: str, words: str, done: int = 0, total: int = 0, /
) -> None:
    """Report a drill's progress, after its place among all, such as ``2 of 6 pipeline_paused``."""
    progress(f"{place}: {words}", done, total)


def _wait_until_calm(settings: Settings, say: Progress) -> None:
    """Wait until what the last drill left no longer prevents the next drill, 120 s at most.

    If the last drill could not take its fault back, that is tried again here. If all is not calm
    after 120 s, the interlock refuses the next drill.
    """
    clients = Clients(settings)

    def recover_and_look() -> bool:
        try:
            _recover(settings, say)
        except (errors.SafetyError, errors.DrillError):
            return False
        return not list(list_trouble(settings, clients, now=utc_now()))

    say("wait until all is calm")
    wait_for(recover_and_look, timeout_s=_CALM_S, apart_s=_LOOKS_APART_S)


def _make_row(document: DrillDocument) -> DrillRow:
    """Return the row of a drill that got its score."""
    phases = document.phases
    notified = [seconds for seconds in phases.notify_s.values() if seconds is not None]
    has_passed = document.exit_code is ExitCode.OK
    return DrillRow(
        scenario=document.scenario,
        end="passed" if has_passed else "FAILED",
        detect_s=phases.detect_s,
        notify_s=max(notified, default=None),
        diagnose_s=phases.diagnose_s,
        remediate_s=phases.remediate_s,
        revert_s=phases.revert_s,
        clear_s=phases.clear_s,
        missed="; ".join(document.missed) or document.error,
    )


def _make_interrupted(text: str, rows: list[DrillRow], place: str) -> errors.RunInterruptedError:
    """Return the error that says what was interrupted, and how the drills before it ended.

    ``text`` is the error of the interrupted drill. It is empty when the interrupt came before the
    drill, or while the drill took its fault back.
    """
    words = text or "Interrupted. If a fault is left, `runbook check` names it."
    ends = ", ".join(f"{row.scenario} {row.end}" for row in rows) or "none"
    return errors.RunInterruptedError(
        f"{place}: {words} Drills that ended before: {ends}. Run all again: runbook drill --all"
    )


def _recover(settings: Settings, progress: Progress) -> str:
    """Take back what a killed drill left, and say what that was; empty: no drill was killed."""
    check_environment(settings)
    if find_killed_drill(settings.runbook_home.resolve()) is None:
        return ""
    document = revert_killed_drill(settings, progress=progress)
    return document.answer if document.drill else ""


def revert_killed_drill(settings: Settings, *, progress: Progress) -> DrillRevertDocument:
    """Take back what a killed drill left, close its incident, and check that all is well.

    Returns
    -------
    What was taken back. Exit code 3 when the system is not healthy yet, or a release is not
    finished.

    Raises
    ------
    DrillError
        When the drill is still under way, or its fault could not be taken back. Its record stays.
    """
    check_environment(settings)
    home = settings.runbook_home.resolve()
    if read_record(home) is not None:
        with be_only_drill(home):
            record = read_record(home)  # meanwhile another process may have taken all back
            if record is not None:
                return _end_killed_drill(settings, home, record, progress)
    return DrillRevertDocument(schema_name="runbook/drill-revert/1")


def _end_killed_drill(
    settings: Settings, home: Path, record: DrillRecord, progress: Progress
) -> DrillRevertDocument:
    """Take back a drill's fault and labels, finish its releases, close its incident.

    The drill's record is removed before the system is checked: by then the fault and the drill's
    labels are taken back. A release that is still unfinished has its own record.
    """
    incident = Incident(home / record.incident, redactor=Redactor(settings.secrets))
    drill = Drill(
        settings,
        Clients(settings),
        find_scenario(record.scenario),
        progress,
        killed=incident,
    )
    progress(f"{record.drill} was killed: take back {record.scenario}")
    drill.scenario.recover(drill)
    drill.record("recovered", scenario=record.scenario)
    store = drill.clients.store
    removal = revert_backlog(store, *list_prefixes(settings), drill_id=drill.id)
    if removal.failed:
        count = len(removal.failed)
        raise errors.RevertError(f"{count} synthetic labels of {drill.id} cannot be removed")
    ways_on = _finish_releases(drill)
    remove_record(home)
    progress("is the system healthy again?")

    def is_calm() -> bool:
        return not list(list_trouble(settings, drill.clients, now=utc_now()))

    # Half the time only: ``_wait_until_calm`` has 120 s in all, and calls this, too.
    is_steady = wait_for(is_calm, timeout_s=_CALM_S / 2, apart_s=_LOOKS_APART_S)
    if not incident.is_closed:
        reason = f"{drill.id} was killed; its fault is taken back"
        incident.close(Verdict.UNKNOWN, reason=reason)
    report = write_outputs(incident, SECTIONS)
    write_gauges(home, list_history(home, POLICY))
    return DrillRevertDocument(
        schema_name="runbook/drill-revert/1",
        incident=incident.id,
        exit_code=ExitCode.of(is_steady and not ways_on),
        drill=drill.id,
        scenario=record.scenario,
        reverted=True,
        steady=is_steady,
        report=str(report),
        way_on=tuple(ways_on),
    )


def _finish_releases(drill: Drill) -> list[str]:
    """Go on with a killed drill's releases; return a command for each that is still unfinished.

    The drill approved these releases, and they move only labels of its own orders.
    """
    for row in _list_own_releases(drill):
        plan_id = str(row["plan"])
        drill.progress(f"go on with {plan_id}")
        with suppress(MoveError, errors.ClientError, errors.SafetyError):
            RELEASE.resume(drill.settings, plan_id, approve="", progress=drill.progress)
    return [str(row["way_on"]) for row in _list_own_releases(drill)]


def _list_own_releases(drill: Drill) -> list[dict[str, object]]:
    """Return the unfinished releases whose plans lie in the folder of the drill's incident."""
    try:
        rows = GATE.list_unfinished(drill.clients)
    except MoveError as error:
        raise errors.RevertError(f"releases of {drill.id} cannot be read: {error}") from error
    plans = drill.incident.folder / "plans"
    return [row for row in rows if (plans / f"{row['plan']}.jsonl").is_file()]


def revert_until(settings: Settings, *, timeout_s: float, progress: Progress) -> None:
    """Take back a killed drill. Try again until that works, somebody else did it, or time is up.

    Raises
    ------
    RecordError
        When the drill's record is damaged: nobody knows what to take back.
    RunbookError, MoveError, OSError
        The error of the last attempt, when time is up.
    """
    deadline = time.monotonic() + timeout_s
    home = settings.runbook_home.resolve()
    while read_record(home) is not None:
        try:
            document = revert_killed_drill(settings, progress=progress)
        except (errors.RunbookError, MoveError, OSError) as error:
            if time.monotonic() >= deadline:
                raise
            progress(f"not yet: {error}")
            time.sleep(_LOOKS_APART_S)
        else:
            progress(document.answer)
