"""Section 7: the checklist after the incident, ticked from evidence or left open with a reason."""

from __future__ import annotations

from collections.abc import Callable

from runbook_lib.model import Conclusion, Outcome, Role, Status, Verdict, parse_time
from runbook_lib.policy import make_log_entry
from runbook_lib.record.actions import group_actions
from runbook_lib.section import (
    ActionStep,
    ReadStep,
    SectionParameters,
    by_id,
    get_step,
    step,
    to_rows,
)
from runbook_lib.show.text import count_of

from ..analysis.causes import CAUSES
from ..analysis.samples import join
from ..investigation import Investigation
from . import references
from .detection import ALERTS, BLIND_ALERT, LAG, PROBE_MAX_AGE
from .immediate import CHANNELS

NAME = "07_postmortem"
TITLE = "Postmortem checklist"
Parameters = SectionParameters


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
    kept = received[-50:]
    told = ((n.channel, n.status, n.received_at, ", ".join(n.alertnames), n.is_drill) for n in kept)
    value = f"resolved at {len(CHANNELS) - len(silent)} of {len(CHANNELS)} channels"
    seen = Outcome(value=value, rows=to_rows(("channel", "status", "at", "alerts", "drill"), told))
    if active:
        return seen.breach(f"{active[0].name} is still {active[0].state}")
    if not samples or not prometheus.query(LAG):
        return seen.unknown("there is no fresh value of the lag")
    if samples[-1].value > limit:
        return seen.breach(f"the lag is {samples[-1].value:.1f} min")
    if not inv.settings.notifications_url:
        return seen.left_out("it cleared; who was told is not asked: NOTIFICATIONS_URL is empty")
    if not received:
        return seen.unknown("no channel received an alert: nothing to clear")
    if silent:
        return seen.breach(f"no `resolved` at {', '.join(silent)}")
    return seen.ok("the alert cleared, and every channel was told")


@step(
    "7.2", "Entry in the incident log", name="incident log", role=Role.CHECKLIST,
    source="journal of this incident",
    threshold="time, cause or measures are not in the journal",
)  # fmt: skip
def _read_log(inv: Investigation) -> Outcome:
    applied = ((a, a.applied) for a in group_actions(inv.journal.actions) if a.applied)
    measures = [
        {
            "at": entry.at,
            "step": action.first.step,
            "what": inv.policy.describe_action(action),
            "approved by": action.approver,
            "proof": inv.policy.describe_proof(action),
            "entry": f"#{entry.seq}",
        }
        for action, entry in applied
    ]
    causes = inv.policy.list_causes(inv.journal)
    log = make_log_entry(inv.policy, inv.journal, now=inv.now())
    many = count_of(len(measures), "measure")
    facts = {"opened_at": inv.incident.facts["opened_at"], **log}
    seen = Outcome(value=f"{count_of(len(causes), 'cause')}, {many}", rows=measures, facts=facts)
    wanted = {"time": log["since"], "cause": causes, "measures": measures}
    if missing := [what for what, there in wanted.items() if not there]:
        return seen.unknown(f"the journal has no {', no '.join(missing)} yet")
    return seen.ok(f"{', '.join(str(f.name) for f in causes)}; {many}")


def _point(step_id: str, title: str, source: str) -> Callable[[ReadStep], ReadStep]:
    """Make a step of a point of the checklist."""
    return step(
        step_id, title, name=title.lower(), role=Role.CHECKLIST, source=source,
        threshold="an open point without a note", unit="open points",
    )  # fmt: skip


@_point("7.3", "Procedures and automation", "journal of this incident")
def _read_automation(inv: Investigation) -> Outcome:
    causes = inv.policy.list_causes(inv.journal)
    todo = [text for f in causes for text in CAUSES[f.name].follow_ups]
    untold = "" if causes else "section 5 named no cause yet"
    return _tick(
        inv, get_step(_read_automation).id, todo, untold, "the cause needs no change in operations"
    )


@_point("7.4", "Tests and probes", "$prometheus_url/api/v1/rules; $probe_url/status")
def _read_probes(inv: Investigation) -> Outcome:
    loaded = {r.name for r in inv.clients.prometheus.list_rules() if r.health != "err"}
    missing = [f"alert {n} is not loaded" for n in (*ALERTS, BLIND_ALERT) if n not in loaded]
    if inv.settings.probe_url:
        probe = inv.clients.probe.read_status()
        if probe.ran_at is None or inv.now() - probe.ran_at > PROBE_MAX_AGE:
            missing.append("the synthetic probe did not run within 26 hours")
        if not any(s.name == "timeline_refresh" for s in probe.steps):
            missing.append("the probe has no step for the timeline refresh")
    return _tick(inv, get_step(_read_probes).id, missing, untold="", fine="nothing is missing")


@_point("7.5", "Documents", "readings of section 8")
def _read_documents(inv: Investigation) -> Outcome:
    own = [r for s, r in inv.latest().items() if s in references.STEPS]
    broken = [f"{r.step} {r.name}" for r in own if r.status is Status.BREACH]
    unread = [f"{r.step} {r.reason}" for r in own if r.status is Status.UNKNOWN]
    untold = f"could not be checked: {'; '.join(unread)}" if unread else ""
    untold = untold if own else "the references were not checked: run section 8"
    fine = "every reference that this installation has holds"
    return _tick(inv, get_step(_read_documents).id, broken, untold=untold, fine=fine)


def _tick(inv: Investigation, step_id: str, todo: list[str], untold: str, fine: str) -> Outcome:
    """Judge a point by what is open; a note answers it, ``untold`` says why it cannot be told."""
    seen = Outcome(value=len(todo), rows=[{"open": text} for text in todo])
    if note := inv.journal.note(step_id):
        return seen.ok(f"noted: {note}")
    if todo:
        return seen.breach(f"open: {'; '.join(todo)}")
    return seen.unknown(untold) if untold else seen.ok(fine)


STEPS = by_id(_read_cleared, _read_log, _read_automation, _read_probes, _read_documents)
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say which points are ticked; the verdict is the incident's."""
    own = [r for s, r in inv.latest().items() if s in STEPS]
    # a note answers a point; what it is about stays to be done
    follow_ups = tuple(row["open"] for r in own for row in r.rows if "open" in row)
    verdict = inv.policy.compute_verdict(inv.journal) or Verdict.UNKNOWN
    summary = f"{sum(r.status is Status.OK for r in own)} of {len(STEPS)} points are ticked"
    return Conclusion(verdict=verdict, summary=summary, follow_ups=follow_ups)
