"""How a notebook shows a reading, a conclusion, an action and a plan: as HTML and as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..analysis.causes import CAUSES
from ..approvals import Plan
from ..model import ActionEntry, Conclusion, Json, Reading
from .tables import finding_rows, pill, render_rows
from .text import (
    STATUS_ICONS,
    VERDICT_WORDS,
    clip,
    format_bytes,
    format_value,
    safe,
    visible,
)

if TYPE_CHECKING:
    from ..investigation import Investigation

__all__ = [
    "action_html",
    "action_text",
    "conclusion_html",
    "conclusion_text",
    "fact_rows",
    "investigation_html",
    "investigation_text",
    "plan_html",
    "plan_rows",
    "plan_text",
    "reading_html",
    "reading_text",
]

_SHOWN_ROWS = 20
_SHOWN_EVENTS = 60
_FACTS = ("name", "value")
# What an action is, which its heading says already.
_IDENTITY = {"action", "plan", "sha256", "step", "target", "way_back", "reason"}
_PLAIN = (str, int, float, type(None))


def reading_text(reading: Reading) -> str:
    """Return a reading in a few lines of plain text."""
    lines = [
        f"{STATUS_ICONS[reading.status]} {reading.status} · {reading.step} {reading.name}: "
        f"{format_value(reading.value, reading.unit)}"
        + (f" (breach when {reading.threshold})" if reading.threshold else ""),
        f"  {reading.reason}" if reading.reason else "",
        f"  read {reading.observed_at:%Y-%m-%d %H:%M:%SZ} from {reading.source}",
    ]
    return visible(clip("\n".join(line for line in lines if line), 4_000))


def reading_html(reading: Reading) -> Markup:
    """Return a reading as HTML: status, value, reason, source, and its rows behind a fold."""
    parts = [
        Markup(
            "<p style='margin:0'>{} <b>{}</b> {}: <b>{}</b>{}</p><p style='margin:2px 0'>{}</p>"
        ).format(
            pill(str(reading.status)),
            safe(reading.step),
            safe(reading.name),
            safe(format_value(reading.value, reading.unit), 500),
            safe(f" (breach when {reading.threshold})" if reading.threshold else ""),
            safe(reading.reason),
        )
    ]
    if rows := reading.rows:
        caption = f"{reading.step} {reading.name}"
        if len(rows) > _SHOWN_ROWS:
            caption += f": the first {_SHOWN_ROWS} of {len(rows)} rows"
        table = render_rows(rows[:_SHOWN_ROWS], caption=caption, columns=reading.columns)
        parts.append(table if reading.columns else _fold(f"{len(rows)} rows", table))
    if reading.text:
        parts.append(_fold("text", Markup("<pre>{}</pre>").format(safe(reading.text, 6_000))))
    if facts := fact_rows(reading.facts):
        parts.append(_fold("details", render_rows(facts, caption=f"{reading.step}: details")))
    parts.append(
        Markup("<p style='margin:0;opacity:0.75'>read {} from <code>{}</code></p>").format(
            f"{reading.observed_at:%Y-%m-%d %H:%M:%SZ}", safe(reading.source, 500)
        )
    )
    return Markup("<div>{}</div>").format(Markup("").join(parts))


def fact_rows(facts: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return facts that say something, as rows of name and value."""
    return [
        {"name": name.replace("_", " "), "value": _plain(name, value)}
        for name, value in facts.items()
        if value not in (None, "", [], {})
    ]


def _plain(name: str, value: Json) -> Json:
    """Return a value as a cell shows it: sizes for people, small mappings as a list of words."""
    is_size = name.endswith("bytes") and isinstance(value, int | float)
    if is_size:
        return format_bytes(value)
    if isinstance(value, dict) and all(isinstance(v, _PLAIN) for v in value.values()):
        return ", ".join(f"{k} {format_value(v)}" for k, v in value.items())
    if isinstance(value, list) and all(isinstance(v, _PLAIN) for v in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def conclusion_text(conclusion: Conclusion) -> str:
    """Return a section's conclusion in plain text."""
    lines = [f"{VERDICT_WORDS[conclusion.verdict]}: {conclusion.summary}"]
    lines += [
        f"  {f.status} · {CAUSES[f.name].words} ({f.score:+.2f}) {f.reason} → {f.next_step}"
        for f in conclusion.findings
        if f.status != "refuted"
    ]
    if conclusion.unknown_steps:
        lines.append(f"  could not be read: {', '.join(conclusion.unknown_steps)}")
    return visible(clip("\n".join(lines), 8_000))


def conclusion_html(conclusion: Conclusion) -> Markup:
    """Return a section's verdict and its findings as HTML."""
    parts = [
        Markup("<p style='font-size:1.15em'>{} <b>{}</b></p>").format(
            pill(str(conclusion.verdict)), safe(conclusion.summary)
        )
    ]
    if conclusion.unknown_steps:
        parts.append(
            Markup("<p>Could not be read: {}</p>").format(safe(", ".join(conclusion.unknown_steps)))
        )
    if conclusion.findings:
        rows = finding_rows(conclusion.findings)
        parts.append(render_rows(rows, caption="Causes, the most supported first"))
    if events := conclusion.timeline[-_SHOWN_EVENTS:]:
        caption = f"What happened, UTC: the last {len(events)} of {len(conclusion.timeline)}"
        parts.append(_fold("timeline", render_rows(list(map(asdict, events)), caption=caption)))
    return Markup("<div>{}</div>").format(Markup("").join(parts))


def action_text(entry: ActionEntry) -> str:
    """Return one phase of an action in plain text."""
    text = f"{entry.phase} · {entry.step} {entry.action} on {entry.target}"
    if entry.reason:
        text += f"\n  {entry.reason}"
    numbers = [f"{k} {v}" for k, v in entry.result.items() if isinstance(v, int | float | str)]
    return visible(clip(f"{text}\n  {', '.join(numbers)}" if numbers else text, 4_000))


def action_html(entry: ActionEntry) -> Markup:
    """Return one phase of an action as HTML, with what came of it and the way back."""
    facts = fact_rows({k: v for k, v in entry.result.items() if k not in _IDENTITY})
    way_back = entry.undo or ("" if entry.reversible else "there is none: this cannot be undone")
    return Markup("<div><p>{} <b>{}</b> {} on {}. {}</p>{}{}</div>").format(
        pill(str(entry.phase)),
        safe(entry.step),
        safe(entry.action),
        safe(entry.target),
        safe(entry.reason),
        render_rows(facts, caption="What came of it", columns=_FACTS) if facts else "",
        # without anything done there is nothing to take back
        Markup("<p>Way back: {}</p>").format(safe(way_back))
        if way_back and entry.action != "none"
        else "",
    )


def plan_text(plan: Plan) -> str:
    """Return a plan in plain text: what an approver needs."""
    state = "nothing to do" if plan.is_empty else "planned, nothing was changed"
    lines = [f"■ {plan.step} {plan.action} on {plan.target}: {state}"]
    lines += [f"  {row['name']}: {format_value(row['value'])}" for row in fact_rows(plan.summary)]
    lines += ["" if plan.is_empty else f"  plan    = {plan.id!r}\n  approve = {plan.sha256!r}"]
    return visible(clip("\n".join(lines), 6_000))


def plan_html(plan: Plan) -> Markup:
    """Return a plan as HTML: its facts, its first objects, and how to approve it."""
    summary = plan.summary
    if plan.is_empty:
        return Markup("<p>{} <b>{}</b> Nothing to do. {}</p>").format(
            pill("planned"), safe(plan.step), safe(summary.get("reason") or plan.target)
        )
    facts = fact_rows({k: v for k, v in summary.items() if k not in ("action", "target")})
    if "way_back" not in summary:
        facts.append({"name": "way back", "value": plan.way_back or "there is none"})
    parts = [
        Markup("<p>{} <b>{}</b> {} on {}</p>").format(
            pill("planned"), safe(plan.step), safe(plan.action), safe(plan.target)
        ),
        render_rows(facts, caption="What would happen", columns=_FACTS),
    ]
    if objects := list(islice(plan_rows(plan), _SHOWN_ROWS)):
        caption = f"The first {len(objects)} objects; show.plan_table(plan) pages through all"
        parts.append(_fold("objects", render_rows(objects, caption=caption)))
    parts.append(
        Markup(
            "<p><b>Nothing was changed.</b> To carry it out, confirm it below, "
            "or set in the parameters cell:</p><pre>plan = {}\napprove = {}</pre>"
        ).format(safe(repr(plan.id)), safe(repr(plan.sha256)))
    )
    return Markup("<div>{}</div>").format(Markup("").join(parts))


def plan_rows(plan: Plan) -> Iterable[Mapping[str, Json]]:
    """Return the rows of a plan that has any, as mappings."""
    return (row.to_json() for row in plan.rows)


def _fold(title: str, content: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(safe(title), content)


def investigation_text(inv: Investigation) -> str:
    """Return which incident a notebook works on, in plain text."""
    facts = inv.incident.facts
    return visible(
        f"{inv.section.TITLE}\n  incident {inv.incident.id}, opened {facts.get('opened_at')}, "
        f"environment {inv.settings.runbook_environment}, ticket {inv.ticket_id or 'none'}\n"
        f"  folder {inv.incident.folder}"
    )


def investigation_html(inv: Investigation) -> Markup:
    """Return which incident a notebook works on, as HTML."""
    facts = inv.incident.facts
    rows: list[dict[str, Json]] = [
        {"name": "incident", "value": inv.incident.id},
        {"name": "opened", "value": facts.get("opened_at")},
        {"name": "journal entries", "value": inv.journal.last_seq},
        {"name": "environment", "value": inv.settings.runbook_environment},
        {"name": "ticket", "value": inv.ticket_id or "none"},
        {"name": "folder", "value": str(inv.incident.folder)},
    ]
    return render_rows(rows, caption=inv.section.TITLE)
