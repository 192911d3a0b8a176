"""Group log lines into templates: what they say, how often, and when first and last.

Lines may be JSON, logfmt or plain text. A traceback is one entry with the error's line before it.
Texts are masked, cut and counted; nothing in them is executed. Each group keeps the text of its
first entry, cut but without masks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_MAX_CHARS = 600
_MAX_TEMPLATES = 5000
_MAX_GROUPS = 200
_MAX_ORDERS = 20
#: Each word for a level in a log, and the level of a ``LogGroup`` that it means.
_LEVELS = {
    "critical": "error",
    "crit": "error",
    "fatal": "error",
    "error": "error",
    "err": "error",
    "panic": "error",
    "exception": "error",
    "warning": "warning",
    "warn": "warning",
    "info": "info",
    "notice": "info",
    "debug": "debug",
    "trace": "debug",
}
_RANK = {"error": 0, "warning": 1, "": 2, "info": 3, "debug": 4}
#: What differs between two lines that say the same, and what stands for it in a template.
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\"[^\"]{0,300}\"|(?<!\w)'[^']{0,300}'(?!\w)"), "<text>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"(?<![A-Za-z_0-9])\d+(?:[.,:]\d+)*"), "<n>"),
)
_PLAIN_LEVEL = re.compile(
    r"\b(CRITICAL|FATAL|ERROR|WARNING|WARN|INFO|DEBUG|TRACE|PANIC)\b|\blevel=\"?(\w+)", re.I
)
_LOGFMT = re.compile(r"(?<!\S)(msg|err|error)=(?:\"((?:[^\"\\]|\\.)*)\"|(\S+))")
_TRACEBACK = "Traceback (most recent call last):"
#: The beginnings of a line that starts a traceback, or the next traceback of a chain.
_TRACEBACK_STARTS = (
    "During handling of the above",
    "The above exception was",
    "Caused by:",
    _TRACEBACK,
)
_MESSAGE_NAMES = ("msg", "message", "event", "error")
_LEVEL_NAMES = ("level", "severity", "levelname", "lvl")
_ORDER_NAMES = ("order_id", "orderId")
_ORDER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXCEPTION_NAMES = ("exc", "exc_info", "exception", "traceback", "stack_trace", "stack")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Entries that say the same.

    Attributes
    ----------
    template : the text that they share, with masks such as ``<n>`` for what differs
    first, last : when the first and the last entry was logged; None when unknown
    example : the first entry's text, without masks, at most 600 characters
    level : error, warning, info, debug; empty when unknown
    orders : the ids of the last 20 orders that JSON lines name, the newest first
    """

    template: str
    count: int
    first: datetime | None
    last: datetime | None
    example: str
    level: str
    orders: tuple[str, ...] = ()


@dataclass(slots=True)
class _Entry:
    """A line, with the lines that continue it.

    Attributes
    ----------
    is_plain : False for a JSON line, which no other line continues
    in_traceback : whether the exception's own line, which ends a traceback, is still to come
    final : the exception's own line, which ends a traceback; empty: there is none
    order_id : empty when the line names no order
    """

    at: datetime | None
    text: str
    level: str
    is_plain: bool = True
    in_traceback: bool = False
    final: str = ""
    order_id: str = ""

    def add_line(self, text: str) -> bool:
        """Add a line if it continues this entry; return whether it does.

        Blank and indented lines do, lines that begin a traceback, and the line that ends one.
        """
        begins_traceback = text.startswith(_TRACEBACK_STARTS)
        is_harmless = self.level != "error" and not self.final
        if not self.is_plain or (text.startswith(_TRACEBACK) and is_harmless):
            return False  # without an error to belong to, a traceback is an entry of its own
        if begins_traceback:
            self.in_traceback = True
            self.level = "error"
        elif _is_blank_or_indented(text):
            return True
        elif self.in_traceback:
            self.in_traceback = False
            self.final = text
        else:
            return False
        return True


def group_lines(lines: Iterable[tuple[datetime | None, str]]) -> list[LogGroup]:
    """Group lines by what they say once numbers, ids and quoted text are masked.

    Parameters
    ----------
    lines : time (None when unknown) and text of each line, oldest first

    Returns
    -------
    At most 200 groups: errors first, then warnings, unknown levels, info and debug; within a level
    the largest first. A line with a new template does not count once there are 5,000 templates.
    """
    entries: dict[tuple[str, str], list[_Entry]] = {}
    for entry in _join_lines(lines):
        key = (entry.level, _mask(_get_headline(entry)))
        if key in entries or len(entries) < _MAX_TEMPLATES:
            entries.setdefault(key, []).append(entry)
    groups = [_make_group(template, same) for (_, template), same in entries.items()]
    groups.sort(key=lambda group: (_RANK[group.level], -group.count))
    return groups[:_MAX_GROUPS]


def _make_group(template: str, entries: Sequence[_Entry]) -> LogGroup:
    """Return the group of some entries that share a template, oldest first."""
    times = [entry.at for entry in entries if entry.at]
    # The newest come first, each once.
    orders = dict.fromkeys(entry.order_id for entry in reversed(entries) if entry.order_id)
    return LogGroup(
        template=template,
        count=len(entries),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        example=_get_headline(entries[0]),
        level=entries[0].level,
        orders=tuple(orders)[:_MAX_ORDERS],
    )


def _mask(text: str) -> str:
    """Return a text in which words stand for times, quotes, ids and numbers."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def _join_lines(lines: Iterable[tuple[datetime | None, str]]) -> list[_Entry]:
    """Return the entries of a log. A line that continues the one before it is part of its entry."""
    entries: list[_Entry] = []
    for at, text in lines:
        fields = _parse_json(text)
        if fields is not None:
            entries.append(_from_json(at, fields))
        elif not entries or not entries[-1].add_line(text):
            entries.append(_from_plain(at, text))
    return entries


def _parse_json(text: str) -> dict[str, Any] | None:
    """Return the fields of a JSON line; None for a plain line."""
    if not text.startswith("{"):
        return None
    try:
        fields: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields


def _from_json(at: datetime | None, fields: Mapping[str, Any]) -> _Entry:
    """Return the entry of a JSON line; ``final`` is the last line of its traceback."""
    message = _find_first(fields, _MESSAGE_NAMES)
    trace = _find_first(fields, _EXCEPTION_NAMES)
    level = _LEVELS.get(_find_first(fields, _LEVEL_NAMES).lower(), "")
    if trace:
        level = "error"
    inner = [line for line in trace.splitlines() if not _is_blank_or_indented(line)]
    order_id = _find_first(fields, _ORDER_NAMES)
    if not _ORDER_ID.fullmatch(order_id):
        order_id = ""
    return _Entry(
        at=at,
        text=message or json.dumps(fields, sort_keys=True),
        level=level,
        is_plain=False,
        final=inner[-1] if inner else "",
        order_id=order_id,
    )


def _find_first(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first value under these names that is neither empty nor zero; else ``""``."""
    for name in names:
        value = fields.get(name)
        if value:
            return str(value)
    return ""


def _from_plain(at: datetime | None, text: str) -> _Entry:
    """Return the entry that a logfmt line or a plain line begins."""
    level = ""
    # The level is near the start of a line. Further on, such a word is part of the message.
    match = _PLAIN_LEVEL.search(text[:160])
    if match:
        word = match[1] or match[2]
        level = _LEVELS.get(word.lower(), "")
    message = _parse_logfmt(text)
    if message is not None:
        text = message
    if text.startswith(_TRACEBACK):
        return _Entry(at, text, "error", in_traceback=True)
    return _Entry(at, text, level)


def _parse_logfmt(text: str) -> str | None:
    """Return a logfmt line's message and error as one text; None when the line has no ``msg``."""
    has_message = False
    values = []
    for name, quoted, bare in _LOGFMT.findall(text[:4000]):
        has_message = has_message or name == "msg"
        values.append(quoted or bare)
    return ": ".join(values) if has_message else None


def _get_headline(entry: _Entry) -> str:
    """Return an entry's first line and the exception's own line as one line of printable text."""
    parts = [part for part in (entry.text, entry.final) if part and part != _TRACEBACK]
    # Cut a huge text before the work, but leave room: white space shrinks.
    text = " ".join(": ".join(parts)[: 4 * _MAX_CHARS].split())
    printable = [char if char.isprintable() else "\ufffd" for char in text]
    return "".join(printable)[:_MAX_CHARS]


def _is_blank_or_indented(text: str) -> bool:
    return not text.strip() or text[0] in " \t"
