"""A store with labels that wait, a worker to hold, consumers that poll, and ``runbook`` beside it.

Airflow's tasks and the tests' own commands read the same settings from one ``.env``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from addons.render import render_configs
from tests.faults.commands import Lane, open_lane
from tests.support.audit import Label
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, run_alertmanager, run_seaweedfs

_ROOT = Path(__file__).parents[2]
#: How many labels a part has.
PER_PART = int(os.environ.get("AIRFLOW_TEST_LABELS", "1200"))
#: For whatever ends when all labels are through: 20 labels a second, on a machine that is busy.
ENDS_S = 600 + 4 * PER_PART / 20
_PUTTERS = 8
_NOBODY = "PROMETHEUS ALERTMANAGER GRAFANA SUPPORT PIPELINE PROBE NOTIFICATIONS"


@dataclass(frozen=True)
class Said:
    code: int
    document: dict[str, Any]
    errors: str


@dataclass(frozen=True)
class Desk:
    lane: Lane
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *words: str, operator: str = "") -> Said:
        names = ("PATH", "LANG", "HOME")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        environment["PYTHONPATH"] = str(_ROOT)
        if operator:
            environment["RUNBOOK_OPERATOR"] = operator
        done = subprocess.run(
            [str(Path(sys.executable).with_name("runbook")), *words, "--json"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENDS_S,
            check=False,
        )
        return Said(done.returncode, json.loads(done.stdout or "{}"), done.stderr)

    def paste(self, command: str, *, operator: str = "") -> Said:
        program, *words = shlex.split(command.replace("\\\n", " "))
        assert program == "runbook", command
        return self.run(*words, operator=operator)

    def plan(self, parts: int) -> dict[str, Any]:
        said = self.run("plan", "--parts", str(parts))
        assert said.code == 0, said
        return said.document

    def put_labels(self, number: int, seed: int) -> list[Label]:
        rng = random.Random(seed)
        names = [f"{100_000 + n}-{rng.getrandbits(48):012x}.pdf" for n in range(number)]
        with ThreadPoolExecutor(_PUTTERS) as pool:
            return list(pool.map(self._put, names))

    def _put(self, name: str) -> Label:
        body = f"%PDF {name}".encode()
        order = name.partition("-")[0]
        shown = {"content-type": "application/pdf", "x-amz-meta-order-id": order}
        self.lane.shelf._put(f"pending/{name}", body, shown, {})
        return Label(name, hashlib.sha256(body).hexdigest(), shown, {})

    def count_announced(self, plan: str, rows: range) -> int:
        """Return how many of some rows were announced, by this machine's log of the plan."""
        announced: set[int] = set()
        for line in self.read_log(plan).splitlines():
            entry = json.loads(line)
            if entry["kind"] == "begun":
                announced.update(entry["data"]["rows"])
        return len(announced.intersection(rows))

    def read_log(self, plan: str) -> str:
        paths = self.home.glob(f"*/ledger/{plan}.jsonl")
        return "".join(path.read_text("utf-8") for path in paths)


@contextmanager
def open_desk(
    folder: Path,
    *,
    seed: int,
    consumers: int,
    has_renames: bool = True,
    pause_s: float = 0.01,
) -> Iterator[Desk]:
    """Start a store of its own, and write the settings into the folder where tasks work."""
    desk = Path(os.environ["AIRFLOW_TEST_RUNBOOK"])
    shutil.rmtree(desk / "home", ignore_errors=True)
    with (
        run_seaweedfs(folder / "store") as server,
        open_lane(server, folder / "lane", seed=seed, consumers=consumers, pause_s=pause_s) as lane,
    ):
        settings = {
            **{f"{name}_URL": "" for name in _NOBODY.split()},
            "MINIO_ENDPOINT": server.endpoint if has_renames else lane.proxy.endpoint,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "FULFILLMENT_BUCKET": lane.shelf.bucket,
            "FULFILLMENT_URL": lane.worker_url,
            "RUNBOOK_HOME": str(desk / "home"),
            "RUNBOOK_SERVICES": "none",
            "WORKER_CONTROL": "api",
            "LABEL_FINISHED": "always",
            "RELEASE_LIMIT_OBJECTS": "100000",
            "RELEASE_LEASE_S": "20",
            "RELEASE_EFFECT_S": "1",
            "RELEASE_CLOCK_SPREAD_S": "1",
        }
        lane.proxy.has_renames = has_renames
        lines = [f"{name}={value}" for name, value in settings.items()]
        (desk / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield Desk(lane, desk)


@contextmanager
def run_addons_alertmanager(folder: Path) -> Iterator[str]:
    """Run the Alertmanager of the add-ons where tasks that fail look for one; yield its address."""
    config = folder / "alertmanager.yml"
    # Nothing listens there: what counts is whom Alertmanager wants to tell.
    environment = {
        "ALERTMANAGER_SLACK_WEBHOOK_URL": "http://127.0.0.1:9/slack",
        "ALERTMANAGER_TEAMS_WEBHOOK_URL": "http://127.0.0.1:9/teams",
        "ALERTMANAGER_SMTP_SMARTHOST": "127.0.0.1:9",
    }
    config.write_text(render_configs("demo", environment)["alertmanager.yml"], encoding="utf-8")
    address = urlsplit(os.environ["AIRFLOW_TEST_ALERTMANAGER"]).netloc
    with run_alertmanager(config, address) as url:
        yield url
