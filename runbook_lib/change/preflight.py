"""What refuses a release before anything is touched."""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import islice

from ..clients.object_store import ObjectStore, is_same_version
from ..errors import (
    DriftError,
    LimitError,
    NotApprovedError,
    PlanAlteredError,
    PlanExpiredError,
    StoreNotReadyError,
)
from ..model import format_time
from .ledger import LedgerState
from .lookup import Walk
from .plan_file import ReleasePlan

__all__ = ["check_approval", "check_begun", "check_drift", "check_store"]

_CHUNK = 1000
_DRILL = "drill:"


def check_approval(
    plan: ReleasePlan, state: LedgerState, *, approve_sha256: str, approved_by: str, now: datetime
) -> None:
    """Refuse what is not approved, altered, expired, done, over its limit, or not the drill's.

    Notes
    -----
    Only reads. Once the ledger holds the approval, the lifetime does not count.
    """
    if not approve_sha256:
        raise NotApprovedError(f"{plan.id} is not approved. Approve it by its hash {plan.sha256}.")
    actual = hashlib.sha256(plan.path.read_bytes()).hexdigest()
    if actual != plan.sha256:
        raise PlanAlteredError(f"{plan.path.name} was altered since it was read. Plan again.")
    if approve_sha256 != actual:
        raise NotApprovedError(
            f"the approval {approve_sha256[:12]}… is not of {plan.id}, whose hash is {actual}"
        )
    if state.approved_sha256 not in ("", actual):
        raise PlanAlteredError(f"the ledger of {plan.id} approves another hash of it")
    if state.done is not None:
        raise PlanExpiredError(f"{plan.id} was carried out already. Plan again.")
    if not state.approved_sha256 and now >= plan.header.expires_at:
        raise PlanExpiredError(
            f"{plan.id} expired at {format_time(plan.header.expires_at)}. Plan again: it takes "
            "a second."
        )
    if plan.trailer.objects > plan.header.limit_objects:
        raise LimitError(f"{plan.id} holds {plan.trailer.objects} objects, over its limit")
    if plan.trailer.bytes > plan.header.limit_bytes:
        raise LimitError(f"{plan.id} holds {plan.trailer.bytes} bytes, over its limit")
    if approved_by.startswith(_DRILL):
        _check_drill(plan, approved_by)


def check_begun(plan: ReleasePlan, state: LedgerState) -> str:
    """Return the hash that the ledger approves.

    Raises
    ------
    NotApprovedError
        When it approves none.
    """
    if not state.approved_sha256:
        raise NotApprovedError(f"{plan.id} was never begun: there is no approval in its ledger")
    return state.approved_sha256


def check_store(store: ObjectStore, plan: ReleasePlan) -> None:
    """Refuse another bucket than the planned one, and a store that is not well."""
    head = plan.header
    if (store.endpoint, store.bucket) != (head.endpoint, head.bucket):
        raise NotApprovedError(
            f"{plan.id} is for {head.endpoint}/{head.bucket}; the settings say "
            f"{store.endpoint}/{store.bucket}"
        )
    live = store.check_live()
    if not live.is_live:
        raise StoreNotReadyError(f"the store is not well ({live.source}: {live.reason}).")


def check_drift(store: ObjectStore, plan: ReleasePlan) -> None:
    """Refuse when a planned object changed or vanished; others that arrived do not matter.

    Raises
    ------
    DriftError
        Names the objects.
    """
    rows, drifted, walk = plan.iter_rows(), [], Walk(store, plan.header.source)
    while chunk := list(islice(rows, _CHUNK)):
        found = walk.look_up([row.key for row in chunk])
        for row in chunk:
            now = found.get(row.key)
            if now is None or not is_same_version(row.info, now):
                drifted.append(row.key)
    if drifted:
        some = ", ".join(drifted[:5]) + (", …" if len(drifted) > 5 else "")
        raise DriftError(
            f"{len(drifted)} planned objects changed or vanished since the plan: {some}. "
            "Plan again: it takes a second.",
            keys=tuple(drifted),
        )


def _check_drill(plan: ReleasePlan, approved_by: str) -> None:
    if plan.header.only_orders is None:
        raise NotApprovedError(f"{approved_by} may only approve a plan of its own orders")
    own = frozenset(plan.header.only_orders)
    foreign = [row.key for row in plan.iter_rows() if row.order_id not in own]
    if foreign:
        raise NotApprovedError(
            f"{approved_by} may not move {len(foreign)} objects of other orders, such as "
            f"{foreign[0]}"
        )
