"""Where an object is kept that must not ship until a person has decided: ``parked/<plan>/<rest>``.

The parking place lies outside of every prefix that a worker or a consumer looks at.
"""

from __future__ import annotations

import hashlib

from .bucket import S3Bucket

HASHED = ".hashed/"
NAME_ENDING = ".name"
MAX_KEY_BYTES = 1024
_MAX_SEGMENT_BYTES = 255


def get_parked_key(parked_prefix: str, plan: str, rest: str) -> str:
    """Return where an object of a plan is parked.

    Parameters
    ----------
    parked_prefix : such as ``parked/``
    rest : the object's key after the plan's prefix

    Returns
    -------
    A key that would be too long for the store is replaced by its hash; the object
    ``<hash>.name`` beside it holds the name.
    """
    key = f"{parked_prefix}{plan}/{rest}"
    is_short = len(key.encode()) <= MAX_KEY_BYTES
    if is_short and all(len(part.encode()) <= _MAX_SEGMENT_BYTES for part in key.split("/")):
        return key
    digest = hashlib.sha256(rest.encode()).hexdigest()
    return f"{parked_prefix}{plan}/{HASHED}{digest}"


def is_hashed(parked_key: str) -> bool:
    """Tell whether a parked key holds a hash in place of the name."""
    return f"/{HASHED}" in parked_key


def list_parked(bucket: S3Bucket, parked_prefix: str) -> dict[str, set[str]]:
    """Return what is parked: for the rest of each key, the plans that parked it. Only reads.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    """
    parked: dict[str, set[str]] = {}
    for seen in bucket.list_objects(parked_prefix):
        plan, _, rest = seen.key.removeprefix(parked_prefix).partition("/")
        if not rest or (rest.endswith(NAME_ENDING) and rest.startswith(HASHED)):
            continue
        if rest.startswith(HASHED):
            name = bucket.read(f"{seen.key}{NAME_ENDING}")
            rest = (name or b"").decode()
        parked.setdefault(rest, set()).add(plan)
    return parked
