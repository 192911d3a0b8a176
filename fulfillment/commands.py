"""The commands ``check``, ``init``, ``chaos`` and ``fix``, and those of a release.

Never rename a field of their documents; scripts read them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typer import Option, Typer

from objectmove.errors import MoveError
from runbook_lib import errors, model
from runbook_lib.approvals import SHORT_HASH, is_approved
from runbook_lib.errors import ExitCode
from runbook_lib.investigation import make_incident
from runbook_lib.model import (
    ActionPhase,
    Json,
    Progress,
    Verdict,
    keep_quiet,
)
from runbook_lib.record.folds import MOVES, group_actions
from runbook_lib.record.incident import open_incident
from runbook_lib.record.journal import utc_now
from runbook_lib.record.view import JournalView
from runbook_lib.redact import Redactor
from runbook_lib.run.commands import run
from runbook_lib.run.console import IncidentId, command, list_options
from runbook_lib.run.documents import Document
from runbook_lib.run.move_commands import Approval, MoveCommands
from runbook_lib.section import check_fields
from runbook_lib.settings import find_env_file
from runbook_lib.show.text import capitalise

from .change import synthetic
from .change.environment_guard import MARKER_KEY, check_playground, read_marker
from .change.release import GATE
from .clients import Clients
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
    """Say why labels that wait can't be released."""
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
