"""How a plan grows with the listing: ``python -m bench.growth COUNT`` in a process of its own.

The store is generated, in memory and with metadata in its listing: what is measured is ours.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runbook_lib.change.plan import make_release_plan
from tests.support.memory_store import EndlessStore

__all__ = ["measure_growth"]

_COUNTS = (10_000, 100_000, 1_000_000)


def measure_growth() -> None:
    """Print seconds and peak memory of plans over more and more objects."""
    print("  a plan over a generated listing, each in a fresh process:")
    for count in _COUNTS:
        command = [sys.executable, "-m", "bench.growth", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
        print(f"    {done.stdout.strip()}")


def main() -> None:
    """Plan over so many objects and print what it took."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        plan = make_release_plan(
            EndlessStore(count),
            folder=Path(folder),
            prefix="pending/",
            to="ready/",
            made_by="bench",
            limit_objects=count,
            limit_bytes=10**15,
        )
        took = time.perf_counter() - start
        if plan.trailer.objects != count:
            raise RuntimeError(f"{plan.trailer.objects} of {count} objects were planned")
    print(f"{count:>9,} objects   {took:6.1f} s   peak {read_peak_mib():.0f} MiB")


def read_peak_mib() -> float:
    """Return the most memory that this process had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # rusage counts what the parent had before this program was loaded
        line = next(t for t in status.read_text().splitlines() if t.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
