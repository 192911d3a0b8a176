"""Read what Alertmanager's webhook sends: its payload, version 4."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from runbook_lib.errors import list_problems
from runbook_lib.model import Timestamp, format_time, parse_time

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]

_MOST_TRUNCATED = 2**31 - 1


class PayloadError(ValueError):
    """A body that is not a payload of version 4; the text says why."""


class TooManyAlertsError(PayloadError):
    """A body with more alerts than SERVE_ALERT_LIMIT."""


def _read_end(text: object) -> datetime | None:
    """Return a time; None without one, or for Go's zero time, by which Alertmanager means never."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError("is not a time")  # noqa: TRY004 - pydantic reports only this kind
    return None if text.startswith("0001-01-01T") else parse_time(text)


def _read_count(number: object) -> object:
    """Turn a float without a fraction into an integer: in JSON, 2.0 and 2 are the same."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


Count = Annotated[int, BeforeValidator(_read_count)]
End = Annotated[Timestamp | None, BeforeValidator(_read_end)]


class _FromAlertmanager(BaseModel):
    """A shape of Alertmanager's JSON: camelCase names; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Alert(_FromAlertmanager):
    """One alert. ``fingerprint`` and ``starts_at`` are its key.

    While an alert fires, ``ends_at`` is missing, or lies in the future. Once the status is
    ``resolved``, ``ends_at`` says when the alert ended.
    """

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: Timestamp
    ends_at: End = None
    fingerprint: Fingerprint

    @property
    def key(self) -> tuple[str, str]:
        """The fingerprint, and the start as the book writes it."""
        return self.fingerprint, format_time(self.starts_at)

    @property
    def is_drill(self) -> bool:
        """Whether the alert rests on synthetic objects alone; the rule's label says so."""
        return self.labels.get("drill") == "true"


class Payload(_FromAlertmanager):
    """One message of the webhook. ``truncated_alerts``: how many alerts the message left out."""

    version: Literal["4"]
    receiver: Annotated[str, StringConstraints(max_length=1024)]
    truncated_alerts: Count = Field(0, ge=0, le=_MOST_TRUNCATED)
    alerts: tuple[Alert, ...]


def read_payload(body: bytes, *, alert_limit: int) -> Payload:
    """Return the payload that a body holds.

    Raises
    ------
    TooManyAlertsError
        When it has more alerts than the limit. They are counted before any is validated.
    PayloadError
        When it is not JSON (``NaN`` is not), or no payload of version 4. The text says why.
    """
    try:
        content: Any = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise PayloadError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise PayloadError("the body is not a JSON object")
    alerts = content.get("alerts")
    if isinstance(alerts, list) and len(alerts) > alert_limit:
        raise TooManyAlertsError(f"{len(alerts)} alerts are more than {alert_limit}")
    try:
        return Payload.model_validate_json(body, strict=True)
    except ValidationError as error:
        where, why = next(iter(list_problems(error).items()))
        raise PayloadError(f"{where}: {why}".removeprefix(": ")) from None
