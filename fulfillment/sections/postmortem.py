"""Section 7: the checklist after the incident, ticked from evidence or left open with a reason."""

from __future__ import annotations

from functools import partial

from runbook_lib import section
from runbook_lib.model import Conclusion, Json, Role, Status, Verdict, parse_time
from runbook_lib.record.actions import group_actions
from runbook_lib.section import Outcome, Seen, breach, by_id, left_out, ok, step, to_rows, unknown

from ..analysis.causes import CAUSES
from ..analysis.samples import join
from ..investigation import Investigation
from . import references
from .detection import ALERTS, BLIND_ALERT, LAG, PROBE_MAX_AGE
from .immediate import CHANNELS

NAME = "07_postmortem"
TITLE = "Postmortem checklist"
Parameters = section.SectionParameters


@step(
    "7.1", "The alert cleared, and every channel was told", name="alert cleared",
    role=Role.CLEARED, source=f"$prometheus_url {LAG}; $notifications_url/notifications",
    threshold="a value over the threshold, or a channel without `resolved`",
)  # fmt: skip
def _read_cleared(inv: Investigation) -> Outcome:
    prometheus, limit = inv.clients.prometheus, inv.settings.lag_threshold_minutes
    active = [a for a in prometheus.list_alerts() if a.name in ALERTS]
    samples = join(prometheus.query_samples(LAG, 120))
    since = parse_time(str(inv.incident.facts["opened_at"])) - inv.window
    sink = inv.clients.notifications
    arrived = sink.list_notifications(since=since) if inv.settings.notifications_url else []
    received = [n for n in arrived if set(n.alertnames) & set(ALERTS)]
    last = {n.channel: n.status for n in received}
    silent = [c for c in CHANNELS if last.get(c) != "resolved"]
    resolved = len(CHANNELS) - len(silent)
    seen: Seen = {
        "value": f"resolved at {resolved} of {len(CHANNELS)} channels",
        "rows": to_rows(
            ("channel", "status", "at", "alerts", "drill"),
            (
                (n.channel, n.status, n.received_at, ", ".join(n.alertnames), n.is_drill)
                for n in received[-50:]
            ),
        ),
    }
    if active:
        return breach(f"{active[0].name} is still {active[0].state}", seen)
    if not samples or not prometheus.query(LAG):
        return unknown("there is no fresh value of the lag", seen)
    if samples[-1].value > limit:
        return breach(f"the lag is {samples[-1].value:.1f} min", seen)
    if not inv.settings.notifications_url:
        return left_out("it cleared; who was told is not asked: NOTIFICATIONS_URL is empty", seen)
    if not received:
        return unknown("no channel received an alert: nothing to clear", seen)
    if silent:
        return breach(f"no `resolved` at {', '.join(silent)}", seen)
    return ok("the alert cleared, and every channel was told", seen)


@step(
    "7.2", "Entry in the incident log", name="incident log", role=Role.CHECKLIST,
    source="journal of this incident",
    threshold="time, cause or measures are not in the journal",
)  # fmt: skip
def _read_log(inv: Investigation) -> Outcome:
    causes, measures = inv.journal.causes(), _list_measures(inv)
    log = inv.journal.log_entry(inv.now())
    seen: Seen = {
        "value": f"{len(causes)} causes, {len(measures)} measures",
        "rows": measures,
        "facts": {"opened_at": inv.incident.facts["opened_at"], **log},
    }
    wanted = {"time": log["since"], "cause": causes, "measures": measures}
    if missing := [what for what, there in wanted.items() if not there]:
        return unknown(f"the journal has no {', no '.join(missing)} yet", seen)
    return ok(f"{', '.join(str(f.name) for f in causes)}; {len(measures)} measures", seen)


def _list_measures(inv: Investigation) -> list[dict[str, Json]]:
    """Return the actions that were carried out."""
    done = [(a, a.applied) for a in group_actions(inv.journal.actions) if a.applied]
    return to_rows(
        ("at", "step", "what", "approved by", "proof", "entry"),
        ((e.at, a.first.step, a.words, a.approver, a.proof, f"#{e.seq}") for a, e in done),
    )


_point = partial(
    step, role=Role.CHECKLIST, unit="open points", threshold="an open point without a note"
)


@_point(
    "7.3", "Procedures and automation", name="procedures and automation",
    source="journal of this incident",
)  # fmt: skip
def _read_automation(inv: Investigation) -> Outcome:
    causes = inv.journal.causes()
    seen = _list_points([text for f in causes for text in CAUSES[f.name].follow_ups])
    if note := inv.journal.note(_read_automation.id):
        return ok(f"noted: {note}", seen)
    if not causes:
        return unknown("section 5 named no cause yet", seen)
    if not seen["value"]:
        return ok("the cause needs no change in operations", seen)
    return breach(f"open: {'; '.join(row['open'] for row in seen['rows'])}", seen)


@_point(
    "7.4", "Tests and probes", name="tests and probes",
    source="$prometheus_url/api/v1/rules; $probe_url/status",
)  # fmt: skip
def _read_probes(inv: Investigation) -> Outcome:
    loaded = {r.name for r in inv.clients.prometheus.list_rules() if r.health != "err"}
    wanted = (*ALERTS, BLIND_ALERT)
    missing = [f"alert {name} is not loaded" for name in wanted if name not in loaded]
    if inv.settings.probe_url:
        probe = inv.clients.probe.read_status()
        if probe.ran_at is None or inv.now() - probe.ran_at > PROBE_MAX_AGE:
            missing.append("the synthetic probe did not run within 26 hours")
        if not any(s.name == "timeline_refresh" for s in probe.steps):
            missing.append("the probe has no step for the timeline refresh")
    seen = _list_points(missing)
    if note := inv.journal.note(_read_probes.id):
        return ok(f"noted: {note}", seen)
    return breach("; ".join(missing), seen) if missing else ok("nothing is missing", seen)


@_point("7.5", "Documents", name="documents", source="readings of section 8")
def _read_documents(inv: Investigation) -> Outcome:
    readings = inv.latest()
    own = [readings[s] for s in references.STEPS if s in readings]
    broken = [f"{r.step} {r.name}" for r in own if r.status is Status.BREACH]
    seen = _list_points(broken)
    if note := inv.journal.note(_read_documents.id):
        return ok(f"noted: {note}", seen)
    if broken:
        return breach(f"broken references: {', '.join(broken)}", seen)
    if not own:
        return unknown("the references were not checked: run section 8", seen)
    if unread := [f"{r.step} {r.reason}" for r in own if r.status is Status.UNKNOWN]:
        return unknown(f"could not be checked: {'; '.join(unread)}", seen)
    return ok("every reference that this installation has holds", seen)


def _list_points(todo: list[str]) -> Seen:
    return {"value": len(todo), "rows": [{"open": text} for text in todo]}


STEPS = by_id(_read_cleared, _read_log, _read_automation, _read_probes, _read_documents)
ACTIONS: dict[str, section.ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which points are ticked; the verdict is the incident's."""
    readings = inv.latest()
    ticked = [s for s in STEPS if s in readings and readings[s].status is Status.OK]
    rows = [row for s in STEPS if s in readings for row in readings[s].rows]
    return Conclusion(
        section=NAME,
        verdict=inv.journal.verdict() or Verdict.UNKNOWN,
        summary=f"{len(ticked)} of {len(STEPS)} points are ticked",
        unknown_steps=section.find_unknown(STEPS, readings),
        # a note answers a point; what it is about stays to be done
        follow_ups=tuple(row["open"] for row in rows if "open" in row),
    )
