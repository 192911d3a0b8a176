"""Faults that other projects drill, and what section 5 must say when one is in our stack.

The answers were written before the first run. An abstention is a stack on which section 5 must
support nothing. ``foreign_play.py`` plays each case; ``docs/diagnosis-cases.md`` holds the runs.

The mechanisms come from the descriptions of two benchmarks: ITBench (``itbench-hub/ITBench``,
folder ``scenarios/sre``, by number of scenario) and AIOpsLab (``microsoft/AIOpsLab``, folder
``aiopslab/orchestrator/problems``, by name of problem).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ABSTENTIONS", "CASES", "FOREIGN", "ForeignCase", "find_misses"]


@dataclass(frozen=True, slots=True)
class ForeignCase:
    """One case, and the right answer.

    Attributes
    ----------
    name : of the case, and of the function that plays it
    source : project and scenario; empty for an abstention
    mechanism : what breaks, in the words of our stack
    expected : one of these causes must be supported; empty: none may be
    tolerated : causes that may be supported beside it, since they follow from it
    why : why this is the right answer
    """

    name: str
    source: str
    mechanism: str
    expected: tuple[str, ...]
    why: str
    tolerated: tuple[str, ...] = ()

    def find_wrong(self, supported: Iterable[str]) -> set[str]:
        """Return the supported causes that are no part of the right answer."""
        return set(supported) - {*self.expected, *self.tolerated}

    def is_named(self, supported: Iterable[str]) -> bool:
        """Tell whether the cause is supported; where there is none to name, that none is."""
        if not self.expected:
            return not self.find_wrong(supported)
        return bool(set(supported) & set(self.expected))


FOREIGN = (
    ForeignCase(
        name="worker_scaled_to_zero",
        source="ITBench scenario 58; AIOpsLab scale_pod_zero_social_net",
        mechanism="the worker's service has no instance left, and the service manager lists none",
        expected=("worker_stopped",),
        why="no instance runs",
    ),
    ForeignCase(
        name="pipeline_controller_at_zero",
        source="ITBench scenario 117 (stalled pipeline controller)",
        mechanism="nothing schedules the release DAG any more, and its API is gone",
        expected=(),
        why="the runbook knows a paused and a failing pipeline, not a missing one",
    ),
    ForeignCase(
        name="corrupted_secret",
        source="ITBench scenario 120 (corrupted secret)",
        mechanism="a rotation left one stray character at the end of the worker's secret",
        expected=("bad_credentials",),
        why="the store rejects the worker's signature",
    ),
    ForeignCase(
        name="changed_password",
        source="ITBench scenario 34 (changed password of a store)",
        mechanism="the store has a new root secret, and none of its clients knows it",
        expected=("bad_credentials",),
        tolerated=("metrics_blind",),
        why="the worker's key is wrong, and so is the exporter's, which can list nothing",
    ),
    ForeignCase(
        name="missing_credentials",
        source="AIOpsLab auth_miss_mongodb",
        mechanism="the worker has no credentials at all, so it asks anonymously",
        expected=("bad_credentials",),
        why="the remedy is to give the worker its key, not its user a right",
    ),
    ForeignCase(
        name="revoked_right",
        source="AIOpsLab revoke_auth_mongodb",
        mechanism="the worker's own user loses every right while the worker runs",
        expected=("no_permission",),
        why="the store knows the worker's key, and denies what the worker asks",
    ),
    ForeignCase(
        name="unregistered_user",
        source="AIOpsLab user_unregistered_mongodb",
        mechanism="the worker's own user is deleted from the store while the worker runs",
        expected=("bad_credentials",),
        why="the store does not know the worker's key any more",
    ),
    ForeignCase(
        name="wrong_environment",
        source="ITBench scenario 16 (modified environment variable); AIOpsLab"
        " misconfig_app_hotel_res",
        mechanism="the worker serves the bucket of another environment",
        expected=("bad_prefix",),
        why="bad_prefix is the runbook's cause for a worker in another place",
    ),
    ForeignCase(
        name="wrong_target_port",
        source="ITBench scenario 30 (modified target port)",
        mechanism="the carrier listens on a port that nobody calls",
        expected=("carrier_errors",),
        why="every request to the carrier is refused",
    ),
    ForeignCase(
        name="wrong_own_port",
        source="AIOpsLab k8s_target_port-misconfig",
        mechanism="the worker's service listens on a port that nobody calls; it still moves labels",
        expected=(),
        why="no label is stopped, and none of the causes is a wrong port",
    ),
    ForeignCase(
        name="network_delay",
        source="AIOpsLab network_delay_hotel_res; ITBench scenario 18",
        mechanism="each answer of the carrier takes 3 s on the way; the client waits for 2 s",
        expected=("carrier_timeout",),
        why="the carrier does not answer in time, as the client sees it",
    ),
    ForeignCase(
        name="network_partition",
        source="AIOpsLab network_loss_hotel_res",
        mechanism="between worker and store nothing gets through; everyone else reaches the store",
        expected=(),
        why="the store is up, the worker is not stuck by itself, and no cause is a partition",
    ),
    ForeignCase(
        name="name_resolution",
        source="ITBench scenario 43 (failing name resolution)",
        mechanism="the worker cannot resolve the store's name",
        expected=(),
        why="the store is up, and no cause is a name that does not resolve",
    ),
    ForeignCase(
        name="full_disk",
        source="ITBench scenario 116 (exhausted storage); AIOpsLab disk_woreout",
        mechanism="the store's whole volume is full, not the bucket's quota",
        expected=("storage_full",),
        why="every write is refused for want of room",
    ),
    ForeignCase(
        name="failing_job",
        source="ITBench scenario 122 (failed release pipeline)",
        mechanism="each run of the release DAG ends as failed",
        expected=("pipeline_failing",),
        why="its newest runs failed",
    ),
    ForeignCase(
        name="breaking_configuration",
        source="ITBench scenario 119 (breaking configuration change)",
        mechanism="the worker ends at each start: a variable of its environment is malformed",
        expected=("worker_stopped",),
        why="no instance stays up",
    ),
    ForeignCase(
        name="container_kill",
        source="AIOpsLab container_kill, pod_kill_hotel_res",
        mechanism="the worker is killed once, and its supervisor starts it again",
        expected=(),
        why="it recovered by itself within seconds",
    ),
    ForeignCase(
        name="pod_failure",
        source="AIOpsLab pod_failure_hotel_res",
        mechanism="the worker's process is there and does nothing at all",
        expected=("worker_stuck",),
        why="it runs, as its supervisor says, and moves nothing; a restart helps",
    ),
    ForeignCase(
        name="flood",
        source="ITBench scenario 1; AIOpsLab loadgenerator_flood_homepage",
        mechanism="late orders arrive faster than the worker moves their labels, without an end",
        expected=("surge",),
        why="the worker is healthy and too slow for what comes",
    ),
)

ABSTENTIONS = (
    ForeignCase(
        name="slow_but_healthy",
        source="",
        mechanism="every part takes its time, and labels leave in time",
        expected=(),
        why="nothing waits too long",
    ),
    ForeignCase(
        name="burst_that_drains",
        source="",
        mechanism="a morning's orders come at once, and are gone in less than a minute",
        expected=(),
        why="the queue empties long before any label waits too long",
    ),
    ForeignCase(
        name="unrelated_failure",
        source="",
        mechanism="a service that no label needs ends at each start",
        expected=(),
        why="labels flow",
    ),
    ForeignCase(
        name="half_blind",
        source="",
        mechanism="the services are not scraped any more, and nobody may ask the service manager",
        expected=(),
        why="labels flow; what is not known is no cause",
    ),
)

CASES = {case.name: case for case in (*FOREIGN, *ABSTENTIONS)}


def find_misses(case: ForeignCase, looks: list[list[str]]) -> list[str]:
    """Say in words what was not right; empty when all was.

    Parameters
    ----------
    looks : the supported causes of each look, in order; the last one must name the cause
    """
    misses = []
    wrong = sorted(set().union(*(case.find_wrong(supported) for supported in looks)))
    if wrong:
        misses.append(f"the answer wrongly supported `{'`, `'.join(wrong)}`")
    if not looks:
        misses.append("nobody looked")
    elif not case.is_named(looks[-1]) and case.expected:
        misses.append(f"the answer did not name `{'` or `'.join(case.expected)}`")
    return misses
