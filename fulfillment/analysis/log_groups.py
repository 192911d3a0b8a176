"""Group log lines that say the same: what they say, how often, and when first and last. Pure.

Lines may be JSON or text; nothing in them is executed. A blank or indented line, and
the heading of a traceback, belong to another line: they are left out.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

_MAX_CHARS = 600
_MAX_GROUPS = 200
_MAX_ORDERS = 20
#: The first word for a level counts; so does the exception that ends a traceback.
_LEVEL = re.compile(
    r"(?P<error>\b(?:critical|crit|fatal|error|err|panic|exception)\b|^[\w.]+(?:error|exception)\b)"
    r"|(?P<warning>\bwarn(?:ing)?\b)|(?P<info>\b(?:info|notice|debug|trace)\b)",
    re.I,
)
_ORDER = ("error", "warning")
#: What differs between two lines that say the same, and what stands for it in a template.
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\"[^\"]{0,300}\"|(?<!\w)'[^']{0,300}'(?!\w)"), "<text>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"(?<![A-Za-z_0-9])\d+(?:[.,:]\d+)*"), "<n>"),
)
_ORDER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Lines that say the same.

    Attributes
    ----------
    template : the text that they share, with masks such as ``<n>`` for what differs
    first, last : when the first and the last line was logged; None when unknown
    example : the first line's text, without masks, at most 600 characters
    level : error, warning or info; empty when unknown
    orders : the ids of the last 20 orders that JSON lines name, the newest first
    """

    template: str
    count: int
    first: datetime | None
    last: datetime | None
    example: str
    level: str
    orders: tuple[str, ...] = ()


class _Line(NamedTuple):
    at: datetime | None
    text: str
    order_id: str


def group_lines(lines: Iterable[tuple[datetime | None, str]]) -> list[LogGroup]:
    """Group lines by what they say once numbers, ids and quoted text are masked.

    Parameters
    ----------
    lines : time (None when unknown) and text of each line, oldest first

    Returns
    -------
    At most 200 groups: errors first, then warnings; within a level the largest first.
    """
    groups: dict[tuple[str, str], list[_Line]] = defaultdict(list)
    for at, raw in lines:
        if not raw.strip() or raw[0].isspace() or raw.startswith("Traceback ("):
            continue
        level, text, order_id = _parse(raw)
        text = _clean(text)
        template = text
        for pattern, mask in _MASKS:
            template = pattern.sub(mask, template)
        groups[level, template].append(_Line(at, text, order_id))
    found = [_make_group(level, template, same) for (level, template), same in groups.items()]
    found.sort(key=lambda group: ((*_ORDER, group.level).index(group.level), -group.count))
    return found[:_MAX_GROUPS]


def _make_group(level: str, template: str, lines: Sequence[_Line]) -> LogGroup:
    times = [line.at for line in lines if line.at]
    orders = dict.fromkeys(line.order_id for line in reversed(lines) if line.order_id)
    return LogGroup(
        template=template,
        count=len(lines),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        example=lines[0].text,
        level=level,
        orders=tuple(orders)[:_MAX_ORDERS],
    )


def _parse(raw: str) -> tuple[str, str, str]:
    """Return the level, the message and the order of a line."""
    fields = None
    if raw.startswith("{"):
        try:
            fields = json.loads(raw)
        except (ValueError, RecursionError):
            fields = None
    if fields is None:
        return _find_level(raw), raw, ""
    text = _find_first(fields, "msg", "message", "event", "error") or json.dumps(fields)
    trace = _find_first(fields, "exc", "exc_info", "exception", "traceback", "stack")
    level = _find_level(_find_first(fields, "level", "severity", "levelname", "lvl"))
    if trace:
        level = "error"
        text += f": {trace.splitlines()[-1]}"
    order_id = _find_first(fields, "order_id", "orderId")
    return level, text, order_id if _ORDER_ID.fullmatch(order_id) else ""


def _find_level(text: str) -> str:
    """Return the level that stands near the start of a text; empty when none does."""
    match = _LEVEL.search(text[:160])
    return str(match.lastgroup) if match else ""


def _find_first(fields: Mapping[str, Any], *names: str) -> str:
    """Return the first value under these names that is neither empty nor zero; else ``""``."""
    return next((str(fields[name]) for name in names if fields.get(name)), "")


def _clean(text: str) -> str:
    """Return a text as one line of at most 600 printable characters."""
    line = " ".join(text[: 4 * _MAX_CHARS].split())[:_MAX_CHARS]
    return "".join(char if char.isprintable() else "\ufffd" for char in line)
