"""The rows of a reading as a pandas frame, for an engineer to work with.

pandas is imported when a frame is made, so that commands that make none start fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
_DTYPES: dict[type, Dtype] = {bool: FLAG, int: WHOLE, float: NUMBER}
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

    dtypes = dict(columns or {})
    rows = reading.rows if reading else ()
    names = dict.fromkeys([*dtypes, *(reading.columns if reading else ())])
    for row in rows:
        names.update(dict.fromkeys(row))
    frame = pd.DataFrame(index=pd.RangeIndex(len(rows)))
    for name in names:
        values = [row.get(name) for row in rows]
        frame[name] = _to_series(values, dtypes.get(name) or find_dtype(values))
    return frame


def find_dtype(values: Iterable[Json]) -> Dtype:
    """Return the dtype of a column by its values; None is a missing value."""
    known = [value for value in values if value is not None]
    if not known:
        return TEXT
    kinds = {str if isinstance(value, str) else type(value) for value in known}
    if kinds == {str}:
        is_time = all(_TIME.fullmatch(value) for value in known)
        return TIME if is_time else TEXT
    if kinds == {float, int}:
        return NUMBER
    return _DTYPES.get(kinds.pop(), _ANY) if len(kinds) == 1 else _ANY


def _to_series(values: list[Json], dtype: Dtype) -> pd.Series[Any]:
    """Return a column. If ``dtype`` is times or numbers, any other value becomes missing."""
    import pandas as pd

    column = pd.Series(values, dtype=_ANY)
    if dtype == TIME:
        times = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        # A time that nanoseconds can't count, such as in the year 9999, is none.
        earliest = pd.Timestamp.min.tz_localize("UTC")
        latest = pd.Timestamp.max.tz_localize("UTC")
        return times.where(times.between(earliest, latest)).astype(TIME)
    if dtype in (WHOLE, NUMBER):
        numbers = pd.to_numeric(column, errors="coerce")
        if dtype == WHOLE:
            numbers = numbers.where(numbers % 1 == 0)
        return numbers.astype(dtype)
    return column.astype(dtype)
