"""What the exporter's listings cost: of labels that wait, and of labels that are ready.

A fresh SeaweedFS gets so many objects of each kind; then the exporter's own inventory reads them,
first cold, then with the metadata that it remembers.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.settings import ExporterSettings
from addons.artifact_exporter.store import S3Store
from bench.release import LABEL_BYTES, fill, tabulate
from objectmove.bucket import Request, S3Bucket
from tests.support.gateway import ACCESS_KEY, BUCKET, SECRET_KEY, run_seaweedfs

_BATCH = 10_000


def measure(*, waiting: int, ready: int) -> str:
    """Return a table of what each reading of the exporter takes."""
    with tempfile.TemporaryDirectory() as folder, run_seaweedfs(Path(folder) / "store") as server:
        bucket = S3Bucket(
            endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        fill(bucket, waiting)
        _fill_ready(bucket, ready)
        settings = ExporterSettings(
            minio_endpoint=server.endpoint,
            minio_root_user=ACCESS_KEY,
            minio_root_password=SECRET_KEY,  # type: ignore[arg-type]
            fulfillment_bucket=BUCKET,
        )
        inventory = ArtifactInventory(
            S3Store(settings),
            waiting_prefixes=[settings.pending_prefix, settings.chaos_prefix],
            ready_prefix=settings.ready_prefix,
            clock=lambda: datetime.now(UTC),
            metadata_reads=waiting,
        )
        rows = [["reading", "objects", "s", "CPU s", "objects a second"]]
        rows.append(_time("waiting, first time", waiting, inventory.read_snapshot))
        rows.append(_time("waiting, remembered", waiting, inventory.read_snapshot))
        rows.append(_time("ready", ready, inventory.count_ready))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{tabulate(rows)}\n\nPeak memory of this program: {peak_mib:.0f} MiB."


def _fill_ready(bucket: S3Bucket, count: int) -> None:
    """Put small objects under ``ready/``."""
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        puts = [Request("put", f"ready/{number:09d}.pdf", body=b"label") for number in numbers]
        answers = bucket.send(puts, signed_at=bucket.read_clock(), expires_s=900)
        failed = [answer for answer in answers if answer.effect != "done"]
        if failed:
            raise RuntimeError(f"an object could not be put: {failed[0]}")
        print(f"  {start + len(puts)} under ready/", file=sys.stderr, flush=True)


def _time(name: str, count: int, work: Callable[[], object]) -> list[str]:
    began = time.perf_counter()
    cpu = time.process_time()
    work()
    took_s = time.perf_counter() - began
    cpu_s = time.process_time() - cpu
    return [name, f"{count:,}", f"{took_s:.2f}", f"{cpu_s:.2f}", f"{count / took_s:,.0f}"]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.listing", description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--ready", type=int, default=200_000)
    options = parser.parse_args()
    print(f"Labels of {LABEL_BYTES} bytes wait; {datetime.now(UTC):%Y-%m-%d}.\n")
    print(measure(waiting=options.waiting, ready=options.ready))


if __name__ == "__main__":
    main()
