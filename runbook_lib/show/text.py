"""Text from outside, made visible and harmless before anyone reads it.

Invisible characters can make one key look like another, so we show their code points.
"""

import re
from datetime import datetime

from markupsafe import Markup, escape

from ..language import gettext
from ..model import Json, Verdict
from ..runbook import name_runbook

# Control characters except tab and newline, soft hyphen, bidi and zero-width marks, separators,
# fillers that look like blanks, tags, variation selectors, and lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
# More than three accents on one letter would cover the lines around it.
_COMBINING = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
_STACKED = re.compile(f"({_COMBINING}{{3}}){_COMBINING}+")

# A unit's plural s, which "s" and units in "ss" don't have.
_PLURAL = re.compile("(?<=[a-rt-z])s$")
VERDICT_WORDS = {verdict: verdict.replace("_", " ").capitalize() for verdict in Verdict} | {
    Verdict.FIXED_ALERT_DECAYING: "Fixed; the alert is still clearing",
    Verdict.MITIGATED: "Mitigated; the cause is still there",
}


def visible(text: str) -> str:
    """Show every invisible or reordering character as its code, such as ``‹U+202E›``.

    Commands in the text get this runbook's name. A letter keeps three accents.
    """
    text = _STACKED.sub(r"\1…", name_runbook(text).replace("\r\n", "\n"))
    return _INVISIBLE.sub(lambda match: f"‹U+{ord(match[0]):04X}›", text)


def clip(text: str, limit: int = 2_000) -> str:
    """Cut a text after ``limit`` characters, and say how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit} characters)"


def safe(value: object, limit: int = 2_000) -> Markup:
    """Return any value as HTML: visible, clipped, escaped. Markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return escape(visible(clip(str(value), limit)))


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def format_bytes(size_bytes: float) -> str:
    """Write a size such as ``1.4 MiB``."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        size_bytes /= 1024
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} GiB"


def _format_duration(seconds: float) -> str:
    """Write a duration of a minute or more, such as ``64 min`` or ``2 h 04 min``."""
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} {gettext('min')}"
    return f"{minutes // 60} {gettext('h')} {minutes % 60:02d} {gettext('min')}"


def format_value(value: Json, unit: str = "") -> str:
    """Write a value with its unit, and a number with at most three decimals."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        texts = [f"{name.replace('_', ' ')} {format_value(item)}" for name, item in value.items()]
        return ", ".join(texts)
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%SZ}"
    elif isinstance(value, int | float):
        if value == 1:
            unit = _PLURAL.sub("", unit)
        if unit in ("bytes", "B"):
            return format_bytes(value)
        if unit == "s" and value >= 90:
            return _format_duration(value)
        text = f"{round(value, 3):,.15g}"
    else:
        text = str(value)
    return f"{text} {gettext(unit)}".strip()
