"""The causes, judged as pure functions over observations."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from fulfillment.analysis.causes import CAUSES, Clue, Observation, diagnose
from runbook_lib.model import CauseStatus, Finding

#: What is seen in health, where no value below would do.
KNOWN: dict[str, Any] = {
    "worker_running": True,
    "worker_answers": True,
    "credentials_match": True,
    "store_free_bytes": None,
    "overdue_real": 0,
    "drain_per_minute": 12.0,
    "worker_idle_minutes": None,
}
_PLAIN_SIGNS = ("worker_idle_minutes", "logged_bad_credentials", "logged_storage_full")
#: What an operator would observe of faults that show in more than the first clue of their row.
FAULTS: dict[str, dict[str, Any]] = {
    "store_down": {"store_live": False, "failures_store_unreachable": 3.0},
    "worker_stopped": {
        "worker_running": False,
        "worker_answers": False,
        "worker_paused_by_others": None,
        "worker_stands_still": None,
    },
    "worker_stuck": {
        "worker_stands_still": True,
        "drain_per_minute": 0.0,
        "overdue_real": 9,
    },
    "pipeline_failing": {"dag_failed_runs": 3, "drain_per_minute": 0.0},
    "bad_credentials": {"failures_bad_credentials": 4.0, "credentials_match": False},
    "storage_full": {"failures_storage_full": 2.0, "logged_storage_full": 2},
    "surge": {"surplus_objects": 300.0, "waiting_finished": 300, "overdue_real": 9},
}


_VALUES = (True, False, 0, 10**9, "other")


def try_clue(clue: Clue, value: Any) -> bool:
    try:
        return clue.holds(value)
    except TypeError:
        return False


def list_clues(cause: str) -> list[Clue]:
    clues: list[Clue] = []
    for option in CAUSES[cause].options:
        clues += (*option.clues, *option.unless)
    return clues


def make_healthy() -> dict[str, Any]:
    seen = dict(KNOWN)
    clues = list(chain.from_iterable(map(list_clues, CAUSES)))
    for name in {clue.name for clue in clues} - seen.keys():
        own = [clue for clue in clues if clue.name == name]
        seen[name] = next(v for v in _VALUES if not any(try_clue(clue, v) for clue in own))
    return seen


def make_fault(cause: str) -> dict[str, Any]:
    if cause in FAULTS:
        return FAULTS[cause]
    clues = CAUSES[cause].options[0].clues
    return {clue.name: next(v for v in _VALUES if try_clue(clue, v)) for clue in clues}


HEALTHY = make_healthy()


def judge(**changes: Any) -> dict[str, Finding]:
    seen = {name: Observation(value, "#7") for name, value in (HEALTHY | changes).items()}
    return {f.name: f for f in diagnose(seen)}


def supported(findings: dict[str, Finding]) -> set[str]:
    return {c for c, f in findings.items() if f.status is CauseStatus.SUPPORTED}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_hides_a_cause_comes_before_it(cause: str) -> None:
    names = list(CAUSES)
    assert set(CAUSES[cause].hidden_by) <= set(names[: names.index(cause)])


def test_health_refutes_every_cause_and_nothing_observed_supports_none() -> None:
    assert {f.status for f in judge().values()} == {CauseStatus.REFUTED}
    assert {f.status for f in diagnose({})} == {CauseStatus.UNDECIDED}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_fault_supports_its_cause_and_no_other(cause: str) -> None:
    found = judge(**make_fault(cause))
    assert supported(found) == {cause}
    assert next(iter(found)) == cause, "supported causes come first"
    assert found[cause].evidence == ("#7",)


@pytest.mark.parametrize(
    "pair",
    [
        ("pipeline_paused", "carrier_errors"),
        ("store_down", "pipeline_paused"),
        ("worker_stuck", "pipeline_failing"),
    ],
)
def test_two_causes_at_once_are_both_found(pair: tuple[str, str]) -> None:
    assert supported(judge(**make_fault(pair[0]) | make_fault(pair[1]))) == set(pair)


@pytest.mark.parametrize("cause", CAUSES)
def test_one_unknown_deciding_input_is_never_a_refutation(cause: str) -> None:
    clue = CAUSES[cause].options[0].clues[0]
    found = judge(**{**dict.fromkeys(_PLAIN_SIGNS), clue.name: None})[cause]
    assert found.status is CauseStatus.UNDECIDED
    assert clue.says in found.reason


@pytest.mark.parametrize(
    ("seen", "causes"),
    [
        # The store blinds the exporter, and hides what rests on it.
        (
            {"store_live": False, "lag_present": False, "exporter_refresh_age_s": 200.0},
            "store_down",
        ),
        ({"store_live": False, "overdue_synthetic": 5, "worker_stands_still": True}, "store_down"),
        # Real labels that were late are not explained by synthetic ones.
        ({"overdue_synthetic": 5, "overdue_real": 5}, ""),
        ({"overdue_synthetic": 3, "real_were_overdue": True}, ""),
        # No surge: a standstill, what arrives after an outage, a burst that nobody waits for.
        ({**FAULTS["surge"], "drain_per_minute": 0.0}, ""),
        ({**FAULTS["surge"], "catching_up": True}, ""),
        ({**FAULTS["surge"], "overdue_real": 0}, ""),
        ({**FAULTS["surge"], "dag_paused": True}, "pipeline_paused"),
        # A worker that answers is not stopped, unless somebody paused it.
        ({"worker_running": False, "worker_answers": True}, ""),
        ({"worker_paused_by_others": True}, "worker_stopped"),
        (
            {"worker_running": None, "worker_listed": False, "worker_answers": False},
            "worker_stopped",
        ),
        ({"worker_running": None, "worker_listed": False}, ""),
        # One that stands still may wait: for an answer, or for a store that it cannot reach.
        ({**FAULTS["worker_stuck"], "overdue_real": 0}, ""),
        ({**FAULTS["worker_stuck"], "failures_store_unreachable": 3.0}, ""),
        ({"worker_hangs": True, "worker_answers": False, "waiting_finished": 0}, "worker_stuck"),
        # What is denied to a worker without a key is no missing right.
        (
            {
                "failures_access_denied": 4.0,
                "keyless_denials": 4.0,
                "credentials_match": False,
            },
            "bad_credentials",
        ),
        ({"logged_bad_credentials": 9, "logged_storage_full": 9}, ""),
        ({"dag_failed_runs": 1}, ""),
    ],
)
def test_what_is_seen_supports_the_right_causes(seen: dict[str, Any], causes: str) -> None:
    assert supported(judge(**seen)) == set(filter(None, [causes]))


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
    ("seen", "cause"),
    [
        ({"worker_running": False, "worker_idle_minutes": 14.0}, "worker_stopped"),
        ({"worker_idle_minutes": 14.0}, "worker_stuck"),
        ({"worker_idle_minutes": 14.0, "dag_paused": True}, "pipeline_paused"),
        ({"logged_bad_credentials": 54}, "bad_credentials"),
        ({"logged_storage_full": 31}, "storage_full"),
        ({"store_refuses_ours": True}, "storage_full"),
    ],
)
def test_on_a_plain_system_each_fault_is_named_and_leftovers_are_not(
    seen: dict[str, Any], cause: str
) -> None:
    assert supported(judge(**PLAIN | seen)) == {cause}
