"""What this runbook's commands do, and the JSON documents they give: release, chaos, check, init.

Sections and command line call the same. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from chainlog import ChainedLog
from objectmove.errors import MoveError, NeedsApprovalError, StoreError
from objectmove.plan import PlanRow, save_plan
from objectmove.record import read_record, read_recorded_plan
from runbook_lib import errors, model
from runbook_lib.approvals import Plan
from runbook_lib.errors import ExitCode
from runbook_lib.investigation import make_incident
from runbook_lib.model import Json, Progress, keep_quiet
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.record.journal import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from runbook_lib.run.documents import Document, Part
from runbook_lib.section import get_step
from runbook_lib.settings import find_env_file
from runbook_lib.show.text import VERDICT_WORDS, count_of, format_bytes

from .change import synthetic
from .change.environment_guard import MARKER_KEY, check_playground, read_marker
from .change.release import MOVE, find_open_plan, find_ways_on, list_to_settle, list_unfinished
from .clients import Clients
from .investigation import Investigation
from .sections import SECTIONS
from .sections.detection import read_backlog_objects
from .sections.purpose import describe_access, find_closed, read_rights, read_unfinished
from .sections.remediation import describe_effect, read_recovery
from .sections.root_cause import STEPS as CAUSE_STEPS
from .settings import Settings
from .waiting import list_prefixes


class CheckDocument(Document):
    """``check``: whether looking and releasing are possible, and what is missing; no verdict.

    Of a system, ``reachable`` is None when the settings leave it out; ``recognised`` is False when
    another system answers at its address, and None while nobody can tell; ``rights`` says ``yes``,
    ``no``, or ``not known`` where only a change would tell.
    """

    summary: str
    systems: tuple[dict[str, Json], ...]
    readings: tuple[model.Observed, ...]
    unfinished: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """What is unfinished, and whether looking and releasing are possible."""
        held = [f"{row['plan']}: {row['state']}" for row in self.unfinished]
        return ". ".join([*held, self.summary])

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes what was begun; what looks, where looking is possible."""
        ways = [str(row["way_on"]) for row in self.unfinished]
        if self.exit_code is ExitCode.OK:
            ways.append("runbook investigate")
        return tuple(ways)


class InitDocument(Document):
    """``init``: ``writes`` is exactly what the marker would be, and where; ``apply`` does it."""

    env_file: str
    env_file_written: bool
    marker: str = ""
    writes: dict[str, str] = Field(default_factory=dict)
    sha256: str = ""
    apply: str = ""

    @property
    def answer(self) -> str:
        """What became of the marker, or which file there is now."""
        if self.marker:
            return f"Marker: {self.marker}"
        what = "is written" if self.env_file_written else "stays as it is"
        return f"{self.env_file} {what}"

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """What makes the marker."""
        return _offer("To make the marker, paste:", self.apply)


def _offer(words: str, command: str) -> tuple[tuple[str, str], ...]:
    """Return a command to paste, under its words; nothing where there is no command."""
    return ((words, command),) if command else ()


class ReleaseDocument(Document):
    """What is about one release; ``way_on`` names the commands that go on with what is not over."""

    plan: str
    way_on: tuple[str, ...] = ()


class PlanDocument(ReleaseDocument):
    """``plan``: what would move, and what would not, by reason; ``apply`` is the command.

    ``reason`` says why nothing may be released, and which setting decides it; ``rows`` are the
    first objects; ``effect`` holds the backlog now and after the plan, ``effect_reason`` the same
    in words, or what could not be read.
    """

    sha256: str
    objects: int
    bytes: int
    expires_at: str
    excluded: dict[str, int]
    path: str
    apply: str = ""
    reason: str = ""
    rows: tuple[dict[str, Json], ...] = ()
    others: str = ""
    window: str = ""
    effect: tuple[dict[str, Json], ...] = ()
    effect_reason: str = ""

    @property
    def answer(self) -> str:
        """How much would change; nothing did."""
        much = f"{count_of(self.objects, 'object')}, {format_bytes(self.bytes)}"
        if self.apply:
            return f"Planned, nothing was changed: {much}"
        if self.reason:
            return f"There is nothing to do: {self.reason}"
        return "There is nothing to do"

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The one command."""
        return _offer(f"To carry it out before {self.expires_at}, paste:", self.apply)


class ApplyDocument(ReleaseDocument):
    """``apply``, ``resume`` and ``undo``; ``already`` are those of ``moved`` that a look found.

    ``skipped``, ``conflicts`` and ``failed`` are objects of ``key`` and ``reason``; ``unproven``,
    ``lost_in_window`` and ``in_reach`` are keys. ``left`` counts what this plan will not move any
    more. ``is_held`` says that the worker is still paused for the plan. ``apply`` is the command
    that approves what the plan does not hold, where it needs that. ``reason`` says why the verdict
    of the incident is what it is now, ``next`` is the command of what comes next, and ``report`` is
    the report's path.
    """

    moved: int = 0
    already: int = 0
    skipped: tuple[Json, ...] = ()
    conflicts: tuple[Json, ...] = ()
    failed: tuple[Json, ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    left: int = 0
    lost_in_window: tuple[str, ...] = ()
    in_reach: tuple[str, ...] = ()
    is_held: bool = False
    stopped: str = ""
    apply: str = ""
    reason: str = ""
    next: str = ""
    report: str = ""

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """What approves that which the plan does not hold."""
        return _offer("To approve it, paste:", self.apply)

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        moved = f"{count_of(self.moved, 'object')} moved"
        if self.exit_code is ExitCode.OK:
            return f"Done: {moved}{self._say_verdict()}"
        numbers = {
            "skipped": len(self.skipped),
            "in conflict": len(self.conflicts),
            "failed": len(self.failed),
            "unproven": len(self.unproven),
            "waiting": self.waiting,
            "left": self.left,
        }
        parts = [moved, *_list_counts(numbers)]
        if self.is_held:
            parts.append("the worker is still paused for it")
        if self.stopped:
            parts.append(self.stopped)
        return f"NOT ALL DONE: {'; '.join(parts)}{self._say_verdict()}"

    def _say_verdict(self) -> str:
        if self.verdict is None:
            return ""
        return f". {VERDICT_WORDS[self.verdict]}: {self.reason}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The way on; after all was done, the proof, and what comes next."""
        if self.way_on:
            return self.way_on
        proof = f"runbook verify {self.plan}"
        return (proof, self.next) if self.next else (proof,)


def _list_counts(numbers: Mapping[str, int]) -> list[str]:
    """Return each number that is not 0 with its word."""
    return [f"{number} {word}" for word, number in numbers.items() if number]


class SettleDocument(ReleaseDocument):
    """``settle``: how many rows a person's word settled, and how many are left.

    Without a word, ``rows`` are those that wait for one: ``key``, ``order``, ``evidence``,
    ``rewritten``, ``why``, ``taken_does`` and ``not_taken_does``.
    """

    taken: int = 0
    not_taken: int = 0
    left: int
    rows: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """How many are settled, or wait for a word."""
        settled = self.taken + self.not_taken
        if settled:
            return f"{count_of(settled, 'object')} settled, {self.left} left"
        if self.left:
            return f"{count_of(self.left, 'label')} of {self.plan} wait for your word"
        return f"Nothing is open in {self.plan}"

    @property
    def commands(self) -> tuple[str, ...]:
        """How to say the word."""
        return self.way_on


class VerifyDocument(ReleaseDocument):
    """``verify``: the proof, in numbers of objects.

    ``gone_after_done`` is the old name of ``gone_after_landed``, for one release more.
    """

    in_place: int
    gone_after_landed: int
    gone_after_done: int
    unproven: int
    waiting: int
    changed_by_others: int
    lost: int
    duplicated: int
    foreign_changed: int
    skipped: int = 0
    taken_back: int = 0
    taken_back_by: str = ""
    settled_by_word: int = 0
    detail: dict[str, Json] = Field(default_factory=dict)

    @property
    def answer(self) -> str:
        """Whether the whole plan is proven."""
        if self.taken_back_by:
            undone = f"TAKEN BACK by {self.taken_back_by}: {self.taken_back} taken back"
            before = f"{self.gone_after_landed} taken by a consumer before"
            return f"{undone}, {self.waiting} wait now, {before}"
        proven = self.in_place + self.gone_after_landed
        numbers = {
            "unproven": self.unproven,
            "waiting": self.waiting,
            "changed by others": self.changed_by_others,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "skipped": self.skipped,
            "settled by word": self.settled_by_word,
        }
        parts = [f"{count_of(proven, 'object')} where planned", *_list_counts(numbers)]
        word = "Proven" if self.exit_code is ExitCode.OK else "NOT PROVEN"
        return f"{word}: {', '.join(parts)}"


class ChaosDocument(Document):
    """``chaos``: numbers of synthetic objects. ``kept`` are not proven synthetic and stay."""

    created: int = 0
    removed: int = 0
    kept: int = 0
    expired: int = 0
    drills: dict[str, int] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)

    @property
    def answer(self) -> str:
        """What was made, removed, or is there."""
        numbers = {
            "made": self.created,
            "removed": self.removed,
            "there": sum(self.drills.values()) - self.created,
            "kept": self.kept,
            "expired": self.expired,
            "failed": len(self.failed),
        }
        return f"Synthetic objects: {', '.join(_list_counts(numbers)) or 'none'}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What takes them back."""
        return ("runbook chaos revert",) if self.drills else ()


CHANNELS = ("slack", "email", "teams")


class Phases(Part, frozen=False):
    """Seconds that a drill's phases took; None: the phase was not reached or did not succeed.

    ``notify_s`` is from the injection to each channel's notification.
    """

    detect_s: float | None = None
    notify_s: dict[str, float | None] = dict.fromkeys(CHANNELS)
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None


class Objective(Part):
    """One thing that a drill must show."""

    name: str
    target: str
    actual: str
    met: bool


class DrillDocument(Document):
    """``drill``: its phases and its score."""

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
        """Whether it passed, and what it did not show."""
        missed = [objective.name for objective in self.objectives if not objective.met]
        end = "passed" if self.exit_code is ExitCode.OK else "FAILED"
        answer = f"Drill {self.scenario} {end}"
        if missed:
            answer += f": {', '.join(missed)}"
        return answer


def init(
    settings: Settings, *, marker: str = "", approve: str = "", progress: Progress = keep_quiet
) -> InitDocument:
    """Write ``.env`` into the current folder; with ``marker``, say what would mark the bucket.

    A ``.env`` in this folder or above it stays as it is, and none is written beside a marker: what
    is read now is what the approved command reads.

    Parameters
    ----------
    marker : ``local`` or ``demo``; empty: no marker is asked for
    approve : the SHA-256 that an earlier call printed

    Raises
    ------
    EnvironmentForbidsError
        When ``RUNBOOK_ENVIRONMENT`` is another (unset: production), or the bucket is marked as
        another.
    PlanNotApprovedError
        When the approval is of something else.

    Notes
    -----
    Changes the folder, and the store once it is approved; undone by deleting the object.
    """
    found = find_env_file(Path.cwd())
    env_file = found or Path.cwd() / ".env"
    is_new = found is None and not marker
    if is_new:
        env_file.touch(mode=0o600, exist_ok=False)
        env_file.write_bytes(Path(__file__).with_name("env.example").read_bytes())
        progress(f"{env_file} is written")
    document = InitDocument(
        schema_name="runbook/init/1", env_file=str(env_file), env_file_written=is_new
    )
    if marker:
        return _mark(document, settings, marker, approve)
    return document


def _mark(document: InitDocument, settings: Settings, marker: str, approve: str) -> InitDocument:
    """Say exactly what would be written, and where, if it is not there; write it once approved."""
    if marker not in ("local", "demo"):
        raise errors.UsageError(f"--marker is local or demo, not {marker!r}")
    if settings.runbook_environment != marker:
        text = f"RUNBOOK_ENVIRONMENT is {settings.runbook_environment!r}, not {marker!r}: "
        raise errors.EnvironmentForbidsError(f"{text}both must say the same. Nothing was marked.")
    store = Clients(settings).store
    present = read_marker(store)
    if present not in ("", marker):
        text = f"{store.bucket}/{MARKER_KEY} says {present!r}: this may not be the store you think."
        raise errors.EnvironmentForbidsError(f"{text} Nothing was marked.")
    content = json.dumps({"environment": marker})
    writes = {}
    if not present:
        writes = {
            "endpoint": store.endpoint,
            "bucket": store.bucket,
            "key": MARKER_KEY,
            "content": content,
        }
    sha256 = hashlib.sha256(json.dumps(writes, sort_keys=True).encode()).hexdigest()
    known: dict[str, object] = {"writes": writes, "sha256": sha256}
    if present:
        known["marker"] = f"the bucket is marked as {marker} already"
    elif not approve:
        known["marker"] = "not written: it allows chaos, faults and drills on this bucket"
        command = f"runbook init --marker {marker} --approve {sha256}"
        # The setting may stand in front of this command alone.
        known["apply"] = f"RUNBOOK_ENVIRONMENT={marker} {command}"
        known["exit_code"] = ExitCode.REFUSED
    elif approve != sha256:
        raise errors.PlanNotApprovedError(f"this approval is of something else, not of {sha256}")
    else:
        store.put_object(MARKER_KEY, content.encode())
        known["marker"] = f"written; it reads {read_marker(store)!r}"
    return document.model_copy(update=known)


def check(settings: Settings, *, progress: Progress = keep_quiet) -> CheckDocument:
    """Carry out section 1's steps without an incident folder.

    Notes
    -----
    Only reads, and leaves no folder behind.

    Returns
    -------
    Exit code 0 when looking is possible: store and Prometheus, where there is one, answer and
    may be read; else 4.
    """
    progress("section 1")
    with tempfile.TemporaryDirectory() as home:
        incident = make_incident(settings, Path(home))
        inv = Investigation(incident, section=SECTIONS["01_purpose"], settings=settings)
        readings = {step: inv.read_step(step) for step in inv.section.STEPS}
    rights = readings[get_step(read_rights).id]
    closed = find_closed(rights.rows)
    return CheckDocument(
        schema_name="runbook/check/1",
        exit_code=ExitCode.UNKNOWN if closed else ExitCode.OK,
        summary=describe_access(rights),
        systems=rights.rows,
        readings=tuple(readings.values()),
        unfinished=readings[get_step(read_unfinished).id].rows,
    )


def create_chaos(
    settings: Settings,
    *,
    count: int,
    hold_minutes: float,
    object_size_kb: int,
    age_minutes: float,
    prefix: str,
) -> ChaosDocument:
    """Create synthetic labels like ``create_backlog``; ``runbook chaos revert`` removes them."""
    drill_id = synthetic.make_drill_id()
    made = synthetic.create_backlog(
        Clients(settings).store,
        settings=settings,
        prefix=prefix or settings.chaos_prefix,
        drill_id=drill_id,
        count=count,
        hold_minutes=hold_minutes,
        object_size_kb=object_size_kb,
        age_minutes=age_minutes,
        now=utc_now(),
    )
    return ChaosDocument(
        schema_name="runbook/chaos-create/1", created=len(made), drills={drill_id: len(made)}
    )


def revert_chaos(settings: Settings, *, prefix: str, drill_id: str) -> ChaosDocument:
    """Remove what the metadata proves synthetic under a prefix, of all drills or of one."""
    store = Clients(settings).store
    check_playground(settings, store)
    prefixes = [prefix] if prefix else list_prefixes(settings)
    done = synthetic.revert_backlog(store, *prefixes, drill_id=drill_id)
    return ChaosDocument(
        schema_name="runbook/chaos-revert/1",
        exit_code=ExitCode.of(not done.failed),
        removed=done.removed,
        kept=done.kept,
        failed=done.failed,
    )


def read_chaos_status(settings: Settings) -> ChaosDocument:
    """Count synthetic objects by drill, and those whose time is over. Only reads."""
    now = utc_now()
    prefixes = list_prefixes(settings)
    drills: Counter[str] = Counter()
    expired = 0
    for info in synthetic.list_synthetic(Clients(settings).store, prefixes):
        metadata = info.metadata or {}
        drills[metadata.get("drill-id", "without an id")] += 1
        if synthetic.is_expired(info, now):
            expired += 1
    return ChaosDocument(schema_name="runbook/chaos-status/1", drills=dict(drills), expired=expired)


def sweep_chaos(settings: Settings) -> ChaosDocument:
    """Remove leftovers of killed drills: synthetic objects whose time is over."""
    store = Clients(settings).store
    removed = synthetic.sweep_expired(store, settings, now=utc_now())
    return ChaosDocument(schema_name="runbook/chaos-sweep/1", removed=removed)


# What is done by command is looked at once, without waiting for samples.
_open = partial(Investigation.open, section=SECTIONS["06_remediation"], wait_s=0)
#: What a verdict rests on after a change.
_READ_AGAIN = (*CAUSE_STEPS, get_step(read_recovery).id)
_TROUBLES = (
    "skipped",
    "conflicts",
    "failed",
    "unproven",
    "waiting",
    "left",
    "lost_in_window",
    "in_reach",
    "is_held",
    "stopped",
)
_SHOWN = 10


def plan_release(
    settings: Settings,
    *,
    prefix: str = "",
    to: str = "",
    match: str = "",
    older_than_minutes: float = 0,
    limit: int = 0,
    memory_removed: bool = False,
    incident_id: str,
    progress: Progress,
) -> PlanDocument:
    """Make a plan of a release by move; moves nothing. Exit 3 when labels wait and none may move.

    Raises
    ------
    LimitError
        When more waits than one plan may hold; gives the lines that split it.
    """
    backlog = get_step(read_backlog_objects).id
    incident, is_new = Investigation.find(settings, incident_id, keeps=True, skip_step=backlog)
    progress("list what waits")
    inv = _open(
        incident.id,
        settings=settings,
        progress=progress,
        way="release",
        prefix=prefix,
        to=to,
        match=match,
        older_than_minutes=older_than_minutes,
        limit=limit,
        memory_removed=memory_removed,
    )
    plan = _must_move(inv.plan("6.1"))
    effect, words, oldest_minutes = describe_effect(inv, plan)
    if oldest_minutes > settings.lag_threshold_minutes and not incident.is_open:
        incident.open(backlog)
    if is_new and plan.is_empty and not incident.is_open:
        incident.close(model.Verdict.UNKNOWN)
    is_refused = plan.is_empty and plan.summary.get("reason")
    known = {
        "exit_code": ExitCode.of(not is_refused),
        "effect": tuple(effect),
        "effect_reason": words,
    }
    return _stop_at(inv, plan, f"apply {plan.id}").model_copy(update=known)


def apply_release_plan(
    settings: Settings,
    plan_id: str,
    *,
    approve: str,
    strict: bool = False,
    consumer_stands_still: bool = False,
    progress: Progress,
) -> ApplyDocument | PlanDocument:
    """Carry out an approved plan; without approval it stops at the plan, exit 5.

    Raises
    ------
    SafetyError
        When it is not approved.
    RefusedError
        When a safety rule refuses; nothing was changed.
    """
    inv, plan = _open_plan(
        settings, plan_id, progress, strict=strict, consumer_stands_still=consumer_stands_still
    )
    if not approve:
        return _stop_at(inv, plan, f"apply {plan.id}")
    return _sum_up(inv, "apply", plan, inv.apply(plan, approve=approve).result)


def resume_release_plan(
    settings: Settings,
    plan_id: str,
    *,
    approve: str = "",
    consumer_stands_still: bool = False,
    stop_here: bool = False,
    worker_goes_on: bool = False,
    same_store: bool = False,
    progress: Progress,
) -> ApplyDocument:
    """Go on with a plan that was cut off, here or on another machine; its approval counts."""
    inv, plan = _open_plan(
        settings,
        plan_id,
        progress,
        approve=approve,
        consumer_stands_still=consumer_stands_still,
        stop_here=stop_here,
        worker_goes_on=worker_goes_on,
        same_store=same_store,
    )
    try:
        return _sum_up(inv, "resume", plan, inv.resume(plan).result)
    except NeedsApprovalError as error:
        return ApplyDocument(
            schema_name="runbook/resume/1",
            incident=inv.incident.id,
            exit_code=ExitCode.REFUSED,
            plan=plan.id,
            stopped=error.reason,
            apply=error.command,
        )


def undo_release(
    settings: Settings,
    plan_id: str,
    *,
    approve: str,
    consumer_stands_still: bool = False,
    same_store: bool = False,
    progress: Progress,
) -> ApplyDocument | PlanDocument:
    """Take a release, or a settling, back; without approval it stops at its plan, exit 5."""
    inv = _open_on(
        settings,
        plan_id,
        progress,
        undo=plan_id,
        consumer_stands_still=consumer_stands_still,
        same_store=same_store,
    )
    plan = _plan_about(inv, "6.1.1", plan_id, approve)
    if not approve:
        command = f"undo {plan_id}"
        if plan.content.move.header.action == "undo":
            command += " --consumer-stands-still"
        if same_store:
            command += " --same-store"
        return _stop_at(inv, plan, command)
    return _sum_up(inv, "undo", plan, inv.apply(plan, approve=approve).result)


def settle_release(
    settings: Settings,
    plan_id: str,
    *,
    taken: bool | None,
    keys: Sequence[str],
    approve: str,
    same_store: bool = False,
    progress: Progress,
) -> SettleDocument | PlanDocument:
    """Write down a person's word on rows of which nobody can know; without a word show them.

    Returns
    -------
    Without a word: the rows, exit 3; none, exit 0. Without approval: the plan, exit 5.

    Raises
    ------
    UsageError
        When the approval is of the other word.
    """
    inv, plan = _open_plan(settings, plan_id, progress, look=True, same_store=same_store)
    holder = find_open_plan(inv, plan)
    if holder != plan_id:
        plan_id = holder
        inv, plan = _open_plan(settings, plan_id, progress, look=True, same_store=same_store)
    if taken is None:
        return _show_open_rows(inv, plan, keys, same_store=same_store)
    word = "taken" if taken else "not_taken"
    inv = _open_on(
        settings,
        plan_id,
        progress,
        settle=plan_id,
        settle_word=word,
        settle_keys=json.dumps(list(keys)) if keys else "",
        same_store=same_store,
    )
    plan = _plan_about(inv, "6.1.2", plan_id, approve)
    planned_word = plan.content.move.header.word
    if planned_word != word:
        raise errors.UsageError(f"{plan.id} says {planned_word}, and you say {word}")
    if plan.is_empty:
        return SettleDocument(
            schema_name="runbook/settle/1", incident=inv.incident.id, plan=plan_id, left=0
        )
    if not approve:
        command = f"settle {plan_id} --{word.replace('_', '-')}"
        if same_store:
            command += " --same-store"
        return _stop_at(inv, plan, command)
    result = inv.apply(plan, approve=approve).result
    settled = result.get("settled", 0)
    left = _count_open_rows(inv, plan_id)
    write_outputs(inv.incident, SECTIONS)
    ways_on = find_ways_on(plan, result)
    if left and not ways_on:
        ways_on = [f"runbook settle {plan_id}"]
    return SettleDocument(
        schema_name="runbook/settle/1",
        incident=inv.incident.id,
        exit_code=_judge(result),
        plan=plan_id,
        taken=settled if taken else 0,
        not_taken=0 if taken else settled,
        left=left,
        way_on=tuple(ways_on),
    )


def _count_open_rows(inv: Investigation, plan_id: str) -> int:
    """Return how many rows of a plan still wait for a word."""
    for row in list_unfinished(inv.clients):
        if row["plan"] == plan_id:
            return int(row["rows"])
    return 0


def _show_open_rows(
    inv: Investigation, plan: Plan, keys: Sequence[str], *, same_store: bool
) -> SettleDocument:
    """Show what a person must settle, with evidence for each row."""
    rows = list_to_settle(inv, plan, keys=keys)
    flags = "".join(f" --key {shlex.quote(key)}" for key in keys)
    if same_store:
        flags += " --same-store"
    words = ("--taken", "--not-taken") if rows else ()
    return SettleDocument(
        schema_name="runbook/settle/1",
        incident=inv.incident.id,
        exit_code=ExitCode.of(not rows),
        plan=plan.id,
        left=len(rows),
        rows=tuple(rows),
        way_on=tuple(f"runbook settle {plan.id} {word}{flags}" for word in words),
    )


def verify_release_plan(
    settings: Settings, plan_id: str, *, same_store: bool = False, progress: Progress
) -> VerifyDocument:
    """Prove by an independent listing where each planned object is now."""
    progress("list the bucket")
    inv, plan = _open_plan(settings, plan_id, progress, look=True, same_store=same_store)
    if not plan.trace.exists():
        raise errors.SafetyError(f"{plan.id} was never applied: there is nothing to prove")
    entry = inv.verify(plan)
    document = {
        "schema": "runbook/verify/1",
        "incident": inv.incident.id,
        "exit_code": ExitCode.of(entry.phase is model.ActionPhase.VERIFIED),
        "gone_after_done": entry.result["gone_after_landed"],
        "way_on": _list_ways_on(inv, plan.id),
    }
    detail = {}
    for name, value in entry.result.items():
        if name in VerifyDocument.model_fields:
            document[name] = value
        else:
            detail[name] = value
    return VerifyDocument.model_validate({**document, "detail": detail})


def _open_plan(
    settings: Settings, plan_id: str, progress: Progress, **how: Any
) -> tuple[Investigation, Plan]:
    """Return a release's plan, and the incident in which it goes on."""
    inv = _open_on(settings, plan_id, progress, plan=plan_id, **how)
    (plan,) = inv.load_named_plans()
    if plan.kind is not MOVE:
        raise errors.UsageError(f"{plan_id} is no release's plan: run 06 with -p plan={plan_id}")
    return inv, plan


def _open_on(
    settings: Settings, plan_id: str, progress: Progress, *, look: bool = False, **parameters: Any
) -> Investigation:
    """Open the incident in which a release goes on: its own, until it is closed or damaged.

    Parameters
    ----------
    look : whether nothing is changed, so that its own will always do
    """
    folder = _find_folder(settings, plan_id) or _fetch_plan(settings, plan_id)
    if folder is None:
        raise errors.UsageError(f"no incident under {settings.runbook_home} has a plan {plan_id!r}")
    incident = Incident(folder, redactor=Redactor(settings.secrets))
    is_damaged = bool(incident.find_damage())
    if is_damaged or (incident.is_closed and not look):
        incident, _ = Investigation.find(settings, keeps=is_damaged)
    return _open(incident.id, settings=settings, progress=progress, **parameters)


def _fetch_plan(settings: Settings, plan_id: str) -> Path | None:
    """Take a plan that this machine does not have from the bucket, which remembers what was begun.

    Returns
    -------
    The folder of the incident in which it is now; None when the bucket does not hold it.
    """
    try:
        bucket = Investigation.connect(settings).bucket
        record = read_record(bucket, plan_id)
        if record is None or record.is_tombstone:
            return None
        incident, _ = Investigation.find(settings, keeps=True)
        save_plan(read_recorded_plan(bucket, record, folder=incident.folder / "plans"))
    except (StoreError, errors.ClientError):
        return None
    ledger = ChainedLog(incident.folder / "ledger" / f"{plan_id}.jsonl")
    ledger.append("fetched", {"from": "the bucket's record"})
    return incident.folder


def _find_folder(settings: Settings, plan_id: str) -> Path | None:
    """Return the incident's folder on this machine that has a plan."""
    for folder in list_incidents(settings.runbook_home.resolve()):
        if (folder / "plans" / f"{plan_id}.jsonl").is_file():
            return folder
    return None


def _plan_about(inv: Investigation, step: str, release: str, approve: str) -> Plan:
    """Return the plan about a release that was approved; without approval make one."""
    approved = ""
    for path in inv.incident.find_plan(release).parent.glob(f"{release}-*.jsonl"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == approve:
            approved = path.stem
    return _must_move(inv.plan(step, plan=approved))


def _must_move(plan: Plan) -> Plan:
    if plan.kind is not MOVE:
        raise errors.SafetyError(str(plan.summary["reason"]))
    return plan


def _list_ways_on(inv: Investigation, plan_id: str = "") -> tuple[str, ...]:
    """Return the commands that finish what was begun: of one plan and those about it, or of all."""
    rows = list_unfinished(inv.clients, inv.settings)
    return tuple(str(row["way_on"]) for row in rows if str(row["plan"]).startswith(plan_id))


def _stop_at(inv: Investigation, plan: Plan, command: str) -> PlanDocument:
    """Return what a plan would do, and how to approve it; nothing was done."""
    summary = plan.summary
    return PlanDocument(
        schema_name="runbook/plan/1",
        incident=inv.incident.id,
        exit_code=ExitCode.REFUSED,
        plan=plan.id,
        sha256=plan.sha256,
        objects=summary["objects"],
        bytes=summary["bytes"],
        expires_at=summary["expires_at"],
        excluded=summary["excluded"],
        window=summary["window"],
        others=summary["who else moves"],
        path=str(plan.path),
        rows=tuple(_show_row(row) for row in plan.rows[:_SHOWN]),
        apply="" if plan.is_empty else f"runbook {command} --approve {plan.sha256}",
        reason=str(summary.get("reason") or ""),
        way_on=() if plan.content.move.header.parent else _list_ways_on(inv),
    )


def _show_row(row: PlanRow) -> dict[str, Json]:
    shown: dict[str, Json] = {
        "key": row.key,
        "to": row.to,
        "waits since": model.format_time(row.age_start),
    }
    for name in ("order_id", "status", "tracking_number", "evidence"):
        if name in row.facts:
            shown[name] = row.facts[name]
    return shown


def _sum_up(inv: Investigation, action: str, plan: Plan, result: dict[str, Json]) -> ApplyDocument:
    document = {name: result[name] for name in ApplyDocument.model_fields if name in result}
    document["schema"] = f"runbook/{action}/1"
    document["incident"] = inv.incident.id
    document["exit_code"] = _judge(result)
    document["way_on"] = tuple(find_ways_on(plan, result))
    return ApplyDocument.model_validate({**document, **_look_again(inv, plan)})


def _look_again(inv: Investigation, plan: Plan) -> dict[str, Json]:
    """Prove a change, read what a verdict needs, conclude, and write the report.

    Only reads systems; so the change reaches verdict, report and summary at once.
    """
    inv.progress("look again")
    with suppress(MoveError, errors.ClientError):  # then it is not proven, which the verdict says
        inv.verify(plan)
    for step in inv.section.STEPS:
        if step in _READ_AGAIN:
            inv.read_step(step)
    inv.conclude()
    now = inv.now()
    judgement = inv.policy.judge(inv.journal, now=now)
    report = write_outputs(inv.incident, SECTIONS)
    if judgement is None:
        return {"report": str(report)}
    section = judgement.next.section
    return {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "next": f"runbook run {section[:2]} --incident {inv.incident.id}",
        "report": str(report),
    }


def _judge(result: dict[str, Json]) -> ExitCode:
    return ExitCode.of(not any(result.get(name) for name in _TROUBLES))
