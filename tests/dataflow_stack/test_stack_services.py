"""The pure parts of the demo services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3
from minio.error import S3Error

from dataflow_stack.services.clock import Clock, format_naive, format_offset, format_z, parse_time
from dataflow_stack.services.fulfillment.documents import make_document
from dataflow_stack.services.fulfillment.shipments import Artifact, Order, Shipments
from dataflow_stack.services.notification_sink import parse_message
from dataflow_stack.services.pipeline_api import Pipeline, PipelineSettings
from dataflow_stack.services.support.tickets import Tickets
from dataflow_stack.store_client import find_reason, user_metadata

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


@pytest.mark.parametrize("write", [format_z, format_offset, format_naive])
def test_all_three_time_forms_mean_the_same(write: object) -> None:
    assert callable(write)
    assert parse_time(write(AT)) == AT


def test_a_time_in_another_zone_is_read_as_utc() -> None:
    assert parse_time("2026-11-24T10:14:00.250+07:00") == AT


def test_a_clock_that_is_ahead_tells_a_later_time() -> None:
    assert Clock(120).now() - Clock().now() > timedelta(seconds=119)


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


def test_user_metadata_loses_prefix_and_capitals() -> None:
    headers = urllib3.HTTPHeaderDict({"X-Amz-Meta-Order-Id": "7", "ETag": "x"})
    assert user_metadata(headers) == {"order-id": "7"}


def test_a_document_is_a_pdf_and_the_same_each_time() -> None:
    def make(kind: str) -> bytes:
        return make_document(kind, order_id=7, carrier="GHN", artifact_id="0123456789ab", since=AT)

    label = make("label")
    assert label.startswith(b"%PDF-")
    assert make("label") == label
    assert make("packing_slip") != label


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


def test_an_order_waits_for_its_documents_until_they_are_uploaded(tmp_path: Path) -> None:
    shipments = Shipments(tmp_path / "db", Clock())
    shipments.add([Order(7, AT)])
    assert [order.order_id for order in shipments.due_for_upload(10)] == [7]
    assert shipments.due_for_upload(10) == []
    shipments.retry_at(7, 0)
    assert [order.shipped_at for order in shipments.due_for_upload(10)] == [AT]
    # A restart forgets waits that were measured by the old process's clock.
    assert len(Shipments(tmp_path / "db", Clock()).due_for_upload(10)) == 1


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


def test_a_switch_knows_when_it_was_changed(tmp_path: Path) -> None:
    shipments = Shipments(tmp_path / "db", Clock())
    assert shipments.switched_at("worker_paused") is None
    shipments.set_switch("worker_paused", True)
    first = shipments.switched_at("worker_paused")
    assert first is not None
    shipments.set_switch("worker_paused", True)

    assert shipments.switched_at("worker_paused") == first


def test_a_paused_dag_keeps_who_paused_it(tmp_path: Path) -> None:
    pipeline = Pipeline(PipelineSettings(database=tmp_path / "db"), Clock())
    pipeline.set_paused(True, by="planner")
    pipeline.set_paused(False)

    logs = pipeline.event_logs(event="patch_dag", limit=5, newest_first=True)
    owners = [log["owner"] for log in logs["event_logs"]]
    assert owners == ["anonymous", "planner"]


def test_a_paused_dag_records_no_run(tmp_path: Path) -> None:
    settings = PipelineSettings(database=tmp_path / "db")
    pipeline = Pipeline(settings, Clock())
    pipeline.run_if_due()
    pipeline.set_paused(True)
    pipeline.run_if_due()
    runs = pipeline.runs(limit=10, newest_first=True)
    assert runs["total_entries"] == 1
    assert pipeline.dag()["next_dagrun_run_after"] is None


def test_a_failing_dag_shows_it_in_its_newest_run(tmp_path: Path) -> None:
    pipeline = Pipeline(PipelineSettings(database=tmp_path / "db"), Clock())
    pipeline.run_if_due()
    pipeline.set_failing(True)
    newest = pipeline.runs(limit=1, newest_first=True)["dag_runs"][0]
    oldest = pipeline.runs(limit=1, newest_first=False)["dag_runs"][0]
    assert (oldest["state"], newest["state"]) == ("success", "failed")


def test_a_cached_timeline_lasts_for_its_ttl(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "db", Clock())
    ticket = tickets.create("s", "email", [], "")
    tickets.cache_timeline(ticket, [{"type": "context"}], 300)
    assert tickets.cached_timeline(ticket) == [{"type": "context"}]
    assert Tickets(tmp_path / "db", Clock(301)).cached_timeline(ticket) is None
    tickets.drop_timeline(ticket)
    assert tickets.cached_timeline(ticket) is None
