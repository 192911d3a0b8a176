"""The one model of a table, and a table as HTML that nothing can break out of, or as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import CauseStatus, Finding, Json, Observed
from ..record.actions import group_actions
from ..record.view import JournalView, order_of
from .text import count_of, format_bytes, format_value, safe

if TYPE_CHECKING:
    from jinja2 import Environment, Template

# every pair has a contrast over 7:1, in light and dark surroundings alike
_PILLS = {
    "good": "background-color:#d5f0dc;color:#0b3d1d",
    "bad": "background-color:#fbdcd6;color:#6b1207",
    "unsure": "background-color:#fdedc3;color:#4d3800",
    "plain": "background-color:#e4e8ee;color:#22303f",
}
#: Tone and icon of the words that a status may be.
_WORDS = {
    ("good", "✓"): ("ok", "healthy", "fixed", "fixed_alert_decaying", "yes", "passed", "verified"),
    ("bad", "✖"): ("breach", "incident", "not_fixed", "no", "failed"),
    ("bad", "●"): ("supported",),
    ("unsure", "?"): ("unknown", "undecided"),
    ("unsure", "!"): ("mitigated", "refused"),
    ("plain", "–"): ("left_out",),
    ("plain", "○"): ("refuted", "nothing to do"),
    ("plain", "■"): ("planned",),
    ("plain", "▸"): ("approved", "applied"),
}
_TONES = {word: tone for tone, words in _WORDS.items() for word in words}
#: So much of a plan's hash is shown, and typed to approve it.
SHORT_HASH = 8
_PILL_COLUMNS = ("status", "phase", "verdict", "met")
_SHORT_CHARACTERS = 22
_OF_A_PLAN = ("step", "status", "what", "how_many", "hash", "why")


class Table(NamedTuple):
    """Rows under a caption, shown as HTML, as text, or on a terminal.

    A column ``status``, ``phase``, ``verdict`` or ``met`` becomes pills, one that ends in
    ``bytes`` sizes. The first column names the row. A cell that is Markup is HTML already.

    Attributes
    ----------
    columns : names in their order; empty: those of the rows
    is_folded : whether it is behind a fold in HTML, and left out of text
    """

    caption: str
    rows: Sequence[Mapping[str, Json]]
    columns: Sequence[str] = ()
    is_folded: bool = False

    @property
    def names(self) -> list[str]:
        """The columns that are shown."""
        return list(self.columns) or list(dict.fromkeys(name for row in self.rows for name in row))

    def iter_cells(self) -> Iterable[list[str]]:
        """Return the cells of each row as text."""
        return ([say_value(row.get(name), name) for name in self.names] for row in self.rows)

    def to_text(self) -> str:
        """Return a line for each row."""
        between = ": " if len(self.names) == 2 else " · "
        rows = (between.join(text for text in cells if text) for cells in self.iter_cells())
        return "\n".join(f"  {row}" for row in rows)

    def to_html(self) -> Markup:
        """Return a table with caption and scoped headers; everything escaped."""
        names = [name.replace("_", " ") for name in self.names]
        rows = [list(map(_to_cell, cells, self.names)) for cells in self.iter_cells()]
        return render_html("table.html", table=self, names=names, rows=rows)


def tabulate_facts(facts: Mapping[str, Json], caption: str, *, is_folded: bool = False) -> Table:
    """Return facts that say something as a table of name and value."""
    known = {n: value for n, value in facts.items() if value not in (None, "", [], {}, ())}
    rows = [{"name": n.replace("_", " "), "value": say_value(v, n)} for n, v in known.items()]
    return Table(caption, rows, ("name", "value"), is_folded)


def tabulate_findings(found: Iterable[Finding], caption: str, *, is_folded: bool = False) -> Table:
    """Return findings as a table, the most supported first."""
    rows = [
        {"cause": f.name, "status": f.status, "score (−1 to 1)": f"{f.score:+.2f}", "why": f.reason}
        for f in sort_findings(found)
    ]
    return Table(caption, rows, is_folded=is_folded)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the most supported first."""
    order = list(CauseStatus)
    return sorted(findings, key=lambda f: (order.index(f.status), -f.score))


def tabulate_readings(readings: Iterable[Observed]) -> Table:
    """Return readings as a table: one line for each step."""
    rows = []
    for r in readings:
        what = r.name if r.value is None else f"{r.name}: {format_value(r.value, r.unit)}"
        rows.append({"step": r.step, "status": r.status, "what": what, "why": r.reason})
    return Table("Readings", rows, ("step", "status", "what", "why"))


def tabulate_plans(journal: JournalView, *, after: int = 0) -> Table:
    """Return plans as a table: what each would change, how much, its short hash, where it stands.

    Parameters
    ----------
    after : only plans past this entry of the journal

    Returns
    -------
    Rows of ``step status what how_many hash why``; and, not shown, ``plan sha256 action target``.
    """
    actions = {action.plan: action for action in group_actions(journal.actions)}
    rows = []
    for plan, entry in journal.list_plans(after=after).items():
        facts, action, sha256 = entry.result, actions[plan], entry.result["sha256"]
        count, size = facts.get("objects"), format_bytes(facts.get("bytes", 0))
        much = "1" if count is None else f"{count_of(count, 'object')}, {size}"
        state, what = str(action.last.phase), f"{entry.action} on {entry.target}"
        told = (state, what, much, sha256[:SHORT_HASH])
        told = ("nothing to do", "", "", "") if action.is_empty else told
        shown = zip(_OF_A_PLAN, (entry.step, *told, facts.get("reason") or ""), strict=True)
        named = {"plan": plan, "sha256": sha256, "action": entry.action, "target": entry.target}
        rows.append(dict(shown) | named)
    rows.sort(key=lambda row: order_of(row["step"]))
    return Table("Plans", rows, _OF_A_PLAN)


def say_value(value: Json, name: str = "") -> str:
    """Write a value as a cell shows it: sizes for people, what is nested as a list of words."""
    if name.endswith("bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if isinstance(value, Markup):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{k.replace('_', ' ')} {_nest(v)}" for k, v in value.items())
    return ", ".join(map(_nest, value)) if isinstance(value, list | tuple) else format_value(value)


def _nest(value: Json) -> str:
    text = str(value) if type(value) in (int, str) else say_value(value)
    return f"({text})" if isinstance(value, dict | list | tuple) else text


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour: any one of the three is enough to read it."""
    tone, icon = get_tone(word)
    wrap = "nowrap" if word in _TONES else "normal"
    style = f"{_PILLS[tone]};border-radius:4px;padding:1px 7px;font-weight:600;white-space:{wrap}"
    shown = safe(word.replace("_", " "), 40)
    return Markup('<span style="{}">{} {}</span>').format(style, icon, shown)


def get_tone(word: str) -> tuple[str, str]:
    """Return whether a status is good, bad, unsure or plain, and its icon."""
    return _TONES.get(word, ("plain", "·"))


def render_html(template: str, **values: Any) -> Markup:
    """Return a template of ``show/templates``; each value is made visible and escaped."""
    # escaped by the template, so it may stand as it is
    return Markup(_load_template(template).render(values, pill=pill, style=_style))  # noqa: S704


@cache
def _load_template(name: str) -> Template:
    return make_environment("runbook_lib.show", safe).get_template(name)


def make_environment(package: str, finalize: Callable[[Any], Markup]) -> Environment:
    """Return the templates of a package; what they show passes ``finalize`` first."""
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
    """Return a cell's text, and what is shown of it."""
    is_pill = column in _PILL_COLUMNS and not isinstance(text, Markup)
    return text, pill(text) if is_pill else safe(text, 500)


def _style(text: str) -> str:
    """A short word is never cut in two; a long one may be, anywhere."""
    is_short = len(text) <= _SHORT_CHARACTERS
    how = "white-space:nowrap" if is_short else "overflow-wrap:anywhere;max-width:28rem"
    return f"text-align:left;vertical-align:top;{how}"
