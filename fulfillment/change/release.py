"""The release of waiting labels: this runbook's rules around ``objectmove``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from chainlog import ChainedLog
from objectmove.bucket import Seen, format_time
from objectmove.errors import InterruptedMoveError, LimitError, PlanError, RefusedError
from objectmove.ledger import Ledger, Logs
from objectmove.memory import Begun, find_way_on, list_forgotten
from objectmove.move import MoveResult, apply_plan, resume_plan
from objectmove.plan import MovePlan, PlanHeader, PlanRow, Timing, parse_plan
from objectmove.planning import Judgement, make_move_plan, make_undo_plan
from objectmove.proof import verify_plan
from objectmove.record import Record, list_records, read_later_records, read_record
from objectmove.session import Clock
from objectmove.settling import OpenRow, Word, list_open_rows, make_settle_plan
from runbook_lib.approvals import Effect, Plan, PlanKind
from runbook_lib.errors import ClientError, SafetyError, StoreNotReadyError, UsageError
from runbook_lib.model import Json, Progress, keep_quiet
from runbook_lib.record.incident import list_incidents, write_json

from ..clients import Clients
from ..investigation import Investigation
from ..settings import Settings, is_nested
from ..waiting import explain_left, make_judge, read_shipment_evidence
from .other_movers import describe_hold, make_hold, watch_writes

_AGE_KEY = "pending-since"
_LIFETIME_S = 900.0
_STILL = (
    "the approval needs your word that no consumer takes from the destination meanwhile "
    "(--consumer-stands-still), and that the worker does not move where nobody holds it"
)
_UNHELD_WORD = (
    "nobody holds the worker: the approval is also your word that it moves nothing of this until "
    "it is done"
)
_SPLIT = (
    "Split it, and apply each before the next:\n  runbook plan --limit {limit}\n"
    "  runbook plan --older-than 30m --limit {limit}\n"
    "or raise RELEASE_LIMIT_OBJECTS (up to 100000)."
)
_CONFLICTS = 20
_FINE = ("in_place", "gone_after_landed")
_SHOWN = ("objects", "bytes", "oldest", "excluded", "excluded_sample")
_TROUBLES = ("skipped", "conflicts", "failed", "unproven", "lost_in_window", "in_reach")

TO_SETTLE = ("key", "order", "evidence", "rewritten", "why", "taken_does", "not_taken_does")


Observed = Sequence[tuple[str, datetime]]
"""Key and age start of objects."""


class Release(NamedTuple):
    """What a plan of this kind holds.

    Attributes
    ----------
    observed : every real object that was looked at; empty for a plan that was read back
    """

    move: MovePlan
    observed: Observed = ()


def _to_plan(move: MovePlan, *, note: str = "", observed: Observed = ()) -> Plan:
    """Return a plan of ``objectmove`` as the gate sees it.

    Parameters
    ----------
    note : why waiting labels may not move, and which setting decides it
    """
    head = move.header
    fields = head.model_dump(mode="json")
    summary: dict[str, Json] = {name: fields[name] for name in _SHOWN}
    if note:
        summary["reason"] = note
    summary["expires_at"] = fields["expires_at"]
    summary.update(head.selection)
    statuses = Counter(row.facts["status"] for row in move.rows if "status" in row.facts)
    if statuses:
        summary["shipments"] = dict(statuses)
    if head.action == "settle":
        summary["word"] = head.word
        summary["about"] = head.parent
    summary["who else moves"] = head.others
    summary["window"] = head.window
    way_back = _describe_way_back(move)
    is_reversible = way_back.startswith("runbook ")
    if not is_reversible:
        summary["way_back"] = way_back
    return Plan(
        kind=MOVE,
        path=move.path,
        sha256=move.sha256,
        expires_at=head.expires_at,
        step=head.step,
        action="release" if head.action == "move" else head.action,
        target=f"{head.endpoint}/{head.bucket}: {head.source} → {head.to}",
        summary=summary,
        content=Release(move, observed),
        rows=move.rows,
        is_empty=not move.rows,
        way_back=way_back,
        reversible=is_reversible,
    )


def _describe_way_back(move: MovePlan) -> str:
    """Return the command that takes a plan back, or what to do in words."""
    if move.header.action in ("move", "settle"):
        return f"runbook undo {move.id}"
    if move.header.action == "reopen":
        return f"say again what became of them: runbook settle {move.id}"
    return "plan the release again"


def make_release_plan(
    inv: Investigation, *, reason: str, only_orders: frozenset[str] | None
) -> Plan:
    """Plan the release of waiting labels, by the parameters of 6.1 and the settings.

    Parameters
    ----------
    reason : why a release, in words
    only_orders : only labels of these orders; None: of all

    Raises
    ------
    UsageError
        When the source holds labels that were shipped: moving those back is an undo.
    StoreNotReadyError
        When the store is unhealthy, or has no room for the copies.
    LimitError
        When more labels would move than RELEASE_LIMIT_OBJECTS allows; prints how to split them.
    MoveError
        When the store cannot be read, or lacks what a move needs.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/`` and the parking prefix, and the incident
    folder. Source: the runbook's section 6.1.
    """
    p: Any = inv.parameters
    settings = inv.settings
    ready = settings.ready_prefix
    source = p.prefix or settings.pending_prefix
    if is_nested(source, ready):
        raise UsageError(f"{source} is where labels are shipped from: `runbook undo` takes back")
    check_store(inv.clients)
    check_move_rights(inv.clients, source, p.to or ready)
    hold = make_hold(settings, inv.clients, sleep=inv.sleep)
    selection = {"match": p.match or settings.release_match}
    if p.older_than_minutes:
        selection["older than"] = f"{p.older_than_minutes:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    if p.memory_removed:
        selection["memory removed"] = "rows may be planned of which the bucket forgot what became"
    limit = settings.release_limit_objects
    now = inv.now()
    free_bytes = inv.clients.store.read_free_bytes() or float("inf")  # unknown
    observed: list[tuple[str, datetime]] = []
    rules = make_judge(
        settings,
        inv.clients.fulfillment,
        now=now,
        only_orders=only_orders,
        older_than_s=p.older_than_minutes * 60 or None,
    )

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        judgements = rules(objects)
        for seen, judgement in zip(objects, judgements, strict=True):
            if not judgement.exclude and free_bytes < 2 * seen.size_bytes:
                raise StoreNotReadyError(f"{free_bytes} bytes are free: no room for the copies")
            if judgement.exclude != "synthetic":
                observed.append((seen.key, judgement.age_start))
        inv.progress("listed", len(observed))
        return judgements

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
                "timing": _get_timing(settings),
                "limit_objects": limit,
                "selection": selection,
                "parked": settings.release_parked_prefix,
            },
            folder=inv.incident.folder / "plans",
            judge=judge,
            match=selection["match"],
            first=p.limit or None,
            list_begun=partial(list_begun, settings.runbook_home.resolve()),
            memory_removed=p.memory_removed,
        )
    except LimitError as error:
        raise LimitError(f"{error}. {_SPLIT.format(limit=limit)}") from error
    head = plan.header
    note = explain_left(head.excluded, head.excluded_sample, settings, is_all=not plan.rows)
    return _to_plan(plan, note=note, observed=observed)


def _get_timing(settings: Settings) -> Timing:
    return Timing(
        lease_s=settings.release_lease_s,
        effect_s=settings.release_effect_s,
        spread_s=settings.release_clock_spread_s,
    )


def list_begun(home: Path) -> Mapping[str, Callable[[], Begun | None]]:
    """Return every plan that has a ledger in an incident's folder on this machine.

    Each value reads its plan when it is called. It returns None for a damaged file, and for a plan
    that is no release. Only reads.
    """
    begun: dict[str, Callable[[], Begun | None]] = {}
    for folder in list_incidents(home):
        for ledger in sorted((folder / "ledger").glob("*.jsonl")):
            begun[ledger.stem] = partial(_read_begun, folder, ledger)
    return begun


def _read_begun(folder: Path, ledger: Path) -> Begun | None:
    path = folder / "plans" / ledger.name
    if not path.is_file():
        return None
    try:
        plan = parse_plan(path.read_bytes(), path=path)
    except PlanError:
        return None
    return Begun(plan, ChainedLog(ledger))


def plan_undo(inv: Investigation, release: Plan) -> Plan:
    """Plan to take a release, or a settling, back. Source: the runbook's section 6.1."""
    head = release.content.move.header
    if head.action == "move":
        check_move_rights(inv.clients, head.to, head.source)
    hold = make_hold(inv.settings, inv.clients, sleep=inv.sleep)
    undo = make_undo_plan(
        inv.clients.change_bucket,
        release.content.move,
        logs=_open_logs(release),
        made_by=inv.operator,
        others=f"{hold.words}; {_STILL}",
        window_s=inv.settings.release_undo_window_minutes * 60,
        now=inv.now(),
        same_store=_is_same_store(inv),
    )
    return _to_plan(undo)


def plan_settling(inv: Investigation, release: Plan, *, word: Word, keys: Sequence[str]) -> Plan:
    """Plan to record a person's word on rows that nothing else can decide, with evidence.

    Parameters
    ----------
    keys : keys of the rows; none: all unproven rows
    """
    open_rows = list_open_rows(
        inv.clients.change_bucket,
        release.content.move,
        logs=_open_logs(release),
        same_store=_is_same_store(inv),
    )
    rows = [open_row.row for open_row in open_rows]
    if keys:
        rows = [row for row in rows if row.key in keys]
    hold = make_hold(inv.settings, inv.clients, sleep=inv.sleep)
    settling = make_settle_plan(
        inv.clients.change_bucket,
        release.content.move,
        logs=_open_logs(release),
        word=word,
        keys=keys,
        evidence=_read_evidence(inv.clients, rows, inv.progress),
        made_by=inv.operator,
        others=hold.words if hold.holds else _UNHELD_WORD,
        now=inv.now(),
        same_store=_is_same_store(inv),
    )
    return _to_plan(settling)


def find_open_plan(inv: Investigation, release: Plan) -> str:
    """Return the id of the plan that holds a release's open rows: itself, or a settling's undo."""
    move: MovePlan = release.content.move
    bucket = inv.clients.bucket
    record = read_record(bucket, move.id)
    later = read_later_records(bucket, move.id)
    ledger = Ledger(_open_logs(release)(move.id), move, record, later)
    holders = [ledger.reopened_by.get(row, move.id) for row in ledger.list_open()]
    return max(holders, default=move.id)


def _is_same_store(inv: Investigation) -> bool:
    parameters: Any = inv.parameters
    return bool(parameters.same_store)


def list_to_settle(
    inv: Investigation, release: Plan, *, keys: Sequence[str] = ()
) -> list[dict[str, Json]]:
    """Return the rows that a person must decide, with evidence for each. Only reads.

    Parameters
    ----------
    keys : only these; none: all

    Returns
    -------
    Rows of ``key``, ``order``, ``evidence``, ``rewritten``, ``why``, ``taken_does`` and
    ``not_taken_does``.

    Raises
    ------
    MoveError
        When the release has not ended, or the store cannot be read.
    """
    open_rows = list_open_rows(
        inv.clients.bucket,
        release.content.move,
        logs=_open_logs(release),
        same_store=_is_same_store(inv),
    )
    open_rows = [open_row for open_row in open_rows if not open_row.is_freed]
    if keys:
        open_rows = [open_row for open_row in open_rows if open_row.row.key in keys]
    rows = [open_row.row for open_row in open_rows]
    evidence = _read_evidence(inv.clients, rows, inv.progress)
    return [_describe_open_row(open_row, evidence[open_row.row.key]) for open_row in open_rows]


def _describe_open_row(open_row: OpenRow, now_known: str) -> dict[str, Json]:
    """Describe an open row: what is known, and what each word would do."""
    evidence = open_row.evidence
    if not evidence:
        # The worker takes a vanished label for one that it moved.
        caveat = " (read after parking: the status may come from our parking)"
        evidence = f"{now_known}{caveat if open_row.parked else ''}"
    label = "the rewritten label" if open_row.is_rewritten else "the label"
    taken_does = "closes the row"
    if open_row.is_rewritten:
        taken_does = f"closes the row; {label} may be planned"
    elif open_row.source is not None:
        taken_does = f"parks {label}; nothing ships"
    elif open_row.parked:
        taken_does = "closes the row; the label stays parked"
    not_taken_does = "closes the row; a new plan may move the label"
    if open_row.is_rewritten:
        not_taken_does = f"closes the row; {label} may be planned"
    elif open_row.destination is not None:
        not_taken_does = "closes the row; something is at the destination already"
    elif open_row.parked:
        not_taken_does = "brings the label back to wait; a new plan may move it"
    return {
        "key": open_row.row.key,
        "order": open_row.row.facts.get("order_id", ""),
        "evidence": evidence,
        "rewritten": open_row.is_rewritten,
        "why": open_row.reason,
        "taken_does": taken_does,
        "not_taken_does": not_taken_does,
    }


def _read_evidence(
    clients: Clients, rows: Sequence[PlanRow], progress: Progress = keep_quiet
) -> dict[str, str]:
    """Return what fulfillment-service knows of the order of each row, by key."""
    known: dict[str, str] = {}
    by_order: dict[str, str] = {}
    for done, row in enumerate(rows):
        progress("evidence", done, len(rows))
        order_id = row.facts.get("order_id", "")
        if order_id not in by_order:
            by_order[order_id] = read_shipment_evidence(clients.fulfillment, order_id)
        known[row.key] = by_order[order_id]
    return known


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Carry out an approved plan, or resume it when it was interrupted."""
    check_store(inv.clients)
    head = plan.content.move.header
    if head.action in ("move", "undo"):
        check_move_rights(inv.clients, head.source, head.to)
    ledger = Ledger(_open_logs(plan)(plan.id), plan.content.move)
    if ledger.is_begun and not ledger.is_ended:
        return _carry_out(resume_plan, inv, plan)
    return _carry_out(partial(apply_plan, approve=inv.get_approval(plan)), inv, plan)


def _carry_out(move: Callable[..., MoveResult], inv: Investigation, plan: Plan) -> Effect:
    """Begin a plan, or resume one from its ledger or the bucket's record."""
    p: Any = inv.parameters
    try:
        result = move(
            inv.clients.change_bucket,
            plan.content.move,
            logs=_open_logs(plan),
            operator=inv.operator,
            clock=Clock(inv.now, inv.sleep),
            hold=make_hold(inv.settings, inv.clients, sleep=inv.sleep),
            age_key=_AGE_KEY,
            watch=partial(watch_writes, inv.clients.bucket),
            evidence=partial(_list_evidence, inv.clients),
            notice=inv.progress,
            progress=partial(inv.progress, "dealt with"),
            stands_still=p.consumer_stands_still,
            strict=p.strict,
            stop_here=p.stop_here,
            goes_on=p.worker_goes_on,
            approve_more=p.approve,
            same_store=_is_same_store(inv),
        )
    except InterruptedMoveError as error:
        held = ". The worker is still paused for it" if error.is_held else ""
        raise KeyboardInterrupt(
            f"Interrupted after {error.moved:,} of {error.total:,} labels{held}. "
            f"Go on with: {error.way_on}"
        ) from error
    reason = _describe_result(plan, result)
    return Effect(reason, asdict(result), is_ok=result.is_complete)


def _list_evidence(clients: Clients, rows: Sequence[PlanRow]) -> list[str]:
    known = _read_evidence(clients, rows)
    return [known[row.key] for row in rows]


def _describe_result(plan: Plan, result: MoveResult) -> str:
    """Say what a run did, why it is incomplete, and which command goes on."""
    fields = asdict(result)
    parts = [f"{result.moved} moved"]
    troubles = [name for name in _TROUBLES if fields[name]]
    parts += [f"{len(fields[name])} {name.replace('_', ' ')}" for name in troubles]
    if result.waiting:
        parts.append(f"{result.waiting} waiting")
    if result.left:
        parts.append(f"{result.left} left")
    if result.is_complete:
        return "; ".join(parts)
    if result.is_held:
        parts.append("the worker is still paused for it")
    if result.stopped:
        parts.append(result.stopped)
    ways = find_ways_on(plan, fields)
    if ways and ways[0] not in result.stopped:
        parts.append(f"go on with: {ways[0]}")
    return "; ".join(parts)


def find_ways_on(plan: Plan, result: Mapping[str, Any]) -> list[str]:
    """Return the commands that go on from a result, in their order; none when all is done.

    Parameters
    ----------
    result : a ``MoveResult`` as a mapping
    """
    header = plan.content.move.header
    if not result.get("is_ended") or result.get("is_held"):
        return [header.resume_command]
    if result.get("waits_for"):
        return [result["waits_for"]]
    about = header.parent if header.action == "settle" else plan.id
    ways: list[str] = []
    if result.get("unproven"):
        ways.append(f"runbook settle {about}")
    names = {row.key: _get_label_key(header, row) for row in plan.content.move.rows}
    for conflict in result.get("conflicts", [])[:_CONFLICTS]:
        key = shlex.quote(names[conflict["key"]])
        ways.append(f"runbook settle {about} --key {key}")
    if not ways and (result.get("left") or result.get("skipped")):
        ways.append("runbook plan")
    return ways


def _get_label_key(header: PlanHeader, row: PlanRow) -> str:
    """Return the key by which ``settle`` names a row: where its label waits."""
    if header.action == "undo":
        return header.to + row.key.removeprefix(header.source)
    return row.facts.get("key", row.key)


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Prove by a fresh listing where each planned object is, and save the proof."""
    proof = verify_plan(
        inv.clients.bucket,
        plan.content.move,
        logs=_open_logs(plan),
        clock=Clock(inv.now, inv.sleep),
        notice=inv.progress,
        same_store=_is_same_store(inv),
    )
    result = proof.to_json()
    if not inv.incident.is_late:
        head = {
            "schema": "runbook/proof/3",
            "at": format_time(proof.at),
            "sha256": plan.sha256,
            "how": "a fresh listing of both prefixes, compared with plan, ledger and record",
        }
        write_json(inv.incident.path("evidence", f"proof-{plan.id}.json"), {**head, **result})
    fine: list[str] = []
    bad: list[str] = []
    for name, count in proof.counts.items():
        if count:
            parts = fine if name in _FINE else bad
            parts.append(f"{count} {name.replace('_', ' ')}")
    if proof.taken_back_by:
        undone = f"taken back by {proof.taken_back_by}: {', '.join(bad)}"
        before = f"; a consumer took {proof.taken_before} before" if proof.taken_before else ""
        return Effect(f"{undone}{before}", result, is_ok=False)
    how = "by independent listing" if bad else "proven by listing"
    return Effect(f"{how}: {', '.join(bad or fine)}", result, is_ok=proof.is_complete)


def list_unfinished(clients: Clients, settings: Settings | None = None) -> list[dict[str, Json]]:
    """Return the unfinished plans of this bucket, with the command that goes on with each.

    Parameters
    ----------
    settings : where this machine's ledgers are; with it, plans that the bucket forgot are found too

    Returns
    -------
    Rows of ``plan``, ``by``, ``state``, ``rows`` (number in doubt or begun), ``way_on``,
    ``held_by`` and ``held_since`` (empty when nobody is held). Plans for which the worker is held
    come first. Only reads.
    """
    open_records = [record for record in list_records(clients.bucket) if not record.is_closed]
    # What an undo or a settling has in hand waits for that one.
    busy = {record.parent for record in open_records if not record.is_over}
    rows: list[dict[str, Json]] = []
    if settings is not None:
        rows += _list_forgotten(clients, settings)
    for record in open_records:
        if not record.ended or record.plan not in busy:
            way_on = find_way_on(clients.bucket, record)
            rows.append(_describe(record, way_on))
    # A worker that stands still is what cannot wait.
    return sorted(rows, key=lambda row: not row["held_by"])


def _list_forgotten(clients: Clients, settings: Settings) -> list[dict[str, Json]]:
    """Return the plans that were begun here and that the bucket does not remember."""
    home = settings.runbook_home.resolve()
    forgotten = list_forgotten(clients.bucket, partial(list_begun, home))
    return [
        {
            "plan": release.plan,
            "by": "this machine",
            "state": "the bucket's memory (.runbook/) of it was removed",
            "rows": release.open_rows,
            "way_on": release.way_on,
            "held_by": "",
            "held_since": "",
        }
        for release in forgotten
    ]


def _describe(record: Record, way_on: str) -> dict[str, Json]:
    if record.is_over and record.waits_for_a_word:
        rows = len(record.waits_for_a_word)
        state = "waits for a person's word: nobody can know what became of these labels"
    elif record.is_over:
        rows = len(record.forgotten_rows)
        state = "the bucket's memory (.runbook/) of it was removed"
    else:
        rows = record.begun
        state = "being taken back" if record.action == "undo" else "not finished"
    if record.hold is not None:
        state += f"; {record.hold.words}"
    return {
        "plan": record.plan,
        "by": f"{record.by} on {record.host}",
        "state": state,
        "rows": rows,
        "way_on": way_on,
        "held_by": record.hold.by if record.hold else "",
        "held_since": format_time(record.hold.since) if record.hold else "",
    }


def _open_logs(plan: Plan) -> Logs:
    """Return a function that opens the ledger of this plan, or of one about it, by plan id."""
    return lambda plan_id: ChainedLog(plan.trace.with_name(f"{plan_id}.jsonl"))


def check_store(clients: Clients) -> None:
    """Refuse unless the store says that it is healthy.

    Raises
    ------
    StoreNotReadyError
        With the store's own words.
    """
    try:
        clients.store.check_live()
    except ClientError as error:
        raise StoreNotReadyError(f"the store does not say that it is well ({error})") from error


def check_move_rights(clients: Clients, source: str, to: str) -> None:
    """Refuse when the keys for changes may not write where labels go, or delete where they lie.

    Without the second right, a label would be copied and stay: it ships twice.

    Raises
    ------
    SafetyError
        Names the rights. One that cannot be tried (a bucket that keeps versions) does not count.
    """
    rights = clients.store.read_rights(source, write_under=(source, to))
    missing = []
    for right in (f"write {to}", f"delete {source}"):
        is_allowed, _ = rights.get(right, (None, ""))
        if is_allowed is False:
            missing.append(right)
    if missing:
        raise SafetyError(
            f"the key for changes (MINIO_CHANGE_USER) lacks {', '.join(missing)}. Grant it "
            "(docs/connect.md, part 2), and try again. Nothing was moved."
        )


MOVE = PlanKind(
    "objectmove/plan/",  # of which version is for `parse_plan` to say
    _apply,
    _verify,
    parse=lambda path, blob: _to_plan(parse_plan(blob, path=path)),
    resume=partial(_carry_out, resume_plan),
    refusals=(SafetyError, RefusedError),
)
