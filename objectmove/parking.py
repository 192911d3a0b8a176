"""Where an object is kept that must not ship until a person has decided.

Its key is ``parked/<plan>/<rest>``, with a hash in place of a long ``<rest>``: outside of every
prefix that a worker or a consumer looks at.
"""

from __future__ import annotations

import hashlib

from .bucket import S3Bucket

#: The folder, in a plan's parking place, of objects whose parked key would be too long.
HASHED = ".hashed/"
#: ``<hash>.name`` is an object that holds the name of the object ``<hash>`` beside it.
NAME_ENDING = ".name"
#: The longest key of S3.
MAX_KEY_BYTES = 1024
#: The longest name of a file: a store on a file system makes one file of each part of a key.
_MAX_SEGMENT_BYTES = 255


def get_parked_key(parked_prefix: str, plan: str, rest: str) -> str:
    """Return where an object of a plan is parked.

    Parameters
    ----------
    parked_prefix : such as ``parked/``
    plan : id of the release that planned the object
    rest : the object's key after the release's source prefix

    Returns
    -------
    The parked key. Where it would be too long for the store, the SHA-256 of ``rest`` stands in the
    place of ``rest``.
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
    """Return which plans parked each object that is parked. Only reads.

    The keys are the objects' keys without the source prefix; the values are ids of plans.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    """
    parked: dict[str, set[str]] = {}
    for listed in bucket.list_objects(parked_prefix):
        plan, _, rest = listed.key.removeprefix(parked_prefix).partition("/")
        holds_name = rest.startswith(HASHED) and rest.endswith(NAME_ENDING)
        if not rest or holds_name:
            continue
        if rest.startswith(HASHED):  # ``rest`` is empty if the object with the name is missing
            name = bucket.read(f"{listed.key}{NAME_ENDING}")
            rest = (name or b"").decode()
        parked.setdefault(rest, set()).add(plan)
    return parked
