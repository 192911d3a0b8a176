"""PrometheusClient on recorded answers (Prometheus 2.53), and on broken ones."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from fulfillment.clients.http_systems import PrometheusClient, Sample
from runbook_lib.errors import BadAnswerError

AT = 1795490040.123


def client_of(server: HTTPServer) -> PrometheusClient:
    return PrometheusClient(server.url_for(""), timeout_s=5)


def answer(server: HTTPServer, path: str, data: Any, **extra: Any) -> None:
    server.expect_request(path).respond_with_json({"status": "success", "data": data, **extra})


def vector(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"resultType": "vector", "result": list(rows)}


def test_a_query_gives_one_sample_per_series(httpserver: HTTPServer) -> None:
    metric = {"__name__": "fulfillment_lag_minutes", "origin": "real"}
    answer(
        httpserver,
        "/api/v1/query",
        vector({"metric": metric, "value": [AT, "12.5"]}),
        warnings=["PromQL warning: this is only a warning"],
    )
    (series,) = client_of(httpserver).query("fulfillment_lag_minutes")
    assert series.labels == metric
    assert series.samples == (Sample(datetime.fromtimestamp(AT, UTC), 12.5),)


def test_values_that_are_no_numbers_stay_what_they_are(httpserver: HTTPServer) -> None:
    rows = [{"metric": {"i": v}, "value": [AT, v]} for v in ("NaN", "+Inf", "-Inf")]
    answer(httpserver, "/api/v1/query", vector(*rows))
    nan, high, low = (s.samples[0].value for s in client_of(httpserver).query("x"))
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "success", "data": vector({"metric": {}, "value": [AT, "many"]})},
        {"status": "error", "errorType": "timeout", "error": "query timed out"},
    ],
)
def test_another_shape_is_a_bad_answer(httpserver: HTTPServer, body: Any) -> None:
    httpserver.expect_request("/api/v1/query").respond_with_json(body)
    with pytest.raises(BadAnswerError):
        client_of(httpserver).query("x")


def test_targets_are_read_without_their_addresses(httpserver: HTTPServer) -> None:
    answer(
        httpserver,
        "/api/v1/targets",
        {
            "activeTargets": [
                {
                    "labels": {"instance": "minio:9000", "job": "minio"},
                    "scrapePool": "minio",
                    "scrapeUrl": "http://me:secret99@minio:9000/metrics?token=abc",
                    "lastError": "connection refused",
                    "lastScrape": "0001-01-01T00:00:00Z",
                    "health": "down",
                    "scrapeInterval": "1m30s",
                    "scrapeTimeout": "10s",
                }
            ],
            "droppedTargets": [],
        },
    )
    (target,) = client_of(httpserver).list_targets()
    assert (target.job, target.scrape_interval_s) == ("minio", 90)
    assert "secret99" not in repr(target)
