"""The two readings: do files wait, and does the consumer work?"""

from objectmove.bucket import S3Bucket
from runbook_lib.errors import NotConnectedError
from runbook_lib.model import Outcome, Role
from runbook_lib.section import step
from runbook_lib.show import display

from .settings import Settings


class Investigation(display.Investigation[Settings, S3Bucket]):
    """One incident, with this runbook's settings and its bucket."""

    runbook = "inbox"

    @classmethod
    def connect(cls, settings: Settings) -> S3Bucket:
        """Return the bucket. It connects with the first request."""
        return S3Bucket(
            endpoint=settings.inbox_endpoint,
            bucket=settings.inbox_bucket,
            access_key=settings.inbox_access_key,
            secret_key=settings.inbox_secret_key.get_secret_value(),
            secure=settings.inbox_secure,
            ca_file=str(settings.ca_bundle or ""),
            proxy_url=settings.proxy_url,
        )

    @classmethod
    def check_connected(cls, settings: Settings) -> None:
        """Refuse to investigate without keys: nothing could be read."""
        if not settings.inbox_access_key:
            raise NotConnectedError("You are not connected: set INBOX_ACCESS_KEY.")


def read_silence(inv: Investigation) -> float | None:
    """Return the age of the last heartbeat, in minutes; None when there never was a heartbeat."""
    for heartbeat in inv.clients.list_objects(inv.settings.inbox_heartbeat):
        return (inv.now() - heartbeat.last_modified).total_seconds() / 60
    return None


@step(
    "1.1",
    "No file waits too long",
    name="waiting",
    role=Role.BACKLOG,
    unit="files",
    source="$inbox_endpoint/$inbox_bucket/$inbox_prefix",
    threshold="the oldest waits over $inbox_late_minutes min",
    needed=True,
)
def read_waiting(inv: Investigation) -> Outcome:
    """Count the files in the inbox. An old file is a breach."""
    files = list(inv.clients.list_objects(inv.settings.inbox_prefix))
    since = min((file.last_modified for file in files), default=inv.now())
    minutes = (inv.now() - since).total_seconds() / 60
    rows = tuple({"file": file.key, "since": file.last_modified} for file in files)
    keys = tuple(file.key for file in files)
    outcome = Outcome(value=len(files), order_ids=keys, longest_minutes=minutes, rows=rows)
    reason = f"{len(files)} files wait, the oldest for {minutes:.1f} min"
    if files and minutes > inv.settings.inbox_late_minutes:
        return outcome.breach(reason)
    return outcome.ok(reason)


@step(
    "1.2",
    "The consumer works",
    name="heartbeat",
    role=Role.SYMPTOM,
    unit="min",
    source="$inbox_endpoint/$inbox_bucket/$inbox_heartbeat",
    threshold="no heartbeat for over $inbox_silent_minutes min",
    needed=True,
)
def read_heartbeat(inv: Investigation) -> Outcome:
    """Read how old the consumer's heartbeat is. An old heartbeat, or none, is a breach."""
    silence = read_silence(inv)
    if silence is None:
        return Outcome().breach("the consumer never wrote a heartbeat")
    outcome = Outcome(value=round(silence, 1))
    reason = f"the last heartbeat is {silence:.1f} min old"
    if silence > inv.settings.inbox_silent_minutes:
        return outcome.breach(reason)
    return outcome.ok(reason)
