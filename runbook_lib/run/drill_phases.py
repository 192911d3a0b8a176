"""The phases of a drill: detect, notify, act, clear. Each measures, and records what it saw."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ..model import ActionPhase, Verdict
from ..sections import SECTIONS
from .notebooks import RunStatus, run_notebook
from .score import Scorecard
from .waiting import wait_for

if TYPE_CHECKING:
    from .drill import Drill

__all__ = ["act", "clear", "detect", "is_healthy_now", "notify"]

_CHANNELS = ("slack", "email", "teams")
_EXERCISE = {"count": 5, "object_size_kb": 4}


def detect(drill: Drill, card: Scorecard) -> None:
    """Wait until the alert fires; without one, until section 2 sees something."""
    drill.progress(f"wait for {drill.scenario.alert}")

    def look() -> bool:
        alerts = drill.clients.prometheus.list_alerts()
        return any(a.name == drill.scenario.alert and a.state == "firing" for a in alerts)

    if not drill.scenario.alert:
        wait_for(
            lambda: not is_healthy_now(drill),
            timeout_s=drill.scenario.detect_timeout_s,
            every_s=1,
        )
    elif wait_for(look, timeout_s=drill.scenario.detect_timeout_s, every_s=0.5):
        card.detect_s = drill.elapsed_s()
    drill.record("detect", seconds=card.detect_s)


def _heard(drill: Drill, status: str) -> dict[str, datetime]:
    """Return when each channel's receiver first got the alert with this status."""
    heard: dict[str, datetime] = {}
    for n in drill.clients.notifications.list_notifications(since=drill.injected_at):
        if n.status == status and drill.scenario.alert in n.alertnames:
            heard.setdefault(n.channel, n.received_at)
    return heard


def notify(drill: Drill, card: Scorecard) -> None:
    """Wait until every channel's receiver got the alert."""
    drill.progress("wait for the channels")
    if card.detect_s is not None:
        wait_for(
            lambda: set(_CHANNELS) <= set(_heard(drill, "firing")),
            timeout_s=drill.scenario.notify_timeout_s,
            every_s=0.5,
        )
        heard = _heard(drill, "firing")
        card.notify_s = {c: _seconds(drill.injected_at, at) for c, at in heard.items()}
    drill.record("notify", seconds=dict(card.notify_s))


def _seconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 2)


def act(drill: Drill, card: Scorecard, name: str, groups: tuple[tuple[str, ...], ...]) -> None:
    """Run a section up to its plans; then, for each group of steps, approve those and run again."""
    drill.progress(f"{name}: plan")
    section, before = SECTIONS[name], drill.incident.journal.view().last_seq
    exercise = _EXERCISE if name.startswith("04") else {}
    if groups:
        run_notebook(section, drill.incident, exercise)
    for steps in groups:
        plans = _read_plans(drill, before, steps)
        approver = f"drill:{drill.id}"
        drill.record(
            "approve", by=approver, steps=list(plans), plans=[p for p, _ in plans.values()]
        )
        drill.progress(f"{name}: apply {', '.join(plans)}, approved as {approver}")
        run = run_notebook(
            section,
            drill.incident,
            {
                **exercise,
                "plan": ",".join(plan for plan, _ in plans.values()),
                "approve": ",".join(sha256 for _, sha256 in plans.values()),
            },
        )
        if run.status not in (RunStatus.DONE, RunStatus.STOPPED_AT_PLAN):
            card.failed_notebooks.append(run.name)
    for _, action in drill.incident.journal.view().list_actions(ActionPhase.VERIFIED, after=before):
        card.add_proof(action.result)


def _read_plans(drill: Drill, before: int, steps: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return the newest plan of each step, as id and SHA-256."""
    plans = drill.incident.journal.view().list_plans(after=before)
    found = {a.step: (plan, str(a.result["sha256"])) for plan, a in plans.items()}
    return {step: found[step] for step in steps if step in found}


def clear(drill: Drill, card: Scorecard, fixed_at: datetime) -> None:
    """Wait until the alert is gone and every channel said so; measured by the receivers' clock."""
    if not drill.scenario.alert:
        return
    drill.progress("wait for the alert to clear")

    def look() -> bool:
        alerts = drill.clients.prometheus.list_alerts()
        is_gone = not any(a.name == drill.scenario.alert for a in alerts)
        return is_gone and set(_CHANNELS) <= set(_heard(drill, "resolved"))

    if wait_for(look, timeout_s=drill.scenario.clear_timeout_s, every_s=0.5):
        last = max(_heard(drill, "resolved")[channel] for channel in _CHANNELS)
        card.clear_s = max(0.0, _seconds(fixed_at, last))
    drill.record("clear", seconds=card.clear_s)


def is_healthy_now(drill: Drill) -> bool:
    """Tell what section 2 says now."""
    inv = drill.open_section("02_signals_detection")
    for step in inv.section.STEPS:
        inv.take(step)
    return inv.conclude().verdict is Verdict.HEALTHY
