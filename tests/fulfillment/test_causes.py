"""The causes, judged as pure functions over observations."""

from __future__ import annotations

from typing import Any

import pytest

from fulfillment.analysis.causes import CAUSES, Cause, Observation, diagnose
from runbook_lib.model import CauseStatus, Finding

HEALTHY: dict[str, Any] = {
    "store_live": True,
    "prometheus_answers": True,
    "exporter_up": True,
    "lag_present": True,
    "exporter_refresh_age_s": 1.0,
    "worker_running": True,
    "worker_listed": True,
    "worker_answers": True,
    "worker_paused_by_others": False,
    "worker_stands_still": False,
    "worker_hangs": False,
    "dag_paused": False,
    "dag_failed_runs": 0,
    "dag_import_errors": False,
    "failures_bad_credentials": 0.0,
    "failures_access_denied": 0.0,
    "failures_no_such_bucket": 0.0,
    "failures_storage_full": 0.0,
    "failures_store_unreachable": 0.0,
    "credentials_match": True,
    "keyless_denials": 0.0,
    "worker_place": "",
    "store_free_bytes": None,
    "carrier_timeout_share": 0.0,
    "carrier_error_share": 0.0,
    "waiting_real": 1,
    "waiting_finished": 1,
    "overdue_real": 0,
    "overdue_synthetic": 0,
    "real_were_overdue": False,
    "surplus_objects": 1.0,
    "drain_per_minute": 12.0,
    "support_answers": True,
    "clock_skewed": False,
    "worker_idle_minutes": None,
    "logged_bad_credentials": 0,
    "logged_storage_full": 0,
    "store_refuses_ours": False,
}
#: What an operator would observe of each fault, beside the healthy rest.
FAULTS: dict[Cause, dict[str, Any]] = {
    Cause.STORE_DOWN: {"store_live": False, "failures_store_unreachable": 3.0},
    Cause.METRICS_BLIND: {"exporter_up": False, "lag_present": False},
    Cause.WORKER_STOPPED: {
        "worker_running": False,
        "worker_answers": False,
        "worker_paused_by_others": None,
        "worker_stands_still": None,
    },
    Cause.WORKER_STUCK: {
        "worker_stands_still": True,
        "drain_per_minute": 0.0,
        "overdue_real": 9,
    },
    Cause.PIPELINE_PAUSED: {"dag_paused": True, "drain_per_minute": 0.0},
    Cause.PIPELINE_FAILING: {"dag_failed_runs": 3, "drain_per_minute": 0.0},
    Cause.BAD_CREDENTIALS: {"failures_bad_credentials": 4.0, "credentials_match": False},
    Cause.NO_PERMISSION: {"failures_access_denied": 4.0},
    Cause.BAD_PREFIX: {"worker_place": "its pending prefix is 'x/', not 'pending/'"},
    Cause.STORAGE_FULL: {"failures_storage_full": 2.0, "logged_storage_full": 2},
    Cause.CARRIER_TIMEOUT: {"carrier_timeout_share": 0.9},
    Cause.CARRIER_ERRORS: {"carrier_error_share": 0.9},
    Cause.SURGE: {"surplus_objects": 300.0, "waiting_finished": 300, "overdue_real": 9},
    Cause.SYNTHETIC: {"overdue_synthetic": 25},
    Cause.SUPPORT_DOWN: {"support_answers": False},
    Cause.CLOCK_SKEW: {"clock_skewed": "fulfillment"},
}


def judge(**changes: Any) -> dict[Cause, Finding]:
    seen = {name: Observation(value, "#7") for name, value in (HEALTHY | changes).items()}
    return {f.name: f for f in diagnose(seen)}


def supported(findings: dict[Cause, Finding]) -> set[Cause]:
    return {c for c, f in findings.items() if f.status is CauseStatus.SUPPORTED}


def test_there_is_one_record_per_cause() -> None:
    assert set(CAUSES) == set(FAULTS) == set(Cause)


def test_every_cause_but_a_drill_has_follow_ups() -> None:
    assert {c for c, record in CAUSES.items() if not record.follow_ups} == {Cause.SYNTHETIC}


def test_what_hides_a_cause_is_judged_before_it() -> None:
    order = list(CAUSES)
    for cause, record in CAUSES.items():
        assert all(order.index(c) < order.index(cause) for c in record.hidden_by), cause


def test_health_refutes_every_cause() -> None:
    assert {f.status for f in judge().values()} == {CauseStatus.REFUTED}


@pytest.mark.parametrize("cause", list(Cause))
def test_a_fault_supports_its_cause_and_no_other(cause: Cause) -> None:
    assert supported(judge(**FAULTS[cause])) == {cause}


@pytest.mark.parametrize("cause", list(Cause))
def test_a_supported_cause_has_evidence_and_a_reason(cause: Cause) -> None:
    finding = judge(**FAULTS[cause])[cause]
    assert finding.evidence == ("#7",)
    assert finding.reason


@pytest.mark.parametrize(
    "pair",
    [
        (Cause.PIPELINE_PAUSED, Cause.CARRIER_ERRORS),
        (Cause.PIPELINE_PAUSED, Cause.METRICS_BLIND),
        (Cause.STORE_DOWN, Cause.PIPELINE_PAUSED),
        (Cause.BAD_PREFIX, Cause.CLOCK_SKEW),
        (Cause.STORAGE_FULL, Cause.SUPPORT_DOWN),
        (Cause.WORKER_STUCK, Cause.PIPELINE_FAILING),
    ],
)
def test_two_causes_at_once_are_both_found(pair: tuple[Cause, Cause]) -> None:
    assert supported(judge(**FAULTS[pair[0]] | FAULTS[pair[1]])) == set(pair)


@pytest.mark.parametrize("cause", CAUSES)
def test_unknown_inputs_leave_a_cause_undecided(cause: Cause) -> None:
    nothing = dict.fromkeys(HEALTHY)
    assert judge(**nothing)[cause].status is CauseStatus.UNDECIDED


@pytest.mark.parametrize("cause", CAUSES)
def test_one_unknown_deciding_input_is_never_a_refutation(cause: Cause) -> None:
    for sign in (*CAUSES[cause].options[0].signs[:1], *CAUSES[cause].needs):
        found = judge(**{sign.name: None})[cause]
        assert found.status is CauseStatus.UNDECIDED, sign.name
        assert sign.says in found.reason


def test_nothing_observed_at_all_supports_nothing() -> None:
    assert {f.status for f in diagnose({})} == {CauseStatus.UNDECIDED}


def test_a_store_that_is_down_makes_what_rests_on_it_undecided() -> None:
    found = judge(store_live=False, overdue_synthetic=5, worker_stands_still=True)
    assert supported(found) == {Cause.STORE_DOWN}
    assert found[Cause.SYNTHETIC].status is CauseStatus.UNDECIDED
    words = CAUSES[Cause.STORE_DOWN].words
    assert words in found[Cause.WORKER_STUCK].reason


def test_an_exporter_blinded_by_the_store_is_not_the_cause() -> None:
    found = judge(store_live=False, lag_present=False, exporter_refresh_age_s=200.0)
    assert supported(found) == {Cause.STORE_DOWN}


def test_real_objects_over_the_threshold_are_not_explained_by_synthetic_ones() -> None:
    assert supported(judge(overdue_synthetic=5, overdue_real=5)) == set()


def test_leftovers_do_not_explain_an_incident_in_which_real_labels_were_late() -> None:
    assert supported(judge(overdue_synthetic=3)) == {Cause.SYNTHETIC}
    assert supported(judge(overdue_synthetic=3, real_were_overdue=True)) == set()


def test_a_standstill_is_no_surge() -> None:
    found = judge(surplus_objects=300.0, waiting_finished=300, drain_per_minute=0.0)
    assert Cause.SURGE not in supported(found)


def test_a_worker_that_answers_is_not_stopped_whatever_its_process_state_says() -> None:
    found = judge(worker_running=False, worker_answers=True)
    assert found[Cause.WORKER_STOPPED].status is CauseStatus.UNDECIDED


def test_a_worker_that_somebody_paused_is_stopped_although_it_answers() -> None:
    assert supported(judge(worker_paused_by_others=True)) == {Cause.WORKER_STOPPED}


def test_a_support_service_that_is_down_is_found_beside_a_stopped_worker() -> None:
    both = FAULTS[Cause.WORKER_STOPPED] | FAULTS[Cause.SUPPORT_DOWN]
    assert supported(judge(**both)) == {Cause.WORKER_STOPPED, Cause.SUPPORT_DOWN}


def test_the_evidence_of_a_supported_cause_is_what_speaks_about_it() -> None:
    changed = HEALTHY | FAULTS[Cause.METRICS_BLIND]
    seen = {name: Observation(value, name) for name, value in changed.items()}
    found = diagnose(seen)[0]
    assert found.name == Cause.METRICS_BLIND
    assert found.evidence == ("exporter_up",)


def test_a_single_failed_run_is_only_a_hint() -> None:
    assert judge(dag_failed_runs=1)[Cause.PIPELINE_FAILING].status is CauseStatus.UNDECIDED


def test_supported_causes_come_first() -> None:
    seen = {n: Observation(v, "2.1") for n, v in (HEALTHY | {"dag_paused": True}).items()}
    assert diagnose(seen)[0].name == Cause.PIPELINE_PAUSED


def test_what_arrives_after_an_outage_is_no_surge() -> None:
    assert Cause.SURGE in supported(judge(**FAULTS[Cause.SURGE]))
    assert supported(judge(**FAULTS[Cause.SURGE], catching_up=True)) == set()


def test_what_piles_up_behind_a_paused_dag_is_no_surge() -> None:
    found = judge(dag_paused=True, surplus_objects=60.0, drain_per_minute=12.0, waiting_finished=60)
    assert supported(found) == {Cause.PIPELINE_PAUSED}
    assert found[Cause.SURGE].status is CauseStatus.UNDECIDED


def test_a_worker_that_is_listed_nowhere_and_does_not_answer_is_stopped() -> None:
    gone = judge(worker_running=None, worker_listed=False, worker_answers=False)
    assert supported(gone) == {Cause.WORKER_STOPPED}
    elsewhere = judge(worker_running=None, worker_listed=False)
    assert supported(elsewhere) == set()


def test_what_is_denied_to_a_worker_without_a_key_is_no_missing_right() -> None:
    keyless = judge(failures_access_denied=4.0, keyless_denials=4.0, credentials_match=False)
    assert supported(keyless) == {Cause.BAD_CREDENTIALS}


def test_a_burst_whose_labels_do_not_wait_too_long_is_no_surge() -> None:
    burst = judge(surplus_objects=300.0, waiting_finished=300, overdue_real=0)
    assert supported(burst) == set()


def test_a_worker_that_stands_still_before_a_label_is_late_may_wait_for_an_answer() -> None:
    waiting = judge(worker_stands_still=True, drain_per_minute=0.0, overdue_real=0)
    assert supported(waiting) == set()


@pytest.mark.parametrize("waiting", [0, 9])
def test_a_process_that_runs_and_answers_nobody_is_stuck(waiting: int) -> None:
    frozen = {"worker_hangs": True, "worker_answers": False, "worker_stands_still": None}
    assert supported(judge(**frozen, waiting_finished=waiting)) == {Cause.WORKER_STUCK}


def test_a_worker_that_cannot_reach_a_live_store_is_not_stuck_by_itself() -> None:
    cut_off = judge(worker_stands_still=True, failures_store_unreachable=3.0, waiting_finished=9)
    assert supported(cut_off) == set()


#: What can be observed of a plain system: no exporter, no counters, no API of the worker.
PLAIN: dict[str, Any] = dict.fromkeys(HEALTHY) | {
    "store_live": True,
    "worker_running": True,
    "worker_idle_minutes": 0.2,
    "logged_bad_credentials": 0,
    "logged_storage_full": 0,
    "store_refuses_ours": False,
    "overdue_real": 193,
    "real_were_overdue": True,
    "overdue_synthetic": 3,
}


@pytest.mark.parametrize(
    ("cause", "seen"),
    [
        (Cause.WORKER_STOPPED, {"worker_running": False, "worker_idle_minutes": 14.0}),
        (Cause.WORKER_STUCK, {"worker_idle_minutes": 14.0}),
        (Cause.BAD_CREDENTIALS, {"logged_bad_credentials": 54}),
        (Cause.STORAGE_FULL, {"logged_storage_full": 31}),
        (Cause.STORAGE_FULL, {"store_refuses_ours": True}),
    ],
)
def test_on_a_plain_system_each_fault_is_named_and_leftovers_are_not(
    cause: Cause, seen: dict[str, Any]
) -> None:
    changed = PLAIN | seen
    findings = diagnose({name: Observation(value, "#7") for name, value in changed.items()})
    assert supported({f.name: f for f in findings}) == {cause}


def test_a_line_or_two_of_a_log_name_no_cause_by_themselves() -> None:
    assert supported(judge(logged_bad_credentials=9, logged_storage_full=9)) == set()


def test_a_worker_that_waits_for_a_paused_dag_does_not_hang() -> None:
    idle = PLAIN | {"worker_idle_minutes": 14.0, "dag_paused": True}
    findings = diagnose({name: Observation(value, "#7") for name, value in idle.items()})
    assert supported({f.name: f for f in findings}) == {Cause.PIPELINE_PAUSED}
