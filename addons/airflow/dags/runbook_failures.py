"""Tell the runbook's receivers that a task failed: by Alertmanager, which knows them already."""

from __future__ import annotations

import json
import logging
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from runbook_command import read_setting

__all__ = ["tell_receivers"]

_log = logging.getLogger(__name__)
_TIMEOUT_S = 10
#: Alertmanager resolves the alert after that: a run that failed does not heal.
_LASTS = timedelta(hours=1)


def tell_receivers(context: Any) -> None:
    """Send an alert about a task that failed for good; its route is that of its severity.

    Notes
    -----
    Only when ``RUNBOOK_AIRFLOW_ALERTMANAGER`` names an Alertmanager.
    """
    url = read_setting("ALERTMANAGER")
    if not url:
        return
    if not url.startswith(("http://", "https://")):
        raise ValueError("RUNBOOK_AIRFLOW_ALERTMANAGER is not an address: http://host:port is")
    instance = context["ti"]
    now = datetime.now(UTC)
    alert = {
        "labels": {
            "alertname": "RunbookTaskFailed",
            "severity": "high",
            "service": "runbook",
            "dag": instance.dag_id,
            "run": instance.run_id,
            "task": instance.task_id,
        },
        "annotations": {
            "summary": f"{instance.dag_id}: {instance.task_id} failed in run {instance.run_id}",
            "description": str(context.get("exception") or "The task's log says why."),
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + _LASTS).isoformat(),
    }
    request = urllib.request.Request(  # noqa: S310  # checked above
        f"{url.rstrip('/')}/api/v2/alerts",
        data=json.dumps([alert]).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        _log.info("told Alertmanager: %s", response.status)
