"""Two people work on one incident folder: both see everything, neither overwrites."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pytest_httpserver import HTTPServer

from chainlog import read_entries
from fulfillment.investigation import Investigation
from fulfillment.sections import detection, immediate
from runbook_lib.model import Reading, Status
from tests.support.world import make_settings

NOTES = 40
Both = tuple[Investigation, Investigation]


@pytest.fixture
def both(tmp_path: Path, httpserver: HTTPServer) -> Both:
    """Open one incident twice, as two kernels do: nothing is shared but the folder."""
    settings = make_settings(tmp_path, probe_url=httpserver.url_for(""))
    one = Investigation.open(section=detection, settings=settings)
    return one, Investigation.open(one.incident.id, section=immediate, settings=settings)


def test_entries_written_at_the_same_time_are_all_kept_in_one_chain(both: Both) -> None:
    one, two = both
    barrier = Barrier(2)

    def write(inv: Investigation) -> list[int]:
        barrier.wait(timeout=30)
        return [inv.note(f"{inv.section.NAME} {number}") for number in range(NOTES)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(write, (one, two))

    entries = list(read_entries(one.incident.journal.path))
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    assert sorted(first + second) == [e.seq for e in entries if e.kind == "note"]
    for inv, numbers in ((one, first), (two, second)):
        told = {e.seq: e.data["text"] for e in entries if e.kind == "note"}
        assert [told[n] for n in numbers] == [f"{inv.section.NAME} {i}" for i in range(NOTES)]


def test_each_sees_what_the_other_wrote_at_once(both: Both) -> None:
    one, two = both

    one.note("I restart nothing")
    assert two.incident.journal.view().entries[-1].data["text"] == "I restart nothing"
    two.note("I look at the store")
    texts = [e.data["text"] for e in one.incident.journal.view().entries if e.kind == "note"]
    assert texts == ["I restart nothing", "I look at the store"]


def test_a_reading_of_one_is_reused_by_the_other(both: Both) -> None:
    one, two = both
    reading = Reading(
        step="2.3",
        name="backlog",
        value=3,
        status=Status.OK,
        observed_at=one.now(),
        source="listing",
    )
    one.record("reading", {"reading": reading.model_dump(mode="json")})

    assert two.latest()["2.3"].value == 3


def test_facts_of_the_incident_written_by_both_are_both_kept(both: Both) -> None:
    one, two = both

    one.incident.update(ticket_id="t-1")
    two.incident.update(verdict="incident")

    assert {one.ticket_id, two.ticket_id} == {"t-1"}
    assert one.incident.state.verdict == "incident"
