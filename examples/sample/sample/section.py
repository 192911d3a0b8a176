"""Section 1: what it reads, and what follows from that."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.model import Conclusion, Outcome, Role, Status, Verdict
from runbook_lib.policy import Policy
from runbook_lib.section import SectionParameters, Sections, by_id, step
from runbook_lib.show import display

from .settings import Settings

NAME = "01_look"
TITLE = "Readings"
Parameters = SectionParameters


class Investigation(display.Investigation[Settings]):
    """One incident, with this runbook's settings."""

    runbook = "sample"


@step(
    "1.1",
    "No file waits too long",
    name="waiting",
    role=Role.BACKLOG,
    unit="files",
    source="$sample_folder",
    threshold="the oldest waits over $sample_late_minutes min",
    needed=True,
)
def read_waiting(inv: Investigation) -> Outcome:
    """List the files of the folder. An old one is a breach."""
    since = inv.now()
    rows = []
    for path in sorted(inv.settings.sample_folder.iterdir()):
        written_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        since = min(since, written_at)
        rows.append({"file": path.name, "since": written_at})
    minutes = (inv.now() - since).total_seconds() / 60
    names = tuple(str(row["file"]) for row in rows)
    outcome = Outcome(value=len(rows), order_ids=names, since=since, rows=tuple(rows))
    reason = f"{len(rows)} files wait, the oldest for {minutes:.1f} min"
    if minutes > inv.settings.sample_late_minutes:
        return outcome.breach(reason)
    return outcome.ok(reason)


@step(
    "1.2",
    "The disk has room",
    name="free space",
    role=Role.SYMPTOM,
    unit="GB",
    source="$sample_folder",
    threshold="under $sample_free_gb GB are free",
    needed=True,
)
def read_free_space(inv: Investigation) -> Outcome:
    """Read how much room the folder's disk has."""
    free_gb = shutil.disk_usage(inv.settings.sample_folder).free / 1e9
    outcome = Outcome(value=round(free_gb, 1))
    reason = f"{free_gb:.1f} GB are free"
    if free_gb < inv.settings.sample_free_gb:
        return outcome.breach(reason)
    return outcome.ok(reason)


STEPS = by_id(read_waiting, read_free_space)
ACTIONS = by_id()


def conclude(inv: Investigation) -> Conclusion:
    """Say what is wrong, and what to do."""
    advice = []
    if inv.latest()["1.1"].status is Status.BREACH:
        advice.append("Find out why nobody takes the files. Then investigate again.")
    if inv.latest()["1.2"].status is Status.BREACH:
        advice.append("Make room on the disk. Then investigate again.")
    return Conclusion(
        verdict=inv.policy.judge(inv.journal).verdict or Verdict.UNKNOWN,
        summary="; ".join(reading.reason for reading in inv.latest().values()),
        advice=tuple(advice),
    )


SECTIONS = Sections(
    [sys.modules[__name__]],
    notebooks=Path(__file__).with_name("notebooks"),
    read_only=(NAME,),
    investigation=Investigation,
)
POLICY = Policy(quantities=SECTIONS.list_quantities(), noun="file", request="file")
