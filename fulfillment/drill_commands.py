"""``runbook drill``: run one scenario or all, revert a killed drill, or print a schedule."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Exit, Option, Typer

from objectmove.errors import MoveError
from runbook_lib import errors
from runbook_lib.errors import ExitCode
from runbook_lib.model import Json, Progress, Verdict, count_of
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from runbook_lib.run.console import command
from runbook_lib.run.documents import Document
from runbook_lib.settings import find_checkout, find_root

from .change.drill_record import REVERT_COMMAND, find_open_drill, lock_drills
from .change.environment_guard import check_environment
from .change.release import GATE
from .clients import Clients
from .commands import ReleaseCommands
from .drill_score import list_durations
from .drills import (
    PENDING_S,
    Drill,
    Scenario,
    choose_scenario,
    find_scenario,
    list_scenarios,
    remove_labels,
    run_drill,
    wait_until_calm,
)
from .sections import SECTIONS
from .settings import Settings

app = Typer()
Kind = Literal["cron", "systemd"]
#: How long a drill's own alert and late labels may outlast its fault.
_CALM_S = 120.0


@command(app)
def drill(
    settings: Settings,
    scenario: Annotated[
        str, Argument(help="fault; default: pipeline_paused on the local stack, else synthetic")
    ] = "",
    *,
    old_scenario: Annotated[str, Option("--scenario", hidden=True)] = "",
    every: Annotated[bool, Option("--all", help="every scenario that fits, in turn")] = False,
    revert: Annotated[
        bool, Option("--revert", help="only revert what a killed drill left")
    ] = False,
    print_cron: Annotated[
        bool, Option("--print-cron", help="only print a crontab line for a weekly drill")
    ] = False,
    print_systemd: Annotated[
        bool, Option("--print-systemd", help="only print systemd units for a weekly drill")
    ] = False,
    progress: Progress,
) -> Document:
    """Inject a real fault, run the runbook against it, score that, and put everything back."""
    if [bool(scenario), bool(old_scenario), every, revert].count(True) > 1:
        raise errors.UsageError("choose one scenario, or --all, or --revert")
    scenario = scenario or old_scenario
    if print_cron or print_systemd:
        kind: Kind = "cron" if print_cron else "systemd"
        sys.stdout.write(make_schedule(kind, scenario, every=every))
        raise Exit
    if revert:
        return revert_killed_drill(settings, progress=progress)
    if every:
        return drill_all(settings, progress=progress)
    return drill_one(settings, choose_scenario(settings, scenario), progress=progress)


def drill_one(settings: Settings, scenario: Scenario, *, progress: Progress) -> Document:
    """Revert what a killed drill left, then carry out one scenario; see ``run_drill``."""
    revert_killed_drill(settings, progress=progress)
    return run_drill(settings, scenario, progress=progress)


def drill_all(settings: Settings, *, progress: Progress) -> Document:
    """Carry out every scenario that fits this system, even if some fail.

    Raises ``SafetyError`` if the first is refused, and ``RunInterruptedError`` on Ctrl-C or SIGTERM
    once the running drill has reverted its fault.
    """
    has_stack = settings.runbook_services == "supervisor"
    scenarios = [
        each for _, each in sorted(list_scenarios().items()) if has_stack or not each.needs
    ]
    rows: list[dict[str, Json]] = []
    drills: list[Document] = []
    for number, scenario in enumerate(scenarios, start=1):
        progress(f"{number} of {len(scenarios)} {scenario.name}")
        try:
            revert_killed_drill(settings, progress=progress)
            calm_s = _CALM_S if rows else PENDING_S
            drill = run_drill(settings, scenario, progress=progress, calm_s=calm_s)
        except errors.RunInterruptedError:
            raise
        except errors.RunbookError as error:
            is_refused = isinstance(error, errors.SafetyError)
            if is_refused and not rows:
                raise
            end = "refused" if is_refused else "FAILED"
            row: dict[str, Json] = {"scenario": scenario.name, "end": end, "missed": str(error)}
        else:
            drills.append(drill)
            row = {
                "scenario": drill.scenario,
                "end": "passed" if drill.exit_code is ExitCode.OK else "FAILED",
                **list_durations(drill.phases),
                "missed": "; ".join(drill.missed) or drill.error,
            }
        rows.append(row)
    passed = sum(1 for row in rows if row["end"] == "passed")
    is_left = any(not drill.reverted for drill in drills)
    return Document(
        schema_name="runbook/drill-all/1",
        exit_code=ExitCode.of(passed == len(rows)),
        answer=f"{passed} of {count_of(len(rows), 'drill')} passed",
        commands=(REVERT_COMMAND,) if is_left else (),
        hidden=("drills",),  # the rows summarize them
        rows=rows,
        drills=drills,
    )


def revert_killed_drill(settings: Settings, *, progress: Progress) -> Document:
    """Revert a killed drill's fault, remove its labels, finish its releases, close its incident.

    Exits with 3 if the system is not healthy yet, or a release is unfinished.

    Raises
    ------
    DrillError
        If the drill still runs, or its fault cannot be reverted. The incident stays open.
    """
    check_environment(settings)
    home = settings.runbook_home.resolve()
    with lock_drills(home):
        incident = find_open_drill(home, redactor=Redactor(settings.secrets))
        if incident is None:
            return Document(
                schema_name="runbook/drill-revert/1",
                answer="No drill was killed: there is nothing to revert",
                drill="",
                reverted=False,
            )
        scenario = find_scenario(incident.state.exercise)
        drill = Drill(settings, Clients(settings), scenario, progress, incident)
        progress(f"{drill.id} was killed: revert {scenario.name}")
        next_commands = _revert_leftovers(drill)
        progress("is the system healthy again?")
        trouble = wait_until_calm(settings, drill.clients, timeout_s=_CALM_S / 2)
        incident.close(
            Verdict.UNKNOWN, reason=f"Drill {drill.id} was killed; its fault is reverted"
        )
        report = str(write_outputs(incident, SECTIONS))
    is_done = not trouble and not next_commands
    end = "; the system is not healthy yet" if trouble else ", and the system is healthy"
    return Document(
        schema_name="runbook/drill-revert/1",
        incident=incident.id,
        exit_code=ExitCode.of(is_done),
        answer=f"{drill.id} was killed. Its fault, {scenario.name}, is reverted{end}",
        drill=drill.id,
        scenario=scenario.name,
        reverted=True,
        steady=not trouble,
        report=report,
        way_on=next_commands,
        next="runbook investigate" if trouble else "",
    )


def _revert_leftovers(drill: Drill) -> list[str]:
    """Revert a drill's fault, remove its labels, and resume the releases that it approved.

    Returns a command for each release that is still unfinished.
    """
    drill.scenario.recover(drill)
    drill.mark("recovered")
    remove_labels(drill)
    for row in _list_unfinished_releases(drill):
        plan_id = str(row["plan"])
        drill.progress(f"resume {plan_id}")
        with suppress(MoveError, errors.ClientError, errors.SafetyError):
            ReleaseCommands(drill.settings, drill.progress).resume(plan_id)
    return [str(row["way_on"]) for row in _list_unfinished_releases(drill)]


def _list_unfinished_releases(drill: Drill) -> list[dict[str, object]]:
    """Return the unfinished releases that the drill planned."""
    plans = drill.incident.folder / "plans"
    rows = GATE.list_unfinished(drill.clients)
    return [row for row in rows if (plans / f"{row['plan']}.jsonl").is_file()]


_TEMPLATES = Path(__file__).with_name("templates")


def make_schedule(kind: Kind, scenario: str = "", *, every: bool = False) -> str:
    """Return a crontab line, or a systemd service and timer, for a weekly drill.

    The drill runs in the folder of the nearest ``.env``, or of the local stack's. Its command sets
    RUNBOOK_HOME and RUNBOOK_ENVIRONMENT, because these may be set in this shell only.

    Raises ``UsageError`` without a ``.env`` or such a scenario, and ``EnvironmentForbidsError``
    outside a local or demo environment.
    """
    folders = [find_root(Path.cwd(), find_checkout()), Settings.load().runbook_stack_home]
    having = [folder for folder in folders if (folder / ".env").is_file()]
    if not having:
        raise errors.UsageError(
            "a scheduled drill reads its settings from .env, and there is none: `runbook "
            "init` writes one; `runbook stack up` starts the local stack, which has its own"
        )
    # The drill will use that folder's settings, not this one's.
    settings = Settings.load(having[0])
    check_environment(settings)
    home = settings.runbook_home.resolve()
    variables = [
        f"RUNBOOK_HOME={home}",
        f"RUNBOOK_ENVIRONMENT={settings.runbook_environment}",
        "RUNBOOK_NAME=fulfillment",
    ]
    chosen = "--all"
    if not every:
        chosen = choose_scenario(settings, scenario).name
    program = ["/usr/bin/env", *variables, sys.executable, "-m", "runbook_lib", "drill"]
    command = [*program, chosen, "--json"]
    folder = str(having[0])
    template = (_TEMPLATES / f"{kind}.txt").read_text("utf-8")
    if kind == "systemd":
        words = [_quote_for_systemd(word) for word in command]
        # In a path, systemd interprets only specifiers.
        return template.format(command=" ".join(words), folder=folder.replace("%", "%%"))
    texts = {
        "home": shlex.quote(str(home)),
        "command": shlex.join(command),
        "folder": shlex.quote(folder),
    }
    # For cron, an unescaped % ends the command.
    return template.format(**{name: text.replace("%", r"\%") for name, text in texts.items()})


def _quote_for_systemd(word: str) -> str:
    """Quote a word for ``ExecStart=``, so that systemd takes ``%``, ``$`` and spaces literally."""
    for char, escaped in (("\\", r"\\"), ('"', r"\""), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, escaped)
    return f'"{word}"'
