"""A process waits, ready for the next investigation, and is never in its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runbook_lib.record.incident import read_state
from tests.support.serving import (
    Receivers,
    Service,
    make_alert,
    make_payload,
    make_service,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]
#: Nothing answers there: the report says so.
NO_STORE = {
    "MINIO_ENDPOINT": "127.0.0.1:1",
    "MINIO_ROOT_USER": "admin",
    "MINIO_ROOT_PASSWORD": "admin12345",
}


@pytest.fixture
def service(receivers: Receivers, tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path, receivers, NO_STORE, SERVE_LOOK_READY="true")
    made.start()
    yield made
    made.stop()


def find_ready(service: Service) -> list[psutil.Process]:
    """Return the processes that wait for an investigation."""
    assert service.process is not None
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if "runbook_lib.prepared" in child.cmdline()]


def wait_for_ready(service: Service) -> psutil.Process:
    """Wait until a process waits and its kernel was started; return it."""

    def is_ready() -> bool:
        return any(process.children() for process in find_ready(service))

    wait_for(is_ready, f"a process waits\n{service.log}")
    (process,) = find_ready(service)
    return process


def list_reports(service: Service) -> list[Path]:
    return sorted(service.home.glob("inc-*/report.html"))


def test_it_carries_out_the_next_look_and_another_one_waits_after_it(
    service: Service, receivers: Receivers
) -> None:
    first = wait_for_ready(service)
    assert service.post(make_payload(make_alert())).status_code == 202
    wait_for(lambda: receivers.list_texts("slack") != [], f"it is told\n{service.log}")
    (report,) = list_reports(service)
    assert read_state(report.parent).operators == ("runbook serve",)  # no person looked
    assert not first.is_running()
    second = wait_for_ready(service)
    assert second.pid != first.pid


def test_one_that_died_is_not_missed(service: Service, receivers: Receivers) -> None:
    process = wait_for_ready(service)
    kernels = process.children()
    process.kill()
    assert service.post(make_payload(make_alert())).status_code == 202
    wait_for(lambda: receivers.list_texts("slack") != [], f"it is told\n{service.log}")
    assert len(list_reports(service)) == 1
    psutil.wait_procs(kernels, timeout=60)
    assert not [kernel for kernel in kernels if kernel.is_running()]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_ends_with_the_service(service: Service, how: str) -> None:
    process = wait_for_ready(service)
    family = [process, *process.children()]
    if how == "stop":
        assert service.stop() == 0
    else:
        service.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
