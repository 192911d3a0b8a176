"""One timeline on one clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fulfillment.analysis.samples import Sample
from fulfillment.sections.timeline import (
    Event,
    find_alert_changes,
    merge_events,
)

T0 = datetime(2026, 11, 24, 3, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def series(*values: float) -> list[Sample]:
    return [Sample(at(i), value) for i, value in enumerate(values)]


def test_a_state_begins_and_ends_where_samples_stop() -> None:
    points = [Sample(at(m), 1.0) for m in (1, 2, 3, 8, 9)]
    events = find_alert_changes(points, name="A", state="firing", interval_s=60, now=at(9))
    assert [(e.at, e.text) for e in events] == [
        (at(1), "A firing begins"),
        (at(4), "A firing ends"),
        (at(8), "A firing begins"),
    ]
    assert {(e.kind, e.source) for e in events} == {("alert", "prometheus")}


def test_an_alert_without_a_new_sample_has_ended() -> None:
    points = [Sample(at(1), 1.0), Sample(at(2), 1.0)]
    events = find_alert_changes(points, name="A", state="firing", interval_s=60, now=at(6))
    assert [(e.at, e.text) for e in events] == [
        (at(1), "A firing begins"),
        (at(3), "A firing ends"),
    ]


def test_a_zero_ends_a_state() -> None:
    events = find_alert_changes(
        series(0, 1, 1, 0, 0), name="up", state="firing", interval_s=60, now=at(90)
    )
    assert [(e.at, e.text) for e in events] == [
        (at(1), "up firing begins"),
        (at(3), "up firing ends"),
    ]


def test_events_are_in_order_without_duplicates() -> None:
    late = Event(at(5), "error", "x", "worker")
    early = Event(at(4), "action", "y")
    merged = merge_events([late, late, early])
    assert [(e.at, e.text) for e in merged] == [(at(4), "y"), (at(5), "x")]


def test_events_over_the_limit_are_left_out() -> None:
    events = [Event(at(m), "k", str(m)) for m in range(300)]
    assert [e.text for e in merge_events(events)] == [str(m) for m in range(100, 300)]
