"""The rows of a reading as a typed frame, for what an engineer does next.

Nothing is imported from pandas at module level, so that commands that need none start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from .model import Outcome

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["datetime64[us, UTC]", "Int64", "Float64", "string", "boolean", "object"]
TIME: Final = "datetime64[us, UTC]"
WHOLE: Final = "Int64"
NUMBER: Final = "Float64"
TEXT: Final = "string"
FLAG: Final = "boolean"
#: A time as the journal writes it.
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


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

    - ``datetime64[us, UTC]``: times, in the form of the journal (``2026-11-27T03:14:15.000Z``)
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
        column = pd.Series([row.get(name) for row in rows], dtype="object")
        frame[name] = _convert(column, dtypes.get(name))
    return frame


def _convert(column: pd.Series[Any], dtype: Dtype | None) -> pd.Series[Any]:
    """Return a column with its dtype; None: the dtype that fits its values."""
    import pandas as pd

    if dtype is None:
        known = column.dropna()
        if known.empty:
            return column.astype(TEXT)
        column = column.convert_dtypes()
        is_time = column.dtype == TEXT and known.str.fullmatch(_TIME).all()
        if not is_time:
            return column
        dtype = TIME
    if dtype == TIME:
        return pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce").astype(TIME)
    if dtype in (WHOLE, NUMBER):
        numbers = pd.to_numeric(column, errors="coerce")
        if dtype == WHOLE:
            numbers = numbers.where(numbers % 1 == 0)
        return numbers.astype(dtype)
    return column.astype(dtype)
