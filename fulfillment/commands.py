"""The commands ``check``, ``init``, ``chaos``, ``fix`` and ``drill``, and those of a release.

Never rename a field of their documents; scripts read them.
"""

import hashlib
import json
import shlex
import sys
import tempfile
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from typer import Argument, Exit, Option, Typer

from objectmove.errors import MoveError
from runbook_lib import errors, model
from runbook_lib.approvals import SHORT_HASH, is_approved
from runbook_lib.errors import ExitCode
from runbook_lib.investigation import make_incident
from runbook_lib.model import ActionPhase, Json, Progress, Verdict, count_of, keep_quiet
from runbook_lib.record.folds import MOVES, group_actions
from runbook_lib.record.incident import open_incident
from runbook_lib.record.journal import utc_now
from runbook_lib.record.view import JournalView
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from runbook_lib.run.commands import run
from runbook_lib.run.console import IncidentId, command, list_options
from runbook_lib.run.documents import Document
from runbook_lib.run.move_commands import Approval, MoveCommands
from runbook_lib.section import check_fields
from runbook_lib.settings import find_checkout, find_env_file, find_root
from runbook_lib.show.text import capitalise

from .change import synthetic
from .change.exercises import (
    MARKER_KEY,
    REVERT_COMMAND,
    check_environment,
    check_playground,
    find_open_drill,
    lock_drills,
    read_marker,
)
from .change.release import GATE
from .clients import Clients
from .drills import (
    PENDING_S,
    Drill,
    Scenario,
    choose_scenario,
    find_scenario,
    list_durations,
    list_scenarios,
    remove_labels,
    run_drill,
    wait_until_calm,
)
from .investigation import Investigation
from .sections import SECTIONS, remediation
from .sections.purpose import list_obstacles, read_rights, read_unfinished
from .settings import Settings
from .waiting import list_prefixes

app = Typer()
chaos_app = Typer(help="A backlog of fake labels that cannot ship.", no_args_is_help=True)


_REVERT = "runbook chaos revert"
#: Plans the removal and asks for approval, where `runbook chaos revert` is refused.
_PLAN_REMOVAL = "runbook run 06"


@command(app)
def init(
    settings: Settings,
    *,
    marker: Annotated[str, Option(help="mark the bucket as local or demo")] = "",
    approve: Annotated[str, Option(help="the SHA-256 of what will be written")] = "",
    progress: Progress = keep_quiet,
) -> Document:
    """Write a commented .env into this folder, if none applies here; --marker allows drills.

    A ``.env`` in this folder or above it stays as it is. With ``marker`` no ``.env`` is written, so
    that the approved command reads the same settings as the command before it.

    Notes
    -----
    Changes the folder; undone by deleting the file. An approved ``marker`` changes the store
    instead; undone by deleting the marker object.
    """
    if marker:
        return _plan_or_write_marker(settings, marker, approve)
    existing = find_env_file(Path.cwd())
    env_file = existing or Path.cwd() / ".env"
    if existing is None:
        env_file.touch(mode=0o600, exist_ok=False)
        env_file.write_bytes(Path(__file__).with_name("env.example").read_bytes())
        progress(f"{env_file} is written")
    state = "is written" if existing is None else "stays as it is"
    return Document(
        schema_name="runbook/init/1",
        answer=f"{env_file} {state}",
        env_file=str(env_file),
        env_file_written=existing is None,
    )


def _plan_or_write_marker(settings: Settings, marker: str, approve: str) -> Document:
    """Say what would be written; with ``approve``, write it. A marked bucket is left alone."""
    if marker not in ("local", "demo"):
        raise errors.UsageError(f"--marker is local or demo, not {marker!r}")
    if settings.runbook_environment != marker:
        text = f"RUNBOOK_ENVIRONMENT is {settings.runbook_environment!r}, not {marker!r}: "
        raise errors.EnvironmentForbidsError(f"{text}both must say the same. Nothing was marked.")
    store = Clients(settings).store
    current = read_marker(store)
    if current not in ("", marker):
        text = f"{store.bucket}/{MARKER_KEY} says {current!r}: this may not be the store you think."
        raise errors.EnvironmentForbidsError(f"{text} Nothing was marked.")
    if current:
        return _make_marker_document(f"the bucket is marked as {marker} already")
    content = json.dumps({"environment": marker})
    writes = {
        "endpoint": store.endpoint,
        "bucket": store.bucket,
        "key": MARKER_KEY,
        "content": content,
    }
    sha256 = hashlib.sha256(json.dumps(writes, sort_keys=True).encode()).hexdigest()
    if not approve:
        command = f"runbook init --marker {marker} --approve {sha256[:SHORT_HASH]}"
        return _make_marker_document(
            "not written: it allows chaos, faults and drills on this bucket",
            exit_code=ExitCode.REFUSED,
            writes=writes,
            sha256=sha256,
            # The next command needs the setting, too, which may be set for this one only.
            apply=f"RUNBOOK_ENVIRONMENT={marker} {command}",
        )
    if not is_approved(sha256, approve):
        raise errors.SafetyError(f"this approval is of something else, not of {sha256}")
    store.put_object(MARKER_KEY, content.encode())
    return _make_marker_document(f"written; it reads {read_marker(store)!r}", writes=writes)


def _make_marker_document(what: str, **facts: Any) -> Document:
    """Return the document. ``writes`` is what would be written, and ``apply`` approves that."""
    told = {"marker": what, "writes": {}, "sha256": "", "apply": "", **facts}
    head = {"schema": "runbook/init/1", "answer": f"Marker: {what}"}
    return Document.model_validate(head | told)


@command(app)
def check(settings: Settings, *, progress: Progress = keep_quiet) -> Document:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads.

    Returns
    -------
    Exits with 0 if you can investigate: the store and Prometheus (unless left out) can be read, and
    no address is that of another system. Otherwise exits with 4. ``reachable`` is None for a system
    that is left out. ``unfinished`` has a row for each release and each killed drill.
    """
    progress("section 1")
    with tempfile.TemporaryDirectory() as home:
        incident = make_incident(settings, Path(home))
        inv = Investigation(incident, section=SECTIONS["01_purpose"], settings=settings)
        readings = {step: inv.read_step(step) for step in inv.section.STEPS}
    rights = readings[read_rights.id]
    obstacles = list_obstacles(rights.rows)
    can = "cannot" if obstacles else "can"
    sentences = [f"you {can} investigate: {rights.reason}"]
    for plugin in entry_points(group="runbook.checks"):
        sentences += plugin.load()()
    unfinished = readings[read_unfinished.id].rows
    summary = ". ".join(sentences)
    begun = [f"{row['plan']} is unfinished" for row in unfinished]
    commands = [str(row["way_on"]) for row in unfinished]
    if not obstacles:
        commands.append("runbook investigate")
    return Document(
        schema_name="runbook/check/1",
        exit_code=ExitCode.UNKNOWN if obstacles else ExitCode.OK,
        answer=". ".join([*begun, capitalise(summary)]),
        commands=tuple(commands),
        status="breach" if unfinished else "",
        summary=summary,
        systems=rights.rows,
        readings=[model.Observed.model_validate(vars(read)) for read in readings.values()],
        unfinished=unfinished,
    )


@command(
    chaos_app,
    *list_options(
        synthetic.Backlog, "count", "hold_minutes", "object_size_kb", "age_minutes", "prefix"
    ),
    name="create",
)
def create_chaos(
    settings: Settings, *, progress: Progress = keep_quiet, **options: Any
) -> Document:
    """Make fake labels that cannot ship, and expire by themselves; `revert` removes them."""
    progress("make synthetic labels")
    drill_id = synthetic.make_drill_id()
    given = {"drill_id": drill_id, **options}
    backlog = check_fields(synthetic.Backlog, given)
    made = synthetic.create_backlog(
        Clients(settings).store, backlog, settings=settings, now=utc_now()
    )
    return _make_chaos_document("create", created=len(made), drills={drill_id: len(made)})


@command(chaos_app, name="revert")
def revert_chaos(
    settings: Settings,
    *,
    prefix: Annotated[str, Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    drill_id: Annotated[str, Option(help="only this drill's objects")] = "",
    progress: Progress = keep_quiet,
) -> Document:
    """Remove objects that the metadata proves synthetic; look-alikes stay.

    Outside a marked playground, a removal needs an approved plan.
    """
    store = Clients(settings).store
    try:
        check_playground(settings, store)
    except errors.EnvironmentForbidsError as error:
        text = f"{error} Here 6.3 removes synthetic objects, after approval: `{_PLAN_REMOVAL}`"
        raise errors.EnvironmentForbidsError(text) from error
    progress("remove synthetic objects")
    prefixes = [prefix] if prefix else list_prefixes(settings)
    removal = synthetic.revert_backlog(store, *prefixes, drill_id=drill_id)
    return _make_chaos_document(
        "revert",
        exit_code=ExitCode.of(not removal.failed),
        removed=removal.removed,
        kept=removal.kept,
        failed=removal.failed,
    )


@command(chaos_app, name="status")
def read_chaos_status(settings: Settings, *, progress: Progress = keep_quiet) -> Document:
    """Count synthetic objects by drill. Only reads."""
    progress("count synthetic objects")
    store = Clients(settings).store
    found = synthetic.find_synthetic(store, list_prefixes(settings))
    drills = synthetic.count_by_drill(found.objects)
    command = _REVERT if settings.is_playground else _PLAN_REMOVAL
    return _make_chaos_document("status", drills=drills, next=command)


def _make_chaos_document(command: str, **facts: Any) -> Document:
    """Return the document. ``kept`` counts other objects; ``failed`` says why a key is left."""
    told = {"created": 0, "removed": 0, "kept": 0, "drills": {}, "failed": {}, "next": _REVERT}
    told |= facts
    if not told["drills"]:
        told["next"] = ""
    has_any = any(told[name] for name in ("drills", "removed", "failed"))
    head = {
        "schema": f"runbook/chaos-{command}/1",
        "answer": "Synthetic objects:" if has_any else "There is no synthetic object",
    }
    return Document.model_validate(head | told)


#: The actions that section 5 advises.
_ADVISED = ("6.1", "6.2")
#: Keeps 6.3 from planning a removal, because no drill has this name.
_NO_CLEAN_UP = "drill_id=none"


@command(app)
def fix(
    settings: Settings,
    *,
    approve: Approval = "",
    incident_id: IncidentId = "",
    progress: Progress = keep_quiet,
) -> Document:
    """Plan and show the next action that section 5 advises; with --approve, carry it out.

    Without --approve, runs 05 and 06, which plans the next action. With it, runs 06 with that plan,
    then 05 and 06 unless the incident is now fixed; once fixed, 08.

    Raises
    ------
    SafetyError
        If the incident has no plan of 6.1 or 6.2 with this hash.

    Notes
    -----
    ``done`` describes the approved plan, and ``action`` the one that waits for approval, if any.
    """
    ran: Document | None = None
    done: list[dict[str, Json]] = []
    action: dict[str, Json] | None = None
    command = "runbook fix"
    hindrance = ""
    carry_out = partial(run, settings, SECTIONS, incident_id=incident_id, progress=progress)
    if approve:
        plan_id = _find_approved_plan(settings, incident_id, approve)
        chosen = [f"plan={plan_id}", f"approve={approve}", _NO_CLEAN_UP]
        ran = carry_out(["06"], parameter=chosen)
        done = [plan for plan in ran.plans if plan["plan"] == plan_id]
    if ran is None or ran.exit_code in (ExitCode.NOT_OK, ExitCode.UNKNOWN):
        ran = carry_out(["05", "06"], parameter=[_NO_CLEAN_UP])
        offered = [plan for plan in ran.plans if plan["apply"] and plan["step"] in _ADVISED]
        # A re-trigger comes last, because it needs the worker; so does the last action, which
        # could otherwise be planned forever while more files arrive.
        journal = _read_journal(settings, ran.incident or "")
        applied = journal.list_actions(ActionPhase.APPLIED)
        last = ["retrigger", *(entry.action for entry in applied[-1:])]
        if not offered:
            hindrance = _find_hindrance(settings, ran.incident or "", progress)
            # Elsewhere somebody may have finished a move that was cut off here.
            for move in group_actions(journal.actions):
                if move.is_unfinished and move.first.action in MOVES:
                    command = f"runbook resume {move.first.original or move.plan}"
        for plan in sorted(offered, key=lambda plan: plan["action"] in last)[:1]:
            action = plan | {"apply": ""}  # ``next`` approves it
            command = f"runbook fix --approve {plan['sha256'][:SHORT_HASH]}"
    if ran.exit_code is ExitCode.OK:
        command = ran.next
        if ran.verdict is not Verdict.HEALTHY:
            carry_out(["08"])
    following = next(iter(ran.unfinished), command)
    lines = [f"{row['what']}: {row['status']}" for row in done]
    if hindrance:
        lines.append(f"No action that section 5 advises can be planned. 6.1: {hindrance}")
    return ran.model_copy(
        update={
            "schema_name": "runbook/fix/1",
            "answer": "\n".join([*lines, ran.answer]),
            "hidden": ("action", "done", "readings", "causes"),
            "action": action,
            "done": tuple(done),
            "plans": (action,) if action else (),
            "next": following,
        }
    )


def _find_hindrance(settings: Settings, incident_id: str, progress: Progress) -> str:
    """Plan a release, to say why none can be made."""
    try:
        return str(ReleaseCommands(settings, progress).plan(incident_id=incident_id).summary)
    except (errors.RunbookError, MoveError) as error:
        return str(error)


def _read_journal(settings: Settings, incident_id: str) -> JournalView:
    home = settings.runbook_home.resolve()
    incident = open_incident(home, incident_id, redactor=Redactor())
    return incident.journal.view() if incident is not None else JournalView()


def _find_approved_plan(settings: Settings, incident_id: str, approve: str) -> str:
    for entry in _read_journal(settings, incident_id).list_actions(ActionPhase.PLANNED):
        if entry.step in _ADVISED and is_approved(entry.result["sha256"], approve):
            return entry.plan
    text = f"{approve} is the hash of no plan of the open incident. Nothing was changed."
    raise errors.SafetyError(f"{text} Plan again: runbook fix")


class ReleaseCommands(MoveCommands):
    sections = SECTIONS
    section = remediation.NAME
    gate = GATE
    # 6.5 reads only once, and does not wait for samples of the metrics.
    fixed: ClassVar = {"wait_s": 0, "way": "release"}
    plan_options: ClassVar = {
        "prefix": "prefix",
        "to": "to",
        "match": "match",
        "older-than": "older_than_minutes",
        "limit": "limit",
        "only-orders": "only_orders",
        "park-unwanted": "park_unwanted",
    }


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

    Exits with 3 if the system is not healthy yet, or a release is unfinished. Raises ``DrillError``
    if the drill still runs, or its fault cannot be reverted; then the incident stays open.
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
        next="runbook investigate" if trouble else "",
        drill=drill.id,
        scenario=scenario.name,
        reverted=True,
        steady=not trouble,
        report=report,
        way_on=next_commands,
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

    The drill runs in the folder of the nearest ``.env``; if there is none, in the local stack's
    folder. Its command sets RUNBOOK_HOME and RUNBOOK_ENVIRONMENT, which this shell alone may have.

    Raises ``UsageError`` without a ``.env`` or such a scenario, and ``EnvironmentForbidsError``
    outside a local or demo environment.
    """
    folders = [find_root(Path.cwd(), find_checkout()), Settings.load().runbook_stack_home]
    usable = [folder for folder in folders if (folder / ".env").is_file()]
    if not usable:
        raise errors.UsageError(
            "a scheduled drill reads its settings from .env, and there is none: `runbook "
            "init` writes one; `runbook stack up` starts the local stack, which has its own"
        )
    # The drill will use that folder's settings, not this one's.
    settings = Settings.load(usable[0])
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
    words = [*program, chosen, "--json"]
    folder = str(usable[0])
    template = (_TEMPLATES / f"{kind}.txt").read_text("utf-8")
    if kind == "systemd":
        command = " ".join(map(_quote_for_systemd, words))
        # In a path, systemd interprets only specifiers.
        return template.format(command=command, folder=folder.replace("%", "%%"))
    texts = {
        "home": shlex.quote(str(home)),
        "command": shlex.join(words),
        "folder": shlex.quote(folder),
    }
    # For cron, an unescaped % ends the command.
    return template.format(**{name: text.replace("%", r"\%") for name, text in texts.items()})


def _quote_for_systemd(word: str) -> str:
    """Quote a word for ``ExecStart=``, so that systemd takes it literally."""
    for char, escaped in (("\\", r"\\"), ('"', r"\""), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, escaped)
    return f'"{word}"'
