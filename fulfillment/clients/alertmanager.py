"""Ask Alertmanager: which alerts go to which receivers, and whether they were delivered."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field, with_config

from runbook_lib.fields import CAMEL, At, Labels, parse_duration
from runbook_lib.http import HttpClient
from runbook_lib.model import Json

_STATUS = "/api/v2/status"
_PLACEHOLDER = re.compile(
    r"(^|[.@/])example\.(com|org|net)\b|/REPLACE\b|\bREPLACE[/_-]?ME\b|\bCHANGE[_-]?ME\b", re.I
)
# Demo mail addresses may well be at example.com; only where mail is handed over matters.
_NOT_DESTINATIONS = {"to", "from", "smtp_from", "smtp_hello", "headers", "hello"}
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
    annotations: Labels
    starts_at: At
    receivers: _Names
    state: Annotated[str, Field(validation_alias=AliasPath("status", "state"))]
    silenced_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "silencedBy"))]
    inhibited_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "inhibitedBy"))]
    fingerprint: str
    muted_by: Annotated[_Ids, Field(validation_alias=AliasPath("status", "mutedBy"))] = ()


@dataclass(frozen=True, slots=True)
class NotificationCount:
    """How many notifications were tried and failed since Alertmanager started.

    ``sent`` counts every attempt's outcome, the failed ones too. ``receiver`` is empty where
    Alertmanager does not tell receivers apart. ``reasons`` holds the failures by reason.
    """

    integration: str
    receiver: str
    sent: float
    failed: float
    reasons: dict[str, float]


class AlertmanagerClient(HttpClient):
    """Read Alertmanager. Only reads; every method raises a ``ClientError`` when it cannot."""

    SYSTEM = "alertmanager"
    HEALTH = "/-/healthy"

    def list_alerts(self) -> list[RoutedAlert]:
        """Return the alerts, silenced and inhibited ones too."""
        return self.get("/api/v2/alerts", list[RoutedAlert])

    def read_notification_counts(self) -> list[NotificationCount]:
        """Return how many notifications each integration sent and failed to send."""
        sent: defaultdict[tuple[str, str], float] = defaultdict(float)
        reasons: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for sample in self.read_metrics():
            key = sample.labels.get("integration", ""), sample.labels.get("receiver_name", "")
            if sample.name == "alertmanager_notifications_total":
                sent[key] += sample.value
            elif sample.name == "alertmanager_notifications_failed_total":
                reason = sample.labels.get("reason", "other")
                reasons[key][reason] = reasons[key].get(reason, 0.0) + sample.value
        return [
            NotificationCount(*key, sent[key], sum(failed.values()), failed)
            for key in sorted({*sent, *reasons})
            for failed in [{reason: n for reason, n in reasons[key].items() if n}]
        ]

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

    def read_group_timing(self, receiver: str = "") -> tuple[float, float, float]:
        """Return ``(group_wait_s, group_interval_s, repeat_interval_s)``.

        Parameters
        ----------
        receiver : of the first route that leads there; empty, or no such route: of the top route
        """
        with self.parsing(_STATUS):
            route = self._read_config()["route"]
            timings = dict(reversed(list(_timings(route, _DEFAULT_TIMING))))
            timing = timings.get(receiver) or {**_DEFAULT_TIMING, **_own_timing(route)}
            wait, interval, repeat = (parse_duration(timing[name]) for name in _DEFAULT_TIMING)
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


def _own_timing(route: dict[str, Json]) -> dict[str, str]:
    return {name: str(route[name]) for name in _DEFAULT_TIMING if name in route}


def _timings(
    route: dict[str, Json], inherited: dict[str, str], receiver: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each route's receiver and timing, parents before children."""
    timing = {**inherited, **_own_timing(route)}
    receiver = str(route.get("receiver", receiver))
    yield receiver, timing
    for child in route.get("routes") or ():
        yield from _timings(child, timing, receiver)
