"""The same service with everything that waits in Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.alerting.test_kills import check_once, find_told
from tests.support.gateway import StoreServer, find_free_ports
from tests.support.postgres import run_postgres
from tests.support.serving import (
    CASE,
    CLOSELY_S,
    Receivers,
    Service,
    get_settings,
    make_alert,
    make_payload,
    make_service,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture
def database_url() -> Iterator[str]:
    with run_postgres() as url:
        yield url


@pytest.fixture
def service(
    receivers: Receivers, juicefs: StoreServer, database_url: str, tmp_path: Path
) -> Iterator[Service]:
    made = make_service(tmp_path, receivers, get_settings(juicefs), SERVE_DATABASE_URL=database_url)
    made.start()
    yield made
    made.stop()


def list_steps(database_url: str, job: str) -> list[str]:
    """Return the steps of a job that dbos has written down."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    query = sa.text(
        "SELECT function_name FROM dbos.operation_outputs WHERE workflow_uuid LIKE :job"
    )
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as db:
        return [name for (name,) in db.execute(query, {"job": f"%{job}%"})]


def test_killed_at_steps_nothing_is_lost_and_each_message_arrives_once(
    service: Service, receivers: Receivers, database_url: str
) -> None:
    fifty = [make_alert(n, support_case=CASE) for n in range(1, 51)]
    assert service.post(make_payload(*fifty)).json() == {"accepted": 50, "folded": 0}
    for step in ("open", "investigate"):
        wait_for(
            lambda step=step: step in list_steps(database_url, "look-1-1"), step, every_s=CLOSELY_S
        )
        service.kill()
        service.start()
        assert service.post(make_payload(*fifty)).json() == {"accepted": 0, "folded": 50}
    service.wait_until_done()
    check_once(receivers, repeats=1)
    assert len(find_told(receivers)) == 1
    assert list_steps(database_url, "look-1-1").count("investigate") == 1
    assert not list((service.home / "serve").glob("*.sqlite3"))
    assert "serve-password" not in service.log


def test_a_second_service_on_the_same_database_is_refused(
    service: Service, receivers: Receivers, juicefs: StoreServer, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    url = service.environment["SERVE_DATABASE_URL"]
    second = make_service(folder, receivers, get_settings(juicefs), SERVE_DATABASE_URL=url)
    (port,) = find_free_ports(1)
    second.environment["SERVE_ADDRESS"] = f"127.0.0.1:{port}"
    with pytest.raises(AssertionError, match="another `runbook serve` works with the database"):
        second.start()
    assert second.process is not None
    assert second.process.returncode == 2
