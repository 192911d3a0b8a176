"""What helps, in order: one plan for all supported causes, contradicting ones too."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_stack.faults import FAULTS
from fulfillment.analysis.causes import Advice, advise, choose_strategy
from tests.support.golden import expect_golden

WAITING = {"waiting_real": 4, "overdue_real": 4}
NAMES = {"worker": "w", "dag": "dag"}


@pytest.mark.parametrize(
    ("causes", "seen", "strategy"),
    [
        (set(), WAITING, "retrigger"),
        ({"carrier_timeout"}, WAITING, "retrigger"),
        ({"pipeline_paused"}, WAITING, "release"),
        ({"worker_stuck"}, WAITING, "release"),
        ({"worker_stopped"}, WAITING, "retrigger"),
        ({"worker_stopped", "bad_prefix"}, WAITING, "release"),
        ({"bad_credentials"}, WAITING, "release"),
        ({"store_down"}, {}, "none"),
        ({"storage_full", "pipeline_paused"}, WAITING, "none"),
        ({"pipeline_paused"}, {"waiting_real": 0}, "none"),
        ({"synthetic"}, {"waiting_real": 1, "overdue_real": 0}, "none"),
        ({"pipeline_paused"}, {"waiting_real": 1, "overdue_real": 0}, "release"),
        (set(), WAITING | {"worker_answers": None}, "release"),
        ({"worker_stopped"}, WAITING | {"worker_answers": None}, "none"),
        ({"carrier_errors"}, WAITING | {"waiting_finished": 0}, "none"),
        ({"carrier_errors"}, WAITING | {"waiting_finished": 1}, "retrigger"),
        ({"worker_stopped"}, WAITING | {"waiting_finished": 0}, "retrigger"),
        (set(), WAITING | {"retrigger_moved_nothing": True}, "release"),
        ({"worker_stopped"}, WAITING | {"retrigger_moved_nothing": True}, "retrigger"),
    ],
)
def test_the_worker_is_re_triggered_whenever_it_can_run(
    causes: set[str], seen: dict[str, Any], strategy: str
) -> None:
    assert choose_strategy(causes, seen)[0] == strategy


@pytest.mark.parametrize(
    ("causes", "seen", "expected"),
    [
        (["pipeline_paused"], {}, ("unpause", "dag")),
        (["worker_stopped"], {"worker_paused": True}, ("resume", "w")),
        (["worker_stopped"], {"services_down": ["w"]}, ("start", "w")),
        (["worker_stuck"], {}, ("restart", "w")),
        (["store_down"], {"services_down": ["minio"]}, ("start", "minio")),
        (["metrics_blind"], {"services_down": ["prometheus"]}, ("start", "prometheus")),
        (
            ["support_down"],
            {"services_down": ["support-service"]},
            ("start", "support-service"),
        ),
        (["carrier_timeout"], {}, ("none", "w")),
        (["carrier_timeout", "pipeline_paused"], {}, ("unpause", "dag")),
        ([], {}, ("none", "w")),
    ],
)
def test_the_repair_follows_the_first_cause_that_one_helps(
    causes: list[str], seen: dict[str, Any], expected: tuple[str, str]
) -> None:
    told = advise(causes, {**NAMES, **seen})
    assert (told.action, told.target) == expected
    assert told.reason


def say(*causes: str, **seen: Any) -> Advice:
    return advise(causes, {**NAMES, **WAITING, **seen})


def test_the_words_of_every_advice_are_on_the_page() -> None:
    single = [(cause,) for cause in sorted(FAULTS)]
    both = [
        ("pipeline_paused", "storage_full"),
        ("pipeline_paused", "carrier_errors"),
    ]
    lines: list[str] = []
    for causes in ((), *single, *both):
        lines.append(f"# {' and '.join(causes) or 'no cause'}")
        advice = say(*causes)
        lines += advice.words
        lines += [f"{cause}: {advice.about(cause)}" for cause in causes]
    lines.append("# pipeline_paused while nothing is finished")
    lines += say("pipeline_paused", waiting_finished=0).words
    expect_golden("fulfillment/advice.txt", "\n".join(lines))
