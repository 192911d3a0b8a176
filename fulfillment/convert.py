"""Read a reading that an older version journalled: it has observations, and no measurements."""

from __future__ import annotations

from runbook_lib.model import AlertState, Measurement, Reading, Status

from .quantities import (
    DELAY_ALERT,
    Backlog,
    Quantity,
    Uploads,
    measure,
    measure_lag,
    measure_recovery,
)


def convert(reading: Reading) -> tuple[Measurement, ...]:
    """Return what a step's reading says of quantities."""
    seen = reading.observations
    is_signal = reading.step == "2.1"
    is_low = seen.get("lag_is_low")
    backlog = Backlog(seen["waiting"]) if seen.get("waiting") else None
    alerts = reading.alerts
    statuses: dict[str, Status] = {}
    if is_signal:
        statuses = measure_lag(reading.status, is_over=seen.get("lag_is_over"), is_low=is_low)
        if reading.well_since:
            statuses[Quantity.BACKLOG] = Status.OK
        if not alerts and reading.status in (Status.OK, Status.BREACH):
            alerts = {DELAY_ALERT: AlertState.RESOLVED}
    elif reading.step == "6.5" and backlog is not None:
        statuses = measure_recovery(is_low, backlog)
    if "lag_is_low" not in seen:
        statuses.pop(Quantity.LOW_LAG, None)
    return measure(
        statuses,
        alerts=alerts,
        uploads=Uploads(seen["uploads"]) if "uploads" in seen else None,
        backlog=backlog,
        begun=reading.since if is_signal else None,
        well_since=reading.well_since,
    )
