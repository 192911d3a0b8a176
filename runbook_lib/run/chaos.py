"""``runbook chaos``: synthetic backlog by hand, in a marked local or demo environment."""

from __future__ import annotations

from collections import Counter

from ..change.synthetic import (
    check_playground,
    create_backlog,
    is_expired,
    list_synthetic,
    revert_backlog,
    sweep_expired,
)
from ..clients import Clients
from ..exit_codes import ExitCode
from ..record.log import utc_now
from ..settings import Settings
from .documents import ChaosDocument

__all__ = ["create_chaos", "read_chaos_status", "revert_chaos", "sweep_chaos"]


def create_chaos(
    settings: Settings,
    *,
    prefix: str,
    count: int,
    hold_minutes: float,
    object_size_kb: int,
    age_minutes: float,
) -> ChaosDocument:
    """Create synthetic labels; ``runbook chaos revert`` removes them."""
    store = Clients(settings).store
    check_playground(settings, store)
    made = create_backlog(
        store,
        settings=settings,
        prefix=prefix or settings.chaos_prefix,
        count=count,
        now=utc_now(),
        hold_minutes=hold_minutes,
        object_size_kb=object_size_kb,
        age_minutes=age_minutes,
    )
    return _document("create", created=made.created, drills={made.drill_id: made.created})


def revert_chaos(settings: Settings, *, prefix: str, drill_id: str) -> ChaosDocument:
    """Remove what the metadata proves synthetic under a prefix, of all drills or of one."""
    store = Clients(settings).store
    check_playground(settings, store)
    prefixes = (prefix,) if prefix else (settings.chaos_prefix, settings.pending_prefix)
    removed, kept, failed = 0, 0, dict[str, str]()
    for where in prefixes:
        removal = revert_backlog(store, prefix=where, drill_id=drill_id or None)
        removed, kept = removed + removal.removed, kept + removal.kept
        failed |= removal.failed
    return _document("revert", removed=removed, kept=kept, failed=failed)


def read_chaos_status(settings: Settings) -> ChaosDocument:
    """Count synthetic objects by drill, and those whose time is over. Only reads."""
    store, now = Clients(settings).store, utc_now()
    drills: Counter[str] = Counter()
    expired = 0
    for info in list_synthetic(store, (settings.chaos_prefix, settings.pending_prefix)):
        drills[(info.metadata or {}).get("drill-id", "without an id")] += 1
        expired += is_expired(info, now)
    return _document("status", drills=dict(drills), expired=expired)


def sweep_chaos(settings: Settings) -> ChaosDocument:
    """Remove leftovers of killed drills: synthetic objects whose time is over."""
    store = Clients(settings).store
    return _document("sweep", removed=sweep_expired(store, settings))


def _document(
    mode: str,
    *,
    created: int = 0,
    removed: int = 0,
    kept: int = 0,
    expired: int = 0,
    drills: dict[str, int] | None = None,
    failed: dict[str, str] | None = None,
) -> ChaosDocument:
    return ChaosDocument(
        schema_name=f"runbook/chaos-{mode}/1",
        at=utc_now(),
        exit_code=ExitCode.NOT_OK if failed else ExitCode.OK,
        created=created,
        removed=removed,
        kept=kept,
        expired=expired,
        drills=drills or {},
        failed=failed or {},
    )
