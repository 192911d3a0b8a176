"""One HTML page from a template: each value is redacted, made visible and escaped."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from ..redact import Redactor
from ..show.tables import pill
from ..show.text import format_value, safe
from .sanitize import CSP


def render_page(template: str, redactor: Redactor, **values: Any) -> str:
    """Render a template: each value is redacted, made visible and escaped, in this order."""

    def finish(value: Any) -> Any:
        return value if isinstance(value, Markup) else safe(redactor.text(str(value)), 6_000)

    environment = Environment(
        loader=PackageLoader("runbook_lib.report", "templates"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=finish,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pill": pill,
        "value": format_value,
        "time": _format_moment,
        "trusted": Markup,
    }
    return environment.get_template(template).render(csp=CSP, **values)


def _format_moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"
