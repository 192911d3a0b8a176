"""What is a payload of version 4, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alerting.payload import (
    PayloadError,
    TooManyAlertsError,
    read_payload,
)
from tests.support.serving import make_alert, make_payload


def read(payload: Any, limit: int = 1000) -> Any:
    return read_payload(json.dumps(payload).encode(), alert_limit=limit)


def test_an_alert_is_read_with_its_key() -> None:
    payload = read(make_payload(make_alert(7, minute=4), truncatedAlerts=3))
    (alert,) = payload.alerts
    assert payload.truncated_alerts == 3
    assert alert.key == ("0000000000000007", "2026-11-24T03:04:00.123Z")
    assert alert.ends_at is None
    assert not alert.is_drill


def test_the_label_drill_marks_a_drill() -> None:
    (alert,) = read(make_payload(make_alert(drill="true"))).alerts
    assert alert.is_drill


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{", "JSON"),
        (b'{"version": NaN}', "JSON"),
        (b'{"version": "4", "x": NaN}', "JSON"),
        (b'{"version": Infinity}', "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":"\\ud800"}', "JSON"),
        (json.dumps(make_payload(version="3")).encode(), "version"),
        (json.dumps(make_payload(alerts=None)).encode(), "alerts"),
        (json.dumps(make_payload(make_alert() | {"fingerprint": "../x"})).encode(), "fingerprint"),
        (json.dumps(make_payload(make_alert() | {"startsAt": "soon"})).encode(), "startsAt"),
        (json.dumps(make_payload(make_alert() | {"status": "odd"})).encode(), "status"),
        (json.dumps(make_payload(make_alert() | {"labels": {"a": 1}})).encode(), "labels"),
        (json.dumps(make_payload(truncatedAlerts=-1)).encode(), "truncatedAlerts"),
    ],
)
def test_what_is_no_payload_is_refused_with_the_reason(body: bytes, part: str) -> None:
    with pytest.raises(PayloadError, match=part):
        read_payload(body, alert_limit=10)


def test_too_many_alerts_are_counted_before_they_are_read() -> None:
    with pytest.raises(TooManyAlertsError, match="3"):
        read(make_payload(*[{"odd": True}] * 3), limit=2)
