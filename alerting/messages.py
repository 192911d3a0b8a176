"""What a message says: the first lines of the report's summary, and where the report is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.redact import Redactor
from runbook_lib.show.text import visible

from .alerts import KnownAlert
from .investigation import Investigation

_MOST_SUBJECT_CHARS = 200
_MOST_TEXT_CHARS = 2_000


@dataclass(frozen=True)
class Message:
    """A message, the same for every target."""

    id: str  # the incident and its phase (the verdict); stands in the text
    subject: str
    text: str
    report: str  # the path of the attached report, or ""


def make_message(
    investigation: Investigation,
    alerts: Sequence[KnownAlert],
    *,
    home: Path,
    page_url: str,
    redactor: Redactor,
) -> Message:
    """Return the message about the investigation of these alerts, without secrets."""
    phase = investigation.verdict or "failed"
    drill = "[DRILL] " if alerts[0].is_drill else ""
    alert_names = ", ".join(sorted({alert.name for alert in alerts})).split()
    report = Path()
    # Without an incident, the oldest alert stands for it.
    topic = investigation.incident or f"{alerts[0].fingerprint} {alerts[0].starts_at}"
    lines = []
    if investigation.error:
        lines += [f"The investigation failed: {investigation.error}", "Next: runbook investigate"]
    last_lines = []  # never cut off
    if investigation.incident:
        report = home / investigation.incident / "report.html"
        lines += _read_summary(home / investigation.incident)
        if investigation.next:
            lines.append(f"Next: {investigation.next}")
        last_lines.append(f"Report: {page_url}/incidents/{investigation.incident}/report.html")
    message_id = f"{topic} {phase}"
    last_lines.append(f"[{message_id}]")
    subject = f"{drill}{phase}: {topic}: {' '.join(alert_names)}"
    text = visible(redactor.text("\n".join(lines)))[:_MOST_TEXT_CHARS]
    return Message(
        id=message_id,
        subject=visible(redactor.text(subject))[:_MOST_SUBJECT_CHARS],
        text="\n".join([text, *last_lines]),
        report=str(report) if report.is_file() else "",
    )


def _read_summary(folder: Path) -> list[str]:
    """Return the lines of ``summary.txt`` without the last, the report's path on this machine."""
    try:
        lines = (folder / "summary.txt").read_text("utf-8").splitlines()
    except OSError:
        return []
    return lines[:-1]
