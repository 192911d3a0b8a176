"""Shards of one manifest: claims with ranges, one approval, one hold, one proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from objectmove.errors import (
    ExpiredError,
    HeldError,
    LimitError,
    NotApprovedError,
    PlanError,
    StoppedError,
)
from objectmove.manifest import fetch_plan, parse_plan_file
from objectmove.record import RELEASES, list_records
from objectmove.session import CLAIMS, HOLD, Claim
from tests.objectmove.harness import Place


@pytest.fixture(params=[True, False], ids=["strict", "loose"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, count=6, is_strict=request.param)


class TestClaims:
    MINE = Claim(manifest="rel-x", first="pending/a", last="pending/c")

    def test_of_disjoint_ranges_of_one_manifest_stand_side_by_side(self) -> None:
        other = Claim(manifest="rel-x", first="pending/d", last="pending/f")
        assert self.MINE.is_beside(other)
        assert other.is_beside(self.MINE)

    @pytest.mark.parametrize(
        "other",
        [
            Claim(manifest="rel-x", first="pending/c", last="pending/f"),
            Claim(manifest="rel-x", first="pending/a", last="pending/c"),
            Claim(manifest="rel-y", first="pending/d", last="pending/f"),
            Claim(manifest="rel-x"),
            Claim(manifest="rel-x", first="pending/f", last="pending/d"),
            Claim(plan="rel-z"),
            Claim(),
        ],
        ids=["overlap", "same", "manifest", "no range", "reversed", "plan", "unreadable"],
    )
    def test_of_anything_else_exclude_each_other(self, other: Claim) -> None:
        assert not self.MINE.is_beside(other)
        assert not other.is_beside(self.MINE)

    def test_about_the_hold_exclude_each_other_and_no_shard(self) -> None:
        about_hold = Claim(manifest="rel-x", first=HOLD, last=HOLD)
        assert about_hold.is_beside(self.MINE)
        assert not about_hold.is_beside(about_hold)

    def test_an_older_programs_claim_is_waited_for_by_a_shard(self, place: Place) -> None:
        manifest, _ = place.cut(2)
        place.write(f"{CLAIMS}old", b'{"plan":"rel-o","by":"b","host":"h","lease_s":60}')
        assert place.apply(manifest).is_complete
        assert sum(place.clock.slept) > 60

    def test_a_shard_works_beside_a_live_claim_of_its_sibling(self, place: Place) -> None:
        manifest, (first, second) = place.cut(2)
        claim = Claim(
            plan=first.id,
            manifest=manifest.id,
            first=first.header.first,
            last=first.header.last,
        )
        place.write(f"{CLAIMS}sibling", claim.model_dump_json().encode())
        assert place.apply(second, approve=manifest.sha256).moved == 3
        assert sum(place.clock.slept) < 5
        assert place.hold.paused  # for the first one

    def test_an_unsharded_plan_waits_for_the_claim_of_a_shard(self, place: Place) -> None:
        plan = place.plan()
        claim = Claim(plan="rel-x#1", manifest="rel-x", first="pending/x", last="pending/z")
        body = claim.model_dump_json().encode()

        def renew(seconds: float) -> None:
            place.clock.seconds += seconds
            place.bucket.pass_time(seconds)
            place.write(f"{CLAIMS}shard", body)

        place.write(f"{CLAIMS}shard", body)
        place.clock.sleep = renew  # type: ignore[method-assign]
        with pytest.raises(HeldError, match="rel-x#1"):
            place.apply(plan)


class TestAManifest:
    def test_names_ranges_counts_and_hashes_of_its_shards(self, place: Place) -> None:
        manifest, shards = place.cut(4)
        assert [plan.id for plan in shards] == [f"{manifest.id}#{n}" for n in (1, 2, 3)]
        assert [line.sha256 for line in manifest.shards] == [plan.sha256 for plan in shards]
        assert [line.objects for line in manifest.shards] == [2, 2, 2]
        assert manifest.shards[1].first == "pending/2.pdf"
        assert manifest.shards[1].last == "pending/3.pdf"
        assert manifest.header.objects == 6
        assert manifest.header.bytes == sum(plan.header.bytes for plan in shards)

    def test_a_plan_that_is_no_shard_has_no_field_of_one(self, place: Place) -> None:
        head = json.loads(place.plan().content.partition(b"\n")[0])
        assert not {"first", "last"} & head.keys()

    def test_of_nothing_is_an_empty_plan(self, tmp_path: Path) -> None:
        plan = Place(tmp_path, count=0).plan(shards=3)
        assert plan.rows == ()
        assert plan.shards == ()

    def test_holds_as_many_objects_as_its_shards_may(self, place: Place) -> None:
        with pytest.raises(LimitError):
            place.cut(2, limit_objects=2)
        assert len(place.cut(3, limit_objects=2)[1]) == 3

    def test_does_not_take_what_the_bucket_forgot(self, place: Place) -> None:
        with pytest.raises(PlanError):
            place.cut(2, memory_removed=True)

    def test_leaves_no_spool_behind(self, place: Place) -> None:
        manifest, shards = place.cut(2)
        names = {path.name for path in manifest.path.parent.iterdir()}
        assert names == {plan.path.name for plan in (manifest, *shards)}

    def test_with_overlapping_ranges_is_refused(self, place: Place) -> None:
        manifest, _ = place.cut(2)
        altered = manifest.content.replace(b'"first":"pending/3', b'"first":"pending/0')
        with pytest.raises(PlanError, match="overlaps"):
            parse_plan_file(altered, path=manifest.path)

    def test_a_shard_that_was_altered_is_refused(self, place: Place) -> None:
        manifest, (first, _) = place.cut(2)
        first.path.write_bytes(first.content.replace(b'"order_id":"1"', b'"order_id":"2"', 1))
        with pytest.raises(PlanError, match=manifest.id):
            place.apply(manifest)
        altered = parse_plan_file(first.path.read_bytes(), path=first.path)
        with pytest.raises(PlanError, match=manifest.id):
            place.apply(altered, approve=manifest.sha256)
        assert place.keys("ready/") == []

    def test_a_shard_is_not_approved_by_its_own_hash(self, place: Place) -> None:
        _, (first, _) = place.cut(2)
        with pytest.raises(NotApprovedError):
            place.apply(first, approve=first.sha256)


class TestARelease:
    def test_carries_out_all_shards_and_leaves_nothing_of_its_own(self, place: Place) -> None:
        manifest, shards = place.cut(2)
        result = place.apply(manifest)
        assert result.is_complete
        assert result.moved == 6
        assert len(place.keys("ready/")) == 6
        assert not place.hold.paused
        assert list_records(place.bucket) == []
        kept = {f"{RELEASES}{plan.id}/ended.json" for plan in shards}
        assert set(place.keys(RELEASES)) == {*kept, f"{RELEASES}{manifest.id}/plan.jsonl"}
        assert place.keys(CLAIMS) == []

    def test_pauses_the_worker_once(self, place: Place) -> None:
        manifest, _ = place.cut(3)
        place.apply(manifest)
        assert place.hold.calls.count("pause") == 1
        assert place.hold.calls.count("resume") == 1

    def test_one_shard_alone_keeps_the_worker_for_the_others(self, place: Place) -> None:
        manifest, (first, second) = place.cut(2)
        result = place.apply(first, approve=manifest.sha256)
        assert result.is_complete
        assert place.hold.paused
        (left,) = list_records(place.bucket)
        assert left.plan == second.id
        assert left.hold is not None
        assert left.way_on == f"runbook resume {second.id}"
        assert place.resume(second).is_complete
        assert not place.hold.paused

    def test_stopping_what_was_not_begun_gives_the_worker_back(self, place: Place) -> None:
        manifest, (first, second) = place.cut(2)
        place.apply(first, approve=manifest.sha256)
        place.resume(second, stop_here=True)
        assert not place.hold.paused
        assert len(place.keys("pending/")) == 3
        assert len(place.plan().rows) == 3

    def test_stopping_a_manifest_ends_every_shard(self, place: Place) -> None:
        manifest, (first, _) = place.cut(2)
        place.apply(first, approve=manifest.sha256)
        result = place.resume(manifest, stop_here=True)
        assert result.moved == 3
        assert not place.hold.paused
        assert list_records(place.bucket) == []

    def test_a_shard_that_is_refused_after_others_names_the_way_on(self, place: Place) -> None:
        manifest, (_, second) = place.cut(2)
        claim = Claim(
            plan=second.id,
            by="bob@desk",
            manifest=manifest.id,
            first=second.header.first,
            last=second.header.last,
        )
        key = f"{CLAIMS}bob"
        place.write(key, claim.model_dump_json().encode())

        def renew(seconds: float) -> None:
            place.clock.seconds += seconds
            place.bucket.pass_time(seconds)
            place.write(key, claim.model_dump_json().encode())

        sleep = place.clock.sleep
        place.clock.sleep = renew  # type: ignore[method-assign]
        with pytest.raises(StoppedError, match=f"bob@desk.*runbook resume {manifest.id}$"):
            place.apply(manifest)
        assert len(place.keys("ready/")) == 3
        place.take(key)
        place.clock.sleep = sleep  # type: ignore[method-assign]
        assert place.resume(manifest).moved == 6
        assert not place.hold.paused

    def test_a_worker_that_somebody_else_paused_stays_paused(self, place: Place) -> None:
        place.hold.paused = True
        manifest, _ = place.cut(2)
        assert place.apply(manifest).is_complete
        assert place.hold.paused

    def test_a_shard_that_changed_too_much_ends_and_can_be_planned_again(
        self, tmp_path: Path
    ) -> None:
        place = Place(tmp_path, count=12)
        manifest, (first, second) = place.cut(2)
        for number in range(4):
            place.write(f"pending/{number}.pdf", b"new")
        result = place.apply(manifest)
        assert result.moved == second.header.objects == 6
        assert len(result.skipped) == 4
        assert result.left == 2
        assert not place.hold.paused
        assert "runbook plan" in result.ways_on
        assert place.plan().header.objects == first.header.objects

    def test_expires_before_its_beginning_and_not_after(self, place: Place) -> None:
        manifest, (first, second) = place.cut(2)
        place.apply(first, approve=manifest.sha256)
        place.write("pending/later.pdf", b"later")
        late, _ = place.cut(1)
        place.clock.sleep(1000)
        assert place.apply(second, approve=manifest.sha256).is_complete
        with pytest.raises(ExpiredError):
            place.apply(late)

    def test_applied_again_does_nothing_more(self, place: Place) -> None:
        manifest, _ = place.cut(2)
        place.apply(manifest)
        assert place.apply(manifest).moved == 6
        assert len([r for r in place.bucket.sent if r.key.startswith("ready/")]) == 6

    def test_a_machine_without_the_folder_takes_a_shard_from_the_bucket(
        self, place: Place, tmp_path: Path
    ) -> None:
        manifest, (first, second) = place.cut(2)
        place.apply(first, approve=manifest.sha256)
        folder = tmp_path / "other"
        fetched = fetch_plan(place.bucket, second.id, find_folder=lambda: folder)
        assert fetched is not None
        assert fetched.content == second.content
        assert (folder / manifest.path.name).read_bytes() == manifest.content
        place.folder = folder
        assert place.apply(fetched, approve=manifest.sha256).is_complete
        assert not place.hold.paused


class TestAProof:
    def test_of_all_shards_says_which_lacks_what(self, place: Place) -> None:
        manifest, (first, second) = place.cut(2)
        place.apply(first, approve=manifest.sha256)
        proof = place.verify(manifest)
        assert not proof.is_complete
        assert proof.shards == {second.id: {"waiting": 3}}
        assert proof.counts["in_place"] == 3
        place.resume(second)
        proof = place.verify(manifest)
        assert proof.is_complete
        assert proof.shards == {}
        assert proof.counts["in_place"] == 6

    def test_of_a_shard_takes_no_siblings_copy_for_a_foreign_one(self, tmp_path: Path) -> None:
        place = Place(tmp_path, count=0)
        for name in "abcd":
            place.write(f"pending/{name}.pdf", b"the same")
        manifest, (first, _) = place.cut(2)
        place.apply(manifest)
        assert place.verify(first).is_complete
        assert place.verify(manifest).is_complete


class TestAnUndo:
    def test_takes_all_shards_back_in_reverse_order(self, place: Place) -> None:
        manifest, shards = place.cut(2)
        place.apply(manifest)
        undo = place.undo_plan(manifest)
        assert [line.plan for line in undo.shards] == [f"{p.id}-undo" for p in reversed(shards)]
        with pytest.raises(NotApprovedError):
            place.apply(undo)
        assert place.apply(undo, stands_still=True).is_complete
        assert len(place.keys("pending/")) == 6
        assert not place.hold.paused
        assert place.verify(manifest).counts["taken_back"] == 6

    def test_of_one_shard_is_a_plan_of_its_own(self, place: Place) -> None:
        manifest, (first, _) = place.cut(2)
        place.apply(manifest)
        undo = place.undo_plan(first)
        assert undo.header.first == first.header.first
        assert place.apply(undo, stands_still=True).is_complete
        assert len(place.keys("pending/")) == 3

    def test_is_not_resumed_before_it_was_approved(self, place: Place) -> None:
        manifest, _ = place.cut(2)
        place.apply(manifest)
        undo = place.undo_plan(manifest)
        with pytest.raises(NotApprovedError):
            place.resume(undo, stands_still=True)
