"""Why labels wait: one hypothesis per cause, as one table of clues. Pure.

A clue is a test of one named observation, with a weight. A hypothesis is *supported* when the
weights of the clues for it, less those against it, reach 0.6; else *undecided* when an
observation that could decide it is unknown, or a clue hints at it; else *refuted*. A cause
that makes the observations of others meaningless (the store is down) leaves those undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..model import Cause, CauseStatus, Finding
from .clues import (
    Clue,
    Hypothesis,
    Observation,
    failing,
    is_false,
    is_nothing,
    is_over,
    is_some,
    is_true,
    is_under,
)

__all__ = ["HYPOTHESES", "Observation", "diagnose"]

_SUPPORTED = 0.6
_HINT = 0.2


# Each command makes plans and stops; the plan says how to approve it.
_RUN = "runbook run 06"
_RELEASE = f"6.1 release by move what is finished ({_RUN} -p way=release)"
_RETRIGGER = f"6.1 re-trigger the worker ({_RUN} -p way=retrigger)"
_RESTART = f"6.2 restart the worker ({_RUN} -p service_action=restart)"


HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis(
        Cause.STORE_DOWN,
        (
            Clue(
                "store_live",
                is_false,
                0.9,
                "the object store does not answer, or says it is not well",
            ),
            Clue("store_live", is_true, -0.6, "the object store is live"),
            Clue(
                "failures_store_unreachable", is_over(0), 0.3, "the worker cannot reach it", False
            ),
        ),
        f"do not release: restore the object store first; 6.2 starts its service ({_RUN})",
    ),
    Hypothesis(
        Cause.METRICS_BLIND,
        (
            Clue("prometheus_answers", is_false, 0.9, "Prometheus does not answer"),
            Clue("exporter_up", is_false, 0.9, "Prometheus cannot scrape the exporter", False),
            Clue("lag_present", is_false, 0.3, "there is no fresh value of the lag", False),
            Clue(
                "exporter_refresh_age_s", is_over(60), 0.4, "the exporter stopped refreshing", False
            ),
            Clue(
                "store_live",
                is_false,
                -0.5,
                "without the store no exporter can see anything",
                False,
            ),
            Clue("exporter_up", is_true, -0.1, "the exporter is scraped", False),
        ),
        f"6.2 start the exporter or Prometheus ({_RUN}); believe the listing (2.3) until then",
    ),
    Hypothesis(
        Cause.WORKER_STOPPED,
        (
            Clue("worker_running", is_false, 0.9, "the worker's service does not run"),
            Clue("worker_paused", is_true, 0.9, "somebody paused the worker", False),
            Clue("worker_answers", is_false, 0.3, "the worker's API does not answer", False),
            Clue("worker_answers", is_true, -0.5, "the worker's API answers", False),
        ),
        f"6.2 start or resume the worker ({_RUN}), then {_RETRIGGER}",
    ),
    Hypothesis(
        Cause.WORKER_STUCK,
        (
            Clue("worker_stands_still", is_true, 0.8, "the worker runs, but begins no new pass"),
            Clue("worker_stands_still", is_false, -0.6, "the worker begins new passes"),
            Clue("waiting_finished", is_nothing, -0.3, "no finished object waits", False),
        ),
        f"{_RESTART}; if it stays stuck, {_RELEASE}",
        hidden_by=(Cause.STORE_DOWN, Cause.WORKER_STOPPED),
    ),
    Hypothesis(
        Cause.PIPELINE_PAUSED,
        (
            Clue("dag_paused", is_true, 0.9, "the DAG that releases labels is paused"),
            Clue("dag_paused", is_false, -0.6, "the DAG is not paused"),
        ),
        f"{_RELEASE}, then 6.2 unpause the DAG ({_RUN} -p service_action=unpause)",
    ),
    Hypothesis(
        Cause.PIPELINE_FAILING,
        (
            Clue("dag_failed_runs", is_over(1), 0.8, "its newest runs failed"),
            Clue("dag_failed_runs", is_over(0), 0.2, "its newest run failed"),
            Clue("dag_import_errors", is_true, 0.8, "the DAG cannot be loaded", False),
            Clue("dag_failed_runs", is_nothing, -0.6, "its newest run did not fail"),
        ),
        f"{_RELEASE}; the DAG's own logs say why its runs fail",
    ),
    Hypothesis(
        Cause.BAD_CREDENTIALS,
        (
            *failing("bad_credentials", "the store rejects the worker's key or signature"),
            Clue(
                "credentials_match", is_false, 0.3, "the worker's secret is not the store's", False
            ),
            Clue("credentials_match", is_true, -0.4, "the worker has the store's secret", False),
        ),
        f"{_RELEASE}; correct MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, then {_RESTART}",
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Hypothesis(
        Cause.NO_PERMISSION,
        (
            *failing("access_denied", "the store denies the worker a right"),
            Clue("failures_bad_credentials", is_over(0), -0.3, "its key itself is rejected", False),
        ),
        f"{_RELEASE}; give the worker's user its right back",
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Hypothesis(
        Cause.BAD_PREFIX,
        (
            Clue("worker_place", is_some, 0.9, "the worker watches or fills another place"),
            Clue("worker_place", is_nothing, -0.6, "the worker's prefixes and bucket are right"),
            Clue("failures_no_such_bucket", is_over(0), 0.3, "it names a missing bucket", False),
        ),
        f"{_RELEASE}; correct the worker's prefix or bucket, then {_RESTART}",
    ),
    Hypothesis(
        Cause.STORAGE_FULL,
        (
            *failing("storage_full", "writes are refused for want of room"),
            Clue("store_free_bytes", is_under(2**31), 0.3, "under 2 GiB are free", False),
        ),
        "do not release: a move needs room for the copies; free or add capacity first",
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Hypothesis(
        Cause.CARRIER_TIMEOUT,
        (
            Clue("carrier_timeout_share", is_over(0.2), 0.8, "the carrier does not answer in time"),
            Clue("logged_carrier_timeout", is_true, 0.3, "the worker's log says so", False),
            Clue(
                "waiting_incomplete", is_over(0), 0.1, "objects without tracking number wait", False
            ),
        ),
        "do not release objects without tracking number (6.1 leaves them out); call the carrier, "
        f"then {_RETRIGGER}",
    ),
    Hypothesis(
        Cause.CARRIER_ERRORS,
        (
            Clue("carrier_error_share", is_over(0.2), 0.8, "the carrier answers with errors"),
            Clue("logged_carrier_error", is_true, 0.3, "the worker's log says so", False),
            Clue(
                "waiting_incomplete", is_over(0), 0.1, "objects without tracking number wait", False
            ),
        ),
        "do not release objects without tracking number (6.1 leaves them out); call the carrier, "
        f"then {_RETRIGGER}",
    ),
    Hypothesis(
        Cause.SURGE,
        (
            Clue("surplus_objects", is_over(50), 0.7, "more labels arrive than leave"),
            Clue("drain_per_minute", is_nothing, -0.7, "nothing leaves at all: that is no surge"),
            Clue("waiting_finished", is_over(50), 0.2, "finished objects queue up", False),
            Clue("waiting_finished", is_under(20), -0.6, "no finished objects queue up"),
        ),
        f"none yet: the worker drains it; {_RETRIGGER} when it idles",
        # A surge outruns a healthy drain: while nothing may leave, that cannot be told.
        hidden_by=(
            Cause.STORE_DOWN,
            Cause.WORKER_STOPPED,
            Cause.WORKER_STUCK,
            Cause.PIPELINE_PAUSED,
            Cause.PIPELINE_FAILING,
        ),
    ),
    Hypothesis(
        Cause.SYNTHETIC,
        (
            Clue("overdue_synthetic", is_over(0), 0.8, "synthetic objects wait over the threshold"),
            Clue("overdue_real", is_over(0), -0.5, "real objects wait over it too"),
            Clue("drill_alert_firing", is_true, 0.1, "a drill's alert fires", False),
        ),
        f"do not release: 6.3 clean up the chaos objects ({_RUN})",
        hidden_by=(Cause.STORE_DOWN,),
    ),
    Hypothesis(
        Cause.SUPPORT_DOWN,
        (
            # Itself down, whatever else is: more than its source's absence takes away.
            Clue("support_answers", is_false, 1.2, "the support service does not answer"),
            Clue(
                "support_failures", is_over(0), 0.6, "it cannot collect shipments just now", False
            ),
            Clue("probe_refresh_failed", is_true, 0.4, "the probe's timeline refresh fails", False),
            Clue("probe_failed_before", is_true, 0.2, "the probe fails before the refresh", False),
            Clue("timeline_behind_minutes", is_over(15), 0.6, "the timeline is behind", False),
            Clue("worker_answers", is_false, -0.5, "its source of shipments is down itself", False),
        ),
        f"6.2 start the support service ({_RUN}), then 6.4 refresh the ticket's timeline "
        f"({_RUN} -p ticket_id=TICKET)",
    ),
    Hypothesis(
        Cause.CLOCK_SKEW,
        (
            Clue("clock_skewed", is_some, 0.8, "a system's clock is off"),
            Clue(
                "future_pending_since", is_over(0), 0.2, "labels claim to be from the future", False
            ),
        ),
        "do not trust ages from that system: set its clock right, then 6.2 restart it "
        f"({_RUN} -p service_action=restart -p service=NAME)",
    ),
)


def diagnose(
    observations: Mapping[str, Observation], *, first_seen: Mapping[Cause, datetime] | None = None
) -> tuple[Finding, ...]:
    """Judge every hypothesis.

    Parameters
    ----------
    observations : by name; a missing one is unknown
    first_seen : by cause, since when

    Returns
    -------
    One finding per cause: supported first, then undecided, then refuted, each by score.
    """
    judged: dict[Cause, Finding] = {}
    for hypothesis in HYPOTHESES:
        finding = _judge(hypothesis, observations)
        hiding = [
            c
            for c in hypothesis.hidden_by
            if c in judged and judged[c].status is CauseStatus.SUPPORTED
        ]
        if hiding:
            reason = f"cannot be told while {hiding[0]} is true"
            finding = finding.model_copy(
                update={"status": CauseStatus.UNDECIDED, "reason": reason, "next_step": ""}
            )
        at = (first_seen or {}).get(hypothesis.cause)
        if at is not None and finding.status is CauseStatus.SUPPORTED:
            finding = finding.model_copy(update={"first_seen": at})
        judged[hypothesis.cause] = finding
    order = [CauseStatus.SUPPORTED, CauseStatus.UNDECIDED, CauseStatus.REFUTED]
    return tuple(sorted(judged.values(), key=lambda f: (order.index(f.status), -f.score)))


def _judge(hypothesis: Hypothesis, observations: Mapping[str, Observation]) -> Finding:
    known = {n: o for n, o in observations.items() if o.value is not None}
    held = [c for c in hypothesis.clues if c.name in known and c.holds(known[c.name].value)]
    unknown = {c.name for c in hypothesis.clues if c.decides and c.name not in known}
    score = round(max(-1.0, min(1.0, sum(c.weight for c in held))), 2)
    hints = [c for c in held if c.weight > 0]
    if score >= _SUPPORTED:
        status, reason = CauseStatus.SUPPORTED, "; ".join(c.says for c in hints)
    elif unknown:
        status, reason = CauseStatus.UNDECIDED, f"unknown: {', '.join(sorted(unknown))}"
    elif score >= _HINT:
        status, reason = CauseStatus.UNDECIDED, f"only a hint: {'; '.join(c.says for c in hints)}"
    else:
        against = "; ".join(c.says for c in held if c.weight < 0)
        status, reason = CauseStatus.REFUTED, against or "nothing speaks for it"
    telling = held if status is CauseStatus.SUPPORTED else hypothesis.clues
    evidence = {known[c.name].evidence for c in telling if c.name in known}
    return Finding(
        name=hypothesis.cause,
        status=status,
        score=score,
        evidence=tuple(sorted(evidence)),
        reason=reason,
        next_step=hypothesis.next_step if status is CauseStatus.SUPPORTED else "",
    )
