"""The two readings: is a batch half moved, and does the job run?"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from objectmove.bucket import S3Bucket
from runbook_lib.errors import NotConnectedError
from runbook_lib.model import Outcome, Role
from runbook_lib.section import step
from runbook_lib.show import display

from .settings import Settings


class Investigation(display.Investigation[Settings, S3Bucket]):
    """One incident, with this runbook's settings and its bucket."""

    runbook = "ingest"

    @classmethod
    def connect(cls, settings: Settings) -> S3Bucket:
        """Return the bucket. It connects with the first request."""
        return S3Bucket(
            endpoint=settings.ingest_endpoint,
            bucket=settings.ingest_bucket,
            access_key=settings.ingest_access_key,
            secret_key=settings.ingest_secret_key.get_secret_value(),
            secure=settings.ingest_secure,
            ca_file=str(settings.ca_bundle or ""),
            proxy_url=settings.proxy_url,
        )

    @classmethod
    def check_connected(cls, settings: Settings) -> None:
        """Refuse to investigate without keys."""
        if not settings.ingest_access_key:
            raise NotConnectedError("You are not connected: set INGEST_ACCESS_KEY.")


class Batch(NamedTuple):
    """A batch of which some files are archived and some are not."""

    name: str
    waiting: int
    archived: int
    is_complete: bool
    last_moved_at: datetime


def get_batch_name(key: str, prefix: str) -> str:
    """Return the folder below a prefix in which an object lies."""
    return key.removeprefix(prefix).partition("/")[0]


def list_half_moved(inv: Investigation) -> Iterator[Batch]:
    """Yield the batches that have files in the landing zone and in the archive.

    Lists only those parts of the archive to which a batch of the landing zone belongs.
    """
    settings = inv.settings
    complete = {
        marker.key.removeprefix(settings.ingest_complete_prefix)
        for marker in inv.clients.list_objects(settings.ingest_complete_prefix)
    }
    waiting: dict[str, int] = defaultdict(int)
    for file in inv.clients.list_objects(settings.ingest_landing_prefix):
        waiting[get_batch_name(file.key, settings.ingest_landing_prefix)] += 1
    for name, count in waiting.items():
        archived = list(inv.clients.list_objects(f"{settings.ingest_archive_prefix}{name}/"))
        if archived:
            last_moved_at = max(file.last_modified for file in archived)
            yield Batch(name, count, len(archived), name in complete, last_moved_at)


def read_silence(inv: Investigation) -> float | None:
    """Return the age of the job's heartbeat, in minutes; None when there never was one."""
    for heartbeat in inv.clients.list_objects(inv.settings.ingest_heartbeat):
        return (inv.now() - heartbeat.last_modified).total_seconds() / 60
    return None


@step(
    "1.1",
    "No complete batch is half moved",
    name="half moved",
    role=Role.BACKLOG,
    unit="batches",
    source="$ingest_endpoint/$ingest_bucket/$ingest_landing_prefix",
    threshold="none of its files was moved for over $ingest_stuck_minutes min",
    needed=True,
)
def read_half_moved(inv: Investigation) -> Outcome:
    """Count the complete batches that are stuck halfway. Incomplete ones are only listed."""
    batches = list(list_half_moved(inv))
    rows = tuple(batch._asdict() for batch in batches)
    stuck = []
    for batch in batches:
        minutes = (inv.now() - batch.last_moved_at).total_seconds() / 60
        if batch.is_complete and minutes > inv.settings.ingest_stuck_minutes:
            stuck.append(batch)
    if not stuck:
        incomplete = sum(1 for batch in batches if not batch.is_complete)
        reason = f"no complete batch is stuck; half moved and incomplete: {incomplete}"
        return Outcome(value=0, rows=rows).ok(reason)
    outcome = Outcome(
        value=len(stuck),
        order_ids=tuple(batch.name for batch in stuck),
        since=min(batch.last_moved_at for batch in stuck),
        rows=rows,
    )
    waiting = sum(batch.waiting for batch in stuck)
    return outcome.breach(f"{waiting} of their files still lie in the landing zone")


@step(
    "1.2",
    "The ingestion job runs",
    name="heartbeat",
    role=Role.SYMPTOM,
    unit="min",
    source="$ingest_endpoint/$ingest_bucket/$ingest_heartbeat",
    threshold="no heartbeat for over $ingest_silent_minutes min",
    needed=True,
)
def read_heartbeat(inv: Investigation) -> Outcome:
    """Read how old the job's heartbeat is. An old heartbeat, or none, is a breach."""
    silence = read_silence(inv)
    if silence is None:
        return Outcome().breach("the job never wrote a heartbeat")
    outcome = Outcome(value=round(silence, 1))
    reason = f"the last heartbeat is {silence:.1f} min old"
    if silence > inv.settings.ingest_silent_minutes:
        return outcome.breach(reason)
    return outcome.ok(reason)
