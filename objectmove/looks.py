"""Look at keys, and say what a look means for a row of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from .bucket import Look, S3Bucket, Seen
from .errors import StoreError
from .plan import PlanHeader, PlanRow
from .state import STATE, Way
from .table import Place

#: The most keys that ``scan`` looks at before it calls ``on_way`` again.
_PORTION = 1000


def get_ends(header: PlanHeader, row: PlanRow, way: Way) -> tuple[str, str]:
    """Return the keys from which and to which a row goes."""
    match way:
        case Way.THERE:
            return row.key, row.to
        case Way.BACK:
            return row.to, row.key
        case Way.PARK:
            return row.key, header.get_parked_key(row.key)
        case Way.FREE:
            return header.get_parked_key(row.key), row.key


def look_surely(bucket: S3Bucket, keys: list[str]) -> Look:
    """Look at keys; an absence counts only if the bucket shows our state before and after.

    Something in front of the store may answer 404 for every key. A key whose absence does not count
    is missing in the result, like a key that could not be read.
    """
    if not keys:
        return {}
    looks = bucket.look([STATE, *keys])
    has_state = looks.pop(STATE, None) is not None
    if None not in looks.values():
        return looks
    if has_state and bucket.look([STATE]).get(STATE) is not None:
        return looks
    return {key: seen for key, seen in looks.items() if seen is not None}


def scan(
    bucket: S3Bucket,
    prefix: str,
    numbers: Mapping[str, int],
    on_way: Callable[[], None] = lambda: None,
    on_other: Callable[[Seen], None] = lambda _seen: None,
) -> Iterator[tuple[int, Seen | None]]:
    """Yield what is at many keys under one prefix: by a listing, or one by one if that is long.

    A key that could not be read is left out.

    Parameters
    ----------
    numbers : the values are yielded in place of the keys
    on_way : called again and again, so that the caller can keep its lock
    on_other : called with each listed object that has no number

    Raises
    ------
    StoreError
        When the bucket cannot be listed, or does not show our state afterwards.
    """
    max_listed = 4 * len(numbers) + 1000  # to list more would cost more than to look at each key
    left = dict(numbers)
    unlisted: list[str] = []
    count = 0
    for seen in islice(bucket.list_objects(prefix), max_listed):
        count += 1
        if count % _PORTION == 0:
            on_way()
        number = left.pop(seen.key, None)
        if number is None:
            on_other(seen)
        else:
            yield number, seen
    if count == max_listed:
        unlisted = list(left)
    elif left and bucket.look([STATE]).get(STATE) is None:
        raise StoreError(f"the bucket does not show {STATE}: what a listing lacks is not known")
    else:
        yield from ((number, None) for number in left.values())
    for start in range(0, len(unlisted), _PORTION):
        on_way()
        looks = look_surely(bucket, unlisted[start : start + _PORTION])
        yield from ((numbers[key], seen) for key, seen in looks.items())


def judge(bucket: S3Bucket, row: PlanRow, seen: Seen | None, *, is_source: bool) -> Place:
    """Say what a look means for a row; read the content where the ETag does not tell.

    Parameters
    ----------
    is_source : whether the row comes from there: then its ETag tells the planned version
    """
    if seen is None:
        return Place.ABSENT
    is_same = seen.has_same_content(row)
    has_hash = seen.etag and not row.sha256
    if seen.size_bytes == row.size_bytes and not (has_hash or (is_source and is_same)):
        algorithm = "sha256" if row.sha256 else "md5"
        try:
            is_same = bucket.read_hash(seen.key, algorithm) == (row.sha256 or row.etag)
        except StoreError:
            return Place.UNKNOWN
    if not is_same:
        return Place.OTHER
    return Place.AGAIN if is_source and not row.is_same(seen) else Place.SAME


class Looks:
    """What the last look found at each key. A key that could not be read is missing."""

    def __init__(self, bucket: S3Bucket) -> None:
        self.seen: Look = {}
        self._bucket = bucket

    def look(self, keys: Iterable[str]) -> None:
        """Look at keys anew."""
        distinct = list(dict.fromkeys(keys))
        self.forget(*distinct)
        self.seen.update(look_surely(self._bucket, distinct))

    def look_in_order(self, prefix: str, keys: list[str], *, believes_absence: bool) -> None:
        """Look anew at keys under a prefix by a short listing; one by one where it lacks them.

        Parameters
        ----------
        believes_absence : whether a key that the listing lacks is absent. Else it is looked at, too
        """
        if not keys:
            return
        keys.sort()
        self.forget(*keys)
        last = ""
        most = 2 * len(keys)
        listing = self._bucket.list_objects(prefix, start=keys[0], page_size=most)
        listed = list(islice(listing, most))
        for seen in listed:
            # Without an order, a listing proves no absence.
            believes_absence = believes_absence and seen.key > last
            last = seen.key
            if last in keys:
                self.seen[last] = seen
        unlisted = [key for key in keys if key not in self.seen]
        is_whole = last >= keys[-1] or len(listed) < most
        if believes_absence and is_whole:
            self.seen.update(dict.fromkeys(unlisted))
        else:
            self.seen.update(look_surely(self._bucket, unlisted))

    def forget(self, *keys: str) -> None:
        """Forget looks."""
        for key in keys:
            self.seen.pop(key, None)

    def judge(self, row: PlanRow, key: str, *, is_source: bool) -> Place:
        """Say what the last look at a key means for a row."""
        if key not in self.seen:
            return Place.UNKNOWN
        return judge(self._bucket, row, self.seen[key], is_source=is_source)
