"""Nothing is lost and nothing is done twice, whatever dies."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.gateway import StoreServer, wait_until
from tests.support.serving import (
    CASE,
    CLOSELY_S,
    Receivers,
    Service,
    get_settings,
    make_alert,
    make_payload,
    make_service,
)

pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(400)]
TARGETS = {"slack": "json", "teams": "json-2", "mail": "mailto", "ticket": "ticket"}


@pytest.fixture
def service(receivers: Receivers, juicefs: StoreServer, tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path, receivers, get_settings(juicefs))
    made.start()
    yield made
    made.stop()


def list_reported(service: Service) -> set[str]:
    return {page.parent.name for page in service.home.glob("inc-*/report.html")}


def find_incident(service: Service, number: int) -> str:
    journals = service.home.glob("inc-*/journal.jsonl")
    (found,) = [path for path in journals if f"{number:016x}" in path.read_text("utf-8")]
    return found.parent.name


def find_told(receivers: Receivers) -> set[str]:
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
    query = (
        "SELECT function_name FROM operation_outputs JOIN workflow_status USING (workflow_uuid)"
        " WHERE name = ?"
    )
    with closing(sqlite3.connect(service.home / "serve" / "jobs.sqlite3", timeout=30)) as db:
        return [name for (name,) in db.execute(query, (job,))]


def wait_for_step(service: Service, job: str, step: str) -> None:
    what = f"{job}: {step}\n{service.log}"
    wait_until(
        lambda: step in list_steps(service, job),
        what=what,
        deadline_s=180,
        longest_pause_s=CLOSELY_S,
    )


def test_200_copies_of_an_alert_and_a_kill_are_one_incident_one_report_and_one_note(
    service: Service, receivers: Receivers
) -> None:
    alert = make_payload(make_alert(1, support_case=CASE))
    for _ in range(100):
        service.post(alert)
    wait_for_step(service, "look", "take")
    service.kill()
    service.start()
    for _ in range(100):
        assert service.post(alert).json() == {"accepted": 0, "folded": 1}
    service.wait_until_done()
    check_once(receivers)
    assert list_reported(service) == find_told(receivers)
    assert len(find_told(receivers)) == 1


def test_killed_at_each_step_all_alerts_stand_in_one_report(
    service: Service, receivers: Receivers
) -> None:
    fifty = make_payload(*[make_alert(n, support_case=CASE) for n in range(1, 51)])
    assert service.post(fifty).json() == {"accepted": 50, "folded": 0}
    for step in ("take", "investigate", "write"):
        wait_for_step(service, "look", step)
        service.kill()
        service.start()
        assert service.post(fifty).json() == {"accepted": 0, "folded": 50}
    later = make_payload(*[make_alert(n, support_case=CASE) for n in range(51, 201)])
    assert service.post(later).json() == {"accepted": 150, "folded": 0}
    service.wait_until_done()
    check_once(receivers, repeats=3)
    (told,) = find_told(receivers)
    journal = (service.home / told / "journal.jsonl").read_text("utf-8")
    assert [n for n in range(1, 201) if f"{n:016x}" not in journal] == []
    counts = Counter(list_steps(service, "look"))
    assert counts["take"] == counts["end"] <= 3


def test_targets_that_are_down_get_their_message_when_they_are_back(
    service: Service, receivers: Receivers
) -> None:
    modes = {"ticket": "lost", "slack": "closed", "teams": "silent", "mail": "500"}
    receivers.modes.update(modes)
    service.post(make_payload(make_alert(1, support_case=CASE)))

    def were_tried() -> bool:
        names = [f'result="retried",target="{TARGETS[target]}"' for target in modes]
        return all(service.read_metric(f"deliveries_total{{{name}}}") >= 2 for name in names)

    wait_until(were_tried, what=f"each was tried twice\n{service.log}", deadline_s=240)
    service.kill()
    service.start()
    receivers.modes.clear()
    service.wait_until_done()
    check_once(receivers, repeats=5)
    assert "secret-path" not in service.log


def test_a_full_queue_is_503_until_a_look_has_seen_what_waits(service: Service) -> None:
    full = make_payload(*[make_alert(n) for n in range(1000)])
    assert service.post(full).json()["accepted"] == 1000
    late = make_payload(make_alert(1000))
    answer = service.post(late)
    assert (answer.status_code, answer.json()["reason"]) == (503, "full")
    wait_until(
        lambda: service.post(late).status_code == 202, what="there is room again", deadline_s=180
    )
    service.wait_until_done()
    assert list_reported(service) == {find_incident(service, 1000)}


def test_a_drill_has_a_folder_and_messages_that_say_so_until_its_alerts_are_over(
    service: Service, receivers: Receivers
) -> None:
    service.post(make_payload(make_alert(1, drill="true")))
    service.post(make_payload(make_alert(2)))
    service.wait_until_done()
    texts = receivers.list_texts("slack")
    assert sorted("[DRILL]" in text for text in texts) == [False, True]
    drill = find_incident(service, 1)
    real = find_incident(service, 2)
    assert drill != real
    service.post(make_payload(make_alert(1, drill="true", status="resolved")))

    def list_open() -> list[str]:
        rows = service.get("/incidents").json()["incidents"]
        return [row["incident"] for row in rows if row["is_open"]]

    what = f"the drill's folder is closed\n{service.log}"
    wait_until(lambda: drill not in list_open(), what=what, deadline_s=180)
    assert real in list_open()
