"""Group log lines that say the same. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from runbook_lib.model import Json, parse_json

_MAX_CHARS = 600
_MAX_GROUPS = 200
#: The first word for a level, or the exception that ends a traceback.
_LEVEL = re.compile(
    r"(?P<error>\b(?:critical|crit|fatal|error|err|panic|exception)\b|^[\w.]+(?:error|exception)\b)"
    r"|(?P<warning>\bwarn(?:ing)?\b)|(?P<info>\b(?:info|notice|debug|trace)\b)",
    re.I,
)
_ORDER = ("error", "warning")
_QUOTED = re.compile(r"\"[^\"]{0,300}\"|(?<!\w)'[^']{0,300}'(?!\w)")
#: A word with a digit: a number, a time, an id or a hash.
_NUMBER = re.compile(r"[\w.:+-]*\d[\w.:+-]*")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Lines that say the same."""

    level: str  # error, warning or info, or ""
    count: int
    template: str  # with <text> and <n> for what differs
    first: datetime | None
    last: datetime | None
    example: str  # the first line, at most 600 characters


def group_lines(lines: Iterable[tuple[datetime | None, str]]) -> list[LogGroup]:
    """Group lines, text or JSON, that differ only in quoted text and in words with digits.

    Skips blank and indented lines and the heading of a traceback, which belong to other lines.
    Returns at most 200 groups: errors first, then warnings; the largest first.
    ``lines`` are each line's time, if known, and its text, oldest first.
    """
    times: dict[tuple[str, str], list[datetime | None]] = defaultdict(list)
    examples: dict[tuple[str, str], str] = {}
    for at, raw in lines:
        if not raw.strip() or raw[0].isspace() or raw.startswith("Traceback ("):
            continue
        level, text = _parse(raw)
        text = _clean(text)
        template = _NUMBER.sub("<n>", _QUOTED.sub("<text>", text))
        times[level, template].append(at)
        examples.setdefault((level, template), text)
    groups = []
    for (level, template), found in times.items():
        known = [at for at in found if at]
        first = known[0] if known else None
        last = known[-1] if known else None
        example = examples[level, template]
        groups.append(LogGroup(level, len(found), template, first, last, example))
    groups.sort(key=lambda group: ((*_ORDER, group.level).index(group.level), -group.count))
    return groups[:_MAX_GROUPS]


def _parse(raw: str) -> tuple[str, str]:
    """Return a line's level and message."""
    try:
        fields = parse_json(raw)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return _find_level(raw), raw
    text = _find_first(fields, "msg", "message", "event", "error") or raw
    trace = _find_first(fields, "exc", "exc_info", "exception", "traceback", "stack")
    if trace:
        return "error", f"{text}: {trace.splitlines()[-1]}"
    return _find_level(_find_first(fields, "level", "severity", "levelname", "lvl")), text


def _find_level(text: str) -> str:
    """Return the level in the first 160 characters, or ""."""
    match = _LEVEL.search(text[:160])
    return str(match.lastgroup) if match else ""


def _find_first(fields: Mapping[str, Json], *names: str) -> str:
    """Return the first value under these names that is neither empty nor zero, or ""."""
    return next((str(fields[name]) for name in names if fields.get(name)), "")


def _clean(text: str) -> str:
    line = " ".join(text[: 4 * _MAX_CHARS].split())[:_MAX_CHARS]
    return "".join(char if char.isprintable() else "\ufffd" for char in line)
