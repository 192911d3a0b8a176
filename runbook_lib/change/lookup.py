"""Look at many keys at once: by one listing where they lie close together, else one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, takewhile

from ..clients.object_store import ObjectStore
from ..errors import NotFoundError
from ..model import ObjectInfo

__all__ = ["Walk", "look_up", "sort_key"]

_SLACK = 2000


def sort_key(key: str) -> bytes:
    """Return what S3 sorts keys by. SeaweedFS sorts folder by folder instead."""
    return key.encode("utf-8", "surrogatepass")


def look_up(store: ObjectStore, prefix: str, keys: Sequence[str]) -> dict[str, ObjectInfo]:
    """Return those of the keys that exist, as they are now.

    Parameters
    ----------
    prefix : which all keys have
    keys : in any order; the closer together, the cheaper

    Notes
    -----
    Only reads. A listing of 1,000 objects costs about as much as one HEAD. When far more objects
    than keys lie in between, the rest is asked for by HEAD, whose LastModified has no fraction.
    """
    return Walk(store, prefix).look_up(keys)


class Walk:
    """Look at keys chunk by chunk in one listing that goes on from chunk to chunk.

    Each chunk lies after the one before it, as a listing has them. A page that the store prepared
    earlier may be a moment old: where the present counts, ``look_up`` starts anew.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._listing: Iterator[ObjectInfo] | None = None

    def look_up(self, keys: Sequence[str]) -> dict[str, ObjectInfo]:
        """Return those of the keys that exist."""
        if not keys:
            return {}
        last, last_by_folder = max(map(sort_key, keys)), max(map(_by_folder, keys))
        listing = self._listing or self._store.list_objects(
            self._prefix, start_after=self._find_start(keys)
        )
        wanted, found = set(keys), dict[str, ObjectInfo]()
        budget = 3 * len(keys) + _SLACK
        for info in listing:
            if sort_key(info.key) > last and _by_folder(info.key) > last_by_folder:
                self._listing = chain((info,), listing)
                return found
            if budget == 0:
                self._listing = None  # the next chunk may lie far away
                return found | self._read_rest(wanted - found.keys())
            budget -= 1
            if info.key in wanted:
                found[info.key] = info
        self._listing = iter(())
        return found

    def _find_start(self, keys: Sequence[str]) -> str:
        """Return a key that comes before all of them in either order."""
        first, first_by_folder = min(keys, key=sort_key), min(keys, key=_by_folder)
        if first == first_by_folder:
            after = first[:-1]  # a proper beginning sorts before it, and little lies between
        else:
            both = zip(first, first_by_folder, strict=False)
            common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], both))
            after = f"{common.rpartition('/')[0]}/"
        return after if len(after) > len(self._prefix) else ""

    def _read_rest(self, keys: set[str]) -> dict[str, ObjectInfo]:
        found = {}
        for key, info in self._store.read_infos(sorted(keys)):
            if isinstance(info, ObjectInfo):
                found[key] = info
            elif not isinstance(info, NotFoundError):
                raise info
        return found


def _by_folder(key: str) -> list[bytes]:
    return sort_key(key).split(b"/")
