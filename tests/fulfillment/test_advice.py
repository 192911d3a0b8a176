"""What helps, in order: one plan for all supported causes, contradicting ones too."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fulfillment.analysis.causes import Advice, Cause, advise, choose_strategy
from tests.support.golden import expect_golden

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
        (set(), WAITING | {"worker_has_api": False}, "release"),
        ({Cause.CARRIER_TIMEOUT}, WAITING | {"worker_has_api": False}, "release"),
        ({Cause.WORKER_STOPPED}, WAITING | {"worker_has_api": False}, "none"),
        ({Cause.CARRIER_ERRORS}, WAITING | {"waiting_finished": 0}, "none"),
        ({Cause.CARRIER_ERRORS}, WAITING | {"waiting_finished": 1}, "retrigger"),
        ({Cause.WORKER_STOPPED}, WAITING | {"waiting_finished": 0}, "retrigger"),
        (set(), WAITING | {"retrigger_moved_nothing": True}, "release"),
        ({Cause.WORKER_STOPPED}, WAITING | {"retrigger_moved_nothing": True}, "retrigger"),
        (set(), WAITING | {"worker_has_api": None}, "retrigger"),
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


def say(*causes: Cause, **seen: Any) -> Advice:
    return advise(causes, {**NAMES, **WAITING, **seen})


def list_steps(advice: Advice) -> list[str]:
    """Return the runbook's step that each line of an advice names; "" where it names none."""
    found = [re.search(r"\b6\.\d", text) for text, _ in advice.steps]
    return [match[0] if match else "" for match in found]


def test_a_release_is_not_advised_while_nothing_is_finished() -> None:
    assert list_steps(say(Cause.PIPELINE_PAUSED, waiting_finished=0)) == ["6.2"]
    assert list_steps(say(Cause.PIPELINE_PAUSED, waiting_finished=1)) == ["6.1", "6.2"]


def test_the_words_of_every_advice_are_on_the_page() -> None:
    single = [(cause,) for cause in Cause]
    both = [
        (Cause.PIPELINE_PAUSED, Cause.STORAGE_FULL),
        (Cause.PIPELINE_PAUSED, Cause.CARRIER_ERRORS),
    ]
    lines: list[str] = []
    for causes in ((), *single, *both):
        lines.append(f"# {' and '.join(causes) or 'no cause'}")
        advice = say(*causes)
        lines += advice.words
        lines += [f"{cause}: {advice.about(cause)}" for cause in causes]
    expect_golden("fulfillment/advice.txt", "\n".join(lines))


def test_a_full_store_and_a_paused_pipeline_do_not_contradict_each_other() -> None:
    both = say(Cause.PIPELINE_PAUSED, Cause.STORAGE_FULL)
    assert both.strategy == "none"
    assert list_steps(both) == ["", "6.2", ""]
    assert [text.endswith("(runbook run 06)") for text in both.words] == [False, True, True]
    assert "6.1" not in both.about(Cause.PIPELINE_PAUSED)
    assert "6.1" not in both.about(Cause.STORAGE_FULL)


def test_nothing_is_advised_while_nothing_waits_too_long() -> None:
    assert say(waiting_real=1, overdue_real=0).words == ()
