"""What ``runbook check`` says about ``runbook serve``."""

import fcntl
from dataclasses import dataclass
from urllib.parse import urlsplit

from runbook_lib.errors import ClientError
from runbook_lib.http import HttpClient

from .settings import ServeSettings, is_loopback


@dataclass(frozen=True)
class _Health:
    status: str


def list_warnings() -> list[str]:
    """Return what is probably wrong with the settings of ``runbook serve``. Only reads."""
    settings = ServeSettings.load()
    warnings = []
    page_url = settings.page_url
    if settings.serve_targets_file and is_loopback(urlsplit(page_url).hostname or ""):
        text = f"messages link to {page_url}, which opens on this machine only"
        warnings.append(f"{text}: set SERVE_PAGE_URL")
    if not _is_locked(settings) and _answers(settings):
        text = f"`runbook serve` at {settings.own_url} works in another RUNBOOK_HOME than you"
        warnings.append(f"{text} ({settings.runbook_home}): you don't see each other's incidents")
    return warnings


def _is_locked(settings: ServeSettings) -> bool:
    """Tell whether ``runbook serve`` works in this home; True if that can't be read."""
    try:
        with settings.lock_path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # another process has the lock
        return True
    return False


def _answers(settings: ServeSettings) -> bool:
    """Tell whether a ``runbook serve`` answers at this address."""
    ca_file = str(settings.ca_bundle or "")
    timeout_s = settings.http_timeout_s
    client = HttpClient(settings.own_url, timeout_s=timeout_s, ca_file=ca_file)
    try:
        return client.get("/health", _Health).status == "ok"
    except ClientError:
        return False
