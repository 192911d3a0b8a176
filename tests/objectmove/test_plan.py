"""The bytes of a plan, which an approval names."""

from __future__ import annotations

from objectmove.plan import Abilities

COPIES = {"conditional_copy": True, "conditional_put": True, "conditional_delete": True}


def test_plans_of_stores_that_copy_have_the_bytes_that_they_had_before_others_were_known() -> None:
    written = Abilities(**COPIES).model_dump_json()
    assert "copies" not in written
    assert Abilities.model_validate_json(written).copies


def test_a_plan_says_that_a_store_does_not_copy() -> None:
    written = Abilities(**COPIES, copies=False).model_dump_json()
    assert not Abilities.model_validate_json(written).copies
