"""Tables, and the templates that turn values into safe HTML."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..approvals import SHORT_HASH
from ..language import format_local, gettext
from ..model import ActionPhase, CauseStatus, Finding, Json, count_of
from ..policy import say_causes
from ..record.folds import group_actions
from ..record.view import JournalView, order_of
from ..runbook import load_policy
from .text import capitalise, format_value, safe

if TYPE_CHECKING:
    from jinja2 import Environment

#: Each tone's style, icon and words; any other word is plain. All colours contrast over 7:1.
_TONES = {
    "good": (
        "background-color:#d5f0dc;color:#0b3d1d",
        "✓",
        ("ok", "healthy", "fixed", "fixed_alert_decaying", "yes", "passed", "verified", "done"),
    ),
    "bad": (
        "background-color:#fbdcd6;color:#6b1207",
        "✖",
        ("breach", "incident", "not_fixed", "no", "failed", "supported"),
    ),
    "unsure": (
        "background-color:#fdedc3;color:#4d3800",
        "?",
        ("unknown", "undecided", "mitigated", "refused"),
    ),
    "plain": ("background-color:#e4e8ee;color:#22303f", "–", ()),
}
_PILL_COLUMNS = ("status", "phase", "verdict", "met")


class Table(NamedTuple):
    """Rows under a caption. The first column names the row; without ``columns``, all are shown."""

    caption: str
    rows: Sequence[Mapping[str, Json]]
    columns: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return list(self.columns or dict.fromkeys(chain.from_iterable(self.rows)))


def tabulate_facts(facts: Mapping[str, Json], caption: str) -> Table:
    """Return a table of name and value, without empty facts."""
    rows = [
        {"name": name.replace("_", " "), "value": say_value(value, name)}
        for name, value in facts.items()
        if value not in (None, "", [], {}, ())
    ]
    return Table(caption, rows)


def tabulate_findings(findings: Sequence[Finding]) -> Table:
    """Return a table of the causes that aren't refuted."""
    rows = [vars(each) for each in findings if each.status is not CauseStatus.REFUTED]
    return Table("Causes, the most supported first", rows, ("name", "status", "reason"))


def tabulate_plans(journal: JournalView) -> Table:
    """Return a table of plans; its rows have more fields than the table shows."""
    rows = []
    noun = load_policy().noun
    for action in sorted(
        group_actions(journal.actions), key=lambda each: order_of(each.first.step)
    ):
        entry = action.get(ActionPhase.PLANNED)
        if entry is None:
            continue
        facts = entry.result
        row = {
            "step": entry.step,
            "status": action.state,
            "what": f"{entry.action} on {entry.target}",
            "how_many": count_of(facts["objects"], noun) if "objects" in facts else "",
            "hash": facts["sha256"][:SHORT_HASH],
            "why": facts.get("reason", ""),
            "plan": action.plan,
            "sha256": facts["sha256"],
            "action": entry.action,
            "verb": entry.action,
            "target": entry.target,
        }
        rows.append(row)
    return Table("Plans", rows, ("step", "status", "what", "how_many", "hash", "why"))


def say_value(value: Json, name: str = "") -> str:
    """Write a value as a cell shows it. If the column's ``name`` ends in bytes, it's a size."""
    return format_value(value, "bytes" if name.endswith("bytes") else "")


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour; the word alone says it all."""
    tone, icon = get_tone(word)
    shown = safe(gettext(word.replace("_", " ")), 40)
    html = Markup('<span style="{};border-radius:4px;padding:1px 7px;font-weight:600">{} {}</span>')
    return html.format(_TONES[tone][0], icon, shown)


def get_tone(word: str) -> tuple[str, str]:
    """Return a status's tone (good, bad, unsure or plain) and icon."""
    for tone, (_, icon, words) in _TONES.items():
        if word in words:
            return tone, icon
    return "plain", "–"


def _show_cell(value: Json, name: str) -> Markup:
    text = say_value(value, name)
    return pill(text) if name in _PILL_COLUMNS and text else safe(text, 500)


@cache
def _load_templates() -> "Environment":
    """Load the templates, which make each value visible and escape it."""
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
        pill=pill, value=format_value, cell=_show_cell, local=format_local, sentence=capitalise
    )
    environment.globals.update(
        _=gettext,
        Table=Table,
        tabulate_facts=tabulate_facts,
        count_of=count_of,
        say_causes=say_causes,
    )
    return environment


def render_html(template: str, **values: Any) -> Markup:
    """Render a template, which escapes each value."""
    # The template has escaped every value, so the page is safe as it is.
    return Markup(_load_templates().get_template(template).render(values))  # noqa: S704
