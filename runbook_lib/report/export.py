"""Executed notebooks as offline HTML; what others wrote is reduced to what can do no harm."""

from __future__ import annotations

import re
import sys
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import nh3
from markupsafe import Markup

from ..record.incident import Incident, write_file
from ..show.text import visible
from .model import ReportModel
from .render import render_page

_TAGS = {
    "a", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt",
    "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "li",
    "ol", "p", "pre", "s", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody",
    "td", "th", "thead", "tr", "u", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "*": {"style", "class"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "details": {"open"},
}
_STYLES = {
    "background-color", "border-radius", "color", "font-size", "font-style", "font-weight",
    "max-width", "overflow-wrap", "text-align", "text-decoration", "vertical-align", "white-space",
}  # fmt: skip
# Values that could move things over other things, fetch, or make a page unreadably wide.
_BAD_STYLE = re.compile(r"url|expression|var\(|calc|[-\d.]{5,}|-\d|\\|/\*", re.IGNORECASE)
_CLASS = re.compile(r"[a-z][a-z0-9]{0,3}|highlight|hl-[a-z0-9]+")
#: What an attribute may say, whole; of ``style`` and ``class`` each part is looked at.
_VALUES = {
    "src": re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]+"),
    # relative links to the neighbours of the file, and anchors in it; nothing that leaves
    "href": re.compile(r"(#[\w.-]{1,100}|[\w-]{1,100}\.(ipynb|html)(#[\w.-]{1,100})?)"),
    **dict.fromkeys(("width", "height", "colspan", "rowspan"), re.compile("0*(1?[0-9]{1,3}|2000)")),
}


def sanitize_html(html: str) -> str:
    """Return the HTML with text, tables, lists, inline pictures and plain styles, nothing else.

    Scripts, event handlers, forms, frames, SVG, ids, links that leave the file, pictures that
    would be fetched and styles that move or hide things are removed.
    """
    return nh3.clean(
        html.encode("utf-8", "backslashreplace").decode(),  # nh3 takes no lone surrogates
        tags=_TAGS,
        clean_content_tags={"script", "style", "template", "noscript", "svg", "math", "iframe"},
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes={"data"},
        url_relative="pass_through",
        filter_style_properties=_STYLES,
        strip_comments=True,
    )


def _filter(_tag: str, attribute: str, value: str) -> str | None:
    if attribute == "style":
        kept = (part for part in value.split(";") if not _BAD_STYLE.search(part))
        return ";".join(kept) or None
    if attribute == "class":
        return " ".join(name for name in value.split() if _CLASS.fullmatch(name)) or None
    pattern = _VALUES.get(attribute)
    return value if pattern is None or pattern.fullmatch(value) else None


_NOT_A_NOTEBOOK = (OSError, ValueError, AttributeError, KeyError, TypeError)
_PARAMETERS = {"parameters", "injected-parameters", "form"}
_BODY = Markup("<!-- body -->")
_BOX = Markup('<pre style="background-color:#fdedc3;border-radius:4px">{}</pre>')
_PRIORITY = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]


def export_notebooks(incident: Incident, model: ReportModel) -> list[Path]:
    """Write each executed notebook of an incident as an HTML file beside it: which run it is.

    Returns
    -------
    The HTML files, by name. They fetch nothing, run nothing and hold no secret that the
    incident's redactor knows.

    Notes
    -----
    Changes only ``notebooks/*.html`` in the incident's folder.
    """
    runs, written = {r.run.notebook: r for s in model.sections.values() for r in s.runs}, []
    for source in sorted((incident.folder / "notebooks").glob("*.ipynb")):
        told = {"name": source.stem, "record": runs.get(source.name), "incident_id": incident.id}
        head, _, end = render_page("notebook.html", body=_BODY, **told).partition(_BODY)
        target = source.with_suffix(".html")
        if not _is_exported(source, target, head):
            write_file(target, f"{head}{convert(source, incident)}{end}")
        written.append(target)
    return written


def _is_exported(source: Path, target: Path, head: str) -> bool:
    """Tell whether a page is of the notebook as it is now, under the same head."""
    begin = head.encode("utf-8", "backslashreplace")
    try:
        is_new = target.stat().st_mtime_ns > source.stat().st_mtime_ns
        with target.open("rb") as page:
            return is_new and page.read(len(begin)) == begin
    except OSError:
        return False


def convert(source: Path, incident: Incident) -> Markup:
    """Return a notebook's cells as harmless HTML; says so when the file is not a notebook.

    What the same file was converted to before is used again.
    """
    try:
        return _convert(source, source.stat().st_mtime_ns, incident)
    except (*_NOT_A_NOTEBOOK, load_nbformat().ValidationError) as error:
        return Markup("<p>{} could not be read: {}</p>").format(source.name, type(error).__name__)


@lru_cache(maxsize=16)
def _convert(source: Path, _changed_ns: int, incident: Incident) -> Markup:
    # nbformat joins the lines of each string, so that the redactor sees whole texts
    raw = load_nbformat().reads(source.read_text("utf-8"), as_version=4)
    notebook = load_nbformat().from_dict(incident.redactor.json(raw))
    _keep_readable(notebook)
    body, _ = load_exporter().from_notebook_node(notebook)
    # sanitised, so it may stand as it is; what is left of controls is made visible
    return Markup(visible(sanitize_html(body)))  # noqa: S704


def load_nbformat() -> ModuleType:
    """Return nbformat, without the check of IRIs in jsonschema below it: that builds 39 parsers."""
    sys.modules.setdefault("rfc3987_syntax", cast(Any, None))
    return import_module("nbformat")


@cache
def load_exporter() -> Any:
    """Return the exporter of every notebook: its templates take longer than a notebook."""
    load_nbformat()
    from nbconvert import HTMLExporter

    return HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic",
        sanitize_html=True,
        embed_images=True,
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"clean_html": sanitize_html},
    )


def _is_said_above(cell: Any) -> bool:
    """Tell whether a cell says the parameters: the page's head does, unless they were refused."""
    was_refused = any(output.output_type == "error" for output in cell.get("outputs", []))
    return not was_refused and bool(_PARAMETERS & {*cell.metadata.get("tags", ())})


def _keep_readable(notebook: Any) -> None:
    """Keep one form of an output that a page without scripts can show, or say what it had."""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if not _is_said_above(cell)]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "data" in output:
                nothing = f"(output left out: {', '.join(output.data) or 'nothing'})"
                kind = next((kind for kind in _PRIORITY if kind in output.data), "text/plain")
                output.data = {kind: output.data.get(kind, nothing)}
            elif output.output_type == "error" and "\x1b" not in "".join(output.traceback):
                # the sentence of an error of use: no traceback, a box of its own
                words = _BOX.format(visible("\n".join(output.traceback).strip()))
                shown = {"output_type": "display_data", "data": {"text/html": str(words)}}
                output.update(shown, metadata={})
