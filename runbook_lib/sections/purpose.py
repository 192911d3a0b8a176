"""Section 1: where this runs, what answers, what is allowed, whose clock is wrong. Only reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from ..change.synthetic import MARKER_KEY, read_marker
from ..errors import ClientError, ConnectionRefusedClientError
from ..investigation import Investigation
from ..model import Conclusion, Json, Reading, Status, Verdict
from ..section import ActionStep, SectionParameters, Step
from ..settings import HTTP_SYSTEMS
from .unfinished import UNFINISHED

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude", "read_clocks"]

NAME = "01_purpose"
TITLE = "Purpose"
MAX_SKEW_S = 30.0
#: Absent in many environments; their steps are not needed for a verdict.
_OPTIONAL = ("grafana", "probe", "notifications")


class Parameters(SectionParameters):
    """Parameters of section 1."""


@dataclass(frozen=True, slots=True)
class _Answer:
    system: str
    value: Json
    error: str
    elapsed_ms: float


def _ask_all(questions: dict[str, Callable[[], Json]]) -> list[_Answer]:
    """Ask all systems at once, so that those that are down cost one time-out together."""

    def ask(item: tuple[str, Callable[[], Json]]) -> _Answer:
        started, value, error = time.monotonic(), None, ""
        try:
            value = item[1]()
        except ClientError as failure:
            error = str(failure)
        return _Answer(item[0], value, error, round((time.monotonic() - started) * 1000))

    with ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(ask, questions.items()))


def _read_environment(inv: Investigation) -> Reading:
    name, is_playground = inv.settings.runbook_environment, inv.settings.is_playground
    marker = read_marker(inv.clients.store)
    if is_playground and marker != name:
        status = Status.BREACH
        reason = (
            f"RUNBOOK_ENVIRONMENT says {name}, the bucket's marker says {marker or 'nothing'}: "
            "section 4 refuses to run"
        )
    elif is_playground:
        status, reason = Status.OK, "drills and section 4 may run here: setting and marker agree"
    else:
        status, reason = Status.OK, f"{name}: section 4, drills and faults are forbidden"
    return inv.make_reading(
        "1.1",
        "environment",
        status,
        value=name,
        threshold="setting and marker object differ",
        source=f"RUNBOOK_ENVIRONMENT; {inv.clients.store.bucket}/{MARKER_KEY}",
        reason=reason,
        rows=[
            {"what": "environment", "value": name},
            {"what": "marker in the bucket", "value": marker or "none"},
            {"what": "services through", "value": inv.settings.runbook_services},
            {"what": "bucket", "value": inv.clients.store.bucket},
            {"what": "waits under", "value": inv.settings.pending_prefix},
            {"what": "released to", "value": inv.settings.ready_prefix},
        ],
    )


def _read_reachability(inv: Investigation) -> Reading:
    c = inv.clients

    def ask_store() -> str:
        live = c.store.check_live()
        if not live.is_live:
            raise ConnectionRefusedClientError(live.reason, system="store")
        return live.how

    systems = {name: getattr(c, name).check_reachable for name in HTTP_SYSTEMS}
    services = {"services": lambda: f"{len(c.services.list_services())} services"}
    questions = {"store": ask_store, **systems, **services}
    optional_last = sorted(questions.items(), key=lambda question: question[0] in _OPTIONAL)
    answers = _ask_all(dict(optional_last))
    silent = [a.system for a in answers if a.error and a.system not in _OPTIONAL]
    absent = [a.system for a in answers if a.error and a.system in _OPTIONAL]
    reason = f"no answer from {', '.join(silent)}" if silent else "every needed system answers"
    return inv.make_reading(
        "1.2",
        "reachability",
        Status.BREACH if silent else Status.OK,
        value=f"{sum(not a.error for a in answers)} of {len(answers)}",
        unit="systems answer",
        threshold="a system does not answer; Grafana, probe and notification sink may be away",
        source=", ".join(_list_addresses(inv).values()),
        reason=reason + (f"; without {', '.join(absent)}" if absent else ""),
        rows=[
            {
                "system": a.system,
                "address": _list_addresses(inv).get(a.system, inv.settings.runbook_services),
                "answer": a.value,
                "error": a.error,
                "ms": a.elapsed_ms,
            }
            for a in answers
        ],
        observations={f"{a.system}_answers": not a.error for a in answers},
    )


def _list_addresses(inv: Investigation) -> dict[str, str]:
    urls = {name: getattr(inv.clients, name).url for name in HTTP_SYSTEMS}
    return {
        "store": inv.settings.minio_endpoint,
        **{name: url or "not configured" for name, url in urls.items()},
    }


def _read_permissions(inv: Investigation) -> Reading:
    found = inv.clients.store.read_permissions(inv.settings.pending_prefix)
    rights = {
        "list": found.list,
        "read": found.read,
        "write": found.write,
        "delete": found.delete,
    }
    denied = [name for name, allowed in rights.items() if allowed is False]
    untold = [name for name, allowed in rights.items() if allowed is None]
    if denied:
        status, reason = Status.BREACH, f"denied: {', '.join(denied)}"
    elif found.list is None or found.read is None:
        status, reason = Status.UNKNOWN, f"cannot be told: {', '.join(untold)}"
    else:
        status, reason = Status.OK, "what is needed to look is allowed"
        if untold:
            reason += f"; {', '.join(untold)} cannot be told without writing: the plan tries them"
    return inv.make_reading(
        "1.3",
        "permissions",
        status,
        value=", ".join(name for name, allowed in rights.items() if allowed) or "none",
        threshold="a right is denied",
        source=f"{inv.clients.store.endpoint}/{inv.clients.store.bucket}",
        reason=reason,
        rows=[
            {"right": name, "allowed": allowed, "reason": found.reasons.get(name, "")}
            for name, allowed in rights.items()
        ],
    )


def read_clocks(inv: Investigation) -> Reading:
    """Compare every system's clock with ours, each by its ``Date`` header."""
    c = inv.clients

    def skew_of(client: object, read_clock: Callable[[], object]) -> Callable[[], Json]:
        def ask() -> Json:
            if not getattr(client, "url", ""):
                raise ConnectionRefusedClientError("not configured")
            before = inv.now()
            theirs = read_clock()
            ours = before + (inv.now() - before) / 2
            # The header tells whole seconds, cut off: half a second is added back.
            return (theirs - ours + timedelta(seconds=0.5)).total_seconds()  # type: ignore[operator]

        return ask

    clients = {name: getattr(c, name) for name in HTTP_SYSTEMS if name != "grafana"}
    questions: dict[str, Callable[[], Json]] = {
        name: skew_of(client, client.read_clock) for name, client in clients.items()
    }

    def ask_store() -> Json:
        return c.store.read_clock_skew_s()

    answers = _ask_all({"store": ask_store, **questions})
    known = {a.system: float(a.value) for a in answers if not a.error}
    wrong = {name: skew for name, skew in known.items() if abs(skew) > MAX_SKEW_S}
    worst = max(known.values(), key=abs, default=None)
    if wrong:
        status = Status.BREACH
        reason = "; ".join(f"{name} is {skew:+.0f} s off" for name, skew in wrong.items())
    elif not known:
        status, reason = Status.UNKNOWN, "no system told its time"
    else:
        status, reason = Status.OK, f"{len(known)} of {len(answers)} systems agree with this clock"
    return inv.make_reading(
        "1.4",
        "clock skew",
        status,
        value=round(worst, 1) if worst is not None else None,
        unit="s",
        threshold=f"more than {MAX_SKEW_S:g} s from this machine's clock",
        source="Date header of every system",
        reason=reason,
        rows=[{"system": a.system, "skew_s": a.value, "error": a.error} for a in answers],
        observations={
            "clock_skewed": ", ".join(sorted(wrong)) if wrong else (False if known else None),
            "clock_skews_s": known,
        },
    )


STEPS = {
    step.id: step
    for step in (
        Step(
            "1.1",
            "Environment: where this runs, and whether section 4 may",
            _read_environment,
            f"RUNBOOK_ENVIRONMENT and the object {MARKER_KEY}",
            name="environment",
        ),
        Step("1.2", "What answers", _read_reachability, "every system", name="reachability"),
        Step("1.3", "Permissions on the store", _read_permissions, "store", name="permissions"),
        Step("1.4", "Clock skew", read_clocks, "Date headers", name="clock skew"),
        UNFINISHED,
    )
}
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say whether the ground is firm: this section judges no symptom."""
    readings = inv.latest()
    own = {s: readings[s] for s in STEPS if s in readings}
    bad = [r for r in own.values() if r.status is not Status.OK]
    unknown = tuple(s for s in STEPS if s not in own or own[s].status is Status.UNKNOWN)
    return Conclusion(
        section=NAME,
        verdict=Verdict.HEALTHY if not bad and not unknown else Verdict.UNKNOWN,
        summary="; ".join(f"{r.step} {r.reason}" for r in bad)
        or ("not everything was read" if unknown else "everything needed answers and agrees"),
        unknown_steps=unknown,
    )
