"""Ask Alertmanager: which alerts go to which receivers, and whether they were delivered."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field, with_config

from runbook_lib.fields import CAMEL, At, parse_duration
from runbook_lib.http import HttpClient
from runbook_lib.model import Json

_STATUS = "/api/v2/status"
_PLACEHOLDER = re.compile(
    r"(^|[.@/])example\.(com|org|net)\b|/REPLACE\b|\bREPLACE[/_-]?ME\b|\bCHANGE[_-]?ME\b", re.I
)
# Demo mail addresses may well be at example.com; only where mail is handed over matters.
_NOT_DESTINATIONS = {"to", "from", "smtp_from", "smtp_hello", "headers", "hello"}
_SENT = "alertmanager_notifications_total"
_FAILED = "alertmanager_notifications_failed_total"
_DEFAULT_TIMING = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}


_Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda receivers: [receiver["name"] for receiver in receivers])
]
_Ids = Annotated[tuple[str, ...], BeforeValidator(lambda ids: ids or ())]


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class RoutedAlert:
    """An alert that Alertmanager holds. ``state`` is active, suppressed or unprocessed."""

    labels: dict[str, str]
    starts_at: At
    receivers: _Names
    state: Annotated[str, Field(validation_alias=AliasPath("status", "state"))]
    silenced_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "silencedBy"))]
    inhibited_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "inhibitedBy"))]
    muted_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "mutedBy"))] = ()


@dataclass(frozen=True, slots=True)
class NotificationCount:
    """How many notifications were tried and failed since Alertmanager started.

    ``sent`` counts every attempt's outcome, the failed ones too. Where Alertmanager tells receivers
    apart, each is one.
    """

    integration: str
    sent: float
    failed: float


class AlertmanagerClient(HttpClient):
    """Read Alertmanager. Only reads; every method raises a ``ClientError`` when it cannot."""

    SYSTEM = "alertmanager"
    HEALTH = "/-/healthy"

    def list_alerts(self) -> list[RoutedAlert]:
        """Return the alerts, silenced and inhibited ones too."""
        return self.get("/api/v2/alerts", list[RoutedAlert])

    def read_notification_counts(self) -> list[NotificationCount]:
        """Return how many notifications each integration sent and failed to send."""
        counts = {name: defaultdict[tuple[str, str], float](float) for name in (_SENT, _FAILED)}
        for sample in self.read_metrics():
            if sample.name in counts:
                key = sample.labels.get("integration", ""), sample.labels.get("receiver_name", "")
                counts[sample.name][key] += sample.value
        sent, failed = counts.values()
        keys = sorted({*sent, *failed})
        return [NotificationCount(key[0], sent[key], failed[key]) for key in keys]

    def read_placeholders(self) -> list[str]:
        """Return where the running configuration still holds a placeholder, and which.

        Each is like ``global.smtp_smarthost: smtp.example.com:587``. Alertmanager hides secret
        values (webhook URLs among them), so a placeholder in those cannot be seen here.
        """
        with self.parsing(_STATUS):
            return [
                f"{where}: {value}"
                for where, value in _walk(self._read_config())
                if _PLACEHOLDER.search(value)
            ]

    def read_group_timing(self) -> tuple[float, float, float]:
        """Return ``(group_wait_s, group_interval_s, repeat_interval_s)`` of the top route."""
        with self.parsing(_STATUS):
            timing = {**_DEFAULT_TIMING, **self._read_config()["route"]}
            wait, interval, repeat = (parse_duration(str(timing[n])) for n in _DEFAULT_TIMING)
            return wait, interval, repeat

    def check_reachable(self) -> str:
        """Return the version of the server."""
        return self.get(_STATUS, str, part="versionInfo.version")

    def _read_config(self) -> Any:
        import yaml

        try:
            return yaml.safe_load(self.get(_STATUS, str, part="config.original"))
        except yaml.YAMLError as error:
            raise ValueError("its configuration is not YAML") from error


def _walk(value: Json, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NOT_DESTINATIONS:
                yield from _walk(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = inner.get("name") if isinstance(inner, dict) else None
            yield from _walk(inner, f"{where}[{name or index}]")
    elif isinstance(value, str):
        yield where, value
