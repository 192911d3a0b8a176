"""``runbook chaos``: synthetic backlog by hand, in a marked local or demo environment."""

from __future__ import annotations

from collections import Counter
from typing import Any

from runbook_lib.exit_codes import ExitCode
from runbook_lib.record.log import utc_now

from ..change import synthetic
from ..change.environment_guard import check_playground
from ..clients import Clients
from ..settings import Settings
from .documents import ChaosDocument


def create_chaos(settings: Settings, *, prefix: str, **backlog: Any) -> ChaosDocument:
    """Create synthetic labels like ``create_backlog``; ``runbook chaos revert`` removes them."""
    drill_id = synthetic.make_drill_id()
    made = synthetic.create_backlog(
        Clients(settings).store,
        settings=settings,
        prefix=prefix or settings.chaos_prefix,
        drill_id=drill_id,
        now=utc_now(),
        **backlog,
    )
    return _document("create", created=len(made), drills={drill_id: len(made)})


def revert_chaos(settings: Settings, *, prefix: str, drill_id: str) -> ChaosDocument:
    """Remove what the metadata proves synthetic under a prefix, of all drills or of one."""
    store = Clients(settings).store
    check_playground(settings, store)
    prefixes = [prefix] if prefix else synthetic.list_prefixes(settings)
    done = synthetic.revert_backlog(store, *prefixes, drill_id=drill_id)
    return _document("revert", removed=done.removed, kept=done.kept, failed=done.failed)


def read_chaos_status(settings: Settings) -> ChaosDocument:
    """Count synthetic objects by drill, and those whose time is over. Only reads."""
    store, now = Clients(settings).store, utc_now()
    drills: Counter[str] = Counter()
    expired = 0
    for info in synthetic.list_synthetic(store, synthetic.list_prefixes(settings)):
        drills[(info.metadata or {}).get("drill-id", "without an id")] += 1
        expired += synthetic.is_expired(info, now)
    return _document("status", drills=dict(drills), expired=expired)


def sweep_chaos(settings: Settings) -> ChaosDocument:
    """Remove leftovers of killed drills: synthetic objects whose time is over."""
    store = Clients(settings).store
    return _document("sweep", removed=synthetic.sweep_expired(store, settings, now=utc_now()))


def _document(mode: str, **found: Any) -> ChaosDocument:
    code = ExitCode.NOT_OK if found.get("failed") else ExitCode.OK
    schema = f"runbook/chaos-{mode}/1"
    return ChaosDocument(schema_name=schema, exit_code=code, **found)
