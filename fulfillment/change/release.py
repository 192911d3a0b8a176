"""The release of waiting labels: this runbook's rules around ``objectmove``."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from chainlog import ChainedLog
from objectmove.bucket import Seen, format_time
from objectmove.errors import LimitError, NotApprovedError, RefusedError
from objectmove.ledger import Logs, Record, list_records, read_record
from objectmove.move import MoveResult, apply_plan, resume_plan
from objectmove.plan import MovePlan, Timing, parse_plan
from objectmove.planning import Judgement, make_move_plan, make_settle_plan, make_undo_plan
from objectmove.proof import verify_plan
from objectmove.session import Clock
from runbook_lib.approvals import Effect, Plan, PlanKind
from runbook_lib.errors import ClientError, SafetyError, StoreNotReadyError, UsageError
from runbook_lib.model import Json
from runbook_lib.record.incident import write_json
from runbook_lib.section import split_list

from ..analysis.labels import explain_left, make_judge, read_shipment_evidence
from ..clients import Clients
from ..investigation import Investigation
from .other_movers import describe_hold, make_hold, watch_writes

_AGE_KEY = "pending-since"
_LIFETIME_S = 900.0
_EVIDENCE = 200
_STILL = "the approval is also your word that no consumer takes from the destination meanwhile"
_SPLIT = (
    "Split it, and apply each before the next:\n  runbook plan --limit {limit}\n"
    "  runbook plan --older-than 30m --limit {limit}\n"
    "or raise RELEASE_LIMIT_OBJECTS (up to 100000)."
)
_SETTLE = "runbook settle {} --taken|--not-taken [KEY…]"
_FINE = ("in_place", "gone_after_landed")
_TOLD = ("objects", "bytes", "oldest", "excluded", "excluded_sample")


Observed = Sequence[tuple[str, datetime]]
"""Key and age start of objects."""


class Release(NamedTuple):
    """What a plan of this kind holds.

    Attributes
    ----------
    observed : every real object that was looked at, where it was just made
    """

    move: MovePlan
    observed: Observed = ()


def _to_plan(move: MovePlan, *, note: str = "", observed: Observed = ()) -> Plan:
    """Return a plan of ``objectmove`` as the gate sees it.

    Parameters
    ----------
    note : why what waits may not move, and which setting decides it
    """
    head, told = move.header, move.header.model_dump(mode="json")
    is_release = head.action == "move"
    again = "plan the release again"
    return Plan(
        kind=MOVE,
        path=move.path,
        sha256=move.sha256,
        expires_at=head.expires_at,
        step=head.step,
        action="release" if is_release else head.action,
        target=f"{head.endpoint}/{head.bucket}: {head.source} → {head.to}",
        summary={
            **{name: told[name] for name in _TOLD},
            **({"reason": note} if note else {}),
            "expires_at": told["expires_at"],
            **head.selection,
            **({"word": head.word, "about": head.parent} if head.action == "settle" else {}),
            "who else moves": head.others,
            "window": head.window,
            **({} if is_release else {"way_back": again}),
        },
        content=Release(move, observed),
        rows=move.rows,
        is_empty=not move.rows,
        way_back=f"runbook undo {move.id}" if is_release else again,
        reversible=is_release,
    )


def make_release_plan(
    inv: Investigation, *, reason: str, only_orders: frozenset[str] | None
) -> Plan:
    """Plan the release of what waits, by the parameters of 6.1 and the settings' rules.

    Parameters
    ----------
    reason : why a release, in words
    only_orders : only labels of these orders; None: of all

    Raises
    ------
    UsageError
        When what is shipped already would be moved back: that is an undo.
    StoreNotReadyError
        When the store is unwell, or has no room for the copies.
    LimitError
        When more would move than RELEASE_LIMIT_OBJECTS allows; gives the lines that split it.
    MoveError
        When the store cannot be read, or does not do what a move needs.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and the incident folder.
    Source: the runbook's section 6.1.
    """
    p: Any = inv.parameters
    settings, ready = inv.settings, inv.settings.ready_prefix
    source = p.prefix or settings.pending_prefix
    if source.startswith(ready) or ready.startswith(source):
        raise UsageError(f"{source} is where labels are shipped from: `runbook undo` takes back")
    check_store(inv.clients)
    hold = make_hold(settings, inv.clients, sleep=inv.sleep)
    selection = {"match": p.match or settings.release_match}
    if p.older_than_minutes:
        selection["older than"] = f"{p.older_than_minutes:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    limit, now = settings.release_limit_objects, inv.now()
    effect_s, spread_s = settings.release_effect_s, settings.release_clock_spread_s
    timing = Timing(lease_s=settings.release_lease_s, effect_s=effect_s, spread_s=spread_s)
    free_bytes = inv.clients.store.read_free_bytes() or float("inf")  # unknown
    observed: list[tuple[str, datetime]] = []
    older_than_s = p.older_than_minutes * 60 or None
    chosen: dict[str, Any] = {"only_orders": only_orders, "older_than_s": older_than_s}
    rules = make_judge(settings, inv.clients.fulfillment, now=now, **chosen)

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        found = rules(objects)
        for seen, judgement in zip(objects, found, strict=True):
            if not judgement.exclude and free_bytes < 2 * seen.size_bytes:
                raise StoreNotReadyError(f"{free_bytes} bytes are free: no room for the copies")
            if judgement.exclude != "synthetic":
                observed.append((seen.key, judgement.age_start))
        inv.progress("listed", len(observed))
        return found

    try:
        plan = make_move_plan(
            inv.clients.change_bucket,
            header={
                "source": source,
                "to": p.to or ready,
                "step": "6.1",
                "made_by": inv.operator,
                "others": f"{reason}; {describe_hold(hold)}",
                "made_at": now,
                "expires_at": now + timedelta(seconds=_LIFETIME_S),
                "timing": timing,
                "limit_objects": limit,
                "selection": selection,
            },
            folder=inv.incident.folder / "plans",
            judge=judge,
            match=selection["match"],
            first=p.limit or None,
        )
    except LimitError as error:
        raise LimitError(f"{error}. {_SPLIT.format(limit=limit)}") from error
    head = plan.header
    note = explain_left(head.excluded, head.excluded_sample, settings, is_all=not plan.rows)
    return _to_plan(plan, note=note, observed=observed)


def plan_undo(inv: Investigation, release: Plan) -> Plan:
    """Plan to take a release back. Source: the runbook's section 6.1."""
    others = f"{make_hold(inv.settings, inv.clients, sleep=inv.sleep).words}; {_STILL}"
    window_s = inv.settings.release_undo_window_minutes * 60
    return _plan_about(inv, release, make_undo_plan, others=others, window_s=window_s)


def plan_settling(inv: Investigation, release: Plan) -> Plan:
    """Plan to write down a person's word on rows of which nobody can know, with evidence.

    Word and keys are parameters of 6.1.2; no keys: all rows that are open.
    """
    p: Any = inv.parameters
    keys, client = split_list(p.settle_keys), inv.clients.fulfillment
    rows = [row for row in release.rows if row.key in keys]
    if not keys and (record := read_record(inv.clients.bucket, release.id)):
        rows = [release.rows[place] for place in sorted(record.open_rows)[:_EVIDENCE]]
    told = {r.key: read_shipment_evidence(client, r.facts.get("order_id", "")) for r in rows}
    return _plan_about(inv, release, make_settle_plan, word=p.settle_word, keys=keys, evidence=told)


def _plan_about(
    inv: Investigation, release: Plan, make: Callable[..., MovePlan], **more: Any
) -> Plan:
    """Plan something about a release, by what ``objectmove`` has for it."""
    about = {"logs": _open_logs(release), "made_by": inv.operator, "now": inv.now(), **more}
    return _to_plan(make(inv.clients.change_bucket, release.content.move, **about))


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Carry out an approved plan; go on with it when it was begun and cut off."""
    check_store(inv.clients)
    ledger = [entry.kind for entry in _open_logs(plan)(plan.id).read()]
    if "approved" in ledger and "done" not in ledger:
        with suppress(NotApprovedError):  # nothing of it was begun
            return _carry_out(resume_plan, inv, plan)
    return _carry_out(partial(apply_plan, approve=plan.sha256), inv, plan)


def _carry_out(move: Callable[..., MoveResult], inv: Investigation, plan: Plan) -> Effect:
    """Begin a plan, or go on with one from its ledger or the bucket's record."""
    result = move(
        inv.clients.change_bucket,
        plan.content.move,
        logs=_open_logs(plan),
        operator=inv.operator,
        clock=Clock(inv.now),
        hold=make_hold(inv.settings, inv.clients, sleep=inv.sleep),
        age_key=_AGE_KEY,
        watch=partial(watch_writes, inv.clients.bucket),
        notice=inv.progress,
        progress=partial(inv.progress, "dealt with"),
    )
    told = asdict(result)
    reason = f"{result.moved} moved, {result.already} of them before"
    if not result.is_complete:
        parts = {name: len(told[name]) for name in ("conflicts", "failed", "unproven")}
        parts["waiting"] = result.waiting
        reason = "; ".join([reason, *(f"{n} {name}" for name, n in parts.items() if n)])
        reason += f"; {result.stopped or 'see runbook verify'} {find_way_on(plan, told)}"
    return Effect(reason, told, is_ok=result.is_complete)


def find_way_on(plan: Plan, result: dict[str, Json]) -> str:
    """Return the command that goes on from an incomplete result; empty when there is none."""
    ways = {"waiting": f"runbook resume {plan.id}", "unproven": _SETTLE.format(plan.id)}
    return next((way for name, way in ways.items() if result.get(name)), "")


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Prove by an independent look where each planned object is, and keep the proof."""
    move, logs, clock = plan.content.move, _open_logs(plan), Clock(inv.now)
    proof = verify_plan(inv.clients.bucket, move, logs=logs, clock=clock, notice=inv.progress)
    result = proof.to_json()
    if not inv.incident.is_late:
        head = {"schema": "runbook/proof/2", "at": format_time(proof.at), "sha256": plan.sha256}
        head["how"] = "a fresh listing of both prefixes, compared with plan, ledger and record"
        write_json(inv.incident.path("evidence", f"proof-{plan.id}.json"), {**head, **result})
    bad = [f"{n} {name}" for name, n in proof.counts.items() if n and name not in _FINE]
    fine = [f"{n} {name.replace('_', ' ')}" for name in _FINE if (n := proof.counts[name])]
    how = "by independent listing" if bad else "proven by listing"
    return Effect(f"{how}: {', '.join(bad or fine)}", result, is_ok=proof.is_complete)


def list_unfinished(clients: Clients) -> list[dict[str, Json]]:
    """Return the releases of this bucket that need someone, with the command that goes on.

    Returns
    -------
    Rows of ``plan``, ``by``, ``state``, ``rows`` (number in doubt or begun) and ``way_on``. Only
    reads.
    """
    records = {record.plan: record for record in list_records(clients.bucket)}
    return [_describe(record, records.keys()) for record in records.values()]


def _describe(record: Record, known: Container[str]) -> dict[str, Json]:
    state, way_on, rows = "not finished", f"runbook resume {record.plan}", record.begun
    if record.finished:
        state, rows = "done", len(record.open_rows)
        if rows:
            state = "waits for a person's word: nobody can know whether these were shipped"
            way_on = _SETTLE.format(record.plan)
    elif f"{record.plan}-undo" in known:
        state, way_on = "being taken back", f"{way_on}-undo"
    if record.is_holding:
        state += "; the worker is paused for it"
    by = f"{record.by} on {record.host}"
    return {"plan": record.plan, "by": by, "state": state, "rows": rows, "way_on": way_on}


def _open_logs(plan: Plan) -> Logs:
    """Return what opens the ledger of a plan, or of one about it, in the folder of its incident."""
    return lambda plan_id: ChainedLog(plan.trace.with_name(f"{plan_id}.jsonl"))


def check_store(clients: Clients) -> None:
    """Refuse unless the store says that it is well.

    Raises
    ------
    StoreNotReadyError
        With what it says.
    """
    try:
        clients.store.check_live()
    except ClientError as error:
        raise StoreNotReadyError(f"the store does not say that it is well ({error})") from error


MOVE = PlanKind(
    "objectmove/plan/",  # of which version is for `parse_plan` to say
    _apply,
    _verify,
    parse=lambda path, blob: _to_plan(parse_plan(blob, path=path)),
    resume=partial(_carry_out, resume_plan),
    refusals=(SafetyError, RefusedError),
)
