"""What the safety table counts: the harm that a body's places show, and words that are not so."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from bench.safety import CASES, OURS, File, Places, find_breaches, is_false, judge

OLD, NEW = (hashlib.sha256(body).hexdigest() for body in (b"old", b"new"))
SOURCE, TO = "pending/a.pdf", "ready/a.pdf"
#: Where the contents are, how often they were taken, and the outcome.
OUTCOMES = [
    ({OLD: [SOURCE]}, {}, "left"),
    ({OLD: [TO]}, {}, "moved"),
    ({}, {OLD: 1}, "moved"),
    ({OLD: ["parked/a.pdf"]}, {OLD: 1}, "moved"),
    ({}, {}, "lost"),
    ({}, {OLD: 2}, "twice"),
    ({OLD: [TO]}, {OLD: 1}, "twice"),
]


@pytest.mark.parametrize(("keys", "taken", "outcome"), OUTCOMES)
def test_a_file_counts_by_where_its_content_is(
    keys: dict[str, list[str]], taken: dict[str, int], outcome: str
) -> None:
    places = Places(keys, Counter(taken))
    assert judge(File(SOURCE, TO, b"old"), places, set()) == outcome


def test_a_content_that_had_arrived_was_overwritten() -> None:
    assert judge(File(SOURCE, TO, b"old"), Places({}, Counter()), {OLD}) == "overwritten"


def test_a_rewritten_file_is_lost_with_its_newest_content() -> None:
    file = File(SOURCE, TO, b"old", rewritten=b"new")
    assert judge(file, Places({OLD: [TO]}, Counter()), {OLD}) == "lost"
    assert judge(file, Places({NEW: [SOURCE], OLD: [TO]}, Counter()), {OLD}) == "moved"


@pytest.mark.parametrize(("keys", "is_there"), [([SOURCE], False), ([TO], True)])
def test_a_claim_is_judged_both_ways(keys: list[str], is_there: bool) -> None:
    file = File(SOURCE, TO, b"old")
    places = Places({OLD: keys}, Counter())
    assert is_false(True, file, places) is not is_there
    assert is_false(False, file, places) is is_there
    assert not is_false(None, file, places)


def test_a_file_that_is_also_at_its_source_did_not_move() -> None:
    places = Places({OLD: [SOURCE, TO]}, Counter())
    assert is_false(True, File(SOURCE, TO, b"old"), places)


def test_harm_breaks_a_promise_only_where_there_is_one() -> None:
    harm = Counter(files=1, lost=1)
    found = {(case, OURS, store): harm for case in CASES for store in ("juicefs", "seaweedfs")}
    broken = {tuple(words.split(": ")[0].split(", ")) for words in find_breaches(found)}
    assert ("kill", "juicefs") in broken
    assert ("rewritten", "seaweedfs") in broken
    assert ("rewritten", "juicefs") not in broken
    assert {case for case, _ in broken} == CASES.keys() - {"replay"}
