"""Labels counted by their content, with a client that shares nothing with the package.

Every body is unique, so a body says which label it is, wherever it lies and whoever took it.
"""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
from minio.commonconfig import CopySource, Tags
from minio.error import S3Error

from tests.support.consumers import Taken
from tests.support.gateway import connect

_NAMES = ("{n}-{h}.pdf", "{n}-{h}-slip.pdf", "weird <b>{n} & \"q'{h}.pdf", "📦 {n}+%20{h}.PDF")
_SHOWN = ("content-type", "content-disposition", "content-encoding", "cache-control")


@dataclass(frozen=True)
class Label:
    name: str
    sha256: str
    shown: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True)
class Place:
    key: str
    shown: dict[str, str]
    tags: dict[str, str]


class Shelf:
    """One bucket, looked at by MinIO's own client. A store that cannot copy loses tags."""

    def __init__(self, endpoint: str, bucket: str, *, has_tags: bool = True) -> None:
        self.bucket = bucket
        self.has_tags = has_tags
        self.client = connect(endpoint)
        if not self.client.bucket_exists(bucket):
            self.client.make_bucket(bucket)

    def put_labels(self, number: int, rng: random.Random) -> list[Label]:
        labels = []
        for n in range(number):
            form = _NAMES[n % len(_NAMES)] if n % 5 == 0 else _NAMES[n % 2]
            name = form.format(n=1000 + n, h=f"{rng.getrandbits(48):012x}")
            body = f"%PDF {name} {rng.getrandbits(128):032x}".encode()
            shown = {
                "content-type": "application/pdf",
                "x-amz-meta-order-id": str(1000 + n),
                "x-amz-meta-tracking-number": f"TRK{n}",
            }
            if n % 3 == 0:
                shown["content-disposition"] = f'attachment; filename="{n}.pdf"'
                shown["cache-control"] = "max-age=60"
            tags = {"carrier": f"c{n % 4}"} if self.has_tags and n % 4 == 0 else {}
            self._put(f"pending/{name}", body, shown, tags)
            labels.append(Label(name, hashlib.sha256(body).hexdigest(), shown, tags))
        self._put("pending/notes.txt", b"not a label", {"content-type": "text/plain"}, {})
        return labels

    def _put(self, key: str, body: bytes, shown: dict[str, str], tags: dict[str, str]) -> None:
        content_type = shown["content-type"]
        metadata: Any = {name: text for name, text in shown.items() if name != "content-type"}
        marks = Tags.new_object_tags()
        marks.update(tags)
        self.client.put_object(
            self.bucket,
            key,
            io.BytesIO(body),
            len(body),
            content_type,
            metadata,
            tags=marks if tags else None,
        )

    def read_places(self, *prefixes: str) -> dict[str, list[Place]]:
        places: dict[str, list[Place]] = defaultdict(list)
        for prefix in prefixes:
            for key in self.list_keys(prefix):
                try:
                    response = self.client.get_object(self.bucket, key)
                    with response:
                        body, shown = response.read(), pick_shown(response.headers)
                    tags: Any = self.client.get_object_tags(self.bucket, key) or {}
                except S3Error as error:
                    if error.code != "NoSuchKey":
                        raise
                    continue
                place = Place(key, shown, dict(tags))
                places[hashlib.sha256(body).hexdigest()].append(place)
        return places

    def list_keys(self, prefix: str = "") -> list[str]:
        found = self.client.list_objects(self.bucket, prefix=prefix, recursive=True)
        keys = (str(item.object_name) for item in found)
        return [key for key in keys if not key.endswith("/")]

    def copy_without_etag(self, source: str, to: str) -> None:
        """Copy an object while its source is deleted, until the gateway writes no ETag.

        It does so in about one such copy of ten, less often on a busy machine. If it never does,
        the test is skipped.
        """
        for number in range(400):
            passing = f"passing/{number}"
            self.client.copy_object(self.bucket, passing, CopySource(self.bucket, source))
            delay_s = number % 30 / 10_000
            remover = threading.Timer(delay_s, self.client.remove_object, (self.bucket, passing))
            remover.start()
            try:
                result = self.client.copy_object(self.bucket, to, CopySource(self.bucket, passing))
            except S3Error:
                continue
            finally:
                remover.join()
            if not result.etag:
                return
        pytest.skip(f"each copy to {to} has an ETag")

    def clear(self) -> None:
        for key in self.list_keys():
            self.client.remove_object(self.bucket, key)


def pick_shown(headers: Any) -> dict[str, str]:
    low = {str(name).lower(): str(text) for name, text in headers.items()}
    return {k: v for k, v in low.items() if k in _SHOWN or k.startswith("x-amz-meta-")}


@dataclass(frozen=True)
class Counted:
    """What became of some labels, by names.

    Attributes
    ----------
    moved : shipped, or at the destination, and no longer at the source
    pending, ready, taken : at the source, at the destination, with a consumer
    lost : nowhere, and taken by nobody
    twice : taken twice, or taken and at the destination once more
    unkept : moved, but with other metadata, headers or tags
    """

    moved: frozenset[str]
    pending: frozenset[str]
    ready: frozenset[str]
    taken: frozenset[str]
    lost: frozenset[str]
    twice: frozenset[str]
    unkept: frozenset[str]


def count(labels: Sequence[Label], shelf: Shelf, taken: Iterable[Taken]) -> Counted:
    places = shelf.read_places("pending/", "ready/", "parked/")
    by_body: dict[str, list[Taken]] = defaultdict(list)
    for one in taken:
        by_body[one.sha256].append(one)
    found: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        there = Counter(place.key.partition("/")[0] for place in places[label.sha256])
        shipped = by_body[label.sha256]
        if there["pending"]:
            found["pending"].add(label.name)
        if there["ready"]:
            found["ready"].add(label.name)
        if shipped:
            found["taken"].add(label.name)
        if not there and not shipped:
            found["lost"].add(label.name)
        if len(shipped) + there["ready"] > 1:
            found["twice"].add(label.name)
        if len(shipped) + there["ready"] and not there["pending"]:
            found["moved"].add(label.name)
        kept = [pick_shown(one.headers) == label.shown for one in shipped]
        kept += [_is_kept(place, label) for place in places[label.sha256]]
        if not all(kept):
            found["unkept"].add(label.name)
    return Counted(**{f.name: frozenset(found[f.name]) for f in fields(Counted)})


def _is_kept(place: Place, label: Label) -> bool:
    """Tell whether headers and tags are as before; an undo may write ``pending-since``."""
    shown = dict(place.shown)
    if place.key.startswith("pending/"):
        shown.pop("x-amz-meta-pending-since", None)
    return (shown, place.tags) == (label.shown, label.tags)
