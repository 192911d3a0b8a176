"""``runbook serve`` as a process, and receivers that behave as a test wants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, find_free_ports, is_answered
from tests.support.network import Act, Received, answer_json, run_server
from tests.support.stack import wait_until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-thirty-two-characters"
CASE = "7f0e2a52-1111-4222-8333-944455556666"
START = "2026-11-24T03:{:02d}:00.123456789Z"
_NEVER = "0001-01-01T00:00:00Z"


def make_alert(
    number: int = 1, *, minute: int = 0, status: str = "firing", **labels: str
) -> dict[str, Any]:
    ends_at = "2026-11-24T03:59:00Z" if status == "resolved" else _NEVER
    return {
        "status": status,
        "labels": {"alertname": "FulfillmentDelay", "severity": "high", **labels},
        "annotations": {"summary": "x"},
        "startsAt": START.format(minute),
        "endsAt": ends_at,
        "generatorURL": "http://prometheus/graph",
        "fingerprint": f"{number:016x}",
    }


def make_payload(*alerts: dict[str, Any], **changed: Any) -> dict[str, Any]:
    payload = {
        "version": "4",
        "groupKey": '{}:{alertname="FulfillmentDelay"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "runbook",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
    }
    return payload | changed


@dataclass
class Receivers:
    """A support service, Slack and Teams on one port, and a mailbox on another.

    ``modes``: ``ok``, ``500``, ``silent`` (never answers), ``closed`` (closes without an answer),
    ``lost`` (takes it, then closes).
    """

    smtp_port: int
    url: str = ""
    modes: dict[str, str] = field(default_factory=dict)
    posts: list[tuple[str, Any]] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def list_texts(self, target: str) -> list[str]:
        with self.lock:
            return [body for name, body in self.posts if name == target]

    def answer(self, request: Received) -> Act:
        path = request.target
        target = "ticket" if path.startswith("/support") else path.split("/")[1]
        mode = self.modes.get(target, "ok")
        with self.lock:
            self.asked.append(f"{request.method} {path}")
        if mode == "silent":
            return Act(then="hang")
        if mode == "closed":
            return Act(then="close")
        if mode == "500":
            return answer_json(500, {"detail": "broken"})
        status, said = self._take(target, request)
        if mode == "lost" and request.method == "POST":
            return Act(then="close")
        return answer_json(status, said)

    def _take(self, target: str, request: Received) -> tuple[int, Any]:
        if request.target.startswith("/api/v2/alerts"):
            return 200, []
        if target == "ticket" and CASE not in request.target:
            return 404, {"detail": "Ticket not found"}
        if request.method == "GET" and target == "ticket":
            messages = [{"authorType": "agent", "message": t} for t in self.list_texts(target)]
            files = [{"fileName": name} for name in self.files]
            return 200, {
                "id": CASE,
                "status": "open",
                "timeline": [],
                "messages": messages,
                "attachments": files,
            }
        if request.method == "GET":
            return 400, {"detail": "no message"}
        body = request.body
        with self.lock:
            if request.target.endswith("/attachments"):
                name = body.split(b'filename="')[1].split(b'"')[0].decode()
                self.files.append(name)
            elif target == "ticket":
                self.posts.append((target, json.loads(body)["message"]))
            else:
                self.posts.append((target, json.dumps(json.loads(body))))
        return 201, {"ok": True}


class _Mailbox:
    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, _: Envelope, host: str, answers: list[str]
    ) -> list[str]:
        session.host_name = host
        if self._receivers.modes.get("mail") == "closed" and server.transport is not None:
            server.transport.close()
        return answers

    async def handle_DATA(self, _server: SMTP, _: Session, envelope: Envelope) -> str:  # noqa: N802
        if self._receivers.modes.get("mail") == "500":
            return "451 broken"
        content = envelope.content or b""
        self._receivers.mails.append(content if isinstance(content, bytes) else content.encode())
        return "250 OK"


@contextmanager
def run_receivers() -> Iterator[Receivers]:
    (smtp_port,) = find_free_ports(1)
    receivers = Receivers(smtp_port)
    smtp = Controller(_Mailbox(receivers), hostname="127.0.0.1", port=smtp_port)
    with run_server(receivers.answer) as server:
        receivers.url = f"http://{server.endpoint}"
        smtp.start()
        try:
            yield receivers
        finally:
            smtp.stop()


@dataclass
class Service:
    environment: dict[str, str]
    port: int
    folder: Path
    token: str = ""
    ca_file: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "reports"

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text("utf-8")

    def start(self) -> None:
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alerting"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self.is_healthy, what=f"serve answers\n{self.log}", deadline_s=120)

    def is_healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        return is_answered(f"{self.url}/health", verify=self.ca_file or True)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    @property
    def url(self) -> str:
        return f"http{'s' if self.ca_file else ''}://127.0.0.1:{self.port}"

    def post(self, payload: Any, **options: Any) -> requests.Response:
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return requests.post(
            f"{self.url}/alertmanager", data=body, headers=headers, timeout=60, **options
        )

    def get(self, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.url}{path}"
        verify = self.ca_file or True
        return requests.get(url, headers=headers, timeout=30, verify=verify, **options)

    def read_metric(self, name: str) -> float:
        for line in self.get("/metrics").text.splitlines():
            label, _, value = line.rpartition(" ")
            if label == f"runbook_serve_{name}":
                return float(value)
        raise KeyError(name)

    def wait_until_done(self, deadline_s: float = 240) -> None:
        def is_done() -> bool:
            text = self.get("/metrics").text
            lines = [line for line in text.splitlines() if "waiting" in line and line[0] != "#"]
            return all(line.endswith(" 0.0") for line in lines)

        wait_until(is_done, what=f"all is delivered\n{self.log}", deadline_s=deadline_s)


def get_settings(store: StoreServer) -> dict[str, str]:
    return {
        "MINIO_ENDPOINT": store.endpoint,
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
    }


def make_service(
    folder: Path, receivers: Receivers, store: dict[str, str], *, token: str = "", **settings: str
) -> Service:
    (port,) = find_free_ports(1)
    address = receivers.url.replace("http", "json")
    mail = f"mailto://127.0.0.1:{receivers.smtp_port}?mode=insecure"
    targets = [
        f"{address}/slack/secret-path",
        f"{address}/teams/secret-path",
        f"{mail}&from=runbook@example.com&to=oncall@example.com",
    ]
    secrets = {"SERVE_TARGETS_FILE": "\n".join(targets)}
    if token:
        secrets["SERVE_TOKEN_FILE"] = token
    files = {}
    for name, text in secrets.items():
        path = folder / name.lower()
        path.write_text(f"{text}\n")
        files[name] = str(path)
    empty = ("PROMETHEUS", "GRAFANA", "FULFILLMENT", "PIPELINE", "PROBE", "NOTIFICATIONS")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        **{f"{name}_URL": "" for name in empty},
        "SUPPORT_URL": receivers.url,
        "ALERTMANAGER_URL": receivers.url,
        "RUNBOOK_HOME": str(folder / "reports"),
        "RUNBOOK_SERVICES": "none",
        "WORKER_CONTROL": "none",
        "HTTP_TIMEOUT_S": "1",
        "SERVE_ADDRESS": f"127.0.0.1:{port}",
        **store,
        **files,
        **settings,
    }
    (folder / ".env").write_text("")
    return Service(environment, port, folder, token)


#: How often to ask for what is over in a moment: a kill must come while it lasts.
CLOSELY_S = 0.02
