"""The rows of a reading as a typed frame, for what an engineer does next.

Nothing is imported from pandas at module level, so that commands that need none start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from .model import Outcome

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["datetime64[us, UTC]", "Int64", "Float64", "string", "boolean", "object"]
TIME: Final = "datetime64[us, UTC]"
WHOLE: Final = "Int64"
NUMBER: Final = "Float64"
TEXT: Final = "string"
FLAG: Final = "boolean"


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

    - ``datetime64[us, UTC]``: times that ``columns`` declares
    - ``Int64``: whole numbers; ``Float64``: other numbers
    - ``boolean``: yes or no
    - ``string``: text, and a column without any value
    - ``object``: lists, and values of several kinds

    A missing value is NA, or NaT for a time. Empty: no rows, with the columns of ``columns`` and of
    the reading.

    Notes
    -----
    Pure. In a column that ``columns`` declares as time or number, a text that is none becomes
    missing.
    """
    import pandas as pd

    dtypes = dict(columns or {})
    rows = reading.rows if reading else ()
    names = dict.fromkeys([*dtypes, *(reading.columns if reading else ())])
    for row in rows:
        names.update(dict.fromkeys(row))
    frame = pd.DataFrame(list(rows), index=range(len(rows)), columns=list(names), dtype="object")
    for name in names:
        column = frame[name]
        dtype = dtypes.get(name)
        if dtype == TIME:
            column = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        elif dtype in (WHOLE, NUMBER):
            column = pd.to_numeric(column, errors="coerce")
        if dtype is not None:
            frame[name] = column.astype(dtype)
        elif column.isna().all():
            frame[name] = column.astype(TEXT)
        else:
            frame[name] = column.convert_dtypes()
    return frame
