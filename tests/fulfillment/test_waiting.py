"""Which waiting labels may move: by their order, by who finished them, by their age."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from fulfillment.clients.http_systems import FulfillmentClient, Shipment
from fulfillment.settings import ORDER_ID_IN_KEY, Settings
from fulfillment.waiting import (
    LabelJudge,
    read_order_id,
    read_shipment_evidence,
)
from objectmove.bucket import Seen
from runbook_lib.errors import (
    ClientError,
    ClientTimeoutError,
    ExitCode,
    SafetyError,
    exit_code_of_error,
)
from tests.support.world import SHIPMENTS

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
WRITTEN = NOW - timedelta(minutes=3)
HEX = "0123456789ab"


@dataclass
class Fulfillment:
    statuses: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    error: ClientError | None = None
    foreign: bool = False
    number: Any = "TRK-1"
    url: str = "http://fulfillment:8108"
    SYSTEM: str = "fulfillment"
    asked: Counter[int] = field(default_factory=Counter)

    def list_shipments(self, order_id: int) -> list[Shipment]:
        self.asked[order_id] += 1
        if self.error is not None:
            raise self.error
        answer = [
            {
                "orderId": 1 if self.foreign else order_id,
                "status": status,
                "trackingNumber": self.number,
                "updatedAt": None,
            }
            for status in self.statuses.get(order_id, ())
        ]
        return SHIPMENTS.validate_python(answer)


def as_client(fake: Any) -> FulfillmentClient:
    return cast("FulfillmentClient", fake)


def label(order: int | str = 4242, **metadata: str) -> Seen:
    named = {name.replace("_", "-"): text for name, text in metadata.items()}
    return Seen(f"pending/{order}-{HEX}.pdf", "e" * 32, 10, WRITTEN, named)


def judge_of(service: Any = None, rule: str = "shipment", **options: Any) -> Any:
    settings = Settings(label_finished=rule, **options.pop("settings", {}))
    return LabelJudge(settings, as_client(service or Fulfillment()), now=NOW, **options)


def reasons(service: Any, *labels: Seen, **options: Any) -> list[str]:
    return [one.exclude for one in judge_of(service, **options)(labels)]


@pytest.mark.parametrize(
    ("key", "metadata", "rule", "wanted"),
    [
        (f"pending/4242-{HEX}.pdf", {}, "metadata:order-id", "4242"),
        (f"pending/4242-{HEX}.pdf", {"order-id": " 77 "}, "metadata:order-id", "77"),
        (f"pending/4242-{HEX}.pdf", {"order-id": "77"}, f"key:{ORDER_ID_IN_KEY}", "4242"),
        (f"pending/7-{HEX}.pdf/label.pdf", {}, "metadata:order-id", ""),
        ("pending/DE/ORD-99_x.pdf", {}, r"key:ORD-(\d+)", "99"),
    ],
)
def test_the_order_stands_in_the_metadata_or_in_the_key(
    key: str, metadata: dict[str, str], rule: str, wanted: str
) -> None:
    assert read_order_id(key, metadata, rule) == wanted


@pytest.mark.parametrize(
    ("statuses", "wanted"),
    [
        *[([status], "") for status in ("pending", "ready", "processing", "packed", "delayed")],
        (["shipped"], ""),
        ([" Packed "], ""),
        (["cancelled"], "not_wanted"),
        (["cancelled", "delivered", "packed"], ""),
        (["on_the_moon"], "not_wanted"),
        ([], "not_wanted"),
    ],
)
def test_the_status_of_its_orders_shipments_says_whether_a_label_may_go(
    statuses: list[str | None], wanted: str
) -> None:
    assert reasons(Fulfillment({1: statuses}), label(1)) == [wanted]


def test_each_order_is_asked_once_over_the_whole_plan() -> None:
    service = Fulfillment({1: ["packed"], 2: ["cancelled"]})
    judge = judge_of(service)
    for _ in range(3):
        assert [one.exclude for one in judge([label(1), label(1), label(2)])] == [
            "",
            "",
            "not_wanted",
        ]
    assert service.asked == {1: 1, 2: 1}


def test_only_orders_of_labels_that_nothing_else_excludes_are_asked() -> None:
    service = Fulfillment({1: ["packed"]})
    labels = [label(1), label(2), label(3, chaos_scenario="x"), label("x")]
    assert reasons(service, *labels, only_orders=frozenset({"1"})) == [
        "",
        "not_of_this_drill",
        "synthetic",
        "no_order_id",
    ]
    assert set(service.asked) == {1}


@pytest.mark.parametrize(
    "service",
    [
        Fulfillment(error=ClientTimeoutError("did not answer within 5 s.", system="fulfillment")),
        Fulfillment({4242: ["packed"]}, foreign=True),
    ],
)
def test_a_service_that_cannot_say_refuses_the_plan(service: Fulfillment) -> None:
    with pytest.raises(SafetyError) as caught:
        reasons(service, label())
    text = str(caught.value)
    assert "LABEL_FINISHED=shipment" in text
    assert "http://fulfill" in text
    assert exit_code_of_error(caught.type) == ExitCode.REFUSED


def test_by_metadata_a_label_needs_the_named_key() -> None:
    found = reasons(
        None, label(tracking_number="1Z"), label(tracking_number=" "), label(),
        rule="metadata:tracking-number",
    )  # fmt: skip
    assert found == ["", "incomplete", "incomplete"]


def test_always_asks_nobody() -> None:
    service = Fulfillment(error=ClientTimeoutError("no answer"))
    assert reasons(service, label(), rule="always") == [""]
    assert not service.asked


@pytest.mark.parametrize("rule", ["always", "shipment"])
@pytest.mark.parametrize(
    "metadata",
    [
        {"chaos-scenario": "fulfillment-delay", "tracking-number": "1Z"},
        {"drill-id": "d", "expires-at": "2026-11-24T05:00:00Z"},
    ],
)
def test_a_synthetic_object_never_moves(rule: str, metadata: dict[str, str]) -> None:
    seen = Seen(f"pending/1-{HEX}.pdf", "e", 1, WRITTEN, metadata)
    assert reasons(Fulfillment({1: ["packed"]}), seen, rule=rule) == ["synthetic"]


def test_an_object_whose_metadata_nobody_read_stays() -> None:
    seen = Seen(f"pending/1-{HEX}.pdf", "e", 1, WRITTEN)
    assert reasons(None, seen, rule="always") == ["unreadable"]


def test_what_waits_for_less_long_is_too_young() -> None:
    older = label(pending_since="2026-11-24T03:50:00Z")
    found = reasons(None, label(), older, rule="always", older_than_s=600)
    assert found == ["too_young", ""]


@pytest.mark.parametrize(
    ("service", "order", "wanted"),
    [
        (Fulfillment({7: ["cancelled"]}, number=None), "7", r"cancelled.* none$"),
        (Fulfillment({7: ["packed"]}, number="a\x1b[2J\u202eb"), "7", r"packed.* a\[2Jb$"),
        (Fulfillment(error=ClientTimeoutError("slow")), "7", r"slow$"),
    ],
)
def test_the_evidence_for_a_person_is_words(service: Any, order: str, wanted: str) -> None:
    assert re.search(wanted, read_shipment_evidence(as_client(service), order))
