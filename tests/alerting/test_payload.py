"""What is a payload of version 4, and what is refused."""

from __future__ import annotations

import json

import pytest

from alerting.payload import PayloadError, read_payload
from tests.support.serving import make_alert, make_payload


def test_an_alert_is_read_with_its_key_and_its_drill_mark() -> None:
    body = make_payload(make_alert(7, minute=4), make_alert(8, drill="true"))
    real, drill = read_payload(json.dumps(body).encode()).alerts
    assert real.key == ("0000000000000007", "2026-11-24T03:04:00.123Z")
    assert (real.is_drill, drill.is_drill) == (False, True)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"[" * 100_000, "JSON"),
        (json.dumps(make_payload(version="3")).encode(), "version"),
        (json.dumps(make_payload(make_alert() | {"fingerprint": "../x"})).encode(), "fingerprint"),
    ],
)
def test_what_is_no_payload_is_refused_with_the_reason(body: bytes, part: str) -> None:
    with pytest.raises(PayloadError, match=part):
        read_payload(body)
