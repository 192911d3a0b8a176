"""Rows as a typed frame, for what an engineer does next.

Nothing is imported from pandas at module level, so that commands that need none start fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["datetime64[us, UTC]", "Int64", "Float64", "string", "boolean", "object"]
TIME: Final = "datetime64[us, UTC]"
WHOLE: Final = "Int64"
NUMBER: Final = "Float64"
TEXT: Final = "string"
FLAG: Final = "boolean"


def to_frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Dtype] = {}) -> pd.DataFrame:
    """Return rows as a frame.

    Parameters
    ----------
    columns : dtypes by name, of columns that the frame always has; another column gets its dtype
        from its values

    Returns
    -------
    Index: 0, 1, 2, …, in the order of the rows.

    Columns: those of ``columns``, then those of the rows. Units stand in the names (``_minutes``,
    ``_bytes``, ``_s``). A missing value is NA, or NaT for a time; so is a text in a column of times
    or numbers. Empty: no rows, with ``columns``.
    """
    import pandas as pd

    frame = pd.DataFrame(list(rows), dtype="object").convert_dtypes()
    names = dict.fromkeys([*columns, *frame])
    frame = frame.reindex(columns=list(names))
    for name, dtype in columns.items():
        if dtype == TIME:
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601", errors="coerce")
        elif dtype in (WHOLE, NUMBER):
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
        frame[name] = frame[name].astype(dtype)
    return frame
