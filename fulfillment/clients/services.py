"""The processes of the environment: status, logs, restart, settings.

Each back end registers itself through the entry points ``runbook.services``.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Protocol

from runbook_lib import errors
from runbook_lib.model import Json, parse_time
from runbook_lib.redact import Redactor

from ..settings import Settings

_READ_TIMEOUT_S = 20.0  # a command line alone needs seconds on a busy machine
_CHANGE_TIMEOUT_S = 120.0
_MAX_LINE_CHARS = 8000
#: So much of each log is read, from its end.
MAX_LOG_BYTES = 4_000_000
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|(^|_)KEY($|_)|WEBHOOK", re.I
)
_TIME_NAMES = ("ts", "time", "timestamp", "@timestamp", "at")
_LEADING_TIME = re.compile(
    r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service.

    Attributes
    ----------
    state : as the back end names it, such as ``RUNNING``, ``FATAL``, ``exited``
    since : since when it is in this state; None when the back end does not say
    exit_code : of the last process; None while it runs
    health : ``healthy``, ``unhealthy``, ``starting``, or empty when nothing checks it
    """

    name: str
    running: bool
    state: str
    since: datetime | None
    exit_code: int | None
    health: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log; ``at`` is None when neither it nor a line before tells a time."""

    at: datetime | None
    text: str


class ServiceSwitch(Protocol):
    """Status, restart, stop and start of services.

    Every method raises a ``ClientError`` when the back end cannot be asked, and
    ``NotFoundError`` for a name that is not a service.
    """

    def list_services(self) -> list[ServiceState]:
        """Return every service, by name."""

    def restart(self, name: str) -> None:
        """Restart a service. There is no way back; needs a post-check."""

    def stop(self, name: str) -> None:
        """Stop a service; undone by ``start``."""

    def start(self, name: str) -> None:
        """Start a service; undone by ``stop``."""


class ServicesClient(ServiceSwitch, Protocol):
    """A switch that also gives logs and settings."""

    def read_logs(self, name: str, *, since: datetime, max_lines: int = 20_000) -> list[LogLine]:
        """Return a service's last lines since a time, oldest first, at most so many."""

    def read_effective_settings(self, name: str) -> dict[str, str]:
        """Return the settings a service runs with; a secret is one of three words.

        ``present``, ``absent``, or ``equal to the store's`` when it is the secret that the
        runbook itself uses for the store.
        """


def connect_services(settings: Settings) -> ServicesClient:
    """Return the back end that ``RUNBOOK_SERVICES`` names; connects when first asked.

    Raises
    ------
    NotConfiguredError
        When it names none.
    ConnectionRefusedClientError
        When it names one that is not installed.
    """
    if settings.runbook_services == "none":
        text = "RUNBOOK_SERVICES=none: nothing here sees or restarts services"
        raise errors.NotConfiguredError(text, system="services")
    try:
        (entry,) = entry_points(group="runbook.services", name=settings.runbook_services)
        found: ServicesClient = entry.load()(settings)
    except (ImportError, ValueError) as error:
        text = f"RUNBOOK_SERVICES={settings.runbook_services}: its programs are not installed; "
        text += "pip install 'fulfillment-runbook[stack]'"
        raise errors.ConnectionRefusedClientError(text, system="services") from error
    return found


def run_program(
    words: Sequence[str], settings: Settings, *, is_change: bool, advice: str, shown: str = ""
) -> str:
    """Run someone's program, never a shell, and return what it prints.

    Parameters
    ----------
    words : the program and its arguments
    settings : for the secrets that no message shows
    is_change : whether it changes something: that may take longer
    advice : what to set when it cannot be run
    shown : what messages call it; empty: its first words

    Raises
    ------
    ClientTimeoutError, ConnectionRefusedClientError, BadAnswerError
        When it does not end in time, cannot be run, or fails.
    """
    shown = shown or " ".join(words[:8])
    timeout_s = _CHANGE_TIMEOUT_S if is_change else _READ_TIMEOUT_S
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        text = f"`{shown}` did not end within {timeout_s:g} s"
        raise errors.ClientTimeoutError(text, system="services") from error
    except OSError as error:
        text = f"`{words[0]}` cannot be run ({error.strerror}). {advice}"
        raise errors.ConnectionRefusedClientError(text, system="services") from error
    if done.returncode:
        said = Redactor(settings.secrets).text(done.stderr.decode("utf-8", "replace"))
        text = f"`{shown}` failed ({done.returncode}): {' '.join(said.split())[-300:]}"
        raise errors.BadAnswerError(text, system="services")
    return done.stdout.decode("utf-8", "replace")


def unknown_service(name: str, known: Iterable[str]) -> errors.ClientError:
    """Return the error for a name that is not a service."""
    text = f"there is no service {name[:80]!r}; there are: {', '.join(sorted(known)) or 'none'}"
    return errors.NotFoundError(text, system="services")


def hide_secrets(values: Mapping[str, str | None], settings: Settings) -> dict[str, str]:
    """Return settings by name, with each secret as a word and passwords in URLs masked."""
    redactor, store_secret = Redactor(settings.secrets), settings.minio_root_password
    shown = {}
    for name, value in sorted(values.items()):
        word = "present" if value else "absent"
        if value and value == store_secret.get_secret_value():
            word = "equal to the store's"
        shown[name] = word if _SECRET_NAME.search(name) else redactor.text(value or "")
    return shown


def select_lines(
    texts: Iterable[str], *, since: datetime, max_lines: int, timed: bool = False
) -> list[LogLine]:
    """Give each line its time and keep the last ones since a time.

    Parameters
    ----------
    texts : lines, oldest first
    since : lines before it are left out; a line without a time belongs to the line before it
    timed : whether each line begins with a time and a blank that are not part of it
    """
    lines: list[LogLine] = []
    last: datetime | None = None
    for text in texts:
        head, _, rest = text.partition(" ")
        at, shown = (try_time(head), rest) if timed else (_find_time(text), text)
        last = at or last
        if last is None or last >= since:
            lines.append(LogLine(last, shown[:_MAX_LINE_CHARS]))
    return lines[-max_lines:]


def _find_time(text: str) -> datetime | None:
    if text.startswith("{"):
        try:
            record: Json = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return next((at for n in _TIME_NAMES if (at := try_time(record.get(n)))), None)
    match = _LEADING_TIME.match(text)
    return try_time(match[1].replace(",", ".")) if match else None


def try_time(value: Json) -> datetime | None:
    """Parse a time, as text or in seconds since 1970; None when it is neither."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        return parse_time(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
