"""Executed notebooks as offline HTML; text from others is reduced to what can do no harm."""

from __future__ import annotations

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
#: Properties whose values are colours and words: no length can move a thing over another one, and
#: nothing is fetched.
_STYLES = {
    "background-color",
    "color",
    "font-style",
    "font-weight",
    "overflow-wrap",
    "text-align",
    "white-space",
}
#: What the whole value of an attribute must match.
_VALUES = {
    "src": re.compile(r"data:image/(png|jpeg|gif|svg\+xml);base64,[A-Za-z0-9+/=\s]+"),
    # A link may lead to an anchor on this page or to a file beside it, and nowhere else.
    "href": re.compile(r"(#[\w.-]{1,100}|[\w-]{1,100}\.(ipynb|html)(#[\w.-]{1,100})?)"),
}


#: A link to another notebook. Once that one ran, its page lies beside it, and a browser shows it.
_NOTEBOOK_LINK = re.compile(r'<a href="([\w-]{1,100})\.ipynb')


def sanitize_html(html: str) -> str:
    """Return the HTML with text, tables, lists, inline pictures and plain styles, nothing else.

    Removed are scripts, event handlers, forms, frames, SVG, ids, links to other places, pictures
    that would be fetched, and styles with lengths.
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
    """Return an attribute's value if it can do no harm; None: drop the attribute."""
    pattern = _VALUES.get(attribute)
    return value if pattern is None or pattern.fullmatch(value) else None


#: What reading raises if the file is no notebook.
NOT_A_NOTEBOOK = (OSError, ValueError, AttributeError, KeyError, TypeError)
#: The forms of an output that a page can show, the best first.
_PRIORITY = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]


def export_notebooks(incident: Incident) -> list[Path]:
    """Write each executed notebook of an incident as an HTML file beside it.

    Returns
    -------
    The HTML files, by name. They fetch nothing, run nothing and hold no secret that the
    incident's redactor knows.

    Notes
    -----
    Changes only ``notebooks/*.html`` in the incident's folder. A page that is newer than its
    notebook stays.
    """
    pages = []
    for source in sorted(incident.folder.glob("notebooks/*.ipynb")):
        page = source.with_suffix(".html")
        pages.append(page)
        if not is_newer(page, source):
            html = render_html(
                "notebook.html",
                csp=CSP,
                body=convert(source, incident),
                name=source.stem,
                incident_id=incident.id,
            )
            write_file(page, html)
    return pages


def is_newer(page: Path, source: Path) -> bool:
    """Tell whether a page was written after what it is made from."""
    try:
        return page.stat().st_mtime_ns > source.stat().st_mtime_ns
    except OSError:
        return False


def convert(source: Path, incident: Incident) -> Markup:
    """Return a notebook's cells as harmless HTML; of a damaged file, a sentence that says so."""
    nbformat = load_nbformat()
    try:
        # nbformat joins the lines of each string, so that the redactor sees whole texts
        raw = nbformat.reads(source.read_text("utf-8"), as_version=4)
        notebook = nbformat.from_dict(incident.redactor.json(raw))
        with warnings.catch_warnings():
            # An output that no page can show is left out.
            warnings.filterwarnings("ignore", "Your element with mimetype")
            body, _ = load_exporter().from_notebook_node(notebook)
    except (*NOT_A_NOTEBOOK, nbformat.ValidationError) as error:
        problem = f"{source.name} could not be read: {type(error).__name__}"
        return Markup("<p>{}. Run its section again to get a whole one.</p>").format(problem)
    page = _NOTEBOOK_LINK.sub(r'<a href="\1.html', sanitize_html(body))
    # A text that scrolls is reached by keyboard, and a corner of a table is no header.
    page = page.replace("<pre>", '<pre tabindex="0">').replace("<th></th>", "<td></td>")
    page = page.replace('<div class="scroll">', '<div class="scroll" tabindex="0">')
    # The page is sanitised; control characters that are left become visible.
    return Markup(visible(page))  # noqa: S704


def load_nbformat() -> ModuleType:
    """Import and return nbformat, without jsonschema's check of IRIs: it would build 39 parsers."""
    absent: Any = None
    sys.modules.setdefault("rfc3987_syntax", absent)
    return import_module("nbformat")


@cache
def load_exporter() -> Any:
    """Return the exporter. It is made once: loading templates takes longer than an export."""
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
