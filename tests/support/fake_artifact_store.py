"""A store in memory for the exporter, with the failures that a real one has."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime

from addons.artifact_exporter.store import ListedArtifact


class FakeArtifactStore:
    def __init__(self) -> None:
        self.objects: dict[str, tuple[ListedArtifact, Mapping[str, str]]] = {}
        self.listing_error: Exception | None = None
        self.metadata_reads: list[str] = []
        self._lock = threading.Lock()

    def put(
        self, key: str, last_modified: datetime, *, etag: str = "e1", **metadata: str
    ) -> ListedArtifact:
        item = ListedArtifact(key, etag, last_modified, size_bytes=100)
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        self.objects[key] = (item, named)
        return item

    def list_artifacts(self, prefix: str) -> Iterator[ListedArtifact]:
        if self.listing_error is not None:
            raise self.listing_error
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield self.objects[key][0]

    def read_metadata(self, key: str) -> Mapping[str, str] | None:
        with self._lock:
            self.metadata_reads.append(key)
        return self.objects[key][1]
