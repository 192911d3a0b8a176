"""Section 1: environment, reachability, rights, clocks, unfinished releases. Only reads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
)

from ..change.exercises import (
    MARKER_KEY,
    find_killed_drill,
    read_marker,
)
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
_NEEDED_SYSTEMS = ("store", "prometheus")
#: The store's second row in step 1.3, if MINIO_CHANGE_USER is set.
_CHANGE_KEYS = "store, keys for changes"
#: The rights that an investigation needs.
_NEEDED_RIGHTS = ("list", "read")
_RIGHT_WORDS = {True: "yes", False: "no", None: "not known"}


def _ask_all(questions: Sequence[Callable[[], T]]) -> list[T]:
    """Ask all systems at once, so that several silent ones cost a single time-out."""
    with ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(lambda ask: ask(), questions))


@step(
    "1.1",
    "Environment: where this runs, and whether exercises are allowed",
    name="environment",
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
    outcome = Outcome(value=environment)
    if not settings.is_playground:
        return outcome.ok(f"{environment}: no drill, fault or exercise may run")
    words = f"RUNBOOK_ENVIRONMENT says {environment}, the bucket's marker {marker or 'nothing'}"
    if marker == environment:
        return outcome.ok(f"{words}: drills may run")
    return outcome.breach(f"{words}: drills refuse to run")


def _list_systems(inv: Investigation) -> list[dict[str, Json]]:
    """Ask every system for our rights, and return the rows of step 1.3."""
    settings = inv.settings
    pending = settings.pending_prefix
    changed = (pending, settings.ready_prefix, settings.release_parked_prefix, ".runbook/")
    change_row = _CHANGE_KEYS if settings.minio_change_user else "store"
    # Without keys for changes, both entries are "store", and the second, longer question stays.
    questions: dict[str, Callable[[], Rights]] = {
        "store": lambda: inv.clients.store.read_rights(pending),
        change_row: lambda: inv.clients.store.read_rights(pending, write_under=changed),
    }
    for name in (*HTTP_SYSTEMS, "services"):
        questions[name] = partial(_try_reading, inv, name)
    rows = _ask_all([partial(_make_row, name, ask) for name, ask in questions.items()])
    # A release asks fulfillment-service which labels are finished, or Prometheus for moves.
    is_for_releasing = {
        change_row: True,
        "fulfillment": settings.label_finished == "shipment",
        "prometheus": settings.worker_control == "metric",
    }
    for row in rows:
        missing = row.pop("missing")
        if is_for_releasing.get(row["name"]):
            row["missing_for_releasing"] = missing
        if row["name"] != _CHANGE_KEYS:
            row["missing_for_looking"] = [right for right in missing if right in _NEEDED_RIGHTS]
    return rows


def _try_reading(inv: Investigation, name: str) -> Rights:
    """Try to read a system; raise ClientError if it can't be reached, or another one answers."""
    clients = inv.clients
    if name == "services":
        rights = {"read": try_right(lambda: clients.services.list_services())}
        if inv.settings.worker_control in ("compose", "supervisor"):
            rights["stop"] = (None, "")
        return rights
    rights = {"read": try_right(getattr(clients, name).check_reachable)}
    if rights["read"][0] and name == "grafana":  # which answers without credentials, too
        rights["read"] = try_right(lambda: clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE))
    if name == "fulfillment" and inv.settings.worker_control == "api":
        rights["pause"] = (None, "")
    return rights


def _make_row(name: str, ask: Callable[[], Rights]) -> dict[str, Json]:
    """Ask a system for our rights, and return its row of step 1.3.

    ``reachable`` is None if the system isn't configured, ``recognised`` if nothing answers.
    """
    is_reachable: bool | None = True
    is_recognised: bool | None = True
    rights: Rights = {}
    try:
        rights = ask()
        reason = "; ".join(dict.fromkeys(filter(None, [why for _, why in rights.values()])))
    except errors.ClientError as error:
        reason = error.message.partition(". ")[0]
        if isinstance(error, errors.WrongSystemError):
            is_recognised = False
            rights = {"read": (False, reason)}
        else:
            is_recognised = None
            is_reachable = None if isinstance(error, errors.NotConfiguredError) else False
    return {
        "name": name,
        "reachable": is_reachable,
        "recognised": is_recognised,
        "rights": {right: _RIGHT_WORDS[is_allowed] for right, (is_allowed, _) in rights.items()},
        "missing": [right for right, (is_allowed, _) in rights.items() if is_allowed is False],
        "missing_for_looking": [],
        "missing_for_releasing": [],
        "reason": reason,
    }


def list_obstacles(rows: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Return the rows of step 1.3 that keep you from investigating.

    They are the store and Prometheus if they can't be read, and wherever another system answers.
    """
    obstacles = []
    for row in rows:
        is_configured = row["reachable"] is not None
        has_rights = all(row["rights"].get(right, "yes") == "yes" for right in _NEEDED_RIGHTS)
        is_readable = row["reachable"] and has_rights
        is_unreadable = row["name"] in _NEEDED_SYSTEMS and is_configured and not is_readable
        if is_unreadable or row["recognised"] is False:
            obstacles.append(row)
    return obstacles


@step(
    "1.3",
    "What answers, and what you may do",
    name="rights",
    source="$minio_endpoint/$fulfillment_bucket; "
    + ", ".join(f"${name}_url" for name in HTTP_SYSTEMS),
    threshold="a system does not answer, another one does at its address, or a right is missing "
    "that an investigation needs; Grafana, probe and notification sink may be down",
)
def read_rights(inv: Investigation) -> Outcome:
    """Try each right by a request that changes nothing. A read-only access key is enough.

    A right that only a change would show stays unknown.
    """
    rows = _list_systems(inv)
    silent = [row for row in rows if row["reachable"] is False]
    obstacles = list_obstacles(rows)
    unread = silent + [row for row in obstacles if row not in silent]
    for_looking = _say_rights("Missing for an investigation", rows, "missing_for_looking")
    for_releasing = _say_rights("Missing for a release", rows, "missing_for_releasing")
    parts = [
        for_looking,
        *(f"{row['name']} can't be read: {row['reason'] or 'reason unknown'}" for row in unread),
        for_releasing,
    ]
    reason = ". ".join(part for part in parts if part)
    outcome = Outcome(rows=rows, columns=tuple(rows[0]))
    if for_looking or any(row["name"] not in OPTIONAL for row in silent):
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
    unit="s",
    source="Date header of every system but Grafana",
    threshold=f"more than {MAX_SKEW_S:g} s from this machine's clock",
)
def read_clocks(inv: Investigation) -> Outcome:
    """Compare every system's clock but Grafana's with ours, by the ``Date`` header."""
    others = [name for name in HTTP_SYSTEMS if name != "grafana"]
    names = ["store", *(name for name in others if getattr(inv.clients, name).url)]
    rows = _ask_all([partial(_read_skew, inv, name) for name in names])
    known = [row for row in rows if row["skew_s"] is not None]
    wrong = [row for row in known if abs(row["skew_s"]) > MAX_SKEW_S]
    outcome = Outcome(
        value=max((row["skew_s"] for row in known), key=abs, default=None),
        rows=rows,
        observations={"clock_skewed": ", ".join(row["system"] for row in wrong) if known else None},
    )
    if wrong:
        words = [f"{row['system']} is {row['skew_s']:+.0f} s off" for row in wrong]
        return outcome.breach("; ".join(words))
    if not known:
        return outcome.unknown("no system gave its time")
    return outcome.ok(f"{len(known)} of {len(rows)} systems agree with this machine's clock")


def _read_skew(inv: Investigation, name: str) -> dict[str, Json]:
    """Return a row: by how many whole seconds a system's clock is ahead of ours."""
    clock, _ = attempt(getattr(inv.clients, name).read_clock)
    skew_s = round((clock - inv.now()).total_seconds()) if clock else None
    return {"system": name, "skew_s": skew_s}


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


STEPS = by_id(_read_environment, read_rights, read_clocks, read_unfinished)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by section 2's readings, with section 1's problems."""
    own = [reading for step_id, reading in inv.latest().items() if step_id in STEPS]
    problems = [f"{reading.step} {reading.reason}" for reading in own if reading.status.is_open]
    return inv.conclude_symptoms(detection.STEPS, "; ".join(problems))
