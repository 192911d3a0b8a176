"""Apply, resume, undo and settle on a bucket in memory: the failures of the first version."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chainlog import LogError
from objectmove.bucket import Answer, Request, Seen
from objectmove.carry import Carrier
from objectmove.checks import find_owned
from objectmove.errors import (
    DriftError,
    ExpiredError,
    HeldError,
    MoversError,
    NotApprovedError,
    NotReadyError,
    PlanError,
    RefusedError,
    StoppedError,
)
from objectmove.ledger import Ledger
from objectmove.parking import list_parked
from objectmove.plan import MovePlan, parse_plan
from objectmove.record import RELEASES, list_records
from objectmove.session import CLAIMS, STORE_ID
from objectmove.settling import list_open_rows, make_reopen_plan, make_settle_plan
from tests.objectmove.harness import FakeHold, Place
from tests.support.memory_bucket import lose_answer


@pytest.fixture(params=[True, False], ids=["strict", "loose"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, is_strict=request.param)


def consume(place: Place) -> None:
    """Let a consumer take every copy at once, as polling ``ready/`` does."""

    def fate(request: Request) -> Answer | None:
        if request.kind != "copy" or not request.key.startswith("ready/"):
            return None
        answer = place.bucket.apply(request)
        place.take(request.key)
        return answer

    place.bucket.fate = fate


def is_label(request: Request) -> bool:
    """Tell whether a request is about a label, not about an object of our own."""
    return (request.key or request.keys[0]).endswith(".pdf")


def test_what_a_run_knew_of_each_row_goes_with_it(place: Place) -> None:
    """The proof follows in the same process: two times the rows would not fit into memory."""
    plan = place.plan()
    gc.disable()  # nothing may hold itself, and wait for a collection
    try:
        place.apply(plan)
        carriers = [each for each in gc.get_objects() if isinstance(each, Carrier)]
        left = [each for each in carriers if each.ledger.plan is plan]
    finally:
        gc.enable()
    assert left == []


def copies_of(place: Place) -> list[str]:
    return [r.key for r in place.bucket.sent if r.kind == "copy" and r.key.startswith("ready/")]


class TestAMove:
    def test_puts_every_object_in_place_and_leaves_nothing_of_its_own(self, place: Place) -> None:
        plan = place.plan()
        result = place.apply(plan)
        assert result.is_complete
        assert result.moved == 3
        assert place.keys() == ["ready/0.pdf", "ready/1.pdf", "ready/2.pdf"]
        assert place.keys(".runbook/") == [STORE_ID, f"{RELEASES}{plan.id}/ended.json"]
        assert place.keys("parked/") == []
        assert place.verify(plan).is_complete

    def test_moves_the_first_object_to_its_end_before_the_others(self, place: Place) -> None:
        place.apply(place.plan())
        kinds = [r.kind for r in place.bucket.sent if (r.key or r.keys[0]).endswith(".pdf")]
        assert kinds[0] == "copy"
        assert kinds[1].startswith("delete")

    def test_f1_what_a_polling_consumer_takes_is_moved_and_never_offered_again(
        self, place: Place
    ) -> None:
        consume(place)
        plan = place.plan()
        assert place.apply(plan).is_complete
        proof = place.verify(plan)
        assert proof.is_complete
        assert proof.counts["gone_after_landed"] == 3
        assert place.plan().rows == ()
        assert len(copies_of(place)) == 3

    def test_f2_a_copy_that_landed_before_a_kill_is_not_copied_again(self, place: Place) -> None:
        plan = place.plan()

        def die(request: Request) -> Answer | None:
            if request.kind.startswith("delete") and is_label(request):
                raise KeyboardInterrupt
            return None

        place.bucket.fate = die
        with pytest.raises(KeyboardInterrupt):
            place.apply(plan)
        place.take("ready/0.pdf")
        consume(place)
        assert place.resume(plan).is_complete
        assert copies_of(place).count("ready/0.pdf") == 1

    def test_f3_a_delete_without_an_answer_is_looked_at_after_the_fence(self, place: Place) -> None:
        plan = place.plan()
        kind = "delete" if place.bucket.is_strict else "delete_many"
        lose_answer(place.bucket, kind, of=is_label)
        result = place.apply(plan)
        assert result.is_complete
        assert sum(place.clock.slept) > 30
        assert place.keys() == ["ready/0.pdf", "ready/1.pdf", "ready/2.pdf"]

    def test_f3_a_source_that_someone_else_removed_after_the_copy_stays_moved(
        self, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)

        def fate(request: Request) -> Answer | None:
            if request.kind == "delete" and request.key == "pending/1.pdf":
                place.take("pending/1.pdf")
            return None

        place.bucket.fate = fate
        plan = place.plan()
        assert place.apply(plan).is_complete
        assert place.verify(plan).counts["in_place"] == 3

    def test_a_copy_without_an_answer_that_is_there_is_adopted(self, place: Place) -> None:
        lose_answer(place.bucket, "copy")
        plan = place.plan()
        result = place.apply(plan)
        assert (result.moved, result.already) == (3, 1)
        assert place.verify(plan).is_complete

    def test_a_copy_without_an_answer_that_is_not_there_is_unproven_for_every_plan(
        self, place: Place
    ) -> None:
        gone = iter(["ready/1.pdf"])

        def fate(request: Request) -> Answer | None:
            if request.kind == "copy" and request.key == "ready/1.pdf" and next(gone, ""):
                place.bucket.apply(request)
                place.take("ready/1.pdf")
                return Answer("unknown", code="NoSuchKey")
            return None

        place.bucket.fate = fate
        plan = place.plan()
        result = place.apply(plan)
        assert result.unproven == ["pending/1.pdf"]
        assert not result.is_complete
        assert place.verify(plan).counts["unproven"] == 1
        # out of the worker's reach, and out of every plan's
        assert place.keys("pending/") == []
        assert place.keys("parked/") == [f"parked/{plan.id}/1.pdf"]
        assert place.verify(plan).parked == {"pending/1.pdf": f"parked/{plan.id}/1.pdf"}
        place.write("pending/1.pdf", b"label 1")
        later = place.plan()
        assert later.rows == ()
        assert later.header.excluded == {"in_doubt": 1}
        assert [record.unproven for record in list_records(place.bucket)] == [{1}]
        # resuming, also from nothing but the bucket, does not copy it again
        assert place.resume(plan).unproven == ["pending/1.pdf"]
        assert copies_of(place).count("ready/1.pdf") == 1

    def test_a_copy_with_another_etag_is_a_conflict(self, place: Place) -> None:
        plan = place.plan()
        place.bucket.etag_of_copy = "f" * 32
        result = place.apply(plan)
        assert [told["key"] for told in result.conflicts] == ["pending/0.pdf"]
        assert "pending/0.pdf" in result.stopped
        # the source would ship a second time, and a copy cannot be compared: the pause stays
        assert result.in_reach == ["pending/0.pdf"]
        assert place.hold.paused

    def test_content_that_etags_cannot_compare_moves_by_its_hash(self, place: Place) -> None:
        place.bucket.headers = {"x-amz-server-side-encryption": "aws:kms"}
        plan = place.plan()
        assert all(row.sha256 for row in plan.rows)
        place.bucket.etag_of_copy = "e" * 32
        assert place.apply(plan).is_complete
        assert place.verify(plan).is_complete

    def test_content_that_etags_cannot_compare_and_a_consumer_took_is_unproven(
        self, place: Place
    ) -> None:
        place.bucket.headers = {"x-amz-server-side-encryption": "aws:kms"}
        place.bucket.etag_of_copy = "e" * 32
        consume(place)
        assert place.apply(place.plan()).unproven == ["pending/0.pdf"]

    def test_a_rewritten_source_is_never_deleted(self, tmp_path: Path) -> None:
        place = Place(tmp_path)

        def fate(request: Request) -> Answer | None:
            if request.kind == "delete" and request.key == "pending/1.pdf":
                place.write("pending/1.pdf", b"newer")
            return None

        place.bucket.fate = fate
        plan = place.plan()
        result = place.apply(plan)
        assert [told["key"] for told in result.conflicts] == ["pending/1.pdf"]
        assert place.bucket.read("pending/1.pdf") == b"newer"
        assert place.plan().header.excluded == {"in_doubt": 1}

    def test_a_destination_that_is_taken_is_skipped_and_left_alone(self, place: Place) -> None:
        plan = place.plan()
        place.write("ready/1.pdf", b"other")
        result = place.apply(plan)
        assert [told["key"] for told in result.skipped] == ["pending/1.pdf"]
        assert place.bucket.read("ready/1.pdf") == b"other"

    def test_g11_a_source_that_changed_before_the_beginning_is_skipped_and_told(
        self, place: Place
    ) -> None:
        plan = place.plan()
        place.write("pending/1.pdf", b"newer")
        result = place.apply(plan)
        assert [told["key"] for told in result.skipped] == ["pending/1.pdf"]
        assert result.moved == 2
        assert not result.is_complete
        assert place.bucket.read("pending/1.pdf") == b"newer"

    @pytest.mark.parametrize("why", ["strict", "unheld", "many"])
    def test_g11_changed_sources_refuse_the_beginning(self, place: Place, why: str) -> None:
        for number in range(3, 10):
            place.write(f"pending/{number}.pdf")
        plan = place.plan()
        place.hold.holds = why != "unheld"
        for number in range(4 if why == "many" else 1):
            place.write(f"pending/{number}.pdf", b"newer")
        with pytest.raises(DriftError, match=r"pending/0\.pdf"):
            place.apply(plan, strict=why == "strict")
        assert copies_of(place) == []
        assert place.hold.calls[-1] == "resume"
        # nothing was begun, so nothing is unfinished
        assert list_records(place.bucket) == []

    def test_refused_requests_are_told_and_change_nothing(self, place: Place) -> None:
        plan = place.plan()
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.key.startswith("ready/") else None
        )
        result = place.apply(plan)
        assert "AccessDenied" in result.stopped
        assert result.waiting == 3
        place.bucket.fate = lambda _: None
        assert place.resume(plan).is_complete

    def test_the_ledger_names_who_approved(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        assert place.verify(plan).approved_by == "ops@box"

    def test_f19_a_loss_in_the_declared_window_is_told_everywhere(self, tmp_path: Path) -> None:
        place = Place(tmp_path, is_strict=False)
        later = place.clock.now() + timedelta(hours=1)

        def fate(request: Request) -> Answer | None:
            if request.kind == "delete_many" and "pending/1.pdf" in request.keys:
                place.write("pending/1.pdf", b"newer")
            return None

        place.bucket.fate = fate

        @contextmanager
        def watch(_prefix: str) -> Iterator[Any]:
            written = {"pending/1.pdf": later}
            yield lambda than: {key for key, at in written.items() if at > than[key]}

        plan = place.plan()
        result = place.apply(plan, watch=watch)
        assert result.lost_in_window == ["pending/1.pdf"]
        assert not result.is_complete
        proof = place.verify(plan)
        assert proof.counts["lost"] == 1
        assert not proof.is_complete

    def test_an_approval_that_began_nothing_can_be_given_again(self, place: Place) -> None:
        plan = place.plan()
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.key.endswith("plan.jsonl") else None
        )
        with pytest.raises(StoppedError):
            place.apply(plan)
        place.bucket.fate = lambda _: None
        assert not place.hold.paused
        assert place.apply(plan).is_complete

    def test_resume_ends_a_plan_of_which_nothing_came_on_record(self, place: Place) -> None:
        plan = place.plan()
        with pytest.raises(NotApprovedError, match=plan.id):
            place.resume(plan)
        folder = f"{RELEASES}{plan.id}/"
        place.bucket.fate = lambda r: (
            Answer("unknown", code="NoAnswer")
            if r.key.startswith(folder) and not r.key.endswith("plan.jsonl")
            else None
        )
        with pytest.raises(StoppedError, match=f"runbook resume {plan.id}"):
            place.apply(plan)
        place.bucket.fate = lambda _: None
        assert "plan again" in place.resume(plan).stopped
        assert not place.hold.paused
        assert place.apply(place.plan()).is_complete


class TestApproval:
    def test_only_the_plans_own_hash_approves(self, place: Place) -> None:
        plan = place.plan()
        with pytest.raises(NotApprovedError):
            place.apply(plan, approve="0" * 64)
        assert copies_of(place) == []

    def test_expiry_stops_a_beginning_and_never_a_resume(self, place: Place) -> None:
        plan, late = place.plan(), place.plan()
        lose_answer(place.bucket, "copy", times=1)
        place.apply(plan)
        place.clock.sleep(1000)
        with pytest.raises(ExpiredError):
            place.apply(late)
        assert place.resume(plan).is_complete

    def test_a_plan_is_begun_once(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        with pytest.raises(NotApprovedError, match=plan.id):
            place.apply(plan)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda text: text.replace("pending/1.pdf", "other/1.pdf"),
            lambda text: text.replace('{"key"', ' {"key"', 1),
            lambda text: text.replace('"objects":3', '"objects":2'),
            lambda text: text + "{}\n",
            lambda text: re.sub(r'"to":"ready/0', '"to":"ready/../0', text),
        ],
        ids=["outside", "f11 hidden line", "totals", "line more", "climbs"],
    )
    def test_f11_an_edited_plan_is_refused(self, place: Place, edit: Any) -> None:
        plan = place.plan()
        plan.path.write_text(edit(plan.path.read_text("utf-8")), "utf-8")
        with pytest.raises(PlanError):
            parse_plan(plan.path.read_bytes(), path=plan.path)

    def test_the_same_bytes_share_their_rows_and_a_renamed_file_is_refused(
        self, place: Place
    ) -> None:
        plan = place.plan()
        again = parse_plan(plan.path.read_bytes(), path=plan.path)
        assert again == plan
        assert again.rows is plan.rows
        with pytest.raises(PlanError):
            parse_plan(plan.content, path=plan.path.with_name("other.jsonl"))

    def test_f11_an_edit_after_loading_changes_nothing(self, place: Place) -> None:
        plan = place.plan()
        plan.path.write_text("", "utf-8")
        assert place.apply(plan).is_complete

    def test_prefixes_in_each_other_are_refused(self, place: Place) -> None:
        with pytest.raises(PlanError, match="pending/sub/"):
            place.plan(to="pending/sub/")

    def test_f6_a_store_that_refuses_everything_honours_no_condition(self, place: Place) -> None:
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.if_match or r.if_absent else None
        )
        with pytest.raises(NotReadyError):
            place.plan()

    def test_without_a_fence_the_plan_says_so(self, place: Place) -> None:
        place.bucket.is_fenced = False
        plan = place.plan()
        assert not plan.header.abilities.fence
        assert "accepts expired requests" in plan.header.window


class TestWhoElse:
    def test_f8_a_worker_that_a_person_paused_stays_paused(self, place: Place) -> None:
        place.hold.paused = True
        place.apply(place.plan())
        assert "resume" not in place.hold.calls
        assert place.hold.paused

    def test_f8_a_pause_of_ours_is_taken_back_by_the_resume_of_a_plan_that_is_done(
        self, place: Place
    ) -> None:
        plan = place.plan()
        place.hold.fail_on["resume"] = MoversError("no answer")
        with pytest.raises(StoppedError, match="no answer"):
            place.apply(plan)
        assert place.hold.paused
        place.hold.fail_on.clear()
        other = FakeHold()
        other.paused = True
        place.write("pending/9.pdf")
        assert place.apply(place.plan(), hold=other).is_complete
        assert other.calls.count("resume") == 0
        assert place.resume(plan).is_complete
        assert not place.hold.paused

    def test_f8_a_pause_without_an_answer_is_taken_back(self, place: Place) -> None:
        place.hold.fail_on["pause"] = MoversError("no answer")
        with pytest.raises(RefusedError):
            place.apply(place.plan())
        assert not place.hold.paused

    def test_movers_that_come_back_end_the_run(self, place: Place) -> None:
        plan = place.plan()
        place.hold.check = _fail_after(1, MoversError("it moved just now"))  # type: ignore[method-assign]
        result = place.apply(plan)
        assert "it moved just now" in result.stopped
        assert result.waiting == 3

    def test_a_live_claim_of_another_refuses_and_names_it(self, place: Place) -> None:
        plan = place.plan()
        body = b'{"plan": "rel-x", "by": "bob@desk", "host": "desk", "lease_s": 60}'

        def renew(seconds: float) -> None:
            place.clock.seconds += seconds
            place.bucket.pass_time(seconds)
            place.write(f"{CLAIMS}bob", body)

        place.write(f"{CLAIMS}bob", body)
        place.clock.sleep = renew  # type: ignore[method-assign]
        with pytest.raises(HeldError, match="bob@desk"):
            place.apply(plan)
        assert place.keys(CLAIMS) == [f"{CLAIMS}bob"]

    def test_a_claim_that_nobody_renews_is_waited_for(self, place: Place) -> None:
        plan = place.plan()
        place.write(f"{CLAIMS}dead", b'{"plan":"rel-x","by":"b","host":"h","lease_s":60}')
        assert place.apply(plan).is_complete
        assert sum(place.clock.slept) > 60
        assert any("rel-x" in text for text in place.notices)

    def test_a_look_that_takes_longer_than_the_lease_keeps_the_claim(self, place: Place) -> None:
        plan = place.plan()
        list_objects = place.bucket.list_objects

        def list_slowly(prefix: str, **how: Any) -> Iterator[Seen]:
            for seen in list_objects(prefix, **how):
                if seen.key.endswith(".pdf"):
                    place.clock.sleep(plan.header.timing.lease_s / 2)
                yield seen

        place.bucket.list_objects = list_slowly  # type: ignore[method-assign]
        assert place.apply(plan).is_complete

    def test_f4_a_session_that_slept_past_its_claim_changes_nothing(self, place: Place) -> None:
        plan = place.plan()
        asleep = iter([70.0])

        def fate(request: Request) -> Answer | None:
            if request.kind == "copy" and request.key == "ready/1.pdf":
                place.clock.sleep(next(asleep, 0.0))
                return Answer("none", code="AccessDenied", message="Request has expired")
            return None

        place.bucket.fate = fate
        with pytest.raises(StoppedError, match="runbook resume"):
            place.apply(plan)
        assert place.keys("ready/1") == []

    def test_f14_two_runs_of_a_plan_on_one_machine_exclude_each_other(self, place: Place) -> None:
        plan = place.plan()
        with place.logs(plan.id).locked(), pytest.raises(LogError, match="in use"):
            place.apply(plan)


def _fail_after(count: int, error: Exception) -> Any:
    left = [count]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return check


class TestUndo:
    def test_brings_everything_back_with_its_age(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        undo = place.undo_plan(plan)
        assert place.apply(undo, stands_still=True).is_complete
        assert place.keys() == ["pending/0.pdf", "pending/1.pdf", "pending/2.pdf"]
        info = place.bucket.look(["pending/0.pdf"])["pending/0.pdf"]
        assert info is not None
        assert (info.metadata or {})["pending-since"] < "2026-11-24T04:00:01"
        proof = place.verify(plan)
        assert not proof.is_complete
        assert proof.taken_back_by == undo.id
        assert (proof.counts["taken_back"], proof.counts["waiting"]) == (3, 3)
        assert len(place.plan().rows) == 3

    def test_an_undo_needs_the_word_that_the_consumer_stands_still(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        with pytest.raises(NotApprovedError, match="--consumer-stands-still"):
            place.apply(place.undo_plan(plan))
        assert len(place.keys("ready/")) == 3

    def test_f5_takes_back_copies_whose_source_could_not_be_deleted(self, place: Place) -> None:
        plan = place.plan()
        kind = "delete" if place.bucket.is_strict else "delete_many"
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.kind == kind and is_label(r) else None
        )
        result = place.apply(plan)
        assert result.waiting == 3
        assert place.hold.paused
        with pytest.raises(NotApprovedError, match=f"runbook resume {plan.id}"):
            place.undo_plan(plan)
        place.bucket.fate = lambda _: None
        place.resume(plan, stop_here=True)
        assert place.keys("ready/") == ["ready/0.pdf"]
        assert not place.hold.paused
        undo = place.undo_plan(plan)
        assert place.apply(undo, stands_still=True).is_complete
        assert place.keys() == ["pending/0.pdf", "pending/1.pdf", "pending/2.pdf"]
        # the release that was taken back cannot go on and delete what waits again
        place.resume(plan)
        assert len(place.keys("pending/")) == 3

    def test_leaves_alone_what_a_consumer_took_or_somebody_replaced(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        place.take("ready/0.pdf")
        place.clock.sleep(2)
        place.write("ready/1.pdf", b"other")
        undo = place.undo_plan(plan)
        assert [row.key for row in undo.rows] == ["ready/2.pdf"]
        assert undo.header.excluded == {"not_our_copy": 1, "taken_by_a_consumer": 1}

    def test_a_copy_that_only_a_look_found_is_perhaps_not_ours(self, place: Place) -> None:
        lose_answer(place.bucket, "copy")
        plan = place.plan()
        place.apply(plan)
        undo = place.undo_plan(plan)
        assert len(undo.rows) == 2
        assert undo.header.excluded == {"perhaps_not_our_copy": 1}

    def test_f10_planning_again_keeps_an_undo_that_has_begun(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        undo = place.undo_plan(plan)
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.key.startswith("pending/") else None
        )
        place.apply(undo, stands_still=True)
        assert place.undo_plan(plan).sha256 == undo.sha256

    def test_a_release_that_is_being_taken_back_is_not_done(self, place: Place) -> None:
        plan = place.plan()
        assert place.apply(plan).is_complete
        undo = place.undo_plan(plan)
        place.bucket.fate = lambda r: (
            Answer("none", code="AccessDenied") if r.key.startswith("pending/") else None
        )
        place.apply(undo, stands_still=True)
        again = place.resume(plan)
        assert not again.is_complete
        assert again.waits_for == undo.header.resume_command

    def test_f10_the_window_counts_from_the_first_copy(self, place: Place) -> None:
        plan = place.plan()
        place.apply(plan)
        place.clock.sleep(901)
        place.resume(plan)
        with pytest.raises(ExpiredError, match=plan.id):
            place.undo_plan(plan)

    def test_f15_headers_stay_when_the_age_is_written(self, place: Place) -> None:
        place.bucket.headers = {"content-encoding": "gzip"}
        plan = place.plan()
        place.apply(plan)
        place.apply(place.undo_plan(plan), stands_still=True)
        sent = [r for r in place.bucket.sent if r.kind == "copy" and r.key == "pending/0.pdf"]
        assert sent[-1].headers["content-encoding"] == "gzip"


class TestSettle:
    def _unproven(self, place: Place) -> Any:
        place.bucket.fate = lambda r: (
            Answer("unknown", code="NoSuchKey") if r.key == "ready/1.pdf" else None
        )
        plan = place.plan()
        assert place.apply(plan).unproven == ["pending/1.pdf"]
        place.bucket.fate = lambda _: None
        return plan

    def _settle(self, place: Place, plan: Any, word: Any, keys: Any = ()) -> Any:
        return make_settle_plan(
            place.bucket,
            plan,
            logs=place.logs,
            word=word,
            keys=list(keys),
            evidence={"pending/1.pdf": "shipment 7: in transit"},
            made_by="ops@box",
            others="the worker is held",
            now=place.clock.now(),
        )

    def test_taken_parks_what_is_left_and_closes_the_release(self, place: Place) -> None:
        plan = self._unproven(place)
        settling = self._settle(place, plan, "taken")
        assert settling.rows[0].facts["evidence"] == "shipment 7: in transit"
        result = place.apply(settling)
        assert (result.is_complete, result.settled) == (True, 1)
        assert place.keys("pending/") == []
        assert place.keys("parked/") == [f"parked/{plan.id}/1.pdf"]
        assert list_records(place.bucket) == []
        proof = place.verify(plan)
        assert not proof.is_complete
        assert proof.counts["settled_by_word"] == 1

    def test_a_word_that_was_not_carried_out_settles_nothing(self, place: Place) -> None:
        plan = self._unproven(place)
        place.take("pending/1.pdf")
        settling = self._settle(place, plan, "taken")
        assert settling.rows[0].to == ""
        proof = place.verify(settling)
        assert (proof.counts["settled_by_word"], proof.counts["waiting"]) == (0, 1)
        assert place.apply(settling).settled == 1
        assert place.verify(settling).counts["settled_by_word"] == 1

    def test_taking_a_word_back_names_the_command_that_writes_a_removed_memory(
        self, place: Place
    ) -> None:
        settling = self._settle(place, self._unproven(place), "taken")
        place.take("pending/1.pdf")
        place.apply(settling)
        for seen in list(place.bucket.list_objects(".runbook/")):
            place.take(seen.key)
        with pytest.raises(PlanError, match=f"runbook resume {settling.id}"):
            self._reopen(place, settling)
        place.resume(settling)
        assert len(self._reopen(place, settling).rows) == 1

    def _reopen(self, place: Place, settling: MovePlan) -> MovePlan:
        return make_reopen_plan(
            place.bucket,
            settling,
            logs=place.logs,
            made_by="ops@box",
            now=place.clock.now(),
        )

    def test_a_parked_key_that_is_a_hash_is_known_below_a_longer_prefix(self, place: Place) -> None:
        name = f"{'z' * 300}.pdf"
        place.write("a/pending/1.pdf")
        place.write(f"a/pending/{name}")
        place.bucket.fate = lambda r: (
            Answer("unknown", code="NoSuchKey") if r.key == f"a/ready/{name}" else None
        )
        plan = place.plan(source="a/pending/", to="a/ready/")
        assert place.apply(plan).unproven == [f"a/pending/{name}"]
        assert list_parked(place.bucket, "parked/") == {name: {plan.id}}  # type: ignore[arg-type]

    def test_not_taken_makes_it_plannable_again(self, place: Place) -> None:
        plan = self._unproven(place)
        result = place.apply(self._settle(place, plan, "not_taken"))
        assert (result.is_complete, result.settled) == (True, 1)
        again = place.plan()
        assert [row.key for row in again.rows] == ["pending/1.pdf"]
        assert place.apply(again).is_complete

    def test_of_two_states_with_one_number_all_count(self, place: Place) -> None:
        plan = self._unproven(place)
        record = list_records(place.bucket)[0]
        older = record.model_copy(update={"begun": 2})
        rows = {"skipped": frozenset([2]), "parked": frozenset([1])}
        newer = record.model_copy(update={**rows, "memory_removed": True})
        for number, state in enumerate([older, newer]):
            key = f"{RELEASES}{plan.id}/{record.number + 1:010}-{number}"
            place.write(key, state.model_dump_json().encode())
        merged = list_records(place.bucket)[0]
        assert merged.begun == 3
        assert (merged.skipped, merged.parked, merged.memory_removed) == ({2}, {1}, True)

    def test_a_row_of_an_unfinished_undo_names_a_command_that_is_accepted(
        self, place: Place
    ) -> None:
        plan = self._unproven(place)
        record = list_records(place.bucket)[0]
        undo = record.model_copy(update={"plan": f"{plan.id}-undo", "action": "undo"})
        ledger = Ledger(place.logs("other"), plan)
        (reason,) = find_owned(ledger, {"pending/0.pdf": undo}).values()
        assert reason.endswith(f"runbook resume {plan.id}-undo --consumer-stands-still")

    def test_only_open_rows_can_be_settled(self, place: Place) -> None:
        plan = self._unproven(place)
        with pytest.raises(PlanError, match=r"'pending/1\.pdf'"):
            self._settle(place, plan, "taken", ["pending/0.pdf"])

    def test_a_release_that_was_never_begun_is_not_to_be_resumed(self, place: Place) -> None:
        with pytest.raises(NotApprovedError, match="never begun") as caught:
            list_open_rows(place.bucket, place.plan(), logs=place.logs)
        assert "resume" not in str(caught.value)

    def test_resuming_what_was_never_begun_names_the_command_that_shows_it(
        self, place: Place
    ) -> None:
        plan = place.plan()
        with pytest.raises(NotApprovedError, match=f"runbook apply {plan.id}"):
            place.resume(plan)

    def test_a_release_that_was_cut_off_is_resumed_first(self, place: Place) -> None:
        plan = place.plan()
        place.bucket.fate = _raise_interrupt
        with pytest.raises(KeyboardInterrupt):
            place.apply(plan)
        place.bucket.fate = lambda _: None
        with pytest.raises(NotApprovedError, match="resume"):
            self._settle(place, plan, "taken")


def _raise_interrupt(request: Request) -> Answer | None:
    if request.kind == "copy" and request.key.startswith("ready/"):
        raise KeyboardInterrupt
    return None


def plan_taken(place: Place, plan: MovePlan) -> MovePlan:
    """Plan to settle all unproven rows of a plan as taken."""
    return make_settle_plan(
        place.bucket,
        plan,
        logs=place.logs,
        word="taken",
        keys=[],
        evidence={},
        made_by="ops@box",
        others="the worker is held",
        now=place.clock.now(),
    )


class TestAnotherMachine:
    def test_goes_on_from_the_buckets_record_alone(self, place: Place, tmp_path: Path) -> None:
        plan = place.plan()
        place.bucket.fate = _raise_interrupt
        with pytest.raises(KeyboardInterrupt):
            place.apply(plan)
        place.bucket.fate = lambda _: None
        place.folder = tmp_path / "elsewhere"
        result = place.resume(plan)
        # the first copy was announced: nobody can know any more
        assert result.unproven == ["pending/0.pdf"]
        assert result.moved == 2

    def test_an_older_copy_of_the_folder_cannot_begin_what_was_finished(
        self, place: Place, tmp_path: Path
    ) -> None:
        plan = place.plan()
        place.bucket.fate = _raise_interrupt
        with pytest.raises(KeyboardInterrupt):
            place.apply(plan)
        place.bucket.fate = lambda _: None
        older = tmp_path / "older"
        older.mkdir()
        (older / "ledger").mkdir()
        name = f"{plan.id}.jsonl"
        (older / "ledger" / name).write_bytes((place.folder / "ledger" / name).read_bytes())
        place.resume(plan)
        settling = plan_taken(place, plan)
        place.apply(settling)
        place.folder = older
        sent = len(copies_of(place))
        assert place.resume(plan).is_ended
        assert len(copies_of(place)) == sent

    @pytest.mark.parametrize("number", range(1, 19))
    def test_a_settling_that_is_ended_elsewhere_proves_only_a_word_that_counts(
        self, place: Place, tmp_path: Path, number: int
    ) -> None:
        plan = place.plan()
        place.bucket.fate = lambda r: (
            Answer("unknown", code="NoSuchKey") if r.key == "ready/1.pdf" else None
        )
        assert place.apply(plan).unproven == ["pending/1.pdf"]
        place.take("pending/1.pdf")
        settling = plan_taken(place, plan)
        place.bucket.fate = _interrupt_put(number)
        with suppress(KeyboardInterrupt):
            place.apply(settling)
        place.bucket.fate = lambda _: None
        here = place.folder
        place.folder = tmp_path / "elsewhere"
        with suppress(NotApprovedError):  # nothing was begun
            place.resume(settling)
        settled = place.verify(plan).counts["settled_by_word"]
        place.folder = here
        assert place.verify(settling).counts["settled_by_word"] == settled


def _interrupt_put(number: int) -> Callable[[Request], Answer | None]:
    """Return what interrupts the run at one of its writes of our own."""
    count = 0

    def fate(request: Request) -> Answer | None:
        nonlocal count
        if request.kind == "put":
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return None

    return fate
