"""The HTTP systems around the labels: one client each, with typed answers.

Prometheus (samples, rules, alerts, targets), Alertmanager (routes, deliveries), Grafana (a panel's
queries), fulfillment-service (worker, shipments), the pipeline (Airflow 3's REST API), support
(tickets and their timelines), the synthetic probe, and what the alert receivers got.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, dataclass_transform
from urllib.parse import quote

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field, StrictBool, with_config

from runbook_lib.errors import NotFoundError
from runbook_lib.http import (
    CAMEL,
    Answer,
    At,
    Duration,
    HttpClient,
    Labels,
    T,
    Text,
    When,
    check_ticket_id,
    fill,
)
from runbook_lib.model import Json, format_time

from ..analysis.samples import Sample
from .services import try_time


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _camel(shape: type[T]) -> type[T]:
    """Make a class a frozen dataclass, for an answer whose field names are written likeThis."""
    make_dataclass = dataclass(frozen=True, slots=True)
    read_camel_names = with_config(CAMEL)
    return read_camel_names(make_dataclass(shape))


class _SystemClient(HttpClient):
    """A client of a system that is known by an answer that no other system gives.

    Attributes
    ----------
    PROOF : path of that answer, and the field that it must have
    """

    PROOF: ClassVar[tuple[str, str]]

    def check_reachable(self) -> str:
        """Return the field as text; ``WrongSystemError`` when another system answers."""
        path, part = self.PROOF
        value = self.identify(path, object, part=part)
        return value if isinstance(value, str) else f"gives its {part}"


def _to_samples(value: list[Json]) -> list[Json]:
    """Return a list of samples as it is; put a single sample into a list.

    A sample is a list, too: time and value. An instant query answers with a single sample.
    """
    is_range = isinstance(value[0], list)
    return value if is_range else [value]


@dataclass(frozen=True, slots=True)
class Series:
    """Samples with one set of labels, oldest first."""

    labels: Annotated[dict[str, str], Field(validation_alias="metric")]
    samples: Annotated[
        tuple[Sample, ...],
        BeforeValidator(_to_samples),
        Field(validation_alias=AliasChoices("values", "value")),
    ]


@_camel
class AlertRule:
    """An alerting rule as Prometheus has loaded it.

    ``state`` is inactive, pending, firing or unknown. ``health`` is ``ok``, ``err`` or unknown.
    ``group_interval_s`` says how often the rule is evaluated.
    """

    name: str
    query: str
    for_s: Annotated[float, Field(validation_alias="duration")] = 0
    keep_firing_for_s: Annotated[float, Field(validation_alias="keepFiringFor")] = 0
    labels: Labels = field(default_factory=dict)
    state: str = "unknown"
    health: str = "unknown"
    group_interval_s: float = 0


@_camel
class Alert:
    """An alert that is pending or firing, as ``state`` says."""

    name: Annotated[str, Field(validation_alias=AliasPath("labels", "alertname"))]
    labels: dict[str, str]
    state: str
    active_at: When = None
    value: float = math.nan


@_camel
class Target:
    """What Prometheus scrapes, and how often."""

    job: Annotated[str, Field(validation_alias=AliasPath("labels", "job"))]
    scrape_interval_s: Annotated[Duration, Field(validation_alias="scrapeInterval")]


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of rules; ``interval`` is how often they are evaluated, in seconds."""

    interval: float
    rules: list[AlertRule]


class PrometheusClient(_SystemClient):
    """Read Prometheus. Only reads; every method raises a ``ClientError`` when it cannot."""

    SYSTEM = "prometheus"
    HEALTH = "/-/healthy"
    PROOF = ("/api/v1/status/buildinfo", "data.version")

    def query(self, promql: str) -> list[Series]:
        """Return the value of an expression now: one sample per series.

        If the expression is a range selector, each series has every sample of the range.
        """
        return self._query("/api/v1/query", {"query": promql})

    def query_samples(self, selector: str, window_s: float) -> list[Series]:
        """Return the raw scrapes of a selector in the last ``window_s`` seconds, with their times.

        A range query would give evaluated values at even times instead.
        """
        return self.query(f"{selector}[{max(1, round(window_s * 1000))}ms]")

    def query_range(
        self,
        promql: str,
        start: datetime,
        end: datetime,
        step_s: float,
    ) -> list[Series]:
        """Return an expression's values from ``start`` to ``end`` every ``step_s`` seconds."""
        params = {
            "query": promql,
            "start": format_time(start),
            "end": format_time(end),
            "step": f"{step_s:g}",
        }
        return self._query("/api/v1/query_range", params)

    def list_rules(self) -> list[AlertRule]:
        """Return the alerting rules."""
        rules: list[AlertRule] = []
        params = {"type": "alert"}
        for group in self.get("/api/v1/rules", list[_Group], params, "data.groups"):
            rules += [replace(rule, group_interval_s=group.interval) for rule in group.rules]
        return rules

    def list_alerts(self) -> list[Alert]:
        """Return the alerts that are pending or firing."""
        return self.get("/api/v1/alerts", list[Alert], part="data.alerts")

    def list_targets(self) -> list[Target]:
        """Return the targets that are scraped."""
        params = {"state": "active"}
        return self.get("/api/v1/targets", list[Target], params, "data.activeTargets")

    def _query(self, path: str, params: Mapping[str, str]) -> list[Series]:
        """Return the answer to a query as series. A scalar is a series without labels."""
        data = self.get(path, dict[str, Json], params, "data")
        with self.parsing(path):
            rows = data["result"]
            if data["resultType"] == "scalar":
                rows = [{"metric": {}, "value": rows}]
        return self.read_as(path, rows, list[Series])


_STATUS = "/api/v2/status"
#: A line of a configuration whose value is a placeholder. Demo mail addresses may be at
#: example.com; what matters is the server that takes the mail.
_PLACEHOLDER = re.compile(r"^[ -]*(\w+: .*(?:REPLACE|CHANGE_?ME|smtp\.example\.).*)", re.M | re.I)


def _list_names(receivers: list[dict[str, Json]]) -> list[Json]:
    return [receiver["name"] for receiver in receivers]


_Names = Annotated[tuple[str, ...], BeforeValidator(_list_names)]
_Ids = Annotated[tuple[str, ...], fill(())]


@_camel
class RoutedAlert:
    """An alert that Alertmanager holds. ``state`` is active, suppressed or unprocessed."""

    labels: dict[str, str]
    starts_at: At
    receivers: _Names
    state: str
    silenced_by: _Ids
    inhibited_by: _Ids
    muted_by: _Ids = ()


def _flatten_status(alert: dict[str, Json]) -> dict[str, Json]:
    """Put the fields of an alert's status beside the alert's own."""
    return {**alert, **alert["status"]}


_FlatAlert = Annotated[RoutedAlert, BeforeValidator(_flatten_status)]


class AlertmanagerClient(_SystemClient):
    """Read Alertmanager. Only reads; every method raises a ``ClientError`` when it cannot."""

    SYSTEM = "alertmanager"
    HEALTH = "/-/healthy"
    PROOF = (_STATUS, "versionInfo.version")

    def list_alerts(self) -> list[RoutedAlert]:
        """Return the alerts, silenced and inhibited ones too."""
        return self.get("/api/v2/alerts", list[_FlatAlert])

    def read_placeholders(self) -> list[str]:
        """Return the lines of the running configuration that still hold a placeholder.

        Such as ``smtp_smarthost: smtp.example.com:587``. Alertmanager hides secret values (webhook
        URLs among them), so a placeholder in those cannot be seen.
        """
        config = self.get(_STATUS, str, part="config.original")
        return _PLACEHOLDER.findall(config)


def _list_queries(targets: list[dict[str, Json]]) -> list[Json]:
    """Return the queries of a panel's targets, without empty ones."""
    return [target["expr"] for target in targets if target.get("expr")]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard and its queries. A row is a panel, too, and may hold others."""

    title: Text = ""
    expressions: Annotated[
        tuple[str, ...],
        Field(validation_alias="targets"),
        BeforeValidator(_list_queries),
    ] = ()
    link: str = ""
    id: int = 0
    panels: tuple[Panel, ...] = ()


class GrafanaClient(_SystemClient):
    """Read Grafana. Only reads."""

    SYSTEM = "grafana"
    HEALTH = "/api/health"
    PROOF = (HEALTH, "database")

    def find_panel(self, dashboard_uid: str, title: str) -> Panel:
        """Return a dashboard's panel by its title; upper and lower case do not matter.

        Raises
        ------
        NotFoundError
            When there is no such dashboard, or it has no such panel.
        """
        path = f"/api/dashboards/uid/{dashboard_uid}"
        answer = self.get(path, dict[str, Json])
        panels = self.read_as(path, answer, list[Panel], "dashboard.panels")
        link = self.read_as(path, answer, str, "meta.url")
        for row in panels:
            panels = [*panels, *row.panels]  # those of a folded row
        for panel in panels:
            if panel.title.strip().casefold() == title.casefold():
                return replace(panel, link=f"{self.url}{link}?viewPanel={panel.id}")
        text = f"dashboard {dashboard_uid} has no panel {title!r}; addons/grafana brings it"
        raise NotFoundError(text, system=self.SYSTEM)


_WORKER = "/fulfillment/worker"
_SHIPMENTS = "/fulfillment/shipments"


@_camel
class WorkerState:
    """What the worker says of itself; ``raw`` is the whole answer.

    ``paused_at`` and ``paused_by`` are about the present pause, where the service tells them.
    """

    paused: StrictBool
    moving: StrictBool
    last_run_at: When = None
    last_move_at: When = None
    last_error: Text = ""
    pending_prefix: str = ""
    ready_prefix: str = ""
    bucket: str = ""
    raw: dict[str, Json] = field(default_factory=dict)
    paused_at: When = None
    paused_by: Text = ""


_Time = Annotated[datetime | None, BeforeValidator(try_time)]


@_camel
class Shipment:
    """A shipment of an order. A time is None when the service does not give it.

    Attributes
    ----------
    tasks : what is done for the shipment; a label that exists has its ``key`` there
    """

    order_id: str
    status: Text = ""
    tracking_number: Text = ""
    created_at: _Time = None
    updated_at: _Time = None
    tasks: Annotated[list[dict[str, Json]], fill([])] = field(default_factory=list)


class FulfillmentClient(_SystemClient):
    """Read and steer the label worker; read shipments."""

    SYSTEM = "fulfillment"
    PROOF = (f"{_SHIPMENTS}?orderId=1&limit=1", "items")

    def read_worker(self) -> WorkerState:
        """Return the worker's state; ``NotFoundError`` where the service has no such API."""
        answer = self.get(_WORKER, dict[str, Json])
        return self.read_as(_WORKER, _keep_raw(answer), WorkerState)

    def trigger_worker(self) -> None:
        """Make the worker run one pass now. Moves labels; there is no way back."""
        self.post(f"{_WORKER}/run", object)

    def pause_worker(self) -> None:
        """Pause the worker; undone by ``resume_worker``."""
        self.post(f"{_WORKER}/pause", object)

    def resume_worker(self) -> None:
        """Resume the worker; undone by ``pause_worker``."""
        self.post(f"{_WORKER}/resume", object)

    def list_shipments(self, order_id: int | None = None, limit: int = 100) -> list[Shipment]:
        """Return an order's shipments, else the newest."""
        params = {"orderId": order_id, "limit": limit}
        return self.get(_SHIPMENTS, list[Shipment], params, "items")


_LOGIN = "/auth/token"


@dataclass(frozen=True, slots=True)
class Dag:
    """The pipeline's DAG. ``is_stale``: its file is gone, so Airflow schedules no run."""

    id: Annotated[str, Field(validation_alias="dag_id")]
    is_paused: StrictBool
    has_import_errors: StrictBool = False
    is_stale: StrictBool = False


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run. ``state`` is queued, running, success or failed."""

    id: Annotated[str, Field(validation_alias="dag_run_id")]
    state: str
    started_at: Annotated[When, Field(validation_alias="start_date")] = None
    ended_at: Annotated[When, Field(validation_alias="end_date")] = None


@dataclass(frozen=True, slots=True)
class DagChange:
    """An entry of Airflow's event log: somebody changed the DAG.

    ``extra`` is the change as JSON text, such as ``{"is_paused": true}``.
    """

    at: Annotated[At, Field(validation_alias="when")]
    by: Annotated[Text, Field(validation_alias="owner")] = ""
    extra: Text = ""

    @property
    def is_pause(self) -> bool:
        """Whether the change paused the DAG."""
        try:
            content = json.loads(self.extra)
        except ValueError:
            return False
        return isinstance(content, dict) and content.get("is_paused") is True


class PipelineClient(_SystemClient):
    """Read and pause one DAG.

    Parameters
    ----------
    dag_id : the DAG
    options : as ``HttpClient`` takes them. User and password of ``auth`` are for a login

    Notes
    -----
    Airflow 3 takes tokens, not passwords: the client gets one for each request. A server without a
    login gets user and password by basic authentication.
    """

    SYSTEM = "pipeline"
    HEALTH = "/api/v2/monitor/health"
    PROOF = (HEALTH, "metadatabase")

    def __init__(self, url: str, *, dag_id: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._dag_id = dag_id
        self._path = f"/api/v2/dags/{quote(dag_id, safe='')}"

    def check_reachable(self) -> str:
        """Return the DAG's name; ``WrongSystemError`` when the server is another system."""
        super().check_reachable()
        return f"DAG {self.read_dag().id}"

    def read_dag(self) -> Dag:
        """Return the DAG's state."""
        return self.get(self._path, Dag)

    def list_runs(self, limit: int = 10) -> list[DagRun]:
        """Return the last runs, newest first."""
        path = f"{self._path}/dagRuns"
        query = {"order_by": "-start_date", "limit": limit}
        return self.get(path, list[DagRun], query, "dag_runs")

    def find_last_pause(self) -> DagChange | None:
        """Return who paused the DAG last, and when; None when none of its last 20 changes did."""
        query = {"dag_id": self._dag_id, "event": "patch_dag", "order_by": "-when", "limit": 20}
        changes = self.get("/api/v2/eventLogs", list[DagChange], query, "event_logs")
        for change in changes:
            if change.is_pause:
                return change
        return None

    def set_paused(self, paused: bool) -> Dag:
        """Pause or unpause the DAG. Changes the pipeline; the opposite undoes it."""
        return self.post(self._path, Dag, {"is_paused": paused}, "PATCH")

    def _ask(self, method: str, path: str, **content: Any) -> Answer:
        """Send a request with a new token, if there is a login."""
        if self._login:
            try:
                answer = super()._ask("POST", _LOGIN, json=self._login)
            except NotFoundError:
                self._login = {}
            else:
                token = self.read_as(_LOGIN, answer.body, str, "access_token")
                self._session.headers["Authorization"] = f"Bearer {token}"
        return super()._ask(method, path, **content)


_CASES = "/support/cases"
_NO_CASE = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class _NoCase:
    """What support answers about an unknown ticket. Another system's 404 does not match."""

    detail: Annotated[str, Field(pattern=r"(?i)\bticket\b")]


def _list_orders(context: list[dict[str, Json]]) -> list[Json]:
    """Return the order ids in a ticket's context, each once."""
    orders = [item.get("orderId") for item in context if item.get("type") == "order"]
    return [order for order in dict.fromkeys(orders) if order is not None]


_OrderIds = Annotated[tuple[int, ...], BeforeValidator(_list_orders)]


@_camel
class TimelineEntry:
    """One event of a ticket. ``at`` is None when its time cannot be read; ``raw`` is all fields."""

    type: str = ""
    at: Annotated[_Time, Field(validation_alias="timestamp")] = None
    source: str = ""
    status: Text = ""
    order_id: str | None = None
    raw: dict[str, Json] = field(default_factory=dict)


def _keep_raw(entry: dict[str, Json]) -> dict[str, Json]:
    """Add the whole entry to its own fields, as ``raw``."""
    return {**entry, "raw": entry}


_Entry = Annotated[TimelineEntry, BeforeValidator(_keep_raw)]


@_camel
class Case:
    """A ticket. Its timeline is empty in answers that do not include it."""

    id: Annotated[str, Field(validation_alias=AliasChoices("id", "ticketId"))]
    status: str = ""
    order_ids: Annotated[_OrderIds, Field(validation_alias="context")] = ()
    timeline: tuple[_Entry, ...] = ()


class SupportClient(HttpClient):
    """Read and change tickets."""

    SYSTEM = "support"

    def read_case(self, ticket_id: str) -> Case:
        """Return a ticket; raises ``NotFoundError`` when there is none with this id."""
        params = {"includeTimeline": "true"}
        return self.get(self._path(ticket_id), Case, params)

    def check_reachable(self) -> str:
        """Say that the service knows tickets; ``WrongSystemError`` when it is another system."""
        self.identify(f"{_CASES}/{_NO_CASE}", _NoCase, status=404)
        return "knows tickets"

    def refresh_timeline(self, ticket_id: str) -> Case:
        """Make the service drop its cached timeline and collect it again. There is no way back."""
        path = self._path(ticket_id)
        return self.post(f"{path}/timeline/refresh", Case)

    def _path(self, ticket_id: str) -> str:
        """Return a ticket's path; refuse what is no ticket id, since it could name another path."""
        checked = check_ticket_id(ticket_id)
        return f"{_CASES}/{checked}"


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step of the probe's run, such as ``timeline_refresh``."""

    name: Annotated[str, Field(validation_alias=AliasChoices("step", "name"))]
    status: str
    message: Text = ""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """How the probe's last run ended; ``ran_at`` is None before the first run."""

    status: str
    steps: tuple[ProbeStep, ...]
    ran_at: When = None


class ProbeClient(_SystemClient):
    """Read the synthetic probe's results. Only reads: it starts no run."""

    SYSTEM = "probe"
    PROOF = ("/status", "status")

    def read_status(self) -> ProbeStatus:
        """Return how the last run went, step by step."""
        return self.get("/status", ProbeStatus)


@_camel
class Notification:
    """One notification as it arrived at a receiver.

    ``channel`` is slack, email or teams; ``status`` is firing or resolved.
    """

    channel: str
    received_at: At
    status: str
    alertnames: tuple[str, ...]
    is_drill: Annotated[StrictBool, Field(validation_alias="drill")] = False


class NotificationsClient(_SystemClient):
    """Read which notifications arrived at the alert receivers. Only reads."""

    SYSTEM = "notifications"
    PROOF = ("/notifications?since=2100-01-01T00:00:00Z", "items")

    def list_notifications(self, since: datetime) -> list[Notification]:
        """Return the notifications that arrived since a time, oldest first."""
        query = {"since": format_time(since)}
        notifications = self.get("/notifications", list[Notification], query, "items")
        return sorted(notifications, key=lambda item: item.received_at)
