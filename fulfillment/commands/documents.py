"""The JSON documents of this runbook's own commands. Fields are added, never renamed."""

from __future__ import annotations

from pydantic import Field

from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import Json, Observed
from runbook_lib.run.documents import Document, Part
from runbook_lib.show.text import count_of, format_bytes


class SystemRights(Part):
    """One system: ``reachable`` is None when the settings leave it out.

    ``rights`` says ``yes``, ``no``, or ``not known`` where only a change would tell.
    """

    name: str
    reachable: bool | None
    rights: dict[str, str]
    missing_for_looking: tuple[str, ...]
    missing_for_releasing: tuple[str, ...]
    reason: str = ""


class CheckDocument(Document):
    """``check``: whether looking and releasing are possible, and what is missing; no verdict."""

    summary: str
    systems: tuple[SystemRights, ...]
    readings: tuple[Observed, ...]

    @property
    def answer(self) -> str:
        """Whether looking and releasing are possible."""
        return self.summary

    @property
    def commands(self) -> tuple[str, ...]:
        """What looks, where looking is possible."""
        return ("runbook investigate",) if self.exit_code is ExitCode.OK else ()


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
        """Which file there is now."""
        return f"{self.env_file} {'is written' if self.env_file_written else 'stays as it is'}"

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """What makes the marker."""
        return (("To make the marker, paste:", self.apply),) if self.apply else ()


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
        return ": ".join(["There is nothing to do", *([self.reason] if self.reason else [])])

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The one command."""
        words = f"To carry it out before {self.expires_at}, paste:"
        return ((words, self.apply),) if self.apply else ()


class ApplyDocument(ReleaseDocument):
    """``apply``, ``resume`` and ``undo``; ``already`` are those of ``moved`` that a look found.

    ``conflicts`` and ``failed`` are objects of ``key`` and ``reason``; ``unproven`` and
    ``lost_in_window`` are keys.
    """

    moved: int = 0
    already: int = 0
    conflicts: tuple[Json, ...] = ()
    failed: tuple[Json, ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    lost_in_window: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        done = self.exit_code is ExitCode.OK
        return f"{'Done' if done else 'NOT ALL DONE'}: {count_of(self.moved, 'object')} moved"

    @property
    def commands(self) -> tuple[str, ...]:
        """The way on; after all was done, the proof."""
        return self.way_on or (f"runbook verify {self.plan}",)


class SettleDocument(ReleaseDocument):
    """``settle``: how many rows a person's word settled, and how many are left."""

    taken: int = 0
    not_taken: int = 0
    left: int

    @property
    def answer(self) -> str:
        """How many are settled."""
        return f"{count_of(self.taken + self.not_taken, 'object')} settled, {self.left} left"


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
    detail: dict[str, Json] = Field(default_factory=dict)

    @property
    def answer(self) -> str:
        """Whether the whole plan is proven."""
        proven = self.in_place + self.gone_after_landed
        told = [f"{count_of(proven, 'object')} where planned"]
        names = ("unproven", "waiting", "changed_by_others", "lost", "duplicated")
        told += [f"{n} {name.replace('_', ' ')}" for name in names if (n := getattr(self, name))]
        word = "Proven" if self.exit_code is ExitCode.OK else "NOT PROVEN"
        return f"{word}: {', '.join(told)}"


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
        there = sum(self.drills.values()) - self.created
        counts = {"made": self.created, "removed": self.removed, "there": there}
        counts |= {"kept": self.kept, "expired": self.expired, "failed": len(self.failed)}
        told = [f"{n} {word}" for word, n in counts.items() if n]
        return f"Synthetic objects: {', '.join(told) or 'none'}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What takes them back."""
        return ("runbook chaos revert",) if self.drills else ()


class NotifyTimes(Part):
    """Seconds from the injection to each channel's notification; None: none came in time."""

    slack: float | None = None
    email: float | None = None
    teams: float | None = None


class Phases(Part, frozen=False):
    """Seconds that a drill's phases took; None: the phase was not reached or did not succeed."""

    detect_s: float | None = None
    notify_s: NotifyTimes = NotifyTimes()
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
        missed = [o.name for o in self.objectives if not o.met]
        end = "passed" if self.exit_code is ExitCode.OK else "FAILED"
        return ": ".join([f"Drill {self.scenario} {end}", *([", ".join(missed)] if missed else [])])
