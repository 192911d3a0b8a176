"""Look at keys, and compare what is there with a row of a plan."""

from collections.abc import Callable, Collection, Iterator, Sequence

from .bucket import Look, S3Bucket
from .errors import StoreError
from .plan import Plan, PlanRow
from .state import STATE, Way
from .table import Direction, Place

#: The most keys ``scan`` looks at in one call, and the most rows ``scan_rows`` lists at a time.
_PORTION = 1000
_ROWS = 5_000


def get_ends(plan: Plan, row: PlanRow, way: Way) -> tuple[str, str]:
    """Return the keys from which, and to which, ``way`` takes a row's object."""
    end = row.to
    if way.direction is Direction.ASIDE:
        header = plan.header
        end = f"{header.parked}{plan.id}/{row.key.removeprefix(header.source)}"
    if way in (Way.THERE, Way.PARK):
        return row.key, end
    return end, row.key


def look_surely(bucket: S3Bucket, keys: list[str]) -> Look:
    """Look at keys; trust an absence only if the bucket shows its state object before and after.

    Otherwise a proxy may answer 404 for every key. A key that could not be read, or whose absence
    can't be trusted, is missing in the result.
    """
    if not keys:
        return {}
    looks = bucket.look([STATE, *keys])
    has_state = looks.pop(STATE, None) is not None
    if None in looks.values() and not (has_state and bucket.look([STATE]).get(STATE)):
        looks = {key: seen for key, seen in looks.items() if seen is not None}
    return looks


def scan(
    bucket: S3Bucket,
    prefix: str,
    keys: Collection[str],
    on_way: Callable[[], None] = lambda: None,
) -> Look:
    """List a prefix to find many keys; look one by one at those that the listing doesn't decide.

    The listing of one folder starts at the first key and stops after the last. For several folders
    it starts at the prefix, because some stores list folder by folder. A listing proves no absence
    if the keys are in another order, or if we stop it because single looks are cheaper. A key that
    could not be read is missing in the result.

    Calls ``on_way`` for each listed object, so that the caller can keep its lock. Raises StoreError
    when the bucket cannot be listed.
    """
    if not keys:
        return {}
    wanted = set(keys)
    final = max(wanted)
    folders = {_get_folder(key) for key in wanted}
    is_ordered = len(folders) == 1
    start = min(wanted) if is_ordered else ""
    most = 4 * len(wanted)  # to list more would cost more than to look at each key
    looks: Look = {}
    last = ""
    listing = bucket.list_objects(prefix, start=start)
    for count, seen in enumerate(listing, 1):
        on_way()
        is_ordered = is_ordered and seen.key > last and _get_folder(seen.key) in folders
        last = seen.key
        if last in wanted:
            looks[last] = seen
        is_whole = is_ordered and last >= final
        if is_whole or count == most:
            break
    else:
        is_whole = is_ordered or not start
    absent = wanted.difference(looks)
    if is_whole and absent and bucket.look([STATE]).get(STATE):
        looks.update(dict.fromkeys(absent))
    unsure = sorted(wanted.difference(looks))
    for first in range(0, len(unsure), _PORTION):
        on_way()
        looks.update(look_surely(bucket, unsure[first : first + _PORTION]))
    return looks


def scan_rows(
    bucket: S3Bucket, plan: Plan, numbers: Sequence[int], on_way: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, PlanRow, Look]]:
    """Yield each row's number, the row, and looks that include its source and destination."""
    for first in range(0, len(numbers), _ROWS):
        rows = {number: plan.rows[number] for number in numbers[first : first + _ROWS]}
        looks = scan(bucket, plan.header.source, [row.key for row in rows.values()], on_way)
        looks |= scan(bucket, plan.header.to, [row.to for row in rows.values()], on_way)
        for number, row in rows.items():
            yield number, row, looks


def _get_folder(key: str) -> str:
    return key.rpartition("/")[0]


def judge(bucket: S3Bucket, row: PlanRow, looks: Look, key: str) -> Place:
    """Compare what is at a key with the planned content; read it if the ETag is no hash.

    At the row's source, the planned ETag is enough.
    """
    if key not in looks:
        return Place.UNKNOWN
    seen = looks[key]
    if seen is None:
        return Place.ABSENT
    is_source = key == row.key
    is_same = seen.has_same_content(row)
    has_hash = seen.etag and not row.sha256
    if seen.size_bytes == row.size_bytes and not (has_hash or (is_source and is_same)):
        algorithm = "sha256" if row.sha256 else "md5"
        try:
            is_same = bucket.read_hash(key, algorithm) == (row.sha256 or row.etag)
        except StoreError:
            return Place.UNKNOWN
    if not is_same:
        return Place.OTHER
    planned_at = row.last_modified.replace(microsecond=0)
    is_again = is_source and seen.last_modified.replace(microsecond=0) != planned_at
    return Place.AGAIN if is_again else Place.SAME


def judge_ends(
    bucket: S3Bucket, plan: Plan, row: PlanRow, way: Way, looks: Look
) -> tuple[Place, Place]:
    """Compare what is at both ends of a row, source first, with the planned content."""
    source, to = get_ends(plan, row, way)
    return judge(bucket, row, looks, source), judge(bucket, row, looks, to)
