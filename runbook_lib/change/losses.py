"""Find newer versions that went with a delete, where the store ignores conditional deletes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..clients.object_store import ObjectStore, WriteWatch
from .lookup import look_up, sort_key
from .plan_file import ReleasePlan

__all__ = ["find_lost"]


def find_lost(
    store: ObjectStore, plan: ReleasePlan, watch: WriteWatch, deleted: Mapping[str, datetime]
) -> list[str]:
    """Return deleted keys that were written after the planned version and exist no more.

    Parameters
    ----------
    watch : open since before the first delete
    deleted : the planned LastModified by key. Both times are the store's own.

    Notes
    -----
    Only reads; nothing is known where the store does not tell its writes.
    """
    if not (deleted and watch.is_watching):
        return []
    watch.flush()
    newer = {w.key for w in watch.writes if w.key in deleted and w.at > deleted[w.key]}
    keys = sorted(newer, key=sort_key)
    there = look_up(store, plan.header.source, keys)
    return [key for key in keys if key not in there]
