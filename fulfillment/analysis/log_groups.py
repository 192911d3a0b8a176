"""Group log lines into templates: what was said, how often, first and last.

Lines are data: whatever they hold is masked, cut and counted, never interpreted. JSON lines,
logfmt and plain lines are understood; a traceback is one entry with the line before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

_MAX_CHARS = 600
_MAX_TEMPLATES = 5000
_MAX_ENTRY_LINES = 200
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


@dataclass(frozen=True, slots=True)
class LogGroups:
    """Groups, errors first and then by count; ``dropped`` entries are in none of them."""

    groups: tuple[LogGroup, ...]
    lines: int
    entries: int
    dropped: int


@dataclass(slots=True)
class _Entry:
    at: datetime | None
    text: str
    level: str
    is_plain: bool
    in_traceback: bool = False
    more: list[str] = field(default_factory=list)


def group_lines(
    lines: Iterable[tuple[datetime | None, str]], *, max_groups: int = 200
) -> LogGroups:
    """Group lines by what they say once numbers, ids and quoted text are masked.

    Parameters
    ----------
    lines : time (None when unknown) and text of each line, oldest first
    max_groups : keep so many groups; entries of the others are counted as dropped
    """
    found: dict[tuple[str, str], LogGroup] = {}
    entries = dropped = count = 0

    def counted() -> Iterator[tuple[datetime | None, str]]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    for entry in _join(counted()):
        entries += 1
        text = _headline(entry)
        key = entry.level, _mask(text)
        group = found.get(key)
        if group is not None:
            last = entry.at or group.last
            first = group.first or entry.at
            found[key] = replace(group, count=group.count + 1, first=first, last=last)
        elif len(found) < _MAX_TEMPLATES:
            found[key] = LogGroup(key[1], 1, entry.at, entry.at, text, entry.level)
        else:
            dropped += 1
    ordered = sorted(found.values(), key=lambda g: (_RANK[g.level], -g.count))
    dropped += sum(group.count for group in ordered[max_groups:])
    return LogGroups(tuple(ordered[:max_groups]), count, entries, dropped)


def _join(lines: Iterable[tuple[datetime | None, str]]) -> Iterator[_Entry]:
    """Yield entries: lines that continue another are joined to it."""
    current: _Entry | None = None
    for at, text in lines:
        record = _parse_json(text)
        if record is None and current is not None and _continues(current, text):
            if len(current.more) < _MAX_ENTRY_LINES:
                current.more.append(text)
            continue
        if current is not None:
            yield current
        current = _from_json(at, record) if record is not None else _from_plain(at, text)
    if current is not None:
        yield current


def _continues(entry: _Entry, text: str) -> bool:
    if not entry.is_plain:
        return False
    if text.startswith(_CHAINED):
        # Without an error to belong to, a traceback is an entry of its own.
        if text.startswith(_TRACEBACK) and not (entry.level == "error" or entry.more):
            return False
        entry.in_traceback, entry.level = True, "error"
        return True
    if not text.strip() or text[0] in " \t":
        return True
    if entry.in_traceback:
        entry.in_traceback = False  # the exception's own line ends it
        return True
    return False


def _from_json(at: datetime | None, record: dict[str, Any]) -> _Entry:
    message = next((str(record[n]) for n in _MESSAGE_NAMES if record.get(n)), "")
    level = next((str(record[n]) for n in _LEVEL_NAMES if record.get(n)), "")
    trace = next((str(record[n]) for n in _EXCEPTION_NAMES if record.get(n)), "")
    entry = _Entry(at, message or json.dumps(record, sort_keys=True), "", is_plain=False)
    entry.level = _LEVELS.get(level.lower(), "")
    if trace:
        entry.more, entry.level = trace.splitlines(), "error"
    return entry


def _from_plain(at: datetime | None, text: str) -> _Entry:
    match = _PLAIN_LEVEL.search(text[:160])
    level = _LEVELS.get((match[1] or match[2]).lower(), "") if match else ""
    said = [(m[1], m[2] if m[2] is not None else m[3]) for m in _LOGFMT.finditer(text[:4000])]
    if any(name == "msg" for name, _ in said):
        text = ": ".join(value for _, value in said)
    is_trace = text.startswith(_TRACEBACK)
    return _Entry(at, text, "error" if is_trace else level, is_plain=True, in_traceback=is_trace)


def _headline(entry: _Entry) -> str:
    """Return the entry's first line, with the last exception's line when it has one."""
    final = next((t for t in reversed(entry.more) if t.strip() and t[0] not in " \t"), "")
    parts = [part for part in (entry.text, final) if part and part != _TRACEBACK]
    text = " ".join(": ".join(parts)[: 4 * _MAX_CHARS].split())
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:_MAX_CHARS]


def _mask(text: str) -> str:
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def _parse_json(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
