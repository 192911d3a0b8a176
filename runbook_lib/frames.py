"""The rows of a reading as a pandas frame, for an engineer to work with.

pandas is imported when a frame is made, so that commands that make none start fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Literal

from .model import Json, Outcome

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["datetime64[ns, UTC]", "Int64", "Float64", "string", "boolean", "object"]
TIME: Final = "datetime64[ns, UTC]"
WHOLE: Final = "Int64"
NUMBER: Final = "Float64"
TEXT: Final = "string"
FLAG: Final = "boolean"
_ANY: Final = "object"
#: The dtype of a column whose values all have one type: the first type that fits counts.
_DTYPES: tuple[tuple[type | UnionType, Dtype], ...] = (
    (int, WHOLE),
    (int | float, NUMBER),
    (str, TEXT),
)

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def to_frame(reading: Outcome | None, columns: Mapping[str, Dtype] | None = None) -> pd.DataFrame:
    """Return the rows of a reading as a frame.

    Parameters
    ----------
    reading : one without rows, or None, gives an empty frame
    columns : dtypes by name, of columns that the frame always has; another column gets its dtype
        from its values

    Returns
    -------
    Index: 0, 1, 2, …, in the order of the reading's rows.

    Columns: those of ``columns``, then those of the reading, then those of its rows. Units stand
    in the names (``_minutes``, ``_bytes``, ``_s``). Dtypes:

    - ``datetime64[ns, UTC]``: times, in the form of the journal (``2026-11-27T03:14:15.000Z``)
    - ``Int64``: whole numbers; ``Float64``: other numbers
    - ``boolean``: yes or no
    - ``string``: text, and a column without any value
    - ``object``: lists, and values of several kinds

    A missing value is NA, or NaT for a time. Empty: no rows, with the columns of ``columns`` and of
    the reading.

    Notes
    -----
    Pure. In a column that ``columns`` declares as time or number, a value that cannot be one
    becomes missing.
    """
    import pandas as pd

    rows: Sequence[Mapping[str, Json]] = ()
    dtypes = dict(columns or {})
    names = list(dtypes)
    if reading is not None:
        rows = reading.rows
        names.extend(reading.columns)
    for row in rows:
        names.extend(row)
    index = pd.RangeIndex(len(rows))
    frame = pd.DataFrame(index=index)
    for name in dict.fromkeys(names):
        values = [row.get(name) for row in rows]
        dtype = dtypes.get(name)
        if dtype is None:
            dtype = find_dtype(values)
        frame[name] = _to_series(values, dtype)
    return frame


def to_rows(frame: pd.DataFrame) -> list[dict[str, Json]]:
    """Return the rows of a frame as a table shows them; a missing value is None."""
    # Only an object column can hold None.
    values = frame.astype("object").where(frame.notna(), None)
    names = [str(name) for name in frame.columns]
    rows = values.itertuples(index=False)
    return [dict(zip(names, row, strict=True)) for row in rows]


def find_dtype(values: Iterable[Json]) -> Dtype:
    """Return the dtype of a column by its values; None is a missing value."""
    known = [value for value in values if value is not None]
    if not known:
        return TEXT
    # Python counts a bool as an int.
    if any(isinstance(value, bool) for value in known):
        return FLAG if _are_all(known, bool) else _ANY
    if all(_is_time(value) for value in known):
        return TIME
    for kind, dtype in _DTYPES:
        if _are_all(known, kind):
            return dtype
    return _ANY


def _are_all(values: Iterable[Json], kind: type | UnionType) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_time(value: Json) -> bool:
    if isinstance(value, str):
        return _TIME.fullmatch(value) is not None
    return isinstance(value, datetime)


def _to_series(values: list[Json], dtype: Dtype) -> pd.Series[Any]:
    """Return a column. If ``dtype`` is times or numbers, any other value becomes missing."""
    import pandas as pd

    column = pd.Series(values, dtype=_ANY)
    if dtype == TIME:
        times = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        earliest = pd.Timestamp.min.tz_localize("UTC")
        latest = pd.Timestamp.max.tz_localize("UTC")
        fits_dtype = times.between(earliest, latest)
        return times.where(fits_dtype).astype(TIME)
    if dtype in (WHOLE, NUMBER):
        numbers = pd.to_numeric(column, errors="coerce")
        if dtype == WHOLE:
            is_whole = numbers % 1 == 0
            numbers = numbers.where(is_whole)
        return numbers.astype(dtype)
    return column.astype(dtype)
