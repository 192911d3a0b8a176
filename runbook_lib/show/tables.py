"""The one model of a table, and how it becomes text, or HTML that nothing can break out of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import ActionPhase, CauseStatus, Finding, Json, Observed
from ..record.actions import group_actions
from ..record.view import JournalView, order_of
from .text import count_of, format_bytes, format_value, safe, say_left_out

if TYPE_CHECKING:
    from jinja2 import Environment, Template

#: How a tone looks. Each pair of colours has a contrast over 7:1, also on a dark page.
_PILLS = {
    "good": "background-color:#d5f0dc;color:#0b3d1d",
    "bad": "background-color:#fbdcd6;color:#6b1207",
    "unsure": "background-color:#fdedc3;color:#4d3800",
    "plain": "background-color:#e4e8ee;color:#22303f",
}
_ICONS = {"good": "✓", "bad": "✖", "unsure": "?", "plain": "–"}
#: The words of each tone; any other word is plain.
_WORDS = {
    "good": ("ok", "healthy", "fixed", "fixed_alert_decaying", "yes", "passed", "verified", "done"),
    "bad": ("breach", "incident", "not_fixed", "no", "failed", "supported"),
    "unsure": ("unknown", "undecided", "mitigated", "refused"),
}
_TONES = {word: tone for tone, words in _WORDS.items() for word in words}
#: How much of a plan's hash is shown, and typed to approve it.
SHORT_HASH = 8
#: Columns whose cells are shown as pills.
_PILL_COLUMNS = ("status", "phase", "verdict", "met")
#: A cell with this many characters or fewer never wraps.
_SHORT_CHARACTERS = 22
_PLAN_COLUMNS = ("step", "status", "what", "how_many", "hash", "why")
#: Values that need no line of their own.
EMPTY: tuple[Json, ...] = (None, "", [], {}, ())


class Table(NamedTuple):
    """Rows under a caption, shown as HTML, as text, or on a terminal.

    The cells of a column ``status``, ``phase``, ``verdict`` or ``met`` are shown as pills, numbers
    in a column whose name ends in ``bytes`` as sizes. The first column names the row. A cell that
    is Markup is HTML already.

    Attributes
    ----------
    columns : names in their order; empty: those of the rows
    is_folded : whether it is behind a fold in HTML, and left out of the text of a card
    """

    caption: str
    rows: Sequence[Mapping[str, Json]]
    columns: Sequence[str] = ()
    is_folded: bool = False

    @property
    def names(self) -> list[str]:
        """The columns that are shown."""
        if self.columns:
            return list(self.columns)
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def iter_cells(self) -> Iterator[list[str]]:
        """Yield the cells of each row as text."""
        names = self.names
        for row in self.rows:
            yield [say_value(row.get(name), name) for name in names]

    def to_text(self) -> str:
        """Return a line for each row."""
        lines = [" · ".join(filter(None, cells)) for cells in self.iter_cells()]
        return "\n".join(f"  {line}" for line in lines)

    def to_html(self) -> Markup:
        """Return a table with caption and scoped headers; everything escaped."""
        names = self.names
        headings = [name.replace("_", " ") for name in names]
        rows = [list(map(_to_cell, cells, names)) for cells in self.iter_cells()]
        return render_html("table.html", table=self, names=headings, rows=rows)


def tabulate_facts(facts: Mapping[str, Json], caption: str, *, is_folded: bool = False) -> Table:
    """Return the facts that are not empty as a table of name and value."""
    rows = []
    for name, value in facts.items():
        if value not in EMPTY:
            rows.append({"name": name.replace("_", " "), "value": say_value(value, name)})
    return Table(caption, rows, ("name", "value"), is_folded)


def tabulate_findings(findings: Iterable[Finding], caption: str) -> Table:
    """Return findings as a table, the most supported first."""
    rows = [
        {"cause": finding.name, "status": finding.status, "why": finding.reason}
        for finding in sort_findings(findings)
    ]
    return Table(caption, rows)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the most supported first."""
    order = list(CauseStatus)
    return sorted(findings, key=lambda finding: order.index(finding.status))


def tabulate_readings(readings: Iterable[Observed]) -> Table:
    """Return readings as a table: one line for each step."""
    rows = []
    for reading in readings:
        what = reading.name
        if reading.value is not None:
            what += f": {format_value(reading.value, reading.unit)}"
        rows.append(
            {"step": reading.step, "status": reading.status, "what": what, "why": reading.reason}
        )
    return Table("Readings", rows)


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
            "why": facts.get("reason") or say_left_out(facts.get("excluded") or {}),
            "plan": action.plan,
            "sha256": facts["sha256"],
            "action": entry.action,
            "target": entry.target,
        }
        if "objects" in facts:
            size = format_bytes(facts.get("bytes", 0))
            row["how_many"] = f"{count_of(facts['objects'], 'object')}, {size}"
        rows.append(row)
    rows.sort(key=lambda row: order_of(row["step"]))
    return Table("Plans", rows, _PLAN_COLUMNS)


def say_value(value: Json, name: str = "") -> str:
    """Write a value of column ``name`` as a cell shows it: bytes as a size, lists in words."""
    if name.endswith("bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if isinstance(value, Markup):
        return value
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')} {_say_part(part)}" for key, part in value.items()]
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return ", ".join(map(_say_part, value))
    return format_value(value)


def _say_part(value: Json) -> str:
    """Write a part of a nested value: what is nested once more stands in brackets."""
    if isinstance(value, dict | list | tuple):
        return f"({say_value(value)})"
    return format_value(value)


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour. The word alone is enough to understand it."""
    tone, icon = get_tone(word)
    shown = safe(word.replace("_", " "), 40)
    wrap = "nowrap" if len(shown) <= _SHORT_CHARACTERS else "normal"
    style = f"{_PILLS[tone]};border-radius:4px;padding:1px 7px;font-weight:600;white-space:{wrap}"
    return Markup('<span style="{}">{} {}</span>').format(style, icon, shown)


def get_tone(word: str) -> tuple[str, str]:
    """Return the tone of a status, which is good, bad, unsure or plain, and its icon."""
    tone = _TONES.get(word, "plain")
    return tone, _ICONS[tone]


def render_html(template: str, **values: Any) -> Markup:
    """Return a template of ``show/templates``; each value is made visible and escaped."""
    html = _load_template(template).render(values, pill=pill, style=_style)
    # The template has escaped every value, so the page is safe as it is.
    return Markup(html)  # noqa: S704


@cache
def _load_template(name: str) -> Template:
    return make_environment("runbook_lib.show", safe).get_template(name)


def make_environment(package: str, finalize: Callable[[Any], Markup]) -> Environment:
    """Return the templates of a package; every value that they show passes ``finalize`` first."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _to_cell(text: str, column: str) -> tuple[str, Markup]:
    """Return a cell's text, and the HTML that shows it."""
    if column in _PILL_COLUMNS and not isinstance(text, Markup):
        return text, pill(text)
    return text, safe(text, 500)


def _style(text: str) -> str:
    """Return the CSS of a cell: a short text never wraps, a long text may break anywhere."""
    wrap = "overflow-wrap:anywhere;max-width:28rem"
    if len(text) <= _SHORT_CHARACTERS:
        wrap = "white-space:nowrap"
    return f"text-align:left;vertical-align:top;{wrap}"
