"""One HTML page from a template: each value is redacted, made visible and escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ..model import Json
from ..redact import Redactor
from ..show.tables import Table, make_environment, pill, tabulate_facts
from ..show.text import format_value, safe
from .sanitize import CSP


def render_page(template: str, redactor: Redactor, **values: Any) -> str:
    """Render a template: each value is redacted, made visible and escaped, in this order."""

    def finish(value: Any) -> Markup:
        return value if isinstance(value, Markup) else safe(redactor.text(str(value)), 6_000)

    environment = make_environment("runbook_lib.report", finish)
    environment.filters |= {"pill": pill, "value": format_value, "time": format_value}
    environment.filters |= {"trusted": Markup, "facts": tabulate}
    return environment.get_template(template).render(csp=CSP, **values)


def tabulate(facts: Mapping[str, Json], caption: str) -> Markup:
    """Return facts as a table of name and value."""
    return scroll(tabulate_facts(facts, caption))


def scroll(table: Table) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page."""
    return Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}">{}</div>').format(
        safe(table.caption, 100), table.to_html()
    )
