"""The neutral policy: what a runbook gets that brings none of its own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runbook_lib.model import ActionPhase, CauseStatus, Finding, Status, Verdict
from runbook_lib.policy import Impact, Policy
from runbook_lib.record.folds import Key, Part, Quantities, group_actions
from tests.support.incidents import START, Teller

STEPS = ("2.1", "2.3", "2.5")
POLICY = Policy(
    quantities=Quantities(
        parts=dict.fromkeys(STEPS, Part.SYMPTOM),
        needed={"2.1", "2.3"},
        shown={step: (Key(step),) for step in STEPS},
    )
)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("", None),
        ("5.3:breach", None),
        ("2.1:ok", Verdict.UNKNOWN),
        ("2.1:ok 2.3:ok", Verdict.HEALTHY),
        ("2.1:ok 2.3:ok 5.3:breach", Verdict.HEALTHY),
        ("2.1:ok 2.3:ok 2.5:left_out", Verdict.HEALTHY),
        ("2.1:unknown 2.3:breach", Verdict.INCIDENT),
        ("2.1:breach 2.1:ok 2.3:ok", Verdict.FIXED),
        ("2.1:breach 2.3:breach act", Verdict.UNKNOWN),
        ("2.1:ok 2.3:ok act 2.1:ok", Verdict.UNKNOWN),
        ("2.1:breach act 2.1:ok 2.3:ok", Verdict.UNKNOWN),
        ("2.1:breach act proof 2.1:ok 2.3:ok", Verdict.FIXED),
        ("2.1:breach act 2.1:breach", Verdict.NOT_FIXED),
        ("2.1:breach closed", Verdict.MITIGATED),
    ],
)
def test_the_verdict_follows_from_the_needed_readings(
    tell: Teller, said: str, verdict: Verdict | None
) -> None:
    for word in said.split():
        step, _, status = word.partition(":")
        if step == "act":
            tell.act(ActionPhase.APPLIED)
        elif step == "proof":
            tell.act(ActionPhase.VERIFIED)
        elif step == "closed":
            tell.record("closed", {"verdict": "mitigated"})
        else:
            tell.read(step, step, Status(status))

    assert POLICY.judge(tell.incident.journal.view()).verdict is verdict


def test_readings_of_an_hour_ago_do_not_judge(tell: Teller) -> None:
    for step in ("2.1", "2.3"):
        tell.read(step, step, "ok")
    view = tell.incident.journal.view()
    read_at = view.readings[-1].at
    assert POLICY.judge(view, now=read_at).verdict is Verdict.HEALTHY
    assert POLICY.judge(view, now=read_at + timedelta(hours=1)).verdict is Verdict.UNKNOWN


def test_its_words_fit_any_runbook(tell: Teller) -> None:
    tell.read("2.1", "lag", "breach")
    cause = Finding(name="full", words="a full disk", status=CauseStatus.SUPPORTED)
    tell.conclude(Verdict.INCIDENT, "why", findings=(cause,))
    tell.act(ActionPhase.APPLIED, action="clean_up", target="old files")
    tell.act(ActionPhase.VERIFIED, action="clean_up", target="old files")
    view = tell.incident.journal.view()
    (action,) = group_actions(view.actions)

    (named,) = POLICY.list_causes(view)
    assert named == cause.model_copy(update={"named_at": view.conclusions[0].at})
    assert POLICY.describe_action(action).endswith("old files")
    assert (action.left, action.doubtful) == (0, 0)
    assert str(POLICY.compute_impact(view)) == "requests not counted"


def make_impact(orders: int | None, minutes: float = 0) -> Impact:
    ids = {str(number): (START, START) for number in range(orders or 0)}
    return Impact(requests=ids, affected=orders, files=0, longest_minutes=minutes or None)


@pytest.mark.parametrize(
    ("orders", "minutes", "severity"),
    [(500, 1, 1), (1, 240, 1), (20, 1, 2), (1, 60, 2), (1, 1, 3), (0, 0, 4), (None, 0, 3)],
)
def test_the_severity_follows_from_how_many_waited_and_how_long(
    orders: int | None, minutes: float, severity: int
) -> None:
    assert POLICY.compute_severity(make_impact(orders, minutes)) == severity


@pytest.mark.parametrize(
    ("orders", "is_over", "title"),
    [
        (2, True, "2 requests were held back by a full disk"),
        (1, False, "1 request is held back by a full disk"),
        (None, False, "Nobody knows how many requests are held back by a full disk"),
    ],
)
def test_the_title_says_what_was_held_back_and_why(
    orders: int | None, title: str, *, is_over: bool
) -> None:
    cause = Finding(name="full", words="a full disk", status=CauseStatus.SUPPORTED)
    assert POLICY.make_title(make_impact(orders), [cause], is_over=is_over) == title
