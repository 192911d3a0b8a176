"""The pure parts of the demo services."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3
from minio.error import S3Error

from dataflow_stack.services.clock import Clock, format_z, parse_time
from dataflow_stack.services.fulfillment.shipments import Artifact, Order, Shipments
from dataflow_stack.services.notification_sink import parse_message
from dataflow_stack.store_client import find_reason

AT = datetime(2026, 11, 24, 3, 14, 0, 250_000, tzinfo=UTC)


def s3_error(code: str, message: str = "") -> S3Error:
    response = urllib3.HTTPResponse(status=500)
    return S3Error(
        response=response,
        code=code,
        message=message,
        resource="/bucket/key",
        request_id="1",
        host_id="",
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (s3_error("SignatureDoesNotMatch"), "bad_credentials"),
        (s3_error("InvalidAccessKeyId"), "bad_credentials"),
        (s3_error("AccessDenied"), "access_denied"),
        (s3_error("NoSuchBucket"), "no_such_bucket"),
        (
            s3_error("InternalError", "please try again.: cause(disk quota exceeded)"),
            "storage_full",
        ),
        (s3_error("XMinioStorageFull"), "storage_full"),
        (s3_error("InternalError", "please try again."), "other"),
        (ConnectionResetError(), "store_unreachable"),
        (urllib3.exceptions.ProtocolError("broken"), "store_unreachable"),
    ],
)
def test_a_store_error_has_a_reason(error: Exception, reason: str) -> None:
    assert find_reason(error) == reason


def test_a_shipment_is_in_transit_only_after_both_documents(tmp_path: Path) -> None:
    shipments = Shipments(tmp_path / "db", Clock())
    assert shipments.add([Order(7, AT)]) == 1
    assert shipments.add([Order(7, AT)]) == 0
    shipments.set_carrier_number(7, "GHN1")
    shipments.set_uploaded(7, [Artifact("a.pdf", 7, "label"), Artifact("b.pdf", 7, "packing_slip")])
    handed_over = shipments.get("order_id", 7)
    assert handed_over is not None
    assert handed_over["updatedAt"] == format_z(AT)
    shipments.set_released("a.pdf", "worker", "GHN1")
    assert shipments.find(status="IN_TRANSIT")["total"] == 0
    shipments.set_released("b.pdf", "worker", "GHN1")
    found = shipments.find(status="IN_TRANSIT")
    assert found["total"] == 1
    assert found["items"][0]["trackingNumber"] == "GHN1"
    assert parse_time(found["items"][0]["updatedAt"]) > AT
    assert shipments.waiting() == []


@pytest.mark.parametrize(
    ("text", "status", "names", "drill"),
    [
        (
            "[FIRING:2] FulfillmentDelay (fulfillment-service)",
            "firing",
            ["FulfillmentDelay"],
            False,
        ),
        ("[DRILL] [RESOLVED] FulfillmentDelay (x)", "resolved", ["FulfillmentDelay"], True),
        (
            "[FIRING:1] A (x)\n[firing] A (high): s\n[firing] B (high): s",
            "firing",
            ["A", "B"],
            False,
        ),
        ("hello", "", [], False),
    ],
)
def test_a_notification_text_is_understood(
    text: str, status: str, names: list[str], drill: bool
) -> None:
    assert parse_message(text) == {"status": status, "alertnames": names, "drill": drill}
