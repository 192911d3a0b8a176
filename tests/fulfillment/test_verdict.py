"""Verdicts and recovery: no sample is never a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfillment.analysis.causes import Cause
from fulfillment.analysis.forecasts import Stages, compute_clear_time
from fulfillment.analysis.samples import Sample
from fulfillment.analysis.verdict import compute_recovery, compute_verdict, judge_alert
from runbook_lib.model import CauseStatus, ClearTime, Status, Verdict

ACTION = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
CLEAR = compute_clear_time(ACTION, Stages(15, 15, 15), group_interval_s=300)
GONE = {Cause.PIPELINE_PAUSED: CauseStatus.REFUTED, Cause.STORE_DOWN: CauseStatus.REFUTED}
OK = {"6.5": Status.OK, "2.3": Status.OK}


def at(seconds: float) -> datetime:
    return ACTION + timedelta(seconds=seconds)


def lag(*values: float, start_s: float = 20) -> list[Sample]:
    return [Sample(at(start_s + 15 * i), value) for i, value in enumerate(values)]


def refreshed(samples: list[Sample], delay_s: float = 5, ahead_s: float = 0) -> list[Sample]:
    """Each scrape shows a refresh that was some seconds before it."""
    return [Sample(when, when.timestamp() - delay_s + ahead_s) for when, _ in samples]


def test_two_samples_under_the_threshold_are_a_recovery() -> None:
    samples = lag(0, 1)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 2)
    assert (result.status, result.since) == (Status.OK, at(20))
    assert result.reason.startswith("2 samples ")


def test_one_sample_is_not_enough() -> None:
    samples = lag(0)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 2)
    assert result.status is Status.UNKNOWN
    assert "1 of 2" in result.reason


@pytest.mark.parametrize("samples", [[], lag(math.nan, math.nan), lag(math.inf)])
def test_no_sample_is_never_a_pass(samples: list[Sample]) -> None:
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 1)
    assert result.status is Status.UNKNOWN
    assert result.value is None


def test_no_refresh_time_is_never_a_pass() -> None:
    assert compute_recovery(lag(0, 0, 0), [], ACTION, 5, 2).status is Status.UNKNOWN


def test_samples_that_rest_on_an_older_refresh_do_not_count() -> None:
    samples = lag(0, 0, 0)
    stale = [Sample(when, ACTION.timestamp() - 1) for when, _ in samples]
    assert compute_recovery(samples, stale, ACTION, 5, 2).status is Status.UNKNOWN


def test_samples_before_the_action_do_not_count() -> None:
    samples = lag(0, 0, 0, start_s=-100)
    assert compute_recovery(samples, refreshed(samples), ACTION, 5, 2).status is Status.UNKNOWN


def test_a_sample_at_the_threshold_is_a_breach() -> None:
    samples = lag(0, 0, 5)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 2)
    assert (result.status, result.value, result.since) == (Status.BREACH, 5, None)


def test_only_samples_in_a_row_count() -> None:
    samples = lag(0, 9, 1)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 2)
    assert (result.status, result.since) == (Status.UNKNOWN, at(50))
    assert "1 of 2" in result.reason


def test_an_exporter_whose_clock_is_ahead_proves_nothing_early() -> None:
    # Scraped after the action, refreshed before it; its clock, two minutes ahead, says after.
    samples = [Sample(at(3), 0.0), Sample(at(4), 0.0)]
    refreshes = [Sample(at(s), at(-2).timestamp() + 120) for s in (3, 4)]
    before = [Sample(at(-15), at(-15).timestamp() + 120)]
    result = compute_recovery(samples, [*before, *refreshes], ACTION, 5, 2)
    assert result.status is Status.UNKNOWN


def test_an_exporter_whose_clock_is_behind_only_delays() -> None:
    samples = lag(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    result = compute_recovery(samples, refreshed(samples, ahead_s=-120), ACTION, 5, 2)
    assert result.status is Status.OK
    assert result.since == at(20 + 15 * 8)


@given(
    st.lists(st.one_of(st.floats(0, 100), st.just(math.nan)), max_size=12),
    st.integers(1, 4),
    st.integers(-60, 60),
)
def test_a_pass_always_rests_on_enough_good_samples(
    values: list[float], needed: int, start_s: int
) -> None:
    samples = lag(*values, start_s=start_s)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, needed)
    late = [v for when, v in samples if not math.isnan(v) and when > at(5)]
    if result.status is Status.OK:
        assert len(late) >= needed
        assert all(value < 5 for value in late[-needed:])
    if result.status is Status.BREACH:
        assert late[-1] >= 5


def judge(
    *,
    symptoms: Mapping[str, Status] = OK,
    causes: Mapping[str, CauseStatus] = GONE,
    alert_state: str | None = "inactive",
    clear: ClearTime | None = CLEAR,
    now: datetime = ACTION + timedelta(seconds=30),
    worker_moving: bool | None = None,
) -> Verdict:
    alert = judge_alert(alert_state, clear, now)
    result = compute_verdict(symptoms, causes, alert=alert, worker_moving=worker_moving)
    assert result.reason
    return result.verdict


def test_symptom_cause_and_alert_gone_is_fixed() -> None:
    assert judge() is Verdict.FIXED


@pytest.mark.parametrize("state", ["firing", "pending"])
def test_an_alert_within_its_time_is_decaying(state: str) -> None:
    assert judge(alert_state=state) is Verdict.FIXED_ALERT_DECAYING


@pytest.mark.parametrize("state", ["firing", "pending"])
def test_an_alert_past_its_deadline_is_not_fixed(state: str) -> None:
    late = CLEAR.deadline + timedelta(seconds=1)
    assert judge(alert_state=state, now=CLEAR.deadline) is Verdict.FIXED_ALERT_DECAYING
    assert judge(alert_state=state, now=late) is Verdict.NOT_FIXED


def test_a_cause_that_is_still_there_is_only_mitigated() -> None:
    causes = {**GONE, Cause.CARRIER_TIMEOUT: CauseStatus.SUPPORTED}
    assert judge(causes=causes) is Verdict.MITIGATED
    assert judge(causes=causes, alert_state="firing") is Verdict.MITIGATED


def test_one_breach_is_not_fixed_whatever_else_is_unknown() -> None:
    symptoms = {"6.5": Status.UNKNOWN, "2.3": Status.BREACH}
    assert judge(symptoms=symptoms, causes={}, alert_state=None) is Verdict.NOT_FIXED


@pytest.mark.parametrize("symptoms", [{}, {"6.5": Status.UNKNOWN}, {**OK, "3.3": Status.UNKNOWN}])
def test_a_symptom_that_was_not_read_is_unknown(symptoms: dict[str, Status]) -> None:
    assert judge(symptoms=symptoms) is Verdict.UNKNOWN


def test_an_alert_that_was_not_read_is_unknown() -> None:
    assert judge(alert_state=None) is Verdict.UNKNOWN
    assert judge(alert_state="firing", clear=None) is Verdict.UNKNOWN


@pytest.mark.parametrize("causes", [{}, {**GONE, Cause.SURGE: CauseStatus.UNDECIDED}])
def test_a_moving_worker_stands_in_for_an_undecided_cause(causes: dict[Cause, CauseStatus]) -> None:
    assert judge(causes=causes) is Verdict.UNKNOWN
    assert judge(causes=causes, worker_moving=False) is Verdict.UNKNOWN
    assert judge(causes=causes, worker_moving=True) is Verdict.FIXED


@given(
    st.dictionaries(st.sampled_from(["6.5", "2.3", "3.3"]), st.sampled_from(Status)),
    st.dictionaries(st.sampled_from(Cause), st.sampled_from(CauseStatus)),
    st.sampled_from(["firing", "pending", "inactive", None]),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_fixed_is_never_said_without_proof(
    symptoms: dict[str, Status],
    causes: dict[Cause, CauseStatus],
    alert_state: str | None,
    worker_moving: bool | None,
    predicted: bool,
) -> None:
    verdict = judge(
        symptoms=symptoms,
        causes=causes,
        alert_state=alert_state,
        now=at(30),
        clear=CLEAR if predicted else None,
        worker_moving=worker_moving,
    )
    if verdict in (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING):
        assert symptoms
        assert set(symptoms.values()) == {Status.OK}
        assert CauseStatus.SUPPORTED not in causes.values()
        gone = {CauseStatus.REFUTED, CauseStatus.PAST}
        assert worker_moving or (causes and set(causes.values()) <= gone)
        assert alert_state is not None
    assert (verdict is Verdict.NOT_FIXED) == (Status.BREACH in symptoms.values())
