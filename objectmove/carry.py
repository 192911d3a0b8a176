"""Carry objects from key to key: copy, look, delete, in small windows; settle what is in doubt.

What may be done with an object, and when, is asked of ``table.decide`` alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .bucket import REFUSED, Answer, Request, S3Bucket, Seen, Version, format_time
from .errors import StoppedError, StoreError
from .ledger import CLOSED, HALF, Ledger, Leg
from .parking import NAME_ENDING, is_hashed
from .plan import Abilities
from .session import STORE_ID, Clock, Session
from .table import Act, Direction, Place, State, decide

WINDOW = 16
"""The most rows that are announced and not closed: what a kill can leave in doubt."""

_LOOK_S = 2.0
_ROUNDS = 4
_OVERLOADED = ("SlowDown", "HTTP 503", "ServiceUnavailable")
_SLOWER = {16: 4, 4: 1, 1: 1}


class Hold(Protocol):
    """Keeps everyone else from moving; handed in.

    Attributes
    ----------
    words : how, and at which address; stands in the plan
    way_back : how a person ends it without us
    holds : whether it keeps anyone still; else it only says that nobody does
    """

    words: str
    way_back: str
    holds: bool

    def is_paused(self) -> bool:
        """Tell whether nobody moves now; ``MoversError`` when that cannot be known."""

    def pause(self) -> None:
        """Have the others stand still; ``MoversError`` when they do not."""

    def check(self) -> None:
        """Raise ``MoversError`` unless they stand still, and the pass under way has ended."""

    def resume(self) -> None:
        """Let them go on; any ``MoveError`` when that is not certain."""


@dataclass(frozen=True, slots=True)
class Job:
    """One object on one of its ways.

    Attributes
    ----------
    row, leg : which row of the plan, on which way
    key, to : from where, to where
    planned : the version that goes
    sha256 : of its content, where the ETag is no hash of it
    any_version : whether the content alone counts at the source, too
    """

    row: int
    leg: Leg
    direction: Direction
    key: str
    to: str
    planned: Version
    sha256: str = ""
    any_version: bool = False


def compare_with_plan(
    found: Mapping[str, Seen | None],
    key: str,
    planned: Version,
    *,
    any_version: bool,
    etag: str = "",
) -> Place:
    """Say what a look at a key means.

    Parameters
    ----------
    found : what was looked at
    any_version : whether the content counts; else the very version must be there
    etag : that our copy got, where it is another than the planned one
    """
    if key not in found:
        return Place.UNKNOWN
    seen = found[key]
    if seen is None:
        return Place.ABSENT
    if any_version:
        is_same = seen.etag in (planned.etag, etag) and seen.size_bytes == planned.size_bytes
    else:
        is_same = planned.is_same(seen)
    return Place.SAME if is_same else Place.OTHER


def look_surely(
    bucket: S3Bucket, keys: Sequence[str], *, abilities: Abilities, has_id: bool = True
) -> dict[str, Seen | None]:
    """Look at keys; that one is absent counts only while the store shows its id.

    Parameters
    ----------
    has_id : whether the store has an id object; without one, the mark of a 404 decides alone

    Returns
    -------
    What is at each key, None where nothing is; a key that could not be read is not in it.
    """
    marks_absence = abilities.marks_absence
    before = bucket.look([STORE_ID], marks_absence=marks_absence) if has_id else {}
    found = bucket.look(keys, marks_absence=marks_absence)
    if not has_id or all(seen is not None for seen in found.values()):
        return found
    after = bucket.look([STORE_ID], marks_absence=marks_absence)
    if before.get(STORE_ID) is not None and after.get(STORE_ID) is not None:
        return found
    return {key: seen for key, seen in found.items() if seen is not None}


class Carrier:
    """Carries jobs within one session.

    Parameters
    ----------
    write_record : has the bucket know what the ledger says
    age_of : the metadata that a copy gets in an undo, by row; empty where none is added

    Attributes
    ----------
    seen : the last looks, by key
    width : how many rows travel at once
    """

    def __init__(
        self,
        bucket: S3Bucket,
        session: Session,
        ledger: Ledger,
        hold: Hold,
        *,
        abilities: Abilities,
        clock: Clock,
        write_record: Callable[[], None],
        age_of: Callable[[Job, Seen | None], dict[str, str]] = lambda _job, _seen: {},
    ) -> None:
        self.bucket = bucket
        self.session = session
        self.ledger = ledger
        self.hold = hold
        self.abilities = abilities
        self.seen: dict[str, Seen | None] = {}
        self.width = WINDOW
        self._clock = clock
        self._write_record = write_record
        self._age_of = age_of
        self._looked_at = 0.0
        self._has_moved_one = False

    def carry(
        self, jobs: Sequence[Job], progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> None:
        """Carry jobs that were never announced: one to its end first, then window after window.

        Raises
        ------
        StoppedError
            When the first one does not move, or nothing is answered.
        MoversError
            When someone else moves.
        StoreError
            When the bucket cannot be read.
        """
        waiting = list(jobs)
        while waiting:
            width = self.width if self._has_moved_one else 1
            window = waiting[:width]
            waiting = waiting[width:]
            self._carry_window(window)
            if not self._has_moved_one:
                self._check_first(window[0])
            progress(len(jobs) - len(waiting), len(jobs))

    def resolve(self, list_jobs: Callable[[], list[Job]]) -> None:
        """Settle the jobs that are half done: wait for the fence, look, do what the table says.

        Parameters
        ----------
        list_jobs : returns the jobs in doubt, as the ledger knows them then
        """
        for number in range(_ROUNDS):
            jobs = [job for job in list_jobs() if job.row not in self.ledger.refused]
            if not jobs:
                return
            self._wait_for_fence(jobs)
            self.hold.check()
            for window in _cut(jobs, WINDOW):
                self._resolve_window(window, may_send=number < _ROUNDS - 1)

    def look_at(self, keys: Iterable[str]) -> None:
        """Look anew; what could not be read is not known any more."""
        wanted = list(dict.fromkeys(keys))
        self._looked_at = self._clock.monotonic()
        for key in wanted:
            self.seen.pop(key, None)
        self.seen.update(look_surely(self.bucket, wanted, abilities=self.abilities))

    def delete_sources(self, jobs: Sequence[Job]) -> None:
        """Delete the sources of jobs that have landed, each only while it is what was planned."""
        for window in _cut(jobs, WINDOW):
            self._delete(window)

    def remove_copies(self, jobs: Sequence[Job]) -> None:
        """Remove our copies of jobs whose source cannot be deleted; the source stays."""
        if not jobs:
            return
        self.session.renew()
        self.look_at(_list_ends(jobs))
        there = [job for job in jobs if self.find_place(job, at_source=True) is Place.SAME]
        both = [job for job in there if self.find_place(job, at_source=False) is Place.SAME]
        requests = []
        for job in both:
            if_match = job.planned.etag if self.abilities.conditional_delete else ""
            requests.append(Request("delete", job.to, if_match=if_match))
        answers = self.session.send(requests)
        for job, answer in zip(both, answers, strict=True):
            if answer.effect == "done":
                why = self.ledger.reasons.get(job.row, "its source cannot be deleted")
                self._note_refused([job.row], job.leg, why, is_final=True)

    def find_place(self, job: Job, *, at_source: bool) -> Place:
        """Say what the last look at one end of a job means."""
        if at_source:
            return compare_with_plan(self.seen, job.key, job.planned, any_version=job.any_version)
        landing = self.ledger.landings.get(job.row) if job.leg is Leg.MOVE else None
        etag = landing.etag if landing else ""
        seen = self.seen.get(job.to)
        if job.sha256 and seen is not None and seen.etag != etag:
            return self._compare_bytes(job)
        return compare_with_plan(self.seen, job.to, job.planned, any_version=True, etag=etag)

    def _carry_window(self, jobs: Sequence[Job]) -> None:
        self.hold.check()
        keys: list[str] = []
        for job in jobs:
            if job.direction in (Direction.BACK, Direction.PARK):
                keys += [job.key, job.to]
            elif not self.abilities.conditional_copy:
                keys.append(job.to)
        if keys:
            self.look_at(keys)
        found = self._sort(jobs)
        self._copy(found[Act.COPY])
        self._delete([job for job in jobs if self._get_state(job) is State.LANDED])

    def _resolve_window(self, jobs: Sequence[Job], *, may_send: bool) -> None:
        """Look at jobs of which nothing is in flight, and do what is right.

        The last look of a run sends nothing: whoever goes on knows then that nothing is in flight.
        """
        self.look_at(_list_ends(jobs))
        self._believe_versions(jobs)
        self._note_undeleted(jobs)
        found = self._sort(jobs)
        if may_send:
            self._copy(found[Act.COPY])
            self._delete(found[Act.ADOPT] + found[Act.DELETE])

    def _note_undeleted(self, jobs: Sequence[Job]) -> None:
        """Write down which deletes had no effect: a source that goes later was taken by others."""
        deleting = [job for job in jobs if self._get_state(job) is State.DELETING]
        left = [job for job in deleting if self.find_place(job, at_source=True) is Place.SAME]
        rows = [job.row for job in left]
        if rows:
            self.ledger.note("undeleted", rows, leg=jobs[0].leg)

    def _check_first(self, job: Job) -> None:
        """End the run when its first object did not come to a good end."""
        if self._get_state(job) in HALF:
            self.resolve(lambda: [job] if self._get_state(job) in HALF else [])
        state = self._get_state(job)
        if state is State.MOVED:
            self._has_moved_one = True
        elif state is not State.SKIPPED:
            why = self.ledger.reasons.get(job.row, "nobody knows what became of it")
            raise StoppedError(f"the first object did not move: {job.key}: {why}")

    def _wait_for_fence(self, jobs: Sequence[Job]) -> None:
        """Wait until no request about these jobs can take effect any more."""
        ledger = self.ledger
        if any(job.row in ledger.in_flight for job in jobs):
            self.session.wait_until(ledger.fence_at, f"{len(jobs)} objects may still change")
            ledger.pass_fence()

    def _get_state(self, job: Job) -> State:
        return self.ledger.get_states(job.leg)[job.row]

    def _copy(self, jobs: Sequence[Job]) -> None:
        """Announce copies, send them, and write down what each answer proves."""
        if not jobs:
            return
        ledger = self.ledger
        session = self.session
        leg = jobs[0].leg
        rows = [job.row for job in jobs]
        session.renew()  # the last time before the copies: their fence is written down now
        self._put_names(jobs)
        ledger.log.reserve()  # what comes of it can be written on a full disk
        fence_at = format_time(session.fence_at)
        ledger.note("intent", rows, leg=leg, sync=True, fence_at=fence_at)
        self._write_record()
        if not self.abilities.conditional_copy and self._is_look_old():
            why = "its destination was looked at too long ago: nothing was sent"
            self._note_refused(rows, leg, why, is_final=False)
            return
        requests = [self._make_copy(job) for job in jobs]
        answers = session.send(requests, lambda index, answer: self._take_copy(jobs[index], answer))
        for job, answer in zip(jobs, answers, strict=True):
            if answer.effect == "done" and self._get_state(job) is State.DOUBTFUL:
                self._compare_content(job, answer)
        is_busy = self._adapt_width(answers)
        if len(jobs) > 1 and not is_busy and not any(a.effect == "done" for a in answers):
            # One after the other would only leave more in doubt.
            raise StoppedError(f"no copy landed: {ledger.reasons.get(rows[0], '')}")

    def _make_copy(self, job: Job) -> Request:
        return Request(
            "copy",
            key=job.to,
            source=job.key,
            if_match=job.planned.etag,
            if_absent=self.abilities.conditional_copy,
            headers=self._age_of(job, self.seen.get(job.key)),
        )

    def _put_names(self, jobs: Sequence[Job]) -> None:
        """Write the names of objects whose parked key is a hash."""
        for job in jobs:
            if job.direction is Direction.PARK and is_hashed(job.to):
                name = job.key.partition("/")[2].encode()
                self.session.change(Request("put", f"{job.to}{NAME_ENDING}", body=name))

    def _take_copy(self, job: Job, answer: Answer) -> None:
        """Write what an answer proves, as it comes; anything else stays doubtful."""
        if answer.effect == "done":
            if answer.etag == job.planned.etag:
                self.ledger.land(job.row, answer.etag, answer.last_modified, leg=job.leg)
            return
        why = f"the copy was answered by {answer.code} {answer.message}".strip()
        if answer.effect == "none":
            self._note_refused([job.row], job.leg, why, is_final=answer.code in REFUSED)
        else:
            self.ledger.note("doubtful", [job.row], leg=job.leg, reasons={str(job.row): why})

    def _note_refused(self, rows: Sequence[int], leg: Leg, why: str, *, is_final: bool) -> None:
        reasons = dict.fromkeys(map(str, rows), why)
        self.ledger.note("refused", rows, leg=leg, reasons=reasons, final=is_final)

    def _compare_content(self, job: Job, answer: Answer) -> None:
        """Judge a copy that got another ETag: by its bytes where the plan has their hash."""
        self.look_at([job.to])
        place = self.find_place(job, at_source=False)
        if place is Place.SAME:
            self.ledger.land(job.row, answer.etag, answer.last_modified, leg=job.leg)
        elif place is Place.OTHER:
            why = f"the copy has the ETag {answer.etag}, not {job.planned.etag}: look at both keys"
            self.ledger.reasons[job.row] = why
            self.ledger.close(State.CONFLICT, [job.row], leg=job.leg)

    def _compare_bytes(self, job: Job) -> Place:
        """Compare a destination whose ETag is no hash."""
        try:
            is_same = self.bucket.read_sha256(job.to) == job.sha256
        except StoreError:
            return Place.UNKNOWN
        return Place.SAME if is_same else Place.OTHER

    def _adapt_width(self, answers: Sequence[Answer]) -> bool:
        """Send fewer at once to a store that says that it is overloaded, and more again later.

        Returns
        -------
        Whether it says so.
        """
        is_busy = any(answer.code in _OVERLOADED for answer in answers)
        if is_busy:
            self.width = _SLOWER[self.width]
        elif self.width < WINDOW:
            self.width *= 4
        return is_busy

    def _believe_versions(self, jobs: Sequence[Job]) -> None:
        """Take a version of the planned content that came since for a copy that landed."""
        known = self.ledger.versions
        if known is None:
            return
        for job in jobs:
            is_release = job.direction in (Direction.THERE, Direction.STILL)
            is_absent = self.find_place(job, at_source=False) in (Place.ABSENT, Place.OTHER)
            if is_release and is_absent and self._get_state(job) is State.DOUBTFUL:
                self._land_by_version(job, known.get(job.row, ()))

    def _land_by_version(self, job: Job, known_ids: Sequence[str]) -> None:
        for version in self.bucket.list_versions(job.to):
            is_new = version.version_id not in ("", "null", *known_ids)
            if version.key == job.to and is_new and version.has_same_content(job.planned):
                self.ledger.land(job.row, version.etag, version.last_modified)
                return

    def _delete(self, jobs: Sequence[Job]) -> None:
        """Delete the sources of a window of jobs that have landed."""
        if not jobs:
            return
        self.session.renew()
        deletes = self._choose_deletes(jobs)
        if not deletes:
            return
        ledger = self.ledger
        leg = deletes[0].leg
        rows = [job.row for job in deletes]
        is_looked_at = self._needs_look(deletes[0])
        ledger.note(
            "deleting", rows, leg=leg, sync=True, fence_at=format_time(self.session.fence_at)
        )
        is_release = leg is Leg.MOVE and ledger.plan.header.action == "move"
        if not is_release:
            self._write_record()  # that the delete was sent decides what an absent source means
        if is_looked_at and self._is_look_old():
            ledger.note("undeleted", rows, leg=leg)
            return  # the next round looks again
        answers = self._send_deletes(deletes)
        moved = [job.row for job in deletes if answers[job.row].effect == "done"]
        refused = [job.row for job in deletes if answers[job.row].effect == "none"]
        for job in deletes:
            answer = answers[job.row]
            if answer.effect != "done":
                text = f"the delete was answered by {answer.code} {answer.message}"
                ledger.reasons[job.row] = text.strip()
        ledger.close(State.MOVED, moved, leg=leg)
        if refused:
            reasons = {str(row): ledger.reasons[row] for row in refused}
            ledger.note("delete_refused", refused, leg=leg, reasons=reasons)

    def _needs_look(self, job: Job) -> bool:
        """Tell whether a source is looked at right before its delete."""
        is_release = job.direction in (Direction.THERE, Direction.STILL)
        return not is_release or not self.abilities.conditional_delete

    def _choose_deletes(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs whose source may go now."""
        first = jobs[0]
        if not self._needs_look(first):
            return list(jobs)
        if first.direction in (Direction.BACK, Direction.PARK):
            self.look_at(_list_ends(jobs))
            return self._sort(jobs)[Act.DELETE]
        self.look_at(job.key for job in jobs)
        return self._sort(jobs, destination=Place.UNKNOWN)[Act.DELETE]

    def _send_deletes(self, jobs: Sequence[Job]) -> dict[int, Answer]:
        """Send deletes; return the answer for each row."""
        if self.abilities.conditional_delete:
            requests = [Request("delete", job.key, if_match=job.planned.etag) for job in jobs]
            answers = self.session.send(requests)
            return {job.row: answer for job, answer in zip(jobs, answers, strict=True)}
        (answer,) = self.session.send([Request("delete_many", keys=[job.key for job in jobs])])
        return {job.row: _read_bulk_answer(answer, job.key) for job in jobs}

    def _sort(
        self, jobs: Iterable[Job], destination: Place | None = None
    ) -> dict[Act | State, list[Job]]:
        """Ask the table what to do with each job; write down what is decided for good.

        Parameters
        ----------
        destination : what to take for seen there; default: what the last look found
        """
        found: dict[Act | State, list[Job]] = defaultdict(list)
        leg = Leg.MOVE
        for job in jobs:
            leg = job.leg
            rule = decide(
                direction=job.direction,
                state=self._get_state(job),
                source=self.find_place(job, at_source=True),
                destination=destination or self.find_place(job, at_source=False),
            )
            found[rule.act].append(job)
            if rule.act is State.CONFLICT:
                self.ledger.reasons[job.row] = f"{rule.reason}: {self._describe_ends(job)}"
            elif rule.act in (State.SKIPPED, State.UNPROVEN):
                self.ledger.reasons[job.row] = rule.reason
            elif rule.act is Act.ADOPT:
                seen = self.seen[job.to]
                self.ledger.land(job.row, seen.etag if seen else "", None, leg=job.leg)
        for state in CLOSED:
            self.ledger.close(state, [job.row for job in found[state]], leg=leg)
        return found

    def _describe_ends(self, job: Job) -> str:
        """Name the versions at both ends."""
        ends = []
        for key in (job.key, job.to):
            seen = self.seen.get(key)
            if seen is not None:
                what = f"{seen.etag} of {format_time(seen.last_modified)}"
            elif key in self.seen:
                what = "nothing"
            else:
                what = "not looked at"
            ends.append(f"at {key}: {what}")
        return f"planned {job.planned.etag}; {'; '.join(ends)}"

    def _is_look_old(self) -> bool:
        return self._clock.monotonic() - self._looked_at > _LOOK_S


def _read_bulk_answer(answer: Answer, key: str) -> Answer:
    """Return what a bulk delete's answer says of one key."""
    code = answer.failed.get(key, "")
    if not code:
        return answer
    # A refusal that came after the signature's expiry proves nothing: the answer is then unknown.
    if code in REFUSED and answer.effect == "done":
        return Answer("none", code=code)
    return Answer("unknown", code=code)


def _list_ends(jobs: Iterable[Job]) -> list[str]:
    """Return source and destination of each job."""
    keys = []
    for job in jobs:
        keys += [job.key, job.to]
    return keys


def _cut(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    return (jobs[start : start + size] for start in range(0, len(jobs), size))
