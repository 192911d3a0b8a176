"""Nothing is lost and nothing is done twice, whatever dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.record.incident import read_state
from tests.foreign.test_guide import alertmanager, fire
from tests.support.gateway import StoreServer
from tests.support.serving import (
    CASE,
    CLOSELY_S,
    ROOT,
    Receivers,
    Service,
    get_settings,
    make_alert,
    make_payload,
    make_service,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(400)]
#: A job, and the steps after which the process dies; without a job, deliveries that began.
KILLS = [("look-1-1", ["", "open", "investigate"]), ("", ["ticket", "slack", "mail"])]
#: Each target has each trouble once. A mailbox that is silent would hold the test's own server.
MODES = [
    {"ticket": "500", "slack": "silent", "teams": "closed", "mail": "lost"},
    {"ticket": "lost", "slack": "500", "teams": "silent", "mail": "closed"},
    {"ticket": "silent", "slack": "closed", "teams": "lost", "mail": "500"},
    {"ticket": "closed", "slack": "lost", "teams": "500", "mail": "500"},
]
ALERTMANAGER = """
route:
  receiver: runbook
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: runbook
    webhook_configs:
      - url: {url}
"""


@pytest.fixture
def service(receivers: Receivers, juicefs: StoreServer, tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path, receivers, get_settings(juicefs))
    made.start()
    yield made
    made.stop()


def list_reports(service: Service) -> dict[str, str]:
    """Return the reports by incident."""
    folders = sorted(path for path in service.home.iterdir() if path.name.startswith("inc-"))
    reports = {}
    for folder in folders:
        if (folder / "report.html").is_file():
            reports[folder.name] = (folder / "report.html").read_text("utf-8")
    return reports


def find_told(receivers: Receivers) -> set[str]:
    """Return the incidents that messages name."""
    texts = [*receivers.list_texts("slack"), *receivers.list_texts("ticket")]
    return {name for text in texts for name in re.findall(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}", text)}


def check_once(receivers: Receivers, *, repeats: int = 0) -> None:
    """Check that each target got its message, with at most so many repeats; a ticket has none."""
    assert len(receivers.list_texts("ticket")) == 1
    told = {name: len(receivers.list_texts(name)) for name in ("slack", "teams")}
    told["mail"] = len(receivers.mails)
    for target, count in told.items():
        assert 1 <= count <= 1 + repeats, target


def list_steps(service: Service, job: str) -> list[str]:
    """Return the steps of a job that dbos has written down."""
    path = service.home / "serve" / "serve.sqlite3"
    query = "SELECT function_name FROM operation_outputs WHERE workflow_uuid LIKE ?"
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return [name for (name,) in db.execute(query, (f"%{job}%",))]


def wait_for_step(service: Service, job: str, step: str) -> None:
    """Wait until dbos has written down a step."""
    what = f"{job}: {step}\n{service.log}"
    wait_for(lambda: step in list_steps(service, job), what, every_s=CLOSELY_S)


def read_facts(service: Service, incident: str) -> dict[str, Any]:
    """Return an incident's state."""
    return read_state(service.home / incident).model_dump(mode="json")


def list_versions(service: Service) -> set[str]:
    """Return the versions under which jobs ended well."""
    path = service.home / "serve" / "serve.sqlite3"
    query = "SELECT application_version FROM workflow_status WHERE status = 'SUCCESS'"
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return {version for (version,) in db.execute(query)}


def test_killed_three_times_with_fifty_alerts_waiting_each_stands_in_one_report(
    service: Service, receivers: Receivers
) -> None:
    fifty = [make_alert(n, support_case=CASE) for n in range(1, 51)]
    copies = make_payload(*fifty * 20)
    assert service.post(copies).json() == {"accepted": 50, "folded": 950}
    for _ in range(3):
        assert service.read_metric("alerts_waiting") == 50
        service.kill()
        service.start()
        assert service.post(copies).json() == {"accepted": 0, "folded": 1000}
    later = [make_alert(n, support_case=CASE) for n in range(51, 201)]
    assert service.post(make_payload(*later)).json() == {"accepted": 150, "folded": 0}
    service.wait_until_done()
    told = find_told(receivers)
    assert len(told) == 1
    (report,) = [text for name, text in list_reports(service).items() if name in told]
    missing = [n for n in range(1, 201) if f"{n:016x}" not in report]
    assert missing == []
    for target in ("ticket", "slack", "teams"):
        opening = [text for text in receivers.list_texts(target) if "Follow-up" not in text]
        assert 1 <= len(opening) <= (1 if target == "ticket" else 2), target


@pytest.mark.parametrize(("job", "steps"), KILLS)
def test_killed_before_each_step_each_message_arrives_once(
    job: str, steps: list[str], service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, support_case=CASE)))
    for step in steps:
        if job and step:
            wait_for_step(service, job, step)
        elif step:
            wait_for_step(service, f"-{step}", "began")
        service.kill()
        service.start()
    service.wait_until_done()
    # What was sent may have arrived before the process died.
    check_once(receivers, repeats=len(steps))
    assert len(find_told(receivers)) == 1
    # The job's last step comes after the last delivery.
    wait_for_step(service, "look-1-1", "end")
    counts = Counter(list_steps(service, "look-1-1"))
    for step in ("open", "investigate", "render", "end"):
        assert counts[step] == 1, step


@pytest.mark.parametrize(
    "modes",
    [
        pytest.param(MODES[0], marks=pytest.mark.long),
        pytest.param(MODES[1], marks=pytest.mark.long),
        MODES[2],
        pytest.param(MODES[3], marks=pytest.mark.long),
    ],
)
def test_targets_that_are_down_get_their_message_when_they_are_back(
    modes: dict[str, str], service: Service, receivers: Receivers
) -> None:
    receivers.modes.update(modes)
    service.post(make_payload(make_alert(1, support_case=CASE)))

    def were_tried() -> bool:
        text = service.get("/metrics").text
        tried = dict.fromkeys(modes, 0.0)
        for line in text.splitlines():
            match = re.match(
                r'runbook_serve_deliveries_total{result="(retried)",'
                r'target="(\w+)"} (.*)', line,
            )  # fmt: skip
            if match:
                tried[match[2]] += float(match[3])
        return all(count >= 2 for count in tried.values())

    wait_for(were_tried, f"each was tried twice\n{service.log}", deadline_s=240)
    receivers.modes.clear()
    service.wait_until_done()
    check_once(receivers, repeats=5)
    for target in modes:
        name = f'deliveries_total{{result="failed",target="{target}"}}'
        assert service.read_metric(name) == 0


def test_jobs_that_wait_are_carried_out_by_the_version_after_an_upgrade(
    service: Service, receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes["slack"] = "500"
    service.post(make_payload(make_alert(1, support_case=CASE)))
    wait_for(
        lambda: service.read_metric('deliveries_total{result="retried",target="slack"}') >= 1,
        f"a message waits\n{service.log}",
        deadline_s=240,
    )
    service.post(make_payload(make_alert(2, drill="true")))
    wait_for_step(service, "look-2-1", "open")
    service.kill()
    before = list_versions(service)
    newer = tmp_path / "newer"
    shutil.copytree(ROOT / "alerting", newer / "alerting")
    code = newer / "alerting" / "work.py"
    text, count = re.subn(r'(_JOBS_VERSION = )"\w+"', r'\1"next"', code.read_text("utf-8"))
    assert count == 1
    # A step of another name: what the old version wrote down of a job does not fit this one.
    code.write_text(text.replace('_step("open"', '_step("open anew"'), "utf-8")
    service.environment["PYTHONPATH"] = f"{newer}:{ROOT}"
    receivers.modes.clear()
    service.start()
    service.wait_until_done()
    assert list_versions(service) == before | {"next"}
    assert "open anew" in list_steps(service, "look-2-1")
    assert len(receivers.list_texts("ticket")) == 1
    texts = receivers.list_texts("slack")
    assert sorted("[DRILL]" in text for text in texts) == [False, True]


def test_a_full_queue_is_503_and_a_real_alertmanager_drains_it(
    receivers: Receivers, juicefs: StoreServer, tmp_path: Path
) -> None:
    service = make_service(tmp_path, receivers, get_settings(juicefs), SERVE_QUEUE_LIMIT="2")
    config = tmp_path / "alertmanager.yml"
    config.write_text(ALERTMANAGER.format(url=f"{service.url}/alertmanager"))
    service.start()
    full = 'requests_refused_total{reason="full"}'
    names = [f"parcel-{n}" for n in range(5)]
    try:
        with alertmanager(config) as (url, _):
            for name in names[:2]:
                fire(url, alertname=name)
            wait_for(lambda: service.read_metric("alerts_waiting") == 2, "it is full")
            for name in names[2:]:
                fire(url, alertname=name)
            wait_for(lambda: service.read_metric(full) >= 1, "it refuses", deadline_s=60)
            wait_for(
                lambda: service.read_metric("alerts_received_total") == len(names),
                f"Alertmanager sends them again\n{service.log}",
                deadline_s=240,
            )
            service.wait_until_done()
    finally:
        service.stop()
    reports = list_reports(service).values()
    missing = [name for name in names if not any(name in report for report in reports)]
    assert missing == []


FAILED = 'looks_total{result="failed"}'


def test_a_drill_has_a_folder_and_messages_that_say_so(
    service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, drill="true")))
    service.post(make_payload(make_alert(2)))
    service.wait_until_done()
    wait_for(lambda: len(receivers.list_texts("slack")) == 2, "both are told", deadline_s=240)
    marked = [text for text in receivers.list_texts("slack") if "[DRILL]" in text]
    assert len(marked) == 1
    reports = list_reports(service)
    drill = {name for name, text in reports.items() if f"{1:016x}" in text}
    real = {name for name, text in reports.items() if f"{2:016x}" in text}
    assert len(drill) == len(real) == 1
    assert drill != real


@pytest.mark.parametrize("drill", ["", pytest.param("true", marks=pytest.mark.long)])
def test_a_look_whose_incident_somebody_closes_ends_and_the_next_attempt_has_another(
    service: Service, receivers: Receivers, drill: str
) -> None:
    service.post(make_payload(make_alert(1, drill=drill)))
    what = f"a notebook is kept\n{service.log}"
    wait_for(lambda: find_notebooks(service) != [], what, every_s=CLOSELY_S)
    closed = find_notebooks(service)[0].parents[1].name
    run_runbook(service, "close", closed)
    service.wait_until_done()
    wait_for(lambda: receivers.list_texts("slack") != [], "it is told", deadline_s=240)
    (told,) = find_told(receivers)
    assert told != closed
    assert bool(read_facts(service, told)["exercise"]) is bool(drill)
    assert service.read_metric(FAILED) == 1, "the attempt that the close ended"
    checked = json.loads(run_runbook(service, "verify-report", closed, "--json"))
    assert checked["problems"] == checked["newer"] == []


@pytest.mark.parametrize(
    ("when", "look"),
    [
        ("before the close", "lives on"),
        pytest.param("during the close", "dies, too", marks=pytest.mark.long),
        pytest.param("before the close", "dies, too", marks=pytest.mark.long),
        pytest.param("during the close", "lives on", marks=pytest.mark.long),
    ],
)
def test_killed_while_somebody_closes_its_incident_it_looks_in_another(
    service: Service, receivers: Receivers, look: str, when: str
) -> None:
    service.post(make_payload(make_alert(1)))
    what = f"a notebook is kept\n{service.log}"
    wait_for(lambda: find_notebooks(service) != [], what, every_s=CLOSELY_S)
    closed = find_notebooks(service)[0].parents[1].name
    children = list_children(service)
    assert children, "the look is a process of its own"
    close = None
    if when == "during the close":
        close = start_runbook(service, "close", closed)

        def is_closed() -> bool:
            return read_facts(service, closed)["closed_at"] is not None

        wait_for(is_closed, "it is closed", every_s=CLOSELY_S)
    service.kill()
    if look == "dies, too":
        for child in children:
            os.killpg(child, signal.SIGKILL)
    end_runbook(close or start_runbook(service, "close", closed))
    service.start()
    service.wait_until_done()
    wait_for(lambda: receivers.list_texts("slack") != [], "it is told", deadline_s=240)
    (told,) = find_told(receivers)
    assert told != closed
    checked = json.loads(run_runbook(service, "verify-report", closed, "--json"))
    assert checked["problems"] == checked["newer"] == []
    check = json.loads(end_runbook(start_runbook(service, "check", "--json")))
    assert check["unfinished"] == []


def list_children(service: Service) -> list[int]:
    """Return the ids of the processes that the service has started."""
    assert service.process is not None
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process that has just ended
            _, _, fields = path.read_text().rpartition(") ")
            if int(fields.split()[1]) == service.process.pid:
                children.append(int(path.parent.name))
    return children


def find_notebooks(service: Service) -> list[Path]:
    """Return the notebooks of all incidents that hold cells already."""
    paths = sorted(service.home.glob("inc-*/notebooks/*.ipynb"))
    return [path for path in paths if path.stat().st_size]


def run_runbook(service: Service, *words: str) -> str:
    """Run a command in the service's home; return what it prints."""
    return end_runbook(start_runbook(service, *words))


def start_runbook(service: Service, *words: str) -> subprocess.Popen[str]:
    """Start a command in the service's home."""
    return subprocess.Popen(
        [sys.executable, "-m", "runbook_lib", *words],
        cwd=service.folder,
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_runbook(process: subprocess.Popen[str]) -> str:
    """Wait for a command's end; return what it prints."""
    output, errors = process.communicate(timeout=120)
    assert errors == "", errors
    return output


def test_a_stop_ends_at_once_and_what_was_under_way_goes_on(
    service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, support_case=CASE)))
    wait_for_step(service, "look-1-1", "open")
    assert service.stop() == 0
    service.start()
    service.wait_until_done()
    check_once(receivers, repeats=1)
