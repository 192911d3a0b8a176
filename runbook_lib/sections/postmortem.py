"""Section 7: the checklist after the incident, ticked from evidence or left open with a reason."""

from __future__ import annotations

from datetime import timedelta

from ..analysis.causes import CAUSES
from ..investigation import Investigation
from ..model import (
    ActionPhase,
    Conclusion,
    Json,
    Reading,
    Status,
    Verdict,
    format_time,
    parse_time,
)
from ..section import ActionStep, SectionParameters, Step
from . import references
from .alerting import ALERTS, BLIND_ALERT, LAG
from .delivery import CHANNELS
from .samples import one_series

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude"]

NAME = "07_postmortem"
TITLE = "Postmortem checklist"
_PROBE_MAX_AGE = timedelta(hours=26)


class Parameters(SectionParameters):
    """Parameters of section 7."""


def _read_cleared(inv: Investigation) -> Reading:
    prometheus, limit = inv.clients.prometheus, inv.settings.lag_threshold_minutes
    active = [a for a in prometheus.list_alerts() if a.name in ALERTS]
    samples = one_series(prometheus.query_samples(LAG, 120))
    fresh = bool(prometheus.query(LAG)) and bool(samples)
    since = parse_time(str(inv.incident.facts["opened_at"])) - inv.window
    heard = [
        n
        for n in inv.clients.notifications.list_notifications(since=since)
        if set(n.alertnames) & set(ALERTS)
    ]
    last = {channel: [n for n in heard if n.channel == channel][-1:] for channel in CHANNELS}
    told = [c for c, found in last.items() if found and found[0].status == "resolved"]
    silent = [c for c in CHANNELS if c not in told]
    if active:
        status, reason = Status.BREACH, f"{active[0].name} is still {active[0].state}"
    elif not fresh:
        status, reason = Status.UNKNOWN, "there is no fresh value of the lag"
    elif samples[-1].value > limit:
        status, reason = Status.BREACH, f"the lag is {samples[-1].value:.1f} min"
    elif not heard:
        status, reason = Status.UNKNOWN, "no channel received an alert: nothing to clear"
    elif silent:
        status, reason = Status.BREACH, f"no `resolved` at {', '.join(silent)}"
    else:
        status, reason = Status.OK, "the alert cleared, and every channel was told"
    return inv.make_reading(
        "7.1",
        "alert cleared",
        status,
        value=f"resolved at {len(told)} of {len(CHANNELS)} channels",
        threshold="a value over the threshold, or a channel without `resolved`",
        source=f"{prometheus.url} {LAG}; {inv.clients.notifications.url}/notifications",
        reason=reason,
        rows=[
            {"channel": n.channel, "status": n.status, "at": format_time(n.received_at)}
            | {"alerts": ", ".join(n.alertnames), "drill": n.is_drill}
            for n in heard[-50:]
        ],
    )


def _read_log(inv: Investigation) -> Reading:
    causes, measures = inv.journal.causes(), _list_measures(inv)
    since, verdict = inv.journal.since(), inv.journal.verdict()
    entry: dict[str, Json] = {
        "opened_at": inv.incident.facts["opened_at"],
        "since": format_time(since) if since else None,
        "causes": [{"cause": str(f.name), "why": f.reason} for f in causes],
        "measures": measures,
        "verdict": str(verdict) if verdict else None,
    }
    missing = [
        what
        for what, there in (("time", since), ("cause", causes), ("measures", measures))
        if not there
    ]
    return inv.make_reading(
        "7.2",
        "incident log",
        Status.UNKNOWN if missing else Status.OK,
        value=f"{len(causes)} causes, {len(measures)} measures",
        threshold="time, cause or measures are not in the journal",
        source="journal of this incident",
        reason=f"the journal has no {', no '.join(missing)} yet"
        if missing
        else f"{', '.join(str(f.name) for f in causes)}; {len(measures)} measures",
        rows=measures,
        facts={"entry": entry},
    )


def _list_measures(inv: Investigation) -> list[dict[str, Json]]:
    """Return the actions that were carried out."""
    return [
        {
            "at": format_time(entry.at),
            "step": action.step,
            "action": action.action,
            "target": action.target,
            "result": action.reason,
            "entry": f"#{entry.seq}",
        }
        for entry, action in inv.journal.list_actions(ActionPhase.APPLIED)
    ]


def _read_automation(inv: Investigation) -> Reading:
    causes = inv.journal.causes()
    todo = [text for f in causes for text in CAUSES[f.name].follow_ups]
    note = inv.journal.note("7.3")
    if note:
        status, reason = Status.OK, f"noted: {note}"
    elif not causes:
        status, reason = Status.UNKNOWN, "section 5 named no cause yet"
    elif not todo:
        status, reason = Status.OK, "the cause needs no change in operations"
    else:
        status, reason = Status.BREACH, f"open: {'; '.join(todo)}"
    return _make_open(inv, "7.3", status, reason=reason, todo=todo)


def _read_probes(inv: Investigation) -> Reading:
    wanted = (*ALERTS, BLIND_ALERT)
    loaded = {r.name for r in inv.clients.prometheus.list_rules() if r.health != "err"}
    missing = [f"alert {name} is not loaded" for name in wanted if name not in loaded]
    probe = inv.clients.probe.read_status()
    if probe.ran_at is None or inv.now() - probe.ran_at > _PROBE_MAX_AGE:
        missing.append("the synthetic probe did not run within 26 hours")
    if not any(s.name == "timeline_refresh" for s in probe.steps):
        missing.append("the probe has no step for the timeline refresh")
    note = inv.journal.note("7.4")
    if missing and not note:
        status, reason = Status.BREACH, "; ".join(missing)
    else:
        status, reason = Status.OK, f"noted: {note}" if note else "alerts and probe are in place"
    return _make_open(inv, "7.4", status, reason=reason, todo=missing)


def _read_documents(inv: Investigation) -> Reading:
    readings = inv.latest()
    own = {s: readings[s] for s in references.STEPS if s in readings}
    broken = [f"{s} {r.name}" for s, r in own.items() if r.status is Status.BREACH]
    unread = [s for s in references.STEPS if s not in own or own[s].status is Status.UNKNOWN]
    note = inv.journal.note("7.5")
    if note:
        status, reason = Status.OK, f"noted: {note}"
    elif broken:
        status, reason = Status.BREACH, f"broken references: {', '.join(broken)}"
    elif unread:
        status, reason = Status.UNKNOWN, f"not checked: {', '.join(unread)}; run section 8"
    else:
        status, reason = Status.OK, "every reference of the runbook holds"
    return _make_open(inv, "7.5", status, reason=reason, todo=broken)


def _make_open(
    inv: Investigation, step: str, status: Status, *, reason: str, todo: list[str]
) -> Reading:
    return inv.make_reading(
        step,
        STEPS[step].name,
        status,
        value=len(todo),
        unit="open points",
        threshold="an open point without a note",
        source="journal of this incident; Prometheus rules; probe",
        reason=reason,
        rows=[{"open": text} for text in todo],
    )


STEPS = {
    step.id: step
    for step in (
        Step(
            "7.1",
            "The alert cleared, and every channel was told",
            _read_cleared,
            "Prometheus and what the receivers got",
            name="alert cleared",
        ),
        Step("7.2", "Entry in the incident log", _read_log, "journal", name="incident log"),
        Step(
            "7.3",
            "Procedures and automation",
            _read_automation,
            "journal",
            name="procedures and automation",
        ),
        Step(
            "7.4",
            "Tests and probes",
            _read_probes,
            "Prometheus rules, probe",
            name="tests and probes",
        ),
        Step("7.5", "Documents", _read_documents, "readings of section 8", name="documents"),
    )
}
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which points are ticked; the verdict is the incident's."""
    readings = inv.latest()
    ticked = [s for s in STEPS if s in readings and readings[s].status is Status.OK]
    follow_ups = [
        text
        for step in ("7.3", "7.4", "7.5")
        if step in readings and readings[step].status is not Status.OK
        for text in (row["open"] for row in readings[step].rows)
    ]
    return Conclusion(
        section=NAME,
        verdict=inv.journal.verdict() or Verdict.UNKNOWN,
        summary=f"{len(ticked)} of {len(STEPS)} points are ticked",
        unknown_steps=tuple(
            s for s in STEPS if s not in readings or readings[s].status is Status.UNKNOWN
        ),
        detail={"follow_ups": follow_ups, "measures": _list_measures(inv)},
    )
