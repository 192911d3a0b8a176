"""The one model of a table, and how it becomes text, or HTML that nothing can break out of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import CauseStatus, Finding, Json, Observed
from ..record.actions import group_actions
from ..record.view import JournalView, order_of
from .text import count_of, format_bytes, format_value, safe, say_left_out

if TYPE_CHECKING:
    from jinja2 import Environment, Template

# Each pair of colours has a contrast over 7:1, also on a page with a dark background.
_PILLS = {
    "good": "background-color:#d5f0dc;color:#0b3d1d",
    "bad": "background-color:#fbdcd6;color:#6b1207",
    "unsure": "background-color:#fdedc3;color:#4d3800",
    "plain": "background-color:#e4e8ee;color:#22303f",
}
#: Tone and icon of a status, by its word. A word that is not here is plain, with a dot.
_TONES = {
    "ok": ("good", "✓"),
    "healthy": ("good", "✓"),
    "fixed": ("good", "✓"),
    "fixed_alert_decaying": ("good", "✓"),
    "yes": ("good", "✓"),
    "passed": ("good", "✓"),
    "verified": ("good", "✓"),
    "breach": ("bad", "✖"),
    "incident": ("bad", "✖"),
    "not_fixed": ("bad", "✖"),
    "no": ("bad", "✖"),
    "failed": ("bad", "✖"),
    "supported": ("bad", "●"),
    "unknown": ("unsure", "?"),
    "undecided": ("unsure", "?"),
    "mitigated": ("unsure", "!"),
    "refused": ("unsure", "!"),
    "left_out": ("plain", "–"),
    "refuted": ("plain", "○"),
    "nothing to do": ("plain", "○"),
    "planned": ("plain", "■"),
    "approved": ("plain", "▸"),
    "applied": ("plain", "▸"),
    "taken back": ("plain", "◂"),
}
#: How much of a plan's hash is shown, and typed to approve it.
SHORT_HASH = 8
#: Columns whose cells are shown as pills.
_PILL_COLUMNS = ("status", "phase", "verdict", "met")
#: A cell with this many characters or fewer never wraps.
_SHORT_CHARACTERS = 22
_PLAN_COLUMNS = ("step", "status", "what", "how_many", "hash", "why")


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
        between = ": " if len(self.names) == 2 else " · "
        lines = []
        for cells in self.iter_cells():
            filled = [cell for cell in cells if cell]
            lines.append(f"  {between.join(filled)}")
        return "\n".join(lines)

    def to_html(self) -> Markup:
        """Return a table with caption and scoped headers; everything escaped."""
        names = self.names
        headings = [name.replace("_", " ") for name in names]
        rows = []
        for cells in self.iter_cells():
            row = [_to_cell(text, name) for text, name in zip(cells, names, strict=True)]
            rows.append(row)
        return render_html("table.html", table=self, names=headings, rows=rows)


def tabulate_facts(
    facts: Mapping[str, Json],
    caption: str,
    *,
    is_folded: bool = False,
) -> Table:
    """Return the facts that are not empty as a table of name and value."""
    rows = []
    for name, value in facts.items():
        if value not in (None, "", [], {}, ()):
            words = name.replace("_", " ")
            rows.append({"name": words, "value": say_value(value, name)})
    return Table(caption, rows, ("name", "value"), is_folded)


def tabulate_findings(
    findings: Iterable[Finding], caption: str, *, is_folded: bool = False
) -> Table:
    """Return findings as a table, the most supported first."""
    rows = [
        {
            "cause": finding.name,
            "status": finding.status,
            "why": finding.reason,
        }
        for finding in sort_findings(findings)
    ]
    return Table(caption, rows, is_folded=is_folded)


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
        row = {
            "step": reading.step,
            "status": reading.status,
            "what": what,
            "why": reading.reason,
        }
        rows.append(row)
    return Table("Readings", rows, ("step", "status", "what", "why"))


def tabulate_plans(journal: JournalView) -> Table:
    """Return plans as a table: what each would change, how much, its short hash, and its state.

    Returns
    -------
    Rows of ``step status what how_many hash why``. They also hold ``plan sha256 action target``,
    which the table does not show.
    """
    actions = {action.plan: action for action in group_actions(journal.actions)}
    rows = []
    for plan_id, entry in journal.list_plans().items():
        sha256 = entry.result["sha256"]
        row = {
            "step": entry.step,
            "status": actions[plan_id].state,
            "what": f"{entry.action} on {entry.target}",
            "how_many": _say_size(entry.result),
            "hash": sha256[:SHORT_HASH],
            "why": entry.result.get("reason") or say_left_out(entry.result.get("excluded") or {}),
            "plan": plan_id,
            "sha256": sha256,
            "action": entry.action,
            "target": entry.target,
        }
        rows.append(row)
    rows.sort(key=lambda row: order_of(row["step"]))
    return Table("Plans", rows, _PLAN_COLUMNS)


def _say_size(facts: Mapping[str, Json]) -> str:
    """Return how much a plan would change: the number of objects and their size."""
    count = facts.get("objects")
    if count is None:  # the plan changes one thing, such as a service
        return "1"
    objects = count_of(count, "object")
    size = format_bytes(facts.get("bytes", 0))
    return f"{objects}, {size}"


def say_value(value: Json, name: str = "") -> str:
    """Write a value of column ``name`` as a cell shows it: bytes as a size, lists in words."""
    if name.endswith("bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if isinstance(value, Markup):
        return value
    if isinstance(value, dict):
        return ", ".join(_say_field(key, part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_say_part(part) for part in value)
    return format_value(value)


def _say_field(name: str, value: Json) -> str:
    """Write a named part of a nested value, such as ``too young 3``."""
    words = name.replace("_", " ")
    return f"{words} {_say_part(value)}"


def _say_part(value: Json) -> str:
    """Write a part of a nested value: what is nested once more stands in brackets."""
    # Not ``isinstance``: a bool is also an int, and Markup is also a str.
    if type(value) in (int, str):
        return str(value)
    if isinstance(value, dict | list | tuple):
        return f"({say_value(value)})"
    return say_value(value)


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour. The word alone is enough to understand it."""
    tone, icon = get_tone(word)
    wrap = "nowrap" if word in _TONES else "normal"
    style = f"{_PILLS[tone]};border-radius:4px;padding:1px 7px;font-weight:600;white-space:{wrap}"
    shown = safe(word.replace("_", " "), 40)
    return Markup('<span style="{}">{} {}</span>').format(style, icon, shown)


def get_tone(word: str) -> tuple[str, str]:
    """Return the tone of a status, which is good, bad, unsure or plain, and its icon."""
    return _TONES.get(word, ("plain", "·"))


def render_html(template: str, **values: Any) -> Markup:
    """Return a template of ``show/templates``; each value is made visible and escaped."""
    page = _load_template(template)
    html = page.render(values, pill=pill, style=_style)
    # The template has escaped every value, so the page is safe as it is.
    return Markup(html)  # noqa: S704


@cache
def _load_template(name: str) -> Template:
    templates = make_environment("runbook_lib.show", safe)
    return templates.get_template(name)


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
    if len(text) <= _SHORT_CHARACTERS:
        wrap = "white-space:nowrap"
    else:
        wrap = "overflow-wrap:anywhere;max-width:28rem"
    return f"text-align:left;vertical-align:top;{wrap}"
