"""Whether a plan may begin or go on: raise a refusal if it may not. Changes no planned object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from . import record as records
from .bucket import S3Bucket, format_time
from .carry import look_surely
from .errors import DriftError, ExpiredError, NotApprovedError
from .ledger import Ledger
from .plan import Abilities, MovePlan
from .record import Record
from .session import Clock, Session, read_store_id
from .table import State

#: A release still begins if at most this many of its objects changed, or at most a tenth.
_FEW_CHANGED = 3
#: How long the consumer is watched before an undo.
_STAND_STILL_S = 3.0


def check_approval(
    ledger: Ledger,
    record: Record | None,
    *,
    is_new: bool,
    has_earlier: bool = False,
    has_word: bool,
    now: datetime,
) -> None:
    """Refuse a plan that must not begin, or must not go on, by what is known of its approval.

    Refused are: other bytes than were approved; a second beginning; a beginning after the plan has
    expired; a resume of a plan that was never begun; an undo without a person's word.

    Parameters
    ----------
    record : what the bucket knows of the plan; None when it knows nothing
    is_new : whether the plan begins; else it goes on
    has_earlier : whether the bucket knows an earlier plan of this name, which never began
    has_word : whether a person said that the consumer stands still, or that the others may go on
    now : this machine's time

    Raises
    ------
    NotApprovedError, ExpiredError
        When the plan is refused.
    """
    plan = ledger.plan
    header = plan.header
    recorded_sha256 = record.sha256 if record is not None else ""
    approved_hashes = (ledger.approved_sha256, recorded_sha256)
    if any(sha256 not in ("", plan.sha256) for sha256 in approved_hashes):
        raise NotApprovedError(
            f"{plan.id} is not the plan that was approved by that name: make a new plan"
        )
    is_begun = ledger.is_begun or record is not None
    # A ledger with any line, or an earlier record, is enough for a resume that ends the plan.
    is_known = is_begun or bool(ledger.head) or has_earlier
    if is_new and is_begun:
        if ledger.is_ended:
            end = "was carried out"
            if header.action == "move" and has_announced_nothing(ledger):
                end = "has ended, and nothing of it was moved"
            raise NotApprovedError(f"{plan.id} {end}: {_say_plan_again(plan)}.")
        raise NotApprovedError(f"{plan.id} was begun. Go on with: {header.resume_command}")
    if is_new and now > header.expires_at:
        until = format_time(header.expires_at)
        raise ExpiredError(f"{plan.id} expired at {until}: {_say_plan_again(plan)}")
    if not is_new and not is_known:
        text = f"{plan.id} was never begun, and nothing was moved"
        if header.action == "move" and now > header.expires_at:
            text += f". It expired at {format_time(header.expires_at)}. Go on with: runbook plan"
        elif header.action == "move":
            text += f". Look at it with: runbook apply {plan.id}"
        raise NotApprovedError(text)
    if header.action == "undo" and not has_word:
        raise NotApprovedError(
            f"{plan.id} is safe only while the consumer stands still: stop it, and say so with "
            f"--consumer-stands-still"
        )


def check_not_taken_back(bucket: S3Bucket, plan: MovePlan) -> None:
    """Refuse to go on with a release while it is being taken back."""
    for undo in records.read_later_records(bucket, plan.id):
        is_undo = undo.action == "undo" and undo.parent == plan.id
        if is_undo and not undo.ended:
            way_on = undo.resume_command
            raise NotApprovedError(f"{plan.id} is being taken back. Go on with: {way_on}")


def check_and_renew_memory(
    session: Session, ledger: Ledger, record: Record | None, *, is_new: bool
) -> None:
    """Refuse to begin a plan if the bucket's memory was removed since the plan was made.

    Raises
    ------
    NotApprovedError
        When the memory was removed, and the plan is to begin.

    Notes
    -----
    Writes ``.runbook/id`` anew. If the plan goes on, and the memory was removed since the plan was
    begun, also writes into the ledger that the memory was removed.
    """
    store_id = read_store_id(session.bucket)
    is_other = bool(ledger.store_id) and store_id != ledger.store_id
    if is_new and is_other:
        raise NotApprovedError(
            f"the bucket's memory (.runbook/) was removed since {ledger.plan.id} was made: "
            "plan again"
        )
    session.write_store_id(store_id)
    is_removed = not is_new and (is_other or record is None)
    if is_removed and ledger.is_begun and not ledger.memory_removed:
        ledger.note("memory_removed", sync=True)


def has_nothing_to_resume(ledger: Ledger) -> bool:
    """Tell whether nothing of a plan was announced, so that a resume can only end it.

    A settling that moves nothing and a reopening announce no rows: once approved, they go on. A
    plan that the bucket forgot goes on, too: another machine may have announced rows.
    """
    if not ledger.is_begun:
        return True
    plan = ledger.plan
    is_word = plan.header.action == "reopen" or not plan.moves_objects
    return not is_word and not ledger.memory_removed and has_announced_nothing(ledger)


def has_announced_nothing(ledger: Ledger) -> bool:
    """Tell whether no row was announced, and none ended with an effect."""
    if ledger.begun != 0:
        return False
    without_effect = {State.NONE}
    if ledger.plan.header.action != "settle":  # a settling's word counts even where nothing moves
        without_effect.add(State.SKIPPED)
    states = {*ledger.states.values(), *ledger.park_states.values()}
    return states <= without_effect


def check_word(bucket: S3Bucket, plan: MovePlan) -> None:
    """Refuse a person's word on rows that somebody settled since the plan of the word was made.

    But the word *taken* overrules an earlier *not taken*.
    """
    header = plan.header
    # The parent's record names its own rows; the records of later plans name the release's rows.
    parent = records.read_record(bucket, header.parent)
    words_of_rows = parent.settled if parent is not None else {}
    words_of_release_rows: dict[int, str] = {}
    later = records.read_later_records(bucket, header.release)
    for record in sorted(later, key=lambda record: record.begun_at):
        if record.plan != plan.id:
            words_of_release_rows.update(record.about)
    settled_keys = []
    for row in plan.rows:
        earlier_word = words_of_release_rows.get(int(row.facts["release_row"]))
        earlier_word = earlier_word or words_of_rows.get(int(row.facts["row"]))
        is_overruled = earlier_word == "not_taken" and header.word == "taken"
        if earlier_word not in (None, "reopened") and not is_overruled:
            settled_keys.append(row.facts["key"])
    if settled_keys:
        raise NotApprovedError(
            f"{len(settled_keys)} of these rows were settled since {plan.id} was made "
            f"({settled_keys[0]}). Look again with: runbook settle {header.parent}"
        )


def check_stillness(
    bucket: S3Bucket, keys: Sequence[str], *, abilities: Abilities, clock: Clock
) -> None:
    """Look twice at the objects that an undo takes back; refuse if one vanishes meanwhile.

    Parameters
    ----------
    keys : the keys from which consumers take the objects

    Raises
    ------
    DriftError
        When an object vanishes meanwhile.
    """
    before = look_surely(bucket, keys, abilities=abilities)
    clock.sleep(_STAND_STILL_S)
    after = look_surely(bucket, keys, abilities=abilities)
    # A key that is missing in ``after`` could not be read: that shows nothing about its object.
    vanished = [key for key in keys if before.get(key) and key in after and after[key] is None]
    if vanished:
        some = ", ".join(vanished[:5])
        raise DriftError(
            f"{len(vanished)} objects vanished within {_STAND_STILL_S:g} s ({some}): the "
            "consumer does not stand still. Stop it, then try again. Nothing was changed."
        )


def find_owned(ledger: Ledger, owners: Mapping[str, Record]) -> dict[int, str]:
    """Return which rows wait and belong to another plan.

    The keys are the rows' numbers; the values say, in words, which plan needs the row's object.

    Parameters
    ----------
    owners : for each object's key, the record of the other plan that owns the object
    """
    owned = {}
    for row in ledger.rows(State.NONE):
        planned = ledger.plan.rows[row]
        owner = owners.get(planned.key) or owners.get(planned.to)
        if owner:
            way_on = owner.resume_command
            owned[row] = f"{owner.plan} still needs this object. Go on with: {way_on}"
    return owned


def check_changed(plan: MovePlan, changed: Mapping[int, str], *, is_strict: bool) -> None:
    """Refuse a plan of which too many objects changed since it was made.

    Parameters
    ----------
    changed : for each row whose object changed, what happened to the object
    is_strict : in a release, whether one changed object is too many; in other plans, one always is

    Raises
    ------
    DriftError
        When there are too many.
    """
    rows = plan.rows
    allowed = 0
    if plan.header.action == "move" and not is_strict:
        allowed = max(_FEW_CHANGED, len(rows) // 10)
    if len(changed) > allowed:
        some = _describe_some(plan, changed)
        what = f"{len(changed)} of {len(rows)} planned objects are not what they were: {some}"
        raise DriftError(f"{what}. Nothing was changed; {_say_plan_again(plan)}.")


def _say_plan_again(plan: MovePlan) -> str:
    """Say that a plan must be made anew; for a move, with the command."""
    return "plan again with `runbook plan`" if plan.header.action == "move" else "plan again"


def _describe_some(plan: MovePlan, changed: Mapping[int, str]) -> str:
    """Name the first five rows that changed, and how."""
    first = sorted(changed)[:5]
    texts = [f"{plan.rows[row].key}: {changed[row]}" for row in first]
    return "; ".join(texts)
