"""A world of hand-made clients, healthy until a test breaks something in it."""

# ruff: noqa: ARG002 - the fakes keep the signatures of the clients

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from prometheus_client.samples import Sample as MetricSample
from pydantic import SecretStr, TypeAdapter

from fulfillment.clients import Clients
from fulfillment.clients.http_systems import (
    Alert,
    AlertRule,
    Case,
    Dag,
    DagChange,
    DagRun,
    Notification,
    Panel,
    ProbeStatus,
    ProbeStep,
    RoutedAlert,
    Sample,
    Series,
    Shipment,
    TimelineEntry,
    WorkerState,
)
from fulfillment.clients.object_store import Rights
from fulfillment.clients.services import LogLine, ServiceState
from fulfillment.investigation import Investigation
from fulfillment.settings import Settings
from runbook_lib.errors import (
    ConnectionRefusedClientError,
    NotFoundError,
)
from runbook_lib.model import Reading, format_time
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor
from runbook_lib.section import SectionModule
from tests.support.memory_store import MemoryStore

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
LAG = 'fulfillment_lag_minutes{origin="real"}'
REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
UP = 'up{job="artifact-exporter"}'
SHIPMENTS = TypeAdapter(list[Shipment])
TICKET = "5f7f3f0e-6f0a-4c57-9f0f-2b8f6c1f7a11"
ORDER = 4242
CHANNELS = {"slack": "slack-critical", "email": "email-oncall", "teams": "teams-oncall"}
_MOVED = "fulfillment_artifacts_moved_total"
_ARRIVED = "fulfillment_artifacts_arrived_total"
_FAILED = "fulfillment_artifacts_failed_total"
_CARRIER = "fulfillment_carrier_request_seconds_count"
_REASONS = ("carrier_timeout", "carrier_error", "storage_full", "store_unreachable")
_REASONS += ("access_denied", "bad_credentials", "no_such_bucket")


class WorldStore(MemoryStore):
    world: World

    def _check(self) -> None:
        if "store" in self.world.down:
            raise ConnectionRefusedClientError("connection refused", system="object store")

    def check_live(self) -> str:
        self._check()
        return super().check_live()

    def read_clock(self) -> datetime:
        """Return the time with the skew that the test set; half a second is cut off."""
        self._check()
        return self.world.now + timedelta(seconds=self.world.skew_s.get("store", 0.0) - 0.5)

    def read_rights(self, prefix: str, *, write_under: Sequence[str] = ()) -> Rights:
        self._check()
        return self.world.rights


@dataclass
class World:
    """Everything that the clients answer; change it, then take a step.

    Attributes
    ----------
    down : systems that refuse every connection
    series : samples in Prometheus by selector
    skew_s : how far each system's clock is off
    """

    home: Path
    now: datetime = NOW
    down: set[str] = field(default_factory=set)
    store: WorldStore = field(default_factory=WorldStore)
    series: dict[str, list[Series]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    rules: list[AlertRule] = field(default_factory=list)
    routed: list[RoutedAlert] = field(default_factory=list)
    heard: list[Notification] = field(default_factory=list)
    panel: Panel | None = None
    case: Case | None = None
    shipments: list[dict[str, Any]] = field(default_factory=list)
    worker: WorkerState | None = None
    pages: list[list[MetricSample]] = field(default_factory=list)
    dag: Dag = field(default=Dag("fulfillment_release", False, False))
    runs: list[DagRun] = field(default_factory=list)
    services: dict[str, ServiceState] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    effective: dict[str, str] = field(default_factory=dict)
    probe: ProbeStatus | None = None
    skew_s: dict[str, float] = field(default_factory=dict)
    rights: Rights = field(default_factory=lambda: dict.fromkeys(("list", "read"), (True, "")))
    settings: Settings = field(default_factory=lambda: make_settings(Path("unused")))
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = make_settings(self.home)
        self.store.world = self
        self.store.memory.clock = lambda: self.now
        self.store.memory.fail = lambda _method, _key: self.store._check()
        self.put(".runbook/environment.json", b'{"environment": "local"}')
        self.put_lag(0.0)
        self.series[UP] = [self.line([1.0])]
        self.count(_FAILED, "reason", {r: [5.0, 5.0, 5.0] for r in _REASONS})
        self.count(_CARRIER, "outcome", {"ok": [10.0, 14.0, 20.0], "timeout": [2.0] * 3})
        self.count(_ARRIVED, "kind", {"label": [5.0, 10.0, 15.0, 20.0]})
        self.count(_MOVED, "kind", {"label": [10.0, 15.0, 20.0]})
        runs = [(self.now - timedelta(seconds=s)).timestamp() for s in (3, 2, 1)]
        self.series["fulfillment_worker_last_run_timestamp_seconds"] = [self.line(runs)]
        for name in ("objects", "bytes"):
            metric = f"fulfillment_artifacts_backlog_{name}"
            self.series[metric] = [self.line([0.0], prefix="pending/", origin="real")]
        self.series["fulfillment_lag_minutes"] = [self.line([0.0])]
        self.series["minio_cluster_capacity_usable_free_bytes"] = [self.line([1e12])]
        self.rules = [
            AlertRule(n, "expr", 300, 0, {}, "ok", 15)
            for n in ("FulfillmentDelay", "FulfillmentUploadFailing", "FulfillmentMetricsMissing")
        ]
        self.panel = Panel("Fulfillment backlog", ("fulfillment_artifacts_backlog_objects",), "g")
        places = ("pending/", "ready/", "fulfillment-artifacts")
        self.worker = WorkerState(False, False, self.now, self.now, "", *places)
        started = self.now - timedelta(minutes=1)
        self.runs = [DagRun("r1", "success", started, self.now)]
        names = ("minio", "fulfillment-service", "support-service", "artifact-exporter")
        self.services = {n: ServiceState(n, True, "RUNNING", started, None) for n in names}
        self.logs = [LogLine(started, "all is well")]
        self.effective = {"MINIO_ROOT_PASSWORD": "admin12345"}
        ok = ProbeStep("timeline_refresh", "ok", "")
        self.probe = ProbeStatus("ok", (ok,), started)
        self.case = make_case(self.now - timedelta(minutes=2))

    def line(self, values: list[float], *, step_s: float = 10, **labels: str) -> Series:
        count = len(values)
        return Series(
            labels,
            tuple(
                Sample(self.now - timedelta(seconds=(count - 1 - i) * step_s), value)
                for i, value in enumerate(values)
            ),
        )

    def count(self, metric: str, label: str, values: dict[str, list[float]]) -> None:
        self.series[metric] = [self.line(v, **{label: name}) for name, v in values.items()]

    def put_lag(self, *minutes: float, step_s: float = 10) -> None:
        self.series[LAG] = [self.line(list(minutes), step_s=step_s, origin="real")]
        times = [s.at.timestamp() for s in self.series[LAG][0].samples]
        self.series[REFRESH] = [self.line(times, step_s=step_s)]

    def put(self, key: str, content: bytes = b"%PDF", **metadata: str) -> None:
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        self.store.put_object(key, content, metadata=named)

    def put_label(self, minutes: float, number: int = 1, *, finished: bool = True) -> str:
        key = f"pending/{ORDER}-{number:012x}.pdf"
        tracking = {"tracking_number": "T1"} if finished else {}
        since = (self.now - timedelta(minutes=minutes)).isoformat()
        written, self.now = self.now, self.now - timedelta(minutes=min(minutes, 2))
        self.put(key, order_id=str(ORDER), pending_since=since, **tracking)
        self.now = written
        return key

    def fire(self, name: str = "FulfillmentDelay", **labels: str) -> None:
        began = self.now - timedelta(minutes=3)
        full = {"alertname": name, "severity": "high", **labels}
        self.alerts.append(Alert(name, full, "firing", began))
        receivers = ("drill",) if labels.get("drill") else tuple(CHANNELS.values())
        self.routed.append(RoutedAlert(full, began, receivers))

    def leave_out_exporter(self) -> None:
        """Let Prometheus know neither lag nor exporter, as on a DataFlow without the add-ons."""
        del self.series[UP]
        self.rules = [rule for rule in self.rules if rule.name == "FulfillmentDelay"]
        for name in list(self.series):
            is_ours = name.startswith(("fulfillment_lag", "fulfillment_exporter"))
            if is_ours or "backlog" in name or "artifact-exporter" in name:
                del self.series[name]

    def hear(self, *channels: str, status: str = "firing", minutes_ago: float = 2) -> None:
        at = self.now - timedelta(minutes=minutes_ago)
        self.heard += [Notification(c, at, status, ("FulfillmentDelay",)) for c in channels]

    def open(self, section: SectionModule, **parameters: Any) -> Investigation:
        return Investigation(
            self.incident,
            section=section,
            parameters=section.Parameters(**parameters),
            settings=self.settings,
            clients=cast(Clients, FakeClients(self)),
            now=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def take(self, section: SectionModule, step: str, **parameters: Any) -> Reading:
        return self.open(section, **parameters).read_step(step)

    @property
    def incident(self) -> Incident:
        if not hasattr(self, "_incident"):
            self._incident = create_incident(
                self.home, redactor=Redactor(), environment="local", clock=lambda: self.now
            )
            opened_at = format_time(self.now - timedelta(minutes=5))
            self._incident.update(opened_at=opened_at)
        return self._incident


_PORTS = (
    ("prometheus", 9090),
    ("alertmanager", 9093),
    ("grafana", 3000),
    ("support", 8109),
    ("fulfillment", 8108),
    ("pipeline", 8110),
    ("probe", 8113),
    ("notifications", 8114),
)


def make_settings(home: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {f"{name}_url": f"http://127.0.0.1:{port}" for name, port in _PORTS}
    values |= {
        "minio_endpoint": "127.0.0.1:9000",
        "minio_root_user": "admin",
        "minio_root_password": SecretStr("admin12345"),
        "runbook_environment": "local",
        "runbook_home": home,
        "runbook_services": "compose",
        "label_finished": "metadata:tracking-number",
        "worker_control": "api",
        "runbook_operator": "ops@box",
    }
    return Settings(**(values | changes))


def make_case(*times: datetime) -> Case:
    entries = tuple(
        TimelineEntry(
            "shipment", at, source, "created", ORDER, {"source": source, "orderId": ORDER}
        )
        for at in times
        for source in ["fulfillment-service"]
    )
    return Case(TICKET, "open", (ORDER,), entries)


class _Fake:
    system = ""

    def __init__(self, world: World) -> None:
        self._world = world
        self.url = f"http://{self.system}"

    @property
    def w(self) -> World:
        if self.system in self._world.down:
            raise ConnectionRefusedClientError("connection refused", system=self.system)
        return self._world

    def read_health(self) -> str:
        return f"ok {self.w.now}"

    def check_reachable(self) -> None:
        self.read_health()

    def read_clock(self) -> datetime:
        skew = timedelta(seconds=self.w.skew_s.get(self.system, 0))
        return (self.w.now + skew).replace(microsecond=0)


class FakePrometheus(_Fake):
    system = "prometheus"

    def query(self, promql: str) -> list[Series]:
        found = self.w.series.get(promql, [])
        return [replace(s, samples=s.samples[-1:]) for s in found]

    def query_samples(self, selector: str, window_s: float) -> list[Series]:
        since = self.w.now - timedelta(seconds=window_s)
        return [
            replace(s, samples=tuple(x for x in s.samples if x.at > since))
            for s in self.w.series.get(selector, [])
        ]

    def query_range(self, promql: str, *_: object, **__: object) -> list[Series]:
        return self.w.series.get(promql, [])

    def list_alerts(self) -> list[Alert]:
        return self.w.alerts

    def list_rules(self) -> list[AlertRule]:
        return self.w.rules


class FakeAlertmanager(_Fake):
    system = "alertmanager"

    def list_alerts(self) -> list[RoutedAlert]:
        return self.w.routed

    def read_placeholders(self) -> list[str]:
        assert self.w
        return []


class FakeGrafana(_Fake):
    system = "grafana"

    def find_panel(self, uid: str, title: str) -> Panel:
        if self.w.panel is None:
            raise NotFoundError(f"no panel {title} in {uid}", system="grafana")
        return self.w.panel


class FakeSupport(_Fake):
    system = "support"

    def read_case(self, ticket_id: str) -> Case:
        if self.w.case is None or ticket_id != TICKET:
            raise NotFoundError("Ticket not found", system="support")
        return self.w.case

    def refresh_timeline(self, ticket_id: str) -> Case:
        self.w.calls.append(f"refresh {ticket_id}")
        return self.read_case(ticket_id)


class FakeFulfillment(_Fake):
    system = "fulfillment"

    def read_worker(self) -> WorkerState:
        if self.w.worker is None:
            raise NotFoundError("no such path", system="fulfillment")
        return self.w.worker

    def read_metrics(self) -> list[MetricSample]:
        return self.w.pages.pop(0) if len(self.w.pages) > 1 else self.w.pages[0]

    def list_shipments(self, order_id: int | None = None, limit: int = 100) -> list[Shipment]:
        return SHIPMENTS.validate_python(self.w.shipments[:limit])

    def trigger_worker(self) -> None:
        self.w.calls.append("trigger")
        assert self.w.worker is not None
        self.w.worker = replace(self.w.worker, last_run_at=self.w.now + timedelta(seconds=1))

    def pause_worker(self) -> WorkerState:
        self.w.calls.append("pause")
        assert self.w.worker is not None
        self.w.worker = replace(self.w.worker, paused=True)
        return self.w.worker

    def resume_worker(self) -> WorkerState:
        self.w.calls.append("resume")
        assert self.w.worker is not None
        runs_at = self.w.now + timedelta(seconds=1)
        self.w.worker = replace(self.w.worker, paused=False, last_run_at=runs_at)
        return self.w.worker


class FakePipeline(_Fake):
    system = "pipeline"

    def read_dag(self) -> Dag:
        return self.w.dag

    def list_runs(self) -> list[DagRun]:
        return self.w.runs

    def find_last_pause(self) -> DagChange | None:
        assert self.w
        return None

    def set_paused(self, paused: bool) -> Dag:
        self.w.calls.append(f"paused={paused}")
        self.w.dag = replace(self.w.dag, is_paused=paused)
        return self.w.dag


class FakeProbe(_Fake):
    system = "probe"

    def read_status(self) -> ProbeStatus:
        assert self.w.probe is not None
        return self.w.probe


class FakeNotifications(_Fake):
    system = "notifications"

    def list_notifications(self, since: datetime) -> list[Notification]:
        found = [n for n in self.w.heard if n.received_at >= since]
        return sorted(found, key=lambda n: n.received_at)


class FakeServices(_Fake):
    system = "services"

    def list_services(self) -> list[ServiceState]:
        return list(self.w.services.values())

    def read_logs(self, name: str, *, since: datetime, **_: object) -> list[LogLine]:
        lines = self.w.logs if name == self.w.settings.worker_service else []
        return [line for line in lines if line.at is None or line.at >= since]

    def read_effective_settings(self, name: str) -> dict[str, str]:
        return self.w.effective

    def change(self, name: str, verb: str) -> None:
        self.w.calls.append(f"{verb} {name}")
        state = "STOPPED" if verb == "stop" else "RUNNING"
        running = verb != "stop"
        changed = {"running": running, "state": state, "since": self.w.now}
        self.w.services[name] = replace(self.w.services[name], **changed)


class FakeClients:
    def __init__(self, world: World) -> None:
        self.prometheus = FakePrometheus(world)
        self.alertmanager = FakeAlertmanager(world)
        self.grafana = FakeGrafana(world)
        self.support = FakeSupport(world)
        self.fulfillment = FakeFulfillment(world)
        self.pipeline = FakePipeline(world)
        self.probe = FakeProbe(world)
        self.notifications = FakeNotifications(world)
        self.services = FakeServices(world)
        self.store = world.store
        self.bucket = self.change_bucket = world.store.memory

    def find_switch(self, service: str) -> Any:
        return self.services
