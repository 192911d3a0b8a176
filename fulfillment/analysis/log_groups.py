"""Group log lines into templates: what was said, how often, first and last.

Lines are data: whatever they hold is masked, cut and counted, never interpreted. JSON lines,
logfmt and plain lines are understood; a traceback is one entry with the line before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

_MAX_CHARS = 600
_MAX_TEMPLATES = 5000
_MAX_GROUPS = 200
_LEVELS = {
    "critical": "error", "crit": "error", "fatal": "error", "error": "error", "err": "error",
    "panic": "error", "exception": "error", "warning": "warning", "warn": "warning",
    "info": "info", "notice": "info", "debug": "debug", "trace": "debug",
}  # fmt: skip
_RANK = {"error": 0, "warning": 1, "": 2, "info": 3, "debug": 4}
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
_CHAINED = ("During handling of the above", "The above exception was", "Caused by:", _TRACEBACK)
_MESSAGE_NAMES = ("msg", "message", "event", "error")
_LEVEL_NAMES = ("level", "severity", "levelname", "lvl")
_EXCEPTION_NAMES = ("exc", "exc_info", "exception", "traceback", "stack_trace", "stack")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Entries that say the same.

    ``level`` is error, warning, info, debug or empty; ``example`` is the first entry's text.
    """

    template: str
    count: int
    first: datetime | None
    last: datetime | None
    example: str
    level: str


@dataclass(slots=True)
class _Entry:
    """A line with those that continue it.

    ``final`` is the last of these that is not indented; None while no line continues it.
    """

    at: datetime | None
    text: str
    level: str
    is_plain: bool = True
    in_traceback: bool = False
    final: str | None = None

    def take(self, text: str) -> bool:
        """Take a line in if it continues this entry."""
        is_inner, is_chained = _is_inner(text), text.startswith(_CHAINED)
        # Without an error to belong to, a traceback is an entry of its own.
        is_own = text.startswith(_TRACEBACK) and self.level != "error" and self.final is None
        if not self.is_plain or is_own or not (is_chained or is_inner or self.in_traceback):
            return False
        self.level = "error" if is_chained else self.level
        # the exception's own line ends a traceback
        self.in_traceback = is_chained or (is_inner and self.in_traceback)
        self.final = (self.final or "") if is_inner else text
        return True


def group_lines(lines: Iterable[tuple[datetime | None, str]]) -> list[LogGroup]:
    """Group lines by what they say once numbers, ids and quoted text are masked.

    Parameters
    ----------
    lines : time (None when unknown) and text of each line, oldest first

    Returns
    -------
    At most 200 groups, errors first and then by count.
    """
    found: dict[tuple[str, str], LogGroup] = {}
    for entry in _join(lines):
        template = text = _headline(entry)
        for pattern, mask in _MASKS:
            template = pattern.sub(mask, template)
        key = entry.level, template
        group = found.get(key) or LogGroup(template, 0, None, None, text, entry.level)
        if group.count or len(found) < _MAX_TEMPLATES:
            first, last = group.first or entry.at, entry.at or group.last
            found[key] = replace(group, count=group.count + 1, first=first, last=last)
    return sorted(found.values(), key=lambda g: (_RANK[g.level], -g.count))[:_MAX_GROUPS]


def _join(lines: Iterable[tuple[datetime | None, str]]) -> list[_Entry]:
    """Return entries: lines that continue another are joined to it."""
    entries: list[_Entry] = []
    for at, text in lines:
        record = None
        with suppress(ValueError, RecursionError):  # one that is no JSON is a plain line
            record = json.loads(text) if text.startswith("{") else None
        if record is not None:
            entries.append(_from_json(at, record))
        elif not (entries and entries[-1].take(text)):
            entries.append(_from_plain(at, text))
    return entries


def _from_json(at: datetime | None, record: dict[str, Any]) -> _Entry:
    def find(names: Iterable[str]) -> str:
        return next((str(record[n]) for n in names if record.get(n)), "")

    message, trace = find(_MESSAGE_NAMES), find(_EXCEPTION_NAMES)
    level = "error" if trace else _LEVELS.get(find(_LEVEL_NAMES).lower(), "")
    final = next((line for line in reversed(trace.splitlines()) if not _is_inner(line)), "")
    text = message or json.dumps(record, sort_keys=True)
    return _Entry(at, text, level, is_plain=False, final=final)


def _from_plain(at: datetime | None, text: str) -> _Entry:
    match = _PLAIN_LEVEL.search(text[:160])
    level = _LEVELS.get((match[1] or match[2]).lower(), "") if match else ""
    said = [(m[1], m[2] if m[2] is not None else m[3]) for m in _LOGFMT.finditer(text[:4000])]
    if any(name == "msg" for name, _ in said):
        text = ": ".join(value for _, value in said)
    is_trace = text.startswith(_TRACEBACK)
    return _Entry(at, text, "error" if is_trace else level, in_traceback=is_trace)


def _headline(entry: _Entry) -> str:
    """Return the entry's first line, with the last exception's line when it has one."""
    parts = [part for part in (entry.text, entry.final) if part and part != _TRACEBACK]
    text = " ".join(": ".join(parts)[: 4 * _MAX_CHARS].split())
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:_MAX_CHARS]


def _is_inner(text: str) -> bool:
    return not text.strip() or text[0] in " \t"
