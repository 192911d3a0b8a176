"""Look at many keys at once: by one listing where they lie close together, else one by one."""

from __future__ import annotations

from collections.abc import Sequence

from ..clients.object_store import ObjectStore
from ..errors import NotFoundError
from ..model import ObjectInfo

__all__ = ["look_up", "sort_key"]

_SLACK = 2000


def sort_key(key: str) -> bytes:
    """Return what stores sort keys by."""
    return key.encode("utf-8", "surrogatepass")


def look_up(store: ObjectStore, prefix: str, keys: Sequence[str]) -> dict[str, ObjectInfo]:
    """Return those of the keys that exist, as they are now.

    Parameters
    ----------
    prefix : which all keys have
    keys : in the store's order

    Notes
    -----
    Only reads. A listing of 1,000 objects costs about as much as one HEAD. When far more objects
    than keys lie in between, the rest is asked for by HEAD, whose LastModified has no fraction.
    """
    if not keys:
        return {}
    wanted, found = set(keys), {}
    budget, last, seen = 3 * len(keys) + _SLACK, sort_key(keys[-1]), ""
    # A proper beginning of the first key sorts before it, and little lies between the two.
    after = keys[0][:-1]
    for info in store.list_objects(prefix, start_after=after if len(after) > len(prefix) else ""):
        if budget == 0 or sort_key(info.key) > last:
            break
        budget, seen = budget - 1, info.key
        if info.key in wanted:
            found[info.key] = info
    if budget == 0:
        rest = [key for key in keys if sort_key(key) > sort_key(seen)]
        for key, info_or_error in store.read_infos(rest):
            if isinstance(info_or_error, ObjectInfo):
                found[key] = info_or_error
            elif not isinstance(info_or_error, NotFoundError):
                raise info_or_error
    return found
