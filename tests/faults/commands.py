"""Operators who work with the ``runbook`` command alone: processes with settings by environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.audit import Counted, Label, Shelf, count
from tests.support.consumers import Consumers, run_consumers
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, wait_until
from tests.support.lossy_proxy import LossyProxy, run_lossy_proxy
from tests.support.network import Act, Received, answer_json, run_server

COMMAND = (str(Path(sys.executable).with_name("runbook")),)
LEASE_S = 8.0
_ROOT = Path(__file__).parents[2]
_ENDS_S = 90.0
_TIMING = {
    "RELEASE_LEASE_S": f"{LEASE_S:g}",
    "RELEASE_EFFECT_S": "1",
    "RELEASE_CLOCK_SPREAD_S": "1",
    "HTTP_TIMEOUT_S": "2",
}
_NOBODY = [
    f"{name}_URL"
    for name in ("PROMETHEUS", "ALERTMANAGER", "GRAFANA", "SUPPORT", "FULFILLMENT", "PIPELINE")
]
_NOBODY += ["PROBE_URL", "NOTIFICATIONS_URL"]


@dataclass(frozen=True)
class Outcome:
    """How one command ended: ``code`` is negative when a signal ended it."""

    words: tuple[str, ...]
    code: int
    document: dict[str, Any]
    errors: str

    def get(self, name: str) -> int:
        value = self.document.get(name, 0)
        return value if isinstance(value, int) else len(value)

    @property
    def approval(self) -> tuple[str, str]:
        return "--approve", self.document["sha256"]


@dataclass
class Running:
    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out: Path

    def send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, deadline_s: float = _ENDS_S) -> Outcome:
        try:
            code = self.process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"runbook {' '.join(self.words)} did not end: {self.out}") from None
        text = self.out.read_text("utf-8")
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        errors = self.out.with_suffix(".err").read_text("utf-8", "replace")
        return Outcome(self.words, code, document, errors)


@dataclass(frozen=True)
class Operator:
    """One person at one machine."""

    name: str
    folder: Path
    endpoint: str
    bucket: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *words: str) -> Running:
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **dict.fromkeys(_NOBODY, ""),
            **_TIMING,
            "HOME": str(self.folder),
            "PYTHONPATH": str(_ROOT),
            "MINIO_ENDPOINT": self.endpoint,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "FULFILLMENT_BUCKET": self.bucket,
            "RUNBOOK_HOME": str(self.home),
            "RUNBOOK_OPERATOR": self.name,
            "RUNBOOK_SERVICES": "none",
            "LABEL_FINISHED": "always",
            "WORKER_CONTROL": "none",
            **self.settings,
        }
        number, name = tempfile.mkstemp(".out", f"{words[0]}-", self.folder)
        out = Path(name)
        with os.fdopen(number, "wb") as output, out.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                [*COMMAND, *words, "--json"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        return Running(words, process, out)

    def run(self, *words: str, deadline_s: float = _ENDS_S) -> Outcome:
        return self.start(*words).wait(deadline_s)


@dataclass
class Worker:
    """The label worker's door: it can be asked, paused and resumed; it moves nothing.

    ``on_pause`` is called once, when a pause has taken effect and is not answered yet.
    """

    is_paused: bool = False
    on_pause: Callable[[], None] | None = None

    def answer(self, request: Received) -> Act:
        if request.method == "POST":
            self.is_paused = request.target.endswith("/pause")
            act = self.on_pause
            if self.is_paused and act is not None:
                self.on_pause = None
                act()
        names = ("pendingPrefix", "readyPrefix", "bucket", "endpoint", "credentials")
        state = {"paused": self.is_paused, "moving": False, **dict.fromkeys(names, "")}
        return answer_json(200, state)


@dataclass
class Lane:
    shelf: Shelf
    proxy: LossyProxy
    folder: Path
    worker_url: str
    worker: Worker
    consumers: Consumers | None

    def hire(self, name: str, *, worker: bool = False, **more: str) -> Operator:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        settings = {"WORKER_CONTROL": "api", "FULFILLMENT_URL": self.worker_url} if worker else {}
        settings |= more
        return Operator(name, folder, self.proxy.endpoint, self.shelf.bucket, settings)

    def count(self, labels: Sequence[Label]) -> Counted:
        wait_until(lambda: self.proxy.is_idle, what="the last late request")
        if self.consumers is not None:
            wait_until(lambda: not self.shelf.list_keys("ready/"), what="the consumers' last look")
        return count(labels, self.shelf, self.consumers.read_taken() if self.consumers else ())

    def clear(self) -> None:
        self.proxy.calm()
        wait_until(lambda: self.proxy.is_idle, what="the last late request")
        self.proxy.landed.clear()
        self.proxy.has_renames = True
        self.proxy.has_copies = True
        self.shelf.clear()
        self.worker.is_paused = False


@contextmanager
def open_lane(
    server: StoreServer,
    folder: Path,
    *,
    seed: int,
    bucket: str = "lane-0",
    consumers: int = 3,
    pause_s: float = 0.03,
    prefix: str = "ready/",
) -> Iterator[Lane]:
    """Open a lane on a running store; ``consumers`` may be 0, and so may their pause."""
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker()
    with ExitStack() as stack:
        shelf = Shelf(server.endpoint, bucket, has_tags=server.kind != "rgw-encrypted")
        proxy = stack.enter_context(run_lossy_proxy(server.endpoint, seed=seed))
        service = stack.enter_context(run_server(worker.answer))
        taking = None
        if consumers:
            taken = folder / "taken.jsonl"
            taking = stack.enter_context(
                run_consumers(
                    server.endpoint, bucket, taken, prefix=prefix, count=consumers, pause_s=pause_s
                )
            )
        url = f"http://{service.endpoint}"
        lane = Lane(shelf, proxy, folder, url, worker, taking)
        lane.clear()
        yield lane
