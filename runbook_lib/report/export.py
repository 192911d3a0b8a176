"""Export executed notebooks as offline HTML, reduced to what can do no harm."""

import re
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nh3
from markupsafe import Markup

from ..record.incident import Incident, write_file
from ..show.tables import render_html
from ..show.text import visible
from .render import CSP

_ATTRIBUTES = {
    "*": {"style", "class", "lang"},
    "a": {"href"},
    "img": {"src", "alt"},
    "th": {"scope"},
}
#: Properties that take no lengths and no URLs, so nothing can cover something else or be fetched.
_STYLES = {
    "background-color",
    "color",
    "font-style",
    "font-weight",
    "overflow-wrap",
    "text-align",
    "white-space",
}
#: What an attribute's whole value must match.
_VALUES = {
    "src": re.compile(r"data:image/(png|jpeg|gif|svg\+xml);base64,[A-Za-z0-9+/=\s]+"),
    # A link may lead only to an anchor on this page, or to a file beside it.
    "href": re.compile(r"(#[\w.-]{1,100}|[\w-]{1,100}\.(ipynb|html)(#[\w.-]{1,100})?)"),
}


#: A link to another notebook. We link to its HTML instead, which a browser can show.
_NOTEBOOK_LINK = re.compile(r'<a href="([\w-]{1,100})\.ipynb')


def sanitize_html(html: str) -> str:
    """Keep text, tables, lists, inline pictures and plain styles, and remove everything else.

    So nothing runs, is fetched, leads elsewhere, or covers something else.
    """
    text = html.encode("utf-8", "backslashreplace").decode()  # nh3 takes no lone surrogates
    return nh3.clean(
        text,
        clean_content_tags={"script", "style", "template", "noscript", "svg", "math", "iframe"},
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes={"data"},
        url_relative="pass_through",
        filter_style_properties=_STYLES,
        strip_comments=True,
    )


def _filter(_tag: str, attribute: str, value: str) -> str | None:
    """Return an attribute's value if it's harmless, else None, which drops the attribute."""
    pattern = _VALUES.get(attribute)
    return value if pattern is None or pattern.fullmatch(value) else None


#: What reading a file raises if it isn't a notebook.
NOT_A_NOTEBOOK = (OSError, ValueError, AttributeError, KeyError, TypeError)
#: The forms of an output that a page can show, best first.
_PRIORITY = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]


def export_notebooks(incident: Incident) -> None:
    """Write each executed notebook as an HTML file beside it, unless that is newer.

    The pages fetch and run nothing, and hold no secret that the incident's redactor knows.
    """
    for source in sorted(incident.folder.glob("notebooks/*.ipynb")):
        page = source.with_suffix(".html")
        if not is_newer(page, source):
            html = render_html(
                "notebook.html",
                csp=CSP,
                body=convert(source, incident),
                name=source.stem,
                incident_id=incident.id,
            )
            write_file(page, html)


def is_newer(page: Path, source: Path) -> bool:
    """Tell whether a page was written after its source."""
    try:
        return page.stat().st_mtime_ns > source.stat().st_mtime_ns
    except OSError:
        return False


def convert(source: Path, incident: Incident) -> Markup:
    """Return a notebook's cells as harmless HTML, or a sentence if the file is damaged."""
    nbformat = load_nbformat()
    try:
        # nbformat joins each string's lines, so that the redactor sees whole texts.
        raw = nbformat.reads(source.read_text("utf-8"), as_version=4)
        notebook = nbformat.from_dict(incident.redactor.json(raw))
        with warnings.catch_warnings():
            # nbconvert warns about an output that no page can show, and leaves it out.
            warnings.filterwarnings("ignore", "Your element with mimetype")
            body, _ = load_exporter().from_notebook_node(notebook)
    except (*NOT_A_NOTEBOOK, nbformat.ValidationError) as error:
        problem = f"{source.name} could not be read: {type(error).__name__}"
        return Markup("<p>{}. Run its section again to get a whole one.</p>").format(problem)
    page = _NOTEBOOK_LINK.sub(r'<a href="\1.html', sanitize_html(body))
    # The keyboard must reach scrolling text, and a table's empty corner is no header.
    page = page.replace("<pre>", '<pre tabindex="0">').replace("<th></th>", "<td></td>")
    page = page.replace('<div class="scroll">', '<div class="scroll" tabindex="0">')
    # The page is sanitised; only control characters are left to make visible.
    return Markup(visible(page))  # noqa: S704


def load_nbformat() -> ModuleType:
    """Import nbformat without jsonschema's check of IRIs, which would build 39 parsers."""
    absent: Any = None
    sys.modules.setdefault("rfc3987_syntax", absent)
    return import_module("nbformat")


@cache
def load_exporter() -> Any:
    """Make the exporter, once, because loading its templates takes longer than an export."""
    load_nbformat()
    from nbconvert import HTMLExporter

    return HTMLExporter(  # type: ignore[no-untyped-call]
        config={"NbConvertBase": {"display_data_priority": _PRIORITY}},
        template_name="basic",
        sanitize_html=True,
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"clean_html": sanitize_html},
    )
