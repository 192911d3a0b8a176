"""What helps, in order: one plan for all supported causes, contradicting ones too."""

from __future__ import annotations

from typing import Any

import pytest

from fulfillment.analysis.causes import Advice, Cause, advise, choose_strategy

WAITING = {"waiting_real": 4, "overdue_real": 4}
NAMES = {"worker": "w", "dag": "dag"}


@pytest.mark.parametrize(
    ("causes", "seen", "strategy"),
    [
        (set(), WAITING, "retrigger"),
        ({Cause.CARRIER_TIMEOUT}, WAITING, "retrigger"),
        ({Cause.PIPELINE_PAUSED}, WAITING, "release"),
        ({Cause.WORKER_STUCK}, WAITING, "release"),
        ({Cause.WORKER_STOPPED}, WAITING, "retrigger"),
        ({Cause.WORKER_STOPPED}, {"waiting_real": 1, "overdue_real": 0}, "retrigger"),
        ({Cause.WORKER_STOPPED, Cause.BAD_PREFIX}, WAITING, "release"),
        ({Cause.BAD_CREDENTIALS}, WAITING, "release"),
        ({Cause.STORE_DOWN}, {}, "none"),
        ({Cause.STORAGE_FULL, Cause.PIPELINE_PAUSED}, WAITING, "none"),
        ({Cause.PIPELINE_PAUSED}, {"waiting_real": 0}, "none"),
        ({Cause.SYNTHETIC}, {"waiting_real": 1, "overdue_real": 0}, "none"),
        ({Cause.PIPELINE_PAUSED}, {"waiting_real": 1, "overdue_real": 0}, "release"),
        (set(), {}, "retrigger"),
    ],
)
def test_the_worker_is_re_triggered_whenever_it_can_run(
    causes: set[Cause], seen: dict[str, Any], strategy: str
) -> None:
    assert choose_strategy(causes, seen)[0] == strategy


@pytest.mark.parametrize(
    ("causes", "seen", "expected"),
    [
        ([Cause.PIPELINE_PAUSED], {}, ("unpause", "dag")),
        ([Cause.WORKER_STOPPED], {"worker_paused": True}, ("resume", "w")),
        ([Cause.WORKER_STOPPED], {"services_down": ["w"]}, ("start", "w")),
        ([Cause.WORKER_STUCK], {}, ("restart", "w")),
        ([Cause.STORE_DOWN], {"services_down": ["minio"]}, ("start", "minio")),
        ([Cause.STORE_DOWN], {"services_down": []}, ("none", "w")),
        ([Cause.METRICS_BLIND], {"services_down": ["prometheus"]}, ("start", "prometheus")),
        (
            [Cause.SUPPORT_DOWN],
            {"services_down": ["support-service"]},
            ("start", "support-service"),
        ),
        ([Cause.SUPPORT_DOWN], {}, ("restart", "support-service")),
        ([Cause.CARRIER_TIMEOUT], {}, ("none", "w")),
        ([Cause.CARRIER_TIMEOUT, Cause.PIPELINE_PAUSED], {}, ("unpause", "dag")),
        ([], {}, ("none", "w")),
    ],
)
def test_the_repair_follows_the_first_cause_that_one_helps(
    causes: list[Cause], seen: dict[str, Any], expected: tuple[str, str]
) -> None:
    told = advise(causes, {**NAMES, **seen})
    assert (told.action, told.target) == expected
    assert told.reason


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_a_repair_or_a_reason_for_none(cause: Cause) -> None:
    assert advise([cause], NAMES).reason.startswith(str(cause))


def say(*causes: Cause, **seen: Any) -> Advice:
    return advise(causes, {**NAMES, **WAITING, **seen})


@pytest.mark.parametrize(
    ("causes", "steps"),
    [
        ((Cause.PIPELINE_PAUSED,), ["6.1 release by move what is finished", "6.2 unpause dag"]),
        ((Cause.WORKER_STOPPED,), ["6.2 start w", "6.1 re-trigger the worker"]),
        (
            (Cause.BAD_CREDENTIALS,),
            [
                "6.1 release by move what is finished",
                "correct its setting first, then 6.2 restart w",
            ],
        ),
        (
            (Cause.CARRIER_TIMEOUT,),
            [
                "call the carrier: what has no tracking number waits for it, and no restart helps",
                "6.1 re-trigger the worker",
            ],
        ),
        ((), ["6.1 re-trigger the worker"]),
    ],
)
def test_one_cause_is_told_in_its_order(causes: tuple[Cause, ...], steps: list[str]) -> None:
    told = [text.replace(" (runbook run 06)", "") for text, _ in say(*causes).steps]
    assert told == steps


def test_a_full_store_and_a_paused_pipeline_do_not_contradict_each_other() -> None:
    both = say(Cause.PIPELINE_PAUSED, Cause.STORAGE_FULL)
    assert both.strategy == "none"
    assert both.words == (
        "1. do not release: a full object store",
        "2. free or add capacity: a move needs room for the copies, and no restart helps",
        "3. 6.2 unpause dag (runbook run 06)",
        "4. then plan the release anew (runbook run 06)",
    )
    assert "by move" not in both.about(Cause.PIPELINE_PAUSED)
    assert both.about(Cause.STORAGE_FULL).startswith("do not release")


def test_a_carrier_and_a_paused_pipeline_are_one_plan() -> None:
    both = say(Cause.PIPELINE_PAUSED, Cause.CARRIER_ERRORS)
    assert [text[:12] for text, _ in both.steps] == ["6.1 release ", "6.2 unpause ", "call the car"]
    assert both.about(Cause.CARRIER_ERRORS).startswith("6.1 release by move what is finished")


def test_nothing_is_advised_while_nothing_waits_too_long() -> None:
    assert say(waiting_real=1, overdue_real=0).words == ()


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_is_told_what_helps(cause: Cause) -> None:
    told = say(cause)
    assert told.about(cause)
    assert all(text.count("6.1") + text.count("6.2") <= 1 for text, _ in told.steps)
