"""One client with typed answers for each HTTP system.

Every method raises a ``ClientError`` if its system fails or can't be reached. Methods named
``read_``, ``list_``, ``query`` and ``find_`` only read.
"""

from __future__ import annotations

import json
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
    HttpClient,
    Labels,
    T,
    Text,
    When,
    check_ticket_id,
    fill,
    parse_duration,
)
from runbook_lib.model import Json, format_time

from ..analysis.samples import Sample
from .services import try_time


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _camel(shape: type[T]) -> type[T]:
    """Make a class a frozen dataclass for an answer whose fields are named likeThis."""
    make_dataclass = dataclass(frozen=True, slots=True)
    read_camel_names = with_config(CAMEL)
    return read_camel_names(make_dataclass(shape))


class _SystemClient(HttpClient):
    """A client that recognizes its system by an answer that no other system gives."""

    PROOF: ClassVar[tuple[str, str]]
    """The URL path to ask, and the field that only this system's answer has."""

    def check_reachable(self) -> None:
        """Raise ``WrongSystemError`` if another system answers."""
        path, part = self.PROOF
        self.identify(path, object, field=part)


def _to_samples(value: list[Json]) -> list[Json]:
    """Put an instant query's one sample, which is a list of time and value, into a list."""
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


_CLEAR_MARGIN_S = 10.0


@_camel
class AlertRule:
    name: str
    query: str
    for_s: Annotated[float, Field(validation_alias="duration")] = 0
    keep_firing_for_s: Annotated[float, Field(validation_alias="keepFiringFor")] = 0
    labels: Labels = field(default_factory=dict)
    health: str = "unknown"  # or ok, err
    group_interval_s: float = 0  # between evaluations

    @property
    def observe_s(self) -> float:
        """How long Prometheus may need to see that a fault begins or ends.

        It needs a refresh of the exporter, a scrape and some evaluations, which usually have the
        same interval.
        """
        return 4 * self.group_interval_s

    @property
    def clear_s(self) -> float:
        """How long the alert may last when its fault is gone.

        That is ``keep_firing_for``, the look-back of ``increase`` if the rule has one, the time
        until Prometheus sees the end, and a margin.
        """
        window = re.search(r"\bincrease\([^\[]*\[([0-9a-z]+)\]", self.query)
        look_back_s = parse_duration(window[1]) if window else 0.0
        return self.keep_firing_for_s + look_back_s + self.observe_s + _CLEAR_MARGIN_S


@_camel
class Alert:
    name: Annotated[str, Field(validation_alias=AliasPath("labels", "alertname"))]
    labels: dict[str, str]
    state: str  # pending or firing
    active_at: When = None


@dataclass(frozen=True, slots=True)
class _Group:
    interval: float  # between evaluations, in seconds
    rules: list[AlertRule]


class PrometheusClient(_SystemClient):
    SYSTEM = "prometheus"
    HEALTH = "/-/healthy"
    PROOF = ("/api/v1/query?query=1", "data.resultType")

    def query(self, promql: str) -> list[Series]:
        """Return an expression's current value: one sample per series.

        A range selector instead gives every sample of its range.
        """
        return self._query("/api/v1/query", {"query": promql})

    def query_samples(self, selector: str, window_s: float) -> list[Series]:
        """Return a selector's scrapes of the last ``window_s`` seconds, with their true times."""
        return self.query(f"{selector}[{max(1, round(window_s * 1000))}ms]")

    def query_range(
        self, promql: str, start: datetime, end: datetime, step_s: float
    ) -> list[Series]:
        """Return an expression's values every ``step_s`` seconds."""
        params = {
            "query": promql,
            "start": format_time(start),
            "end": format_time(end),
            "step": f"{step_s:g}",
        }
        return self._query("/api/v1/query_range", params)

    def list_rules(self) -> list[AlertRule]:
        rules: list[AlertRule] = []
        params = {"type": "alert"}
        for group in self.get("/api/v1/rules", list[_Group], params, "data.groups"):
            rules += [replace(rule, group_interval_s=group.interval) for rule in group.rules]
        return rules

    def list_alerts(self) -> list[Alert]:
        return self.get("/api/v1/alerts", list[Alert], field="data.alerts")

    def _query(self, path: str, params: Mapping[str, str]) -> list[Series]:
        data = self.get(path, dict[str, Json], params, "data")
        with self.parsing(path):
            rows = data["result"]
            if data["resultType"] == "scalar":  # becomes a series without labels
                rows = [{"metric": {}, "value": rows}]
        return self.read_as(path, rows, list[Series])


_STATUS = "/api/v2/status"
#: A configuration line whose value is a placeholder. Mail addresses at example.com are fine in a
#: demo, but not the mail server.
_PLACEHOLDER = re.compile(r"^[ -]*(\w+: .*(?:REPLACE|CHANGE_?ME|smtp\.example\.).*)", re.M | re.I)


def _list_names(receivers: list[dict[str, Json]]) -> list[Json]:
    return [receiver["name"] for receiver in receivers]


def _list_mutes(status: dict[str, Json]) -> list[Json]:
    """Return what silences, inhibits or mutes an alert."""
    mutes: list[Json] = []
    for name in ("silencedBy", "inhibitedBy", "mutedBy"):
        mutes += status.get(name) or ()
    return mutes


@_camel
class RoutedAlert:
    """An alert in Alertmanager."""

    labels: dict[str, str]
    starts_at: At
    receivers: Annotated[tuple[str, ...], BeforeValidator(_list_names)]
    muted_by: Annotated[
        tuple[str, ...], Field(validation_alias="status"), BeforeValidator(_list_mutes)
    ] = ()


class AlertmanagerClient(_SystemClient):
    SYSTEM = "alertmanager"
    HEALTH = "/-/healthy"
    PROOF = (_STATUS, "versionInfo.version")

    def list_alerts(self) -> list[RoutedAlert]:
        """Return the alerts, including silenced and inhibited ones."""
        return self.get("/api/v2/alerts", list[RoutedAlert])

    def read_placeholders(self) -> list[str]:
        """Return the configuration's lines that hold a placeholder.

        For example, ``smtp_smarthost: smtp.example.com:587``. Webhook URLs and secrets can't be
        checked, because Alertmanager hides them.
        """
        config = self.get(_STATUS, str, field="config.original")
        return _PLACEHOLDER.findall(config)


def _list_queries(targets: list[dict[str, Json]]) -> list[Json]:
    return [target["expr"] for target in targets if target.get("expr")]


@dataclass(frozen=True, slots=True)
class Panel:
    """A dashboard's panel and its queries. A row is a panel, too, with ``panels`` of its own."""

    title: Text = ""
    expressions: Annotated[
        tuple[str, ...], Field(validation_alias="targets"), BeforeValidator(_list_queries)
    ] = ()
    link: str = ""
    id: int = 0
    panels: tuple[Panel, ...] = ()


class GrafanaClient(_SystemClient):
    SYSTEM = "grafana"
    HEALTH = "/api/health"
    PROOF = (HEALTH, "database")

    def find_panel(self, dashboard_uid: str, title: str) -> Panel:
        """Return the panel with this title in any case, or raise ``NotFoundError``."""
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
    """The worker's state; ``raw`` is the whole answer."""

    paused: StrictBool
    moving: StrictBool
    last_run_at: When = None
    last_move_at: When = None
    last_error: Text = ""
    pending_prefix: str = ""
    ready_prefix: str = ""
    bucket: str = ""
    raw: dict[str, Json] = field(default_factory=dict)
    paused_at: When = None  # not every service tells this
    paused_by: Text = ""


_Time = Annotated[datetime | None, BeforeValidator(try_time)]


@_camel
class Shipment:
    order_id: str
    status: Text = ""
    tracking_number: Text = ""
    created_at: _Time = None
    updated_at: _Time = None
    #: If a label exists, one of these has its ``key``.
    tasks: Annotated[list[dict[str, Json]], fill([])] = field(default_factory=list)


class FulfillmentClient(_SystemClient):
    SYSTEM = "fulfillment"
    PROOF = (f"{_SHIPMENTS}?orderId=1&limit=1", "items")

    def read_worker(self) -> WorkerState:
        """Return the worker's state; raise ``NotFoundError`` if the service has no such API."""
        answer = self.get(_WORKER, dict[str, Json])
        return self.read_as(_WORKER, _keep_raw(answer), WorkerState)

    def trigger_worker(self) -> None:
        """Make the worker run one pass now, which moves labels and can't be undone."""
        self.post(f"{_WORKER}/run", object)

    def pause_worker(self) -> None:
        """Pause the worker; undone by ``resume_worker``."""
        self.post(f"{_WORKER}/pause", object)

    def resume_worker(self) -> None:
        """Resume the worker; undone by ``pause_worker``."""
        self.post(f"{_WORKER}/resume", object)

    def list_shipments(self, order_id: int | None = None, limit: int = 100) -> list[Shipment]:
        """Return an order's shipments, or the newest of all."""
        params = {"orderId": order_id, "limit": limit}
        return self.get(_SHIPMENTS, list[Shipment], params, "items")


_LOGIN = "/auth/token"


@dataclass(frozen=True, slots=True)
class Dag:
    id: Annotated[str, Field(validation_alias="dag_id")]
    is_paused: StrictBool
    has_import_errors: StrictBool = False
    is_stale: StrictBool = False  # its file is gone, so Airflow schedules no run


@dataclass(frozen=True, slots=True)
class DagRun:
    id: Annotated[str, Field(validation_alias="dag_run_id")]
    state: str  # queued, running, success or failed
    started_at: Annotated[When, Field(validation_alias="start_date")] = None
    ended_at: Annotated[When, Field(validation_alias="end_date")] = None


@dataclass(frozen=True, slots=True)
class DagChange:
    """A change of the DAG, by Airflow's event log."""

    at: Annotated[At, Field(validation_alias="when")]
    by: Annotated[Text, Field(validation_alias="owner")] = ""
    extra: Text = ""  # JSON, such as {"is_paused": true}

    @property
    def is_pause(self) -> bool:
        try:
            content = json.loads(self.extra)
        except ValueError:
            return False
        return isinstance(content, dict) and content.get("is_paused") is True


class PipelineClient(_SystemClient):
    """Read and pause one DAG of Airflow.

    Airflow 3 takes tokens, not passwords, so the client logs in with the user and password of
    ``auth`` before each request. A server without a login gets them by basic authentication.
    """

    SYSTEM = "pipeline"
    HEALTH = "/api/v2/monitor/health"
    PROOF = (HEALTH, "metadatabase")

    def __init__(self, url: str, *, dag_id: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._dag_id = dag_id
        self._path = f"/api/v2/dags/{quote(dag_id, safe='')}"

    def check_reachable(self) -> None:
        """Raise ``WrongSystemError`` for another system, ``NotFoundError`` without the DAG."""
        super().check_reachable()
        self.read_dag()

    def read_dag(self) -> Dag:
        return self.get(self._path, Dag)

    def list_runs(self) -> list[DagRun]:
        """Return the last ten runs, newest first."""
        path = f"{self._path}/dagRuns"
        query = {"order_by": "-start_date", "limit": 10}
        return self.get(path, list[DagRun], query, "dag_runs")

    def find_last_pause(self) -> DagChange | None:
        """Return the DAG's last pause, if it is among its last 20 changes."""
        query = {"dag_id": self._dag_id, "event": "patch_dag", "order_by": "-when", "limit": 20}
        changes = self.get("/api/v2/eventLogs", list[DagChange], query, "event_logs")
        for change in changes:
            if change.is_pause:
                return change
        return None

    def set_paused(self, paused: bool) -> Dag:
        """Pause or unpause the DAG; undone by the opposite."""
        return self.post(self._path, Dag, {"is_paused": paused}, "PATCH")

    def _ask(self, method: str, path: str, **content: Any) -> Answer:
        """Send a request, with a new token if the server has a login."""
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
    """Support's answer about an unknown ticket. Another system's 404 does not match."""

    detail: Annotated[str, Field(pattern=r"(?i)\bticket\b")]


def _list_orders(context: list[dict[str, Json]]) -> list[Json]:
    orders = [item.get("orderId") for item in context if item.get("type") == "order"]
    return [order for order in dict.fromkeys(orders) if order is not None]


_OrderIds = Annotated[tuple[int, ...], BeforeValidator(_list_orders)]


@_camel
class TimelineEntry:
    """An event of a ticket; ``at`` is None if unreadable, and ``raw`` has all fields."""

    type: str = ""
    at: Annotated[_Time, Field(validation_alias="timestamp")] = None
    source: str = ""
    status: Text = ""
    order_id: str | None = None
    raw: dict[str, Json] = field(default_factory=dict)


def _keep_raw(entry: dict[str, Json]) -> dict[str, Json]:
    return {**entry, "raw": entry}


_Entry = Annotated[TimelineEntry, BeforeValidator(_keep_raw)]


@_camel
class Case:
    """A ticket. Not every answer includes its timeline."""

    id: Annotated[str, Field(validation_alias=AliasChoices("id", "ticketId"))]
    status: str = ""
    order_ids: Annotated[_OrderIds, Field(validation_alias="context")] = ()
    timeline: tuple[_Entry, ...] = ()


class SupportClient(HttpClient):
    SYSTEM = "support"

    def read_case(self, ticket_id: str) -> Case:
        """Return a ticket, or raise ``NotFoundError``."""
        params = {"includeTimeline": "true"}
        return self.get(self._path(ticket_id), Case, params)

    def check_reachable(self) -> None:
        """Raise ``WrongSystemError`` if the service does not know tickets."""
        self.identify(f"{_CASES}/{_NO_CASE}", _NoCase, status=404)

    def refresh_timeline(self, ticket_id: str) -> Case:
        """Make the service collect a ticket's timeline again; this can't be undone."""
        path = self._path(ticket_id)
        return self.post(f"{path}/timeline/refresh", Case)

    def _path(self, ticket_id: str) -> str:
        """Return a ticket's path; refuse an invalid id, which could lead to another path."""
        checked = check_ticket_id(ticket_id)
        return f"{_CASES}/{checked}"


@dataclass(frozen=True, slots=True)
class ProbeStep:
    name: Annotated[str, Field(validation_alias=AliasChoices("step", "name"))]
    status: str
    message: Text = ""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """The result of the probe's last run, if it ever ran."""

    status: str
    steps: tuple[ProbeStep, ...]
    ran_at: When = None


class ProbeClient(_SystemClient):
    """Read the synthetic probe's results; it starts no run."""

    SYSTEM = "probe"
    PROOF = ("/status", "status")

    def read_status(self) -> ProbeStatus:
        return self.get("/status", ProbeStatus)


@_camel
class Notification:
    channel: str  # slack, email or teams
    received_at: At
    status: str  # firing or resolved
    alertnames: tuple[str, ...]
    is_drill: Annotated[StrictBool, Field(validation_alias="drill")] = False


class NotificationsClient(_SystemClient):
    SYSTEM = "notifications"
    PROOF = ("/notifications?since=2100-01-01T00:00:00Z", "items")

    def list_notifications(self, since: datetime) -> list[Notification]:
        """Return the notifications that the alert receivers got, oldest first."""
        query = {"since": format_time(since)}
        notifications = self.get("/notifications", list[Notification], query, "items")
        return sorted(notifications, key=lambda item: item.received_at)
