"""Create, list and remove synthetic objects, which can never reach ``ready/``."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from objectmove.bucket import Seen, is_key_supported
from runbook_lib import errors
from runbook_lib.approvals import Effect, Plan, PlanKind, make_empty_plan, write_plan
from runbook_lib.model import Json, count_of
from runbook_lib.section import ChangeParameters

from ..analysis.artifacts import is_synthetic
from ..clients.object_store import ObjectStore
from ..investigation import Investigation
from ..settings import Settings
from ..waiting import iter_with_metadata, list_prefixes
from .exercises import (
    check_playground,
    get_drill_id,
)

_SCENARIO = "fulfillment-delay"
#: How many keys a result shows.
SAMPLE = 5


class Backlog(BaseModel):
    """A synthetic backlog to create."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    count: int = Field(25, ge=1, le=5000)
    """synthetic objects to create"""
    hold_minutes: float = Field(30, gt=0, le=1440)
    """until they expire, in minutes"""
    object_size_kb: int = Field(128, ge=1, le=10240)
    """size of each, in KiB"""
    age_minutes: float = Field(0, ge=0, le=1440)
    """how long they appear to have waited, in minutes"""
    prefix: str = ""
    """prefix of the objects, instead of CHAOS_PREFIX"""
    drill_id: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """id of the drill; 4.2 removes only its objects"""


class BacklogParameters(Backlog, ChangeParameters):
    """Parameters of a section that makes and removes a synthetic backlog."""


class Found(NamedTuple):
    """Synthetic objects under some prefixes."""

    objects: list[Seen]
    kept: int  # other objects, which are left alone
    removed: int = 0
    failed: Mapping[str, str] = {}  # why an object could not be removed, by key


class Label(NamedTuple):
    key: str
    content: bytes
    metadata: dict[str, str]


def make_labels(backlog: Backlog, *, settings: Settings, now: datetime) -> Iterator[Label]:
    """Yield labels that seem to have waited, without writing them; see ``check_prefix``.

    Their ``pending-since`` is backdated, so that a drill need not wait.
    """
    prefix = check_prefix(settings, backlog.prefix or settings.chaos_prefix)
    expires_at = (now + timedelta(minutes=backlog.hold_minutes)).isoformat()
    since = (now - timedelta(minutes=backlog.age_minutes)).isoformat()
    for _ in range(backlog.count):
        order = str(9_000_000 + secrets.randbelow(999_999))
        artifact = secrets.token_hex(6)
        metadata = {
            "chaos-scenario": _SCENARIO,
            "drill-id": backlog.drill_id,
            "pending-since": since,
            "hold-until": expires_at,
            "expires-at": expires_at,
            "order-id": order,
            "artifact-id": artifact,
        }
        key = f"{prefix}chaos-{backlog.drill_id}-{order}-{artifact}.pdf"
        content = _make_document(order, artifact, backlog.object_size_kb * 1024)
        yield Label(key, content, metadata)


def create_backlog(
    store: ObjectStore, backlog: Backlog, *, settings: Settings, now: datetime
) -> list[Label]:
    """Create synthetic labels; undone by ``revert_backlog``.

    Raises ``EnvironmentForbidsError`` outside a marked playground; see also ``check_prefix``.
    """
    check_playground(settings, store)
    made = list(make_labels(backlog, settings=settings, now=now))
    for label in made:
        store.put_object(label.key, label.content, label.metadata)
    return made


def find_synthetic(store: ObjectStore, prefixes: Iterable[str], *, drill_id: str = "") -> Found:
    """Find what the metadata proves synthetic, of all drills or one. Only reads."""
    objects: list[Seen] = []
    kept = 0
    for prefix in prefixes:
        for info in iter_with_metadata(store, prefix):
            metadata = info.metadata or {}
            is_of_drill = not drill_id or metadata.get("drill-id") == drill_id
            if is_of_drill and is_synthetic(metadata):
                objects.append(info)
            else:
                kept += 1
    return Found(objects, kept)


def count_by_drill(objects: Iterable[Seen]) -> Counter[str]:
    """Count synthetic objects by drill. DataFlow's script gives no id."""
    return Counter((info.metadata or {}).get("drill-id", "without an id") for info in objects)


def revert_backlog(store: ObjectStore, *prefixes: str, drill_id: str = "") -> Found:
    """Delete the objects that ``find_synthetic`` finds; look-alikes stay.

    Changes the store. This can't be undone, and need not be.
    """
    # List all before the first delete, because a listing may skip keys when others vanish.
    found = find_synthetic(store, prefixes, drill_id=drill_id)
    failed: dict[str, str] = {}
    for info in found.objects:
        reason = _remove(store, info.key)
        if reason:
            failed[info.key] = reason
    return found._replace(removed=len(found.objects) - len(failed), failed=failed)


def check_prefix(settings: Settings, prefix: str) -> str:
    """Return the prefix; raise ``UsageError`` if no synthetic object may be made under it."""
    if not prefix.endswith("/") or not is_key_supported(prefix[:-1]):
        raise errors.UsageError(f"{prefix!r} is not a prefix: write names with a '/' after each")
    if prefix.startswith((settings.ready_prefix, ".runbook/")):
        raise errors.UsageError(f"synthetic objects are never made under {prefix}")
    return prefix


def _remove(store: ObjectStore, key: str) -> str:
    """Delete a synthetic object; return why it stays, or ""."""
    try:
        # Read it right before, because not every store checks a delete's ETag.
        fresh = store.read_info(key)
        if not is_synthetic(fresh.metadata or {}):
            return "was replaced by a real object; left alone"
        store.delete_object(fresh)
    except errors.NotFoundError:
        return ""
    except errors.ClientError as error:
        return str(error)
    return ""


def _make_document(order_id: str, artifact_id: str, size_bytes: int) -> bytes:
    """Return a file of this size that begins and ends like a PDF, and says DRILL."""
    head = f"%PDF-1.4\n% DRILL - order {order_id} - {artifact_id}\n".encode()
    tail = b"\n%%EOF\n"
    return head.ljust(size_bytes - len(tail), b"x") + tail


def make_drill_id() -> str:
    return f"d{secrets.token_hex(4)}"


def plan_backlog(inv: Investigation, step: str) -> Plan:
    """Plan a synthetic backlog by the section's parameters; raises as ``create_backlog``."""
    backlog = Backlog.model_validate(inv.parameters.model_dump())
    check_playground(inv.settings, inv.clients.store)
    backlog.prefix = check_prefix(inv.settings, backlog.prefix or inv.settings.chaos_prefix)
    backlog.drill_id = backlog.drill_id or get_drill_id(inv.incident) or make_drill_id()
    return _write_plan(
        inv,
        CREATE,
        step=step,
        action="create_synthetic",
        way_back="4.2 removes them",
        summary={
            **backlog.model_dump(),
            "prefixes": [backlog.prefix],
            "objects": backlog.count,
            "bytes": backlog.count * backlog.object_size_kb * 1024,
        },
    )


def plan_revert(inv: Investigation, step: str, *, drill_id: str, prefix: str = "") -> Plan:
    """Plan to remove synthetic objects, of all drills or one.

    Looks under ``prefix``, or under the chaos and the pending prefix.
    """
    prefixes = [check_prefix(inv.settings, prefix)] if prefix else list_prefixes(inv.settings)
    objects = find_synthetic(inv.clients.store, prefixes, drill_id=drill_id).objects
    if not objects:
        reason = "there is no synthetic object"
        return make_empty_plan(step=step, target=", ".join(prefixes), reason=reason)
    return _write_plan(
        inv,
        REMOVE,
        step=step,
        action="revert_synthetic",
        way_back="there is none, and none is needed: only synthetic objects go",
        summary={
            "drill_id": drill_id,
            "prefixes": prefixes,
            "objects": len(objects),
            "bytes": sum(info.size_bytes for info in objects),
            "drills": sorted(count_by_drill(objects)),
        },
    )


def _write_plan(inv: Investigation, kind: PlanKind, **facts: Json) -> Plan:
    summary = facts["summary"]
    objects = count_of(summary["objects"], "synthetic object")
    where = ",".join(summary["prefixes"])
    return write_plan(
        inv.incident.folder / "plans",
        kind,
        "syn",
        now=inv.now(),
        target=f"{objects} under {inv.clients.store.bucket}/{where}",
        **facts,
    )


def _create(inv: Investigation, plan: Plan) -> Effect:
    backlog = Backlog.model_validate(plan.summary)
    made = create_backlog(inv.clients.store, backlog, settings=inv.settings, now=inv.now())
    return Effect("", {"created": len(made), "sample": [label.key for label in made[:SAMPLE]]})


def _remove_planned(inv: Investigation, plan: Plan) -> Effect:
    """Remove the plan's objects, in any environment."""
    removal = revert_backlog(
        inv.clients.store, *plan.summary["prefixes"], drill_id=plan.summary["drill_id"]
    )
    return Effect("", {"removed": removal.removed, "failed": removal.failed})


def _check(inv: Investigation, plan: Plan) -> Effect:
    """Count the plan's objects: after a creation all must be there, after a removal none."""
    summary = plan.summary
    found = find_synthetic(inv.clients.store, summary["prefixes"], drill_id=summary["drill_id"])
    count = len(found.objects)
    wanted = summary["objects"] if plan.kind is CREATE else 0
    reason = f"there: {count_of(count, 'synthetic object')}, wanted: {wanted}"
    return Effect(reason, {"objects": count}, is_ok=count == wanted)


CREATE = PlanKind("runbook/synthetic-create/1", _create, _check)
REMOVE = PlanKind("runbook/synthetic-remove/1", _remove_planned, _check)
#: What each action did, in words.
DONE = {
    "create_synthetic": "made {objects} for an exercise",
    "revert_synthetic": "removed {objects} of an exercise",
}
