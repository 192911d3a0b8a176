"""Section 1: the environment, reachability, rights, clocks, unfinished releases. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from objectmove.errors import MoveError
from runbook_lib import errors
from runbook_lib.http import HttpClient
from runbook_lib.model import Conclusion, Json, Outcome, Reading, Role
from runbook_lib.section import ActionStep, SectionParameters, by_id, get_step, step, to_rows
from runbook_lib.show.text import count_of

from ..change.drill_record import find_killed_drill
from ..change.environment_guard import MARKER_KEY, read_marker
from ..change.release import GATE
from ..clients.object_store import Rights, try_right
from ..investigation import Investigation
from ..settings import HTTP_SYSTEMS, OPTIONAL
from . import detection
from .signals import DASHBOARD_UID, PANEL_TITLE
from .symptoms import conclude_symptoms

NAME = "01_purpose"
TITLE = "Purpose"
Parameters = SectionParameters
MAX_SKEW_S = 30.0
#: Looking is possible only if each of these that is configured can be read.
_NEEDED_FOR_LOOKING = ("store", "prometheus")
#: The name of the store's second row in step 1.3, where MINIO_CHANGE_USER is set.
_CHANGE_KEYS = "store, keys for changes"
#: The rights that looking needs.
_LOOKING = ("list", "read")
_RIGHT_WORDS = {True: "yes", False: "no", None: "not known"}
#: The columns of step 1.3, and the fields of ``systems`` of ``runbook check``.
_RIGHTS = (
    "name",
    "reachable",
    "recognised",
    "rights",
    "missing_for_looking",
    "missing_for_releasing",
    "missing_for_clean_up",
    "reason",
)


def _ask_all(questions: Mapping[str, Callable[[], Json]]) -> dict[str, Json]:
    """Ask all systems at once: if several do not answer, that costs one time-out, not one each.

    Of a system that does not answer, the value is its ``ClientError``.
    """

    def ask(question: Callable[[], Json]) -> Json:
        try:
            return question()
        except errors.ClientError as failure:
            return failure

    with ThreadPoolExecutor(len(questions)) as pool:
        answers = pool.map(ask, questions.values())
        return dict(zip(questions, answers, strict=True))


@step(
    "1.1",
    "Environment: where this runs, and whether an exercise may",
    name="environment",
    role=Role.GROUND,
    source=f"RUNBOOK_ENVIRONMENT; $fulfillment_bucket/{MARKER_KEY}",
    threshold="setting and marker object differ in local or demo",
)
def _read_environment(inv: Investigation) -> Outcome:
    """Compare RUNBOOK_ENVIRONMENT with the marker in the bucket: an exercise needs both to agree.

    Only ``local`` and ``demo`` are compared: elsewhere no exercise may run, whatever the marker.
    """
    environment = inv.settings.runbook_environment
    marker = read_marker(inv.clients.store)
    facts = {
        "environment": environment,
        "marker in the bucket": marker or "none",
        "services through": inv.settings.runbook_services,
        "bucket": inv.clients.store.bucket,
        "waits under": inv.settings.pending_prefix,
        "released to": inv.settings.ready_prefix,
    }
    outcome = Outcome(value=environment, rows=to_rows(("what", "value"), facts.items()))
    if not inv.settings.is_playground:
        return outcome.ok(f"{environment}: no drill, fault or exercise may run")
    words = f"RUNBOOK_ENVIRONMENT says {environment}, the bucket's marker {marker or 'nothing'}"
    if marker == environment:
        return outcome.ok(f"{words}: drills may run")
    return outcome.breach(f"{words}: drills refuse to run")


@step(
    "1.2",
    "What answers",
    name="reachability",
    role=Role.GROUND,
    unit="systems answer",
    source="$minio_endpoint, " + ", ".join(f"${name}_url" for name in HTTP_SYSTEMS),
    threshold="a system does not answer, or another one does at its address; Grafana, probe and "
    "notification sink may be away",
)
def _read_reachability(inv: Investigation) -> Outcome:
    """Ask the store, each HTTP system with an address, and the back end that runs the services.

    A breach: a system outside ``OPTIONAL`` does not answer, or another system answers at a
    system's address.
    """
    clients = inv.clients
    addresses = {"store": inv.settings.minio_endpoint}
    questions: dict[str, Callable[[], Json]] = {"store": lambda: clients.store.check_live()[0]}
    for name in HTTP_SYSTEMS:
        client = getattr(clients, name)
        if client.url:
            addresses[name] = client.url
            questions[name] = partial(_recognise, client)
    urls = ", ".join(addresses.values())
    if inv.settings.runbook_services != "none":
        addresses["services"] = inv.settings.runbook_services
        questions["services"] = lambda: f"{len(clients.services.list_services())} services"
    answers = _ask_all(questions)
    failures = {
        name: answer for name, answer in answers.items() if isinstance(answer, errors.ClientError)
    }
    outcome = Outcome(
        value=f"{len(answers) - len(failures)} of {len(answers)}",
        source=urls,
        rows=[
            {
                "system": name,
                "address": addresses[name],
                "answer": None if name in failures else answer,
                "error": str(failures.get(name, "")),
            }
            for name, answer in answers.items()
        ],
    )
    wrong = [name for name, error in failures.items() if isinstance(error, errors.WrongSystemError)]
    silent = [name for name in failures if name not in wrong]
    parts = {
        "another system answers at ": ", ".join(f"{name.upper()}_URL" for name in wrong),
        "no answer from ": ", ".join(silent),
        "left out: ": ", ".join(name for name in HTTP_SYSTEMS if name not in answers),
    }
    reason = "; ".join(f"{words}{names}" for words, names in parts.items() if names)
    if wrong or not set(silent) <= set(OPTIONAL):
        return outcome.breach(reason)
    return outcome.ok(reason or "every system answers")


def _recognise(client: HttpClient) -> str:
    """Return a few words about a system, from an answer that only such a system gives.

    A system that refuses the credentials counts as reachable, too.
    """
    try:
        return client.check_reachable()
    except errors.AccessDeniedError:
        return "refuses the credentials: see 1.3"


def _list_questions(inv: Investigation) -> dict[str, Callable[[], dict[str, Json]]]:
    """Return a question about rights for each row of step 1.3. The keys are the names of the rows.

    A question is a function that returns its row. It needs the same right as the steps that read
    the system.
    """
    clients = inv.clients
    settings = inv.settings
    change_row = _CHANGE_KEYS if settings.minio_change_user else "store"

    def read_store_rights(*write_under: str) -> Rights:
        return clients.store.read_rights(settings.pending_prefix, write_under=write_under)

    changed_prefixes = (
        settings.pending_prefix,
        settings.ready_prefix,
        settings.release_parked_prefix,
        ".runbook/",
        settings.chaos_prefix,
    )
    reads: dict[str, Callable[[], object]] = {
        "prometheus": lambda: clients.prometheus.query("1"),
        "alertmanager": lambda: clients.alertmanager.list_alerts(),
        "fulfillment": lambda: clients.fulfillment.check_reachable(),
        "support": lambda: clients.support.check_reachable(),
        "pipeline": lambda: clients.pipeline.read_dag(),
        "grafana": lambda: clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE),
        "probe": lambda: clients.probe.read_status(),
        "notifications": lambda: clients.notifications.list_notifications(since=inv.now()),
        "services": lambda: clients.services.list_services(),
    }
    # Without keys for changes both names are ``store``: the second question, which asks for more,
    # replaces the first.
    questions: dict[str, Callable[[], Rights]] = {
        "store": read_store_rights,
        change_row: partial(read_store_rights, *changed_prefixes),
    }
    for name, read in reads.items():
        questions[name] = partial(_read_rights_of, inv, name, read)
    return {name: partial(_make_row, inv, name, question) for name, question in questions.items()}


def _needs_every_right(inv: Investigation, name: str) -> bool:
    """Tell whether a release needs every right that a row asks for, except those for clean-up.

    Parameters
    ----------
    name : the name of the row
    """
    settings = inv.settings
    if name == "fulfillment":
        # A release asks it which labels are finished.
        return settings.label_finished == "shipment"
    if name == "prometheus":
        # A release asks it when the worker last moved a label.
        return settings.worker_control == "metric"
    return name == (_CHANGE_KEYS if settings.minio_change_user else "store")


def _read_rights_of(inv: Investigation, name: str, read: Callable[[], object]) -> Rights:
    """Try whether we may read a system. A right that only a change would show stays unknown.

    Parameters
    ----------
    read : reads something, as the steps do that read this system

    Raises
    ------
    ClientError
        When the system cannot be reached, or another one answers at its address.
    """
    if name != "services":
        # This call matters for its errors: it raises when the system cannot be reached, or when
        # another system answers.
        try_right(getattr(inv.clients, name).check_reachable)
    rights: Rights = {"read": try_right(read)}
    worker_control = inv.settings.worker_control
    if name == "fulfillment" and worker_control == "api":
        rights["pause"] = (None, "")
    elif name == "services" and worker_control in ("compose", "supervisor"):
        rights["stop"] = (None, "")
    return rights


def _make_row(inv: Investigation, name: str, ask: Callable[[], Rights]) -> dict[str, Json]:
    """Ask a system for our rights, and return its row of step 1.3.

    ``reachable`` is None for a system that is not configured. ``recognised`` is None when nobody
    knows which system answers.
    """
    row: dict[str, Json] = {
        "name": name,
        "reachable": True,
        "recognised": True,
        "rights": {},
        "missing_for_looking": [],
        "missing_for_releasing": [],
        "missing_for_clean_up": [],
        "reason": "",
    }
    try:
        rights = ask()
    except errors.WrongSystemError as error:
        row["recognised"] = False
        rights = {"read": (False, error.message.partition(". ")[0])}
    except errors.ClientError as error:
        row["recognised"] = None
        row["reachable"] = False
        if isinstance(error, errors.NotConfiguredError):
            row["reachable"] = None
        row["reason"] = error.message.partition(". ")[0]
        return row
    # An answer that is neither a listing nor a refusal may come from another system. Only the
    # store's rows have the right `list`.
    if rights.get("list", (True, ""))[0] is None:
        row["recognised"] = None
    reasons = [why for _, why in rights.values() if why]
    row["reason"] = "; ".join(dict.fromkeys(reasons))
    row["rights"] = {right: _RIGHT_WORDS[is_allowed] for right, (is_allowed, _) in rights.items()}
    missing = [right for right, (is_allowed, _) in rights.items() if is_allowed is False]
    chaos_rights = [f"{verb} {inv.settings.chaos_prefix}" for verb in ("write", "delete")]
    if name != _CHANGE_KEYS:
        row["missing_for_looking"] = [right for right in missing if right in _LOOKING]
    if _needs_every_right(inv, name):
        row["missing_for_releasing"] = [right for right in missing if right not in chaos_rights]
    row["missing_for_clean_up"] = [right for right in missing if right in chaos_rights]
    return row


def list_obstacles(rows: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Return the rows of step 1.3 that keep a person from looking.

    Such a row is of one of two kinds:

    - another system answers at the system's address, so that its readings would show a wrong
      setting, not an incident;
    - the system is the store or Prometheus, is configured, and cannot be read.
    """
    obstacles = []
    for row in rows:
        words = [row["rights"].get(right) for right in _LOOKING]
        is_refused_or_unknown = "no" in words or "not known" in words
        is_unreadable = row["reachable"] is False or is_refused_or_unknown
        is_needed = row["name"] in _NEEDED_FOR_LOOKING
        if row["recognised"] is False or (is_needed and is_unreadable):
            obstacles.append(row)
    return obstacles


@step(
    "1.3",
    "Rights: what looking and releasing need",
    name="rights",
    role=Role.GROUND,
    source="$minio_endpoint/$fulfillment_bucket; one question to each system",
    threshold="a right is missing that looking needs",
)
def read_rights(inv: Investigation) -> Outcome:
    """Try each right by a request that changes nothing.

    A right that only a change would show stays unknown. An access key that may only read is
    enough for looking.
    """
    rows: list[dict[str, Json]] = list(_ask_all(_list_questions(inv)).values())
    obstacles = list_obstacles(rows)
    lacks_for_looking = _say_rights("Looking lacks", rows, "missing_for_looking")
    lacks_for_releasing = _say_rights("Releasing lacks", rows, "missing_for_releasing")
    parts = [
        lacks_for_looking,
        *(f"{row['name']} cannot be read: {row['reason'] or 'not known'}" for row in obstacles),
        lacks_for_releasing,
        _say_rights("Cleaning up lacks", rows, "missing_for_clean_up"),
    ]
    reason = ". ".join(part for part in parts if part)
    outcome = Outcome(rows=rows, columns=_RIGHTS)
    if lacks_for_looking:
        return outcome.breach(reason)
    if obstacles:
        return outcome.unknown(reason)
    outcome.value = "looking" if lacks_for_releasing else "looking and releasing"
    return outcome.ok(reason or "every right that can be checked is there")


def _say_rights(heading: str, rows: Iterable[Mapping[str, Json]], field: str) -> str:
    """Return a heading and the rights under a field of each row; empty when there is no right."""
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
    """Compare the clock of every system but Grafana with ours, by the ``Date`` header."""
    questions = {"store": partial(_read_skew_s, inv, "store")}
    for name in HTTP_SYSTEMS:
        if name != "grafana" and getattr(inv.clients, name).url:
            questions[name] = partial(_read_skew_s, inv, name)
    answers = _ask_all(questions)
    skews = {name: skew for name, skew in answers.items() if isinstance(skew, float)}
    wrong = {name: skew for name, skew in skews.items() if abs(skew) > MAX_SKEW_S}
    # The names of systems whose clock is off; False when all agree; None when no clock is known.
    skewed: Json = ", ".join(sorted(wrong)) or False
    if not skews:
        skewed = None
    outcome = Outcome(
        value=max(skews.values(), key=abs, default=None),
        rows=[
            {
                "system": name,
                "skew_s": skews.get(name),
                "error": "" if name in skews else str(answer),
            }
            for name, answer in answers.items()
        ],
        observations={"clock_skewed": skewed, "clock_skews_s": skews},
    )
    if wrong:
        parts = [f"{name} is {skew:+.0f} s off" for name, skew in wrong.items()]
        return outcome.breach("; ".join(parts))
    if not skews:
        return outcome.unknown("no system gave its time")
    return outcome.ok(f"{len(skews)} of {len(answers)} systems agree with this machine's clock")


def _read_skew_s(inv: Investigation, name: str) -> float:
    """Return by how many seconds a system's clock is ahead of ours."""
    asked_at = inv.now()
    theirs = getattr(inv.clients, name).read_clock()
    # The system reads its clock about halfway between question and answer.
    ours = asked_at + (inv.now() - asked_at) / 2
    ahead: timedelta = theirs - ours
    # The header has whole seconds, rounded down: half a second is added.
    return round(ahead.total_seconds() + 0.5, 1)


#: The columns of step 1.5, and the fields of ``unfinished`` of ``runbook check``.
_UNFINISHED = ("plan", "rows", "held_by", "held_since", "way_on")


@step(
    "1.5",
    "Releases that are not finished, or wait for a person's word",
    name="unfinished releases",
    role=Role.GROUND,
    unit="releases",
    source="the bucket's state, .runbook/state.json",
    threshold="a release is not finished, or unproven",
)
def read_unfinished(inv: Investigation) -> Outcome:
    """List the unfinished releases in the bucket's records, which every machine sees alike.

    A drill that was killed on this machine is listed, too. If the bucket's records cannot be read,
    the step is unknown; but it is a breach if a killed drill is known all the same.
    """
    rows: list[dict[str, Json]] = []
    problems: list[str] = []
    killed = find_killed_drill(inv.settings.runbook_home.resolve())
    if killed is not None:
        rows.append(killed)
    try:
        rows += GATE.list_unfinished(inv.clients)
    except errors.ClientError as error:
        if not rows:
            raise
        problems.append(_describe_unread(error))
    except MoveError as error:
        if not rows:
            raise errors.BadAnswerError(str(error), system="object store") from error
        problems.append(_describe_unread(error))
    problems += [_describe_unfinished(row) for row in rows]
    outcome = Outcome(
        value=len(rows),
        rows=rows,
        columns=_UNFINISHED,
        ways_on=tuple(str(row["way_on"]) for row in rows),
    )
    if problems:
        return outcome.breach("; ".join(problems))
    return outcome.ok("every release of this bucket is finished")


def _describe_unread(error: Exception) -> str:
    return f"the bucket's records cannot be read: {error}"


def _describe_unfinished(row: Mapping[str, Json]) -> str:
    """Say in words what a row of step 1.5 says."""
    held = ""
    if row["held_by"]:
        held = f", held by {row['held_by']} since {row['held_since']}"
    objects = ""
    if row["rows"]:
        objects = f" ({count_of(row['rows'], 'object')})"
    return f"{row['plan']}{objects} is not over{held}: {row['way_on']}"


STEPS = by_id(_read_environment, _read_reachability, read_rights, read_clocks, read_unfinished)
ACTIONS: dict[str, ActionStep] = {}


def describe_access(rights: Reading) -> str:
    """Say whether looking is possible, and what is missing.

    Notebook 01 and ``runbook check`` share this text.

    Parameters
    ----------
    rights : the reading of step 1.3
    """
    if not list_obstacles(rights.rows):
        return f"looking is possible: {rights.reason}"
    if any(row["reachable"] for row in rights.rows):
        return f"looking is not possible: {rights.reason}"
    return f"you are not connected: {rights.reason}"


def conclude(inv: Investigation) -> Conclusion:
    """Say whether there is an incident, by section 2's readings, and what section 1 read."""
    readings = inv.latest()
    remarks = []
    for step_id in STEPS:
        reading = readings.get(step_id)
        if reading is None:
            remarks.append(f"{step_id} was not read")
        elif step_id == get_step(read_rights).id:
            remarks.append(describe_access(reading))
        elif reading.status.is_open:
            remarks.append(f"{step_id} {reading.reason}")
    return conclude_symptoms(inv, detection.STEPS, "; ".join(remarks))
