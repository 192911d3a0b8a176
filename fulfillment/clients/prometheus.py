"""Ask Prometheus: samples, rules, alerts, targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field, with_config

from runbook_lib.fields import CAMEL, Duration, Labels, Text, When
from runbook_lib.http import HttpClient, T
from runbook_lib.model import Json, Timestamp, format_time

_API = "/api/v1"


class Sample(NamedTuple):
    """One value; it may be NaN or infinite, as Prometheus has it."""

    at: Timestamp
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """Samples with one set of labels, oldest first."""

    labels: Annotated[dict[str, str], Field(validation_alias="metric")]
    samples: Annotated[
        tuple[Sample, ...],
        BeforeValidator(lambda found: found if isinstance(found[0], list) else [found]),
        Field(validation_alias=AliasChoices("values", "value")),
    ]


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alerting rule as it is loaded. ``state`` is inactive, pending, firing or unknown."""

    name: str
    query: str
    for_s: Annotated[float, Field(validation_alias="duration")] = 0
    keep_firing_for_s: Annotated[float, Field(validation_alias="keepFiringFor")] = 0
    labels: Labels = field(default_factory=dict)
    state: str = "unknown"
    health: str = "unknown"
    group_interval_s: float = 0


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing."""

    name: Annotated[str, Field(validation_alias=AliasPath("labels", "alertname"))]
    labels: dict[str, str]
    state: str
    active_at: When = None
    value: float = math.nan


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus scrapes, and how often."""

    job: Annotated[str, Field(validation_alias=AliasPath("labels", "job"))]
    scrape_interval_s: Annotated[Duration, Field(validation_alias="scrapeInterval")]


@dataclass(frozen=True, slots=True)
class _Envelope:
    status: str
    data: Json = None
    error: Text = ""


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class _Result:
    result_type: Literal["vector", "matrix", "scalar"]
    result: list[Any]


@dataclass(frozen=True, slots=True)
class _Group:
    interval: float
    rules: list[dict[str, Json]]


class PrometheusClient(HttpClient):
    """Read Prometheus. Only reads; every method raises a ``ClientError`` when it cannot."""

    SYSTEM = "prometheus"
    HEALTH = "/-/healthy"

    def query(self, promql: str, at: datetime | None = None) -> list[Series]:
        """Return the value of an expression now, or at a time: one sample per series."""
        return self._query("/query", {"query": promql, **({"time": format_time(at)} if at else {})})

    def query_samples(self, selector: str, window_s: float) -> list[Series]:
        """Return the raw scrapes of a selector in the last seconds, with their own times."""
        return self.query(f"{selector}[{max(1, round(window_s * 1000))}ms]")

    def query_range(
        self, promql: str, start: datetime, end: datetime, step_s: float
    ) -> list[Series]:
        """Return an expression's values from ``start`` to ``end`` every ``step_s`` seconds."""
        times = {"start": format_time(start), "end": format_time(end), "step": f"{step_s:g}"}
        return self._query("/query_range", {"query": promql, **times})

    def list_rules(self) -> list[AlertRule]:
        """Return the alerting rules."""
        path = "/rules"
        return [
            replace(self.read_as(path, rule, AlertRule), group_interval_s=group.interval)
            for group in self._read(path, list[_Group], {"type": "alert"}, "groups")
            for rule in group.rules
            if rule.get("type", "alerting") == "alerting"
        ]

    def list_alerts(self) -> list[Alert]:
        """Return the alerts that are pending or firing."""
        return self._read("/alerts", list[Alert], part="alerts")

    def list_targets(self) -> list[Target]:
        """Return the targets that are scraped."""
        return self._read("/targets", list[Target], {"state": "active"}, "activeTargets")

    def check_reachable(self) -> str:
        """Return the version of the server."""
        return self._read("/status/buildinfo", str, part="version")

    def _query(self, path: str, params: Mapping[str, Any]) -> list[Series]:
        found = self._read(path, _Result, params)
        rows = [{"metric": {}, "value": found.result}]
        if found.result_type != "scalar":
            # Native histograms have no value.
            rows = [r for r in found.result if not {"histogram", "histograms"} & set(r)]
        return self.read_as(path, rows, list[Series])

    def _read(
        self, path: str, shape: type[T], params: Mapping[str, Any] | None = None, part: str = ""
    ) -> T:
        path = f"{_API}{path}"
        answer = self.get(path, _Envelope, params)
        if answer.status != "success":
            raise self.bad(path, f"answered {answer.error or answer.status}")
        return self.read_as(path, answer.data, shape, part)
