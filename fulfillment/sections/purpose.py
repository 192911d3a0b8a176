"""Section 1: where this runs, what answers, what is allowed, whose clock is wrong. Only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from objectmove.errors import MoveError
from objectmove.record import find_expiry_rules
from runbook_lib import errors, section
from runbook_lib.model import Conclusion, Json, Outcome, Role, Status
from runbook_lib.section import attempt, by_id, step, to_rows

from ..change.environment_guard import MARKER_KEY, read_marker
from ..change.release import list_unfinished
from ..clients.object_store import Rights, try_right
from ..investigation import Investigation
from ..settings import HTTP_SYSTEMS, OPTIONAL
from . import detection
from .detection import DASHBOARD_UID, PANEL_TITLE

NAME = "01_purpose"
TITLE = "Purpose"
Parameters = section.SectionParameters
MAX_SKEW_S = 30.0
#: Without these nothing can be said of an incident.
_NEEDED = ("store", "prometheus")
_CHANGE_KEYS = "store, keys for changes"
_LOOKING = ("list", "read")
_NO_TICKET = "00000000-0000-0000-0000-000000000000"
_WORDS = {True: "yes", False: "no", None: "not known"}
#: The columns of step 1.3, and the fields of ``systems`` of ``runbook check``.
_RIGHTS = ("name", "reachable", "rights", "missing_for_looking", "missing_for_releasing", "reason")


def _ask_all(questions: Mapping[str, Callable[[], Json]]) -> dict[str, tuple[Json, str, int]]:
    """Ask all systems at once, so that those that are down cost one time-out together.

    Returns
    -------
    By system: its answer, or why there is none, and after how many milliseconds.
    """

    def ask(question: Callable[[], Json]) -> tuple[Json, str, int]:
        started = time.monotonic()
        return *attempt(question), round((time.monotonic() - started) * 1000)

    with ThreadPoolExecutor(len(questions)) as pool:
        return dict(zip(questions, pool.map(ask, questions.values()), strict=True))


@step(
    "1.1", "Environment: where this runs, and whether section 4 may", name="environment",
    role=Role.GROUND, source=f"RUNBOOK_ENVIRONMENT; $fulfillment_bucket/{MARKER_KEY}",
    threshold="setting and marker object differ",
)  # fmt: skip
def _read_environment(inv: Investigation) -> Outcome:
    name, marker = inv.settings.runbook_environment, read_marker(inv.clients.store)
    facts = {
        "environment": name,
        "marker in the bucket": marker or "none",
        "services through": inv.settings.runbook_services,
        "bucket": inv.clients.store.bucket,
        "waits under": inv.settings.pending_prefix,
        "released to": inv.settings.ready_prefix,
    }
    seen = Outcome(value=name, rows=to_rows(("what", "value"), facts.items()))
    if not inv.settings.is_playground:
        return seen.ok(f"{name}: section 4, drills and faults are forbidden")
    if marker == name:
        return seen.ok("drills and section 4 may run here: setting and marker agree")
    differ = f"RUNBOOK_ENVIRONMENT says {name}, the bucket's marker says {marker or 'nothing'}"
    return seen.breach(f"{differ}: section 4 refuses to run")


@step(
    "1.2", "What answers", name="reachability", role=Role.GROUND, unit="systems answer",
    source="$minio_endpoint, " + ", ".join(f"${name}_url" for name in HTTP_SYSTEMS),
    threshold="a system does not answer; Grafana, probe and notification sink may be away",
)  # fmt: skip
def _read_reachability(inv: Investigation) -> Outcome:
    c, settings = inv.clients, inv.settings
    clients = {name: client for name in HTTP_SYSTEMS if (client := getattr(c, name)).url}
    addresses = {"store": settings.minio_endpoint} | {n: one.url for n, one in clients.items()}
    asked = ", ".join(addresses.values())
    questions: dict[str, Callable[[], Json]] = {"store": lambda: c.store.check_live()[0]}
    questions |= {name: client.check_reachable for name, client in clients.items()}
    if settings.runbook_services != "none":
        addresses["services"] = settings.runbook_services
        questions["services"] = lambda: f"{len(c.services.list_services())} services"
    absent = [name for name in (*HTTP_SYSTEMS, "services") if name not in questions]
    answers = _ask_all(dict(sorted(questions.items(), key=lambda pair: pair[0] in OPTIONAL)))
    failed = [system for system, (_, error, _) in answers.items() if error]
    silent = [system for system in failed if system not in OPTIONAL]
    without = ", ".join(system for system in failed if system in OPTIONAL)
    reason = f"no answer from {', '.join(silent)}" if silent else "every needed system answers"
    reason += f"; without {without}" if without else ""
    reason += f"; left out: {', '.join(absent)}" if absent else ""
    told = ((system, addresses[system], *answer) for system, answer in answers.items())
    rows = to_rows(("system", "address", "answer", "error", "ms"), told)
    seen = Outcome(value=f"{len(answers) - len(failed)} of {len(answers)}", source=asked, rows=rows)
    return seen.breach(reason) if silent else seen.ok(reason)


def _list_questions(inv: Investigation) -> dict[str, Callable[[], tuple[Json, ...]]]:
    """Return for every system a question that needs the right which its steps need.

    Each answers with a row of ``_RIGHTS``.
    """
    c, settings, stop = inv.clients, inv.settings, ("services", "stop")
    untried = {"api": ("fulfillment", "pause"), "compose": stop, "supervisor": stop}
    holder, right = untried.get(settings.worker_control, ("", ""))
    changing = _CHANGE_KEYS if settings.minio_change_user else "store"
    releasing = {changing}  # the systems whose every right a release needs
    releasing |= {"fulfillment"} if settings.label_finished == "shipment" else set()
    releasing |= {"prometheus"} if settings.worker_control == "metric" else set()

    def ask_store(*write_under: str) -> Rights:
        return c.store.read_rights(settings.pending_prefix, write_under=write_under)

    def ask_read(name: str, read: Callable[[], object]) -> Rights:
        # what only a change would tell stays open
        return {"read": try_right(read)} | ({right: (None, "")} if name == holder else {})

    ask_change = partial(
        ask_store,
        settings.pending_prefix,
        settings.ready_prefix,
        settings.release_parked_prefix,
        ".runbook/",
    )
    reads: dict[str, Callable[[], object]] = {
        "prometheus": lambda: c.prometheus.query("1"),
        "alertmanager": lambda: c.alertmanager.list_alerts(),
        "fulfillment": lambda: c.fulfillment.list_shipments(order_id=1, limit=1),
        "support": lambda: c.support.read_case(_NO_TICKET),
        "pipeline": lambda: c.pipeline.read_dag(),
        "grafana": lambda: c.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE),
        "probe": lambda: c.probe.read_status(),
        "notifications": lambda: c.notifications.list_notifications(since=inv.now()),
        "services": lambda: c.services.list_services(),
    }
    asks: dict[str, Callable[[], Rights]] = {"store": ask_store, changing: ask_change}
    asks |= {name: partial(ask_read, name, read) for name, read in reads.items()}
    return {n: partial(_ask, n, ask, is_releasing=n in releasing) for n, ask in asks.items()}


def _ask(name: str, ask: Callable[[], Rights], *, is_releasing: bool) -> tuple[Json, ...]:
    """Return a row of ``_RIGHTS``: what one system answers."""
    try:
        found = ask()
    except errors.ClientError as error:
        reachable = None if isinstance(error, errors.NotConfiguredError) else False
        return name, reachable, {}, [], [], error.message.partition(". ")[0]
    reason = "; ".join(dict.fromkeys(why for _, why in found.values() if why))
    rights = {right: _WORDS[is_allowed] for right, (is_allowed, _) in found.items()}
    missing = [right for right, word in rights.items() if word == "no"]
    looking = [right for right in missing if right in _LOOKING and name != _CHANGE_KEYS]
    return name, True, rights, looking, missing if is_releasing else [], reason


def find_closed(rows: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Return which systems of step 1.3 are needed for looking, asked for, and not to be read."""
    shut = {"no", "not known"}
    asked = [row for row in rows if row["name"] in _NEEDED and row["reachable"] is not None]
    return [r for r in asked if not r["reachable"] or shut & {r["rights"].get(n) for n in _LOOKING}]


@step(
    "1.3", "Rights: what looking and releasing need", name="rights", role=Role.GROUND,
    source="$minio_endpoint/$fulfillment_bucket; one question to each system",
    threshold="a right is missing that looking needs",
)  # fmt: skip
def read_rights(inv: Investigation) -> Outcome:
    """Try each right by a request that cannot change anything; what only a change tells stays open.

    A key that may only read is right for looking.
    """
    rows = to_rows(_RIGHTS, (row for row, *_ in _ask_all(_list_questions(inv)).values()))

    def say(what: str, pick: Callable[[dict[str, Json]], list[str]]) -> str:
        found = "; ".join(f"{r['name']} {', '.join(names)}" for r in rows if (names := pick(r)))
        return f"{what}: {found}" if found else ""

    lacks = say("looking lacks", lambda r: r["missing_for_looking"])
    cannot = say("releasing lacks", lambda r: r["missing_for_releasing"])
    open_ = say("not known", lambda r: [n for n, w in r["rights"].items() if w == "not known"])
    blind = [row["name"] for row in find_closed(rows)]
    may = f"cannot be told: {', '.join(blind)}" if blind else "looking has every right"
    said = (lacks or may, cannot or "releasing lacks nothing that is known", open_)
    reason = "; ".join(filter(None, said))
    value = None if lacks or blind else "looking" if cannot else "looking and releasing"
    status = Status.BREACH if lacks else Status.UNKNOWN if blind else Status.OK
    return Outcome(value=value, rows=rows, columns=_RIGHTS).judge(status, reason)


@step(
    "1.4", "Clock skew", name="clock skew", role=Role.GROUND, unit="s",
    source="Date header of every system",
    threshold=f"more than {MAX_SKEW_S:g} s from this machine's clock",
)  # fmt: skip
def read_clocks(inv: Investigation) -> Outcome:
    """Compare every system's clock with ours, each by its ``Date`` header."""

    def ask(name: str) -> float:
        client, before = getattr(inv.clients, name), inv.now()
        theirs, ours = client.read_clock(), before + (inv.now() - before) / 2
        skew: timedelta = theirs - ours
        # The header tells whole seconds, cut off: half a second is added back.
        return round(skew.total_seconds() + 0.5, 1)

    named = (n for n in HTTP_SYSTEMS if n != "grafana" and getattr(inv.clients, n).url)
    answers = _ask_all({name: partial(ask, name) for name in ("store", *named)})
    known = {name: float(skew) for name, (skew, error, _) in answers.items() if not error}
    wrong = {name: skew for name, skew in known.items() if abs(skew) > MAX_SKEW_S}
    told: Json = ", ".join(sorted(wrong)) if wrong else (False if known else None)
    rows = to_rows(("system", "skew_s", "error"), ((n, *one[:2]) for n, one in answers.items()))
    observed = {"clock_skewed": told, "clock_skews_s": known}
    worst = max(known.values(), key=abs, default=None)
    seen = Outcome(value=worst, rows=rows, observations=observed)
    if wrong:
        return seen.breach("; ".join(f"{n} is {skew:+.0f} s off" for n, skew in wrong.items()))
    if not known:
        return seen.unknown("no system told its time")
    return seen.ok(f"{len(known)} of {len(answers)} systems agree with this clock")


_UNFINISHED = ("plan", "by", "state", "rows", "held_by", "held_since", "way_on")


@step(
    "1.5", "Releases that are not finished, or wait for a person's word",
    name="unfinished releases", role=Role.GROUND, unit="releases",
    source="the bucket's records under .runbook/releases/",
    threshold="a release is not finished, or unproven",
)  # fmt: skip
def read_unfinished(inv: Investigation) -> Outcome:
    """Look into the bucket's own records: every machine sees the same."""
    try:
        rows = list_unfinished(inv.clients, inv.settings)
        rules = find_expiry_rules(inv.clients.bucket)
    except MoveError as error:
        raise errors.BadAnswerError(str(error), system="object store") from error
    found = [_describe_unfinished(row) for row in rows]
    if rules:
        found.append(
            f"the lifecycle rule {', '.join(rules)} removes .runbook/, the memory of releases: "
            "exempt that prefix"
        )
    seen = Outcome(
        value=len(rows),
        rows=rows,
        columns=_UNFINISHED,
        ways_on=tuple(str(row["way_on"]) for row in rows),
    )
    if found:
        return seen.breach("; ".join(found))
    return seen.ok("every release of this bucket is finished")


def _describe_unfinished(row: Mapping[str, Json]) -> str:
    held = ""
    if row["held_by"]:
        held = f", held by {row['held_by']} since {row['held_since']}"
    return f"{row['plan']} ({row['rows']} objects) {row['state']}{held}: {row['way_on']}"


STEPS = by_id(_read_environment, _read_reachability, read_rights, read_clocks, read_unfinished)
ACTIONS: dict[str, section.ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether labels wait, by what was read of section 2, and whether the ground is firm."""
    readings = inv.latest()
    bad = [readings[s] for s in STEPS if s in readings and readings[s].status.is_open]
    said = "; ".join(f"{r.step} {r.reason}" for r in bad)
    rest = "everything needed answers" if set(STEPS) <= set(readings) else "not everything was read"
    return detection.conclude_symptoms(inv, detection.STEPS, said or rest)
