"""The text of a message: the report's summary, what to do next, and where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runbook_lib.model import Verdict
from runbook_lib.record.incident import Incident
from runbook_lib.redact import Redactor
from runbook_lib.show.text import count_of, visible

from .book import KnownAlert
from .look import Look
from .targets import is_case

_MOST_NAMES = 3
_MOST_SUBJECT_CHARS = 200
_MOST_TEXT_CHARS = 3_500
#: The label that holds the id of a customer's case in support-service.
CASE_LABEL = "support_case"


class Occasion(NamedTuple):
    """What a message is about.

    Attributes
    ----------
    look : the result of the investigation
    alerts : all alerts of the episode, the resolved ones too
    is_drill : whether somebody made the trouble on purpose
    is_follow_up : whether an earlier look wrote a message about the incident
    page_url : the address of the page of incidents; the report's address begins with it
    """

    look: Look
    alerts: Sequence[KnownAlert]
    is_drill: bool
    is_follow_up: bool
    page_url: str


def make_subject(occasion: Occasion, redactor: Redactor) -> str:
    """Return one line: the alerts' names, the verdict, and the incident."""
    drill = "[DRILL] " if occasion.is_drill else ""
    follow_up = "Follow-up: " if occasion.is_follow_up else ""
    verdict = occasion.look.verdict.replace("_", " ") or "not investigated"
    if occasion.look.verdict == Verdict.HEALTHY:
        verdict = "no incident"
    name = occasion.look.incident or "no report"
    subject = f"{drill}{follow_up}{_join_names(occasion.alerts)}: {verdict} ({name})"
    return _clean(redactor.text(subject), _MOST_SUBJECT_CHARS)


def make_text(occasion: Occasion, incident: Incident | None, redactor: Redactor) -> str:
    """Return the message, without secrets: what was found, what to do next, where the report is.

    Parameters
    ----------
    incident : the look's incident; None when the look failed before it had one, or when the
        incident cannot be read
    """
    look = occasion.look
    lines = [_say_alerts(occasion.alerts)]
    if incident is None or look.error:
        lines += [
            f"The investigation failed: {look.error or 'there is no report'}",
            "Next: runbook investigate",
        ]
    if incident is not None:
        lines += _read_summary(incident.folder)
        if look.next:
            lines.append(f"Next: {look.next}")
        lines.append(f"Report: {occasion.page_url}/incidents/{incident.id}/report.html")
    if not list_cases(occasion.alerts):
        lines.append(f"No ticket: no alert names a case in its label {CASE_LABEL}.")
    return _clean(redactor.text("\n".join(lines)), _MOST_TEXT_CHARS)


def list_cases(alerts: Sequence[KnownAlert]) -> list[str]:
    """Return the ids of customers' cases that alerts name, each once, without malformed ones."""
    cases = dict.fromkeys(alert.labels.get(CASE_LABEL, "").strip() for alert in alerts)
    return [case for case in cases if is_case(case)]


def _read_summary(folder: Path) -> list[str]:
    """Return the lines of ``summary.txt`` without the report's path on this machine."""
    try:
        lines = (folder / "summary.txt").read_text("utf-8").splitlines()
    except OSError:
        return []
    return lines[:-1]


def _say_alerts(alerts: Sequence[KnownAlert]) -> str:
    """Say how many alerts there are, their names, how many still fire, and since when."""
    firing = [alert for alert in alerts if alert.ended_at is None]
    text = f"{count_of(len(alerts), 'alert')}: {_join_names(alerts)}"
    if not firing:
        return f"{text}. All are resolved."
    since = min(alert.started_at for alert in firing)
    return f"{text}. {len(firing):,} firing since {since:%Y-%m-%d %H:%MZ}."


def _join_names(alerts: Sequence[KnownAlert]) -> str:
    """Return the first three names of alerts, each once, and how many more there are."""
    names = dict.fromkeys(alert.labels.get("alertname", "unnamed alert") for alert in alerts)
    shown = [name[:60] for name in list(names)[:_MOST_NAMES]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown):,} more")
    return ", ".join(shown)


def _clean(text: str, limit: int) -> str:
    """Show invisible characters, and cut the text after ``limit`` characters."""
    shown = visible(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}…"
