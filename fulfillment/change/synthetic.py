"""Synthetic objects: make them, list them, take them back. They can never reach ``ready/``."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from objectmove.bucket import Seen, is_key_supported
from runbook_lib import errors
from runbook_lib.approvals import Effect, Plan, PlanKind, mark_applied, write_plan
from runbook_lib.model import Json, format_time
from runbook_lib.show.text import count_of

from ..analysis.artifacts import is_synthetic
from ..analysis.labels import read_label
from ..clients.object_store import ObjectStore
from ..clients.services import try_time
from ..investigation import Investigation
from ..settings import Settings
from .environment_guard import check_playground

_SCENARIO = "fulfillment-delay"
_CREATE, _REVERT = "create_synthetic", "revert_synthetic"
_CHUNK = 500
#: So many objects stand for all.
SAMPLE = 5
_SAMPLE_OF_PLAN = 20
_JUST_WRITTEN = timedelta(seconds=30)
_BACKLOG = ("prefix", "count", "hold_minutes", "object_size_kb", "age_minutes", "drill_id")


class Removal(NamedTuple):
    """What was removed.

    Attributes
    ----------
    found : synthetic objects that were asked for; ``removed`` says how many of them went
    kept : how many others are under the prefixes, and stay
    failed : keys that could not be removed, with the reason
    """

    found: list[Seen]
    removed: int
    kept: int
    failed: dict[str, str]


def create_backlog(
    store: ObjectStore,
    *,
    settings: Settings,
    prefix: str,
    drill_id: str,
    count: int,
    now: datetime,
    hold_minutes: float = 30,
    object_size_kb: int = 128,
    age_minutes: float = 0,
    own_orders: Collection[str] = (),
    dry_run: bool = False,
) -> list[dict[str, Json]]:
    """Create synthetic labels that look stuck.

    Parameters
    ----------
    prefix : where; anything but ``READY_PREFIX``
    hold_minutes : until when they are held; they also expire then and may be swept
    age_minutes : by how much ``pending-since`` is backdated, so that a drill need not wait
    drill_id : stands in name and metadata
    own_orders : a drill's orders, whose labels wait on purpose
    dry_run : only say what would be made; allowed everywhere

    Returns
    -------
    For each what it is, in the words of DataFlow's script.

    Raises
    ------
    SafetyError
        As ``check_quiet`` says.

    Notes
    -----
    Changes the store; undone by ``revert_backlog``.
    """
    if not dry_run:
        check_quiet(settings, store, now=now, own_orders=own_orders)
    prefix = check_prefix(settings, prefix)
    hold_until = (now + timedelta(minutes=hold_minutes)).isoformat()
    since = (now - timedelta(minutes=age_minutes)).isoformat()
    proof = {"chaos-scenario": _SCENARIO, "drill-id": drill_id, "pending-since": since}
    proof |= {"hold-until": hold_until, "expires-at": hold_until}
    made: list[dict[str, Json]] = []
    for _ in range(count):
        order, artifact = 9_000_000 + secrets.randbelow(999_999), uuid.uuid4().hex[:12]
        key = f"{prefix}chaos-{drill_id}-{order}-{artifact}.pdf"
        body = _make_document(f"{order}", artifact, object_size_kb * 1024)
        if not dry_run:
            ids = {"order-id": f"{order}", "artifact-id": artifact}
            store.put_object(key, body, proof | ids)
        made.append({"key": key, "orderId": order, "artifactId": artifact, "sizeBytes": len(body)})
    return made


def count_overdue(
    settings: Settings, store: ObjectStore, *, now: datetime, own_orders: Collection[str] = ()
) -> int:
    """Count the real labels that wait too long, but for those of a drill's own orders.

    A late hand-over is old when it arrives, and leaves within seconds: it does not count yet.
    """
    listed = iter_with_metadata(store, settings.pending_prefix)
    labels = (read_label(info, settings, now) for info in listed)
    return sum(
        label.minutes > settings.lag_threshold_minutes
        and now - label.info.last_modified > _JUST_WRITTEN
        for label in labels
        if label.origin == "real" and label.order_id not in own_orders
    )


def check_quiet(settings: Settings, store: ObjectStore, **about: Any) -> None:
    """Refuse an exercise while ``count_overdue`` counts any: it would hide them.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked playground.
    SafetyError
        When it does.
    """
    check_playground(settings, store)
    if count := count_overdue(settings, store, **about):
        text = f"real labels wait over {settings.lag_threshold_minutes:g} min ({count}): this is"
        text += " an incident, not the time for an exercise. Nothing was changed."
        raise errors.SafetyError(f"{text} `runbook investigate`")


def list_synthetic(
    store: ObjectStore, prefixes: Iterable[str], *, drill_id: str = ""
) -> Iterator[Seen]:
    """Yield the objects that their metadata proves synthetic, of all drills or of one."""
    found = (info for prefix in prefixes for info in iter_with_metadata(store, prefix))
    return (info for info in found if _is_of(info, drill_id))


def _is_of(info: Seen, drill_id: str, expired_at: datetime | None = None) -> bool:
    metadata = info.metadata or {}
    is_over = expired_at is None or is_expired(info, expired_at)
    return is_synthetic(metadata) and drill_id in ("", metadata.get("drill-id")) and is_over


def revert_backlog(
    store: ObjectStore,
    *prefixes: str,
    drill_id: str = "",
    expired_at: datetime | None = None,
    dry_run: bool = False,
) -> Removal:
    """Delete what the metadata proves synthetic under some prefixes; look-alikes stay.

    Parameters
    ----------
    drill_id : only this drill's; empty: every one's, DataFlow's own script's too
    expired_at : only what is over by then
    dry_run : only count

    Notes
    -----
    Changes the store, guarded by each object's ETag. There is no way back, and none is needed.
    """
    # All is listed before the first delete: a listing that pages on while keys vanish skips some.
    listed = [info for prefix in prefixes for info in iter_with_metadata(store, prefix)]
    found = [info for info in listed if _is_of(info, drill_id, expired_at)]
    told = {} if dry_run else {info.key: _remove(store, info.key) for info in found}
    failed = {key: why for key, why in told.items() if why}
    return Removal(found, len(told) - len(failed), len(listed) - len(found), failed)


def sweep_expired(store: ObjectStore, settings: Settings, *, now: datetime) -> int:
    """Delete synthetic objects whose time is over: leftovers of a drill that was killed.

    Returns
    -------
    The number of objects removed, under the chaos and the pending prefix.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked playground.
    """
    check_playground(settings, store)
    return revert_backlog(store, *list_prefixes(settings), expired_at=now).removed


def list_prefixes(settings: Settings) -> list[str]:
    """Return where synthetic objects are looked for: under the chaos and the pending prefix.

    Of two that lie in each other, the outer one: nothing is listed twice.
    """
    chaos, pending = settings.chaos_prefix, settings.pending_prefix
    if chaos.startswith(pending) or pending.startswith(chaos):
        return [min(chaos, pending, key=len)]
    return [chaos, pending]


def is_expired(info: Seen, now: datetime) -> bool:
    """Tell whether a synthetic object's ``expires-at``, or its ``hold-until``, is over."""
    metadata = info.metadata or {}
    ends_at = try_time(metadata.get("expires-at") or metadata.get("hold-until"))
    return ends_at is not None and ends_at < now


def iter_with_metadata(store: ObjectStore, prefix: str) -> Iterator[Seen]:
    """Yield a prefix's objects with their metadata, by a listing and concurrent HEADs.

    An object that vanished meanwhile is left out; one whose metadata cannot be read has None.
    """
    listing = store.list_objects(prefix)
    while chunk := list(islice(listing, _CHUNK)):
        found = store.look([info.key for info in chunk])
        yield from filter(None, (found.get(info.key, info) for info in chunk))


def check_prefix(settings: Settings, prefix: str) -> str:
    """Return a prefix under which synthetic objects may be made.

    Raises
    ------
    UsageError
        When it has no ending slash, has dots for a name, or lies under ``READY_PREFIX``.
    """
    if not prefix.endswith("/") or not is_key_supported(prefix[:-1]):
        raise errors.UsageError(f"{prefix!r} is not a prefix: names with a '/' after each")
    if prefix.startswith((settings.ready_prefix, ".runbook/")):
        raise errors.UsageError(f"synthetic objects are never made under {prefix}")
    return prefix


def _remove(store: ObjectStore, key: str) -> str:
    """Delete a synthetic object; returns why it stays, empty when it is gone."""
    try:
        fresh = store.read_info(key)  # right before: not every store minds the ETag of a delete
        if not is_synthetic(fresh.metadata or {}):
            return "was replaced by a real object; left alone"
        store.delete_object(fresh)
    except errors.ClientError as error:
        return "" if isinstance(error, errors.NotFoundError) else str(error)
    return ""


def _make_document(order_id: str, artifact_id: str, size_bytes: int) -> bytes:
    text = f"BT /F1 14 Tf 20 60 Td (DRILL - order {order_id} - {artifact_id}) Tj ET"
    head = (
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 420 120]/Contents 4 0 R/Resources"
        "<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
        f"4 0 obj<</Length {len(text)}>>stream\n{text}\nendstream endobj\n%"
    ).encode()
    tail = b"\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    return head + b"x" * max(0, size_bytes - len(head) - len(tail)) + tail


def make_drill_id() -> str:
    """Return a new name for a drill."""
    return f"d{secrets.token_hex(4)}"


def list_own_orders(inv: Investigation) -> frozenset[str]:
    """Return a drill's own orders; none in an incident."""
    return frozenset(map(str, inv.incident.facts.get("drill_orders") or ()))


def plan_backlog(inv: Investigation, step: str) -> Plan:
    """Plan a synthetic backlog by the section's parameters.

    Raises
    ------
    SafetyError
        As ``check_quiet`` says.
    """
    p: Any = inv.parameters
    check_quiet(inv.settings, inv.clients.store, now=inv.now(), own_orders=list_own_orders(inv))
    prefix = check_prefix(inv.settings, p.prefix or inv.settings.chaos_prefix)
    drill = p.drill_id or str(inv.incident.facts.get("drill_id") or make_drill_id())
    facts: dict[str, Json] = {name: getattr(p, name) for name in _BACKLOG}
    facts |= {"prefix": prefix, "drill_id": drill, "bytes": p.count * p.object_size_kb * 1024}
    way_back = "4.2 removes them; they expire on their own, too"
    about = {"step": step, "action": _CREATE, "way_back": way_back, "reversible": True}
    return _plan(inv, prefix, p.count, facts=facts, **about)


def plan_revert(inv: Investigation, step: str, *, prefix: str = "") -> Plan:
    """Plan the removal of what metadata proves synthetic; empty when there is nothing.

    Parameters
    ----------
    prefix : where; empty: the chaos and the pending prefix
    """
    prefixes = [check_prefix(inv.settings, prefix)] if prefix else list_prefixes(inv.settings)
    drill = str(getattr(inv.parameters, "drill_id", ""))
    found = list(list_synthetic(inv.clients.store, prefixes, drill_id=drill))
    facts: dict[str, Json] = {
        "prefixes": prefixes,
        "drill_id": drill,
        "objects": len(found),
        "bytes": sum(info.size_bytes for info in found),
        "expired": sum(is_expired(info, inv.now()) for info in found),
        "sample": [info.key for info in found[:_SAMPLE_OF_PLAN]],
        "drills": sorted({(i.metadata or {}).get("drill-id", "DataFlow's script") for i in found}),
        "reason": "" if found else "there is no synthetic object",
    }
    way_back = "there is none, and none is needed: only synthetic objects go"
    about = {"step": step, "action": _REVERT, "way_back": way_back, "reversible": False}
    return _plan(inv, f"{{{','.join(prefixes)}}}", len(found), facts=facts, **about)


def _plan(inv: Investigation, where: str, many: int, **about: Json) -> Plan:
    target = f"{count_of(many, 'synthetic object')} under {inv.clients.store.bucket}/{where}"
    about |= {"target": target, "is_empty": not many}
    return write_plan(inv.incident.folder / "plans", SYNTHETIC, "syn", now=inv.now(), **about)


def _apply(inv: Investigation, plan: Plan) -> Effect:
    store, facts = inv.clients.store, plan.content["facts"]
    mark_applied(plan, {"at": format_time(inv.now())})
    if plan.action == _REVERT:  # allowed everywhere
        done = revert_backlog(store, *facts["prefixes"], drill_id=facts["drill_id"])
        return Effect("", {"removed": done.removed, "kept": done.kept, "failed": done.failed})
    backlog = {name: facts[name] for name in _BACKLOG}
    backlog |= {"now": inv.now(), "own_orders": list_own_orders(inv)}
    made = create_backlog(store, settings=inv.settings, **backlog)
    return Effect("", {"created": len(made), "sample": [label["key"] for label in made[:SAMPLE]]})


def _verify(inv: Investigation, plan: Plan) -> Effect:
    facts = plan.content["facts"]
    prefixes, wanted = facts.get("prefixes") or [facts["prefix"]], facts.get("count", 0)
    found = list(list_synthetic(inv.clients.store, prefixes, drill_id=facts["drill_id"]))
    many, reason = len(found), f"left: {count_of(len(found), 'synthetic object')}"
    if wanted:
        reason = f"{many} of {wanted} objects are there, all proven synthetic"
    result = {"objects": many, "sample": [info.key for info in found[:SAMPLE]]}
    return Effect(reason, result, is_ok=many == wanted)


SYNTHETIC = PlanKind("runbook/synthetic-plan/1", _apply, _verify, summarise=itemgetter("facts"))
