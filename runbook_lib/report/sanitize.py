"""HTML that others wrote (notebook outputs, Markdown), reduced to what can do no harm."""

from __future__ import annotations

import re

import nh3

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The policy of every HTML file that we write: nothing is fetched, nothing is run."""

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
_DATA_IMAGE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]+")
# Relative links to the neighbours of the file, and anchors in it; nothing that leaves.
_LINK = re.compile(r"(#[\w.-]{1,100}|[\w-]{1,100}\.(ipynb|html)(#[\w.-]{1,100})?)")
_CLASS = re.compile(r"[a-z][a-z0-9]{0,3}|highlight|hl-[a-z0-9]+")


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
    if attribute == "src":
        return value if _DATA_IMAGE.fullmatch(value) else None
    if attribute == "href":
        return value if _LINK.fullmatch(value) else None
    if attribute == "style":
        kept = (part for part in value.split(";") if not _BAD_STYLE.search(part))
        return ";".join(kept) or None
    if attribute == "class":
        return " ".join(name for name in value.split() if _CLASS.fullmatch(name)) or None
    if attribute in ("width", "height", "colspan", "rowspan"):
        return value if value.isdigit() and int(value) <= 2_000 else None
    return value
