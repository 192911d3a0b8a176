"""The three readings: how full it is, how fast it fills, and what may leave."""

from datetime import timedelta
from typing import NamedTuple

from objectmove.bucket import S3Bucket, Seen
from runbook_lib.errors import NotConnectedError
from runbook_lib.model import Outcome, Role
from runbook_lib.section import step
from runbook_lib.show import display

from .settings import Settings

#: The arrivals of this time tell how fast the landing zone fills.
RATE_HOURS = 1


class Investigation(display.Investigation[Settings, S3Bucket]):
    """One incident, with this runbook's settings and its bucket."""

    runbook = "landing"

    @classmethod
    def connect(cls, settings: Settings) -> S3Bucket:
        """Return the bucket. It connects with the first request."""
        return S3Bucket(
            endpoint=settings.landing_endpoint,
            bucket=settings.landing_bucket,
            access_key=settings.landing_access_key,
            secret_key=settings.landing_secret_key.get_secret_value(),
            secure=settings.landing_secure,
            ca_file=str(settings.ca_bundle or ""),
            proxy_url=settings.proxy_url,
        )

    @classmethod
    def check_connected(cls, settings: Settings) -> None:
        """Refuse to investigate without keys."""
        if not settings.landing_access_key:
            raise NotConnectedError("You are not connected: set LANDING_ACCESS_KEY.")


class Use(NamedTuple):
    """How much lies in the landing zone, and how much of that arrived in ``RATE_HOURS``."""

    size_bytes: int
    objects: int
    new_bytes: int
    new_objects: int


def read_use(inv: Investigation) -> Use:
    """List the landing zone, and add up what is there."""
    size_bytes = objects = new_bytes = new_objects = 0
    oldest_new = inv.now() - timedelta(hours=RATE_HOURS)
    for file in inv.clients.list_objects(inv.settings.landing_prefix):
        objects += 1
        size_bytes += file.size_bytes
        if file.last_modified >= oldest_new:
            new_objects += 1
            new_bytes += file.size_bytes
    return Use(size_bytes, objects, new_bytes, new_objects)


def read_processed(inv: Investigation) -> set[str]:
    """Return the keys of the files that are processed."""
    settings = inv.settings
    prefix = settings.landing_processed_prefix
    return {
        settings.landing_prefix + marker.key.removeprefix(prefix)
        for marker in inv.clients.list_objects(prefix)
    }


def find_reason_to_stay(inv: Investigation, file: Seen, processed: set[str]) -> str:
    """Return why a file must stay in the landing zone, or "" if it may leave."""
    if file.key not in processed:
        return "not_processed"
    if inv.now() - file.last_modified < timedelta(hours=inv.settings.landing_keep_hours):
        return "too_young"
    return ""


@step(
    "1.1",
    "The landing zone has room",
    name="use",
    role=Role.BACKLOG,
    unit="%",
    source="$landing_endpoint/$landing_bucket/$landing_prefix",
    threshold="over $landing_full_percent % of the quota in bytes or in objects",
    needed=True,
)
def read_room(inv: Investigation) -> Outcome:
    """Compare bytes and objects with their quotas."""
    settings = inv.settings
    use = read_use(inv)
    of_bytes = 100 * use.size_bytes / settings.landing_quota_bytes
    of_objects = 100 * use.objects / settings.landing_quota_objects
    percent = max(of_bytes, of_objects)
    outcome = Outcome(value=round(percent, 1), affected_files=use.objects)
    reason = (
        f"{use.size_bytes:,} bytes ({of_bytes:.1f} %), {use.objects:,} files ({of_objects:.1f} %)"
    )
    if percent > settings.landing_full_percent:
        return outcome.breach(reason)
    return outcome.ok(reason)


@step(
    "1.2",
    "The landing zone won't be full soon",
    name="time until full",
    role=Role.SYMPTOM,
    unit="h",
    source="$landing_endpoint/$landing_bucket/$landing_prefix",
    threshold="full in under $landing_hours_ahead h, by the arrivals of the last hour",
    needed=True,
)
def read_time_until_full(inv: Investigation) -> Outcome:
    """Divide what is left of the quotas by what arrived in the last hour."""
    settings = inv.settings
    use = read_use(inv)
    hours = []
    if use.new_bytes:
        left_bytes = max(0, settings.landing_quota_bytes - use.size_bytes)
        hours.append(RATE_HOURS * left_bytes / use.new_bytes)
    if use.new_objects:
        left_objects = max(0, settings.landing_quota_objects - use.objects)
        hours.append(RATE_HOURS * left_objects / use.new_objects)
    if not hours:
        return Outcome().ok("nothing arrived in the last hour")
    outcome = Outcome(value=round(min(hours), 1))
    reason = f"{use.new_bytes:,} bytes in {use.new_objects:,} files arrived in the last hour"
    if min(hours) < settings.landing_hours_ahead:
        return outcome.breach(reason)
    return outcome.ok(reason)


@step(
    "1.3",
    "Processed files leave the landing zone",
    name="processed files",
    role=Role.CAUSE,
    unit="files",
    source="$landing_endpoint/$landing_bucket/$landing_processed_prefix",
    threshold="a processed file is older than $landing_keep_hours h",
    needed=True,
)
def read_left_over(inv: Investigation) -> Outcome:
    """Count the files that are processed and old enough to leave."""
    processed = read_processed(inv)
    files = [
        file
        for file in inv.clients.list_objects(inv.settings.landing_prefix)
        if not find_reason_to_stay(inv, file, processed)
    ]
    size_bytes = sum(file.size_bytes for file in files)
    rows = tuple({"file": file.key, "bytes": file.size_bytes} for file in files)
    outcome = Outcome(value=len(files), rows=rows)
    reason = f"{len(files):,} processed files with {size_bytes:,} bytes may leave"
    if files:
        return outcome.breach(reason)
    return outcome.ok(reason)
