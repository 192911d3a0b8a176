"""Step 1.5: releases of this bucket that are not finished, or wait for a person's word."""

from __future__ import annotations

from objectmove.errors import MoveError

from ..change.release import list_unfinished
from ..errors import BadAnswerError
from ..investigation import Investigation
from ..model import Reading, Status
from ..section import Step

__all__ = ["UNFINISHED"]


def _read_unfinished(inv: Investigation) -> Reading:
    """Look into the bucket's own records: every machine sees the same."""
    try:
        rows = list_unfinished(inv.clients)
    except MoveError as error:
        raise BadAnswerError(str(error), system="object store") from error
    said = "; ".join(f"{r['plan']} ({r['rows']} objects) {r['state']}: {r['way_on']}" for r in rows)
    return inv.make_reading(
        "1.5",
        "unfinished releases",
        Status.BREACH if rows else Status.OK,
        value=len(rows),
        unit="releases",
        threshold="a release is not finished, or unproven",
        reason=said or "every release of this bucket is finished",
        rows=rows,
        columns=["plan", "by", "state", "rows", "way_on"],
    )


UNFINISHED = Step(
    "1.5",
    "Releases that are not finished, or wait for a person's word",
    _read_unfinished,
    "the bucket's records under .runbook/releases/",
    name="unfinished releases",
)
