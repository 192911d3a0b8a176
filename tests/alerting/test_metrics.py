"""The service's metrics before anything happened."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from alerting.book import Book, connect_database
from alerting.metrics import Metrics


@pytest.mark.parametrize(
    "series",
    [
        'requests_refused_total{reason="full"}',
        'looks_total{result="failed"}',
        'deliveries_total{result="sent",target="mail"}',
    ],
)
def test_each_series_starts_at_zero(series: str, tmp_path: Path) -> None:
    engine = connect_database(f"sqlite:///{tmp_path / 'serve.sqlite3'}")
    book = Book(engine, cooldown=timedelta(0))

    lines = Metrics(book).render().decode().splitlines()

    assert f"runbook_serve_{series} 0.0" in lines
    engine.dispose()
