"""What ``check``, ``init``, ``chaos``, ``fix`` and the commands of a release do; their documents.

This module holds the documents of drills, too. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typer import Option, Typer

from runbook_lib import errors, model
from runbook_lib.approvals import SHORT_HASH, is_approved
from runbook_lib.errors import ExitCode
from runbook_lib.investigation import make_incident
from runbook_lib.model import (
    ActionEntry,
    ActionPhase,
    Json,
    Progress,
    Verdict,
    count_of,
    keep_quiet,
)
from runbook_lib.record.incident import open_incident
from runbook_lib.record.journal import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.run.commands import run
from runbook_lib.run.console import IncidentId, command, list_options
from runbook_lib.run.documents import Document, Part, SectionsDocument
from runbook_lib.run.move_commands import Approval, MoveCommands
from runbook_lib.section import check_fields
from runbook_lib.settings import find_env_file
from runbook_lib.show.text import capitalise

from .change import synthetic
from .change.drill_record import REVERT_COMMAND
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


class CheckDocument(Document):
    """``check``: whether looking and releasing are possible, and what is missing. Has no verdict.

    A system's ``reachable`` is None when the settings leave the system out. ``recognised`` is False
    when another system answers at its address, and None while nobody can tell. ``rights`` says
    ``yes``, ``no`` or ``not known`` for each right, for example because only a change would tell.
    ``unfinished`` has a row for each release and each killed drill that somebody must finish.
    ``summary`` ends with the warnings of plug-ins, such as `runbook serve`.
    """

    summary: str
    systems: tuple[dict[str, Json], ...]
    readings: tuple[model.Observed, ...]
    unfinished: tuple[dict[str, Json], ...] = ()

    @property
    def mark(self) -> str:
        """``breach`` while something is unfinished, even if looking is possible.

        Otherwise it follows from the exit code.
        """
        return "breach" if self.unfinished else super().mark

    @property
    def answer(self) -> str:
        """What is unfinished, and whether looking and releasing are possible."""
        unfinished = [f"{row['plan']} is not over" for row in self.unfinished]
        return ". ".join([*unfinished, capitalise(self.summary)])

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that finish what was begun; then, if looking is possible, one that looks."""
        commands = [str(row["way_on"]) for row in self.unfinished]
        if self.exit_code is ExitCode.OK:
            commands.append("runbook investigate")
        return tuple(commands)


class InitDocument(Document):
    """``init``: whether ``.env`` was written; with ``--marker``, what became of the marker.

    ``writes`` is exactly what would be written as the marker, and where; it is empty when the
    bucket has the marker already. ``sha256`` is the hash of ``writes``. ``apply`` is the command
    that approves this hash.
    """

    schema_name: str = Field("runbook/init/1", alias="schema")
    env_file: str = ""
    env_file_written: bool = False
    marker: str = ""
    writes: dict[str, str] = Field(default_factory=dict)
    sha256: str = ""
    apply: str = ""

    @property
    def answer(self) -> str:
        """What became of the marker, or which file exists now."""
        if self.marker:
            return f"Marker: {self.marker}"
        state = "is written" if self.env_file_written else "stays as it is"
        return f"{self.env_file} {state}"


_REVERT = "runbook chaos revert"
#: Where `runbook chaos revert` is refused, this command plans the removal, and asks for approval.
_PLAN_REMOVAL = "runbook run 06"


class ChaosDocument(Document):
    """``chaos``: numbers of synthetic objects.

    ``drills`` says how many objects each drill has. ``kept`` counts other objects, which ``revert``
    leaves alone. ``failed`` has the keys that
    could not be removed, each with the reason. ``next`` is the command that removes the objects.
    """

    created: int = 0
    removed: int = 0
    kept: int = 0
    drills: dict[str, int] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    next: str = _REVERT

    @property
    def answer(self) -> str:
        """Whether there are any; the other fields say what was made, removed or found."""
        has_any = self.drills or self.removed or self.failed
        return "Synthetic objects:" if has_any else "There is no synthetic object"

    @property
    def commands(self) -> tuple[str, ...]:
        """The command that removes the synthetic objects, if there are any."""
        return (self.next,) if self.drills else ()


CHANNELS = ("slack", "email", "teams")


class Phases(Part, frozen=False):
    """Seconds that a drill's phases took; None: the phase was not reached or did not succeed.

    ``detect_s`` is from the injection until the alert fires, and ``notify_s`` from the injection to
    each channel's notification. ``clear_s`` is from the repair, or from the end of the fault where
    nothing repaired it, until the alert is gone and every channel said so, if that is known. The
    others say how long it took to diagnose, to remediate, and to take the fault back.
    """

    detect_s: float | None = None
    notify_s: dict[str, float | None] = dict.fromkeys(CHANNELS)
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None
    revert_s: float | None = None


class Objective(Part):
    """One thing that a drill must show."""

    name: str
    target: str
    actual: str
    met: bool


class DrillDocument(Document):
    """``drill``: phases and score of one drill."""

    scenario: str
    drill: str
    phases: Phases
    cause_expected: str
    cause_found: tuple[str, ...]
    objects_lost: int | None
    foreign_touched: int | None
    objectives: tuple[Objective, ...]
    reverted: bool
    report: str = ""
    error: str = ""

    @property
    def answer(self) -> str:
        """Whether the drill passed, and which objectives it missed."""
        end = "passed" if self.exit_code is ExitCode.OK else "FAILED"
        answer = f"Drill {self.scenario} {end}"
        if self.missed:
            answer += f": {', '.join(self.missed)}"
        return answer

    @property
    def commands(self) -> tuple[str, ...]:
        """The command that takes the fault back, if the drill could not."""
        return () if self.reverted else (REVERT_COMMAND,)

    @property
    def durations(self) -> dict[str, float | None]:
        """The phases in seconds; the channels' is that of the last one that got the alert."""
        told = [seconds for seconds in self.phases.notify_s.values() if seconds is not None]
        return {**self.phases.model_dump(), "notify_s": max(told, default=None)}

    @property
    def missed(self) -> tuple[str, ...]:
        """The objectives that the drill did not meet."""
        return tuple(objective.name for objective in self.objectives if not objective.met)


class AllDrillsDocument(Document):
    """``drill --all``: a row for each scenario; ``drills`` are the documents of those that ran.

    A row has ``scenario``, ``end`` (passed, FAILED or refused), the phases in seconds, and in
    ``missed`` the objectives that were not met, or why the drill was refused or ended early.
    """

    HIDDEN: ClassVar[tuple[str, ...]] = ("drills",)  # the rows say the same in short

    rows: tuple[dict[str, Json], ...]
    drills: tuple[DrillDocument, ...]

    @property
    def answer(self) -> str:
        """How many passed."""
        passed = sum(1 for row in self.rows if row["end"] == "passed")
        return f"{passed} of {count_of(len(self.rows), 'drill')} passed"

    @property
    def commands(self) -> tuple[str, ...]:
        """The command for a fault that a drill could not take back."""
        is_left = any(not drill.reverted for drill in self.drills)
        return (REVERT_COMMAND,) if is_left else ()


class DrillRevertDocument(Document):
    """``drill --revert``: what became of a killed drill.

    ``way_on`` has the commands that finish what is left.
    """

    drill: str = ""
    scenario: str = ""
    reverted: bool = False
    steady: bool = False
    report: str = ""
    way_on: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """What was taken back, and whether the system is healthy."""
        if not self.drill:
            return "No drill was killed: nothing is to be taken back"
        answer = f"{self.drill} was killed. Its fault, {self.scenario}, is taken back"
        if self.steady:
            return f"{answer}, and the system is healthy"
        return f"{answer}; the system is not healthy yet"

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that finish the drill's releases; if the system is unhealthy, one that looks."""
        if self.drill and not self.steady:
            return (*self.way_on, "runbook investigate")
        return self.way_on


@command(app)
def init(
    settings: Settings,
    *,
    marker: Annotated[str, Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, Option(help="the SHA-256 of what will be written")] = "",
    progress: Progress = keep_quiet,
) -> InitDocument:
    """Write a commented .env into this folder, if none applies here; --marker allows drills.

    A ``.env`` in this folder or above it stays as it is. With ``marker`` no ``.env`` is written, so
    that the approved command reads the same settings as the command before it.

    Parameters
    ----------
    marker : ``local`` or ``demo``; empty: no marker is asked for
    approve : the SHA-256 that an earlier call printed

    Raises
    ------
    UsageError
        When ``marker`` is neither ``local`` nor ``demo``.
    EnvironmentForbidsError
        When ``RUNBOOK_ENVIRONMENT`` is not ``marker`` (unset: production), or the bucket is marked
        as another environment.
    PlanNotApprovedError
        When ``approve`` is the hash of something else.

    Notes
    -----
    Changes the folder; undone by deleting the file. With an approved ``marker`` it changes the
    store instead; undone by deleting the marker object.
    """
    if marker:
        return _plan_or_write_marker(settings, marker, approve)
    existing = find_env_file(Path.cwd())
    env_file = existing or Path.cwd() / ".env"
    if existing is None:
        env_file.touch(mode=0o600, exist_ok=False)
        env_file.write_bytes(Path(__file__).with_name("env.example").read_bytes())
        progress(f"{env_file} is written")
    return InitDocument(
        env_file=str(env_file),
        env_file_written=existing is None,
    )


def _plan_or_write_marker(settings: Settings, marker: str, approve: str) -> InitDocument:
    """Write the marker if ``approve`` is its hash; without ``approve``, say what would be written.

    Writes nothing when the bucket has this marker already.
    """
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
        return InitDocument(marker=f"the bucket is marked as {marker} already")
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
        return InitDocument(
            exit_code=ExitCode.REFUSED,
            marker="not written: it allows chaos, faults and drills on this bucket",
            writes=writes,
            sha256=sha256,
            # Perhaps the setting was given for this command only: the next one needs it, too.
            apply=f"RUNBOOK_ENVIRONMENT={marker} {command}",
        )
    if not is_approved(sha256, approve):
        raise errors.PlanNotApprovedError(f"this approval is of something else, not of {sha256}")
    store.put_object(MARKER_KEY, content.encode())
    return InitDocument(marker=f"written; it reads {read_marker(store)!r}", writes=writes)


@command(app)
def check(settings: Settings, *, progress: Progress = keep_quiet) -> CheckDocument:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads.

    Returns
    -------
    Exit code 0 when looking is possible: the store, and Prometheus if there is one, answer and may
    be read, and no address is that of another system. Else 4.

    Notes
    -----
    Only reads, and leaves no folder behind.
    """
    progress("section 1")
    with tempfile.TemporaryDirectory() as home:
        incident = make_incident(settings, Path(home))
        inv = Investigation(incident, section=SECTIONS["01_purpose"], settings=settings)
        readings = {step: inv.read_step(step) for step in inv.section.STEPS}
    rights = readings[read_rights.id]
    obstacles = list_obstacles(rights.rows)
    hindered = "not " if obstacles else ""
    sentences = [f"looking is {hindered}possible: {rights.reason}"]
    for plugin in entry_points(group="runbook.checks"):
        sentences += plugin.load()()
    return CheckDocument(
        schema_name="runbook/check/1",
        exit_code=ExitCode.UNKNOWN if obstacles else ExitCode.OK,
        summary=". ".join(sentences),
        systems=rights.rows,
        readings=tuple(readings.values()),
        unfinished=readings[read_unfinished.id].rows,
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
) -> ChaosDocument:
    """Make fake labels that cannot ship, and expire by themselves; `revert` removes them.

    Parameters
    ----------
    options : fields of ``synthetic.Backlog``
    """
    progress("make synthetic labels")
    drill_id = synthetic.make_drill_id()
    given = {"drill_id": drill_id, **options}
    backlog = check_fields(synthetic.Backlog, given)
    made = synthetic.create_backlog(
        Clients(settings).store, backlog, settings=settings, now=utc_now()
    )
    return ChaosDocument(
        schema_name="runbook/chaos-create/1",
        created=len(made),
        drills={drill_id: len(made)},
    )


@command(chaos_app, name="revert")
def revert_chaos(
    settings: Settings,
    *,
    prefix: Annotated[str, Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    drill_id: Annotated[str, Option(help="only this drill's objects")] = "",
    progress: Progress = keep_quiet,
) -> ChaosDocument:
    """Remove what the metadata proves synthetic; look-alikes stay.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked playground. There the removal needs a plan and its approval.
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
    return ChaosDocument(
        schema_name="runbook/chaos-revert/1",
        exit_code=ExitCode.of(not removal.failed),
        removed=removal.removed,
        kept=removal.kept,
        failed=removal.failed,
    )


@command(chaos_app, name="status")
def read_chaos_status(settings: Settings, *, progress: Progress = keep_quiet) -> ChaosDocument:
    """Count synthetic objects by drill. Only reads."""
    progress("count synthetic objects")
    store = Clients(settings).store
    found = synthetic.find_synthetic(store, list_prefixes(settings))
    drills = synthetic.count_by_drill(found.objects)
    command = _REVERT if settings.is_playground else _PLAN_REMOVAL
    return ChaosDocument(schema_name="runbook/chaos-status/1", drills=drills, next=command)


#: The actions that section 5 advises.
_ADVISED = ("6.1", "6.2")
#: Clean-up is none of them: no object is of a drill with this name.
_NO_CLEAN_UP = "drill_id=none"


class FixDocument(SectionsDocument):
    """``fix``: what was carried out, and the one action that is next, which is its only plan.

    ``done`` has ``verb``, ``plan``, ``sha256``, ``status`` and more of the approved plan, and
    ``action`` has them of the plan that waits for approval; None when section 5 advises no action.
    """

    HIDDEN: ClassVar[tuple[str, ...]] = ("action", "done", "readings", "causes")

    action: dict[str, Json] | None = None
    done: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """What was done; then how the incident is now."""
        lines = [f"{row['what']}: {row['status']}" for row in self.done]
        return "\n".join([*lines, super().answer])


@command(app)
def fix(
    settings: Settings,
    *,
    approve: Approval = "",
    incident_id: IncidentId = "",
    progress: Progress = keep_quiet,
) -> FixDocument:
    """Plan the next action that section 5 advises, and show it; approved, carry it out.

    Runs 06 with the approved plan; then 05 and 06, which stops at a plan; when the incident is
    fixed, 08.

    Raises
    ------
    PlanNotApprovedError
        When the incident has no plan of 6.1 or 6.2 with this hash.
    """
    ran: SectionsDocument | None = None
    done: list[dict[str, Json]] = []
    action: dict[str, Json] | None = None
    command = "runbook fix"
    carry_out = partial(run, settings, SECTIONS, incident_id=incident_id, progress=progress)
    if approve:
        plan_id = _find_plan(settings, incident_id, approve)
        chosen = [f"plan={plan_id}", f"approve={approve}", _NO_CLEAN_UP]
        ran = carry_out(["06"], parameter=chosen)
        done = [plan for plan in ran.plans if plan["plan"] == plan_id]
    if ran is None or ran.exit_code in (ExitCode.NOT_OK, ExitCode.UNKNOWN):
        ran = carry_out(["05", "06"], parameter=[_NO_CLEAN_UP])
        offered = [plan for plan in ran.plans if plan["apply"] and plan["step"] in _ADVISED]
        # A re-trigger needs the worker. What was done last could be done without end, while more
        # files arrive.
        applied = _list_actions(settings, ran.incident or "", ActionPhase.APPLIED)
        last = ["retrigger", *(entry.action for entry in applied[-1:])]
        for plan in sorted(offered, key=lambda plan: plan["action"] in last)[:1]:
            action = plan | {"apply": ""}  # ``next`` approves it
            command = f"runbook fix --approve {plan['sha256'][:SHORT_HASH]}"
    if ran.exit_code is ExitCode.OK:
        command = ran.next
        if ran.verdict is not Verdict.HEALTHY:
            carry_out(["08"])
    return FixDocument.model_validate(
        {
            **vars(ran),
            "schema_name": "runbook/fix/1",
            "action": action,
            "done": tuple(done),
            "plans": (action,) if action else (),
            "next": next(iter(ran.unfinished), command),
        }
    )


def _list_actions(settings: Settings, incident_id: str, phase: ActionPhase) -> list[ActionEntry]:
    """Return the entries of actions in a phase, of the named incident or the open one."""
    home = settings.runbook_home.resolve()
    incident = open_incident(home, incident_id, redactor=Redactor())
    return incident.journal.view().list_actions(phase) if incident is not None else []


def _find_plan(settings: Settings, incident_id: str, approve: str) -> str:
    """Return the id of the plan that was approved."""
    for entry in _list_actions(settings, incident_id, ActionPhase.PLANNED):
        if entry.step in _ADVISED and is_approved(entry.result["sha256"], approve):
            return entry.plan
    text = f"{approve} is the hash of no plan of the open incident. Nothing was changed."
    raise errors.PlanNotApprovedError(f"{text} Plan again: runbook fix")


class ReleaseCommands(MoveCommands):
    """The commands of a release."""

    sections = SECTIONS
    section = remediation.NAME
    gate = GATE
    # 6.5 looks only once, and does not wait for samples of the metrics.
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
