"""The running Airflow, left by every test as it was found: unpaused, readable, gate open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.errors import NotFoundError
from tests.support.real_airflow import Airflow, wait_for


@pytest.fixture(scope="session")
def running() -> Airflow:
    """Return the Airflow that scripts/airflow/test.sh started."""
    try:
        return Airflow.from_environment()
    except KeyError as error:
        raise RuntimeError("These tests need a real Airflow: make test-airflow") from error


@pytest.fixture
def airflow(running: Airflow) -> Iterator[Airflow]:
    """Restore after a test what tests change."""
    source = running.dag_file.read_text("utf-8")
    client = running.client()

    def is_readable() -> bool:
        try:
            dag = client.read_dag()
        except NotFoundError:
            return False  # Its file was not read yet.
        return not dag.is_stale and not dag.has_import_errors

    wait_for(is_readable, what="the DAG is parsed")
    yield running
    running.open_gate()
    client.set_paused(False)
    if not running.dag_file.exists() or running.dag_file.read_text("utf-8") != source:
        running.dag_file.write_text(source, encoding="utf-8")
        wait_for(is_readable, what="the DAG is parsed again")
