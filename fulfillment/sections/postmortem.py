"""Section 7: the checklist after the incident. Evidence or a note ticks a point."""

from collections.abc import Callable

from runbook_lib.frames import TIME
from runbook_lib.language import gettext
from runbook_lib.model import (
    Conclusion,
    Json,
    Outcome,
    Role,
    Status,
    count_of,
)
from runbook_lib.record.folds import list_remedies, list_spans
from runbook_lib.section import (
    ActionStep,
    ReadStep,
    SectionParameters,
    Step,
    by_id,
    rows_of,
    step,
    to_rows,
)

from ..analysis.causes import CAUSES
from ..clients.http_systems import Notification
from ..investigation import Investigation
from ..quantities import Quantity
from . import references
from .immediate import CHANNELS
from .remediation import read_recovery
from .root_cause import STEPS as CAUSE_STEPS
from .signals import (
    ALERTS,
    BLIND_ALERT,
    find_beginning,
    measure_alerts,
)

NAME = "07_postmortem"
TITLE = "Postmortem checklist"
Parameters = SectionParameters


@step(
    "7.1",
    "The alert cleared, and every channel was notified",
    name="alert cleared",
    role=Role.CLEARED,
    source="$prometheus_url/api/v1/alerts; $notifications_url/notifications",
    columns={"at": TIME},
    threshold="an alert is active, or a channel has not received `resolved`",
)
def _read_cleared(inv: Investigation) -> Outcome:
    """Check that no alert is active, and that every channel got `resolved`."""
    alerts = inv.clients.prometheus.list_alerts()
    active = [alert for alert in alerts if alert.name in ALERTS]
    spans = list_spans(inv.policy.list_entries(inv.journal))
    breaches = [span.quantity for span in spans if span.status is Status.BREACH]
    has_fired = Quantity.ALERT in breaches
    # If none fired, what arrived is about an earlier incident.
    received = _list_received(inv) if has_fired else []
    # Notifications come oldest first, so each channel's newest status wins.
    newest_status = {notice.channel: notice.status for notice in received}
    untold = [channel for channel in CHANNELS if newest_status.get(channel) != "resolved"]
    outcome = Outcome(
        value=f"resolved at {len(CHANNELS) - len(untold)} of {len(CHANNELS)} channels",
        rows=rows_of(received, "channel", "status", at="received_at"),
        measurements=tuple(measure_alerts(alerts)),
    )
    if active:
        return outcome.breach(f"{active[0].name} {gettext('is still')} {active[0].state}")
    if not has_fired:
        return outcome.left_out("no alert fired in this incident")
    if not inv.settings.notifications_url:
        return outcome.left_out("the alert cleared; NOTIFICATIONS_URL is empty")
    if untold:
        return outcome.breach(f"{gettext('no `resolved` at')} {', '.join(untold)}")
    return outcome.ok("the alert cleared, and every channel was notified")


def _list_received(inv: Investigation) -> list[Notification]:
    """Return the notifications of this runbook's alerts since this incident began."""
    if not inv.settings.notifications_url:
        return []
    arrived = inv.clients.notifications.list_notifications(since=find_beginning(inv))
    return [notice for notice in arrived if set(notice.alertnames) & set(ALERTS)]


@step(
    "7.2",
    "Entry in the incident log",
    name="incident log",
    role=Role.CHECKLIST,
    source="journal of this incident",
    columns={"at": TIME},
)
def _read_log(inv: Investigation) -> Outcome:
    """Check that the journal has time, cause and measures; else the step is unknown."""
    measures = _list_measures(inv)
    causes = inv.policy.list_causes(inv.journal)
    counts = f"{count_of(len(causes), 'cause')}, {count_of(len(measures), 'measure')}"
    outcome = Outcome(
        value=counts,
        rows=measures,
        facts={"since": inv.since, "causes": [cause.words for cause in causes]},
    )
    required = {"time": inv.since, "cause": causes, "measures": measures}
    missing = [name for name, found in required.items() if not found]
    if missing:
        # The command names the incident, because it may be closed when somebody types this.
        advice = f'runbook note "what helped" --incident {inv.incident.id}'
        facts = gettext(", no ").join(map(gettext, missing))
        lack = gettext("the journal has no %(facts)s yet", facts=facts)
        return outcome.unknown(f"{lack}. {advice}")
    return outcome.ok(counts)


def _list_measures(inv: Investigation) -> list[dict[str, Json]]:
    """Return a row for each remedy; without any, for each remark or note on 7.2."""
    policy = inv.policy
    rows = [
        (
            action.decisive.at,
            action.first.step,
            policy.describe_action(action),
            action.approver,
            action.state,
        )
        for action in list_remedies(inv.journal.actions, policy.quantities)
        if action.applied
    ]
    notes = [
        (note.at, "", note.text, note.operator, "as noted")
        for note in inv.journal.notes
        if note.is_remark or note.checklist == "7.2"
    ]
    return to_rows(("at", "step", "what", "approved by", "proof"), sorted(rows) or notes)


def _checklist_step(step_id: str, title: str, source: str) -> Callable[[ReadStep], Step]:
    """Return ``@step`` with what points 7.3 to 7.5 share."""
    return step(
        step_id,
        title,
        name=title.lower(),
        role=Role.CHECKLIST,
        source=source,
        threshold="a point is open and has no note",
        unit="open points",
    )


@_checklist_step("7.3", "Procedures and automation", "journal of this incident")
def _read_automation(inv: Investigation) -> Outcome:
    """List what to change so that this incident's causes don't come back."""
    follow_ups: list[str] = []
    doubt = "section 5 named no cause"
    for finding in inv.policy.list_causes(inv.journal):
        follow_ups += CAUSES[finding.name].follow_ups
        doubt = ""
    return _judge_point(inv, "7.3", follow_ups, doubt)


@_checklist_step("7.4", "Tests and probes", "$prometheus_url/api/v1/rules; $probe_url/status")
def _read_probes(inv: Investigation) -> Outcome:
    """Check that Prometheus has the alert rules, and that the probe reports every step."""
    rules = inv.clients.prometheus.list_rules()
    loaded = {rule.name for rule in rules if rule.health != "err"}
    missing = [
        f"alert {name} is not loaded" for name in (*ALERTS, BLIND_ALERT) if name not in loaded
    ]
    if inv.settings.probe_url:
        probe = inv.clients.probe.read_status()
        if "timeline_refresh" not in [each.name for each in probe.steps]:
            missing.append("the probe has no step for the timeline refresh")
    return _judge_point(inv, "7.4", missing)


@_checklist_step("7.5", "Documents", "readings of section 8")
def _read_documents(inv: Investigation) -> Outcome:
    """List the references that section 8 found broken; left out without ``DATAFLOW_HOME``."""
    readings = [r for step_id, r in inv.latest().items() if step_id in references.STEPS]
    broken = [f"{r.step} {r.name}" for r in readings if r.status is Status.BREACH]
    doubt = "" if readings else "the documents were not checked: run section 8"
    if inv.settings.dataflow_home is None and not (broken or inv.journal.find_note("7.5")):
        return Outcome(value=0).left_out("there is no document to check")
    return _judge_point(inv, "7.5", broken, doubt)


def _judge_point(
    inv: Investigation, step_id: str, open_items: list[str], doubt: str = ""
) -> Outcome:
    """Judge a point by its open items. A note on the step makes it ``ok``, whatever is open.

    If nothing is open, a ``doubt`` makes it unknown.
    """
    outcome = Outcome(value=len(open_items), rows=[{"open": text} for text in open_items])
    note = inv.journal.find_note(step_id)
    if note:
        return outcome.ok(f"{gettext('noted')}: {note}")
    if open_items:
        return outcome.breach(f"{gettext('open:')} {'; '.join(map(gettext, open_items))}")
    if doubt:
        return outcome.unknown(doubt)
    return outcome.ok("nothing is open")


_OWN = by_id(_read_cleared, _read_log, _read_automation, _read_probes, _read_documents)
#: The checklist, and the steps that a verdict rests on.
STEPS = CAUSE_STEPS | by_id(read_recovery) | _OWN
ACTIONS: dict[str, ActionStep] = {}


def conclude(inv: Investigation) -> Conclusion:
    """Say how many points are ticked. The verdict is the incident's."""
    own = [reading for step_id, reading in inv.latest().items() if step_id in _OWN]
    ticked = [reading for reading in own if reading.status is Status.OK]
    # A note ticks a point, but the point's follow-ups stay open.
    follow_ups: list[str] = []
    for reading in own:
        follow_ups += [row["open"] for row in reading.rows if "open" in row]
    verdict, reason = inv.judge_now(STEPS)
    return Conclusion(
        verdict=verdict,
        summary=f"{len(ticked)} of {len(_OWN)} points are ticked; {reason}",
        follow_ups=tuple(follow_ups),
    )
