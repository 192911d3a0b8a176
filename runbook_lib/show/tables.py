"""The one model of a table, and the templates that turn values into HTML that nothing breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..approvals import SHORT_HASH
from ..model import ActionPhase, CauseStatus, Finding, Json
from ..policy import say_causes
from ..record.actions import group_actions
from ..record.view import JournalView, order_of
from .text import (
    capitalise,
    count_of,
    format_bytes,
    format_value,
    safe,
)

if TYPE_CHECKING:
    from jinja2 import Environment

#: How a tone looks, and its icon. Each pair of colours has a contrast over 7:1.
_TONES = {
    "good": ("background-color:#d5f0dc;color:#0b3d1d", "✓"),
    "bad": ("background-color:#fbdcd6;color:#6b1207", "✖"),
    "unsure": ("background-color:#fdedc3;color:#4d3800", "?"),
    "plain": ("background-color:#e4e8ee;color:#22303f", "–"),
}
#: The words of each tone; any other word is plain.
_WORDS = {
    "good": ("ok", "healthy", "fixed", "fixed_alert_decaying", "yes", "passed", "verified", "done"),
    "bad": ("breach", "incident", "not_fixed", "no", "failed", "supported"),
    "unsure": ("unknown", "undecided", "mitigated", "refused"),
}
#: Columns whose cells are shown as pills.
_PILL_COLUMNS = ("status", "phase", "verdict", "met")
#: Values that need no line of their own.
EMPTY: tuple[Json, ...] = (None, "", [], {}, ())


class Table(NamedTuple):
    """Rows under a caption; the first column names the row. Without ``columns``, all are shown."""

    caption: str
    rows: Sequence[Mapping[str, Json]]
    columns: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The columns that are shown."""
        if self.columns:
            return list(self.columns)
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)


def tabulate_facts(facts: Mapping[str, Json], caption: str) -> Table:
    """Return the facts that are not empty as a table of name and value."""
    rows = []
    for name, value in facts.items():
        if value not in EMPTY:
            rows.append({"name": name.replace("_", " "), "value": say_value(value, name)})
    return Table(caption, rows)


def tabulate_findings(findings: Iterable[Finding]) -> Table:
    """Return the causes that are not refuted as a table, the most supported first."""
    order = list(CauseStatus)
    ordered = sorted(findings, key=lambda finding: order.index(finding.status))
    rows = [vars(cause) for cause in ordered if cause.status is not CauseStatus.REFUTED]
    return Table("Causes, the most supported first", rows, ("name", "status", "reason"))


def tabulate_plans(journal: JournalView) -> Table:
    """Return plans as a table: what each would change, how much, its short hash, and its state.

    Returns
    -------
    Rows of ``step status what how_many hash why``. They also hold ``plan sha256 action target``,
    which the table does not show.
    """
    rows = []
    for action in group_actions(journal.actions):
        entry = action.get(ActionPhase.PLANNED)
        if entry is None:
            continue
        facts = entry.result
        row = {
            "step": entry.step,
            "status": action.state,
            "what": f"{entry.action} on {entry.target}",
            "how_many": "",
            "hash": facts["sha256"][:SHORT_HASH],
            "why": facts.get("reason", ""),
            "plan": action.plan,
            "sha256": facts["sha256"],
            "action": entry.action,
            "verb": entry.action,
            "target": entry.target,
        }
        if "objects" in facts:
            row["how_many"] = count_of(facts["objects"], "object")
            if "bytes" in facts:
                row["how_many"] += f", {format_bytes(facts['bytes'])}"
        rows.append(row)
    rows.sort(key=lambda row: order_of(row["step"]))
    return Table("Plans", rows, ("step", "status", "what", "how_many", "hash", "why"))


def say_value(value: Json, name: str = "") -> str:
    """Write a value of column ``name`` as a cell shows it: bytes as a size, lists in words."""
    if name.endswith("bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')} {say_value(part)}" for key, part in value.items()]
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return ", ".join(map(say_value, value))
    return format_value(value)


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour. The word alone is enough to understand it."""
    tone, icon = get_tone(word)
    style, _ = _TONES[tone]
    shown = safe(word.replace("_", " "), 40)
    html = Markup('<span style="{};border-radius:4px;padding:1px 7px;font-weight:600">{} {}</span>')
    return html.format(style, icon, shown)


def get_tone(word: str) -> tuple[str, str]:
    """Return the tone of a status, which is good, bad, unsure or plain, and its icon."""
    tone = next((tone for tone, words in _WORDS.items() if word in words), "plain")
    _, icon = _TONES[tone]
    return tone, icon


def _show_cell(value: Json, name: str) -> Markup:
    """Return a cell's HTML."""
    text = say_value(value, name)
    return pill(text) if name in _PILL_COLUMNS and text else safe(text, 500)


def _format_local(at: datetime) -> str:
    """Write a time of day by this machine's clock, with its zone; empty where that is UTC."""
    local = at.astimezone()
    return f"{local:%H:%M%z}" if local.utcoffset() else ""


@cache
def _load_templates() -> Environment:
    """Return the templates of this package. Each value that they show is visible and escaped."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("runbook_lib"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=lambda value: safe(value, 6_000),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        pill=pill,
        value=format_value,
        cell=_show_cell,
        local=_format_local,
        sentence=capitalise,
    )
    environment.globals.update(
        Table=Table,
        tabulate_facts=tabulate_facts,
        count_of=count_of,
        say_causes=say_causes,
    )
    return environment


def render_html(template: str, **values: Any) -> Markup:
    """Render a template. Each value is escaped, and its control characters are made visible."""
    # The template has escaped every value, so the page is safe as it is.
    return Markup(_load_templates().get_template(template).render(values))  # noqa: S704
