"""The journal of an incident, typed: what was observed, done and concluded.

Each question about an incident (since when, why, what was done, the outcome) has one answer, here.
Its file is a ``chainlog`` with redaction, read once; what fails is a ``RecordError``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from chainlog import ChainedLog, Entry, LogDamagedError, LogError

from .. import model
from ..errors import JournalDamagedError, RecordError, disk_errors
from ..model import ActionPhase, CauseStatus, Role, Status, Verdict
from ..redact import Redactor

T = TypeVar("T", bound=BaseModel)
Clock = Callable[[], datetime]

_SYMPTOMS = ("02", "03")
_DIAGNOSIS, _REMEDY = "05", "06"
#: Whose conclusions tell of now, and for which: section 1 looks at symptoms of section 2.
_LOOKING = {"01": "02", "02": "02", "03": "03", "05": "05"}
_FRESH = timedelta(minutes=10)
_PART = 1 << 16  # bytes that are compared at once; more would cost new memory each time
_GRAVE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)
_FIXED = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING)


#: What was done, in the past tense, by the action's name.
_ACTIONS = {
    "release": "released {n} by move",
    "undo": "took {n} back",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {n} for an exercise",
    "revert_synthetic": "removed {n} of an exercise",
}

#: Where to go by the verdict; ``advised``: somebody knows what helps.
_NEXT = {
    "": ("02_signals_detection", "Is there an incident? Read the signals."),
    "healthy": ("08_references", "Nothing waits too long. Check the references if you have time."),
    "unknown": ("03_immediate_actions", "Something could not be read. Look at store and worker."),
    "incident": ("05_root_cause", "Labels wait. Find out why."),
    "advised": ("06_remediation", "What helps is known. Plan it."),
    "not_fixed": ("05_root_cause", "It is not fixed. Look for the cause again."),
    "mitigated": ("05_root_cause", "The cause is still there. Look at it again."),
    "fixed": ("07_postmortem", "It is fixed. Write down what was learned."),
    "fixed_alert_decaying": ("07_postmortem", "It is fixed; the alert is still clearing."),
}


class Impact(NamedTuple):
    """How many it was about; None where nobody counted.

    Attributes
    ----------
    objects : that waited at once at most, or were released, whichever is more
    left : at the last reading
    released : by move, less what was taken back
    orders : of those that waited too long at once, at most
    tickets : that were named
    """

    objects: int | None
    left: int | None
    released: int
    orders: int | None
    tickets: tuple[str, ...]

    def __str__(self) -> str:
        said = "not counted" if self.objects is None else f"{self.objects:,} affected"
        told = {"released by move": self.released, "waiting at the last look": self.left}
        about = {"late order": self.orders, "ticket": len(self.tickets)}
        told |= {f"{what}{'s' * (n != 1)}": n for what, n in about.items()}
        return "; ".join([said, *(f"{n:,} {what}" for what, n in told.items() if n)])


class ActionRecord(NamedTuple):
    """One action through its phases."""

    phases: list[model.ActionEntry]

    @property
    def first(self) -> model.ActionEntry:
        """The oldest phase."""
        return self.phases[0]

    @property
    def last(self) -> model.ActionEntry:
        """The newest phase."""
        return self.phases[-1]

    @property
    def plan(self) -> str:
        """The id of its plan; empty when the journal does not say it."""
        return str(self.first.result.get("plan", ""))

    @property
    def applied(self) -> model.ActionEntry | None:
        """That it changed the world; None when it did not."""
        return self.get(ActionPhase.APPLIED)

    @property
    def is_cut_off(self) -> bool:
        """Whether it began, and nothing says that it was carried out to its end."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def is_told(self) -> bool:
        """Whether it was carried out or tried: more than a plan."""
        return any(map(self.get, (ActionPhase.APPLIED, ActionPhase.REFUSED, ActionPhase.FAILED)))

    @property
    def is_empty(self) -> bool:
        """Whether the plan has nothing to do."""
        return any(a.result.get("is_empty") is True for a in self.phases)

    @property
    def way_back(self) -> str:
        """How to take it back, or that there is no way."""
        return self.first.undo or "there is none"

    @property
    def approver(self) -> str:
        """Who approved or did it; empty when the journal does not say it."""
        return next((a.operator for a in reversed(self.phases) if a.operator), "")

    @property
    def proof(self) -> str:
        """What the look afterwards said, in a word."""
        if self.applied is None:
            return str(self.last.phase)
        if self.last.phase is ActionPhase.FAILED:
            return "the check afterwards failed"
        proven = "proven" if self.first.action in ("release", "undo") else "verified"
        verified = self.get(ActionPhase.VERIFIED)
        return proven if verified and verified.seq > self.applied.seq else "not verified"

    @property
    def words(self) -> str:
        """What was done, in the past tense; what was only tried, by its name."""
        first, result = self.first, self.result(ActionPhase.APPLIED)
        counts = (number_of(result.get(name)) for name in ("moved", "created", "removed"))
        number = next((count for count in counts if count is not None), None)
        plain = f"{first.action.replace('_', ' ')}: {{target}}"
        noun = "synthetic object" if "synthetic" in first.action else "label"
        objects = f"{'' if number is None else f'{number:,} '}{noun}{'' if number == 1 else 's'}"
        words = _ACTIONS.get(first.action, plain) if self.applied else plain
        target = first.target if len(first.target) <= 70 else f"{first.target[:70]}…"
        # a target may hold braces: it is put in by replacement, never by format
        return words.replace("{n}", objects).replace("{target}", target)

    def get(self, phase: str) -> model.ActionEntry | None:
        """Return the newest entry of a phase."""
        return next((a for a in reversed(self.phases) if a.phase == phase), None)

    def result(self, phase: str) -> dict[str, model.Json]:
        """What the newest entry of a phase says came of it."""
        found = self.get(phase)
        return found.result if found else {}


def group_actions(phases: Iterable[model.ActionEntry]) -> list[ActionRecord]:
    """Put the phases of each plan together, in the order in which the plans were made."""
    actions: dict[tuple[str, str], list[model.ActionEntry]] = {}
    for action in phases:
        key = (action.step, str(action.result.get("plan") or action.source))
        actions.setdefault(key, []).append(action)
    return [ActionRecord(entries) for entries in actions.values()]


def number_of(value: model.Json) -> float | None:
    """Return a number as it is, and None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


class JournalView:
    """Journal entries as types, and what follows from them. No clock, no files.

    Attributes
    ----------
    entries : all of them, in order
    readings, actions, conclusions, starts, notes : each in order
    runs : notebooks that ended
    unreadable : numbers of the entries that do not have the shape of their kind
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self.unreadable: list[int] = []
        self._kinds: dict[str, tuple[type[BaseModel], list[Any]]] = {}
        self.readings = self._collect("reading", model.Reading)
        self._newest = dict[str, model.Reading]()
        self.actions = self._collect("action", model.ActionEntry)
        self.conclusions = self._collect("conclusion", model.Conclusion)
        self.starts = self._collect("section_started", model.Start)
        self.notes = self._collect("note", model.Note)
        self.runs = self._collect("notebook", model.NotebookEntry)
        self.add(entries)

    def _collect(self, kind: str, shape: type[T]) -> list[T]:
        """Return the list that ``add`` fills with the entries of a kind."""
        found: list[T] = []
        self._kinds[kind] = shape, found
        return found

    @property
    def last_seq(self) -> int:
        """The number of the newest entry; 0 without one."""
        return self.entries[-1].seq if self.entries else 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in the next entries; one that does not have its kind's shape is counted only."""
        for entry in entries:
            self.entries.append(entry)
            if entry.kind in self._kinds:
                shape, found = self._kinds[entry.kind]
                told = {**get_told(entry), "seq": entry.seq, "at": entry.at}
                try:
                    found.append(one := shape.model_validate(told))
                    if isinstance(one, model.Reading):
                        self._newest[one.step] = one
                except ValueError:
                    self.unreadable.append(entry.seq)

    def copy(self) -> JournalView:
        """Return one that holds the same, and takes in nothing more by itself."""
        other = JournalView()
        other.entries += self.entries
        other.unreadable += self.unreadable
        other._newest |= self._newest
        for kind, (_, found) in self._kinds.items():
            other._kinds[kind][1].extend(found)
        return other

    def latest(self) -> dict[str, model.Reading]:
        """Return the newest reading of each step, in the runbook's order."""
        return dict(sorted(self._newest.items(), key=lambda item: order_of(item[0])))

    def conclusion(self, section: str, *, after: int = 0) -> model.Conclusion | None:
        """Return a section's newest conclusion past an entry."""
        found = [c for c in self.conclusions if c.seq > after and c.section == section]
        return found[-1] if found else None

    def note(self, step: str) -> str:
        """Return the newest remark that somebody wrote for a point of the checklist."""
        found = [note.text for note in self.notes if note.checklist == step]
        return found[-1].strip() if found else ""

    def list_actions(self, phase: ActionPhase, *, after: int = 0) -> list[model.ActionEntry]:
        """Return the actions that reached a phase past an entry, each time that they did."""
        return [a for a in self.actions if a.phase is phase and a.seq > after]

    @property
    def last_applied(self) -> model.ActionEntry | None:
        """The last action that was carried out."""
        return next(reversed(self.list_actions(ActionPhase.APPLIED)), None)

    @property
    def last_applied_at(self) -> datetime | None:
        """When it was carried out."""
        return self.last_applied.at if self.last_applied else None

    def list_plans(self, *, after: int = 0) -> dict[str, model.ActionEntry]:
        """Return what was planned past an entry, by the plan's id, the newest last."""
        planned = self.list_actions(ActionPhase.PLANNED, after=after)
        return {str(a.result["plan"]): a for a in planned if "plan" in a.result and not a.reason}

    def since(self) -> datetime | None:
        """Return when the trouble began; None when no breach was seen.

        The earliest of the alert's start and the first sample over the threshold after the last
        good one, as a breach of the alert's step knows them, and of the first breach that was read.
        How long an order waits says nothing of it.
        """
        seen = self.breaches(model.SIGNS | {Role.CAUSE})
        return min(((r.role is Role.ALERT and r.since) or r.at for r in seen), default=None)

    def impact(self) -> Impact:
        """Return how many it was about, by listings and by what was released."""
        backlog = [r for r in self.readings if r.role is Role.BACKLOG]
        waited = [int(r.value) for r in backlog if isinstance(r.value, int | float)]
        orders = [r.orders for r in backlog if r.orders is not None]
        kinds, moved = dict[str, str](), dict[str, int]()
        for action in self.actions:
            kinds.setdefault(plan := str(action.result.get("plan")), action.action)
            if isinstance(count := action.result.get("moved"), int):
                moved[plan] = count
        released = sum(n for plan, n in moved.items() if kinds[plan] == "release")
        released -= sum(n for plan, n in moved.items() if kinds[plan] == "undo")
        named = [start.parameters.get("ticket_id") for start in self.starts]
        named += [reading.ticket for reading in self.readings]
        tickets = tuple(dict.fromkeys(str(ticket) for ticket in named if ticket))
        most = max([*waited, released], default=0) if waited or moved else None
        left = next(reversed(waited), None)
        return Impact(most, left, released, max(orders, default=None), tickets)

    def log_entry(self, now: datetime) -> dict[str, model.Json]:
        """Return what an incident log holds of it, by this class's own answers."""
        since, verdict = self.since(), self.verdict(now=now)
        done = self.list_actions(ActionPhase.APPLIED)
        return {
            "since": model.format_time(since) if since else None,
            "causes": [{"cause": str(f.name), "why": f.reason} for f in self.causes()],
            "affected": str(self.impact()),
            "by": [*dict.fromkeys(action.operator for action in done if action.operator)],
            "verdict": str(verdict) if verdict else None,
        }

    def breaches(self, roles: Collection[Role | None]) -> list[model.Reading]:
        """Return the breaches that steps of some roles read."""
        return [r for r in self.readings if r.status is Status.BREACH and r.role in roles]

    def ok_since(self, steps: Collection[str]) -> datetime | None:
        """Return since when each of some steps was read as ok, and never else; None when not."""
        times = [_ok_since(r for r in self.readings if r.step == step) for step in steps]
        known = [at for at in times if at]
        return max(known, default=None) if len(known) == len(times) else None

    def recovered_at(self) -> datetime | None:
        """Return when recovery was read and stayed so."""
        return _ok_since(r for r in self.readings if r.role is Role.RECOVERY)

    def findings(self) -> tuple[model.Finding, ...]:
        """Return the newest findings: what is known of every cause now."""
        return next((c.findings for c in reversed(self.conclusions) if c.findings), ())

    def causes(self) -> list[model.Finding]:
        """Return why, as of when it mattered: every cause that the diagnosis supported.

        Each with its highest score, the highest first. One that a later diagnosis refuted in favour
        of another, before anything was changed, was an error and is left out.
        """
        found: dict[str, model.Finding] = {}
        applied = self.list_actions(ActionPhase.APPLIED)
        for conclusion in (c for c in self.conclusions if c.section.startswith(_DIAGNOSIS)):
            status = {f.name: f.status for f in conclusion.findings}
            named = [f for f in conclusion.findings if f.status is CauseStatus.SUPPORTED]
            if named and not (applied and conclusion.seq > applied[0].seq):
                found = {n: f for n, f in found.items() if status.get(n) is not CauseStatus.REFUTED}
            for finding in named:
                if finding.name not in found or finding.score > found[finding.name].score:
                    found[finding.name] = finding
        return sorted(found.values(), key=lambda finding: -finding.score)

    def verdict(self, *, after: int = 0, now: datetime | None = None) -> Verdict | None:
        """Return the outcome by the newest conclusions past an entry; None before any.

        Section 6 judges an action, until something else is changed, or a newer conclusion of
        another section says that there is an incident or that it cannot tell. That nothing waits
        any more does not undo "fixed", nor, as long as nobody looked for it, a cause that stays.
        One section that proves an incident is enough; healthy is what all needed readings say,
        those of section 5 or of 2 and 3. What is older than ten minutes (at the newest conclusion,
        or ``now``) says nothing of symptoms. What an incident was closed with is the last word.
        """
        ends = ("closed", "conclusion")
        end = next((e for e in reversed(self.entries) if e.kind in ends), None)
        if not after and end and end.data.get("verdict") in set(Verdict):
            return Verdict(end.data["verdict"])
        if not self.conclusions:
            return None
        last, since = self.last_applied, (now or self.conclusions[-1].at) - _FRESH
        told = [(c.section[:2], c) for c in self.conclusions if c.seq > after]
        remedy = next((c for section, c in reversed(told) if section == _REMEDY), None)
        newer = [(s, c) for s, c in told if c.at >= since and not (remedy and c.seq <= remedy.seq)]
        said = {_LOOKING[section]: c.verdict for section, c in newer if section in _LOOKING}
        judged = remedy.verdict if remedy else None
        if remedy and judged in (Verdict.INCIDENT, Verdict.HEALTHY) and remedy.at < since:
            judged = None  # of symptoms, before anything was changed
        if remedy and judged in _FIXED and last and last.seq > remedy.seq:
            judged = Verdict.UNKNOWN
        if remedy and remedy.clear and now and now > remedy.clear.deadline and not said:
            return Verdict.UNKNOWN  # whether it cleared is for a new look to tell
        return _weigh(judged, said, is_mended=last is not None)

    def advice(self, now: datetime) -> tuple[str, ...]:
        """Return what helps, in order, if somebody looked lately."""
        found = ((c.at, c.advice) for c in reversed(self.conclusions) if c.findings)
        at, advice = next(found, (now, ()))
        return advice if now - at <= _FRESH else ()

    def way_on(self, now: datetime) -> tuple[str, str]:
        """Return where to go from here: a notebook, and why, with the time that this is of."""
        verdict = self.verdict(now=now)
        is_advised = verdict in _GRAVE and self.advice(now)
        notebook, why = _NEXT["advised" if is_advised else verdict or ""]
        as_of = f" (as of {self.conclusions[-1].at:%H:%M:%S} UTC)" if verdict else ""
        return notebook, why + as_of


def _ok_since(readings: Iterable[model.Reading]) -> datetime | None:
    """Return since when readings, in their order, are ok and nothing else."""
    at = None
    for reading in readings:
        at = (at or reading.at) if reading.status is Status.OK else None
    return at


def _weigh(judged: Verdict | None, said: dict[str, Verdict], *, is_mended: bool) -> Verdict | None:
    """Return what section 6 judged and what others said after it, as one verdict."""
    symptoms, why = {said.get(section) for section in _SYMPTOMS}, said.get(_DIAGNOSIS)
    for verdict in (*_GRAVE, Verdict.UNKNOWN, Verdict.FIXED_ALERT_DECAYING):
        if verdict in (symptoms if verdict is Verdict.UNKNOWN else said.values()):
            return verdict
    if not said:
        return judged
    if symptoms != {Verdict.HEALTHY} and why is not Verdict.HEALTHY:
        return judged if judged and is_mended else Verdict.UNKNOWN
    if judged is Verdict.MITIGATED and why is not Verdict.HEALTHY:
        return judged
    return Verdict.FIXED if judged in _FIXED else Verdict.HEALTHY


def get_told(entry: Entry) -> dict[str, model.Json]:
    """Return what an entry says: what stands under its kind, or all of it."""
    told = entry.data.get(entry.kind)
    return told if isinstance(told, dict) else entry.data


def order_of(step: str) -> tuple[int, ...]:
    """Return a step's place in the runbook's order."""
    return tuple(int(part) if part.isdigit() else 0 for part in step.split("."))


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class _File:
    """What is known of a journal's file: its log, its view, and the bytes that these hold."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock, self.mutex = path, clock, Lock()
        self.forget()

    def forget(self) -> None:
        """Read the file anew the next time."""
        self.log, self.view = ChainedLog(self._path, clock=self._clock), JournalView()
        self.verified = list[bytes]()


#: One for all who open it in a process: the sections of a run read a long journal once.
_open = lru_cache(maxsize=8)(_File)


class Journal:
    """The journal of an incident: appended to, read once, asked through ``view``.

    Parameters
    ----------
    path : the file; made with the first entry
    redactor : every string passes through it before it is written
    clock : returns the current time, aware

    Notes
    -----
    Safe from several processes and threads. Unlike a ledger, which nothing may follow after a
    failed write, a journal goes on when there is room again: what the file holds by then is read
    anew.
    """

    def __init__(self, path: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.path, self._redactor, self._file = path, redactor, _open(path, clock)

    def append(self, kind: str, data: dict[str, model.Json]) -> Entry:
        """Append one entry and return it.

        Raises
        ------
        RecordError
            When the file cannot be locked or written; nothing was appended then.
        JournalDamagedError
            When the file is damaged; nothing was appended either.
        """
        with self._explained(". Nothing was appended."):
            if not self._file.verified:
                self._catch_up()  # or the log would read it all here, and the view once more
            entry = self._file.log.append(kind, self._redactor.json(data))
        with suppress(RecordError), self._explained():  # the next view tells
            self._catch_up(compares=False)
        return entry

    def view(self) -> JournalView:
        """Return what the journal holds by now; an absent file holds nothing.

        Raises
        ------
        RecordError
            When the file cannot be read.
        JournalDamagedError
            At the first altered or missing line, which it names.
        """
        with self._explained():
            return self._catch_up()

    def _catch_up(self, *, compares: bool = True) -> JournalView:
        """Compare what was verified with what the file holds now; parse only what follows it."""
        file = self._file
        with file.mutex, ExitStack() as stack:
            now = stack.enter_context(self.path.open("rb") if self.path.exists() else BytesIO())
            differs = compares and any(now.read(len(part)) != part for part in file.verified)
            if differs or not file.verified:
                file.forget()
            known, file.verified = file.verified, []  # what is cut off here is read anew
            now.seek(sum(map(len, known)))
            new, view = now.read(), file.view
            entries, end = file.log.read(), new.rfind(b"\n") + 1
            view.add(entries[view.last_seq :][: new.count(b"\n")])
            parts = (new[at : min(at + _PART, end)] for at in range(0, end, _PART))
            file.verified = [*known, *parts]
            if len(entries) != view.last_seq:  # a line came since: its bytes were not seen here
                file.forget()
            return view

    def redacted(self) -> JournalView:
        """Return what ``view`` holds now without what this redactor hides: others write, too."""
        whole = self.view()
        with self._file.mutex:
            whole = whole.copy()
        hidden = list(self.redact(whole.entries))
        return whole if hidden == whole.entries else JournalView(hidden)

    def redact(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield entries without what this redactor hides."""
        return (e._replace(data=self._redactor.json(e.data)) for e in entries)

    @contextmanager
    def _explained(self, ending: str = "") -> Iterator[None]:
        try:
            with disk_errors(f"{self.path} cannot be read", ending):
                yield
        except LogError as error:
            with self._file.mutex:
                self._file.forget()
            text = f"{error}{ending}"
            if isinstance(error, LogDamagedError):
                raise JournalDamagedError(text, line=error.line, reason=error.reason) from error
            raise RecordError(text) from error
