"""Read what Alertmanager's webhook sends: its payload, version 4."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from runbook_lib.errors import list_problems
from runbook_lib.model import Timestamp, format_time

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class PayloadError(ValueError):
    """A body that is not a payload of version 4; the text says why."""


class _FromAlertmanager(BaseModel):
    """A shape of Alertmanager's JSON: camelCase names; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Alert(_FromAlertmanager):
    """One alert. ``ends_at`` counts once the status is ``resolved``."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: Timestamp
    ends_at: Timestamp | None = None
    fingerprint: Fingerprint

    @property
    def key(self) -> tuple[str, str]:
        return self.fingerprint, format_time(self.starts_at)

    @property
    def is_drill(self) -> bool:
        """Whether the alert is about synthetic objects only; the rule's label says so."""
        return self.labels.get("drill") == "true"


class Payload(_FromAlertmanager):
    version: Literal["4"]
    receiver: Annotated[str, StringConstraints(max_length=1024)]
    alerts: tuple[Alert, ...]


def read_payload(body: bytes) -> Payload:
    """Return the payload of a body, or raise PayloadError, which says why there is none."""
    try:
        return Payload.model_validate_json(body, strict=True)
    except ValidationError as error:
        where, why = next(iter(list_problems(error).items()))
        raise PayloadError(f"{where}: {why}".removeprefix(": ")) from None
