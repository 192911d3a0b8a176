"""Section 1: environment, reachability, rights, clocks, unfinished releases. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar

from runbook_lib import errors
from runbook_lib.frames import TIME
from runbook_lib.model import Conclusion, Json, Outcome, Role
from runbook_lib.section import (
    ActionStep,
    SectionParameters,
    attempt,
    by_id,
    step,
    to_rows,
)

from ..change.drill_record import find_killed_drill
from ..change.environment_guard import MARKER_KEY, read_marker
from ..change.release import GATE
from ..clients.object_store import Rights, try_right
from ..investigation import Investigation
from ..settings import HTTP_SYSTEMS, OPTIONAL
from . import detection
from .signals import DASHBOARD_UID, PANEL_TITLE

T = TypeVar("T")
NAME = "01_purpose"
TITLE = "Purpose"
Parameters = SectionParameters
MAX_SKEW_S = 30.0
#: An investigation must be able to read each of these that is configured.
_NEEDED_FOR_LOOKING = ("store", "prometheus")
#: The store's second row in step 1.3, if MINIO_CHANGE_USER is set.
_CHANGE_KEYS = "store, keys for changes"
#: The rights that an investigation needs.
_LOOKING = ("list", "read")
_RIGHT_WORDS = {True: "yes", False: "no", None: "not known"}


def _ask_all(questions: Sequence[Callable[[], T]]) -> list[T]:
    """Ask all systems at once, so that several silent ones cost a single time-out."""
    with ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(lambda ask: ask(), questions))


@step(
    "1.1",
    "Environment: where this runs, and whether exercises are allowed",
    name="environment",
    role=Role.GROUND,
    source=f"RUNBOOK_ENVIRONMENT; s3://$fulfillment_bucket/{MARKER_KEY}",
    threshold="setting and marker object differ in local or demo",
)
def _read_environment(inv: Investigation) -> Outcome:
    """Compare RUNBOOK_ENVIRONMENT with the bucket's marker: exercises run only if they agree.

    Outside ``local`` and ``demo`` no exercise may run, so there the step is always ok.
    """
    settings = inv.settings
    environment = settings.runbook_environment
    marker = read_marker(inv.clients.store)
    facts = {
        "marker in the bucket": marker or "none",
        "services through": settings.runbook_services,
        "bucket": inv.clients.store.bucket,
        "waits under": settings.pending_prefix,
        "released to": settings.ready_prefix,
    }
    outcome = Outcome(value=environment, rows=to_rows(("what", "value"), facts.items()))
    if not settings.is_playground:
        return outcome.ok(f"{environment}: no drill, fault or exercise may run")
    words = f"RUNBOOK_ENVIRONMENT says {environment}, the bucket's marker {marker or 'nothing'}"
    if marker == environment:
        return outcome.ok(f"{words}: drills may run")
    return outcome.breach(f"{words}: drills refuse to run")


@step(
    "1.2",
    "Which systems answer",
    name="reachability",
    role=Role.GROUND,
    unit="systems answer",
    source="$minio_endpoint, " + ", ".join(f"${name}_url" for name in HTTP_SYSTEMS),
    threshold="a system does not answer, or another one does at its address; Grafana, probe and "
    "notification sink may be down",
)
def _read_reachability(inv: Investigation) -> Outcome:
    """Ask every configured system, and the back end that runs the services.

    It's a breach if a system outside ``OPTIONAL`` doesn't answer, or another one does at any
    system's address.
    """
    rows = _list_systems(inv)
    asked = [row for row in rows if row["reachable"] is not None]
    problems = {
        row["name"]: row["reason"]
        for row in asked
        if not row["reachable"] or row["recognised"] is False
    }
    wrong = {row["name"] for row in asked if row["recognised"] is False}
    outcome = Outcome(
        value=f"{len(asked) - len(problems)} of {len(asked)}",
        rows=rows,
        columns=("name", "reachable", "recognised", "reason"),
    )
    reason = "; ".join(f"{name}: {why}" for name, why in problems.items())
    if wrong or problems.keys() - set(OPTIONAL):
        return outcome.breach(reason)
    return outcome.ok(reason or "every system answers")


def _list_systems(inv: Investigation) -> list[dict[str, Json]]:
    """Ask every system for our rights, and return the rows of step 1.3."""
    settings = inv.settings
    changed_prefixes = (
        settings.pending_prefix,
        settings.ready_prefix,
        settings.release_parked_prefix,
        ".runbook/",
        settings.chaos_prefix,
    )

    def ask_store(*write_under: str) -> Rights:
        return inv.clients.store.read_rights(settings.pending_prefix, write_under=write_under)

    # Without keys for changes, both keys here are "store", and the longer question wins.
    questions: dict[str, Callable[[], Rights]] = {
        "store": ask_store,
        _name_change_row(inv): partial(ask_store, *changed_prefixes),
    }
    for name in (*HTTP_SYSTEMS, "services"):
        questions[name] = partial(_try_reading, inv, name)
    return _ask_all([partial(_make_row, inv, name, ask) for name, ask in questions.items()])


def _name_change_row(inv: Investigation) -> str:
    return _CHANGE_KEYS if inv.settings.minio_change_user else "store"


def _try_reading(inv: Investigation, name: str) -> Rights:
    """Try to read a system. A right that only a change would show stays unknown.

    Raises ClientError if the system can't be reached, or another one answers at its address.
    """
    clients = inv.clients
    if name == "services":
        rights = {"read": try_right(lambda: clients.services.list_services())}
        if inv.settings.worker_control in ("compose", "supervisor"):
            rights["stop"] = (None, "")
        return rights
    # Prometheus and Grafana answer ``check_reachable`` without credentials, so ask for more.
    further: dict[str, Callable[[], object]] = {
        "prometheus": lambda: clients.prometheus.query("1"),
        "grafana": lambda: clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE),
    }
    rights = {"read": try_right(lambda: getattr(clients, name).check_reachable())}
    if rights["read"][0] and name in further:
        rights["read"] = try_right(further[name])
    if name == "fulfillment" and inv.settings.worker_control == "api":
        rights["pause"] = (None, "")
    return rights


def _make_row(inv: Investigation, name: str, ask: Callable[[], Rights]) -> dict[str, Json]:
    """Ask a system for our rights, and return its row of step 1.3.

    ``reachable`` is None if the system isn't configured, ``recognised`` if it's unclear which
    system answers.
    """
    is_reachable: bool | None = True
    is_recognised: bool | None = True
    rights: Rights = {}
    try:
        rights = ask()
        reason = "; ".join(dict.fromkeys(filter(None, [why for _, why in rights.values()])))
    except errors.WrongSystemError as error:
        is_recognised = False
        reason = error.message.partition(". ")[0]
        rights = {"read": (False, reason)}
    except errors.ClientError as error:
        is_recognised = None
        is_reachable = None if isinstance(error, errors.NotConfiguredError) else False
        reason = error.message.partition(". ")[0]
    # An answer that neither lists nor refuses may come from another system.
    if rights.get("list", (True, ""))[0] is None:
        is_recognised = None
    missing = [right for right, (is_allowed, _) in rights.items() if is_allowed is False]
    for_clean_up = [right for right in missing if right.endswith(f" {inv.settings.chaos_prefix}")]
    # A release asks fulfillment-service which labels are finished, or Prometheus for moves.
    is_for_releasing = {
        _name_change_row(inv): True,
        "fulfillment": inv.settings.label_finished == "shipment",
        "prometheus": inv.settings.worker_control == "metric",
    }
    for_releasing = missing if is_for_releasing.get(name) else []
    return {
        "name": name,
        "reachable": is_reachable,
        "recognised": is_recognised,
        "rights": {right: _RIGHT_WORDS[is_allowed] for right, (is_allowed, _) in rights.items()},
        "missing_for_looking": []
        if name == _CHANGE_KEYS
        else [r for r in missing if r in _LOOKING],
        "missing_for_releasing": [right for right in for_releasing if right not in for_clean_up],
        "missing_for_clean_up": for_clean_up,
        "reason": reason,
    }


def list_obstacles(rows: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Return the rows of step 1.3 that keep you from investigating.

    They are the store and Prometheus if they can't be read, and wherever another system answers.
    """
    obstacles = []
    for row in rows:
        is_configured = row["reachable"] is not None
        may_look = all(row["rights"].get(right, "yes") == "yes" for right in _LOOKING)
        can_look = row["reachable"] and may_look
        is_hidden = row["name"] in _NEEDED_FOR_LOOKING and is_configured and not can_look
        if is_hidden or row["recognised"] is False:
            obstacles.append(row)
    return obstacles


@step(
    "1.3",
    "Rights: what an investigation and a release need",
    name="rights",
    role=Role.GROUND,
    source="$minio_endpoint/$fulfillment_bucket; one question to each system",
    threshold="a right is missing that an investigation needs",
)
def read_rights(inv: Investigation) -> Outcome:
    """Try each right by a request that changes nothing. A read-only access key is enough.

    A right that only a change would show stays unknown.
    """
    rows = _list_systems(inv)
    obstacles = list_obstacles(rows)
    for_looking = _say_rights("Missing for an investigation", rows, "missing_for_looking")
    for_releasing = _say_rights("Missing for a release", rows, "missing_for_releasing")
    parts = [
        for_looking,
        *(f"{row['name']} can't be read: {row['reason'] or 'reason unknown'}" for row in obstacles),
        for_releasing,
        _say_rights("Missing for a clean-up", rows, "missing_for_clean_up"),
    ]
    reason = ". ".join(part for part in parts if part)
    outcome = Outcome(rows=rows, columns=tuple(rows[0]))
    if for_looking:
        return outcome.breach(reason)
    if obstacles:
        return outcome.unknown(reason)
    outcome.value = "investigation" if for_releasing else "investigation and release"
    return outcome.ok(reason or "no right that can be checked is missing")


def _say_rights(heading: str, rows: Iterable[Mapping[str, Json]], field: str) -> str:
    """Return a heading and the rights under a field of each row, or ``""`` without any right."""
    parts = [f"{row['name']} {', '.join(row[field])}" for row in rows if row[field]]
    return f"{heading}: {'; '.join(parts)}" if parts else ""


@step(
    "1.4",
    "Clock skew",
    name="clock skew",
    role=Role.GROUND,
    unit="s",
    source="Date header of every system but Grafana",
    threshold=f"more than {MAX_SKEW_S:g} s from this machine's clock",
)
def read_clocks(inv: Investigation) -> Outcome:
    """Compare every system's clock but Grafana's with ours, by the ``Date`` header."""
    others = [name for name in HTTP_SYSTEMS if name != "grafana"]
    names = ["store", *(name for name in others if getattr(inv.clients, name).url)]
    answers = _ask_all([partial(attempt, partial(_read_skew_s, inv, name)) for name in names])
    known = {name: skew for name, (skew, _) in zip(names, answers, strict=True)}
    skews = {name: skew for name, skew in known.items() if skew is not None}
    wrong = [name for name, skew in skews.items() if abs(skew) > MAX_SKEW_S]
    outcome = Outcome(
        value=max(skews.values(), key=abs, default=None),
        rows=to_rows(("system", "skew_s"), known.items()),
        observations={"clock_skewed": ", ".join(wrong) if skews else None},
    )
    if wrong:
        return outcome.breach("; ".join(f"{name} is {skews[name]:+.0f} s off" for name in wrong))
    if not skews:
        return outcome.unknown("no system gave its time")
    return outcome.ok(f"{len(skews)} of {len(names)} systems agree with this machine's clock")


def _read_skew_s(inv: Investigation, name: str) -> int:
    """Return how far a system's clock is ahead of ours; its header has whole seconds."""
    ahead: timedelta = getattr(inv.clients, name).read_clock() - inv.now()
    return round(ahead.total_seconds())


#: The columns of step 1.5, and the fields of ``unfinished`` in ``runbook check``.


@step(
    "1.5",
    "Releases that are unfinished, or wait for an answer",
    name="unfinished releases",
    role=Role.UNFINISHED,
    unit="releases",
    source="s3://$fulfillment_bucket/.runbook/state.json",
    columns={"held_since": TIME},
    threshold="a release is not finished, or unproven",
)
def read_unfinished(inv: Investigation) -> Outcome:
    """List the bucket's unfinished releases, from any machine, and a drill killed on this one."""
    killed = find_killed_drill(inv.settings.runbook_home.resolve())
    return GATE.read_unfinished(inv, *([killed] if killed else ()))


STEPS = by_id(_read_environment, _read_reachability, read_rights, read_clocks, read_unfinished)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by section 2's readings, with section 1's problems."""
    own = [reading for step_id, reading in inv.latest().items() if step_id in STEPS]
    problems = [f"{reading.step} {reading.reason}" for reading in own if reading.status.is_open]
    return inv.conclude_symptoms(detection.STEPS, "; ".join(problems))
