"""Rows as typed frames.

pandas is imported late, so that commands that don't need it start fast.
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
    """Return rows as a frame, indexed from 0, with ``columns`` (dtypes by name) first.

    Other columns get their dtypes from the values. Units are in the names, such as ``_minutes``. A
    missing value is NA (NaT for a time), and so is text in a declared number or time column.
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
