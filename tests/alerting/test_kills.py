"""Nothing is lost and nothing is done twice, whatever dies."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.gateway import StoreServer
from tests.support.serving import (
    CASE,
    Receivers,
    Service,
    make_alert,
    make_payload,
    make_service,
    run_receivers,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(400)]
#: A step of the job, before which the process dies, and the job.
STEPS = [
    ("look-1-1", "open"),
    ("look-1-1", "investigate"),
    ("look-1-1", "render"),
    ("ticket", "attempt"),
    ("slack", "attempt"),
    ("mail", "attempt"),
]


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with run_receivers() as running:
        yield running


@pytest.fixture
def service(receivers: Receivers, juicefs: StoreServer, tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path, receivers, get_settings(juicefs))
    made.start()
    yield made
    made.stop()


def get_settings(store: StoreServer) -> dict[str, str]:
    return {
        "MINIO_ENDPOINT": store.endpoint,
        "MINIO_ROOT_USER": "admin",
        "MINIO_ROOT_PASSWORD": "admin12345",
    }


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
    """Check that each target got one message, and at most so many repeats that say so.

    Of a target that took nothing at first only the repeat arrived. A ticket has no repeats.
    """
    assert len(receivers.list_texts("ticket")) == 1
    told = {name: receivers.list_texts(name) for name in ("slack", "teams")}
    told["mail"] = [mail.decode() for mail in receivers.mails]
    for target, texts in told.items():
        again = [text for text in texts if "Sent again" in text or "[again]" in text]
        assert texts, target
        assert len(again) <= repeats, target
        assert len(texts) - len(again) <= 1, target


def list_steps(service: Service, job: str) -> list[str]:
    """Return the steps of a job that dbos has written down."""
    path = service.home / "serve" / "serve.sqlite3"
    query = "SELECT function_name FROM operation_outputs WHERE workflow_uuid LIKE ?"
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return [name for (name,) in db.execute(query, (f"%{job}%",))]


def test_a_burst_is_one_incident_and_one_message_though_the_process_dies_three_times(
    service: Service, receivers: Receivers
) -> None:
    first = make_alert(1, support_case=CASE)
    copies = [make_payload(*[first] * 100) for _ in range(10)]
    burst = [make_payload(*[make_alert(n) for n in range(start, start + 50)]) for start in (2, 52)]
    burst += [make_payload(*[make_alert(n) for n in range(102, 201)])]
    for payload in copies:
        assert service.post(payload).status_code == 202
    for payload in burst:
        assert service.post(payload).json()["folded"] == 0
        service.kill()
        service.start()
    service.wait_until_done()
    told = find_told(receivers)
    assert len(told) == 1
    (report,) = [text for name, text in list_reports(service).items() if name in told]
    missing = [n for n in range(1, 201) if f"{n:016x}" not in report]
    assert missing == []
    check_once(receivers, repeats=1)
    assert service.post(make_payload(first)).json() == {"accepted": 0, "folded": 1}


@pytest.mark.parametrize(("job", "step"), STEPS)
def test_killed_before_a_step_each_message_arrives_once(
    job: str, step: str, service: Service, receivers: Receivers
) -> None:
    order = ["open", "investigate", "render"]
    before = order[order.index(step) - 1] if step in order[1:] else ""
    service.post(make_payload(make_alert(1, support_case=CASE)))
    if step == "attempt":
        wait_for(lambda: "began" in list_steps(service, f"-{job}"), f"{job} began")
    elif before:
        wait_for(lambda: before in list_steps(service, job), f"{before} is done")
    service.kill()
    service.start()
    service.wait_until_done()
    # What was written down as being sent may have arrived before the process died.
    check_once(receivers, repeats=1)
    assert len(find_told(receivers)) == 1
    counts = Counter(list_steps(service, "look-1-1"))
    assert counts == {"open": 1, "investigate": 1, "render": 1, "end": 1} | {
        name: count for name, count in counts.items() if name not in (*order, "end")
    }


@pytest.mark.parametrize("mode", ["500", "silent", "closed", "lost"])
def test_a_target_that_is_down_gets_its_message_when_it_is_back(
    mode: str, service: Service, receivers: Receivers
) -> None:
    names = ("ticket", "slack", "teams", "mail")
    for name in names:
        # A mailbox that is silent would hold the test's own server.
        is_mail = name == "mail" and mode == "silent"
        receivers.modes[name] = "500" if is_mail else mode
    service.post(make_payload(make_alert(1, support_case=CASE)))
    tries = 'deliveries_total{{result="{}",target="slack"}}'
    results = ("retried", "lost", "unconfirmed")
    wait_for(
        lambda: sum(service.read_metric(tries.format(result)) for result in results) >= 2,
        f"slack was tried twice\n{service.log}",
        deadline_s=240,
    )
    receivers.modes.clear()
    service.wait_until_done()
    check_once(receivers, repeats=0 if mode == "500" else 1)
    assert service.read_metric('deliveries_total{result="failed",target="slack"}') == 0


def test_a_full_queue_is_503_and_what_is_sent_again_is_taken(
    receivers: Receivers, juicefs: StoreServer, tmp_path: Path
) -> None:
    service = make_service(tmp_path, receivers, get_settings(juicefs), SERVE_QUEUE_LIMIT="5")
    service.start()
    try:
        assert service.post(make_payload(*map(make_alert, range(1, 6)))).status_code == 202
        answer = service.post(make_payload(make_alert(7)))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        wait_for(
            lambda: service.post(make_payload(make_alert(7))).status_code == 202,
            f"the queue drains\n{service.log}",
            deadline_s=240,
        )
        service.wait_until_done()
        assert any(f"{7:016x}" in text for text in list_reports(service).values())
    finally:
        service.stop()


def test_episodes_apart_in_time_have_folders_of_their_own_and_resolved_measures_anew(
    service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, support_case=CASE)))
    service.wait_until_done()
    service.post(make_payload(make_alert(1, status="resolved", support_case=CASE)))
    wait_for(
        lambda: len(receivers.list_texts("ticket")) == 2,
        f"the follow-up is told\n{service.log}",
        deadline_s=240,
    )
    later = make_alert(2, support_case=CASE) | {"startsAt": "2026-11-24T05:00:00Z"}
    service.post(make_payload(later))
    service.wait_until_done()
    wait_for(lambda: len(receivers.list_texts("ticket")) == 3, "the next one", deadline_s=240)
    reports = list_reports(service)
    first = {name for name, text in reports.items() if f"{1:016x}" in text}
    second = {name for name, text in reports.items() if f"{2:016x}" in text}
    assert first
    assert len(second) == 1
    assert not first & second


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


def test_a_stop_ends_at_once_and_what_was_under_way_goes_on(
    service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, support_case=CASE)))
    wait_for(lambda: "open" in list_steps(service, "look-1-1"), "the look began")
    assert service.stop() == 0
    service.start()
    service.wait_until_done()
    check_once(receivers, repeats=1)
