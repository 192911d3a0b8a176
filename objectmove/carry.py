"""Carry objects from key to key: copy, look and delete, window by window; resolve what is in doubt.

``table.decide`` says what may be done with an object. One request is sent without asking the table
again: in a release, a delete that the store itself binds to the planned version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .bucket import REFUSED, Answer, Look, Request, S3Bucket, Seen, Version, format_time
from .errors import StoppedError, StoreError
from .ledger import CLOSED, HALF_DONE, Ledger, Leg
from .parking import NAME_ENDING, is_hashed
from .plan import Abilities
from .session import STORE_ID, Clock, Session
from .table import Act, Direction, Place, Rule, State, decide

WINDOW = 16
"""The most rows whose copies are announced at once: a kill puts no more rows in doubt."""

#: How old the last look may be when a request is sent that the store guards by no condition.
_MAX_LOOK_AGE_S = 2.0
#: How often ``resolve`` waits and looks. In the last round, it sends nothing.
_ROUNDS = 4
#: Codes of a store that is overloaded.
_OVERLOADED = ("SlowDown", "HTTP 503", "ServiceUnavailable")
#: How many rows to move at once after the store was overloaded. The keys are the numbers before.
_SLOWER = {16: 4, 4: 1, 1: 1}


class Hold(Protocol):
    """Keeps everyone else (the others) from moving objects; the caller provides it.

    Attributes
    ----------
    words : how the others are held, and at which address; the plan repeats these words
    way_back : how a person ends the hold without us
    holds : whether this hold can keep others from moving; False where it can watch them at most
    """

    words: str
    way_back: str
    holds: bool

    def is_paused(self) -> bool:
        """Tell whether nobody else moves objects now; raise ``MoversError`` if nobody knows."""

    def pause(self) -> None:
        """Make the others stand still; raise ``MoversError`` when they do not."""

    def check(self) -> None:
        """Raise ``MoversError`` unless the others stand still, and their last pass has ended."""

    def resume(self) -> None:
        """Let the others go on; raise a ``MoveError`` when it is not certain that they do."""


@dataclass(frozen=True, slots=True)
class Job:
    """One object to move or to park.

    Attributes
    ----------
    row, leg : the number of the plan's row, and whether the row is moved or parked
    direction : who may take from the destination
    key, to : keys of source and destination
    planned : the version to move
    sha256 : of the planned content, where the ETag is not its MD5; else empty
    any_version : whether only the content counts, even at the source
    """

    row: int
    leg: Leg
    direction: Direction
    key: str
    to: str
    planned: Version
    sha256: str = ""
    any_version: bool = False

    @property
    def is_release(self) -> bool:
        """Whether the object goes to the consumers; else it is taken back or parked."""
        return self.direction in (Direction.THERE, Direction.STILL)


def compare_with_plan(
    looks: Look,
    key: str,
    planned: Version,
    *,
    any_version: bool,
    etag: str = "",
) -> Place:
    """Say what a look at a key means, compared with the planned version.

    Parameters
    ----------
    looks : what was at the keys that were looked at
    any_version : whether only the content counts; else also LastModified must be the planned one
    etag : the ETag of our copy, which has the same content; empty when not known
    """
    if key not in looks:
        return Place.UNKNOWN
    present = looks[key]
    if present is None:
        return Place.ABSENT
    if any_version:
        is_same = present.etag in (planned.etag, etag) and present.size_bytes == planned.size_bytes
    else:
        is_same = planned.is_same(present)
    return Place.SAME if is_same else Place.OTHER


def look_surely(
    bucket: S3Bucket,
    keys: Sequence[str],
    *,
    abilities: Abilities,
    has_id: bool = True,
) -> Look:
    """Look at keys; an absence counts only if the id object was there before and after.

    Something in front of the store may answer 404 for every key. A key whose absence does not count
    is missing in the result, like a key that could not be read.

    Parameters
    ----------
    has_id : whether the store has an id object; if not, every absence counts
    """
    marks_absence = abilities.marks_absence
    if not has_id:
        return bucket.look(keys, marks_absence=marks_absence)
    id_before = bucket.look([STORE_ID], marks_absence=marks_absence)
    looks = bucket.look(keys, marks_absence=marks_absence)
    if None not in looks.values():
        return looks
    id_after = bucket.look([STORE_ID], marks_absence=marks_absence)
    has_shown_id = id_before.get(STORE_ID) is not None
    still_shows_id = id_after.get(STORE_ID) is not None
    if has_shown_id and still_shows_id:
        return looks
    return {key: seen for key, seen in looks.items() if seen is not None}


class Carrier:
    """Carries jobs within one session.

    Parameters
    ----------
    write_record : puts on record what the ledger says
    make_headers : returns the headers that a copy gets; empty: the copy keeps the source's

    Attributes
    ----------
    looks : what the last look at each key found
    width : how many rows are moved at once
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
        make_headers: Callable[[Job, Seen | None], dict[str, str]] = lambda _job, _seen: {},
    ) -> None:
        self.bucket = bucket
        self.session = session
        self.ledger = ledger
        self.hold = hold
        self.abilities = abilities
        self.looks: Look = {}
        self.width = WINDOW
        self._clock = clock
        self._write_record = write_record
        self._make_headers = make_headers
        self._looked_at = 0.0
        self._has_moved_one = False

    def carry(
        self,
        jobs: Sequence[Job],
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        """Carry jobs that are not half done: the first one to its end, then window after window.

        Parameters
        ----------
        progress : called with the number of jobs dealt with, and the number of all jobs

        Raises
        ------
        StoppedError
            When the first object of this session does not move, no copy of a window lands, or our
            claim lapsed.
        MoversError
            When someone else moves.
        StoreError
            When the bucket cannot be read.
        """
        start = 0
        while start < len(jobs):
            width = self.width if self._has_moved_one else 1
            window = jobs[start : start + width]
            start += len(window)
            self._carry_window(window)
            if not self._has_moved_one:
                self._check_first(window[0])
            progress(start, len(jobs))

    def resolve(self, list_jobs: Callable[[], list[Job]]) -> None:
        """Resolve jobs that are half done: wait for the fence, look, and do what the table says.

        Leave out rows that this run tries no more (``Ledger.refused``).

        Parameters
        ----------
        list_jobs : returns the jobs that are half done when it is called
        """
        for number in range(_ROUNDS):
            jobs = [job for job in list_jobs() if job.row not in self.ledger.refused]
            if not jobs:
                return
            self._wait_for_fence(jobs)
            self.hold.check()
            may_send = number < _ROUNDS - 1
            for window in _cut_windows(jobs):
                self._resolve_window(window, may_send=may_send)

    def look_at(self, keys: Iterable[str]) -> None:
        """Look at keys anew. Forget the earlier look at a key that cannot be read now."""
        distinct = list(dict.fromkeys(keys))
        self._looked_at = self._clock.monotonic()
        for key in distinct:
            self.looks.pop(key, None)
        looks = look_surely(self.bucket, distinct, abilities=self.abilities)
        self.looks.update(looks)

    def delete_sources(self, jobs: Sequence[Job]) -> None:
        """Delete the sources of jobs that have landed, if they are the planned versions."""
        for window in _cut_windows(jobs):
            self._delete(window)

    def remove_copies(self, jobs: Sequence[Job]) -> None:
        """Remove our copies of jobs whose source cannot be deleted.

        Those sources stay, and their rows count as refused.
        """
        if not jobs:
            return
        self.session.renew()
        self.look_at(_list_ends(jobs))
        removable = []
        requests = []
        for job in jobs:
            if self.judge_source(job) is not Place.SAME:
                continue
            if self.judge_destination(job) is not Place.SAME:
                continue
            if_match = job.planned.etag if self.abilities.conditional_delete else ""
            removable.append(job)
            requests.append(Request("delete", job.to, if_match=if_match))
        answers = self.session.send(requests)
        for job, answer in zip(removable, answers, strict=True):
            if answer.effect == "done":
                why = self.ledger.get_reasons(job.leg).get(job.row, "its source cannot be deleted")
                self._note_refused([job.row], job.leg, why, is_final=True)

    def judge_source(self, job: Job) -> Place:
        """Say what the last look at a job's source means."""
        return compare_with_plan(self.looks, job.key, job.planned, any_version=job.any_version)

    def judge_destination(self, job: Job) -> Place:
        """Say what the last look at a job's destination means.

        If the plan holds a SHA-256 of the content, and the ETag there is not that of our copy, this
        reads the object and hashes it.
        """
        etag = ""
        if job.leg is Leg.MOVE and job.row in self.ledger.landings:
            etag = self.ledger.landings[job.row].etag
        present = self.looks.get(job.to)
        has_other_etag = present is not None and present.etag != etag
        if job.sha256 and has_other_etag:
            return self._compare_bytes(job)
        return compare_with_plan(self.looks, job.to, job.planned, any_version=True, etag=etag)

    def _carry_window(self, jobs: Sequence[Job]) -> None:
        """Copy a window of jobs, then delete the sources of those that landed.

        Before the copies of a release, look at the destinations, unless the store guards them by a
        condition. Before all other copies, look at both ends.
        """
        self.hold.check()
        keys: list[str] = []
        for job in jobs:
            if not job.is_release:
                keys += [job.key, job.to]
            elif not self.abilities.conditional_copy:
                keys.append(job.to)
        if keys:
            self.look_at(keys)
        by_act = self._decide_and_note(jobs)
        self._copy(by_act[Act.COPY])
        landed = [job for job in jobs if self._get_state(job) is State.LANDED]
        self._delete(landed)

    def _resolve_window(self, jobs: Sequence[Job], *, may_send: bool) -> None:
        """Look at jobs that have no request in flight, and do what the table says.

        Parameters
        ----------
        may_send : False in the last round: after its look, nothing is sent, so that the next run
            need not wait for a fence
        """
        self.look_at(_list_ends(jobs))
        self._believe_versions(jobs)
        self._note_undeleted(jobs)
        by_act = self._decide_and_note(jobs)
        if may_send:
            self._copy(by_act[Act.COPY])
            deletes = by_act[Act.ADOPT] + by_act[Act.DELETE]
            self._delete(deletes)

    def _note_undeleted(self, jobs: Sequence[Job]) -> None:
        """Write down which deletes had no effect.

        If such a source vanishes later, someone else took it.
        """
        rows = []
        for job in jobs:
            is_deleting = self._get_state(job) is State.DELETING
            if is_deleting and self.judge_source(job) is Place.SAME:
                rows.append(job.row)
        if rows:
            self.ledger.note("undeleted", rows, leg=jobs[0].leg)

    def _check_first(self, job: Job) -> None:
        """Resolve the first object; end the run if it did not move, unless others changed it.

        Until an object has moved, nothing shows that moves work on this store now.
        """

        def list_while_half_done() -> list[Job]:
            """Return the job while it is half done."""
            return [job] if self._get_state(job) in HALF_DONE else []

        self.resolve(list_while_half_done)
        state = self._get_state(job)
        if state is State.MOVED:
            self._has_moved_one = True
        elif state is not State.SKIPPED:
            why = self.ledger.get_reasons(job.leg).get(job.row, "nobody knows what became of it")
            raise StoppedError(f"the first object did not move: {job.key}: {why}")

    def _wait_for_fence(self, jobs: Sequence[Job]) -> None:
        """Wait until no request about these jobs can take effect any more."""
        ledger = self.ledger
        if any(job.row in ledger.in_flight for job in jobs):
            why = f"{len(jobs)} objects may still change"
            self.session.wait_until(ledger.fence_at, why)
            ledger.in_flight.clear()  # ``fence_at`` holds for the requests of all rows

    def _get_state(self, job: Job) -> State:
        """Return the state of a job's row, on the way that the job is about."""
        states = self.ledger.get_states(job.leg)
        return states[job.row]

    def _copy(self, jobs: Sequence[Job]) -> None:
        """Announce copies, send them, and write down what each answer proves.

        No copy is sent if the store does not guard destinations and the last look is too old.

        Raises
        ------
        StoppedError
            When no copy of several landed, although the store is not overloaded.
        """
        if not jobs:
            return
        leg = jobs[0].leg
        rows = [job.row for job in jobs]
        self._announce(jobs)
        if not self.abilities.conditional_copy and self._is_look_old():
            why = "the look at the destination is too old: nothing was sent"
            self._note_refused(rows, leg, why, is_final=False)
            return
        answers = self._send_copies(jobs)
        is_busy = self._adapt_width(answers)
        has_landed = any(answer.effect == "done" for answer in answers)
        if len(jobs) > 1 and not is_busy and not has_landed:
            # More copies would only leave more rows in doubt.
            why = self.ledger.get_reasons(leg).get(rows[0], "")
            raise StoppedError(f"no copy landed: {why}")

    def _announce(self, jobs: Sequence[Job]) -> None:
        """Write into ledger and record that the copies of these jobs are about to be sent.

        Before that, put the names of objects whose parked key is a hash.
        """
        ledger = self.ledger
        rows = [job.row for job in jobs]
        self.session.renew()  # the last renewal before the copies: it fixes the copies' fence
        self._put_names(jobs)
        ledger.log.reserve()  # so that the outcome can be written even if the disk fills up
        fence_at = format_time(self.session.fence_at)
        ledger.note("intent", rows, leg=jobs[0].leg, sync=True, fence_at=fence_at)
        self._write_record()

    def _send_copies(self, jobs: Sequence[Job]) -> list[Answer]:
        """Send copies, and write down what each answer proves. Return the answers."""
        requests = [self._make_copy(job) for job in jobs]
        answers = self.session.send(
            requests, lambda index, answer: self._note_copy(jobs[index], answer)
        )
        for job, answer in zip(jobs, answers, strict=True):
            # A copy was done, and is still doubtful, if its ETag is not the planned one.
            if answer.effect == "done" and self._get_state(job) is State.DOUBTFUL:
                self._compare_content(job, answer)
        return answers

    def _make_copy(self, job: Job) -> Request:
        """Return the request of a copy, bound to the planned ETag unless the source has none."""
        source = self.looks.get(job.key)
        is_bound = source is None or source.has_etag
        return Request(
            "copy",
            key=job.to,
            source=job.key,
            if_match=job.planned.etag if is_bound else "",
            if_absent=self.abilities.conditional_copy,
            headers=self._make_headers(job, source),
        )

    def _put_names(self, jobs: Sequence[Job]) -> None:
        """Put the names of objects whose parked key is a hash into the bucket, beside their keys.

        So the bucket knows the names before it holds the parked objects.
        """
        for job in jobs:
            if job.direction is Direction.PARK and is_hashed(job.to):
                name = job.key.removeprefix(self.ledger.plan.header.source)
                key = f"{job.to}{NAME_ENDING}"
                request = Request("put", key, body=name.encode())
                self.session.change(request)

    def _note_copy(self, job: Job, answer: Answer) -> None:
        """Write down at once what a copy's answer proves; without a proof, the job is in doubt."""
        if answer.effect == "done":
            if answer.etag == job.planned.etag:
                self._land(job, answer)
            return  # if the copy has another ETag than planned, its content is compared later
        text = f"the copy was answered by {answer.code} {answer.message}"
        why = text.strip()
        if answer.effect == "none":
            is_final = answer.code in REFUSED
            self._note_refused([job.row], job.leg, why, is_final=is_final)
        else:
            reasons = {str(job.row): why}
            self.ledger.note("doubtful", [job.row], leg=job.leg, reasons=reasons)

    def _land(self, job: Job, answer: Answer) -> None:
        """Write down that a copy landed, by the answer to it."""
        self.ledger.land(job.row, answer.etag, answer.last_modified, leg=job.leg)

    def _note_refused(
        self,
        rows: Sequence[int],
        leg: Leg,
        why: str,
        *,
        is_final: bool,
    ) -> None:
        """Write down that requests had no effect.

        Parameters
        ----------
        is_final : whether this run tries these rows no more
        """
        reasons = {str(row): why for row in rows}
        self.ledger.note("refused", rows, leg=leg, reasons=reasons, final=is_final)

    def _compare_content(self, job: Job, answer: Answer) -> None:
        """Look at a copy that has another ETag than planned: it landed, or it is a conflict.

        If the plan holds a hash of the content, the copy is read and hashed. A copy that has gone,
        or cannot be read, stays in doubt.
        """
        self.look_at([job.to])
        place = self.judge_destination(job)
        if place is Place.SAME:
            self._land(job, answer)
        elif place is Place.OTHER:
            why = f"the copy has the ETag {answer.etag}, not {job.planned.etag}: look at both keys"
            self.ledger.get_reasons(job.leg)[job.row] = why
            self.ledger.close(State.CONFLICT, [job.row], leg=job.leg)

    def _compare_bytes(self, job: Job) -> Place:
        """Compare a destination by the SHA-256 of its content: its ETag proves nothing."""
        try:
            sha256 = self.bucket.read_sha256(job.to)
        except StoreError:
            return Place.UNKNOWN
        return Place.SAME if sha256 == job.sha256 else Place.OTHER

    def _adapt_width(self, answers: Sequence[Answer]) -> bool:
        """Move fewer rows at once while the store is overloaded, and more again later.

        Returns
        -------
        Whether an answer says that the store is overloaded.
        """
        is_busy = any(answer.code in _OVERLOADED for answer in answers)
        if is_busy:
            self.width = _SLOWER[self.width]
        elif self.width < WINDOW:
            self.width *= 4
        return is_busy

    def _believe_versions(self, jobs: Sequence[Job]) -> None:
        """Count a new version of the planned content at the destination as proof of a copy.

        A versioned bucket keeps the version after a consumer took the object.
        """
        known = self.ledger.versions
        if known is None:
            return
        for job in jobs:
            place = self.judge_destination(job)
            has_no_copy = place in (Place.ABSENT, Place.OTHER)
            is_doubtful = self._get_state(job) is State.DOUBTFUL
            if job.is_release and has_no_copy and is_doubtful:
                known_ids = known.get(job.row, ())
                self._land_by_version(job, known_ids)

    def _land_by_version(self, job: Job, known_ids: Sequence[str]) -> None:
        """Write down that a copy landed if the destination has a new version with its content.

        Parameters
        ----------
        known_ids : versions of the planned content that were there before the first copy
        """
        # ``null`` is the id of every object that is written while the bucket keeps no versions.
        old_ids = ("", "null", *known_ids)
        for version in self.bucket.list_versions(job.to):
            if version.key != job.to or version.version_id in old_ids:
                continue
            if version.has_same_content(job.planned):
                self.ledger.land(job.row, version.etag, version.last_modified)
                return

    def _delete(self, jobs: Sequence[Job]) -> None:
        """Delete the sources of a window of jobs that have landed.

        The table must allow the delete, or the store must delete only the planned version.
        """
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
        fence_at = format_time(self.session.fence_at)
        ledger.note("deleting", rows, leg=leg, sync=True, fence_at=fence_at)
        is_release = leg is Leg.MOVE and ledger.plan.header.action == "move"
        if not is_release:
            # In a release, the table treats ``landed`` and ``deleting`` alike. On the way back,
            # whether a delete was sent decides what an absent source means.
            self._write_record()
        if is_looked_at and self._is_look_old():
            ledger.note("undeleted", rows, leg=leg)
            return  # the next round of ``resolve`` looks again
        answers = self._send_deletes(deletes)
        self._note_deletes(deletes, answers)

    def _note_deletes(self, jobs: Sequence[Job], answers: Mapping[int, Answer]) -> None:
        """Write down what the answers to deletes prove; without a proof, a job stays ``deleting``.

        Parameters
        ----------
        answers : for each row, the answer about its source
        """
        ledger = self.ledger
        leg = jobs[0].leg
        moved = []
        refused = []
        reasons_to_note = {}
        for job in jobs:
            answer = answers[job.row]
            if answer.effect == "done":
                moved.append(job.row)
                continue
            text = f"the delete was answered by {answer.code} {answer.message}"
            why = text.strip()
            ledger.get_reasons(leg)[job.row] = why
            if answer.effect == "none":
                refused.append(job.row)
                reasons_to_note[str(job.row)] = why
        ledger.close(State.MOVED, moved, leg=leg)
        self._forget_looks(jobs)
        if refused:
            ledger.note("delete_refused", refused, leg=leg, reasons=reasons_to_note)

    def _forget_looks(self, jobs: Sequence[Job]) -> None:
        """Forget the looks at jobs that have moved: nobody needs these looks again."""
        for job in jobs:
            if self._get_state(job) is State.MOVED:
                self.looks.pop(job.key, None)
                self.looks.pop(job.to, None)

    def _needs_look(self, job: Job) -> bool:
        """Tell whether a job's source must be looked at right before its delete."""
        return not job.is_release or not self.abilities.conditional_delete

    def _choose_deletes(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs whose source may be deleted now; look at the sources first if needed.

        Parameters
        ----------
        jobs : all of them take objects to consumers, or none does
        """
        first = jobs[0]
        if not self._needs_look(first):
            return list(jobs)
        if first.is_release:
            # What became of a copy that landed does not matter, so its destination is not read.
            self.look_at([job.key for job in jobs])
            by_act = self._decide_and_note(jobs, destination=Place.UNKNOWN)
        else:
            self.look_at(_list_ends(jobs))
            by_act = self._decide_and_note(jobs)
        return by_act[Act.DELETE]

    def _send_deletes(self, jobs: Sequence[Job]) -> dict[int, Answer]:
        """Send deletes, in one request if the store honours no condition.

        Returns
        -------
        For each row, the answer about its source.
        """
        if self.abilities.conditional_delete:
            requests = [Request("delete", job.key, if_match=job.planned.etag) for job in jobs]
            answers = self.session.send(requests)
            return {job.row: answer for job, answer in zip(jobs, answers, strict=True)}
        keys = [job.key for job in jobs]
        bulk_delete = Request("delete_many", keys=keys)
        (bulk_answer,) = self.session.send([bulk_delete])
        return {job.row: _read_bulk_answer(bulk_answer, job.key) for job in jobs}

    def _decide_and_note(
        self,
        jobs: Iterable[Job],
        destination: Place | None = None,
    ) -> dict[Act | State, list[Job]]:
        """Ask the table what to do with each job; write down in which state jobs end.

        Parameters
        ----------
        jobs : all of one leg
        destination : what to assume at each destination; None: what the last look says

        Returns
        -------
        For each act, the jobs to do it with; for each state, the jobs that end in it.
        """
        by_act: dict[Act | State, list[Job]] = defaultdict(list)
        leg = Leg.MOVE
        for job in jobs:
            leg = job.leg
            rule = decide(
                direction=job.direction,
                state=self._get_state(job),
                source=self.judge_source(job),
                destination=destination or self.judge_destination(job),
            )
            by_act[rule.act].append(job)
            self._note_decision(job, rule)
        for state in CLOSED:
            rows = [job.row for job in by_act[state]]
            self.ledger.close(state, rows, leg=leg)
        return by_act

    def _note_decision(self, job: Job, rule: Rule) -> None:
        """Keep the reason why a job ends; write down that a copy landed if a look found it."""
        ledger = self.ledger
        reasons = ledger.get_reasons(job.leg)
        if rule.act is State.CONFLICT:
            ends = self._describe_ends(job)
            reasons[job.row] = f"{rule.reason}: {ends}"
        elif rule.act in (State.SKIPPED, State.UNPROVEN):
            reasons[job.row] = rule.reason
        elif rule.act is Act.ADOPT:
            seen = self.looks[job.to]
            etag = seen.etag if seen else ""
            ledger.land(job.row, etag, None, leg=job.leg)

    def _describe_ends(self, job: Job) -> str:
        """Describe the planned version, and what is at both ends, in words."""
        ends = []
        for key in (job.key, job.to):
            seen = self.looks.get(key)
            if seen is not None:
                version = f"{seen.etag} of {format_time(seen.last_modified)}"
            elif key in self.looks:
                version = "nothing"
            else:
                version = "not looked at"
            ends.append(f"at {key}: {version}")
        return f"planned {job.planned.etag}; {'; '.join(ends)}"

    def _is_look_old(self) -> bool:
        """Tell whether the last look is too old for a request that the store does not guard."""
        age_s = self._clock.monotonic() - self._looked_at
        return age_s > _MAX_LOOK_AGE_S


def _read_bulk_answer(answer: Answer, key: str) -> Answer:
    """Return what the answer to a bulk delete says of one key."""
    code = answer.failed.get(key, "")
    if not code:
        return answer
    # After the signature's expiry a refusal proves nothing: ``Session.send`` made it unknown.
    if code in REFUSED and answer.effect == "done":
        return Answer("none", code=code)
    return Answer("unknown", code=code)


def _list_ends(jobs: Iterable[Job]) -> list[str]:
    """Return the keys of source and destination of each job."""
    keys = []
    for job in jobs:
        keys += [job.key, job.to]
    return keys


def _cut_windows(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """Yield the jobs in parts, each with as many jobs as a window may hold."""
    for start in range(0, len(jobs), WINDOW):
        yield jobs[start : start + WINDOW]
