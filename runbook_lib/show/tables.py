"""Readings, plans and findings as frames, and frames as HTML that nothing can break out of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..model import Finding, Json, Reading
from .text import format_bytes, format_value, safe

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "finding_rows",
    "findings_frame",
    "page_of_plan",
    "pill",
    "readings_frame",
    "render_rows",
    "render_table",
]

# background, text; every pair has a contrast over 7:1, in light and dark surroundings alike
_PILLS = {
    "good": ("#d5f0dc", "#0b3d1d"),
    "bad": ("#fbdcd6", "#6b1207"),
    "unsure": ("#fdedc3", "#4d3800"),
    "plain": ("#e4e8ee", "#22303f"),
}
_TONES = {
    "ok": ("good", "✓"),
    "breach": ("bad", "✖"),
    "unknown": ("unsure", "?"),
    "supported": ("bad", "●"),
    "refuted": ("plain", "○"),
    "undecided": ("unsure", "?"),
    "healthy": ("good", "✓"),
    "incident": ("bad", "✖"),
    "fixed": ("good", "✓"),
    "fixed_alert_decaying": ("good", "✓"),
    "mitigated": ("unsure", "!"),
    "not_fixed": ("bad", "✖"),
    "planned": ("plain", "■"),
    "approved": ("plain", "▸"),
    "applied": ("plain", "▸"),
    "verified": ("good", "✓"),
    "refused": ("unsure", "!"),
    "failed": ("bad", "✖"),
}
_FINDING_COLUMNS = ["cause", "status", "score", "evidence", "reason", "next_step"]
_CELL = "text-align:left;vertical-align:top;"
_LONG = f"{_CELL}overflow-wrap:anywhere;max-width:28rem"
_SHORT = f"{_CELL}white-space:nowrap"
_SHORT_CHARACTERS = 22


def pill(word: str) -> Markup:
    """Return a status as icon, word and colour: any one of the three is enough to read it."""
    tone, icon = _TONES.get(word, ("plain", "·"))
    back, text = _PILLS[tone]
    return Markup(
        '<span style="background-color:{};color:{};border-radius:4px;padding:1px 7px;'
        'font-weight:600;white-space:{}">{} {}</span>'
    ).format(
        back,
        text,
        "nowrap" if word in _TONES else "normal",
        icon,
        safe(word.replace("_", " "), 40),
    )


def readings_frame(readings: Iterable[Reading]) -> pd.DataFrame:
    """Return readings as a frame.

    Returns
    -------
    Columns ``step name status value threshold reason observed_at source`` (all ``str``, value with
    its unit, time UTC), one row per reading; the same columns when there is none.
    """
    import pandas as pd

    columns = ["step", "name", "status", "value", "threshold", "reason", "observed_at", "source"]
    rows = [
        (
            r.step,
            r.name,
            str(r.status),
            format_value(r.value, r.unit),
            r.threshold,
            r.reason,
            f"{r.observed_at:%Y-%m-%d %H:%M:%SZ}",
            r.source,
        )
        for r in readings
    ]
    return pd.DataFrame(rows, columns=columns, dtype="str")


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as a frame, the most supported first.

    Returns
    -------
    Columns ``cause status evidence reason next_step`` (str) and ``score`` (float64, -1 to 1).
    """
    import pandas as pd

    frame = pd.DataFrame(finding_rows(findings), columns=_FINDING_COLUMNS)
    return frame.astype({"score": "float64"})


def finding_rows(findings: Iterable[Finding]) -> list[dict[str, Json]]:
    """Return findings as rows, the most supported first; needs no pandas, so a cell is quick."""
    order = {"supported": 0, "undecided": 1, "refuted": 2}
    ranked = sorted(findings, key=lambda f: (order[f.status], -f.score))
    values = (
        (str(f.name), str(f.status), f.score, ", ".join(f.evidence), f.reason, f.next_step)
        for f in ranked
    )
    return [dict(zip(_FINDING_COLUMNS, row, strict=True)) for row in values]


def page_of_plan(
    rows: Iterable[Mapping[str, Json]],
    *,
    page: int = 1,
    page_rows: int = 200,
    contains: str = "",
    sort_by: str = "",
    descending: bool = False,
) -> tuple[list[Mapping[str, Json]], int]:
    """Return one page of a plan's rows and the number of rows that match.

    Parameters
    ----------
    rows : streamed; only one page is kept unless ``sort_by`` needs all that match
    page : from 1
    contains : only rows whose key or order holds this text
    sort_by : a column; empty: the plan's own order (by key)
    """
    wanted = contains.casefold()
    matching = (
        row
        for row in rows
        if wanted in f"{row.get('key', '')} {row.get('order_id', '')}".casefold()
    )
    start = (page - 1) * page_rows
    if sort_by:
        ordered = sorted(
            matching,
            key=lambda r: (r.get(sort_by) is None, _sort_key(r.get(sort_by))),
            reverse=descending,
        )
        return ordered[start : start + page_rows], len(ordered)
    before = sum(1 for _ in islice(matching, start))
    shown = list(islice(matching, page_rows))
    return shown, before + len(shown) + sum(1 for _ in matching)


def render_table(frame: pd.DataFrame, *, caption: str) -> Markup:
    """Return a frame as an HTML table with caption and scoped headers; everything escaped."""
    return render_rows(frame.to_dict("records"), caption=caption, columns=list(frame.columns))


def render_rows(
    rows: Sequence[Mapping[Any, Json]], *, caption: str, columns: Sequence[Any] = ()
) -> Markup:
    """Return rows as an HTML table with caption and scoped headers; everything escaped.

    A column ``status`` or ``phase`` becomes pills, one that ends in ``bytes`` sizes.
    """
    if not rows and not columns:
        return Markup("<p>{}: none</p>").format(safe(caption))
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    head = Markup("").join(
        Markup('<th scope="col" style="{}">{}</th>').format(
            _style(str(n)), safe(str(n).replace("_", " "))
        )
        for n in names
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td style="{}">{}</td>').format(_style(cell), cell)
                for cell in (_cell(str(n), row.get(n)) for n in names)
            )
        )
        for row in rows
    )
    if not rows:
        body = Markup('<tr><td colspan="{}">none</td></tr>').format(max(1, len(names)))
    return Markup(
        '<table><caption style="text-align:left;font-weight:600">{}</caption>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    ).format(safe(caption), head, body)


def _style(text: str) -> str:
    """A short word is never cut in two; a long one may be, anywhere."""
    return _SHORT if len(text) <= _SHORT_CHARACTERS else _LONG


def _cell(name: str, value: Json) -> Markup:
    if name in ("status", "phase", "verdict") and isinstance(value, str):
        return pill(value)
    if name.endswith("bytes") and isinstance(value, int | float):
        return safe(format_bytes(value))
    return safe(format_value(value), 500)


def _sort_key(value: Json) -> tuple[int, float, str]:
    is_number = isinstance(value, int | float)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))
