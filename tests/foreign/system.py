"""A DataFlow that is not ours: its services, rules and routes, behind TLS of a private CA.

Real Prometheus, Alertmanager and object store; tokens and passwords everywhere, keys with the
least rights where the store knows such. A consumer empties ``ready/``, and a worker moves
meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests

from tests.faults.commands import Operator, Outcome
from tests.foreign.services import Fulfillment, Support
from tests.support.audit import Counted, Label, Shelf, count
from tests.support.consumers import Consumers, run_consumers
from tests.support.gateway import (
    ACCESS_KEY,
    SECRET_KEY,
    StoreServer,
    find_free_ports,
    is_answered,
    wait_until,
)
from tests.support.network import make_certificates, run_server, run_tls_front

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
BUCKET = "fulfillment-artifacts"
USER, PASSWORD = "runbook", "look-only-77"
#: bcrypt of PASSWORD, as Prometheus's web configuration wants it.
_HASH = "$2b$05$abcdefghijklmnopqrstuuQJopZ2/6XAlz2wmGqIRYqhy86n0nt3q"
_TOKENS = {"FULFILLMENT": "fulfillment-token-1", "SUPPORT": "support-token-2"}
LOOK, CHANGE = ("looker", "looker-secret-3"), ("changer", "changer-secret-4")


def _allow(name: str, keys: tuple[str, str], *rights: str) -> dict[str, Any]:
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
    actions = [f"{right}:{BUCKET}" for right in rights]
    return {"name": name, "credentials": credentials, "actions": actions}


#: Of SeaweedFS: who looks may not write, and nobody may do anything elsewhere.
IDENTITIES = (
    _allow("looker", LOOK, "Read", "List"),
    _allow("changer", CHANGE, "Read", "List", "Write", "Tagging"),
)
_RULES = """
groups:
  - name: dataflow-alerts
    rules:
      - alert: FulfillmentDelay
        expr: max(fulfillment_oldest_unshipped_label_seconds) > 60
        for: 1s
        labels:
          severity: high
          service: fulfillment-service
        annotations:
          summary: "Label giao vận bị giữ lại"
          description: "Label cũ nhất đã chờ {{ $value }} giây."
      - alert: MinioFreeCapacityLow
        expr: minio_cluster_capacity_free_bytes < 2 * 1024 * 1024 * 1024
        for: 10m
        labels: {severity: warning, service: minio}
        annotations: {summary: "MinIO sắp hết dung lượng"}
"""
_ROUTES = """
route:
  receiver: default
  group_by: [alertname, service]
  group_wait: 1h  # DataFlow's is 30 s; nothing is to be sent from here
  group_interval: 5m
  repeat_interval: 3h
  routes:
    - {receiver: slack-critical, continue: true, matchers: ['severity=~"(?i)critical|high"']}
    - {receiver: email-oncall, continue: true, matchers: ['severity=~"(?i)critical|high|warning"']}
    - {receiver: teams-oncall, continue: true, matchers: ['severity=~"(?i)critical|high|warning"']}
receivers:
  - name: default
  - name: slack-critical
    slack_configs:
      - {api_url: 'http://127.0.0.1:9/services/REPLACE/ME', channel: '#data-ops'}
  - name: email-oncall
    email_configs:
      - {to: 'oncall@localhost', from: 'alertmanager@localhost', smarthost: 'smtp.example.com:587'}
  - name: teams-oncall
    msteams_configs:
      - {webhook_url: 'http://127.0.0.1:9/REPLACE/ME', send_resolved: true}
"""


@dataclass
class Foreign:
    folder: Path
    server: StoreServer
    settings: dict[str, str]
    fulfillment: Fulfillment
    support: Support
    shelf: Shelf
    ca: Path
    consumers: Consumers | None = None
    number: int = 4000

    def hire(self, name: str, **settings: str) -> Operator:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        endpoint = self.settings["MINIO_ENDPOINT"]
        return Operator(name, folder, endpoint, BUCKET, {**self.settings, **settings})

    def put(
        self,
        count_: int,
        folder: str = "",
        ending: str = ".pdf",
        *,
        size_bytes: int = 0,
        status: str = "packed",
        age_s: float = 300.0,
        **metadata: str,
    ) -> list[Label]:
        """Put labels as any S3 client writes them, with a shipment each."""
        labels = []
        for _ in range(count_):
            self.number += 1
            order, digest = self.number, hashlib.sha256(str(self.number).encode()).hexdigest()
            name = f"{folder}{order}-{digest[:12]}{ending}"
            body = f"%PDF {name} ".encode().ljust(size_bytes, b".")
            self.fulfillment.add(order, status=status, age_s=age_s)
            kind: Any = metadata or None
            self.shelf.client.put_object(
                BUCKET, f"pending/{name}", io.BytesIO(body), len(body), "application/pdf",
                metadata=kind, part_size=5 << 20,
            )  # fmt: skip
            shown = {"content-type": "application/pdf"}
            labels.append(Label(name, hashlib.sha256(body).hexdigest(), shown, {}))
        return labels

    def open_ticket(self) -> str:
        body = {
            "subject": "where is my parcel?",
            "channel": "email",
            "context": [{"type": "order", "orderId": self.number}],
            "initialMessage": "it is late",
        }
        answer = requests.post(
            f"{self.settings['SUPPORT_URL']}/support/cases",
            json=body, verify=str(self.ca), timeout=10,
            headers={"Authorization": self.settings["SUPPORT_AUTH"]},
        )  # fmt: skip
        answer.raise_for_status()
        return str(answer.json()["id"])

    @contextmanager
    def consume(self) -> Iterator[None]:
        taken = self.folder / "taken.jsonl"
        with run_consumers(self.server.endpoint, BUCKET, taken, count=1) as self.consumers:
            yield
            wait_until(lambda: not self.shelf.list_keys("ready/"), what="the consumer's last look")

    def read_shipped(self) -> set[int]:
        names = (one.key.rpartition("/")[2] for one in self.read_taken())
        return {int(name.partition("-")[0]) for name in names}

    def read_taken(self) -> list[Any]:
        return self.consumers.read_taken() if self.consumers else []

    def count(self, labels: list[Label]) -> Counted:
        return count(labels, self.shelf, self.read_taken())

    def steer(self, word: str) -> str:
        done = subprocess.run(
            [sys.executable, WORKER, word, self.folder],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    @property
    def commands(self) -> dict[str, str]:
        """The settings of WORKER_CONTROL=command."""
        words = {w: shlex.join([sys.executable, str(WORKER), w, str(self.folder)])
                 for w in ("status", "stop", "start")}  # fmt: skip
        return {"WORKER_CONTROL": "command"} | {
            f"WORKER_{word.upper()}_CMD": command for word, command in words.items()
        }

    def read_moves(self) -> list[dict[str, Any]]:
        log = self.folder / "moves.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def ask_prometheus(self, path: str, **params: str) -> Any:
        answer = requests.get(
            self.settings["PROMETHEUS_URL"] + path,
            params=params, auth=(USER, PASSWORD), verify=str(self.ca), timeout=10,
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json()["data"]

    def list_alerts(self) -> set[str]:
        found = self.ask_prometheus("/api/v1/alerts")["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}


@contextmanager
def run_foreign(server: StoreServer, folder: Path) -> Iterator[Foreign]:
    with ExitStack() as stack:
        ca, context = make_certificates(folder)
        front = stack.enter_context(run_tls_front(server.endpoint, context)).endpoint
        foreign: Foreign

        def read_shipped() -> set[int]:
            return foreign.read_shipped()

        fulfillment = Fulfillment(_TOKENS["FULFILLMENT"], read_shipped)
        support = Support(_TOKENS["SUPPORT"], fulfillment)
        services = {
            name: f"https://{stack.enter_context(run_server(answer, tls=context)).endpoint}"
            for name, answer in (("FULFILLMENT", fulfillment), ("SUPPORT", support))
        }
        monitors = dict(zip(("PROMETHEUS", "ALERTMANAGER"), find_free_ports(2), strict=True))
        urls = {name: f"https://127.0.0.1:{port}" for name, port in monitors.items()}
        look, change = (
            (LOOK, CHANGE) if server.kind == "seaweedfs" else ((ACCESS_KEY, SECRET_KEY),) * 2
        )
        settings = {
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
            "CA_BUNDLE": str(ca),
            "MINIO_ENDPOINT": front,
            "MINIO_SECURE": "true",
            "MINIO_ROOT_USER": look[0],
            "MINIO_ROOT_PASSWORD": look[1],
            "MINIO_CHANGE_USER": change[0],
            "MINIO_CHANGE_PASSWORD": change[1],
            "LABEL_FINISHED": "shipment",
            "LAG_THRESHOLD_MINUTES": "0.01",
            "RECOVERED_MINUTES": "0.01",
            "HTTP_TIMEOUT_S": "5",
            "RELEASE_LEASE_S": "20",  # docker and supervisor take seconds on a busy machine
            "RUNBOOK_SERVICES": "none",
            **{f"{name}_URL": url for name, url in {**services, **urls}.items()},
            **{f"{name}_AUTH": f"Bearer {token}" for name, token in _TOKENS.items()},
            **{f"{name}_USER": USER for name in urls},
            **{f"{name}_PASSWORD": PASSWORD for name in urls},
        }
        shelf = Shelf(server.endpoint, BUCKET)
        foreign = Foreign(folder, server, settings, fulfillment, support, shelf, ca)
        worker = {
            "endpoint": server.endpoint, "keys": [ACCESS_KEY, SECRET_KEY], "bucket": BUCKET,
            "ca": str(ca), "url": services["FULFILLMENT"], "token": _TOKENS["FULFILLMENT"],
            "every_s": 0.3,
        }  # fmt: skip
        (folder / "worker.json").write_text(json.dumps(worker))
        service = services["FULFILLMENT"]
        _run_monitors(stack, folder, monitors, ca=ca, fulfillment=service, store=front)
        for name, url in urls.items():
            login = {"auth": (USER, PASSWORD), "verify": str(ca)}
            wait_until(partial(is_answered, f"{url}/-/ready", **login), what=name)
        stack.callback(lambda: foreign.steer("stop"))
        foreign.steer("start")
        yield foreign


def _run_monitors(
    stack: ExitStack, folder: Path, ports: dict[str, int], *, ca: Path, fulfillment: str, store: str
) -> None:
    """Run Prometheus and Alertmanager with DataFlow's rule and route shapes."""
    web = {
        "tls_server_config": {"cert_file": "leaf.pem", "key_file": "leaf.key"},
        "basic_auth_users": {USER: _HASH},
    }
    tls = {"ca_file": str(ca)}
    login = {"username": USER, "password": PASSWORD}
    prometheus = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {
            "alertmanagers": [
                {
                    "scheme": "https",
                    "tls_config": tls,
                    "basic_auth": login,
                    "static_configs": [{"targets": [f"127.0.0.1:{ports['ALERTMANAGER']}"]}],
                }
            ]
        },
        "scrape_configs": [
            {
                "job_name": "app-services",
                "scheme": "https",
                "tls_config": tls,
                "authorization": {"credentials": _TOKENS["FULFILLMENT"]},
                "static_configs": [{"targets": [fulfillment.removeprefix("https://")]}],
            },
            {
                "job_name": "minio",
                "metrics_path": "/minio/v2/metrics/cluster",
                "scheme": "https",
                "tls_config": tls,
                "static_configs": [{"targets": [store]}],
            },
        ],
    }
    # JSON is YAML.
    for name, text in (
        ("web.yml", json.dumps(web)),
        ("prometheus.yml", json.dumps(prometheus)),
        ("rules.yml", _RULES),
        ("alertmanager.yml", textwrap.dedent(_ROUTES)),
    ):
        (folder / name).write_text(text, "utf-8")
    programs = {
        "PROMETHEUS": ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"],
        "ALERTMANAGER": [
            shutil.which("prometheus-alertmanager") or "alertmanager",
            "--config.file=alertmanager.yml", "--storage.path=am", "--cluster.listen-address=",
        ],
    }  # fmt: skip
    for name, words in programs.items():
        log = stack.enter_context((folder / f"{name.lower()}.log").open("wb"))
        listen = [f"--web.listen-address=127.0.0.1:{ports[name]}", "--web.config.file=web.yml"]
        process = subprocess.Popen(
            [*words, *listen], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)


def read_plan(outcome: Outcome) -> str:
    return Path(outcome.document["path"]).read_text("utf-8")
