"""The release of waiting labels: this runbook's rules around ``objectmove``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainlog import ChainedLog
from objectmove.bucket import Seen, format_time
from objectmove.errors import LimitError, NotApprovedError
from objectmove.ledger import Logs
from objectmove.move import MoveResult, apply_plan, resume_plan
from objectmove.plan import MovePlan, PlanRow, Timing, load_plan
from objectmove.planning import Judgement, make_move_plan, make_settle_plan, make_undo_plan
from objectmove.proof import MoveProof, verify_plan
from objectmove.record import Record, list_records
from objectmove.session import Clock

from ..analysis.labels import explain_nothing, make_judge, read_shipment_evidence
from ..errors import StoreNotReadyError, UsageError
from ..model import Json
from .worker_hold import make_hold
from .write_watch import watch_writes

if TYPE_CHECKING:
    from ..clients import Clients
    from ..investigation import Investigation
    from ..settings import Settings

__all__ = [
    "ReleasePlan",
    "apply_release",
    "find_plan",
    "list_unfinished",
    "make_release_plan",
    "plan_settling",
    "plan_undo",
    "resume_release",
    "verify_release",
]

AGE_KEY = "pending-since"
GIB = 1024**3
_LIFETIME_S = 900.0
_EVIDENCE = 200
_NOT_REAL = ("synthetic", "gone", "no_match", "left_for_later")
_STILL = "the approval is also your word that no consumer takes from the destination meanwhile"
_WORDS = {"move": "release", "undo": "undo", "settle": "settle"}


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """A plan of ``objectmove`` as the runbook's gate and notebooks see it: ``section.Plan``.

    Attributes
    ----------
    note : why nothing of what waits may move, and which setting decides it
    observed : key and age start of every real object that was looked at, where it was just made
    """

    plan: MovePlan
    note: str = ""
    observed: tuple[tuple[str, datetime], ...] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """Name of the file without the ending."""
        return self.plan.id

    @property
    def path(self) -> Path:
        """The plan's file."""
        return self.plan.path

    @property
    def sha256(self) -> str:
        """The approval."""
        return self.plan.sha256

    @property
    def step(self) -> str:
        """The runbook step."""
        return self.plan.header.step

    @property
    def action(self) -> str:
        """``release``, ``undo`` or ``settle``."""
        return _WORDS[self.plan.header.action]

    @property
    def is_empty(self) -> bool:
        """Whether no object would move."""
        return not self.plan.rows

    @property
    def reversible(self) -> bool:
        """Whether ``undo`` takes it back."""
        return self.plan.header.action == "move"

    @property
    def target(self) -> str:
        """From where to where."""
        head = self.plan.header
        return f"{head.endpoint}/{head.bucket}: {head.source} → {head.to}"

    @property
    def waits_in_vain(self) -> bool:
        """Whether real objects wait and none of them may be released."""
        left = self.plan.header.excluded.items()
        return self.is_empty and any(n for reason, n in left if reason not in _NOT_REAL)

    @property
    def summary(self) -> dict[str, Json]:
        """What an approver needs to know."""
        head = self.plan.header
        word = {"word": head.word, "about": head.parent} if head.action == "settle" else {}
        return {
            "objects": head.objects,
            "bytes": head.bytes,
            "oldest": format_time(head.oldest) if head.oldest else None,
            "excluded": dict(head.excluded),
            "excluded_sample": {why: list(keys) for why, keys in head.excluded_sample.items()},
            **({"reason": self.note} if self.note else {}),
            "expires_at": format_time(head.expires_at),
            **head.selection,
            **word,
            "who else moves": head.others,
            "window": head.window,
            **({} if self.reversible else {"way_back": "plan the release again"}),
        }

    def iter_rows(self) -> Iterator[PlanRow]:
        """Yield the rows in the order of their keys."""
        return iter(self.plan.rows)


def make_release_plan(
    inv: Investigation,
    *,
    reason: str,
    prefix: str,
    to: str,
    match: str = "",
    older_than_s: float | None = None,
    first: int | None = None,
    only_orders: frozenset[str] | None = None,
) -> ReleasePlan:
    """Plan the release of what waits, by the settings' rules of what is finished.

    Parameters
    ----------
    reason : why a release, in words
    match : shell pattern of names; empty: RELEASE_MATCH
    older_than_s : leave out what waits for less long
    first : take only that many; the rest is ``left_for_later``
    only_orders : only labels of these orders

    Raises
    ------
    UsageError
        When what is shipped already would be moved back: that is an undo.
    StoreNotReadyError
        When the store is unwell.
    LimitError
        When more would move than RELEASE_LIMIT_OBJECTS allows; gives the lines that split it.
    MoveError
        When the store cannot be read, or does not do what a move needs.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and the incident folder.
    Source: the runbook's section 6.1.
    """
    settings = inv.settings
    if prefix.startswith(settings.ready_prefix) or settings.ready_prefix.startswith(prefix):
        raise UsageError(f"{prefix} is where labels are shipped from: `runbook undo` takes back")
    check_store(inv.clients)
    hold = make_hold(settings, inv.clients, sleep=time.sleep)
    bar = inv.progress("listed") if inv.progress else None
    selection = {"match": match or settings.release_match}
    if older_than_s:
        selection["older than"] = f"{older_than_s / 60:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    limit = settings.release_limit_objects
    observed: list[tuple[str, datetime]] = []
    rules = make_judge(
        settings,
        inv.clients.fulfillment,
        now=inv.now(),
        only_orders=only_orders,
        older_than_s=older_than_s,
    )

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        found = rules(objects)
        for seen, judgement in zip(objects, found, strict=True):
            if judgement.exclude != "synthetic":
                observed.append((seen.key, judgement.age_start))
        return found

    try:
        plan = make_move_plan(
            inv.clients.change_bucket,
            header={
                "source": prefix,
                "to": to,
                "step": "6.1",
                "made_by": inv.operator,
                "others": f"{reason}; {hold.words}",
                "lifetime_s": _LIFETIME_S,
                "limit_objects": limit,
                "limit_bytes": limit * 256 * 1024 + GIB,
                "selection": selection,
            },
            folder=inv.incident.folder / "plans",
            judge=judge,
            timing=read_timing(settings),
            now=inv.now(),
            match=match or settings.release_match,
            first=first,
            free_bytes=inv.clients.store.read_free_bytes(),
            progress=(lambda listed: bar(listed, 0)) if bar else (lambda _: None),
        )
    except LimitError as error:
        raise LimitError(f"{error}. {_split_lines(limit)}") from error
    note = "" if plan.rows else explain_nothing(plan.header.excluded, settings)
    return ReleasePlan(plan, note=note, observed=tuple(observed))


def plan_undo(inv: Investigation, release: ReleasePlan) -> ReleasePlan:
    """Plan to take a release back. Source: the runbook's section 6.1."""
    plan = make_undo_plan(
        inv.clients.change_bucket,
        release.plan,
        logs=open_logs(inv),
        made_by=inv.operator,
        others=f"{make_hold(inv.settings, inv.clients, sleep=time.sleep).words}; {_STILL}",
        window_s=inv.settings.release_undo_window_minutes * 60,
        now=inv.now(),
    )
    return ReleasePlan(plan)


def plan_settling(
    inv: Investigation, release: ReleasePlan, *, taken: bool, keys: tuple[str, ...]
) -> ReleasePlan:
    """Plan to write down a person's word on rows of which nobody can know, with evidence.

    Parameters
    ----------
    taken : whether a consumer took them
    keys : of the rows; empty: all that are open
    """
    rows = {row.key: row for row in release.plan.rows}
    chosen = keys or tuple(_list_open(inv, release))[:_EVIDENCE]
    evidence = {
        key: read_shipment_evidence(inv.clients.fulfillment, rows[key].facts.get("order_id", ""))
        for key in chosen
        if key in rows
    }
    plan = make_settle_plan(
        inv.clients.change_bucket,
        release.plan,
        logs=open_logs(inv),
        word="taken" if taken else "not_taken",
        keys=list(keys),
        evidence=evidence,
        made_by=inv.operator,
        now=inv.now(),
        lifetime_s=_LIFETIME_S,
    )
    return ReleasePlan(plan)


def _list_open(inv: Investigation, release: ReleasePlan) -> list[str]:
    records = {record.plan: record.open_rows for record in list_records(inv.clients.bucket)}
    rows = release.plan.rows
    return [rows[place].key for place in sorted(records.get(release.id, ())) if place < len(rows)]


def find_plan(inv: Investigation, release: ReleasePlan, sha256: str) -> ReleasePlan | None:
    """Return the undo or settling of a release that an approval names, if it was planned."""
    for path in sorted((inv.incident.folder / "plans").glob(f"{release.id}-*.jsonl")):
        plan = load_plan(path)
        if plan.sha256 == sha256 and plan.header.parent == release.id:
            return ReleasePlan(plan)
    return None


def apply_release(inv: Investigation, plan: ReleasePlan, *, approve: str) -> MoveResult:
    """Carry out an approved plan; go on with it when it was begun and cut off.

    Raises
    ------
    MoveError
        When it is refused, or was stopped; what was done stands in the ledger.
    """
    check_store(inv.clients)
    ledger = [entry.kind for entry in open_logs(inv)(plan.id).read()]
    if "approved" in ledger and "done" not in ledger and approve == plan.sha256:
        with suppress(NotApprovedError):  # nothing of it was begun
            return resume_release(inv, plan)
    how = _how(inv)
    return apply_plan(inv.clients.change_bucket, plan.plan, approve=approve, **how)


def resume_release(inv: Investigation, plan: ReleasePlan) -> MoveResult:
    """Go on with a plan that was begun, from its ledger or the bucket's record."""
    return resume_plan(inv.clients.change_bucket, plan.plan, **_how(inv))


def verify_release(inv: Investigation, plan: ReleasePlan) -> MoveProof:
    """Prove by an independent look where each planned object is. Only reads."""
    return verify_plan(
        inv.clients.bucket,
        plan.plan,
        logs=open_logs(inv),
        clock=Clock(inv.now),
        notice=inv.say,
    )


def list_unfinished(clients: Clients) -> list[dict[str, Json]]:
    """Return the releases of this bucket that need someone, with the command that goes on.

    Returns
    -------
    Rows of ``plan``, ``by``, ``state``, ``rows`` (number in doubt or begun) and ``way_on``. Only
    reads.
    """
    return [_describe(record) for record in list_records(clients.bucket)]


def _describe(record: Record) -> dict[str, Json]:
    if record.taken_back_by and not record.finished:
        state, way_on = "being taken back", f"runbook resume {record.taken_back_by}"
    elif not record.finished:
        state, way_on = "not finished", f"runbook resume {record.plan}"
    elif not record.open_rows:
        state, way_on = "done", f"runbook resume {record.plan}"
    else:
        state = "waits for a person's word: nobody can know whether these were shipped"
        way_on = f"runbook settle {record.plan} --taken|--not-taken [KEY…]"
    if record.is_holding:
        state += "; the worker is paused for it"
    return {
        "plan": record.plan,
        "by": f"{record.by} on {record.host}",
        "state": state,
        "rows": len(record.open_rows) if record.finished else record.begun,
        "way_on": way_on,
    }


def read_timing(settings: Settings) -> Timing:
    """Return how long requests may take, from the settings."""
    effect_s, spread_s = settings.release_effect_s, settings.release_clock_spread_s
    return Timing(lease_s=settings.release_lease_s, effect_s=effect_s, spread_s=spread_s)


def open_logs(inv: Investigation) -> Logs:
    """Return what opens the ledger of a plan in the incident's folder."""
    return lambda plan_id: ChainedLog(inv.incident.path("ledger", f"{plan_id}.jsonl"))


def check_store(clients: Clients) -> None:
    """Refuse while the store says that it is unwell.

    Raises
    ------
    StoreNotReadyError
        With what it says.
    """
    live = clients.store.check_live()
    if not live.is_live:
        raise StoreNotReadyError(f"the store is not well ({live.source}: {live.reason})")


def _how(inv: Investigation) -> dict[str, Any]:
    bar = inv.progress("dealt with") if inv.progress else None
    return {
        "logs": open_logs(inv),
        "operator": inv.operator,
        "clock": Clock(inv.now),
        "hold": make_hold(inv.settings, inv.clients, sleep=time.sleep),
        "age_key": AGE_KEY,
        "watch": partial(watch_writes, inv.clients.bucket),
        "notice": inv.say,
        "progress": bar or (lambda _done, _total: None),
    }


def _split_lines(limit: int) -> str:
    return (
        f"Split it, and apply each before the next:\n  runbook plan --limit {limit}\n"
        "  runbook plan --older-than 30m --limit "
        f"{limit}\nor raise RELEASE_LIMIT_OBJECTS (up to 100000)."
    )
