"""Synthetic objects: create, list and remove them. They can never reach ``ready/``."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import BaseModel, Field

from objectmove.bucket import Seen, is_key_supported
from runbook_lib import errors
from runbook_lib.approvals import Effect, Plan, PlanKind, make_empty_plan, write_plan
from runbook_lib.model import Json
from runbook_lib.section import ChangeParameters, get_parameters
from runbook_lib.show.text import count_of

from ..analysis.artifacts import is_synthetic
from ..clients.object_store import ObjectStore
from ..investigation import Investigation
from ..settings import Settings
from ..waiting import iter_with_metadata, list_prefixes, read_label
from .environment_guard import check_playground

_SCENARIO = "fulfillment-delay"
#: What stands for the drill's id of the objects of DataFlow's script, which have none.
NO_ID = "DataFlow's script"
#: How many keys a result shows, as a sample of all.
SAMPLE = 5
_SAMPLE_OF_PLAN = 20
#: A label that was written less than this ago may still leave by itself.
JUST_WRITTEN = timedelta(seconds=30)


class Backlog(BaseModel):
    """A synthetic backlog to create."""

    count: int = Field(25, ge=1, le=5000, description="synthetic objects to create")
    hold_minutes: float = Field(30, gt=0, le=1440, description="until they expire, in minutes")
    object_size_kb: int = Field(128, ge=1, le=10240, description="size of each, in KiB")
    age_minutes: float = Field(
        0, ge=0, le=1440, description="how long they seem to wait already, in minutes"
    )
    prefix: str = Field("", description="prefix of the objects; empty: CHAOS_PREFIX")
    drill_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="id of the drill; 4.2 removes only its objects",
    )


class BacklogParameters(Backlog, ChangeParameters):
    """Parameters of a section that makes and removes a synthetic backlog."""


class Removal(NamedTuple):
    """What was removed.

    Attributes
    ----------
    objects : the synthetic objects to remove
    removed : how many of ``objects`` are gone
    kept : how many other objects stay under the prefixes
    failed : why objects could not be removed, by key
    """

    objects: list[Seen]
    removed: int
    kept: int
    failed: dict[str, str]


def create_backlog(
    store: ObjectStore,
    backlog: Backlog,
    *,
    settings: Settings,
    now: datetime,
    own_orders: Collection[str] = (),
    dry_run: bool = False,
) -> list[dict[str, Json]]:
    """Create synthetic labels, which look like labels that wait and never leave.

    Parameters
    ----------
    backlog : what to create. Its id is part of the keys and the metadata, and ``pending-since`` is
        backdated by its age, so that a drill need not wait
    own_orders : orders of a drill, whose labels wait on purpose
    dry_run : only return what would be created; allowed in every environment

    Returns
    -------
    One entry for each label, with the field names of DataFlow's chaos script.

    Raises
    ------
    SafetyError
        See ``check_quiet``.
    UsageError
        See ``check_prefix``.

    Notes
    -----
    Changes the store; undone by ``revert_backlog``.
    """
    if not dry_run:
        check_quiet(settings, store, now=now, own_orders=own_orders)
    prefix = check_prefix(settings, backlog.prefix or settings.chaos_prefix)
    expires_at = (now + timedelta(minutes=backlog.hold_minutes)).isoformat()
    since = (now - timedelta(minutes=backlog.age_minutes)).isoformat()
    made: list[dict[str, Json]] = []
    for _ in range(backlog.count):
        order = 9_000_000 + secrets.randbelow(999_999)
        artifact = uuid.uuid4().hex[:12]
        key = f"{prefix}chaos-{backlog.drill_id}-{order}-{artifact}.pdf"
        body = _make_document(f"{order}", artifact, backlog.object_size_kb * 1024)
        if not dry_run:
            metadata = {
                "chaos-scenario": _SCENARIO,
                "drill-id": backlog.drill_id,
                "pending-since": since,
                "hold-until": expires_at,
                "expires-at": expires_at,
                "order-id": f"{order}",
                "artifact-id": artifact,
            }
            store.put_object(key, body, metadata)
        made.append({"key": key, "orderId": order, "artifactId": artifact, "sizeBytes": len(body)})
    return made


def count_overdue(
    settings: Settings, store: ObjectStore, *, now: datetime, own_orders: Collection[str] = ()
) -> int:
    """Count the real labels that wait too long, without a drill's own orders.

    A label that was just written does not count yet: the label of a late order is old when it
    arrives, and leaves within seconds.
    """
    count = 0
    for info in iter_with_metadata(store, settings.pending_prefix):
        label = read_label(info, settings, now)
        is_of_others = label.origin == "real" and label.order_id not in own_orders
        is_late = label.minutes > settings.lag_threshold_minutes
        if is_of_others and is_late and now - info.last_modified > JUST_WRITTEN:
            count += 1
    return count


def check_quiet(
    settings: Settings, store: ObjectStore, *, now: datetime, own_orders: Collection[str] = ()
) -> None:
    """Refuse an exercise while real labels wait too long, since the exercise would hide them.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked playground.
    SafetyError
        While ``count_overdue`` is not 0.
    """
    check_playground(settings, store)
    count = count_overdue(settings, store, now=now, own_orders=own_orders)
    if count:
        raise errors.SafetyError(
            f"real labels wait over {settings.lag_threshold_minutes:g} min ({count}): this is "
            "an incident, not the time for an exercise. Nothing was changed. `runbook investigate`"
        )


def list_synthetic(
    store: ObjectStore, prefixes: Iterable[str], *, drill_id: str = ""
) -> Iterator[Seen]:
    """Yield the objects whose metadata proves them synthetic, of all drills or of one."""
    for prefix in prefixes:
        for info in iter_with_metadata(store, prefix):
            if _is_synthetic_of(info, drill_id):
                yield info


def _is_synthetic_of(info: Seen, drill_id: str) -> bool:
    """Tell whether an object is proven synthetic, and made by this drill; empty id: by anybody."""
    metadata = info.metadata or {}
    is_of_drill = not drill_id or metadata.get("drill-id") == drill_id
    return is_of_drill and is_synthetic(metadata)


def revert_backlog(
    store: ObjectStore,
    *prefixes: str,
    drill_id: str = "",
    dry_run: bool = False,
) -> Removal:
    """Delete the objects whose metadata proves them synthetic; look-alikes stay.

    Parameters
    ----------
    drill_id : only objects of this drill; empty: of all drills, and of DataFlow's chaos script
    dry_run : delete nothing, only list and count

    Notes
    -----
    Changes the store. Each object is read right before its delete, which names the ETag. There is
    no way back, and none is needed.
    """
    # List everything before the first delete: a listing skips some keys if others vanish meanwhile.
    objects: list[Seen] = []
    kept = 0
    for prefix in prefixes:
        for info in iter_with_metadata(store, prefix):
            if _is_synthetic_of(info, drill_id):
                objects.append(info)
            else:
                kept += 1
    if dry_run:
        return Removal(objects, removed=0, kept=kept, failed={})
    failed: dict[str, str] = {}
    for info in objects:
        reason = _remove(store, info.key)
        if reason:
            failed[info.key] = reason
    return Removal(objects, removed=len(objects) - len(failed), kept=kept, failed=failed)


def check_prefix(settings: Settings, prefix: str) -> str:
    """Return the prefix if synthetic objects may be made under it.

    Raises
    ------
    UsageError
        When the prefix does not end with a slash, has a name that no request can have (such as
        ``..``), or lies under ``READY_PREFIX`` or ``.runbook/``.
    """
    if not prefix.endswith("/") or not is_key_supported(prefix[:-1]):
        raise errors.UsageError(f"{prefix!r} is not a prefix: write names with a '/' after each")
    if prefix.startswith((settings.ready_prefix, ".runbook/")):
        raise errors.UsageError(f"synthetic objects are never made under {prefix}")
    return prefix


def _remove(store: ObjectStore, key: str) -> str:
    """Delete a synthetic object; return why it stays; empty: it is gone."""
    try:
        # Read it right before the delete, because not every store checks a delete's ETag.
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
    """Return a PDF of one page that says DRILL, filled up to a size."""
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
    """Return a drill's own orders; empty outside of a drill."""
    return frozenset(map(str, inv.incident.state.drill_orders))


def plan_backlog(inv: Investigation, step: str) -> Plan:
    """Plan a synthetic backlog by the section's parameters.

    Raises
    ------
    SafetyError
        See ``check_quiet``.
    UsageError
        See ``check_prefix``.
    """
    given = get_parameters(inv, BacklogParameters).model_dump(include=set(Backlog.model_fields))
    backlog = Backlog.model_validate(given)
    _check_quiet_now(inv)
    backlog.prefix = check_prefix(inv.settings, backlog.prefix or inv.settings.chaos_prefix)
    backlog.drill_id = backlog.drill_id or inv.incident.state.drill_id or make_drill_id()
    summary = {
        **backlog.model_dump(),
        "objects": backlog.count,
        "bytes": backlog.count * backlog.object_size_kb * 1024,
    }
    return write_plan(
        inv.incident.folder / "plans",
        CREATE,
        "syn",
        now=inv.now(),
        step=step,
        action="create_synthetic",
        target=_describe_target(inv, backlog.count, backlog.prefix),
        way_back="4.2 removes them",
        summary=summary,
    )


def plan_revert(inv: Investigation, step: str, *, drill_id: str, prefix: str = "") -> Plan:
    """Plan to remove the objects whose metadata proves them synthetic.

    Parameters
    ----------
    drill_id : only the objects of this drill; empty: of every drill
    prefix : where; empty: the chaos and the pending prefix
    """
    prefixes = [check_prefix(inv.settings, prefix)] if prefix else list_prefixes(inv.settings)
    objects = list(list_synthetic(inv.clients.store, prefixes, drill_id=drill_id))
    target = _describe_target(inv, len(objects), f"{{{','.join(prefixes)}}}")
    if not objects:
        return make_empty_plan(step=step, target=target, reason="there is no synthetic object")
    drills = {(info.metadata or {}).get("drill-id", NO_ID) for info in objects}
    summary: dict[str, Json] = {
        "prefixes": prefixes,
        "drill_id": drill_id,
        "objects": len(objects),
        "bytes": sum(info.size_bytes for info in objects),
        "sample": [info.key for info in objects[:_SAMPLE_OF_PLAN]],
        "drills": sorted(drills),
    }
    return write_plan(
        inv.incident.folder / "plans",
        REMOVE,
        "syn",
        now=inv.now(),
        step=step,
        action="revert_synthetic",
        target=target,
        way_back="there is none, and none is needed: only synthetic objects go",
        summary=summary,
    )


def _describe_target(inv: Investigation, count: int, where: str) -> str:
    """Describe the target of a plan: how many synthetic objects, and where."""
    return f"{count_of(count, 'synthetic object')} under {inv.clients.store.bucket}/{where}"


def _check_quiet_now(inv: Investigation, _plan: Plan | None = None) -> dict[str, Json]:
    """Do what ``check_quiet`` does, for the gate."""
    check_quiet(inv.settings, inv.clients.store, now=inv.now(), own_orders=list_own_orders(inv))
    return {}


def _create(inv: Investigation, plan: Plan) -> Effect:
    """Create the objects of the plan."""
    made = create_backlog(
        inv.clients.store,
        Backlog.model_validate(plan.summary),
        settings=inv.settings,
        now=inv.now(),
        own_orders=list_own_orders(inv),
    )
    return Effect("", {"created": len(made), "sample": [label["key"] for label in made[:SAMPLE]]})


def _check_created(inv: Investigation, plan: Plan) -> Effect:
    """List the plan's objects: all must be there."""
    objects = _list_planned(inv, plan, [plan.summary["prefix"]])
    wanted = plan.summary["count"]
    reason = f"{len(objects)} of {wanted} objects are there, all proven synthetic"
    return Effect(reason, {"objects": len(objects)}, is_ok=len(objects) == wanted)


def _remove_planned(inv: Investigation, plan: Plan) -> Effect:
    """Remove what the plan says; allowed in every environment."""
    removal = revert_backlog(
        inv.clients.store, *plan.summary["prefixes"], drill_id=plan.summary["drill_id"]
    )
    counts = {"removed": removal.removed, "kept": removal.kept, "failed": removal.failed}
    return Effect("", counts)


def _check_removed(inv: Investigation, plan: Plan) -> Effect:
    """List the plan's objects: none may be left."""
    objects = _list_planned(inv, plan, plan.summary["prefixes"])
    reason = f"left: {count_of(len(objects), 'synthetic object')}"
    if objects:
        reason += "; plan again: `runbook run 06`"
    return Effect(reason, {"objects": len(objects)}, is_ok=not objects)


def _list_planned(inv: Investigation, plan: Plan, prefixes: list[str]) -> list[Seen]:
    found = list_synthetic(inv.clients.store, prefixes, drill_id=plan.summary["drill_id"])
    return list(found)


CREATE = PlanKind("runbook/synthetic-create/1", _create, _check_created, _check_quiet_now)
REMOVE = PlanKind("runbook/synthetic-remove/1", _remove_planned, _check_removed)
