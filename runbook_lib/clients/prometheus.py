"""Ask Prometheus: samples, rules, alerts, targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ..model import Json, format_time
from .fields import as_list, parse_duration, parse_when
from .http import HttpSystem

__all__ = ["Alert", "AlertRule", "PrometheusClient", "Sample", "Series", "Target"]

_API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; it may be NaN or infinite, as Prometheus has it."""

    at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """Samples with one set of labels, oldest first."""

    labels: dict[str, str]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alerting rule as it is loaded. ``state`` is inactive, pending, firing or unknown."""

    name: str
    query: str
    for_s: float
    keep_firing_for_s: float
    labels: dict[str, str]
    state: str
    health: str
    group_interval_s: float
    last_evaluation: datetime | None


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    active_at: datetime | None
    value: float


@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus scrapes. ``health`` is up, down or unknown."""

    job: str
    instance: str
    health: str
    last_scrape: datetime | None
    last_error: str
    scrape_interval_s: float
    url: str


class PrometheusClient(HttpSystem):
    """Read Prometheus. Only reads; every method raises a ``ClientError`` when it cannot.

    Parameters
    ----------
    url : its address
    timeout_s : limit for each question
    """

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
        return self._query(
            "/query_range",
            {
                "query": promql,
                "start": format_time(start),
                "end": format_time(end),
                "step": f"{step_s:g}",
            },
        )

    def list_rules(self) -> list[AlertRule]:
        """Return the alerting rules."""
        path = "/rules"
        data = self._data(path, {"type": "alert"})
        with self.http.parsing(_API + path):
            return [
                AlertRule(
                    name=str(rule["name"]),
                    query=str(rule["query"]),
                    for_s=float(rule.get("duration", 0)),
                    keep_firing_for_s=float(rule.get("keepFiringFor", 0)),
                    labels=dict(rule.get("labels") or {}),
                    state=str(rule.get("state", "unknown")),
                    health=str(rule.get("health", "unknown")),
                    group_interval_s=float(group["interval"]),
                    last_evaluation=parse_when(rule.get("lastEvaluation")),
                )
                for group in as_list(data["groups"])
                for rule in as_list(group["rules"])
                if rule.get("type", "alerting") == "alerting"
            ]

    def list_alerts(self) -> list[Alert]:
        """Return the alerts that are pending or firing."""
        path = "/alerts"
        data = self._data(path)
        with self.http.parsing(_API + path):
            return [
                Alert(
                    name=str(alert["labels"].get("alertname", "")),
                    labels=dict(alert["labels"]),
                    annotations=dict(alert.get("annotations") or {}),
                    state=str(alert["state"]),
                    active_at=parse_when(alert.get("activeAt")),
                    value=float(alert.get("value", "NaN")),
                )
                for alert in as_list(data["alerts"])
            ]

    def list_targets(self) -> list[Target]:
        """Return the targets that are scraped."""
        path = "/targets"
        data = self._data(path, {"state": "active"})
        with self.http.parsing(_API + path):
            return [_target(target) for target in as_list(data["activeTargets"])]

    def read_version(self) -> str:
        """Return the version of the server."""
        data = self._data("/status/buildinfo")
        with self.http.parsing(f"{_API}/status/buildinfo"):
            return str(data["version"])

    def _query(self, path: str, params: Mapping[str, Any]) -> list[Series]:
        data = self._data(path, params)
        with self.http.parsing(_API + path):
            kind, result = data["resultType"], data["result"]
            if kind == "scalar":
                return [Series({}, (_sample(result),))]
            if kind not in ("vector", "matrix"):
                raise ValueError(f"a result of type {kind}")
            return [
                Series(dict(row["metric"]), tuple(map(_sample, _pairs(row))))
                for row in as_list(result)
                if "histogram" not in row and "histograms" not in row  # native ones: no value
            ]

    def _data(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        answer = self.http.get_json(_API + path, params)
        with self.http.parsing(_API + path):
            if answer["status"] != "success":
                raise ValueError(str(answer.get("error", answer["status"])))
            return answer["data"]


def _pairs(row: dict[str, Json]) -> list[Json]:
    return row["values"] if "values" in row else [row["value"]]


def _sample(pair: Json) -> Sample:
    at, value = pair
    return Sample(datetime.fromtimestamp(float(at), UTC), float(value))


def _target(target: dict[str, Json]) -> Target:
    labels = target["labels"]
    url = urlsplit(str(target.get("scrapeUrl", "")))
    return Target(
        job=str(labels.get("job", "")),
        instance=str(labels.get("instance", "")),
        health=str(target["health"]),
        last_scrape=parse_when(target.get("lastScrape")),
        last_error=str(target.get("lastError", "")),
        scrape_interval_s=parse_duration(str(target["scrapeInterval"])),
        url=url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl(),
    )
